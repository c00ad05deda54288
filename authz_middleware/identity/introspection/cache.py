"""Remembers, where the settings allow it, what an issuer said about a token; by its digest, so it shows no token."""

from __future__ import annotations

from threading import Lock

import msgspec
from cachetools import LRUCache

from authz_middleware.forking import renew_in_children
from authz_middleware.identity.compact import RawClaims


class _Known(msgspec.Struct, frozen=True):
    asked_at: float
    expires_at: float
    claims: RawClaims


class IntrospectionCache:
    """The claims of at most `size` active tokens: for `ttl` seconds from when the issuer was asked, never beyond `exp`.

    Times are seconds since the epoch.
    """

    def __init__(self, ttl: float, size: int = 10_000) -> None:
        self._ttl = ttl
        self._size = size
        self.renew_after_fork()
        renew_in_children(self)

    def remember(self, digest: bytes, claims: RawClaims, asked_at: float) -> None:
        """Remember claims that have been checked. What failed, and what is not active, has none."""
        if self._ttl:
            known = _Known(asked_at, float(claims["exp"]), claims)
            with self._lock:
                self._answers[digest] = known

    def recall(self, digest: bytes, now: float) -> RawClaims | None:
        """The claims of this token while they hold."""
        with self._lock:
            known = self._answers.get(digest)
        # Without leeway; and a clock that was set back makes the age unknowable, which is too old.
        if known is None or not 0 <= now - known.asked_at < self._ttl or now >= known.expires_at:
            return None
        return known.claims

    def renew_after_fork(self) -> None:
        """Nothing remembered, and a lock that nobody holds: the state at first, and in a forked child."""
        self._lock = Lock()
        self._answers: LRUCache[bytes, _Known] = LRUCache(self._size)
