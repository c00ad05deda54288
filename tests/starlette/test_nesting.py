"""One application in another, both with the middleware; and handlers that dispatch again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.types import Message, Receive, Scope, Send

from authz_middleware import requires
from authz_starlette import AuthzMiddleware
from tests.starlette.guarded import Guard, closed, denied, opened, request, websocket

Make = Callable[..., Guard]


def nested(inner: Guard, outer: Guard, *routes: Any, make: Any = Starlette) -> tuple[Any, Any, Any]:
    """An application in a mount of another one, each with its own middleware."""
    sub = inner.on(make(routes=[*routes]))
    mount = Mount("/sub", app=sub)
    return outer.on(Starlette(routes=[mount])), mount, sub


@pytest.mark.parametrize("make", [Starlette, FastAPI])
async def test_both_enforcement_points_decide(make_guard: Make, make: Any) -> None:
    inner, outer = make_guard(), make_guard()
    app, _, _ = nested(inner, outer, Route("/x", inner.handler("x")), make=make)
    assert (await request(app, "/sub/x")).status == 200
    assert [len(guard.records) for guard in (inner, outer)] == [1, 1]


async def test_an_annotation_on_the_outer_mount_is_not_lost_in_the_inner_application(make_guard: Make) -> None:
    inner, outer = make_guard(), make_guard()
    app, mount, _ = nested(inner, outer, Route("/x", inner.handler("x")))
    requires("deny:it")(mount)
    assert (await request(app, "/sub/x")).status == 403
    assert inner.ran == []


@pytest.mark.parametrize("strict", ["inner", "outer"])
async def test_either_can_refuse(make_guard: Make, strict: str) -> None:
    other = {"app": {"environment": "staging"}}  # a border that the token does not cross
    inner = make_guard(**(other if strict == "inner" else {}))
    outer = make_guard(**(other if strict == "outer" else {}))
    app, _, _ = nested(inner, outer, Route("/x", inner.handler("x")), WebSocketRoute("/s", inner.socket("s")))
    assert (await request(app, "/sub/x")).status == 403
    assert (await websocket(app, "/sub/s"))[0]["status"] == 403
    assert inner.ran == []


async def test_one_that_observes_does_not_loosen_the_other(make_guard: Make) -> None:
    inner, outer = make_guard(app={"mode": "observe"}), make_guard()
    app, _, _ = nested(inner, outer, Route("/x", inner.handler("x", closed)))
    assert (await request(app, "/sub/x")).status == 403
    assert inner.ran == []


async def test_what_an_inner_application_answers_without_a_decision_is_replaced(make_guard: Make) -> None:
    inner, outer = make_guard(), make_guard()

    async def fine(request: Request, error: Exception) -> Response:
        return PlainTextResponse("secret")

    sub = inner.on(Starlette(exception_handlers={404: fine}))
    app = outer.on(Starlette(routes=[Mount("/sub", app=sub)]))
    assert (await request(app, "/sub/nowhere")).status == 403
    assert outer.reasons == ["guard.undecided"]


async def test_the_middleware_around_an_application_is_as_good_as_the_one_in_it(guard: Guard) -> None:
    routes = [Route("/x", guard.handler("x")), Route("/y", guard.handler("y", denied))]
    app = AuthzMiddleware(requires("area:app")(Starlette(routes=routes)), settings=guard.settings)
    assert (await request(app, "/x")).status == 200
    assert (await request(app, "/y")).status == 403
    assert [record["path"] for record in guard.records] == [
        "authz/area/app",
        "authz/run/x",
        "authz/area/app",
        "authz/deny/it",
    ]


@pytest.mark.parametrize("annotate", [closed, denied])
@pytest.mark.parametrize("through", ["route", "router", "application"])
async def test_a_route_that_a_handler_dispatches_to_is_decided(guard: Guard, annotate: Any, through: str) -> None:
    target = Route("/target", guard.handler("target", annotate))

    @requires("run:x")
    async def handle(request: Request) -> Response:
        guard.ran.append("x")
        scope = {**request.scope, "path": "/target"}
        dispatch = {"route": target.handle, "router": app.router, "application": app}[through]
        await dispatch(scope, request.receive, ignore)
        return PlainTextResponse("fine")

    app = guard.on(Starlette(routes=[Route("/x", handle), target]))
    assert (await request(app, "/x")).status == 403
    assert guard.ran == ["x"]


async def ignore(message: Message) -> None:
    """Where messages go that nobody wants."""


async def test_the_same_route_dispatched_again_is_decided_again(guard: Guard) -> None:
    @requires("run:x")
    async def handle(request: Request) -> Response:
        guard.ran.append("x")
        if "again" not in request.scope:
            await route.handle({**request.scope, "again": True}, request.receive, ignore)
        return PlainTextResponse("fine")

    route = Route("/x", handle)
    assert (await request(guard.on(Starlette(routes=[route])), "/x")).status == 200
    assert (len(guard.ran), len(guard.records)) == (2, 2)


async def test_what_a_handler_dispatches_to_does_not_inherit_the_openness_of_its_mount(guard: Guard) -> None:
    async def handle(request: Request) -> Response:
        await app.router({**request.scope, "path": "/target", "root_path": ""}, request.receive, ignore)
        return PlainTextResponse("fine")

    mount = opened(Mount("/open", routes=[Route("/x", handle)]))
    app = guard.on(Starlette(routes=[mount, Route("/target", guard.handler("target", closed))]))
    assert (await request(app, "/open/x")).status in (401, 403)
    assert guard.ran == []


class Meeting:
    """Middleware in two mounts, which makes one request pass through while the other one is inside."""

    def __init__(self, app: Any, entered: asyncio.Event, wait_for: asyncio.Event, left: asyncio.Event) -> None:
        self.app, self.entered, self.wait_for, self.left = app, entered, wait_for, left

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.entered.set()
        await self.wait_for.wait()
        await self.app(scope, receive, send)
        self.left.set()


async def test_dispatches_at_the_same_time_do_not_mix_their_layers(guard: Guard) -> None:
    loose_in, strict_in, loose_out, strict_out = (asyncio.Event() for _ in range(4))
    loose = Mount(
        "/loose",
        routes=[Route("/b", guard.handler("b"))],
        middleware=[Middleware(Meeting, entered=loose_in, wait_for=strict_in, left=loose_out)],
    )
    strict = Mount(
        "/strict",
        routes=[Route("/a", guard.handler("a"))],
        middleware=[Middleware(Meeting, entered=strict_in, wait_for=loose_out, left=strict_out)],
    )
    requires("deny:it")(strict)
    seen: dict[str, int] = {}

    @requires("run:x")
    async def handle(request: Request) -> Response:
        guard.ran.append("x")

        async def dispatch(path: str) -> None:
            async def keep(message: Message) -> None:
                if message["type"] == "http.response.start":
                    seen[path] = message["status"]

            await app.router({**request.scope, "path": path}, request.receive, keep)

        await asyncio.gather(dispatch("/loose/b"), dispatch("/strict/a"))
        return PlainTextResponse("fine")

    app = guard.on(Starlette(routes=[Route("/x", handle), strict, loose]))
    await request(app, "/x")
    assert seen == {"/loose/b": 200, "/strict/a": 403}
    assert "a" not in guard.ran


async def test_a_public_mount_that_found_nothing_does_not_open_what_comes_after_it(guard: Guard) -> None:
    target = Route("/target", guard.handler("target", closed))

    async def forward(request: Request, error: Exception) -> Response:
        await target.handle(request.scope, request.receive, ignore)
        return PlainTextResponse("fine")

    app = guard.on(Starlette(routes=[opened(Mount("/open", routes=[]))], exception_handlers={404: forward}))
    assert (await request(app, "/open/nothing")).status == 403
    assert guard.ran == []


async def test_two_middlewares_around_one_application_read_their_own_tables(make_guard: Make) -> None:
    inner = make_guard(handlers={"x": {"action": "deny:it"}})
    outer = make_guard(handlers={"x": {"action": "area:x"}})
    app = Starlette(routes=[Route("/x", inner.handler("x", closed))])
    app = AuthzMiddleware(AuthzMiddleware(app, settings=inner.settings), settings=outer.settings)  # type: ignore[assignment]
    assert (await request(app, "/x")).status == 403
    assert (outer.reasons, inner.reasons, inner.ran) == (["permitted"], ["rule.none"], [])


async def test_a_scope_that_is_used_again_elsewhere_is_free_of_the_middleware(guard: Guard) -> None:
    """A cascade tries one application after another with the same scope."""
    first = guard.on(Starlette())
    second = Starlette(routes=[Route("/x", guard.handler("public", closed))])
    statuses = []

    async def cascade(scope: Scope, receive: Receive, send: Send) -> None:
        async def keep(message: Message) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        await first(scope, receive, keep)
        await second(scope, receive, send)

    assert (await request(cascade, "/x")).status == 200
    assert statuses == [404]
    guard.ran.clear()


async def test_an_application_mounted_in_itself_is_decided_once_a_pass(guard: Guard) -> None:
    app = Starlette(routes=[Route("/x", guard.handler("x"))])
    app.router.routes.append(requires("area:again")(Mount("/again", app=app)))
    guard.on(app)
    assert (await request(app, "/again/x")).status == 200
    assert [record["path"] for record in guard.records] == ["authz/area/again", "authz/run/x"]


async def test_a_mounted_fastapi_application_reads_its_own_names(make_guard: Make) -> None:
    outer = make_guard(
        handlers={
            "fastapi.applications:FastAPI.setup.<locals>.swagger_ui_html": {
                "public": {"reason": "docs", "owner": "tests"}
            }
        }
    )
    app = outer.on(Starlette(routes=[Mount("/api", app=FastAPI())]))
    assert (await request(app, "/api/docs", who=None)).status == 200
    assert (await request(app, "/api/openapi.json", who=None)).status == 401
