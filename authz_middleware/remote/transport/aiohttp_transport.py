"""The transport for event loops: one aiohttp session for each loop, closed when its loop ends.

Needs the extra `authz-middleware[async]`; no other module imports aiohttp.
"""

from __future__ import annotations

import asyncio
import functools
import ssl
from collections.abc import AsyncGenerator, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

import aiohttp
from aiohttp.client_proto import ResponseHandler

from authz_middleware.remote.failure import FailureKind, RemoteFailure
from authz_middleware.remote.transport.framing import framing_failure
from authz_middleware.remote.transport.http_transport import BUSY, WAIT_SHARE
from authz_middleware.remote.transport.protocol import RawAnswer
from authz_middleware.remote.transport.wire import is_readable
from authz_middleware.strict_json import MAX_BODY

if TYPE_CHECKING:
    from aiohttp.connector import Connection

TOO_LARGE: Final = RemoteFailure(FailureKind.MALFORMED, "body.too_large")


class AiohttpTransport:
    """Carries questions on event loops, over at most `max_connections` connections at a time on each.

    `tls` is what https connections are made with; without one an https URL is refused.
    """

    def __init__(self, *, max_connections: int = 64, tls: ssl.SSLContext | None = None) -> None:
        self._max_connections = max_connections
        self._tls = tls
        # A forked child runs loops of its own, and so never meets a session of its parent's.
        self._lines: dict[asyncio.AbstractEventLoop, _Line] = {}

    async def post(
        self, url: str, headers: Mapping[str, str], body: bytes, deadline: float
    ) -> RawAnswer | RemoteFailure:
        """Post and read the whole answer within `deadline` seconds. What goes wrong is a RemoteFailure."""
        if self._tls is None and url.startswith("https:"):
            return RemoteFailure(FailureKind.CONFIG, "tls.missing")
        try:
            async with asyncio.timeout(deadline):
                line = await self._line()
                if not await _acquire(line.free, deadline * WAIT_SHARE):
                    return BUSY
                try:
                    return await _exchange(line.session, url, headers, body)
                finally:
                    line.free.release()
        except TimeoutError:
            return RemoteFailure(FailureKind.DEADLINE, "read")

    async def aclose(self) -> None:
        """Close the connections of the running event loop; those of another loop close when it ends."""
        line = self._lines.get(asyncio.get_running_loop())
        if line is not None:
            await line.life.aclose()

    async def _line(self) -> _Line:
        loop = asyncio.get_running_loop()
        line = self._lines.get(loop)
        if line is None:
            line = self._lines[loop] = _Line(self._max_connections, self._tls)
            line.life = self._live(loop, line.session)
            await anext(line.life)
        return line

    async def _live(
        self, loop: asyncio.AbstractEventLoop, session: aiohttp.ClientSession
    ) -> AsyncGenerator[None, None]:
        """Held at its `yield` for as long as the session lives. An event loop finalizes the generators that were
        begun on it before it closes (`shutdown_asyncgens`), so no session outlives its loop."""
        try:
            yield
        finally:
            self._lines.pop(loop, None)
            await session.close()


class _Line:
    """What belongs to one event loop."""

    life: AsyncGenerator[None, None]

    def __init__(self, max_connections: int, tls: ssl.SSLContext | None) -> None:
        self.free = asyncio.Semaphore(max_connections)
        self.session = aiohttp.ClientSession(
            connector=_Connector(limit=max_connections, ssl=True if tls is None else tls),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),  # the deadline is around all of it
            trust_env=False,
            auto_decompress=False,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding"),
        )


class _Handler(ResponseHandler):
    """aiohttp's connection, which also knows what came in since the last question, and by whose doing it ended."""

    is_used = False
    is_idle = False
    has_heard = False
    has_ended = False
    reading: aiohttp.StreamReader | None = None

    def ask_next(self) -> None:
        """Begin an exchange."""
        self.is_used = self.is_used or self.has_heard
        self.is_idle = self.has_heard = False
        self.reading = None

    def is_spoiled(self) -> bool:
        """Whether something has come in, or waits to be read, that belongs to no question."""
        waiting = self.transport is None or is_readable(self.transport.get_extra_info("socket"))
        return waiting or self.should_close

    def close(self) -> None:
        # At once: TLS would first say goodbye, wait for the other side's, and may outlive the event loop over it.
        self.abort()

    def data_received(self, data: bytes) -> None:
        self.has_heard = True
        if self.is_idle:
            self.force_close()
        super().data_received(data)

    def set_exception(self, exc: BaseException, *arguments: Any, **options: Any) -> None:
        super().set_exception(exc, *arguments, **options)
        if self.reading is not None and self.reading.exception() is None:
            # aiohttp tells nobody who already reads the body that it has given up on it.
            self.reading.set_exception(aiohttp.ClientPayloadError())

    def eof_received(self) -> None:
        self.has_ended = True
        super().eof_received()

    def connection_lost(self, exc: BaseException | None) -> None:
        self.has_ended = self.has_ended or exc is not None
        super().connection_lost(exc)


