"""Follows files: calls back, from a thread of its own, when one of them has changed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

EVERY_S: Final = 1.0

Stamp = tuple[tuple[int, int, int, int] | None, ...]


class Follower:
    """Looks every second whether some files have changed, and calls `changed` when they have.

    `changed` must not raise. It is called with False as long as nothing has changed, so that it may keep time.
    """

    def __init__(self, files: Iterable[Path], changed: Callable[[bool], object], every: float = EVERY_S) -> None:
        self._files = tuple(files)
        self._changed = changed
        self._every = every
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        # Files were read before there was anybody to follow them: the first look takes them for changed.
        self._stamp: Stamp | None = None

    def start(self) -> None:
        """Start following; without effect where there is nothing to follow."""
        if self._files and self._thread is None:
            self._thread = threading.Thread(target=self._run, name="authz-files", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Stop following."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        while not self._stopped.wait(self._every):
            # Read before the files are: a change in between is seen the next time.
            stamp = self._read()
            changed, self._stamp = stamp != self._stamp, stamp
            self._changed(changed)

    def _read(self) -> Stamp:
        return tuple(map(_stamp_of, self._files))


def _stamp_of(file: Path) -> tuple[int, int, int, int] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino
