"""Applications behind the middleware, driven without a socket, with handlers that tell when they ran.

A handler named `x` that is permitted asks for `run:x`, so that the record of its permit can be told from all others.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.websockets import WebSocket

from authz_middleware import public, requires
from authz_middleware.record.recorder import Recorder
from authz_middleware.record.recorder import _recorders as recorders
from authz_starlette import AuthzMiddleware
from tests.support.tokens import Issuer

ISSUER: Final = Issuer()
POLICY: Final = """
policy: starlette-tests
owner: tests@example.com
rules:
  - rule: run
    permit: ["run:*", "area:*"]
    when:
      subject.scopes: {has: run}
  - rule: ask
    permit: ask:it
    sensitive: true
    when: always
degrade:
  narrower:
    - rule: run-degraded
      permit: ask:it
      when: always
"""


def token(**claims: Any) -> str:
    """A token of somebody who may `run:*`, `area:*` and, if the decision point agrees, `ask:it`."""
    return ISSUER.mint(**{"scope": "run", "env": "production", **claims})


def settings(folder: Path, **changes: Any) -> dict[str, Any]:
    """Settings whose policy and decision log lie in `folder`; `changes` replace tables, or merge into them."""
    policy = folder / "policy.yaml"
    policy.write_text(POLICY)
    values: dict[str, Any] = {
        "app": {"name": "starlette-tests", "environment": "production"},
        "issuers": [
            {"issuer": ISSUER.url, "audience": [ISSUER.audience], "jwks": ISSUER.jwks(), "algorithms": ["ES256"]}
        ],
        "policy": {"source": str(policy), "allow_unsigned": True},
        "remote": {"url": "http://127.0.0.1:9", "deadline": "500ms", "breaker": {"failures": 1000}},
        "fallback": {"default": "deny"},
        "decision_log": {"mode": "required", "sink": f"file:{folder / 'decisions.jsonl'}"},
    }
    for table, change in changes.items():
        values[table] = {**values.get(table, {}), **change} if isinstance(change, Mapping) else change
    return values


def records_in(folder: Path) -> list[dict[str, Any]]:
    """The decision records in a folder; all of those made so far in this process."""
    for recorder in recorders_of(folder):
        recorder.flush()
    log = folder / "decisions.jsonl"
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def recorders_of(folder: Path) -> list[Recorder]:
    """The recorders of this process that write into a folder."""
    return [recorder for recorder in recorders if str(folder) in recorder._settings.sink]


class Reply(msgspec.Struct):
    """A response as it left for the server."""

    status: int
    headers: dict[str, str]
    body: bytes
    messages: list[dict[str, Any]]

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode()


class Guard:
    """The middleware for one test: its settings, its records, and what ran behind it."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        self.folder = folder
        self.settings = settings(folder, **changes)
        self.ran: list[str] = []

    def on(self, app: Any, **options: Any) -> Any:
        """The application with the middleware added to it."""
        app.add_middleware(AuthzMiddleware, settings=self.settings, **options)
        return app

    @property
    def records(self) -> list[dict[str, Any]]:
        """The decision records so far."""
        return records_in(self.folder)

    @property
    def reasons(self) -> list[str]:
        """The reason of each decision so far."""
        return [record["authz"]["reason"] for record in self.records]

    def check(self) -> None:
        """Fail when a handler ran more often than it was permitted, or a record carries a token."""
        permits = Counter(record["path"] for record in self.records if record["result"])
        for name, runs in Counter(self.ran).items():
            if not name.startswith("public"):
                assert permits[f"authz/run/{name}"] >= runs, f"{name} ran {runs} times, permitted {permits}"
        assert self.ran.count("public") <= self.reasons.count("public")
        assert ".eyJ" not in json.dumps(self.records)

    def handler(self, name: str, annotate: Callable[[Any], Any] | None = None) -> Any:
        """An asynchronous handler; permitted unless it is annotated otherwise."""

        async def handle(request: Request) -> Response:
            self.ran.append(name)
            return PlainTextResponse(name)

        handle.__name__ = name
        return (annotate or requires(f"run:{name}"))(handle)

    def sync_handler(self, name: str, annotate: Callable[[Any], Any] | None = None) -> Any:
        """A synchronous handler, for the thread pool."""

        def handle(request: Request) -> Response:
            self.ran.append(name)
            return PlainTextResponse(name)

        return (annotate or requires(f"run:{name}"))(handle)

    def socket(self, name: str, annotate: Callable[[Any], Any] | None = None) -> Any:
        """A websocket handler that accepts, greets and closes."""

        async def talk(websocket: WebSocket) -> None:
            self.ran.append(name)
            await websocket.accept()
            await websocket.send_text(name)
            await websocket.close()

        return (annotate or requires(f"run:{name}"))(talk)


