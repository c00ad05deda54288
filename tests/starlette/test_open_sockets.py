"""An open websocket ends with what it rests on: the token's time, the policy that let it in. Over a real server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import uvicorn
import websockets
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from authz_middleware import Settings, public, requires
from authz_middleware.revocation.entry import Scope
from authz_middleware.revocation.guard import Revocations
from authz_starlette import AuthzMiddleware
from tests.starlette.guarded import ISSUER, POLICY, records_in, settings, token
from tests.support.tokens import Issuer


class Talks:
    """The sockets of one application, and how each handler ended."""

    def __init__(self) -> None:
        self.ended: list[str] = []

    @requires("run:echo")
    async def echo(self, websocket: WebSocket) -> None:
        """Answers each message."""
        await websocket.accept()
        await self._until_over(websocket, lambda: self._answer(websocket))

    @requires("run:tick")
    async def tick(self, websocket: WebSocket) -> None:
        """Sends without being asked, and never reads."""
        await websocket.accept()
        await self._until_over(websocket, lambda: self._tick(websocket))

    @requires("run:silent")
    async def silent(self, websocket: WebSocket) -> None:
        """Waits for what never comes."""
        await websocket.accept()
        await self._until_over(websocket, websocket.receive_text)

    @public(reason="a lobby", owner="tests")
    async def lobby(self, websocket: WebSocket) -> None:
        """Anybody may stay."""
        await websocket.accept()
        await self._until_over(websocket, lambda: self._answer(websocket))

    async def _answer(self, websocket: WebSocket) -> None:
        await websocket.send_text(f"heard {await websocket.receive_text()}")

    async def _tick(self, websocket: WebSocket) -> None:
        await websocket.send_text(str(time.time()))
        await asyncio.sleep(0.01)

    async def _until_over(self, websocket: WebSocket, act: Callable[[], Any]) -> None:
        try:
            while True:
                await act()
        except WebSocketDisconnect as end:
            self.ended.append(f"{websocket.url.path[1:]} {end.code}")


class Server:
    """A uvicorn server on the loop of the test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.talks = Talks()
        routes = [WebSocketRoute(f"/{name}", getattr(self.talks, name)) for name in ("echo", "tick", "silent", "lobby")]
        self.app = Starlette(routes=routes)
        store = {"store": f"file:{folder / 'revocations.db'}", "on_unavailable": {"default": "deny"}}
        self.values = settings(folder, policy={"refresh": "100ms"}, revocations=store)
        self.publish(ISSUER)
        issuer = {**self.values["issuers"][0], "jwks_file": str(folder / "jwks.json"), "key_refresh": "100ms"}
        del issuer["jwks"]
        self.values["issuers"] = [issuer]
        self.app.add_middleware(AuthzMiddleware, settings=self.values)
        self.port = 0

    @contextlib.asynccontextmanager
    async def run(self) -> AsyncIterator[Server]:
        """Serve for the length of the block."""
        options = {"log_level": "critical", "ws": "websockets-sansio", "timeout_graceful_shutdown": 1}
        config = uvicorn.Config(self.app, host="127.0.0.1", port=0, **options)
        server = uvicorn.Server(config)
        task = asyncio.create_task(server.serve())
        while not server.started:  # noqa: ASYNC110 - uvicorn tells in no other way
            await asyncio.sleep(0.01)
        self.port = server.servers[0].sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.should_exit = True
            await task

    def open(self, path: str, who: str | None = None) -> Any:
        """A client's connection."""
        headers = {"Authorization": f"Bearer {who or token()}"}
        return websockets.connect(f"ws://127.0.0.1:{self.port}/{path}", additional_headers=headers)

    def publish(self, *issuers: Issuer) -> None:
        """Publish the keys of these issuers, and no others."""
        new = self.folder / "jwks.new"
        new.write_text(json.dumps(issuers[0].jwks(*issuers[1:])))
        new.replace(self.folder / "jwks.json")

    def revoke(self, scope: Scope, **names: Any) -> None:
        """Revoke as another process of this host does."""
        chosen = Settings.from_mapping(self.values).revocations
        assert chosen is not None
        beside = Revocations(chosen)
        beside.start()
        beside.revoke(scope, reason="stolen", owner="security@example.com", **names)
        beside.close()

    def rewrite_policy(self, before: str, after: str) -> None:
        """Roll out another policy, in one step."""
        new = self.folder / "policy.new"
        new.write_text(POLICY.replace(before, after))
        new.replace(self.folder / "policy.yaml")


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with Server(tmp_path).run() as running:
        yield running


