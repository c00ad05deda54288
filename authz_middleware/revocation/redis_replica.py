"""What one process knows of the revocations on a Redis server, and as of when that is complete."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection

from authz_middleware.revocation.entry import Revocation
from authz_middleware.revocation.index import RevocationIndex
from authz_middleware.revocation.store import Reading, Trouble

Moment = tuple[float, float]
"""By two clocks, since one may be set back and the other stands still while a machine is suspended: seconds since the
epoch, and seconds of `time.monotonic`."""


class Replica:
    """Written by one thread, read by all."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.index: RevocationIndex | None = None
        self.seq = 0
        self._complete_at: Moment | None = None
        self._changed = threading.Condition()

    def renew_after_fork(self) -> None:
        """Locks that nobody holds."""
        self._changed = threading.Condition()
        if self.index is not None:
            self.index.renew_after_fork()

    def moment(self) -> Moment:
        """Now."""
        return self._clock(), time.monotonic()

    def age(self, now: float) -> float | None:
        """Seconds since the moment as of which all is known; None before there has been one."""
        complete_at = self._complete_at
        if complete_at is None:
            return None
        return max(now - complete_at[0], time.monotonic() - complete_at[1], 0.0)

    def reading(self, now: float, max_lag: float) -> Reading:
        """What is known at `now`; in trouble when it has been complete for the last time more than `max_lag` seconds
        ago, or never."""
        index, age = self.index, self.age(now)
        if index is None or age is None:
            return Reading(None, None, None, Trouble.UNREACHABLE)
        return Reading(index, index.epoch(now), now - age, Trouble.LAG if age > max_lag else None)

    def take(self, seq: int, there: Collection[Revocation], withdrawn: Collection[str]) -> tuple[Revocation, ...]:
        """Know all that there is as of change `seq`. Returned, and still known, is what the server has lost: it is not
        there, though nobody withdrew it."""
        index = RevocationIndex() if self.index is None else self.index
        now = self._clock()
        ids = {entry.id for entry in there}
        missing = [entry for id_, entry in index.entries.items() if id_ not in ids]
        lost = {entry.id: entry for entry in missing if entry.id not in withdrawn and entry.is_effective(now)}
        index.put(there)
        index.drop(entry.id for entry in missing if entry.id not in lost)
        index.purge(now)
        self.index = index
        self._note(seq)
        return tuple(lost.values())

    def exceeds(self, seq: int, count: int) -> bool:
        """Whether a server at change `seq` with `count` revocations has lost some that are known here."""
        index = self.index
        if index is None or seq > self.seq:  # what is new there is on its way
            return False
        return seq < self.seq or count < index.in_force(self._clock())

    def apply(self, seq: int, there: Collection[Revocation], withdrawn: Collection[str]) -> None:
        """Know of one change."""
        if self.index is not None:
            self.index.put(there)
            self.index.drop(withdrawn)
        self._note(seq)

    def confirm(self, moment: Moment) -> None:
        """All that was acknowledged before this moment is known."""
        self._complete_at = moment
        with self._changed:
            self._changed.notify_all()

    def forget(self) -> None:
        """Know nothing."""
        self.index, self._complete_at, self.seq = None, None, 0

    def wait_until_complete(self, timeout: float) -> None:
        """Wait, for at most `timeout` seconds, until something is known."""
        with self._changed:
            self._changed.wait_for(lambda: self._complete_at is not None, timeout)

    def wait_for(self, seq: int, timeout: float) -> None:
        """Wait, for at most `timeout` seconds, until a change is known."""
        with self._changed:
            self._changed.wait_for(lambda: self.seq >= seq, timeout)

    def _note(self, seq: int) -> None:
        self.seq = seq
        with self._changed:
            self._changed.notify_all()