def closed(handler: Any) -> Any:
    """No annotation at all."""
    return handler


denied: Final = requires("deny:it")
opened: Final = public(reason="test", owner="tests")


def scope_of(
    type_: str, path: str, *, method: str = "GET", who: str | None = "", headers: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """A scope as a server makes it. `who` is a token, "" for one that may do most things, None for nobody."""
    sent = [(b"host", b"app.example")]
    if who is not None:
        sent.append((b"authorization", f"Bearer {who or token()}".encode()))
    sent += [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()]
    path, _, query = path.partition("?")
    scope: dict[str, Any] = {
        "type": type_,
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "scheme": "http" if type_ == "http" else "ws",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": sent,
        "client": ("192.0.2.7", 4711),
        "server": ("app.example", 80),
        "state": {},
    }
    if type_ == "http":
        scope["method"] = method
    else:
        scope["subprotocols"] = []
    return scope


async def request(app: Any, path: str, *, body: bytes = b"", **options: Any) -> Reply:
    """Send one request, and whatever came of it. Raises what the application raises without having answered."""
    scope = scope_of("http", path, **options)
    messages: list[dict[str, Any]] = []
    incoming = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> dict[str, Any]:
        if incoming:
            return incoming.pop()
        await asyncio.sleep(3600)
        raise AssertionError

    async def send(message: dict[str, Any]) -> None:
        messages.append(message)

    try:
        await app(scope, receive, send)
    except Exception:
        if not messages:
            raise
    start, *bodies = messages or [{}]
    headers = {name.decode(): value.decode() for name, value in start.get("headers", ())}
    return Reply(start.get("status", 0), headers, b"".join(m.get("body", b"") for m in bodies), messages)


async def websocket(
    app: Any, path: str, *, says: list[str] | None = None, extension: bool = True, **options: Any
) -> list[dict[str, Any]]:
    """Open a websocket, say something, hang up; the messages that the application sent."""
    scope = scope_of("websocket", path, **options)
    if extension:
        scope["extensions"] = {"websocket.http.response": {}}
    messages: list[dict[str, Any]] = []
    incoming = [{"type": "websocket.connect"}, *({"type": "websocket.receive", "text": said} for said in says or ())]
    incoming.append({"type": "websocket.disconnect", "code": 1000})

    async def receive() -> dict[str, Any]:
        return incoming.pop(0)

    async def send(message: dict[str, Any]) -> None:
        messages.append(message)

    await app(scope, receive, send)
    return messages


class Lifespan:
    """Runs the lifespan of an application around a block: `async with Lifespan(app):`."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._outbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
        self._task = asyncio.create_task(self._app(scope, self._inbox.get, self._outbox.put))
        await self._inbox.put({"type": "lifespan.startup"})
        answer = asyncio.ensure_future(self._outbox.get())
        await asyncio.wait({self._task, answer}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            answer.cancel()
            await self._task
        started = await answer
        if started["type"] != "lifespan.startup.complete":
            await self._task
            raise RuntimeError(started["message"])

    async def __aexit__(self, *_: object) -> None:
        await self._inbox.put({"type": "lifespan.shutdown"})
        assert (await self._outbox.get())["type"] == "lifespan.shutdown.complete"
        assert self._task is not None
        await self._task
