"""Revocations that one process keeps to itself: gone with it, and unknown to every other worker."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence

from authz_middleware.forking import renew_in_children
from authz_middleware.revocation.entry import Revocation
from authz_middleware.revocation.index import RevocationIndex
from authz_middleware.revocation.store import Reading


class MemoryStore:
    """A store that is never in trouble, for one process and for tests. A forked child starts with a copy of its own."""

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._index = RevocationIndex()
        self.renew_after_fork()
        renew_in_children(self)

    def renew_after_fork(self) -> None:
        """A lock that nobody holds."""
        self._writing = threading.Lock()

    def start(self) -> None:
        """Nothing: there is nothing to open."""

    def close(self) -> None:
        """Nothing: what is known stays known."""

    def reading(self, now: float) -> Reading:
        """What is known at `now`."""
        return Reading(self._index, self._index.epoch(now), now)

    def lag(self, now: float) -> float | None:  # noqa: ARG002 - of the protocol
        """None at all."""
        return 0.0

    def add(self, entries: Iterable[Revocation]) -> None:
        """Add revocations."""
        with self._writing:
            self._index.purge(self._clock())
            known = self._index.entries
            self._index.put([entry.strengthened(known.get(entry.id, entry)) for entry in entries])

    def withdraw(self, ids: Iterable[str]) -> int:
        """Take revocations back; the number of those that were there."""
        with self._writing:
            before = len(self._index)
            self._index.drop(ids)
            return before - len(self._index)

    def entries(self) -> Sequence[Revocation]:
        """All of them."""
        return tuple(self._index.entries.values())
