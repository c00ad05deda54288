"""Finds, among any number of revocations, one that reaches a principal: a handful of dictionary look-ups."""

from __future__ import annotations

import math
import threading
from bisect import bisect_right, insort
from collections.abc import Iterable, Mapping
from itertools import count
from typing import Final

from authz_middleware.forking import renew_in_children
from authz_middleware.identity.principal import Principal
from authz_middleware.revocation.entry import Revocation, Scope

KEPT_S: Final = 86_400.0
"""For how long a revocation is kept after its end: a clock that is set back by less brings no token back."""

_FEW: Final = 100

_Key = tuple[str | None, str | None]
_Found = dict[_Key, tuple[Revocation, ...]]

_ALL: Final[_Key] = (None, None)

_epochs: Final = count(1)
"""Every epoch of this process, so that no two indexes ever have the same."""


class RevocationIndex:
    """The revocations of one store, found by what they name.

    Many threads may read while one writes. A reader meets each revocation as it was or as it is, and an epoch that has
    changed only after the change can be found.
    """

    def __init__(self, entries: Iterable[Revocation] = ()) -> None:
        self._entries: dict[str, Revocation] = {}
        self._found: dict[Scope, _Found] = {scope: {} for scope in Scope}
        # The same dictionaries by name: what every request looks into is not looked up first.
        self._tokens = self._found[Scope.TOKEN]
        self._subjects = self._found[Scope.SUBJECT]
        self._actors = self._found[Scope.ACTOR]
        self._clients = self._found[Scope.CLIENT]
        self._tasks = self._found[Scope.TASK]
        self._transactions = self._found[Scope.TRANSACTION]
        self._issuers = self._found[Scope.ISSUER]
        self._keys = self._found[Scope.KEY]
        self._everything = self._found[Scope.EVERYTHING]
        self._ends: list[float] = []
        self._epoch = next(_epochs)
        self._span: tuple[float, float] | None = None
        self._changed: list[float] = []
        self._lock = threading.Lock()
        renew_in_children(self)
        self.put(entries)

    def renew_after_fork(self) -> None:
        """A lock that nobody holds, and nothing half done by a writer that stayed in the parent."""
        interrupted = self._lock.locked()
        self._lock = threading.Lock()
        if interrupted:
            entries = list(self._entries.values())
            self._entries.clear()
            self._ends.clear()
            for found in self._found.values():
                found.clear()
            self.put(entries)

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def entries(self) -> Mapping[str, Revocation]:
        """All revocations by id, those that have ended recently included."""
        return self._entries

    def in_force(self, now: float) -> int:
        """How many revocations have not ended at `now`."""
        with self._lock:
            return len(self._ends) - bisect_right(self._ends, now)

    def put(self, entries: Iterable[Revocation]) -> None:
        """Add revocations, in the place of those with the same ids."""
        with self._lock:
            last = {entry.id: entry for entry in entries}
            news = [entry for entry in last.values() if self._entries.get(entry.id) != entry]
            olds = [self._entries[entry.id] for entry in news if entry.id in self._entries]
            for entry in news:
                self._set(entry)
            self._take_note(news, olds)

    def drop(self, ids: Iterable[str]) -> None:
        """Remove revocations; an id that is not there is passed over."""
        with self._lock:
            self._drop([self._entries[id_] for id_ in dict.fromkeys(ids) if id_ in self._entries])

    def purge(self, now: float) -> None:
        """Remove what ended so long ago that no clock will want it back."""
        with self._lock:
            if self._ends and now >= self._ends[0] + KEPT_S:
                self._drop([entry for entry in self._entries.values() if now >= entry.expires_at + KEPT_S])

    def epoch(self, now: float) -> int:
        """A number that changes whenever what is effective does, by a writer or with the clock."""
        span = self._span
        if span is not None and span[0] <= now < span[1] and not self._changed:
            return self._epoch
        with self._lock:
            return self._settle(now)

    def find(self, principal: Principal, now: float) -> Revocation | None:
        """A revocation that reaches this principal at `now`, or None.

        What the token does not say cannot be found: one without `jti` is reached by no revocation of a token.
        """
        if not self._entries:
            return None
        entries = self._of_issuer(principal) + self._of_any_issuer(principal)
        if not entries:
            return None
        issued_at = principal.issued_at
        return next((entry for entry in entries if entry.is_effective(now) and entry.covers(issued_at)), None)

    def _of_issuer(self, principal: Principal) -> tuple[Revocation, ...]:
        """What names something that is only unique within an issuer, whatever its cut-off and end."""
        issuer = principal.issuer
        entries: tuple[Revocation, ...] = ()
        if self._everything:
            entries += self._everything.get(_ALL, ())
        if self._issuers:
            entries += self._issuers.get((issuer, None), ())
        if self._tokens:
            entries += self._tokens.get((issuer, principal.token_id), ())
        if self._subjects:
            entries += self._subjects.get((issuer, principal.subject), ())
        if self._clients:
            entries += self._clients.get((issuer, principal.client), ())
        if self._keys:
            entries += self._keys.get((issuer, principal.key_id), ())
        return entries

    def _of_any_issuer(self, principal: Principal) -> tuple[Revocation, ...]:
        """What may mean this issuer or every one, whatever its cut-off and end."""
        issuer = principal.issuer
        entries: tuple[Revocation, ...] = ()
        if self._transactions:
            entries += _with_or_without(self._transactions, issuer, principal.transaction)
        if self._tasks:
            entries += _with_or_without(self._tasks, issuer, principal.task)
        if not self._actors:
            return entries
        for actor in principal.actors:
            # An actor whose issuer the token does not state is one of the token's own issuer (RFC 8693 section 4.1).
            entries += _with_or_without(self._actors, actor.issuer or issuer, actor.id)
        if principal.subject_kind != "human":  # a person who happens to be called like an agent is not that agent
            entries += _with_or_without(self._actors, issuer, principal.subject)
        return entries

    def _set(self, entry: Revocation) -> None:
        """In one assignment, so that a revocation is not missed while it is being replaced."""
        found, key = self._found[entry.scope], (entry.issuer, entry.value)
        found[key] = (*(other for other in found.get(key, ()) if other.id != entry.id), entry)
        self._entries[entry.id] = entry

    def _drop(self, entries: list[Revocation]) -> None:
        for entry in entries:
            found, key = self._found[entry.scope], (entry.issuer, entry.value)
            others = tuple(other for other in found[key] if other.id != entry.id)
            if others:
                found[key] = others
            else:
                del found[key]
            del self._entries[entry.id]
        self._take_note([], entries)

    def _take_note(self, news: list[Revocation], olds: list[Revocation]) -> None:
        """Keep the ends in order, and remember that there is something to settle."""
        if len(news) + len(olds) > _FEW:
            self._ends = sorted(entry.expires_at for entry in self._entries.values())
        else:
            for entry in olds:
                del self._ends[bisect_right(self._ends, entry.expires_at) - 1]
            for entry in news:
                insort(self._ends, entry.expires_at)
        self._changed.extend(entry.expires_at for entry in (*news, *olds))

    def _settle(self, now: float) -> int:
        """Under the lock: the epoch at `now`, and the span of time for which it stays so."""
        span = self._span
        if span is not None:
            # Outside of the span something has ended since, or the clock was set back to before an end. Inside of it,
            # only what has not ended makes a difference.
            passed_an_end = not span[0] <= now < span[1]
            if passed_an_end or any(end > now for end in self._changed):
                self._epoch = next(_epochs)
        passed = bisect_right(self._ends, now)
        since = self._ends[passed - 1] if passed else -math.inf
        until = self._ends[passed] if passed < len(self._ends) else math.inf
        self._changed = []
        self._span = since, until
        return self._epoch


def _with_or_without(found: _Found, issuer: str, value: str | None) -> tuple[Revocation, ...]:
    """Those that name this issuer, and those that name none."""
    return found.get((issuer, value), ()) + found.get((None, value), ())
