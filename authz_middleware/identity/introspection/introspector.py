"""Opaque tokens: the issuer itself is asked what each one is worth (RFC 7662).

The question is a `flow.Work`, so it blocks a thread or is awaited, whichever the application does. It ends by a
deadline; the same token is asked about once at a time; and a server that does not answer is left alone for a
while. No answer is never a permit, is never remembered, and is told apart from "not valid": 503, not 401.
"""

from __future__ import annotations

import asyncio
import functools
import re
import time
from collections.abc import Callable
from hashlib import sha256
from typing import Final
from urllib.parse import urlencode

from authz_middleware import __version__
from authz_middleware.alarm import Alarm
from authz_middleware.flow import Flow, Work
from authz_middleware.forking import renew_in_children
from authz_middleware.identity.compact import MAX_TOKEN, RawClaims, parse_token
from authz_middleware.identity.introspection.answer import claims_of, parse_introspection
from authz_middleware.identity.introspection.cache import IntrospectionCache
from authz_middleware.identity.introspection.client_credential import ClientCredential
from authz_middleware.identity.problem import CredentialDetail, TokenRefusedError
from authz_middleware.identity.tokens import IssuerRules, check_issuer
from authz_middleware.remote.breaker import Breaker
from authz_middleware.remote.failure import FailureKind, RemoteAnswer, RemoteFailure
from authz_middleware.remote.flights import AsyncFlights, Flights, Reply
from authz_middleware.remote.transport.asyncio_transport import AsyncioTransport
from authz_middleware.remote.transport.client_tls import ClientTLS
from authz_middleware.remote.transport.http_transport import HttpTransport
from authz_middleware.remote.transport.protocol import RawAnswer
from authz_middleware.settings.key_sources import IntrospectionSettings
from authz_middleware.settings.remote.decision_point import BreakerSettings
from authz_middleware.settings.remote.tls import TlsSettings

BREAKER: Final = BreakerSettings()
"""When a server that does not answer is left alone, and for how long."""

TOO_LATE: Final = RemoteFailure(FailureKind.DEADLINE, "late")
LEFT_ALONE: Final = RemoteFailure(FailureKind.BREAKER_OPEN, "breaker", is_news=False)

# RFC 6750 section 2.1.
_B64TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*", re.ASCII)


def is_opaque(token: str) -> bool:
    """Whether a token says nothing of itself. A signed one has two dots, and more of them none that we know of."""
    return token.count(".") < 2


