"""Whether a principal has been revoked, and the ways in which an application revokes.

revocations = Revocations(settings.revocations)
revocations.start()
standing = revocations.check(principal, "invoice:read", now)
if standing.refusal is not None: …
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Final, Self

import msgspec

from authz_middleware.alarm import Alarm
from authz_middleware.decision import Decision, Reason
from authz_middleware.errors import Problem
from authz_middleware.identity.keys.key_set import KeySet
from authz_middleware.identity.principal import Principal
from authz_middleware.revocation.entry import Revocation, RevocationError, Scope, new_revocation
from authz_middleware.revocation.feeds.assembly import Feeds
from authz_middleware.revocation.feeds.status_check import status_refusal
from authz_middleware.revocation.feeds.status_list import TokenStatus
from authz_middleware.revocation.memory import MemoryStore
from authz_middleware.revocation.redis import RedisStore
from authz_middleware.revocation.sqlite import SqliteStore
from authz_middleware.revocation.store import Reading, RevocationStore, Trouble
from authz_middleware.settings import Settings
from authz_middleware.settings.revocations import RevocationSettings, UnavailableSettings

API: Final = "api"
"""The source of what an application itself revokes."""

TOLERANCE_S: Final = 1.0
"""Requests that run side by side read the clock in any order; a clock that goes back further was set back."""

_REVOKED: Final = {
    scope: Decision(permit=False, reason=Reason.CREDENTIAL_REVOKED, detail=f"revoked.{scope.value}") for scope in Scope
}
_UNAVAILABLE: Final = {
    trouble: Decision(permit=False, reason=Reason.REVOCATIONS_UNAVAILABLE, detail=trouble.value) for trouble in Trouble
}


STATUS_NOT_CONFIGURED: Final = Decision(
    permit=False, reason=Reason.CREDENTIAL_INVALID, detail=TokenStatus.NOT_CONFIGURED.value
)
"""A token says that its status is to be looked up, and nobody here knows where."""


class Standing(msgspec.Struct, frozen=True, gc=False):
    """What revocations say about a principal.

    `refusal` is None where nothing stands against it. What was concluded from it may be used again only while `epoch`
    is the same. `age_s` is None where what is revoked is currently known; otherwise it was known that many seconds ago.
    """

    refusal: Decision | None
    epoch: Hashable
    age_s: float | None = None


class Revocations:
    """The revocations of one application. One object serves all threads of a process and its forked children.

    `store` is the one that the settings name unless given, or that of the feeds; `clock` gives seconds since the
    epoch. Raises SettingsError where the extra of a store is not installed.
    """

    def __init__(
        self,
        settings: RevocationSettings,
        store: RevocationStore | None = None,
        *,
        feeds: Feeds | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.feeds = feeds
        self.store = store or (open_store(settings, clock=clock) if feeds is None else feeds.store)
        self._unavailable: UnavailableSettings = settings.on_unavailable
        self._clock = clock
        self._refusing = Alarm("what is revoked cannot be read (%s): requests are refused")
        self._relying = Alarm("what is revoked cannot be read (%s): decided by what was known %.1f s ago")

    @classmethod
    def of(
        cls, settings: Settings, keys_of: Callable[[str], KeySet | None], *, clock: Callable[[], float] = time.time
    ) -> Self | None:
        """The revocations of an application with all their feeds; None where the settings have no `[revocations]`.

        `keys_of` gives the keys that the tokens of an issuer are verified with. Raises SettingsError, with all
        problems.
        """
        chosen = settings.revocations
        if chosen is None:
            return None
        store = open_store(chosen, clock=clock)
        return cls(chosen, feeds=Feeds(chosen.feeds, store, settings.issuers, keys_of, clock=clock), clock=clock)

    def start(self) -> None:
        """Open the store, see `RevocationStore.start`, and look at the feeds. May block."""
        self.store.start()
        if self.feeds is not None:
            self.feeds.start()

    def close(self) -> None:
        """Close the store, and look at feeds no longer."""
        if self.feeds is not None:
            self.feeds.close()
        self.store.close()

    def check(self, principal: Principal, action: str, now: float) -> Standing:
        """Whether anything revoked stands against this principal at `now` (seconds since the epoch), or whether that
        is not known and what was chosen for such a time refuses this action. Waits for nobody."""
        reading = self.store.reading(now)
        index = reading.index
        if reading.trouble is None and index is not None:
            entry = index.find(principal, now)
            standing = Standing(None if entry is None else _REVOKED[entry.scope], reading.epoch)
        else:
            standing = self._check_last_known(principal, action, now, reading)
        if principal.status is None or standing.refusal is not None:
            return standing
        return msgspec.structs.replace(standing, refusal=self._check_status(principal, action, now))

    def _check_status(self, principal: Principal, action: str, now: float) -> Decision | None:
        """What the issuer's status list says about the token."""
        if principal.status is None or self.feeds is None:
            return STATUS_NOT_CONFIGURED
        lists = self.feeds.status_lists
        return status_refusal(lists, self._unavailable, principal.issuer, principal.status, action, now)

    def _check_last_known(self, principal: Principal, action: str, now: float, reading: Reading) -> Standing:
        trouble = reading.trouble or Trouble.NOT_STARTED
        choice = self._unavailable.choice_for(action)
        index, age = reading.index, _age(reading, now)
        if choice.mode != "last_known" or index is None or age is None or not age < choice.max_age:
            self._refusing.ring(trouble.value, kind=trouble.value)
            return Standing(_UNAVAILABLE[trouble], reading.epoch, age)
        self._relying.ring(trouble.value, age, kind=trouble.value)
        entry = index.find(principal, now)
        return Standing(None if entry is None else _REVOKED[entry.scope], reading.epoch, age)

    def lag(self) -> float | None:
        """Seconds since it was last known what is revoked; 0.0 while it is, None when it never was. For readiness."""
        return self.store.lag(self._clock())

    # ---- revoking. These block: on an event loop, call them through asyncio.to_thread.

    def revoke(
        self,
        scope: Scope,
        *,
        reason: str,
        owner: str,
        issuer: str | None = None,
        value: str | None = None,
        issued_before: float | None = None,
        expires_at: float | None = None,
    ) -> Revocation:
        """Revoke what these name, from the next decision on: see `new_revocation`.

        Raises RevocationError for what cannot be meant and StoreUnavailableError when it could not be written; then
        nothing is revoked.
        """
        entry = self._make(
            scope,
            issuer=issuer,
            value=value,
            issued_before=issued_before,
            reason=reason,
            owner=owner,
            expires_at=expires_at,
        )
        self.store.add([entry])
        return entry

    def complete_task(
        self,
        *,
        reason: str,
        owner: str,
        task: str | None = None,
        transaction: str | None = None,
        issuer: str | None = None,
    ) -> tuple[Revocation, ...]:
        """Revoke every token of a task, or of a transaction, that is done; of both where both are named.

        Without `issuer` it means the task or transaction of that name at every issuer. Raises as `revoke` does.
        """
        named = ((Scope.TASK, task), (Scope.TRANSACTION, transaction))
        entries = tuple(
            self._make(scope, issuer=issuer, value=value, reason=reason, owner=owner)
            for scope, value in named
            if value is not None
        )
        if not entries:
            raise RevocationError([Problem("task", "or transaction is required")])
        self.store.add(entries)
        return entries

    def lift(self, ids: Iterable[str]) -> int:
        """Take revocations back, by their ids; the number of those that there were. Raises StoreUnavailableError."""
        return self.store.withdraw(ids)

    def entries(self) -> Sequence[Revocation]:
        """All revocations that count now. Raises StoreUnavailableError."""
        now = self._clock()
        return tuple(entry for entry in self.store.entries() if entry.is_effective(now))

    def _make(
        self,
        scope: Scope,
        *,
        issuer: str | None,
        value: str | None,
        reason: str,
        owner: str,
        issued_before: float | None = None,
        expires_at: float | None = None,
    ) -> Revocation:
        return new_revocation(
            scope,
            issuer=issuer,
            value=value,
            issued_before=issued_before,
            reason=reason,
            owner=owner,
            source=API,
            now=self._clock(),
            expires_at=expires_at,
        )


def open_store(settings: RevocationSettings, *, clock: Callable[[], float] = time.time) -> RevocationStore:
    """The store that the settings name, not started. Raises SettingsError where its extra is not installed."""
    if settings.file is not None:
        return SqliteStore(settings.file, clock=clock)
    if settings.redis is not None:
        return RedisStore(settings.redis, max_lag=settings.max_lag, clock=clock)
    return MemoryStore(clock=clock)


def _age(reading: Reading, now: float) -> float | None:
    """How long ago the index was known to be complete; None where that cannot be said."""
    if reading.as_of is None or now < reading.as_of - TOLERANCE_S:
        return None
    return max(0.0, now - reading.as_of)
