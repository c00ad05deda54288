"""Starting and stopping: what is wrong stops the server with words a person can use, and nothing recorded is lost."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute

from authz_middleware import PolicyError, SettingsError, requires
from authz_middleware.pep import EnforcementPoint
from authz_starlette import AuthzMiddleware
from tests.starlette.guarded import Guard, Lifespan, closed, request, websocket

Make = Callable[..., Guard]

MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "unknown key": ({"app": {"modus": "observe"}}, "app.modus: is not a known key"),
    "no policy file": ({"policy": {"source": "/nowhere/policy.yaml"}}, "/nowhere/policy.yaml"),
    "no folder for the log": ({"decision_log": {"sink": "file:/nowhere/decisions.jsonl"}}, "decision_log"),
    "no fallback": ({"fallback": {"default": None}}, "fallback"),
}


def mistaken(make_guard: Make, mistake: str) -> tuple[Guard, str]:
    changes, says = MISTAKES[mistake]
    guard = make_guard(**changes)
    if mistake == "no fallback":
        guard.settings["fallback"] = {}
    return guard, says


@pytest.mark.parametrize("make", [Starlette, FastAPI])
@pytest.mark.parametrize("mistake", MISTAKES)
async def test_a_mistake_stops_the_start_with_a_message(make_guard: Make, make: Any, mistake: str) -> None:
    guard, says = mistaken(make_guard, mistake)
    app = guard.on(make(routes=[Route("/x", guard.handler("x"))]))
    with pytest.raises(RuntimeError, match=says):
        async with Lifespan(app):
            raise AssertionError


@pytest.mark.parametrize("mistake", MISTAKES)
async def test_without_a_lifespan_every_request_raises_the_mistake_and_answers_503(
    make_guard: Make, mistake: str
) -> None:
    async def fine(request: Request, error: Exception) -> Response:
        return PlainTextResponse("fine")

    guard, says = mistaken(make_guard, mistake)
    routes = [Route("/x", guard.handler("x")), WebSocketRoute("/s", guard.socket("s"))]
    app = guard.on(Starlette(routes=routes, exception_handlers={Exception: fine}))
    for _ in range(2):
        assert (await request(app, "/x")).status == 503
    bare = AuthzMiddleware(Starlette(routes=routes), settings=guard.settings)
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    with pytest.raises((SettingsError, PolicyError), match=says):
        await bare({"type": "http", "headers": [], "path": "/x", "method": "GET"}, lambda: None, send)  # type: ignore[arg-type, return-value]
    assert sent[0]["status"] == 503
    with pytest.raises((SettingsError, PolicyError)):
        await websocket(bare, "/s")
    assert guard.ran == []


async def test_a_mistake_that_is_mended_lets_requests_in(make_guard: Make) -> None:
    guard = make_guard()
    policy = guard.folder / "policy.yaml"
    text = policy.read_text()
    policy.write_text("nonsense: [")
    app = guard.on(Starlette(routes=[Route("/x", guard.handler("x"))]))
    assert (await request(app, "/x")).status == 503
    policy.write_text(text)
    assert (await request(app, "/x")).status == 200


@pytest.mark.capability("C33")
@pytest.mark.parametrize("where", ["route", "mount", "application", "endpoint by name"])
async def test_a_sensitive_annotation_without_a_fallback_stops_the_start(make_guard: Make, where: str) -> None:
    sensitive = requires("run:x", sensitive=True)
    handlers = {"handlers": {"x": {"action": "run:x", "sensitive": True}}} if where == "endpoint by name" else {}
    guard = make_guard(**handlers)
    guard.settings.pop("remote")
    text = (guard.folder / "policy.yaml").read_text()
    (guard.folder / "policy.yaml").write_text(text.replace("sensitive: true", "sensitive: false"))
    routes = [Route("/x", guard.handler("x", sensitive if where == "route" else None), name="x")]
    app = Starlette(routes=[Mount("/m", routes=routes)] if where == "mount" else routes)
    if where == "mount":
        sensitive(app.routes[0])
    if where == "application":
        sensitive(app)
    with pytest.raises(RuntimeError, match="'run:x' is sensitive, but no decision point is configured"):
        async with Lifespan(guard.on(app)):
            raise AssertionError


async def test_the_lifespan_of_the_application_runs_inside(guard: Guard) -> None:
    told = []

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, str]]:
        told.append("up")
        yield {"known": "state"}
        told.append("down")

    app = guard.on(Starlette(lifespan=lifespan, routes=[Route("/x", guard.handler("x"))]))
    async with Lifespan(app):
        assert (await request(app, "/x")).status == 200
    assert told == ["up", "down"]


async def test_an_application_that_fails_to_start_leaves_no_threads_of_ours(guard: Guard) -> None:
    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        raise RuntimeError("database")
        yield

    before = set(threading.enumerate())
    app = AuthzMiddleware(Starlette(lifespan=lifespan), settings={**guard.settings, "policy": refreshed(guard)})
    with pytest.raises(RuntimeError, match="database"):
        async with Lifespan(app):
            raise AssertionError
    assert not [thread.name for thread in set(threading.enumerate()) - before if "authz" in thread.name]


async def test_a_start_that_fails_late_leaves_no_threads_of_ours(guard: Guard) -> None:
    settings = {**guard.settings, "policy": refreshed(guard), "fallback": {"actions": {"ask:it": {"mode": "deny"}}}}
    app = Starlette(routes=[Route("/x", guard.handler("x", requires("run:x", sensitive=True)))])
    before = set(threading.enumerate())
    with pytest.raises(RuntimeError, match="'run:x' is sensitive, but nothing says"):
        async with Lifespan(AuthzMiddleware(app, settings=settings)):
            raise AssertionError
    assert not [thread.name for thread in set(threading.enumerate()) - before if "authz" in thread.name]


async def test_a_failure_of_another_kind_stops_the_start_too_and_its_text_stays_inside(
    guard: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(self: EnforcementPoint) -> None:
        raise OSError("a text that may hold a secret")

    monkeypatch.setattr(EnforcementPoint, "start", start)
    with pytest.raises(RuntimeError, match="authorization cannot start: OSError") as failure:
        async with Lifespan(AuthzMiddleware(Starlette(), settings=guard.settings)):
            raise AssertionError
    assert "secret" not in str(failure.value)


def refreshed(guard: Guard) -> dict[str, Any]:
    return {**guard.settings["policy"], "refresh": "1s"}


@pytest.mark.capability("C41")
@pytest.mark.parametrize("mode", ["best_effort", "blocking", "required"])
async def test_closing_writes_every_record(make_guard: Make, mode: str) -> None:
    guard = make_guard(decision_log={"mode": mode})
    app = guard.on(Starlette(routes=[Route("/x", guard.handler("public", closed))]))
    async with Lifespan(app):
        for _ in range(50):
            await request(app, "/x")
    lines = (guard.folder / "decisions.jsonl").read_text().splitlines()
    assert len(lines) == 50


async def test_after_the_end_nothing_is_permitted(guard: Guard) -> None:
    app = guard.on(Starlette(routes=[Route("/x", guard.handler("x"))]))
    async with Lifespan(app):
        pass
    assert (await request(app, "/x")).status == 503
    assert guard.ran == []


async def test_settings_come_from_a_file(guard: Guard, folder: Path) -> None:
    (folder / "policy.yaml").write_text((guard.folder / "policy.yaml").read_text())
    (folder / "authz.toml").write_text(
        """
        app = { name = "file", environment = "production" }
        policy = { source = "policy.yaml", allow_unsigned = true }
        remote = { url = "http://127.0.0.1:9" }
        fallback = { default = "deny" }
        decision_log = { sink = "file:decisions.jsonl" }
        """
    )
    app = Starlette(routes=[Route("/x", guard.handler("x"))])
    app.add_middleware(AuthzMiddleware, settings=folder / "authz.toml")
    async with Lifespan(app):
        assert (await request(app, "/x")).status == 401  # it names no issuer that could be trusted
