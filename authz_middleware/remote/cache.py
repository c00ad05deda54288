"""Remembers what the decision point itself decided, within bounds that every reading checks again.

Only a `RemoteAnswer` can be remembered, so neither a failure nor another fallback's permit ever becomes an
answer. Times are seconds since the epoch, passed in by the caller.
"""

from __future__ import annotations

from collections.abc import Hashable
from threading import Lock

import msgspec
from cachetools import LRUCache

from authz_middleware.advice import Advice
from authz_middleware.forking import renew_in_children
from authz_middleware.remote.failure import RemoteAnswer

Key = tuple[Hashable, ...]


class CachedAnswer(msgspec.Struct, frozen=True):
    """A decision of the decision point: when the question was put, and when the caller's token expires."""

    permit: bool
    advice: Advice
    """What it came with: the obligations of a permit hold each time that it is served."""
    decided_at: float
    expires_at: float

    def age(self, now: float) -> float:
        """Seconds since the question was put; negative when the clock was set back since."""
        return now - self.decided_at

    def is_usable(self, now: float, bound: float) -> bool:
        """Whether it may be served at `now` by this bound in seconds. The end of the bound is outside of it; a
        clock that was set back makes the age unknowable, and an unknown age is too old."""
        return 0.0 <= self.age(now) < bound and now < self.expires_at


class DecisionCache:
    """The last answer to each of at most `size` questions. The key must tell apart everything the answer may
    depend on, the policy revision included: see `RemoteQuery.of`."""

    def __init__(self, size: int) -> None:
        self._lock = Lock()
        self._answers: LRUCache[Key, CachedAnswer] = LRUCache(size)
        renew_in_children(self)

    def __len__(self) -> int:
        return len(self._answers)

    def remember(self, key: Key, answer: RemoteAnswer, now: float, token_expires_at: float) -> None:
        """Remember an answer to a question put at `now`.

        Answers may arrive out of order, so a permit never displaces a decision that is as new or newer. A deny
        always does: forgetting a permit costs a question, forgetting a deny could cost more.
        """
        entry = CachedAnswer(answer.permit, answer.advice, now, token_expires_at)
        with self._lock:
            known = self._answers.get(key)
            if known is None or not entry.permit or self._supersedes(entry, known):
                self._answers[key] = entry

    def fresh(self, key: Key, now: float, permit_ttl: float, deny_ttl: float) -> CachedAnswer | None:
        """The last answer while it is younger than the time-to-live of its kind and the token is valid."""
        with self._lock:
            known = self._answers.get(key)
        if known is None or not known.is_usable(now, permit_ttl if known.permit else deny_ttl):
            return None
        return known

    def stale(self, key: Key, now: float, max_stale: float) -> CachedAnswer | None:
        """The last answer, permit or deny, while it is younger than `max_stale` seconds and the token is valid."""
        with self._lock:
            known = self._answers.get(key)
        return known if known is not None and known.is_usable(now, max_stale) else None

    def forget_all(self) -> None:
        """Forget every answer."""
        with self._lock:
            self._answers.clear()

    def renew_after_fork(self) -> None:
        """Start empty: the parent may have been half-way through a change."""
        self._lock = Lock()
        self._answers = LRUCache(self._answers.maxsize)

    @staticmethod
    def _supersedes(permit: CachedAnswer, known: CachedAnswer) -> bool:
        return permit.decided_at > known.decided_at or (permit.decided_at == known.decided_at and known.permit)