def expiring(seconds: int) -> str:
    """A token that expires within this many seconds."""
    now = int(time.time())
    return ISSUER.mint(scope="run", env="production", iat=now, exp=now + seconds)


async def end_of(connection: Any, within: float = 5.0) -> int:
    """The code that a connection is closed with; what comes before is read and dropped."""
    with contextlib.suppress(websockets.ConnectionClosed):
        async with asyncio.timeout(within):
            while True:
                await connection.recv()
    code: int = connection.close_code
    return code


@pytest.mark.capability("C16")
@pytest.mark.promise("P5")
@pytest.mark.parametrize("path", ["silent", "tick", "echo"])
async def test_a_socket_ends_when_its_token_expires(server: Server, path: str) -> None:
    async with server.open(path, expiring(2)) as connection:
        began = time.time()
        assert await end_of(connection) == 4401
        assert time.time() - began < 3.5
    await asyncio.sleep(0.05)
    assert server.talks.ended == [f"{path} {1006 if path == 'tick' else 4401}"]


async def test_a_message_after_the_expiry_does_not_reach_the_handler(server: Server) -> None:
    async with server.open("echo", expiring(2)) as connection:
        await connection.send("early")
        assert await connection.recv() == "heard early"
        heard = []
        with contextlib.suppress(websockets.ConnectionClosed):
            while True:
                await connection.send(str(time.time()))
                heard.append(float((await connection.recv()).removeprefix("heard ")))
        assert heard
        assert connection.close_code == 4401
    expiry = next(r for r in records_in(server.folder) if not r["result"])
    assert expiry["authz"]["reason"] == "credential.invalid"


@pytest.mark.capability("C16", "C51")
@pytest.mark.promise("P5")
@pytest.mark.parametrize("path", ["silent", "tick"])
@pytest.mark.parametrize(
    ("scope", "names"),
    [
        (Scope.TOKEN, {"issuer": ISSUER.url, "value": "jti-1"}),
        (Scope.TRANSACTION, {"value": "txn-1"}),
        (Scope.ACTOR, {"value": "helper-bot"}),
        (Scope.EVERYTHING, {}),
    ],
    ids=lambda value: str(value) if isinstance(value, Scope) else "",
)
async def test_a_socket_ends_when_what_it_rests_on_is_revoked(
    server: Server, path: str, scope: Scope, names: dict[str, Any]
) -> None:
    async with server.open(path, token(jti="jti-1", txn="txn-1", act={"sub": "helper-bot"})) as connection:
        await asyncio.to_thread(server.revoke, scope, **names)
        began = time.time()
        assert await end_of(connection) == 4401
        assert time.time() - began < 2.5
    refused = [r for r in records_in(server.folder) if not r["result"]]
    assert [r["authz"]["reason"] for r in refused] == ["credential.revoked"]


@pytest.mark.capability("C16")
async def test_nothing_is_sent_after_a_revocation(server: Server) -> None:
    async with server.open("tick", token(jti="jti-1")) as connection:
        await connection.recv()
        await asyncio.to_thread(server.revoke, Scope.TOKEN, issuer=ISSUER.url, value="jti-1")
        revoked, last = time.time(), 0.0
        with contextlib.suppress(websockets.ConnectionClosed):
            while True:
                last = float(await connection.recv())
    assert last < revoked + 0.1


