"""The store and the signed lists as one store: what any of them names is revoked."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterable, Mapping, Sequence

from authz_middleware.identity.principal import Principal
from authz_middleware.revocation.entry import Revocation
from authz_middleware.revocation.feeds.list_feed import ListFeed
from authz_middleware.revocation.index import RevocationIndex
from authz_middleware.revocation.store import Reading, RevocationStore


class JoinedIndex(RevocationIndex):
    """Several indexes, asked one after the other, each as it is at the time. It is not for writing to."""

    def __init__(self, parts: Sequence[RevocationIndex]) -> None:
        super().__init__()
        self._parts = tuple(parts)

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    @property
    def entries(self) -> Mapping[str, Revocation]:
        """All revocations by id."""
        return ChainMap(*(dict(part.entries) for part in self._parts))

    def find(self, principal: Principal, now: float) -> Revocation | None:
        """A revocation in any of them that reaches this principal at `now`, or None."""
        for part in self._parts:
            found = part.find(principal, now)
            if found is not None:
                return found
        return None


class JoinedStore:
    """A store that also knows what signed lists name.

    Revocations are added to and withdrawn from the store alone: a list is changed by whoever signs it. It is in trouble
    as soon as one of them is.
    """

    def __init__(self, store: RevocationStore, lists: Sequence[ListFeed]) -> None:
        self._store = store
        self._lists = tuple(lists)
        self._joined: tuple[list[RevocationIndex | None], JoinedIndex | None] = ([], None)

    def start(self) -> None:
        """Open the store and read the lists."""
        self._store.start()
        for feed in self._lists:
            feed.start()

    def close(self) -> None:
        """Let go of all of them."""
        for feed in self._lists:
            feed.close()
        self._store.close()

    def reading(self, now: float) -> Reading:
        """What is known at `now`."""
        own = self._store.reading(now)
        indexes, epochs, as_of, trouble = [own.index], [own.epoch], own.as_of, own.trouble
        # One plain loop: every decision comes through here.
        for feed in self._lists:
            reading = feed.reading(now)
            indexes.append(reading.index)
            epochs.append(reading.epoch)
            if as_of is not None:
                as_of = None if reading.as_of is None else min(as_of, reading.as_of)
            if trouble is None:
                trouble = reading.trouble
        return Reading(self._join(indexes), tuple(epochs), as_of, trouble)

    def lag(self, now: float) -> float | None:
        """That of the one that is furthest behind."""
        lags = [lag for lag in (self._store.lag(now), *(feed.lag(now) for feed in self._lists)) if lag is not None]
        return max(lags) if len(lags) == 1 + len(self._lists) else None

    def add(self, entries: Iterable[Revocation]) -> None:
        """Add revocations to the store."""
        self._store.add(entries)

    def withdraw(self, ids: Iterable[str]) -> int:
        """Take revocations back that are in the store; the number of those that were there."""
        return self._store.withdraw(ids)

    def entries(self) -> Sequence[Revocation]:
        """All of them, those of the lists last."""
        return (*self._store.entries(), *(entry for feed in self._lists for entry in feed.entries()))

    def _join(self, indexes: list[RevocationIndex | None]) -> RevocationIndex | None:
        known, joined = self._joined
        if known != indexes:  # indexes have no equality but identity
            parts = [index for index in indexes if index is not None]
            joined = JoinedIndex(parts) if parts else None
            self._joined = indexes, joined
        return joined
