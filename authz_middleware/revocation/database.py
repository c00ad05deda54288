"""The SQLite file that the workers of one host share: its form, and what is read from it and written to it.

Every change has a number, `seq`. A reader that knows all up to one number reads what came after it; a revocation that
was withdrawn leaves its id behind for a while, so that a reader learns of that in the same way.
"""

from __future__ import annotations

import errno
import os
import secrets
import sqlite3
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

import msgspec

from authz_middleware.errors import ProblemsError
from authz_middleware.revocation.entry import Revocation
from authz_middleware.revocation.index import KEPT_S
from authz_middleware.revocation.store import StoreUnavailableError, Trouble

R = TypeVar("R")

WAIT_S: Final = 15.0
"""How long a writer waits for another one."""

_FORMAT: Final = 1
_APPLICATION: Final = 0x417A5276  # "AzRv"
_SCHEMA: Final = f"""
    PRAGMA journal_mode = WAL;
    PRAGMA application_id = {_APPLICATION};
    PRAGMA user_version = {_FORMAT};
    CREATE TABLE store (name TEXT NOT NULL, seq INTEGER NOT NULL, forgotten INTEGER NOT NULL);
    CREATE TABLE revocations (id TEXT PRIMARY KEY, seq INTEGER NOT NULL UNIQUE, gone_at REAL NOT NULL, entry TEXT);
    CREATE INDEX ends ON revocations (gone_at);
"""
# gone_at: when it ended or was withdrawn. entry: JSON, or NULL where it was withdrawn.

_LOCKED: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL})
_CORRUPT: Final = frozenset(
    {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_SCHEMA, sqlite3.SQLITE_ERROR}
)

_decode: Final = msgspec.json.Decoder(Revocation).decode


class Head(NamedTuple):
    """Which store a file is, its last change, and the last withdrawal of which no trace is left."""

    name: str
    seq: int
    forgotten: int


class Changes(NamedTuple):
    """What became of a store after some change: revocations that are there, ids of those that were withdrawn."""

    head: Head
    there: list[Revocation]
    withdrawn: list[str]


