"""Reads files that somebody else may replace at any time, by something that is no file as well."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path


def read_at_most(path: Path, most: int) -> bytes:
    """What a file holds, but no more than so many bytes.

    Raises OSError where it cannot be read, and for a pipe, a socket or a device: whoever opens one of those may wait
    for good for somebody who writes.
    """
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise OSError(errno.EINVAL, "it is no regular file", str(path))
            return file.read(most)
    except ValueError:  # a zero byte
        raise OSError(errno.EINVAL, "this is no path") from None


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
