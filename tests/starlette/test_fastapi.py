"""P1 for FastAPI: included routers keep their routes to themselves and build new ones while they dispatch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Body, Depends, FastAPI, WebSocket
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Host, Mount, Route, Router, WebSocketRoute

from authz_middleware import authz, requires
from tests.starlette.guarded import Guard, closed, denied, opened, request, websocket


def plain(guard: Guard, name: str, annotate: Any = None) -> Any:
    """A handler as FastAPI has them: without a request parameter."""

    def handle() -> str:
        guard.ran.append(name)
        return name

    return (annotate or requires(f"run:{name}"))(handle)


def bare() -> FastAPI:
    return FastAPI(docs_url=None, openapi_url=None)


async def test_each_path_operation_is_decided(guard: Guard) -> None:
    app = bare()
    app.get("/x")(plain(guard, "x"))
    app.post("/x")(plain(guard, "post", closed))
    guard.on(app)
    assert (await request(app, "/x")).text == '"x"'
    assert (await request(app, "/x", method="POST")).status == 403
    assert (await request(app, "/x", method="PUT")).status == 405


@pytest.mark.parametrize("above", [True, False], ids=["above the route decorator", "below it"])
async def test_an_annotation_counts_on_either_side_of_the_route_decorator(guard: Guard, above: bool) -> None:
    app = bare()
    ask, route = requires("run:x"), app.get("/x")
    handler = plain(guard, "x", closed)
    _ = ask(route(handler)) if above else route(ask(handler))
    assert (await request(guard.on(app), "/x")).status == 200


@pytest.mark.parametrize("kind", ["documentation", "schema", "redoc", "oauth2 redirect"])
async def test_the_documentation_is_closed(guard: Guard, kind: str) -> None:
    path = {"documentation": "/docs", "schema": "/openapi.json", "redoc": "/redoc"}.get(kind, "/docs/oauth2-redirect")
    assert (await request(guard.on(FastAPI()), path)).status == 403


async def test_the_documentation_opens_by_name(make_guard: Callable[..., Guard]) -> None:
    public = {"public": {"reason": "internal network", "owner": "tests"}}
    guard = make_guard(handlers={"fastapi.applications:FastAPI.setup.<locals>.*": public})
    app = guard.on(FastAPI())
    assert [(await request(app, path, who=None)).status for path in ("/docs", "/openapi.json")] == [200, 200]


def nested(guard: Guard, annotate: Any = None) -> tuple[FastAPI, APIRouter, APIRouter]:
    """An application that includes a router that includes a router, with a leaf of every kind in the innermost."""
    inner = APIRouter(prefix="/inner")
    inner.get("/api")(plain(guard, "api", annotate))
    inner.routes.append(Route("/inner/plain", guard.handler("plain", annotate)))
    inner.websocket("/socket")(guard_socket(guard, "socket", annotate))
    inner.routes.append(WebSocketRoute("/inner/plain-socket", guard.socket("plain-socket", annotate)))
    inner.routes.append(Mount("/inner/mount", routes=[Route("/x", guard.handler("mounted", annotate))]))
    inner.routes.append(Host("tenant.example", app=Router([Route("/x", guard.handler("hosted", annotate))])))
    outer = APIRouter(prefix="/outer")
    outer.include_router(inner, prefix="/by")
    app = bare()
    app.include_router(outer, prefix="/api")
    return app, outer, inner


def guard_socket(guard: Guard, name: str, annotate: Any = None) -> Any:
    async def talk(websocket: WebSocket) -> None:
        guard.ran.append(name)
        await websocket.accept()
        await websocket.close()

    return (annotate or requires(f"run:{name}"))(talk)


LEAVES = {
    "api": "/api/outer/by/inner/api",
    "plain": "/api/outer/by/inner/plain",
    "socket": "ws:/api/outer/by/inner/socket",
    "plain-socket": "ws:/api/outer/by/inner/plain-socket",
    "mounted": "/api/outer/by/inner/mount/x",
    "hosted": "host:/api/outer/by/x",
}


async def status_of(app: Any, leaf: str, *, who: str | None = "") -> int:
    kind, _, path = LEAVES[leaf].rpartition(":")
    if kind == "ws":
        first = (await websocket(app, path, who=who))[0]
        return int(first.get("status", 200))
    host = {"host": "tenant.example"} if kind == "host" else {}
    from tests.starlette.guarded import scope_of

    scope = scope_of("http", path, who=who)
    scope["headers"] = [(n, v) for n, v in scope["headers"] if n != b"host" or not host]
    scope["headers"] += [(n.encode(), v.encode()) for n, v in host.items()]
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request"}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return int(sent[0]["status"])


@pytest.mark.parametrize("leaf", LEAVES)
async def test_a_leaf_of_a_nested_router_runs_when_permitted(guard: Guard, leaf: str) -> None:
    app = guard.on(nested(guard)[0])
    for _ in range(2):
        assert await status_of(app, leaf) == 200
    assert guard.ran == [leaf, leaf]
    assert guard.records[0]["input"]["context"]["route"] == LEAVES[leaf].rpartition(":")[2]


@pytest.mark.parametrize("leaf", LEAVES)
@pytest.mark.parametrize("annotate", [closed, denied])
async def test_a_leaf_of_a_nested_router_is_closed_otherwise(guard: Guard, leaf: str, annotate: Any) -> None:
    app = guard.on(nested(guard, annotate)[0])
    assert await status_of(app, leaf) == 403
    assert guard.ran == []


@pytest.mark.parametrize("leaf", LEAVES)
@pytest.mark.parametrize("level", [0, 1, 2], ids=["application", "outer router", "inner router"])
async def test_an_annotation_on_any_router_above_holds_as_well(guard: Guard, leaf: str, level: int) -> None:
    parts = nested(guard)
    requires("deny:it")(parts[level])
    assert await status_of(guard.on(parts[0]), leaf) == 403
    assert guard.ran == []


@pytest.mark.parametrize("leaf", LEAVES)
async def test_all_annotations_above_are_asked_outermost_first(guard: Guard, leaf: str) -> None:
    app, outer, inner = nested(guard)
    requires("area:outer")(outer)
    requires("area:inner")(inner)
    assert await status_of(guard.on(app), leaf) == 200
    assert [r["path"] for r in guard.records] == ["authz/area/outer", "authz/area/inner", f"authz/run/{leaf}"]


@pytest.mark.parametrize("leaf", ["plain", "plain-socket", "socket", "hosted", "mounted", "api"])
async def test_an_annotation_on_a_route_object_survives_its_inclusion(guard: Guard, leaf: str) -> None:
    app, _, inner = nested(guard)
    index = ["api", "plain", "socket", "plain-socket", "mounted", "hosted"].index(leaf)
    requires("deny:it")(inner.routes[index])
    assert await status_of(guard.on(app), leaf) == 403


async def test_routes_added_to_an_included_router_after_the_first_request_are_decided(guard: Guard) -> None:
    app, _, inner = nested(guard)
    guard.on(app)
    assert await status_of(app, "api") == 200
    inner.get("/late")(plain(guard, "late", closed))
    assert (await request(app, "/api/outer/by/inner/late")).status == 403


async def test_a_mounted_fastapi_application_is_decided(guard: Guard) -> None:
    sub = bare()
    sub.get("/x")(plain(guard, "x"))
    sub.get("/y")(plain(guard, "y", closed))
    app = bare()
    app.mount("/sub", sub)
    guard.on(app)
    assert (await request(app, "/sub/x")).status == 200
    assert (await request(app, "/sub/y")).status == 403
    assert (await request(app, "/sub/none")).status == 404


async def test_dependencies_do_not_run_before_the_decision(guard: Guard) -> None:
    def dependency() -> None:
        guard.ran.append("dependency")

    async def body(payload: Annotated[dict[str, int], Body()]) -> str:
        guard.ran.append("body")
        return "body"

    app = FastAPI(openapi_url=None, dependencies=[Depends(dependency)])
    app.post("/x")(requires("deny:it")(body))
    guard.on(app)
    reply = await request(app, "/x", method="POST", body=b"not json")
    assert (reply.status, guard.ran) == (403, [])


async def test_a_body_is_not_read_before_the_decision(guard: Guard) -> None:
    from tests.starlette.guarded import scope_of

    async def body(payload: Annotated[dict[str, int], Body()]) -> str:
        return "body"

    app = bare()
    app.post("/x")(requires("deny:it")(body))
    guard.on(app)
    sent: list[Any] = []

    async def receive() -> Any:
        raise AssertionError("the body was read")

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope_of("http", "/x", method="POST"), receive, send)
    assert sent[0]["status"] == 403


@pytest.mark.parametrize("asynchronous", [True, False])
async def test_authz_is_at_hand_in_dependencies_and_handlers(guard: Guard, asynchronous: bool) -> None:
    def dependency() -> str:
        assert authz.principal is not None
        return authz.principal.subject

    async def ahandle(request: Request, who: str = Depends(dependency)) -> str:
        await authz.acheck("area:more")
        return f"{who} {request.scope['authz'].decision.reason}"

    def handle(request: Request, who: str = Depends(dependency)) -> str:
        authz.check("area:more")
        return f"{who} {request.scope['authz'].decision.reason}"

    app = bare()
    app.get("/x")(requires("area:x")(ahandle if asynchronous else handle))
    assert (await request(guard.on(app), "/x")).text == '"alice permitted"'


def frontend(folder: Path) -> Path:
    (folder / "index.html").write_text("<p>front</p>")
    (folder / "app.js").write_text("js")
    return folder


@pytest.mark.parametrize("depends", [True, False], ids=["with dependencies", "without"])
@pytest.mark.parametrize("included", ["application", "router", "nested router"])
@pytest.mark.parametrize(("annotate", "status"), [(closed, 403), (denied, 403), (requires("area:front"), 200)])
async def test_a_frontend_is_decided_by_the_annotation_of_its_router(
    guard: Guard, folder: Path, depends: bool, included: str, annotate: Any, status: int
) -> None:
    def dependency() -> None:
        guard.ran.append("dependency")

    router = APIRouter(dependencies=[Depends(dependency)] if depends else [])
    app = FastAPI(openapi_url=None, dependencies=[Depends(dependency)] if depends else [])
    target = app.router if included == "application" else router
    target.frontend("/ui", directory=frontend(folder))
    if included == "router":
        app.include_router(router)
    elif included == "nested router":
        middle = APIRouter()
        middle.include_router(router)
        app.include_router(middle)
    annotate(target)
    guard.on(app)
    reply = await request(app, "/ui/app.js")
    assert reply.status == status
    assert ("dependency" in guard.ran) is (depends and status == 200)
    guard.ran.clear()


async def test_a_frontend_opens_by_name(make_guard: Callable[..., Guard], folder: Path) -> None:
    guard = make_guard(handlers={"fastapi.routing:_Frontend*": {"action": "area:front"}})
    app = bare()
    app.frontend("/", directory=frontend(folder))
    guard.on(app)
    assert (await request(app, "/app.js")).text == "js"
    assert (await request(app, "/app.js", who=None)).status == 401


async def test_a_router_that_includes_a_closed_frontend_does_not_open_it(guard: Guard, folder: Path) -> None:
    front, other, app = APIRouter(), opened(APIRouter()), bare()
    front.frontend("/ui", directory=frontend(folder))
    other.get("/x")(plain(guard, "public", closed))
    app.include_router(front)
    app.include_router(other)
    guard.on(app)
    assert (await request(app, "/x", who=None)).status == 200
    assert (await request(app, "/ui/app.js")).status == 403


async def test_a_frontend_of_a_router_that_was_dispatched_to_before_is_gated(guard: Guard, folder: Path) -> None:
    router = APIRouter()
    router.frontend("/ui", directory=frontend(folder))
    free, guarded = bare(), bare()
    for app in (free, guarded):
        app.include_router(router)
    assert (await request(free, "/ui/app.js")).status == 200
    assert (await request(guard.on(guarded), "/ui/app.js")).status == 403


async def test_a_default_of_an_included_router_is_decided(guard: Guard) -> None:
    async def fallback(scope: Any, receive: Any, send: Any) -> None:
        guard.ran.append("fallback")
        await PlainTextResponse("fallback")(scope, receive, send)

    app = FastAPI(openapi_url=None)
    app.router.default = fallback
    assert (await request(guard.on(app), "/nowhere")).status == 403
    assert guard.ran == []


async def test_a_response_class_and_a_generator_stream(guard: Guard) -> None:
    from collections.abc import AsyncIterator

    from starlette.responses import StreamingResponse

    async def lines() -> AsyncIterator[str]:
        for number in range(3):
            await authz.acheck("area:more")
            yield str(number)

    async def stream() -> Response:
        return StreamingResponse(lines())

    app = bare()
    app.get("/x")(requires("area:x")(stream))
    assert (await request(guard.on(app), "/x")).text == "012"
    assert len(guard.records) == 4
