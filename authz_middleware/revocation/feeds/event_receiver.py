"""Takes pushed security events (RFC 8935): checks who sends them, has them kept, and only then says thank you.

Nothing here knows a web server: a request comes in as method, headers and body, and an `Answer` goes out. It may block
(a store is written, keys may be fetched), so an event loop hands it to a thread; `mounting` does.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from authz_middleware.alarm import Alarm
from authz_middleware.answer import Answer
from authz_middleware.revocation.entry import RevocationError
from authz_middleware.revocation.feeds.jws import DocumentRefusedError, SignedDocument, parse_document
from authz_middleware.revocation.feeds.reading import FeedReading
from authz_middleware.revocation.feeds.security_event import (
    MAX_DOCUMENT,
    TYPE,
    EventRefusedError,
    SecurityEvent,
    read_event,
)
from authz_middleware.revocation.feeds.transmitter import KnownTransmitter, NotNowError, Transmitter
from authz_middleware.revocation.store import RevocationStore, StoreUnavailableError
from authz_middleware.settings.secret import SecretUnavailableError

logger = logging.getLogger("authz")

Headers = Sequence[tuple[str, str]]
"""Names in lower case."""

_BEARER: Final = "bearer "
_RETRY_AFTER_S: Final = 5


class EventReceiver:
    """The recipient of the events of all configured transmitters. One object serves all threads of a process.

    `clock` gives seconds since the epoch, `monotonic` seconds.
    """

    def __init__(
        self,
        transmitters: Sequence[Transmitter],
        store: RevocationStore,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._transmitters = {
            transmitter.settings.issuer: KnownTransmitter(transmitter, monotonic) for transmitter in transmitters
        }
        self._store = store
        self._clock = clock
        self._refused = Alarm("a security event was refused (%s): %s; transmitter %s")
        self._lost = Alarm("a security event could not be taken: %s; transmitter %s")
        self._silenced = Alarm("the transmitter %r has set its event stream to %r: it sends no revocations")

    def start(self) -> None:
        """Load the keys of every transmitter, one after the other, each within its deadline."""
        for known in self._transmitters.values():
            known.keys.load()

    def close(self) -> None:
        """Stop refreshing keys."""
        for known in self._transmitters.values():
            known.keys.close()

    def readings(self, now: float) -> tuple[FeedReading, ...]:
        """When each transmitter was last heard, by this process."""
        return tuple(known.reading(now) for known in self._transmitters.values())

    def receive(self, method: str, headers: Headers, body: bytes) -> Answer:
        """The answer to one request: 202 only once every revocation that the event asks for is in the store."""
        try:
            refusal = _check_form(method, headers, body)
            return self._receive(headers, body) if refusal is None else refusal
        except EventRefusedError as error:
            self._refused.ring(error.err, error.what, "not known", kind=error.err)
            return _error(error)
        except Exception as error:  # noqa: BLE001 - the transmitter keeps what was not acknowledged
            self._lost.ring(f"unexpected {type(error).__name__}", "not known", kind="unexpected")
            return _not_now()

    def _receive(self, headers: Headers, body: bytes) -> Answer:
        shown = _credential_in(headers)
        try:
            trusted = frozenset(issuer for issuer, known in self._transmitters.items() if known.trusts(shown))
            if not trusted:
                raise EventRefusedError("authentication_failed", "the transmitter has not shown its credential")
            document = _parse(body)
            known = self._known(document)
            issuer = known.settings.issuer
            if issuer not in trusted:
                raise EventRefusedError("authentication_failed", "the transmitter has not shown its credential")
        except SecretUnavailableError as error:
            self._lost.ring(str(error), "not known", kind="secret")
            return _not_now()
        try:
            known.check_signature(document)
            event = read_event(document.unverified_claims, known.settings, self._clock())
            self._store.add(event.revocations)
        except EventRefusedError as error:
            self._refused.ring(error.err, error.what, issuer, kind=f"{issuer} {error.err}")
            return _error(error)
        except (NotNowError, StoreUnavailableError, RevocationError) as error:
            self._lost.ring(_why(error), issuer, kind=issuer)
            return _not_now()
        self._note(known, event)
        return Answer(202, (("cache-control", "no-store"),), b"")

    def _known(self, document: SignedDocument) -> KnownTransmitter:
        issuer = document.unverified_claims.get("iss")
        known = self._transmitters.get(issuer) if isinstance(issuer, str) else None
        if known is None:
            raise EventRefusedError("invalid_issuer", "iss is not that of a configured transmitter")
        return known

    def _note(self, known: KnownTransmitter, event: SecurityEvent) -> None:
        issuer = known.settings.issuer
        known.heard_at = self._clock()
        if event.stream_status is not None:
            known.status = event.stream_status
            if event.stream_status != "enabled":
                self._silenced.ring(issuer, event.stream_status, kind=issuer)
        if event.passed_over:
            logger.info("transmitter %s: events of %d types that nobody acts on here", issuer, len(event.passed_over))
        for entry in event.revocations:
            logger.info("transmitter %s: %s; revocation %s", issuer, entry.reason, entry.id)


def _check_form(method: str, headers: Headers, body: bytes) -> Answer | None:
    """What HTTP itself has a status for; None where the body may be looked at (RFC 8935 section 2.1)."""
    if method != "POST":
        return _refusal(405, "invalid_request", "events are sent by POST", ("allow", "POST"))
    if len(body) > MAX_DOCUMENT:
        return too_large()
    kinds = _values(headers, "content-type")
    if len(kinds) != 1 or kinds[0].partition(";")[0].strip().lower() != f"application/{TYPE}":
        return _refusal(415, "invalid_request", f"content-type must be application/{TYPE}")
    if any(coding.strip().lower() != "identity" for coding in _values(headers, "content-encoding")):
        return _refusal(415, "invalid_request", "the body must not be compressed")
    return None


def _credential_in(headers: Headers) -> str | None:
    """The bearer token of a request that shows exactly one (RFC 6750 section 2.1)."""
    values = _values(headers, "authorization")
    if len(values) != 1 or values[0][: len(_BEARER)].lower() != _BEARER:
        return None
    return values[0][len(_BEARER) :]


def _values(headers: Headers, name: str) -> list[str]:
    return [value for known, value in headers if known == name]


def _parse(body: bytes) -> SignedDocument:
    try:
        return parse_document(body.strip(), typ=TYPE, limit=MAX_DOCUMENT)
    except DocumentRefusedError as refusal:
        raise EventRefusedError("invalid_request", f"the body is no security event ({refusal.code})") from None


def _why(error: Exception) -> str:
    """In our words: a store's error may quote its file, never the event."""
    return str(error) if isinstance(error, NotNowError | StoreUnavailableError) else type(error).__name__


def too_large() -> Answer:
    """The answer to a body that is longer than an event may be."""
    return _refusal(413, "invalid_request", f"an event has at most {MAX_DOCUMENT} bytes")


def length_required() -> Answer:
    """The answer to a body whose end the server does not tell."""
    return _refusal(411, "invalid_request", "the request must say how long its body is")


def _error(error: EventRefusedError) -> Answer:
    if error.err == "authentication_failed":
        return _refusal(401, error.err, error.what, ("www-authenticate", "Bearer"))
    return _refusal(400, error.err, error.what)


def _not_now() -> Answer:
    """The event was not taken and is to be sent again (RFC 8935 section 2.3 leaves such answers to HTTP)."""
    return Answer(503, (("cache-control", "no-store"), ("retry-after", str(_RETRY_AFTER_S))), b"")


def _refusal(status: int, err: str, what: str, *headers: tuple[str, str]) -> Answer:
    """RFC 8935 section 2.3."""
    fixed = (("content-type", "application/json"), ("content-language", "en"), ("cache-control", "no-store"))
    return Answer(status, (*fixed, *headers), msgspec.json.encode({"err": err, "description": what}))