def create(path: Path) -> bool:
    """Make an empty store for its owner's eyes only, unless there is a file already; whether one was made.

    It appears whole or not at all: processes that start together share one. Raises OSError and sqlite3.Error.
    """
    if path.exists():
        return False
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        os.close(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        with closing(sqlite3.connect(draft, isolation_level=None)) as connection:
            connection.executescript(_SCHEMA)
            connection.execute("INSERT INTO store VALUES (?, 0, 0)", (secrets.token_hex(16),))
        path.hardlink_to(draft)
    except FileExistsError:
        return False
    finally:
        draft.unlink(missing_ok=True)
    _sync(path.parent)
    return True


def patiently(work: Callable[[], R], wait: float) -> R:
    """Do it again while the file is locked, for `wait` seconds: where one process comes as another goes, SQLite says so
    at once, whatever time-out the connection has. Raises what `work` raises."""
    deadline = time.monotonic() + wait
    while True:
        try:
            return work()
        except (StoreUnavailableError, sqlite3.Error) as error:
            if trouble_of(error) is not Trouble.LOCKED or time.monotonic() >= deadline:
                raise
        time.sleep(0.005)


def connect(path: Path, *, wait: float) -> sqlite3.Connection:
    """A connection to an existing store. Raises StoreUnavailableError, OSError and sqlite3.Error."""
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        raise StoreUnavailableError(Trouble.CORRUPT, "it is not a file")
    if mode & stat.S_IWOTH:
        raise StoreUnavailableError(Trouble.EXPOSED, "anybody can write to it; run chmod o-w on it")
    uri = f"{path.absolute().as_uri()}?mode=rw"
    connection = sqlite3.connect(uri, uri=True, timeout=wait, isolation_level=None, check_same_thread=False)
    try:
        _prepare(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def changes_since(connection: sqlite3.Connection, seq: int) -> Changes:
    """What became of the store after change `seq`, as of one moment; all that there is after change 0.

    Raises StoreUnavailableError and sqlite3.Error.
    """
    with _transaction(connection, "DEFERRED"):
        head = _head(connection)
        rows = connection.execute("SELECT id, entry FROM revocations WHERE seq > ?", (seq,)).fetchall()
    there = [_entry(id_, entry) for id_, entry in rows if entry is not None]
    return Changes(head, there, [id_ for id_, entry in rows if entry is None])


def ids(connection: sqlite3.Connection) -> frozenset[str]:
    """The ids of all revocations, withdrawn ones included. Raises sqlite3.Error."""
    return frozenset(id_ for (id_,) in connection.execute("SELECT id FROM revocations"))


def check(connection: sqlite3.Connection) -> None:
    """Raise StoreUnavailableError or sqlite3.Error for a file that is damaged, though it can be read: an index that has
    lost an entry hides the row."""
    if connection.execute("PRAGMA integrity_check(1)").fetchone()[0] != "ok":
        raise StoreUnavailableError(Trouble.CORRUPT, "it is damaged")


def write(connection: sqlite3.Connection, entries: Iterable[Revocation], now: float) -> None:
    """Add revocations, all or none, for good. Raises StoreUnavailableError and sqlite3.Error."""
    with _transaction(connection, "IMMEDIATE"):
        head = _head(connection)
        seq = head.seq
        for entry in entries:
            row = connection.execute("SELECT entry FROM revocations WHERE id = ?", (entry.id,)).fetchone()
            known = _entry(entry.id, row[0]) if row is not None and row[0] is not None else None
            kept = entry if known is None else entry.strengthened(known)
            if kept != known:
                seq += 1
                text = msgspec.json.encode(kept).decode()
                connection.execute(_PUT, (kept.id, seq, kept.expires_at, text))
        _finish(connection, head, seq, now)


def withdraw(connection: sqlite3.Connection, ids: Iterable[str], now: float) -> int:
    """Take revocations back, all or none, for good. Raises StoreUnavailableError and sqlite3.Error."""
    count = 0
    with _transaction(connection, "IMMEDIATE"):
        head = _head(connection)
        for id_ in ids:
            count += connection.execute(_WITHDRAW, (head.seq + count + 1, now, id_)).rowcount
        _finish(connection, head, head.seq + count, now)
    return count


_PUT: Final = "INSERT OR REPLACE INTO revocations (id, seq, gone_at, entry) VALUES (?, ?, ?, ?)"
_WITHDRAW: Final = "UPDATE revocations SET seq = ?, gone_at = ?, entry = NULL WHERE id = ? AND entry IS NOT NULL"


def trouble_of(error: Exception) -> Trouble:
    """What an exception of this module means."""
    if isinstance(error, StoreUnavailableError):
        return error.trouble
    if isinstance(error, FileNotFoundError):
        return Trouble.MISSING
    if isinstance(error, sqlite3.Error):
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        if code in _LOCKED:
            return Trouble.LOCKED
        if code == sqlite3.SQLITE_FULL:
            return Trouble.FULL
        return Trouble.CORRUPT if code in _CORRUPT else Trouble.UNREACHABLE
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return Trouble.FULL
    return Trouble.UNREACHABLE


def _prepare(connection: sqlite3.Connection) -> None:
    """Check that this is a store, and have it as it must be."""
    known = [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")]
    if known != [_APPLICATION, _FORMAT]:
        raise StoreUnavailableError(Trouble.CORRUPT, "it is no store of revocations of this version")
    # A copy may have come in another mode, in which readers and writers have to wait for each other.
    if connection.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
        raise StoreUnavailableError(Trouble.LOCKED, "another process keeps it to itself")
    connection.execute("PRAGMA synchronous = FULL")  # what was acknowledged survives the loss of power
    _head(connection)


def _head(connection: sqlite3.Connection) -> Head:
    rows: Sequence[tuple[str, int, int]] = connection.execute("SELECT name, seq, forgotten FROM store").fetchall()
    if len(rows) != 1:
        raise StoreUnavailableError(Trouble.CORRUPT, "it is damaged: it does not say which store it is")
    return Head(*rows[0])


def _entry(id_: str, text: str) -> Revocation:
    """A revocation as it was written. One that cannot be read is not passed over."""
    try:
        entry = _decode(text)
    except (msgspec.MsgspecError, ProblemsError, TypeError, ValueError):
        entry = None
    if entry is None or entry.id != id_:
        raise StoreUnavailableError(Trouble.CORRUPT, f"it is damaged: revocation {id_!r} cannot be read")
    return entry


def _finish(connection: sqlite3.Connection, head: Head, seq: int, now: float) -> None:
    """Forget what has long been gone, and number the change."""
    old = now - KEPT_S
    row = connection.execute("SELECT max(seq) FROM revocations WHERE gone_at <= ? AND entry IS NULL", (old,)).fetchone()
    if seq != head.seq or row[0] is not None:
        connection.execute("DELETE FROM revocations WHERE gone_at <= ?", (old,))
        connection.execute("UPDATE store SET seq = ?, forgotten = ?", (seq, max(head.forgotten, row[0] or 0)))


@contextmanager
def _transaction(connection: sqlite3.Connection, kind: str) -> Iterator[None]:
    connection.execute(f"BEGIN {kind}")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):  # the connection is about to be closed, which ends the transaction too
            connection.rollback()
        raise


def _sync(folder: Path) -> None:
    """Have the name of a new file survive the loss of power."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
