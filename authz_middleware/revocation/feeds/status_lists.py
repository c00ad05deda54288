"""The status lists that tokens name: fetched beside the requests, held for as long as they may be believed.

A decision reads a list that is in memory and nothing else. Where the list is not there, the answer is UNAVAILABLE, and
a fetch is under way. Only tokens that were verified get here, so that nobody but an issuer can make this process fetch
anything, and an issuer only from the hosts that the settings allow it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from authz_middleware.address import parse_address
from authz_middleware.alarm import Alarm
from authz_middleware.forking import renew_in_children
from authz_middleware.identity.keys.download import DownloadError, download
from authz_middleware.revocation.feeds.jws import DocumentRefusedError, parse_document
from authz_middleware.revocation.feeds.reading import FeedReading
from authz_middleware.revocation.feeds.status_list import TokenStatus
from authz_middleware.revocation.feeds.status_token import TYPE, GoodList, StatusIssuer, read_status_token
from authz_middleware.worker import Worker

_MEDIA_TYPES: Final = (f"application/{TYPE}",)
MAX_DOCUMENT: Final = 4 * 1024 * 1024
MAX_WEIGHT: Final = 64 * 1024 * 1024
"""What all lists of one issuer may take together, decompressed."""

_MEANINGS: Final = (TokenStatus.VALID, TokenStatus.INVALID, TokenStatus.SUSPENDED)


class StatusTimes(msgspec.Struct, frozen=True):
    """What nobody needs to choose; all in seconds."""

    deadline: float = 5.0
    """For one fetch altogether."""
    least: float = 5.0
    """Between two fetches of one list, whatever its `ttl` says."""
    retry: float = 1.0
    """After a failed fetch; doubled with each further one, up to the regular interval."""
    idle: float = 3600.0
    """After which a list that no token named is forgotten."""


REGULAR: Final = StatusTimes()


class StatusLists:
    """The lists of every issuer. One object serves all threads of a process.

    `clock` gives seconds since the epoch and dates what was fetched.
    """

    def __init__(
        self,
        issuers: Sequence[StatusIssuer],
        *,
        clock: Callable[[], float] = time.time,
        times: StatusTimes = REGULAR,
    ) -> None:
        self._issuers = {
            issuer.settings.issuer: _IssuerLists(issuer, clock, times)
            for issuer in issuers
            if issuer.settings.ignore is None
        }
        self._ignored = frozenset(x.settings.issuer for x in issuers if x.settings.ignore is not None)

    def start(self) -> None:
        """Fetch the lists that the settings name, one after the other, each within its deadline.

        No thread is started here, so that a server may fork afterwards.
        """
        for lists in self._issuers.values():
            lists.load_named()

    def status(self, issuer: str, uri: str, index: int, now: float) -> TokenStatus:
        """What the list at `uri` says of a verified token of this issuer at `now` (seconds since the epoch).

        Never waits, opens no socket and no file.
        """
        lists = self._issuers.get(issuer)
        if lists is None:
            return TokenStatus.VALID if issuer in self._ignored else TokenStatus.NOT_CONFIGURED
        return lists.status(uri, index, now)

    def last_known(self, issuer: str, uri: str, index: int, now: float, max_age: float) -> TokenStatus:
        """What the last good list said, had no longer than `max_age` seconds ago, expired or not: for when somebody has
        chosen to go by that rather than refuse. UNAVAILABLE where there is none."""
        lists = self._issuers.get(issuer)
        return TokenStatus.UNAVAILABLE if lists is None else lists.last_known(uri, index, now, max_age)

    def readings(self, now: float) -> tuple[FeedReading, ...]:
        """How far behind each list is that is held, or that was asked for in vain."""
        return tuple(reading for lists in self._issuers.values() for reading in lists.readings(now))

    def close(self) -> None:
        """Fetch no more."""
        for lists in self._issuers.values():
            lists.close()


class _Held:
    """One list that is kept up to date."""

    __slots__ = ("due_at", "failures", "good", "named", "problem", "uri", "used_at")

    def __init__(self, uri: str, now: float, *, named: bool) -> None:
        self.uri = uri
        self.named = named
        self.used_at = now
        self.due_at = now
        self.good: GoodList | None = None
        self.failures = 0
        self.problem: str | None = None


class _IssuerLists:
    """The lists of one issuer. Each has a thread of its own: a slow host delays nobody else's lists."""

    def __init__(self, issuer: StatusIssuer, clock: Callable[[], float], times: StatusTimes) -> None:
        self._issuer = issuer
        self._settings = issuer.settings
        self._clock = clock
        self._times = times
        self._hosts = frozenset(issuer.settings.hosts)
        self._held: dict[str, _Held] = {
            uri: _Held(uri, clock(), named=True) for uri in dict.fromkeys(issuer.settings.uris)
        }
        self._failed = Alarm("status list %r of %r: %s; %s")
        self._full = Alarm("%r names more status lists than max_lists = %d; those beyond cannot be read")
        self._worker = Worker(self._step, name="authz-status")
        self.renew_after_fork()
        renew_in_children(self)

    def renew_after_fork(self) -> None:
        """Locks that nobody holds: the state after a fork."""
        self._adding = threading.Lock()
        self._fetching = threading.Lock()

    def status(self, uri: str, index: int, now: float) -> TokenStatus:
        """See `StatusLists.status`."""
        held = self._held.get(uri)
        if held is None:
            return self._first(uri, now)
        held.used_at = now
        if self._worker.is_needed:
            self._worker.start()
        good = held.good
        if good is None or not good.since <= now < good.until:
            return TokenStatus.UNAVAILABLE
        return _meaning(good.list.at(index))

    def last_known(self, uri: str, index: int, now: float, max_age: float) -> TokenStatus:
        """See `StatusLists.last_known`."""
        held = self._held.get(uri)
        good = None if held is None else held.good
        if good is None or not -self._issuer.leeway <= now - good.fetched_at < max_age:
            return TokenStatus.UNAVAILABLE
        return _meaning(good.list.at(index))

    def _first(self, uri: str, now: float) -> TokenStatus:
        if not self._allows(uri):
            return TokenStatus.NOT_ALLOWED
        with self._adding:
            is_new = uri not in self._held
            has_room = len(self._held) < self._settings.max_lists
            if is_new and has_room:
                self._held[uri] = _Held(uri, now, named=False)
        if is_new and has_room:
            self._worker.start()
            self._worker.wake()
        elif is_new:
            self._full.ring(self._settings.issuer, self._settings.max_lists)
        return TokenStatus.UNAVAILABLE

    def _allows(self, uri: str) -> bool:
        try:
            return parse_address(uri).place in self._hosts
        except ValueError:
            return False

    def readings(self, now: float) -> list[FeedReading]:
        """See `StatusLists.readings`."""
        if self._worker.is_needed:
            # Who waits for a good reading before the first request comes must not wait for ever.
            self._worker.start()
        return [_reading(held, now) for held in list(self._held.values())]

    def close(self) -> None:
        """Fetch no more."""
        self._worker.close()

    def load_named(self) -> None:
        """Fetch the lists that the settings name, on this thread."""
        for held in [held for held in self._held.values() if held.named]:
            self._refresh(held)

    def _step(self) -> float:
        for held in list(self._held.values()):
            now = self._clock()
            if now - held.used_at > self._times.idle and not held.named:
                with self._adding:
                    del self._held[held.uri]
            # A clock that was set back must not put off the next fetch for as long.
            elif not 0 < held.due_at - now <= self._settings.refresh:
                self._refresh(held)
        now = self._clock()
        return min([held.due_at - now for held in list(self._held.values())], default=self._times.idle)

    def _refresh(self, held: _Held) -> None:
        with self._fetching:
            now = self._clock()
            try:
                self._take(held, self._fetch(held, now), now)
            except DocumentRefusedError as refusal:
                self._fail(held, refusal.code, refusal.code, now)
            except DownloadError as error:
                self._fail(held, "status_list.unreachable", str(error), now)
            except Exception as error:  # noqa: BLE001 - the thread must outlive what nobody foresaw
                self._fail(held, "status_list.unexpected", type(error).__name__, now)

    def _fetch(self, held: _Held, now: float) -> GoodList:
        body = download(
            held.uri,
            deadline=self._times.deadline,
            limit=MAX_DOCUMENT,
            media_types=_MEDIA_TYPES,
            hosts=self._hosts,
            ca_file=self._settings.ca_file,
        )
        document = parse_document(body.strip(), typ=TYPE, limit=MAX_DOCUMENT)
        keys = self._issuer.keys
        if keys.needs_worker:
            keys.look_after()
        keyring = keys.current
        if keyring is None:
            keys.ask()
            raise DocumentRefusedError("keys.unavailable")
        try:
            return read_status_token(document, keyring, self._issuer, held.uri, now)
        except DocumentRefusedError as refusal:
            if refusal.code == "document.key_unknown":
                keys.ask()
            raise

    def _take(self, held: _Held, good: GoodList, now: float) -> None:
        if held.good is not None and good.issued_at < held.good.issued_at:
            # An old list still carries a good signature; going back would make revoked tokens valid again.
            raise DocumentRefusedError("status_list.older")
        others = [other.good for other in list(self._held.values()) if other is not held]
        if sum(other.list.weight for other in others if other is not None) + good.list.weight > MAX_WEIGHT:
            raise DocumentRefusedError("status_list.too_large")
        held.good = good
        held.failures, held.problem = 0, None
        held.due_at = now + max(self._times.least, min(good.ttl, self._settings.refresh))

    def _fail(self, held: _Held, code: str, what: str, now: float) -> None:
        held.failures += 1
        held.problem = code
        held.due_at = now + min(self._times.retry * 2 ** min(held.failures - 1, 16), self._settings.refresh)
        good = held.good
        if good is not None and not good.is_signed_by(self._issuer.keys.current, self._issuer.algorithms):
            held.good = good = None
        kept = "the last good one is read until it is too old" if good else "its tokens cannot be decided"
        self._failed.ring(held.uri, self._settings.issuer, what, kept)


def _meaning(value: int | None) -> TokenStatus:
    """What a value stands for (section 7.1)."""
    if value is None:
        return TokenStatus.OUT_OF_RANGE
    return _MEANINGS[value] if value < len(_MEANINGS) else TokenStatus.OTHER


def _reading(held: _Held, now: float) -> FeedReading:
    good = held.good
    readable = good is not None and good.since <= now < good.until
    return FeedReading(held.uri, readable, None if good is None else max(0.0, now - good.fetched_at), held.problem)
