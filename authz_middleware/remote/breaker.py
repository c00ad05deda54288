"""Leaves a decision point alone that keeps failing, and asks it again with one probe at a time.

Pure state: no I/O, no clock. `now` is a reading of a monotonic clock in seconds. Whoever asks is given a ticket, and
reports with it how it went: `succeed` when the point answered, whatever it answered; `fail` on an outage; `abandon`
when the question was given up (cancelled) and nothing was learned. A fault counts as an answer: were it to open the
breaker, the next caller would see an outage and take the fallback that a fault must not reach.

A ticket is good until the breaker changes its state. What was asked before that says nothing of the point as it is
now: callers who hang up late must not let a second probe through, nor may their failures undo the success of one.
"""

from __future__ import annotations

import logging
import random as random_module
from collections.abc import Callable
from enum import StrEnum
from threading import Lock

import msgspec

from authz_middleware.forking import renew_in_children
from authz_middleware.settings.remote.decision_point import BreakerSettings

logger = logging.getLogger("authz")


class BreakerState(StrEnum):
    """Closed lets everybody through, open nobody, half-open one probe."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class BreakerReading(msgspec.Struct, frozen=True, gc=False):
    """A breaker at one time, for people and metrics; all times in seconds.

    `failures` are those in a row. While it is not closed, `away_for` is since when, `asks_again_in` how long until
    the next probe may go out (0.0 where the next question is one), and `trigger` the kind of the last failure.
    """

    state: BreakerState
    failures: int
    away_for: float | None = None
    asks_again_in: float | None = None
    trigger: str | None = None


class Breaker:
    """One breaker of one decision point, which `name` names in the log. `random` gives numbers in [0, 1); the pause is
    stretched by up to a fifth of it, so that a fleet does not come back in one instant."""

    def __init__(
        self,
        settings: BreakerSettings,
        *,
        name: str = "the decision point",
        random: Callable[[], float] = random_module.random,
    ) -> None:
        self._settings = settings
        self._name = name
        self._random = random
        self._lock = Lock()
        self._state = BreakerState.CLOSED
        self._ticket = 1
        self._free_ticket = 1
        """What everybody gets while it is closed, and 0 else: one reading that needs no lock."""
        self._failures = 0
        self._trigger: str | None = None
        self._since = 0.0
        self._until = 0.0
        renew_in_children(self)

    @property
    def state(self) -> BreakerState:
        """The state as of the last call."""
        return self._state

    def reading(self, now: float) -> BreakerReading:
        """Everything there is to know of it."""
        with self._lock:
            if self._state is BreakerState.CLOSED:
                return BreakerReading(self._state, self._failures)
            left = max(0.0, self._until - now)
            return BreakerReading(self._state, self._failures, max(0.0, now - self._since), left, self._trigger)

    def admit(self, now: float) -> int:
        """A ticket to ask now, or 0. A ticket must be followed by `succeed`, `fail` or `abandon`."""
        ticket = self._free_ticket
        if ticket:
            return ticket
        if self._state is BreakerState.OPEN and now < self._until:  # read without the lock: it lets nobody in
            return 0
        with self._lock:
            if self._state is BreakerState.CLOSED:
                return self._ticket
            if now < self._until:
                return 0
            # Also a probe that nobody reported on for a whole pause: its slot must not be lost for good.
            self._become(BreakerState.HALF_OPEN)
            self._until = now + self._pause()
            return self._ticket

    def succeed(self, now: float, ticket: int) -> None:
        """The point answered."""
        if not self._failures and self._free_ticket:
            return
        with self._lock:
            if ticket != self._ticket:  # nobody has a ticket of an open one
                return
            away_for = None if self._state is BreakerState.CLOSED else now - self._since
            self._failures = 0
            if away_for is not None:
                self._become(BreakerState.CLOSED)
        if away_for is not None:
            logger.info("%s answers again, after %.1f s", self._name, away_for)

    def fail(self, now: float, ticket: int, trigger: str) -> None:
        """The point did not answer, for a reason of this kind. A failed probe opens it for another pause."""
        with self._lock:
            if ticket != self._ticket:  # nobody has a ticket of an open one
                return
            self._failures += 1
            was = self._state
            if self._failures < self._settings.failures:
                return
            self._become(BreakerState.OPEN)
            failures, pause, self._trigger = self._failures, self._pause(), trigger
            self._until = now + pause
            if was is BreakerState.CLOSED:
                self._since = now
        if was is BreakerState.CLOSED:  # one line an outage, however many probes fail
            logger.warning(
                "%s failed %d times in a row (%s the last time) and is left alone for %.1f s at a time",
                self._name,
                failures,
                trigger,
                pause,
            )

    def abandon(self, now: float, ticket: int) -> None:
        """The question was given up and nothing was learned: a probe's slot is free again."""
        with self._lock:
            if self._state is BreakerState.HALF_OPEN and ticket == self._ticket:
                self._become(BreakerState.OPEN)
                self._until = now

    def renew_after_fork(self) -> None:
        """What the parent has learned still holds; a lock that it held does not."""
        self._lock = Lock()

    def _become(self, state: BreakerState) -> None:
        self._state = state
        self._ticket += 1
        self._free_ticket = self._ticket if state is BreakerState.CLOSED else 0

    def _pause(self) -> float:
        return self._settings.pause * (1.0 + 0.2 * self._random())
