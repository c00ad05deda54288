"""Which proofs have been shown before (RFC 9449 section 11.1).

A proof is spent once, and remembered until it would be too old anyway. Time may jump backwards, and a store must
forget: so a store remembers the latest end of all that it has forgotten, and takes no proof that ends before that.
"""

from __future__ import annotations

import heapq
import threading
from collections.abc import Hashable
from typing import Final, Protocol

from authz_middleware.forking import renew_in_children

CAPACITY: Final = 500_000
"""More than one process can verify in the default window (65 s), so that it is full only when something is wrong."""


class ReplayUnavailableError(Exception):
    """It cannot be told whether a proof has been shown before. The text is ours and says why."""


class ReplayStore(Protocol):
    """Remembers spent proofs. Serves all threads of a process."""

    waits: bool
    """Whether `spend` may take a while, and so has no place on an event loop."""

    place: Hashable
    """Where it remembers: equal for stores that remember the same proofs."""

    def start(self) -> None:
        """Make sure that proofs can be remembered. Raises ReplayUnavailableError."""
        ...

    def spend(self, key: bytes, until: float, now: float) -> bool:
        """Whether this is the first time that this proof is spent; true exactly once. It is remembered while
        `now < until` (seconds since the epoch). Raises ReplayUnavailableError."""
        ...

    def close(self) -> None:
        """Let go of files."""
        ...


class MemoryReplay:
    """Remembers the proofs that were shown to this very process, about 200 bytes each, and no more than `capacity`.

    When it is full nothing is forgotten early: proofs are refused until old ones have ended. Only holders of valid
    tokens can fill it, for a proof is spent after everything about it has been verified.
    """

    waits = False

    def __init__(self, *, capacity: int = CAPACITY) -> None:
        self.place: Hashable = object()
        self._capacity = capacity
        self._forgotten = 0.0
        self.renew_after_fork()
        renew_in_children(self)

    def __len__(self) -> int:
        return len(self._spent)

    def start(self) -> None:
        """There is nothing to prepare."""

    def spend(self, key: bytes, until: float, now: float) -> bool:
        """See ReplayStore."""
        with self._lock:
            while self._ends and self._ends[0][0] <= now:
                end, old = heapq.heappop(self._ends)
                self._spent.discard(old)
                self._forgotten = max(self._forgotten, end)
            if until <= self._forgotten or key in self._spent:
                return False
            if len(self._spent) >= self._capacity:
                raise ReplayUnavailableError(f"{self._capacity} proofs are remembered already")
            self._spent.add(key)
            heapq.heappush(self._ends, (until, key))
            return True

    def close(self) -> None:
        """There is nothing to let go of."""

    def renew_after_fork(self) -> None:
        """Nothing spent, and a lock that nobody holds: the state at first, and in a forked child."""
        self._lock = threading.Lock()
        self._spent: set[bytes] = set()
        self._ends: list[tuple[float, bytes]] = []
