"""Spent proofs in one SQLite file, for all workers of a host."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import threading
import time
from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import Final

from authz_middleware.forking import renew_in_children
from authz_middleware.identity.possession.replay import ReplayUnavailableError

MAX_BYTES: Final = 256 * 1024 * 1024
"""How large the file may grow; some two million proofs."""

_PAGE: Final = 4096
_SWEEP_EVERY_S: Final = 1.0
_SWEEP_ROWS: Final = 5_000

_SCHEMA: Final = (
    "CREATE TABLE IF NOT EXISTS spent (key BLOB PRIMARY KEY, until REAL NOT NULL) WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS spent_until ON spent (until)",
    "CREATE TABLE IF NOT EXISTS horizon (id INTEGER PRIMARY KEY CHECK (id = 0), forgotten REAL, file BLOB)",
    "INSERT OR IGNORE INTO horizon VALUES (0, 0, randomblob(16))",
)
_RAISE: Final = "UPDATE horizon SET forgotten = max(forgotten, ?)"
# One statement, so that of all processes exactly one has changed a row.
_SPEND: Final = "INSERT OR IGNORE INTO spent SELECT ?, ? WHERE ? > (SELECT forgotten FROM horizon)"
_ENDED: Final = "SELECT max(until), count(*) FROM (SELECT until FROM spent WHERE until <= ? ORDER BY until LIMIT ?)"

# A connection must not cross a fork, not even to be closed: the child keeps the parent's, untouched.
_left_behind: Final[list[sqlite3.Connection]] = []

_Inode = tuple[int, int]


class FileReplay:
    """Remembers the proofs that were shown to any process that uses the same file (see ReplayStore).

    It is written ahead and not synchronised: it survives the death of any process; a host that loses power may forget
    the last moments. `window` is the longest, in seconds, that a proof may be remembered; `wait` how long, in seconds,
    to wait for the other threads and processes. A file that is removed or replaced under running workers is made anew,
    and proofs that may have been in it are refused.
    """

    waits = True

    def __init__(self, path: Path, *, window: float, wait: float = 1.0, max_bytes: int = MAX_BYTES) -> None:
        self.place: Hashable = path.absolute()
        self._path = path
        self._window = window
        self._wait = wait
        self._max_pages = max_bytes // _PAGE
        self._connection: sqlite3.Connection | None = None
        self._inode: _Inode | None = None
        self._file: bytes | None = None
        self._swept_at = 0.0
        self._busy_until = 0.0
        self._lock = threading.Lock()
        renew_in_children(self)

    def start(self) -> None:
        """Make the file where there is none, and see that it can be written; it is not kept open, for the server may
        fork afterwards."""
        with self._lock:
            try:
                self._open(0.0).execute(_RAISE, (0.0,))
            except (sqlite3.Error, OSError) as error:
                raise ReplayUnavailableError(_why(error)) from None
            finally:
                self._disconnect()

    def spend(self, key: bytes, until: float, now: float) -> bool:
        """See ReplayStore."""
        if time.monotonic() < self._busy_until:
            # Or all threads of the process would come to wait for a file that somebody holds.
            raise ReplayUnavailableError("it was kept busy for too long a moment ago")
        if not self._lock.acquire(timeout=self._wait):
            raise ReplayUnavailableError("the other threads keep it busy")
        try:
            return self._spend(key, until, now)
        except BaseException as error:
            self._disconnect()  # which ends a transaction, too
            if not isinstance(error, sqlite3.Error | OSError):
                raise
            if _why(error) == "SQLITE_BUSY":
                self._busy_until = time.monotonic() + self._wait
            raise ReplayUnavailableError(_why(error)) from None
        finally:
            self._lock.release()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._disconnect()

    def renew_after_fork(self) -> None:
        """Called in a forked child: no connection, and a lock that nobody holds."""
        if self._connection is not None:
            _left_behind.append(self._connection)
        self._connection = None
        self._lock = threading.Lock()

    def _spend(self, key: bytes, until: float, now: float) -> bool:
        connection = self._connected(now)
        if abs(now - self._swept_at) >= _SWEEP_EVERY_S:  # either way: time may jump backwards
            self._sweep(connection, now)
        return connection.execute(_SPEND, (key, until, until)).rowcount == 1

    def _connected(self, now: float) -> sqlite3.Connection:
        if self._connection is not None:
            try:
                if self._inode_now() == self._inode:
                    return self._connection
            except FileNotFoundError:
                pass
            self._disconnect()
        return self._open(now)

    def _open(self, now: float) -> sqlite3.Connection:
        # Made before SQLite opens it: nobody else may read or write it, nor what SQLite puts beside it.
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        self._inode = self._inode_now()
        connection = sqlite3.connect(self._path, timeout=self._wait, isolation_level=None, check_same_thread=False)
        self._connection = connection
        self._write_ahead(connection)
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(f"PRAGMA max_page_count = {self._max_pages}")
        with _transaction(connection):
            for statement in _SCHEMA:
                connection.execute(statement)
            (file,) = connection.execute("SELECT file FROM horizon").fetchone()
            if self._file not in (None, file):  # told by what is in it: the number of an inode is used again
                connection.execute(_RAISE, (now + self._window,))
        self._file = file
        return connection

    def _write_ahead(self, connection: sqlite3.Connection) -> None:
        """Switch to the write-ahead log. Where several processes do so at once, SQLite does not wait by itself."""
        end = time.monotonic() + self._wait
        while True:
            try:
                (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
            except sqlite3.OperationalError:
                if time.monotonic() >= end:
                    raise
                time.sleep(0.005)
            else:
                break
        if mode != "wal":
            raise OSError(errno.ENOTSUP, "its file system knows no write-ahead log")

    def _sweep(self, connection: sqlite3.Connection, now: float) -> None:
        """Forget proofs that have ended, a bounded number at a time."""
        with _transaction(connection):
            last, count = connection.execute(_ENDED, (now, _SWEEP_ROWS)).fetchone()
            if count:
                connection.execute(_RAISE, (last,))
                connection.execute("DELETE FROM spent WHERE until <= ?", (last,))
        if count < _SWEEP_ROWS:
            self._swept_at = now

    def _inode_now(self) -> _Inode:
        status = self._path.stat()
        return status.st_dev, status.st_ino

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Not rolled back: whatever fails ends with the connection closed."""
    connection.execute("BEGIN IMMEDIATE")
    yield
    connection.execute("COMMIT")


def _why(error: sqlite3.Error | OSError) -> str:
    """What went wrong in a word; no library's text, but the name of its code."""
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return getattr(error, "sqlite_errorname", type(error).__name__)
