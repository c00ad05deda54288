"""Where revocations are kept, and what a request learns from there."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from enum import StrEnum
from typing import Protocol

import msgspec

from authz_middleware.errors import AuthzError
from authz_middleware.revocation.entry import Revocation
from authz_middleware.revocation.index import RevocationIndex


class Trouble(StrEnum):
    """Why a store cannot say what is revoked. The codes are stable; they appear in records, never in an answer."""

    NOT_STARTED = "store.not_started"
    """It was never opened, or has been closed."""
    MISSING = "store.missing"
    """The file is not there."""
    REPLACED = "store.replaced"
    """What is there now is another store than the one that was opened; a restart accepts it."""
    ROLLED_BACK = "store.rolled_back"
    """It is an older state of the store that was opened; a restart accepts it."""
    CORRUPT = "store.corrupt"
    """What is there is damaged, or no store of revocations."""
    EXPOSED = "store.exposed"
    """Anybody can write to the file."""
    LOCKED = "store.locked"
    """Another process keeps it to itself."""
    UNREACHABLE = "store.unreachable"
    """The operating system or the server refuses, or there is no connection."""
    LAG = "store.lag"
    """For longer than `max_lag` nothing has shown that what is known here is complete."""
    FULL = "store.full"
    """There is no room to write."""


class StoreUnavailableError(AuthzError):
    """Revocations could not be written or listed; nothing was acknowledged. The text says how to mend it, and neither
    it nor `trouble` holds a credential."""

    def __init__(self, trouble: Trouble, message: str) -> None:
        self.trouble = trouble
        super().__init__(message)


class Reading(msgspec.Struct, frozen=True, gc=False):
    """What a store knows at a moment.

    `trouble` is None when `index` is current: every revocation that was acknowledged anywhere (for a store with a lag:
    up to `as_of`) is in it. Otherwise it says why that is not known; `index` is then the last one that
    was, at `as_of` (seconds since the epoch), and both are None when there has never been one.

    `epoch` changes with every change of what is effective and never comes back: what was concluded under another epoch
    is to be concluded again. It means something within one process only.
    """

    index: RevocationIndex | None
    epoch: Hashable
    as_of: float | None
    trouble: Trouble | None = None


class RevocationStore(Protocol):
    """Keeps revocations. All methods may be called from any thread, and in a forked child.

    `reading` and `lag` are for the request path: they wait for nobody and never raise. The others may block (use
    `asyncio.to_thread` on an event loop) and raise StoreUnavailableError.
    """

    def start(self) -> None:
        """Open the store and learn what is in it. Does not raise for one that is out of reach: it is tried again, and
        until then every reading says so."""
        ...

    def close(self) -> None:
        """Let go of files, connections and threads; a reading after this is in trouble."""
        ...

    def reading(self, now: float) -> Reading:
        """What is known at `now` (seconds since the epoch)."""
        ...

    def lag(self, now: float) -> float | None:
        """Seconds since the store was last known completely; 0.0 when it is current, None when it never was."""
        ...

    def add(self, entries: Iterable[Revocation]) -> None:
        """Add revocations; when this returns they are safe. One whose id is already there never ends sooner for it."""
        ...

    def withdraw(self, ids: Iterable[str]) -> int:
        """Take revocations back; the number of those that were there."""
        ...

    def entries(self) -> Sequence[Revocation]:
        """All of them as the store has them now, those that have ended recently included."""
        ...
