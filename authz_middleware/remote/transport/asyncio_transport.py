"""The transport for event loops: HTTP/1.1 over a small pool of kept-alive connections for each, closed when it ends.

Bounded as the one for blocking code is, and what a response may look like is the business of the same `ResponseReader`.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any

from authz_middleware.remote.failure import FailureKind, RemoteFailure
from authz_middleware.remote.transport.client_tls import WRONG_SERVER, ClientTLS, tls_failure
from authz_middleware.remote.transport.http_transport import BUSY, IDLE_S, UNSAYABLE, WAIT_SHARE
from authz_middleware.remote.transport.protocol import RawAnswer
from authz_middleware.remote.transport.request import Place, Target, request_of, target_of
from authz_middleware.remote.transport.resolving import aresolve
from authz_middleware.remote.transport.response import CLOSED, NOT_HTTP, ResponseReader, heard_early
from authz_middleware.remote.transport.wire import FULL_QUEUE_PAUSE_S, is_readable

Reply = RawAnswer | RemoteFailure


class AsyncioTransport:
    """Carries questions on event loops, over at most `max_connections` connections at a time on each.

    `tls` is what https connections are made with; without one an https URL is refused. With `unix_socket` the host of
    a URL is only spoken of, and everybody is reached there.
    """

    def __init__(
        self, *, max_connections: int = 64, tls: ClientTLS | None = None, unix_socket: Path | None = None
    ) -> None:
        self._max_connections = max_connections
        self._tls = tls
        self._unix_socket = unix_socket
        # A forked child runs loops of its own, and so never meets a connection of its parent's.
        self._pools: dict[asyncio.AbstractEventLoop, _Pool] = {}

    async def post(self, url: str, headers: Mapping[str, str], body: bytes, deadline: float) -> Reply:
        """Post and read the whole answer within `deadline` seconds. What goes wrong is a RemoteFailure."""
        target = target_of(url)
        request = request_of(target, headers, body)
        if request is None:
            return UNSAYABLE
        if target.is_secure and self._tls is None:
            return RemoteFailure(FailureKind.CONFIG, "tls.missing")
        end = asyncio.get_running_loop().time() + deadline
        try:
            async with asyncio.timeout_at(end):
                pool = await self._pool()
                if not await _acquire(pool.free, deadline * WAIT_SHARE):
                    return BUSY
                try:
                    return await self._exchange(pool, target, request, end)
                finally:
                    pool.free.release()
        except TimeoutError:
            return RemoteFailure(FailureKind.DEADLINE, "read")

    async def aclose(self) -> None:
        """Close the connections of the running event loop; those of another loop close when it ends."""
        pool = self._pools.get(asyncio.get_running_loop())
        if pool is not None:
            await pool.life.aclose()

    async def _pool(self) -> _Pool:
        loop = asyncio.get_running_loop()
        pool = self._pools.get(loop)
        if pool is None:
            pool = self._pools[loop] = _Pool(loop, self._max_connections, self._tls)
            pool.life = self._live(loop, pool)
            await anext(pool.life)
        return pool

    async def _live(self, loop: asyncio.AbstractEventLoop, pool: _Pool) -> AsyncGenerator[None, None]:
        """Held at its `yield` for as long as the pool lives. An event loop finalizes the generators that were begun
        on it before it closes (`shutdown_asyncgens`), so no connection outlives its loop."""
        try:
            yield
        finally:
            self._pools.pop(loop, None)
            pool.close()

    async def _exchange(self, pool: _Pool, target: Target, request: bytes, end: float) -> Reply:
        tls = await self._tls.acontext() if target.is_secure and self._tls is not None else None
        place = (target.is_secure, target.host, target.port, tls)
        connection = pool.take(place)
        if connection is not None:
            reply = await pool.exchange(place, connection, request)
            # Closed by the other side before it read the question: it was idle for too long. Ask once more.
            if not (isinstance(reply, RemoteFailure) and reply.kind is FailureKind.CLOSED and not connection.received):
                return reply
        opened = await self._open(place, end)
        return opened if isinstance(opened, RemoteFailure) else await pool.exchange(place, opened, request)

    async def _open(self, place: Place, end: float) -> _Connection | RemoteFailure:
        is_secure, host, port, tls = place
        try:
            if self._unix_socket is None:
                connected = await _connected(host, port, end)
            else:
                connected = await _connected_locally(str(self._unix_socket))
            connection = await _protocol_over(connected, host, tls)
        except ssl.SSLError as error:
            return tls_failure(error) or RemoteFailure(FailureKind.CONNECT, "tls")
        except TimeoutError:  # of the last address; when the deadline itself is over, it is a cancellation here
            return RemoteFailure(FailureKind.DEADLINE, "connect")
        except (OSError, UnicodeError):
            return RemoteFailure(FailureKind.CONNECT, "connect")
        if is_secure and not (self._tls is not None and self._tls.accepts(connection.certificate)):
            connection.abort()
            return WRONG_SERVER
        if is_secure:
            await connection.listen()
        return connection


class _Connection(asyncio.Protocol):
    """One connection. `received` counts the bytes of the exchange under way."""

    _transport: asyncio.Transport

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._reader = ResponseReader()
        self._waiting: asyncio.Future[Reply] | None = None
        self._ended: Reply | None = None
        self.received = 0
        self.is_usable = True
        self.idle_since = 0.0

    async def exchange(self, request: bytes) -> Reply:
        """One request and its response. A connection that cannot carry another, or whose response is not awaited to its
        end, is closed: what may still come belongs to nobody."""
        if self._ended is not None:  # before it could be asked: nobody would tell of it again
            return self._ended
        self.received = 0
        reader = self._reader = ResponseReader()
        waiting: asyncio.Future[Reply] = self._loop.create_future()
        self._waiting = waiting
        self._transport.write(request)
        is_over = False
        try:
            reply = await waiting
            is_said = not self._transport.get_write_buffer_size()
            is_over = reader.is_reusable and is_said
            return reply if is_said else heard_early(reply)
        finally:  # also when it is cancelled in the moment of the answer: nobody would put the connection aside
            self._waiting = None
            if not is_over:
                self.abort()

    async def listen(self) -> None:
        """Hear what has been said already. In TLS 1.3 a server refuses our certificate after the handshake, and closes:
        whoever then writes learns of the end, and no more of the reason."""
        try:
            for _ in range(2):  # in the first round the event loop learns of it, in the second it reads
                if self.is_usable and is_readable(self._socket):
                    await asyncio.sleep(0)
        except BaseException:
            self.abort()
            raise

    def is_quiet(self) -> bool:
        """Whether it is open, and nothing has come in, or waits to be read, that belongs to no question."""
        return self.is_usable and not is_readable(self._socket)

    @property
    def certificate(self) -> bytes | None:
        """The certificate (DER) that the other side has proved to hold; None without TLS."""
        secured = self._transport.get_extra_info("ssl_object")
        return None if secured is None else secured.getpeercert(binary_form=True)

    def abort(self) -> None:
        """Close at once: TLS would first say goodbye, wait for the other side's, and may outlive the event loop."""
        self.is_usable = False
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # a stream's transport is one of both directions
        self._socket = transport.get_extra_info("socket")

    def data_received(self, data: bytes) -> None:
        waiting = self._waiting
        if waiting is None or waiting.done():  # nobody has asked for it
            self._ended = self._ended or NOT_HTTP
            self.abort()
            return
        self.received += len(data)
        reply = self._reader.feed(data)
        if reply is not None:
            waiting.set_result(reply)

    def eof_received(self) -> bool:
        self._end(self._reader.end())
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is None:  # uvloop says no more of a TLS stream that ends without a goodbye
            self._end(self._reader.end())
            return
        # In TLS 1.3 a server refuses a certificate after the handshake.
        failure = tls_failure(exc) if isinstance(exc, ssl.SSLError) else None
        self._end(failure or CLOSED)

    def _end(self, reply: Reply) -> None:
        self.is_usable = False
        self._ended = self._ended or reply
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(reply)


