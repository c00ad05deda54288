"""Clients that try to stay on a websocket, or to keep others on theirs, after a revocation."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from authz_middleware import AccessDenied, authz, requires
from authz_middleware.revocation.entry import Scope
from authz_starlette import AuthzMiddleware
from authz_starlette.socket_watch import SocketWatch
from tests.starlette.guarded import ISSUER, token
from tests.starlette.test_open_sockets import Server, end_of

MANY: Final = 64 * 1024


@requires("run:flood")
async def flood(websocket: WebSocket) -> None:
    """Sends more, piece by piece, than a client that does not read can take."""
    await websocket.accept()
    while True:
        await websocket.send_bytes(bytes(MANY))
        await asyncio.sleep(0.001)


@requires("run:rooms")
async def rooms(websocket: WebSocket) -> None:
    """Checks each message, says nothing about those that are refused, and hears the rest."""
    heard: list[str] = websocket.app.state.heard
    await websocket.accept()
    while True:
        message = await websocket.receive_text()
        heard.append(message)
        with contextlib.suppress(AccessDenied):
            await authz.acheck("run:write", "room/1")


@contextlib.asynccontextmanager
async def _serving(folder: Path) -> AsyncIterator[Server]:
    server = Server(folder)
    routes = [WebSocketRoute(f"/{handler.__name__}", handler) for handler in (flood, rooms)]
    server.app = Starlette(routes=[*routes, WebSocketRoute("/silent", server.talks.silent)])
    server.app.state.heard = []
    server.app.add_middleware(AuthzMiddleware, settings=server.values)
    async with server.run():
        yield server


async def _deaf(server: Server, path: str, who: str) -> socket.socket:
    """A client that opens a websocket and never reads, once the server has more to send than there is room for."""
    connection = socket.create_connection(("127.0.0.1", server.port))
    lines = (
        *(f"GET /{path} HTTP/1.1", f"Host: 127.0.0.1:{server.port}", "Upgrade: websocket", "Connection: Upgrade"),
        *("Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", f"Authorization: Bearer {who}"),
    )
    connection.sendall("\r\n".join((*lines, "", "")).encode())
    await asyncio.sleep(1.0)
    return connection


@pytest.mark.capability("C16", "C51")
@pytest.mark.promise("P5")
async def test_a_client_that_does_not_read_keeps_nobody_else_on(tmp_path: Path) -> None:
    async with _serving(tmp_path) as server, server.open("silent", token(jti="victim")) as silent:
        stalled = await _deaf(server, "flood", token(jti="stalled"))
        await asyncio.to_thread(server.revoke, Scope.TOKEN, issuer=ISSUER.url, value="stalled")
        await asyncio.sleep(1.5)
        await asyncio.to_thread(server.revoke, Scope.TOKEN, issuer=ISSUER.url, value="victim")
        began = time.monotonic()
        assert await end_of(silent) == 4401
        assert time.monotonic() - began < 2.5
        stalled.close()


@pytest.mark.capability("C16", "C51")
@pytest.mark.promise("P3", "P5")
async def test_a_check_whose_refusal_is_caught_ends_the_socket_all_the_same(tmp_path: Path) -> None:
    async with _serving(tmp_path) as server, server.open("rooms", token(jti="jti-1")) as connection:
        await connection.send("first")
        server.rewrite_policy('"run:*", "area:*"', '"run:rooms"')
        await asyncio.sleep(2.5)
        with contextlib.suppress(Exception):
            for number in range(20):
                await connection.send(f"late {number}")
                await asyncio.sleep(0.02)
        assert await end_of(connection) == 4403
        assert server.app.state.heard in (["first"], ["first", "late 0"])


class _Connection:
    """A connection that has to end, and takes as long over it as it likes."""

    def __init__(self, takes: float) -> None:
        self._takes = takes
        self.tries = 0
        self.ended = False

    def stands(self) -> bool:
        return self.ended

    async def reaffirm(self) -> None:
        self.tries += 1
        await asyncio.sleep(self._takes)
        self.ended = True


async def test_a_connection_that_takes_its_time_is_decided_on_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("authz_starlette.socket_watch.INTERVAL_S", 0.01)
    watch, slow = SocketWatch(), _Connection(0.5)
    watch.enter(slow)
    await asyncio.sleep(0.3)
    assert (slow.tries, slow.ended) == (1, False)
    watch.leave(slow)


async def test_many_connections_that_never_end_put_off_a_later_one_by_less_than_a_look(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("authz_starlette.socket_watch.INTERVAL_S", 0.05)
    watch, hanging, last = SocketWatch(), [_Connection(60.0) for _ in range(500)], _Connection(0.0)
    for connection in (*hanging, last):
        watch.enter(connection)
    await asyncio.sleep(0.8)
    assert last.ended
    for connection in (*hanging, last):
        watch.leave(connection)
    await asyncio.sleep(0)
    assert not watch._deciding