@pytest.mark.capability("C16")
@pytest.mark.parametrize("path", ["silent", "tick"])
async def test_a_socket_ends_when_its_issuer_withdraws_the_key(server: Server, path: str) -> None:
    another = Issuer(kid="key-2")
    async with server.open(path) as connection:
        server.publish(ISSUER, another)
        await asyncio.sleep(0.5)
        server.publish(another)
        assert await end_of(connection) == 4401
    refused = [r["authz"] for r in records_in(server.folder) if not r["result"]]
    assert [(r["reason"], r["detail"]) for r in refused] == [("credential.invalid", "token.key_unknown")]


async def test_a_socket_goes_on_when_its_issuer_adds_a_key(server: Server) -> None:
    async with server.open("echo") as connection:
        server.publish(ISSUER, Issuer(kid="key-2"))
        await asyncio.sleep(1.5)
        await connection.send("still")
        assert await connection.recv() == "heard still"


@pytest.mark.capability("C16")
async def test_no_message_reaches_the_handler_after_a_revocation(server: Server) -> None:
    async with server.open("echo", token(jti="jti-1")) as connection:
        await connection.send("early")
        assert await connection.recv() == "heard early"
        server.revoke(Scope.TOKEN, issuer=ISSUER.url, value="jti-1")
        await connection.send("late")
        assert await end_of(connection) == 4401
    assert not [r for r in records_in(server.folder) if r["result"]][1:]


@pytest.mark.capability("C17")
@pytest.mark.parametrize("path", ["silent", "tick"])
async def test_a_socket_ends_when_a_new_policy_does_not_permit_it(server: Server, path: str) -> None:
    async with server.open(path) as connection:
        server.rewrite_policy("has: run", "has: another")
        assert await end_of(connection) == 4403
    refused = [r for r in records_in(server.folder) if not r["result"]]
    assert [r["authz"]["reason"] for r in refused] == ["rule.none"]


@pytest.mark.capability("C17")
async def test_a_socket_goes_on_when_a_new_policy_permits_it_and_that_is_recorded_once(server: Server) -> None:
    async with server.open("echo") as connection:
        server.rewrite_policy("rule: run", "rule: run-again")
        await asyncio.sleep(2.5)
        for _ in range(3):
            await connection.send("still")
            assert await connection.recv() == "heard still"
    permits = [r["authz"]["rule"] for r in records_in(server.folder) if r["path"] == "authz/run/echo"]
    assert permits == ["run", "run-again"]


async def test_a_public_socket_goes_on(server: Server) -> None:
    async with server.open("lobby", expiring(1)) as connection:
        server.rewrite_policy("has: run", "has: another")
        await asyncio.sleep(2.2)
        await connection.send("here")
        assert await connection.recv() == "heard here"


async def test_many_sockets_end_together_and_none_is_left_watched(server: Server) -> None:
    who = expiring(3)
    connections = [await server.open("silent", who) for _ in range(50)]
    assert {await end_of(connection) for connection in connections} == {4401}
    await asyncio.sleep(0.1)
    from authz_starlette.socket_watch import current_watch

    assert not current_watch()._open
    assert len(server.talks.ended) == 50


@pytest.mark.capability("C46")
async def test_where_nothing_is_refused_a_socket_goes_on_and_its_end_is_recorded_once(tmp_path: Path) -> None:
    observing = Server(tmp_path)
    observing.app = Starlette(routes=observing.app.routes)
    values = settings(tmp_path, app={"mode": "observe"})
    observing.app.add_middleware(AuthzMiddleware, settings=values)
    async with observing.run(), observing.open("echo", expiring(1)) as connection:
        await asyncio.sleep(2.5)
        await connection.send("still")
        assert await connection.recv() == "heard still"
    refused = [r for r in records_in(tmp_path) if not r["result"]]
    assert [r["authz"]["reason"] for r in refused] == ["credential.invalid"]
