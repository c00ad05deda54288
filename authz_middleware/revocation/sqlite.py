"""Revocations in an SQLite file on a local disk, shared by the workers of one host.

Every reading asks SQLite whether any process has committed since the last one, and only then reads, and only what is
new; the answer itself comes from memory.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Final, TypeVar
from weakref import WeakSet

from authz_middleware.forking import renew_in_children
from authz_middleware.revocation import database
from authz_middleware.revocation.database import Head
from authz_middleware.revocation.entry import Revocation
from authz_middleware.revocation.index import RevocationIndex
from authz_middleware.revocation.open_file import Identity, OpenFile
from authz_middleware.revocation.store import Reading, StoreUnavailableError, Trouble

logger = logging.getLogger("authz")

RETRY_S: Final = 0.25
"""How long a file that could not be opened is left alone."""

_FINAL: Final = frozenset({Trouble.REPLACED, Trouble.ROLLED_BACK})
"""Revocations may be lost: nothing that the file says later makes up for it."""

R = TypeVar("R")


class SqliteStore:
    """The store in `path`. `clock` gives seconds since the epoch, `monotonic` seconds between two tries to open it."""

    def __init__(
        self, path: Path, *, clock: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.path = path
        self._clock = clock
        self._monotonic = monotonic
        self._file: OpenFile | None = None
        self._reset(Trouble.NOT_STARTED)
        self.renew_after_fork()
        renew_in_children(self)
        _living.add(self)

    def renew_after_fork(self) -> None:
        """Locks that nobody holds. The file was closed before the fork."""
        self._lock = threading.Lock()
        self._writing = threading.Lock()

    def hold_for_fork(self) -> None:
        """Have no connection to the file, until `release_after_fork`.

        SQLite believes the locks of a connection to be those of the process. In a child they are not: there another
        process could take away the files under one that was inherited, or under any that is opened beside it.
        """
        self._writing.acquire()
        self._lock.acquire()
        with suppress(sqlite3.Error):
            self._close_file()

    def release_after_fork(self) -> None:
        """In the parent: go on."""
        self._lock.release()
        self._writing.release()

    def start(self) -> None:
        """Open the file, and make an empty one where there is none. Whatever was wrong with an earlier one is
        forgotten: this file counts from now on."""
        try:
            if database.create(self.path):
                logger.warning("a new, empty store of revocations was made: %s", self.path)
        except (OSError, sqlite3.Error) as error:
            logger.error("no store of revocations could be made at %s: %s", self.path, _explain(error))  # noqa: TRY400 - no traceback
        with self._lock:
            self._close_file()
            self._reset(Trouble.UNREACHABLE)
            self._started = True
            self._look(self._clock())

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._close_file()
            self._reset(Trouble.NOT_STARTED)

    def reading(self, now: float) -> Reading:
        """What is known at `now`."""
        with self._lock:
            trouble = self._look(now)
            index = self._index
            return Reading(index, None if index is None else index.epoch(now), self._as_of, trouble)

    def lag(self, now: float) -> float | None:
        """Seconds since the file was last read; 0.0 while it can be."""
        as_of = self.reading(now).as_of
        return None if as_of is None else max(0.0, now - as_of)

    def add(self, entries: Iterable[Revocation]) -> None:
        """Add revocations, all or none. They survive the loss of power once this returns."""
        added = tuple(entries)
        self._write(lambda connection: database.write(connection, added, self._clock()))

    def withdraw(self, ids: Iterable[str]) -> int:
        """Take revocations back, all or none; the number of those that were there."""
        taken = tuple(dict.fromkeys(ids))
        return self._write(lambda connection: database.withdraw(connection, taken, self._clock()))

    def entries(self) -> Sequence[Revocation]:
        """All of them as the file has them now."""
        return self._write(lambda connection: database.changes_since(connection, 0).there)

    def _write(self, work: Callable[[sqlite3.Connection], R]) -> R:
        """Have work done by a connection of its own: the one that reads would not notice what it writes itself."""

        def connected() -> R:
            with closing(database.connect(self.path, wait=database.WAIT_S)) as connection:
                return work(connection)

        try:
            with self._writing:
                return database.patiently(connected, database.WAIT_S)
        except (StoreUnavailableError, OSError, sqlite3.Error) as error:
            message = f"the store of revocations {self.path} cannot be used: {_explain(error)}"
            raise StoreUnavailableError(database.trouble_of(error), message) from None

    def _reset(self, trouble: Trouble) -> None:
        self._started = False
        self._trouble: Trouble = trouble
        self._suspect = False
        self._retry_at = 0.0
        self._identity: Identity | None = None
        self._head: Head | None = None
        self._index: RevocationIndex | None = None
        self._as_of: float | None = None

    def _close_file(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _look(self, now: float) -> Trouble | None:
        """Under the lock: learn what is new. Never raises, and waits for nobody."""
        if not self._started:
            return Trouble.NOT_STARTED
        try:
            file = self._file
            if file is None:
                if self._trouble in _FINAL or self._monotonic() < self._retry_at:
                    return self._trouble
                file = self._open()
            version = file.version()
            if version != file.known_version:
                self._learn(file, now)
                file.known_version = version
        except Exception as error:  # noqa: BLE001 - whatever it was, what is revoked is not known
            return self._fail(error)
        self._as_of = now
        return None

    def _open(self) -> OpenFile:
        file = OpenFile(self.path)
        self._file = file
        if self._identity not in (None, file.identity):
            raise StoreUnavailableError(Trouble.REPLACED, "it is not the file that was opened")
        self._identity = file.identity
        return file

    def _learn(self, file: OpenFile, now: float) -> None:
        known, index = self._head, self._index
        if known is None or index is None:
            index = self._learn_all(file)
        else:
            changes = database.changes_since(file.connection, known.seq)
            if changes.head.name != known.name:
                raise StoreUnavailableError(Trouble.REPLACED, "it holds another store than before")
            if changes.head.seq < known.seq:
                raise StoreUnavailableError(Trouble.ROLLED_BACK, "it is older than it was")
            if self._suspect:
                self._compare(file.connection, index, now)
            if changes.head.forgotten > known.seq:
                index = self._learn_all(file)
            else:
                index.put(changes.there)
                index.drop(changes.withdrawn)
                self._head = changes.head
        index.purge(now)
        self._suspect = False

    def _learn_all(self, file: OpenFile) -> RevocationIndex:
        database.check(file.connection)
        changes = database.changes_since(file.connection, 0)
        self._head, self._index = changes.head, RevocationIndex(changes.there)
        return self._index

    def _compare(self, connection: sqlite3.Connection, index: RevocationIndex, now: float) -> None:
        """After a trouble: is all that was known still there, or withdrawn?"""
        there = database.ids(connection)
        if any(id_ not in there and entry.is_effective(now) for id_, entry in index.entries.items()):
            raise StoreUnavailableError(Trouble.ROLLED_BACK, "revocations are missing from it")

    def _fail(self, error: Exception) -> Trouble:
        trouble = database.trouble_of(error)
        if trouble is not Trouble.LOCKED:
            if trouble is not self._trouble or not self._suspect:
                logger.error("the store of revocations %s cannot be read: %s", self.path, _explain(error))
            with suppress(sqlite3.Error):
                self._close_file()
            self._suspect = True
        if self._file is None:
            self._retry_at = self._monotonic() + RETRY_S
        self._trouble = trouble
        return trouble


_WORDS: Final = {
    Trouble.CORRUPT: "it is damaged, or no store of revocations",
    Trouble.LOCKED: "another process keeps it locked",
    Trouble.FULL: "there is no room for it",
}


def _explain(error: Exception) -> str:
    """What is wrong, in words that hold nothing of the file."""
    if isinstance(error, StoreUnavailableError):
        return str(error)
    if isinstance(error, OSError):
        return f"{error.strerror or type(error).__name__}"
    if isinstance(error, sqlite3.Error):
        name = getattr(error, "sqlite_errorname", type(error).__name__)
        return f"{_WORDS.get(database.trouble_of(error), 'it cannot be opened, read or written')} ({name})"
    return type(error).__name__


_living: Final[WeakSet[SqliteStore]] = WeakSet()
_held: Final[list[SqliteStore]] = []


def _before_fork() -> None:
    for store in list(_living):
        store.hold_for_fork()
        _held.append(store)


def _after_fork_in_parent() -> None:
    while _held:
        _held.pop().release_after_fork()


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_held.clear)
