"""One HTTP exchange with the decision point, in either colour: all that is said to it beside the message itself.

Several of them, one after the other, are a generator of requests: it is driven by blocking calls or on an event loop,
so that what is asked next, and why, is written once.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Generator
from typing import Final, TypeVar

import msgspec

from authz_middleware import __version__
from authz_middleware.remote.credentials.sources import credential_for
from authz_middleware.remote.failure import FailureKind, RemoteFailure
from authz_middleware.remote.transport.asyncio_transport import AsyncioTransport
from authz_middleware.remote.transport.client_tls import ClientTLS
from authz_middleware.remote.transport.http_transport import HttpTransport
from authz_middleware.remote.transport.protocol import AsyncTransport, RawAnswer, Transport
from authz_middleware.settings.remote.decision_point import RemoteSettings

REQUEST_ID: Final = re.compile(r"[\x21-\x7e]{1,128}")
TOO_LATE: Final = RemoteFailure(FailureKind.DEADLINE, "late")
UNSENT: Final = RemoteFailure(FailureKind.DEADLINE, "late", is_news=False)
"""The time was over before the request was sent, which says nothing of the decision point."""
NOBODY_ANSWERED: Final = RemoteFailure(FailureKind.DEADLINE, "connections", is_news=False)

TOO_LONG: Final = RemoteFailure(FailureKind.UNASKABLE, "body.too_large")
MAX_MESSAGE: Final = 256 * 1024
"""The most bytes of one message. Whoever can make a question long must not choose, by the time that it takes or by who
is not willing to read it, what happens without an answer."""

UNAUTHORIZED: Final = 401

_HEADERS: Final = {
    "Accept": "application/json",
    "Accept-Encoding": "identity",
    "Content-Type": "application/json",
    "User-Agent": f"authz-middleware/{__version__}",
}


class Request(msgspec.Struct, frozen=True, gc=False):
    """One message to one endpoint. `request_id` is its `X-Request-ID` (AuthZEN 1.0, Request Identification)."""

    url: str
    body: bytes
    request_id: str


R = TypeVar("R")
Conversation = Generator[Request, RawAnswer | RemoteFailure, R]
"""Requests, each of which may hang on the answer to the one before, and what comes of them."""


class Exchange:
    """How one decision point is reached. Without given transports, those of `remote.transport` carry the requests.

    An `end` is a reading of the monotonic clock; what is not there by then is a failure. Raises SettingsError when the
    certificates to trust cannot be read.
    """

    def __init__(
        self,
        settings: RemoteSettings,
        *,
        transport: Transport | None = None,
        async_transport: AsyncTransport | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._monotonic = monotonic
        self._credential = credential_for(settings.credential, monotonic=monotonic)
        self._tls = ClientTLS(settings.tls) if _is_secure(settings) else None
        self._transport = transport or HttpTransport(
            max_connections=settings.max_connections, tls=self._tls, unix_socket=settings.unix_socket
        )
        self._async_transport = async_transport or AsyncioTransport(
            max_connections=settings.max_connections, tls=self._tls, unix_socket=settings.unix_socket
        )
        self._answered_at = float("-inf")

    def post(self, request: Request, end: float) -> RawAnswer | RemoteFailure:
        """One request by blocking calls."""
        began = self._monotonic()
        authorization = None if self._credential is None else self._credential.header(end - began)
        headers = _headers(request, authorization)
        if isinstance(headers, RemoteFailure):
            return headers
        left = end - self._monotonic()
        if left <= 0:
            return UNSENT
        return self._noted(self._transport.post(request.url, headers, request.body, left), headers, began, end)

    async def post_async(self, request: Request, end: float) -> RawAnswer | RemoteFailure:
        """`post` for an event loop."""
        began = self._monotonic()
        authorization = None if self._credential is None else await self._credential.aheader(end - began)
        headers = _headers(request, authorization)
        if isinstance(headers, RemoteFailure):
            return headers
        left = end - self._monotonic()
        if left <= 0:
            return UNSENT
        told = await self._async_transport.post(request.url, headers, request.body, left)
        return self._noted(told, headers, began, end)

    def hold(self, conversation: Conversation[R], end: float) -> R:
        """Post what a conversation asks for, by blocking calls, until it has come to its end."""
        try:
            request = next(conversation)
            while True:
                request = conversation.send(self.post(request, end))
        except StopIteration as ended:
            return ended.value  # type: ignore[no-any-return]  # a generator's return value is untyped here

    async def hold_async(self, conversation: Conversation[R], end: float) -> R:
        """`hold` for an event loop."""
        try:
            request = next(conversation)
            while True:
                request = conversation.send(await self.post_async(request, end))
        except StopIteration as ended:
            return ended.value  # type: ignore[no-any-return]  # likewise

    def close(self) -> None:
        """Close the connections of blocking code."""
        self._transport.close()
        if self._credential is not None:
            self._credential.close()

    async def aclose(self) -> None:
        """Close the connections of the running event loop."""
        await self._async_transport.aclose()
        if self._credential is not None:
            await self._credential.aclose()

    def _noted(
        self, told: RawAnswer | RemoteFailure, headers: dict[str, str], began: float, end: float
    ) -> RawAnswer | RemoteFailure:
        """What came of a request that was begun at `began`, in the light of when anybody was answered."""
        if isinstance(told, RemoteFailure):
            if told.kind is FailureKind.MALFORMED:
                self._answered_at = self._monotonic()
            elif told.kind is FailureKind.BUSY and self._answered_at < began:
                # Our connections are all in use because nobody is answered: it is away, and we are not merely busy.
                return NOBODY_ANSWERED
            return told
        if told.status == UNAUTHORIZED and self._credential is not None:
            self._credential.refused(headers["Authorization"])
        now = self._answered_at = self._monotonic()
        return told if now <= end else TOO_LATE


def _headers(request: Request, authorization: str | RemoteFailure | None) -> dict[str, str] | RemoteFailure:
    if not REQUEST_ID.fullmatch(request.request_id):
        return RemoteFailure(FailureKind.UNASKABLE, "request_id")
    if len(request.body) > MAX_MESSAGE:
        return TOO_LONG
    if isinstance(authorization, RemoteFailure):
        return authorization
    headers = {**_HEADERS, "X-Request-ID": request.request_id}
    if authorization is not None:
        headers["Authorization"] = authorization
    return headers


def _is_secure(settings: RemoteSettings) -> bool:
    """Whether there may be an https address to ask."""
    discovery = settings.endpoints.discovery
    if discovery is not None and discovery.allowed_hosts:
        return True
    return any(url.lower().startswith("https:") for url in (settings.url, *settings.endpoints.given.values()))