class _Pool:
    """What belongs to one event loop."""

    life: AsyncGenerator[None, None]

    def __init__(self, loop: asyncio.AbstractEventLoop, max_connections: int, tls: ClientTLS | None) -> None:
        self.free = asyncio.Semaphore(max_connections)
        self._loop = loop
        self._tls = tls
        self._idle: dict[Place, list[_Connection]] = {}
        self._closed = False

    def take(self, place: Place) -> _Connection | None:
        """A kept-alive connection on which nothing has come in since its last answer."""
        connections = self._idle.get(place)
        oldest = self._loop.time() - IDLE_S
        while connections:
            connection = connections.pop()
            if connection.idle_since >= oldest and connection.is_quiet():
                return connection
            connection.abort()
        return None

    async def exchange(self, place: Place, connection: _Connection, request: bytes) -> Reply:
        """One exchange; the connection is kept where it can carry another."""
        reply = await connection.exchange(request)
        if connection.is_usable:
            self._put_aside(place, connection)
        return reply

    def close(self) -> None:
        """Close the connections that are not in use; those in use close when their answer has been read."""
        self._closed = True
        for connections in self._idle.values():
            _abort_all(connections)
        self._idle.clear()

    def _put_aside(self, place: Place, connection: _Connection) -> None:
        now = connection.idle_since = self._loop.time()
        if self._closed or self._is_superseded(place):
            connection.abort()
            return
        self._idle.setdefault(place, []).append(connection)
        for known, connections in list(self._idle.items()):
            if self._is_superseded(known):
                _abort_all(self._idle.pop(known))
            elif connections and now - connections[0].idle_since > IDLE_S:
                connections.pop(0).abort()

    def _is_superseded(self, place: Place) -> bool:
        context = place[3]
        return context is not None and self._tls is not None and not self._tls.is_current(context)


