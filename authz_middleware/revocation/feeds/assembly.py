"""Every feed that the settings name, made and held together."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from authz_middleware.errors import Problem, SettingsError
from authz_middleware.identity.keys.jwk import KeySetError
from authz_middleware.identity.keys.key_set import KeySet
from authz_middleware.revocation.feeds.event_receiver import EventReceiver
from authz_middleware.revocation.feeds.joined import JoinedStore
from authz_middleware.revocation.feeds.keys import key_set_of
from authz_middleware.revocation.feeds.list_feed import ListFeed
from authz_middleware.revocation.feeds.reading import FeedReading
from authz_middleware.revocation.feeds.status_lists import StatusLists
from authz_middleware.revocation.feeds.status_token import StatusIssuer
from authz_middleware.revocation.feeds.transmitter import Transmitter
from authz_middleware.revocation.store import RevocationStore
from authz_middleware.settings.issuers import IssuerSettings
from authz_middleware.settings.revocation_feeds import FeedSettings, KeySource, StatusListSettings, feed_problems


class Feeds:
    """The feeds of one application.

    `status_lists` answers for the tokens that name one; `store` knows what was revoked here and what signed lists name,
    and is started and closed by whoever holds it (`Revocations`); `receiver`, where there is a transmitter, takes
    pushed events and is mounted by `mounting`.

    `keys_of` gives the keys that the tokens of an issuer are verified with, None for an issuer that has none. `clock`
    gives seconds since the epoch. Raises SettingsError with every problem.
    """

    def __init__(
        self,
        settings: FeedSettings,
        store: RevocationStore,
        issuers: Sequence[IssuerSettings],
        keys_of: Callable[[str], KeySet | None],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        problems = feed_problems(settings, [issuer.issuer for issuer in issuers])
        by_name = {issuer.issuer: issuer for issuer in issuers}
        made: list[StatusIssuer] = []
        for i, entry in enumerate(settings.status_lists):
            if entry.issuer in by_name:
                status = _status_issuer(entry, by_name[entry.issuer], keys_of)
                if status is None:
                    problems.append(Problem(f"revocations.status_lists[{i}].issuer", _KEYLESS))
                else:
                    made.append(status)
        lists = [
            (entry, _keys(entry.keys, entry.name, f"revocations.lists[{i}]", problems))
            for i, entry in enumerate(settings.lists)
        ]
        transmitters = [
            (entry, _keys(entry.keys, entry.issuer, f"revocations.transmitters[{i}]", problems))
            for i, entry in enumerate(settings.transmitters)
        ]
        if problems:
            raise SettingsError(problems)
        self._lists = [ListFeed(entry, keys, clock=clock) for entry, keys in lists if keys is not None]
        self.status_lists = StatusLists(made, clock=clock)
        self.store: RevocationStore = JoinedStore(store, self._lists) if self._lists else store
        heard = [Transmitter(entry, keys) for entry, keys in transmitters if keys is not None]
        self.receiver = EventReceiver(heard, self.store, clock=clock) if heard else None

    def start(self) -> None:
        """Fetch what the settings name. No thread is started here, so that a server may fork."""
        self.status_lists.start()
        if self.receiver is not None:
            self.receiver.start()

    def close(self) -> None:
        """Fetch nothing more."""
        if self.receiver is not None:
            self.receiver.close()
        self.status_lists.close()

    def readings(self, now: float) -> tuple[FeedReading, ...]:
        """How far behind each feed is at `now`, for health checks and metrics; the store tells its own `lag`."""
        pushed = self.receiver.readings(now) if self.receiver is not None else ()
        return (*(feed.health(now) for feed in self._lists), *self.status_lists.readings(now), *pushed)


_KEYLESS = "has no keys of its own, so that nobody could tell who signed its status lists; leave this entry out"


def _status_issuer(
    settings: StatusListSettings, issuer: IssuerSettings, keys_of: Callable[[str], KeySet | None]
) -> StatusIssuer | None:
    keys = keys_of(issuer.issuer)
    if keys is None and settings.ignore is None:
        return None
    return StatusIssuer(settings, issuer.algorithms, keys or KeySet(), issuer.leeway)


def _keys(source: KeySource, name: str, where: str, problems: list[Problem]) -> KeySet | None:
    try:
        return key_set_of(source, name=name)
    except KeySetError as error:
        problems.append(Problem(f"{where}.jwks", f"cannot be used: it {error}"))
        return None
