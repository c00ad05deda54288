"""The remote decision point (PDP): puts one question over a transport and judges what comes back.

No answer is a value; nothing but cancellation leaves `ask` as an exception.
"""

from __future__ import annotations

import functools
import re
import ssl
import time
from collections.abc import Callable
from typing import Final

from authz_middleware import __version__
from authz_middleware.errors import Problem, SettingsError
from authz_middleware.forking import renew_in_children
from authz_middleware.remote.credentials.bearer import BearerCredential
from authz_middleware.remote.failure import FailureKind, RemoteAnswer, RemoteFailure
from authz_middleware.remote.flights import AsyncFlights, Flights
from authz_middleware.remote.messages.answer import parse_answer
from authz_middleware.remote.query import RemoteQuery
from authz_middleware.remote.transport.http_transport import HttpTransport
from authz_middleware.remote.transport.protocol import AsyncTransport, RawAnswer, Transport
from authz_middleware.settings.remote.decision_point import RemoteSettings

EVALUATION_PATH: Final = "/access/v1/evaluation"
REQUEST_ID: Final = re.compile(r"[\x21-\x7e]{1,128}")
TOO_LATE: Final = RemoteFailure(FailureKind.DEADLINE, "late")


class DecisionPoint:
    """One decision point. Without given transports, `http.client` and aiohttp carry the questions.

    Raises SettingsError when the certificates to trust cannot be read.
    """

    def __init__(
        self,
        settings: RemoteSettings,
        *,
        transport: Transport | None = None,
        async_transport: AsyncTransport | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = settings.url.rstrip("/") + EVALUATION_PATH
        self._deadline = settings.deadline
        self._max_connections = settings.max_connections
        self._monotonic = monotonic
        self._credential = None if settings.credential is None else BearerCredential(settings.credential)
        self._tls = _tls_context(settings)
        self._transport = transport or HttpTransport(max_connections=settings.max_connections, tls=self._tls)
        self._async_transport = async_transport
        self.renew_after_fork()
        renew_in_children(self)

    def prepare_async(self) -> None:
        """Get ready for `ask_async`. Raises SettingsError when aiohttp is not installed; call it at start-up."""
        if self._async_transport is None:
            try:
                from authz_middleware.remote.transport.aiohttp_transport import AiohttpTransport  # noqa: PLC0415 - an extra
            except ImportError:
                what = "needs aiohttp in an asynchronous application: install authz-middleware[async]"
                raise SettingsError([Problem("remote", what)]) from None
            self._async_transport = AiohttpTransport(max_connections=self._max_connections, tls=self._tls)

    def ask(self, query: RemoteQuery) -> RemoteAnswer | RemoteFailure:
        """Put a question by blocking calls; the answer is there, or is not, within the deadline."""
        try:
            end = self._monotonic() + self._deadline
            return self._flights.join(query.key, end, functools.partial(self._ask, query, end))
        except Exception:  # noqa: BLE001 - a transport may raise anything; none of it is an answer
            return RemoteFailure(FailureKind.INTERNAL, "client")

    async def ask_async(self, query: RemoteQuery) -> RemoteAnswer | RemoteFailure:
        """`ask` for an event loop."""
        try:
            self.prepare_async()
            end = self._monotonic() + self._deadline
            return await self._async_flights.join(query.key, end, functools.partial(self._ask_async, query, end))
        except SettingsError:
            return RemoteFailure(FailureKind.CONFIG, "async.not_installed")
        except Exception:  # noqa: BLE001 - likewise
            return RemoteFailure(FailureKind.INTERNAL, "client")

    def close(self) -> None:
        """Close the connections of blocking code."""
        self._transport.close()

    async def aclose(self) -> None:
        """Close the connections of the running event loop."""
        if self._async_transport is not None:
            await self._async_transport.aclose()

    def renew_after_fork(self) -> None:
        """Follow no question that only the parent waits for."""
        self._flights = Flights(self._monotonic)
        self._async_flights = AsyncFlights(self._monotonic)

    def _ask(self, query: RemoteQuery, end: float) -> RemoteAnswer | RemoteFailure:
        headers, left = self._headers(query), end - self._monotonic()
        if isinstance(headers, RemoteFailure):
            return headers
        if left <= 0:
            return TOO_LATE
        return self._judge(self._transport.post(self._url, headers, query.body, left), query, end)

    async def _ask_async(self, query: RemoteQuery, end: float) -> RemoteAnswer | RemoteFailure:
        headers, left = self._headers(query), end - self._monotonic()
        if isinstance(headers, RemoteFailure):
            return headers
        if left <= 0 or self._async_transport is None:
            return TOO_LATE
        return self._judge(await self._async_transport.post(self._url, headers, query.body, left), query, end)

    def _judge(self, raw: RawAnswer | RemoteFailure, query: RemoteQuery, end: float) -> RemoteAnswer | RemoteFailure:
        if isinstance(raw, RemoteFailure):
            return raw
        return parse_answer(raw, query.request_id) if self._monotonic() <= end else TOO_LATE

    def _headers(self, query: RemoteQuery) -> dict[str, str] | RemoteFailure:
        if not REQUEST_ID.fullmatch(query.request_id):
            return RemoteFailure(FailureKind.UNASKABLE, "request_id")
        headers = {
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "Content-Type": "application/json",
            "User-Agent": f"authz-middleware/{__version__}",
            "X-Request-ID": query.request_id,
        }
        if self._credential is not None:
            authorization = self._credential.header()
            if isinstance(authorization, RemoteFailure):
                return authorization
            headers["Authorization"] = authorization
        return headers


def _tls_context(settings: RemoteSettings) -> ssl.SSLContext | None:
    if not settings.url.startswith("https:"):
        return None
    try:
        return ssl.create_default_context(cafile=None if settings.ca_file is None else str(settings.ca_file))
    except (OSError, ValueError):
        what = f"holds no certificates that can be read: {settings.ca_file}"
        raise SettingsError([Problem("remote.ca_file", what)]) from None
