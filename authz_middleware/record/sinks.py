"""Where records go. A sink is called by the writer thread only, so it may block; it is never called twice at once."""

from __future__ import annotations

import errno
import os
import select
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, Protocol

from authz_middleware.errors import AuthzError, Problem, SettingsError

ROTATION_CHECK_S: Final = 0.25


class SinkError(AuthzError):
    """Records could not be written. `written` of the lines, from the first on, are safe; the rest are not.

    `reason` is a short code (`ENOSPC`) and holds nothing of the lines.
    """

    def __init__(self, written: int, reason: str) -> None:
        self.written = written
        self.reason = reason
        super().__init__(f"{reason} after {written} lines")


class Sink(Protocol):
    """What a decision log needs of the place it is written to."""

    def write(self, lines: Sequence[bytes]) -> None:
        """Write these lines, each of which ends in a newline, in order. Raises SinkError saying how many were
        written; any other exception counts as none."""
        ...

    def close(self) -> None:
        """Let go of files and connections. Nothing is written afterwards."""
        ...


def open_sink(name: str, *, now: bool = True) -> Sink:
    """The sink that the settings name: `stdout`, `stderr` or `file:PATH`. A file is opened `now`, or with the first
    line, when its absence is a SinkError.

    Raises SettingsError for a name that means nothing or a file that cannot be opened for appending.
    """
    kind, _, path = name.partition(":")
    if kind == "file" and path:
        sink = FileSink(Path(path))
        try:
            if now:
                sink.open()
        except OSError as error:
            what = f"cannot be opened for appending ({_code(error)}): {path}"
            raise SettingsError([Problem("decision_log.sink", what)]) from None
        return sink
    if name == "stdout":
        return StdoutSink()
    if name == "stderr":
        return StderrSink()
    raise SettingsError([Problem("decision_log.sink", f'must be "stdout", "stderr" or "file:PATH", not {name!r}')])


class FileSink:
    """Appends to a file that several processes may share.

    Each line is handed to the kernel inside a single `write` on an O_APPEND descriptor, so lines of different
    processes never mix on a local file system (network file systems do not promise that). A file that was renamed
    or removed is noticed within `check_every` seconds and opened anew. Nothing is synced: a record survives the
    end of the process, not the loss of power.
    """

    def __init__(
        self, path: Path, *, check_every: float = ROTATION_CHECK_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.path = path
        self._check_every = check_every
        self._clock = clock
        self._torn = False
        self._fd: int | None = None
        self._check_at = 0.0

    def open(self) -> int:
        """Open the file, creating it readable by its owner only; close the one that was open. Raises OSError."""
        fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self.close()
        self._fd = fd
        self._torn = False
        self._check_at = self._clock() + self._check_every
        return fd

    def write(self, lines: Sequence[bytes]) -> None:
        """Append the lines in one write. Raises SinkError."""
        try:
            fd = self._current()
            if self._torn:
                # Part of a line is in the file, and the whole of it comes again: keep the two apart.
                os.write(fd, b"\n")
                self._torn = False
            data = b"".join(lines)
            length = os.write(fd, data)
        except OSError as error:
            raise SinkError(0, _code(error)) from None
        if length < len(data):
            self._torn = not data[:length].endswith(b"\n")
            raise SinkError(data.count(b"\n", 0, length), "SHORT_WRITE")

    def close(self) -> None:
        """Close the file; another write opens it again."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _current(self) -> int:
        now = self._clock()
        if self._fd is None or (now >= self._check_at and self._is_rotated(self._fd)):
            return self.open()
        if now >= self._check_at:
            self._check_at = now + self._check_every
        return self._fd

    def _is_rotated(self, fd: int) -> bool:
        try:
            named = self.path.stat()
        except FileNotFoundError:
            return True
        opened = os.fstat(fd)
        return (named.st_dev, named.st_ino) != (opened.st_dev, opened.st_ino)


class StreamSink:
    """Writes to a descriptor that somebody else opened, and leaves it open.

    Lines are written in pieces of at most PIPE_BUF bytes, which a pipe takes whole: processes that share it do not
    mix their lines. A single line longer than that (4096 bytes on Linux) has no such promise.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._torn = False

    def write(self, lines: Sequence[bytes]) -> None:
        """Write the lines, waiting for whoever reads. Raises SinkError."""
        written = 0
        for piece in _pieces(lines, select.PIPE_BUF):
            done = 0
            try:
                if self._torn:
                    os.write(self._fd, b"\n")
                    self._torn = False
                while done < len(piece):
                    done += os.write(self._fd, piece[done:])
            except OSError as error:
                self._torn = self._torn or (done > 0 and piece[done - 1 : done] != b"\n")
                raise SinkError(written + piece.count(b"\n", 0, done), _code(error)) from None
            written += piece.count(b"\n")

    def close(self) -> None:
        """Nothing: the descriptor belongs to the process."""


class StdoutSink(StreamSink):
    """Standard output, by its descriptor, so that buffering and replaced `sys.stdout` objects play no part."""

    def __init__(self) -> None:
        super().__init__(1)


class StderrSink(StreamSink):
    """Standard error, by its descriptor."""

    def __init__(self) -> None:
        super().__init__(2)


def _pieces(lines: Sequence[bytes], limit: int) -> Iterator[bytes]:
    """The lines joined into pieces of at most `limit` bytes, or one line where that is longer."""
    piece: list[bytes] = []
    size = 0
    for line in lines:
        if piece and size + len(line) > limit:
            yield b"".join(piece)
            piece, size = [], 0
        piece.append(line)
        size += len(line)
    if piece:
        yield b"".join(piece)


def _code(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, type(error).__name__)