def _abort_all(connections: list[_Connection]) -> None:
    for connection in connections:
        connection.abort()


async def _acquire(free: asyncio.Semaphore, wait: float) -> bool:
    if not free.locked():
        return await free.acquire()
    try:
        async with asyncio.timeout(wait):
            return await free.acquire()
    except TimeoutError:
        return False


async def _protocol_over(connected: socket.socket, host: str, tls: ssl.SSLContext | None) -> _Connection:
    loop = asyncio.get_running_loop()
    options: dict[str, Any] = {} if tls is None else {"ssl": tls, "server_hostname": host}
    create: Any = loop.create_unix_connection if connected.family == socket.AF_UNIX else loop.create_connection
    try:
        _, connection = await create(_Connection, sock=connected, **options)
    except BaseException:
        connected.close()
        raise
    made: _Connection = connection
    return made


async def _connected(host: str, port: int, end: float) -> socket.socket:
    """Connect to the first address that answers. Each gets an equal part of the time that is left until `end`, so that
    one black hole does not use up all of it. Raises OSError, TimeoutError included."""
    loop = asyncio.get_running_loop()
    addresses = await aresolve(host, port)
    for others, (family, address) in zip(range(len(addresses) - 1, -1, -1), addresses, strict=True):
        connecting = socket.socket(family, socket.SOCK_STREAM)
        try:
            connecting.setblocking(False)
            connecting.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            async with asyncio.timeout((end - loop.time()) / (others + 1)):
                await loop.sock_connect(connecting, address)
            return connecting
        except OSError:
            connecting.close()
            if not others:
                raise
        except BaseException:
            connecting.close()
            raise
    raise TimeoutError


async def _connected_locally(path: str) -> socket.socket:
    connecting = socket.socket(socket.AF_UNIX)
    try:
        connecting.setblocking(False)
        while True:
            try:
                connecting.connect(path)  # at once, or not at all
                return connecting
            except BlockingIOError:  # too many wait to be accepted, and nothing tells when it is fewer
                await asyncio.sleep(FULL_QUEUE_PAUSE_S)
    except BaseException:
        connecting.close()
        raise