class Introspector:
    """Asks the introspection endpoint of one issuer. One object serves all threads and event loops of a process.

    `where` is the issuer's place in the settings. Raises SettingsError when the certificates to trust cannot be read.
    """

    def __init__(
        self,
        rules: IssuerRules,
        settings: IntrospectionSettings,
        *,
        where: str = "issuers",
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rules = rules
        self._settings = settings
        self._monotonic = monotonic
        self._credential = ClientCredential(settings, monotonic=monotonic)
        is_secure = settings.url.lower().startswith("https:")
        self._tls = ClientTLS(TlsSettings(settings.ca_file), where=f"{where}.introspection") if is_secure else None
        self._transport = HttpTransport(max_connections=settings.max_connections, tls=self._tls)
        self._async_transport = AsyncioTransport(max_connections=settings.max_connections, tls=self._tls)
        self._breaker = Breaker(BREAKER, name=f"introspection at the issuer {rules.settings.issuer}")
        self._failed = Alarm("introspection at the issuer %s failed: %s")
        self._cache = IntrospectionCache(settings.cache_ttl)
        self.renew_after_fork()
        renew_in_children(self)

    def renew_after_fork(self) -> None:
        """Wait for no question that only the parent has put."""
        self._flights = Flights(self._monotonic)
        self._async_flights = AsyncFlights(self._monotonic)

    def close(self) -> None:
        """Close the connections of blocking code."""
        self._transport.close()

    async def aclose(self) -> None:
        """Close the connections of the running event loop."""
        await self._async_transport.aclose()

    def introspect(self, token: str, now: float) -> Flow[RawClaims]:
        """What the issuer says that this token is, checked like the claims of a signed one at `now` (seconds since the
        epoch).

        The token is opaque, or a signed one that names this issuer. Raises TokenRefusedError.
        """
        self._check_form(token)
        digest = sha256(token.encode("ascii")).digest()
        known = self._cache.recall(digest, now)
        if known is None:
            reply = yield Work(Introspection(self, token, digest))
            known = self._conclude(reply, digest, now)
        return known

    def ask(self, token: str, digest: bytes) -> Reply:
        """Ask the issuer about a token by blocking calls. No answer is a value; nothing is raised."""
        try:
            end = self._monotonic() + self._settings.deadline
            return self._flights.join((digest,), end, functools.partial(self._post, token, end))
        except Exception:  # noqa: BLE001 - whatever a transport raises may quote what was sent, and is no answer
            return RemoteFailure(FailureKind.INTERNAL, "client")

    async def ask_async(self, token: str, digest: bytes) -> Reply:
        """`ask` for an event loop."""
        try:
            end = self._monotonic() + self._settings.deadline
            return await self._async_flights.join((digest,), end, functools.partial(self._apost, token, end))
        except TimeoutError:
            return TOO_LATE
        except Exception:  # noqa: BLE001 - likewise
            return RemoteFailure(FailureKind.INTERNAL, "client")

    def _check_form(self, token: str) -> None:
        if len(token) > MAX_TOKEN:
            raise TokenRefusedError(CredentialDetail.TOO_LONG)
        if not is_opaque(token):
            # Nobody else's signed token is shown to this issuer, which might know it by another name.
            check_issuer(parse_token(token).unverified_claims, self._rules)
        elif not _B64TOKEN.fullmatch(token):
            raise TokenRefusedError(CredentialDetail.MALFORMED)

    def _conclude(self, reply: object, digest: bytes, now: float) -> RawClaims:
        if not isinstance(reply, RemoteAnswer):
            failure = reply if isinstance(reply, RemoteFailure) else RemoteFailure(FailureKind.INTERNAL, "reply")
            self._failed.ring(self._rules.settings.issuer, f"{failure.kind} {failure.detail}", kind=failure.kind)
            unavailable, failed = CredentialDetail.INTROSPECTION_UNAVAILABLE, CredentialDetail.INTROSPECTION_FAILED
            raise TokenRefusedError(unavailable if failure.is_outage else failed)
        claims = claims_of(reply, self._rules, now)
        self._cache.remember(digest, claims, now)
        return claims

    def _post(self, token: str, end: float) -> Reply:
        authorization, left = self._credential.header(), end - self._monotonic()
        if isinstance(authorization, RemoteFailure):
            return authorization
        if left <= 0:
            return TOO_LATE
        ticket = self._breaker.admit(self._monotonic())
        if not ticket:
            return LEFT_ALONE
        reply: Reply | None = None
        try:
            raw = self._transport.post(self._settings.url, _headers(authorization), _form(token), left)
            reply = self._judge(raw, end)
            return reply
        finally:
            self._report(reply, ticket)

    async def _apost(self, token: str, end: float) -> Reply:
        authorization: str | RemoteFailure | None = self._credential.remembered()
        if authorization is None:
            # The secret may lie in a file, which is no thing to wait for on an event loop.
            async with asyncio.timeout(end - self._monotonic()):
                authorization = await asyncio.to_thread(self._credential.header)
        left = end - self._monotonic()
        if isinstance(authorization, RemoteFailure):
            return authorization
        if left <= 0:
            return TOO_LATE
        ticket = self._breaker.admit(self._monotonic())
        if not ticket:
            return LEFT_ALONE
        reply: Reply | None = None
        try:
            raw = await self._async_transport.post(self._settings.url, _headers(authorization), _form(token), left)
            reply = self._judge(raw, end)
            return reply
        finally:
            self._report(reply, ticket)

    def _judge(self, raw: RawAnswer | RemoteFailure, end: float) -> Reply:
        if isinstance(raw, RemoteFailure):
            return raw
        return parse_introspection(raw) if self._monotonic() <= end else TOO_LATE

    def _report(self, reply: Reply | None, ticket: int) -> None:
        """Every question that was admitted, given up ones included, is told to the breaker."""
        now = self._monotonic()
        if reply is None or (isinstance(reply, RemoteFailure) and not reply.is_news):
            self._breaker.abandon(now, ticket)
        elif isinstance(reply, RemoteFailure) and reply.is_outage:
            self._breaker.fail(now, ticket, reply.kind.value)
        else:
            self._breaker.succeed(now, ticket)


class Introspection:
    """The question about one token, as a job for either colour. Its `repr` does not show the token."""

    __slots__ = ("_digest", "_introspector", "_token")

    def __init__(self, introspector: Introspector, token: str, digest: bytes) -> None:
        self._introspector = introspector
        self._token = token
        self._digest = digest

    def __repr__(self) -> str:
        return "<Introspection>"

    def perform(self) -> Reply:
        """Ask, blocking."""
        return self._introspector.ask(self._token, self._digest)

    async def aperform(self) -> Reply:
        """Ask on an event loop."""
        return await self._introspector.ask_async(self._token, self._digest)


def _form(token: str) -> bytes:
    return urlencode({"token": token, "token_type_hint": "access_token"}).encode("ascii")


def _headers(authorization: str) -> dict[str, str]:
    return {
        "Accept": "application/json",
        "Accept-Encoding": "identity",
        "Authorization": authorization,
        "Content-Type": "application/x-www-form-urlencoded",
        "User-Agent": f"authz-middleware/{__version__}",
    }
