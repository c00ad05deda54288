"""Revocations on a Redis server, shared by many hosts.

Readings come from memory, which a thread keeps up to date. What a server has lost, by a restart without persistence or
a failover, is put back by every process that knew it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final, TypeVar

from authz_middleware.errors import Problem, SettingsError
from authz_middleware.forking import renew_in_children
from authz_middleware.revocation.entry import Revocation
from authz_middleware.revocation.redis_replica import Replica
from authz_middleware.revocation.store import Reading, StoreUnavailableError, Trouble
from authz_middleware.settings.revocations import RedisSettings

if TYPE_CHECKING:
    from authz_middleware.revocation.redis_follower import Follower
    from authz_middleware.revocation.redis_records import Records

R = TypeVar("R")

BEATS: Final = 5
"""PINGs within `max_lag`: four may be lost or late before readings are in trouble."""

LONGEST_BEAT_S: Final = 1.0


class RedisStore:
    """The store on one server. What is known counts for `max_lag` seconds without a sign that it is complete.

    `clock` gives seconds since the epoch. Raises SettingsError where the extra `redis` is not installed.
    """

    def __init__(
        self, settings: RedisSettings, *, max_lag: float = 5.0, clock: Callable[[], float] = time.time
    ) -> None:
        self._settings = settings
        self._max_lag = max_lag
        self._clock = clock
        self._replica = Replica(clock)
        self._follower: Follower | None = None
        self._records = self._open()
        renew_in_children(self)

    @property
    def url(self) -> str:
        """Where the server is."""
        settings = self._settings
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        return f"{'rediss' if settings.tls else 'redis'}://{host}:{settings.port}/{settings.database}"

    def renew_after_fork(self) -> None:
        """Follow with a thread and connections of this process, if the parent did."""
        self._replica.renew_after_fork()
        self._records = self._open()
        if self._follower is not None:
            self._follow()

    def start(self) -> None:
        """Follow the server, and wait for the first snapshot, though not longer than `max_lag`."""
        if self._follower is None:
            self._follow()
            self._replica.wait_until_complete(self._max_lag)

    def close(self) -> None:
        """Stop following, and forget."""
        if self._follower is not None:
            self._follower.stop()
            self._follower = None
        self._records.close()
        self._replica.forget()

    def reading(self, now: float) -> Reading:
        """What is known at `now`."""
        if self._follower is None:
            return Reading(None, None, None, Trouble.NOT_STARTED)
        return self._replica.reading(now, self._max_lag)

    def lag(self, now: float) -> float | None:
        """Seconds since the moment as of which all is known; None before there has been one."""
        return self._replica.age(now)

    def add(self, entries: Iterable[Revocation]) -> None:
        """Add revocations, in transactions of at most 500. They are as safe as the server keeps them."""
        added = tuple(entries)
        self._await(self._ask(lambda records: records.add(added)))

    def withdraw(self, ids: Iterable[str]) -> int:
        """Take revocations back; the number of those that were there."""
        taken = tuple(ids)
        seq, count = self._ask(lambda records: records.withdraw(taken))
        self._await(seq)
        return count

    def entries(self) -> Sequence[Revocation]:
        """All of them as the server has them now."""
        return self._ask(lambda records: records.snapshot().there)

    def _follow(self) -> None:
        from authz_middleware.revocation.redis_follower import Follower  # noqa: PLC0415 - the extra may be absent

        self._follower = Follower(
            self._records,
            self._replica,
            beat=min(self._max_lag / BEATS, LONGEST_BEAT_S),
            patience=self._patience,
        )
        self._follower.start()

    @property
    def _patience(self) -> float:
        return self._max_lag / 2

    def _open(self) -> Records:
        try:
            from authz_middleware.revocation.redis_records import Records  # noqa: PLC0415 - the extra may be absent
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] != "redis":
                raise
            what = 'is "redis", which is not installed; install authz-middleware[redis]'
            raise SettingsError([Problem("revocations.store", what)]) from None
        return Records(self._settings, timeout=self._patience, clock=self._clock)

    def _ask(self, question: Callable[[Records], R]) -> R:
        try:
            return question(self._records)
        except Exception as error:  # noqa: BLE001 - whatever the library raises; its text may hold a credential
            from authz_middleware.revocation import redis_records  # noqa: PLC0415 - there, or no question were put

            message = f"the revocations at {self.url} cannot be used: {redis_records.explain(error)}"
            raise StoreUnavailableError(redis_records.trouble_of(error), message) from None

    def _await(self, seq: int) -> None:
        """Have one's own change in effect here before going on."""
        if self._follower is not None:
            self._replica.wait_for(seq, self._max_lag)