class _Asking:
    """What the asking task and the connector tell each other: a new connection is wanted; this one was given."""

    __slots__ = ("handler", "wants_new")

    def __init__(self, *, wants_new: bool) -> None:
        self.wants_new = wants_new
        self.handler: _Handler | None = None

    @property
    def met_a_stale_connection(self) -> bool:
        """Whether a kept-alive connection was used on which not a byte came back."""
        return self.handler is not None and self.handler.is_used and not self.handler.has_heard


_asking: ContextVar[_Asking] = ContextVar("authz_asking")


class _Connector(aiohttp.TCPConnector):
    """aiohttp's connector, with a word with the asking task about the connection it gives."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        # The one thing here that aiohttp does not document; without it no question is ever put twice.
        self._factory: Any = functools.partial(_Handler, loop=asyncio.get_running_loop())

    async def connect(self, *arguments: Any, **options: Any) -> Connection:
        """A connection, kept alive or new."""
        asking = _asking.get()
        while True:
            connection = await super().connect(*arguments, **options)
            handler = connection.protocol
            if not isinstance(handler, _Handler):
                return connection
            handler.ask_next()
            if not (handler.is_used and (asking.wants_new or handler.is_spoiled())):
                asking.handler = handler
                return connection
            connection.close()


async def _acquire(free: asyncio.Semaphore, wait: float) -> bool:
    if not free.locked():
        return await free.acquire()
    try:
        async with asyncio.timeout(wait):
            return await free.acquire()
    except TimeoutError:
        return False


async def _exchange(
    session: aiohttp.ClientSession, url: str, headers: Mapping[str, str], body: bytes
) -> RawAnswer | RemoteFailure:
    asking = _Asking(wants_new=False)
    answer = await _ask(session, asking, url, headers, body)
    closed = isinstance(answer, RemoteFailure) and answer.kind is FailureKind.CLOSED
    # Closed by the other side before it read the question: it was idle for too long. Ask once more.
    if closed and asking.met_a_stale_connection:
        return await _ask(session, _Asking(wants_new=True), url, headers, body)
    return answer


async def _ask(
    session: aiohttp.ClientSession, asking: _Asking, url: str, headers: Mapping[str, str], body: bytes
) -> RawAnswer | RemoteFailure:
    _asking.set(asking)
    try:
        async with session.post(url, data=body, headers=headers, allow_redirects=False) as response:
            if asking.handler is not None:
                asking.handler.reading = response.content
            head = RawAnswer(response.status, tuple((n.lower(), v) for n, v in response.headers.items()), b"")
            return framing_failure(head) or await _read(response, head)
    except aiohttp.ClientPayloadError:  # also raised for a chunk whose size cannot be read
        has_ended = asking.handler is None or asking.handler.has_ended
        return RemoteFailure(FailureKind.CLOSED if has_ended else FailureKind.MALFORMED, "body")
    except aiohttp.ClientError as error:
        return _failure_of(error)
    finally:
        if asking.handler is not None:
            asking.handler.is_idle = True


async def _read(response: aiohttp.ClientResponse, head: RawAnswer) -> RawAnswer | RemoteFailure:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > MAX_BODY:
            response.close()
            return TOO_LARGE
    return RawAnswer(head.status, head.headers, bytes(body))


def _failure_of(error: aiohttp.ClientError) -> RemoteFailure:
    match error:
        case aiohttp.ClientConnectorCertificateError():
            # Whoever stands in the way with a wrong certificate must not choose the fallback.
            return RemoteFailure(FailureKind.CONFIG, "tls.certificate")
        case aiohttp.ClientSSLError():
            return RemoteFailure(FailureKind.CONNECT, "tls")
        case aiohttp.ClientConnectorError():
            return RemoteFailure(FailureKind.CONNECT, "connect")
        case aiohttp.ServerDisconnectedError() | aiohttp.ClientOSError():
            return RemoteFailure(FailureKind.CLOSED, "closed")
        case _:
            return RemoteFailure(FailureKind.MALFORMED, "http")
