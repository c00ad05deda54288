"""Leaves a decision point alone that keeps failing, and asks it again with one probe at a time.

Pure state: no I/O, no clock. `now` is a reading of a monotonic clock in seconds. The one who asks reports how it
went: `succeed` when the point answered, whatever it answered; `fail` on an outage; `abandon` when the question
was given up (cancelled) and nothing was learned. A fault counts as an answer: were it to open the breaker, the
next caller would see an outage and take the fallback that a fault must not reach.
"""

from __future__ import annotations

import random as random_module
from collections.abc import Callable
from enum import StrEnum
from threading import Lock

from authz_middleware.forking import renew_in_children
from authz_middleware.settings.remote.decision_point import BreakerSettings


class BreakerState(StrEnum):
    """Closed lets everybody through, open nobody, half-open one probe."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Breaker:
    """One breaker of one decision point. `random` gives numbers in [0, 1); the pause is stretched by up to a
    fifth of it, so that a fleet does not come back in one instant."""

    def __init__(self, settings: BreakerSettings, *, random: Callable[[], float] = random_module.random) -> None:
        self._settings = settings
        self._random = random
        self._lock = Lock()
        self._state = BreakerState.CLOSED
        self._failures = 0
        self._until = 0.0
        renew_in_children(self)

    @property
    def state(self) -> BreakerState:
        """The state as of the last call."""
        return self._state

    def admit(self, now: float) -> bool:
        """Whether to ask now. A True must be followed by `succeed`, `fail` or `abandon`."""
        if self.state is BreakerState.CLOSED:
            return True
        with self._lock:
            if self._state is BreakerState.CLOSED:
                return True
            if now < self._until:
                return False
            # Also a probe that nobody reported on for a whole pause: its slot must not be lost for good.
            self._state = BreakerState.HALF_OPEN
            self._until = now + self._pause()
            return True

    def succeed(self, now: float) -> None:  # noqa: ARG002 - the three outcomes are told alike
        """The point answered. Ignored while open: the answer was asked for before the breaker opened."""
        if self._state is BreakerState.CLOSED and not self._failures:
            return
        with self._lock:
            if self._state is not BreakerState.OPEN:
                self._state, self._failures = BreakerState.CLOSED, 0

    def fail(self, now: float) -> None:
        """The point did not answer. A failed probe opens the breaker for another pause."""
        with self._lock:
            if self._state is BreakerState.OPEN:
                return
            self._failures += 1
            if self._state is BreakerState.HALF_OPEN or self._failures >= self._settings.failures:
                self._state = BreakerState.OPEN
                self._until = now + self._pause()

    def abandon(self, now: float) -> None:
        """The question was given up and nothing was learned: a probe's slot is free again."""
        with self._lock:
            if self._state is BreakerState.HALF_OPEN:
                self._state, self._until = BreakerState.OPEN, now

    def renew_after_fork(self) -> None:
        """What the parent has learned still holds; a lock that it held does not."""
        self._lock = Lock()

    def _pause(self) -> float:
        return self._settings.pause * (1.0 + 0.2 * self._random())
