"""P1 for every kind of leaf there is: a permitted one runs, any other does not."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint, WebSocketEndpoint
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Host, Match, Mount, Route, Router, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from authz_middleware import requires
from authz_starlette import AuthzMiddleware
from tests.starlette.guarded import Guard, closed, denied, opened, request, websocket

pytestmark = [pytest.mark.capability("C47"), pytest.mark.promise("P1")]


class Office:
    """Handlers that are bound methods."""

    def __init__(self, guard: Guard) -> None:
        self.guard = guard

    @requires("run:method")
    async def permitted(self, request: Request) -> Response:
        self.guard.ran.append("method")
        return PlainTextResponse("method")

    async def closed(self, request: Request) -> Response:
        self.guard.ran.append("method")
        return PlainTextResponse("method")


class Opaque:
    """An ASGI application of which nobody knows what is inside."""

    def __init__(self, guard: Guard, name: str = "opaque") -> None:
        self.guard = guard
        self.name = name

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.guard.ran.append(self.name)
        await PlainTextResponse(self.name)(scope, receive, send)


class Wrapping:
    """Middleware that hands everything on."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


def partial(guard: Guard, *, on_partial: Any = closed, on_function: Any = closed) -> Any:
    def with_argument(name: str, request: Request) -> Response:
        guard.ran.append(name)
        return PlainTextResponse(name)

    return on_partial(functools.partial(on_function(with_argument), "a"))


PERMITTED: dict[str, Callable[[Guard], Any]] = {
    "function": lambda g: g.handler("a"),
    "sync function": lambda g: g.sync_handler("a"),
    "partial, annotated": lambda g: partial(g, on_partial=requires("run:a")),
    "partial of annotated": lambda g: partial(g, on_function=requires("run:a")),
    "bound method": lambda g: Office(g).permitted,
    "asgi application": lambda g: requires("run:opaque")(Opaque(g)),
    "public": lambda g: g.handler("public", opened),
}
REFUSED: dict[str, Callable[[Guard], Any]] = {
    "function": lambda g: g.handler("a", closed),
    "function, denied": lambda g: g.handler("a", denied),
    "sync function": lambda g: g.sync_handler("a", closed),
    "partial": partial,
    "bound method": lambda g: Office(g).closed,
    "asgi application": Opaque,
}


@pytest.mark.parametrize("kind", PERMITTED)
async def test_a_permitted_handler_runs(guard: Guard, kind: str) -> None:
    app = guard.on(Starlette(routes=[Route("/x", PERMITTED[kind](guard))]))
    reply = await request(app, "/x")
    assert (reply.status, guard.ran) == (200, [reply.text])
    assert [record["result"] for record in guard.records] == [True]


@pytest.mark.parametrize("kind", REFUSED)
async def test_a_handler_without_a_permit_does_not_run(guard: Guard, kind: str) -> None:
    app = guard.on(Starlette(routes=[Route("/x", REFUSED[kind](guard))]))
    assert (await request(app, "/x")).status == 403
    assert guard.ran == []
    assert len(guard.records) == 1


async def test_nobody_is_told_to_authenticate(guard: Guard) -> None:
    app = guard.on(Starlette(routes=[Route("/x", guard.handler("a"))]))
    reply = await request(app, "/x", who=None)
    assert (reply.status, reply.headers["www-authenticate"], guard.ran) == (401, "Bearer", [])


def endpoint_class(guard: Guard) -> Any:
    @requires("run:class")
    class Ledger(HTTPEndpoint):
        async def get(self, request: Request) -> Response:
            guard.ran.append("class")
            return PlainTextResponse("get")

        @requires("deny:it")
        async def post(self, request: Request) -> Response:
            guard.ran.append("post")
            return PlainTextResponse("post")

        @requires("run:put")
        def put(self, request: Request) -> Response:
            guard.ran += ["class", "put"]
            return PlainTextResponse("put")

    return Ledger


@pytest.mark.parametrize("wrap", [lambda cls: cls, functools.partial], ids=["class", "partial of class"])
@pytest.mark.parametrize(
    ("method", "status", "records"), [("GET", 200, 1), ("HEAD", 200, 1), ("POST", 403, 2), ("PUT", 200, 2)]
)
async def test_an_endpoint_class_and_its_method_must_both_hold(
    guard: Guard, wrap: Any, method: str, status: int, records: int
) -> None:
    app = guard.on(Starlette(routes=[Route("/x", wrap(endpoint_class(guard)))]))
    assert (await request(app, "/x", method=method)).status == status
    assert len(guard.records) == records
    assert "post" not in guard.ran


async def test_head_is_decided_as_the_get_that_answers_it(guard: Guard) -> None:
    class Page(HTTPEndpoint):
        @requires("deny:it")
        async def get(self, request: Request) -> Response:
            guard.ran.append("get")
            return PlainTextResponse("get")

    app = guard.on(Starlette(routes=[Route("/x", requires("area:page")(Page))]))
    assert (await request(app, "/x", method="HEAD")).status == 403
    assert guard.ran == []


async def test_a_method_annotation_alone_leaves_the_others_closed(guard: Guard) -> None:
    class Page(HTTPEndpoint):
        @requires("run:get")
        async def get(self, request: Request) -> Response:
            guard.ran.append("get")
            return PlainTextResponse("get")

        async def delete(self, request: Request) -> Response:
            guard.ran.append("delete")
            return PlainTextResponse("delete")

    app = guard.on(Starlette(routes=[Route("/x", Page)]))
    assert (await request(app, "/x")).status == 200
    assert (await request(app, "/x", method="DELETE")).status == 403
    assert guard.ran == ["get"]


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "QUERY", "MADE-UP", "get", "dispatch", "__init__"])
async def test_no_method_slips_past_a_closed_application(guard: Guard, method: str) -> None:
    app = guard.on(Starlette(routes=[Route("/x", Opaque(guard))]))
    assert (await request(app, "/x", method=method)).status == 403
    assert guard.ran == []


async def test_methods_that_clients_make_up_are_not_all_remembered(guard: Guard) -> None:
    app = guard.on(Starlette(routes=[Route("/x", Opaque(guard))]))
    for number in range(64):
        await request(app, "/x", method=f"M{number}")
    assert len(app.routes[0]._authz_endpoints) <= 16


async def test_a_websocket_function_runs_when_permitted(guard: Guard) -> None:
    app = guard.on(Starlette(routes=[WebSocketRoute("/x", guard.socket("talk"))]))
    messages = await websocket(app, "/x")
    assert [message["type"] for message in messages] == ["websocket.accept", "websocket.send", "websocket.close"]
    assert guard.records[0]["input"]["context"]["protocol"] == "websocket"


def socket_class(guard: Guard, annotate: Any) -> Any:
    class Feed(WebSocketEndpoint):
        encoding = "text"

        async def on_connect(self, websocket: WebSocket) -> None:
            guard.ran.append("feed")
            await websocket.accept()

        async def on_receive(self, websocket: WebSocket, data: Any) -> None:
            await websocket.send_text(data)

    return annotate(Feed)


async def test_a_websocket_endpoint_runs_when_permitted(guard: Guard) -> None:
    app = guard.on(Starlette(routes=[WebSocketRoute("/x", socket_class(guard, requires("run:feed")))]))
    messages = await websocket(app, "/x", says=["hi"])
    assert [message["type"] for message in messages] == ["websocket.accept", "websocket.send"]
    assert guard.ran == ["feed"]


@pytest.mark.parametrize("kind", ["function", "class"])
@pytest.mark.parametrize(("who", "status"), [("", 403), (None, 401)])
async def test_a_refused_handshake_is_answered_before_accept(
    guard: Guard, kind: str, who: str | None, status: int
) -> None:
    handler = guard.socket("talk", denied) if kind == "function" else socket_class(guard, denied)
    app = guard.on(Starlette(routes=[WebSocketRoute("/x", handler)]))
    start, body = await websocket(app, "/x", who=who)
    assert (start["type"], start["status"]) == ("websocket.http.response.start", status)
    assert body["type"] == "websocket.http.response.body"
    assert guard.ran == []


@pytest.mark.parametrize(("who", "code"), [("", 4403), (None, 4401)])
async def test_a_refused_handshake_is_closed_where_the_server_has_no_response_for_it(
    guard: Guard, who: str | None, code: int
) -> None:
    app = guard.on(Starlette(routes=[WebSocketRoute("/x", guard.socket("talk", denied))]))
    messages = await websocket(app, "/x", who=who, extension=False)
    assert [(message["type"], message["code"]) for message in messages] == [("websocket.close", code)]
    assert guard.ran == []


async def test_the_routes_of_a_mount_are_decided_one_by_one(guard: Guard) -> None:
    routes = [Route("/open", guard.handler("open")), Route("/shut", guard.handler("shut", closed))]
    app = guard.on(Starlette(routes=[Mount("/m", routes=routes)]))
    assert (await request(app, "/m/open")).status == 200
    assert (await request(app, "/m/shut")).status == 403
    assert [record["input"]["resource"]["id"] for record in guard.records] == ["/m/open", "/m/shut"]


@pytest.mark.parametrize("level", ["mount", "mounted router", "mounted application", "its router", "app", "app.router"])
@pytest.mark.parametrize("annotation", ["area:x", "deny:it"])
async def test_an_annotation_above_a_route_holds_together_with_its_own(
    guard: Guard, level: str, annotation: str
) -> None:
    routes = [Route("/x", guard.handler("x"))]
    inner: Any = Router(routes) if level == "mounted router" else Starlette(routes=routes)
    mount = Mount("/m", app=inner)
    app = Starlette(routes=[mount])
    holder = {
        "mount": mount,
        "mounted router": inner,
        "mounted application": inner,
        "its router": getattr(inner, "router", inner),
        "app": app,
        "app.router": app.router,
    }[level]
    requires(annotation)(holder)
    status = (await request(guard.on(app), "/m/x")).status
    paths = [record["path"] for record in guard.records]
    if annotation == "deny:it":
        assert (status, paths, guard.ran) == (403, ["authz/deny/it"], [])
    else:
        assert (status, paths, guard.ran) == (200, ["authz/area/x", "authz/run/x"], ["x"])


async def test_a_public_mount_does_not_loosen_a_route_that_asks(guard: Guard) -> None:
    mount = opened(
        Mount("/m", routes=[Route("/x", guard.handler("x", denied)), Route("/y", guard.handler("public", closed))])
    )
    app = guard.on(Starlette(routes=[mount]))
    assert (await request(app, "/m/x")).status == 403
    assert (await request(app, "/m/y", who=None)).status == 200


def static_files(folder: Path) -> StaticFiles:
    (folder / "page.txt").write_text("page")
    return StaticFiles(directory=folder)


def wsgi_application(guard: Guard) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, and still what applications have
        from starlette.middleware.wsgi import WSGIMiddleware

    def application(environ: Any, start_response: Any) -> list[bytes]:
        guard.ran.append("opaque")
        start_response("200 OK", [("content-length", "2")])
        return [b"ok"]

    return WSGIMiddleware(application)


OPAQUE: dict[str, Callable[[Guard, Path], Any]] = {
    "asgi application": lambda g, f: Opaque(g),
    "asgi function": lambda g, f: Opaque(g).__call__,
    "static files": lambda g, f: static_files(f),
    "wsgi application": lambda g, f: wsgi_application(g),
    "middleware around a router": lambda g, f: Wrapping(Router([Route("/page.txt", g.handler("inner"))])),
    "middleware around an application": lambda g, f: Wrapping(
        Starlette(routes=[Route("/page.txt", g.handler("inner"))])
    ),
    "a route": lambda g, f: Route("/page.txt", g.handler("inner")),
}


@pytest.mark.parametrize("kind", OPAQUE)
@pytest.mark.parametrize("where", ["mount", "host"])
async def test_an_opaque_application_is_closed(guard: Guard, folder: Path, kind: str, where: str) -> None:
    inner = OPAQUE[kind](guard, folder)
    route = Mount("/m", app=inner) if where == "mount" else Host("app.example", app=inner)
    app = guard.on(Starlette(routes=[route]))
    reply = await request(app, "/m/page.txt" if where == "mount" else "/page.txt")
    assert (reply.status, guard.ran, guard.reasons) == (403, [], ["permission.missing"])


@pytest.mark.parametrize("kind", OPAQUE)
async def test_an_opaque_application_opens_with_an_annotation_on_its_mount(
    guard: Guard, folder: Path, kind: str
) -> None:
    mount = requires("run:opaque")(Mount("/m", app=OPAQUE[kind](guard, folder)))
    app = guard.on(Starlette(routes=[mount]))
    assert (await request(app, "/m/page.txt")).status == 200


async def test_an_opaque_application_opens_by_name(make_guard: Callable[..., Guard], folder: Path) -> None:
    guard = make_guard(handlers={"files": {"action": "area:files"}})
    app = guard.on(Starlette(routes=[Mount("/m", app=static_files(folder), name="files")]))
    assert (await request(app, "/m/page.txt")).text == "page"
    assert guard.records[0]["input"]["context"]["endpoint"] == "starlette.staticfiles:StaticFiles"


async def test_a_name_inside_of_a_named_mount_is_another_name(make_guard: Callable[..., Guard]) -> None:
    guard = make_guard(handlers={"index": {"public": {"reason": "front page", "owner": "tests"}}})
    routes = [Mount("/m", routes=[Route("/", guard.handler("index", closed))], name="admin")]
    assert (await request(guard.on(Starlette(routes=routes)), "/m/")).status == 403


async def test_routes_inside_of_an_opaque_application_are_decided_again(guard: Guard) -> None:
    inner = Router([Route("/x", guard.handler("x", closed)), Route("/y", guard.handler("y"))])
    app = guard.on(Starlette(routes=[requires("area:m")(Mount("/m", app=Wrapping(inner)))]))
    assert (await request(app, "/m/y")).status == 200
    paths = [record["path"] for record in guard.records]
    assert (paths[0], paths[-1]) == ("authz/area/m", "authz/run/y")


async def test_an_annotation_on_a_router_inside_of_middleware_is_not_lost(guard: Guard) -> None:
    inner = requires("deny:it")(Router([Route("/x", guard.handler("x"))]))
    app = guard.on(Starlette(routes=[requires("area:m")(Mount("/m", app=Wrapping(inner)))]))
    assert (await request(app, "/m/x")).status == 403
    assert guard.ran == []


async def test_an_annotation_on_an_application_inside_of_middleware_counts(guard: Guard) -> None:
    app = guard.on(Starlette(routes=[Mount("/m", app=Wrapping(requires("run:opaque")(Opaque(guard))))]))
    assert (await request(app, "/m/x")).status == 200


async def test_an_annotation_on_a_bare_router_holds(guard: Guard) -> None:
    router = requires("deny:it")(Router([Route("/x", guard.handler("x"))]))
    assert (await request(AuthzMiddleware(router, settings=guard.settings), "/x")).status == 403


async def test_middleware_of_a_mount_does_not_close_its_routes(guard: Guard) -> None:
    from starlette.middleware import Middleware

    mount = Mount("/m", routes=[Route("/x", guard.handler("x"))], middleware=[Middleware(Wrapping)])
    assert (await request(guard.on(Starlette(routes=[mount])), "/m/x")).status == 200


async def test_an_application_put_into_a_mount_later_is_closed(guard: Guard) -> None:
    mount = Mount("/m", routes=[Route("/x", guard.handler("x"))])
    app = guard.on(Starlette(routes=[mount]))
    assert (await request(app, "/m/x")).status == 200
    mount.app = Opaque(guard)
    assert (await request(app, "/m/x")).status == 403
    assert guard.ran == ["x"]


async def test_the_routes_of_a_host_are_decided(guard: Guard) -> None:
    routes = [Route("/x", guard.handler("x")), Route("/y", guard.handler("y", closed))]
    app = guard.on(Starlette(routes=[Host("app.example", app=Router(routes))]))
    assert (await request(app, "/x")).status == 200
    assert (await request(app, "/y")).status == 403


class Custom(BaseRoute):
    """A third party's route class, defined before the middleware was made."""

    def __init__(self, guard: Guard) -> None:
        self.guard = guard

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        return Match.FULL, {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.guard.ran.append("custom")
        await PlainTextResponse("custom")(scope, receive, send)


async def test_a_route_class_of_a_third_party_is_a_leaf(guard: Guard) -> None:
    app = guard.on(Starlette(routes=[Custom(guard)]))
    assert (await request(app, "/x")).status == 403
    requires("run:custom")(app.routes[0])
    del app.routes[0]._authz_endpoints
    assert (await request(app, "/x")).status == 200


async def test_a_route_class_defined_later_is_a_leaf(guard: Guard) -> None:
    class Later(Route):
        async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
            guard.ran.append("later")
            await super().handle(scope, receive, send)

    shut = guard.on(Starlette(routes=[Later("/x", guard.handler("x", closed)), Later("/y", guard.handler("y"))]))
    assert (await request(shut, "/x")).status == 403
    assert guard.ran == []
    assert (await request(shut, "/y")).status == 200
    assert len(guard.records) == 2
    guard.ran.remove("later")


async def test_a_route_class_may_have_further_bases_with_their_own_hook(guard: Guard) -> None:
    told = []

    class Registered:
        def __init_subclass__(cls, label: str = "", **kwargs: Any) -> None:
            super().__init_subclass__(**kwargs)
            told.append(label)

    class Labelled(Route, Registered, label="labelled"):
        pass

    assert told == ["labelled"]


@pytest.mark.parametrize("annotate", [closed, denied])
async def test_a_router_default_does_not_run_without_a_permit(guard: Guard, annotate: Any) -> None:
    router = Router(default=annotate(Opaque(guard)))
    app = guard.on(Starlette(routes=[Mount("/m", app=router)]))
    assert (await request(app, "/m/x")).status == 403
    assert guard.ran == []


async def test_a_router_default_runs_when_permitted(guard: Guard) -> None:
    router = Router()
    router.default = requires("run:opaque")(Opaque(guard))
    app = guard.on(Starlette(routes=[Mount("/m", app=router)]))
    assert (await request(app, "/m/x")).text == "opaque"


async def test_a_default_handed_from_one_router_to_another_is_decided_once(guard: Guard) -> None:
    router = Router(default=requires("run:opaque")(Opaque(guard)))
    app = guard.on(Starlette(routes=[Mount("/m", app=Router(default=router.default))]))
    assert (await request(app, "/m/x")).status == 200
    assert len(guard.records) == 1


async def test_without_the_middleware_nothing_is_decided(guard: Guard) -> None:
    app = Starlette(
        routes=[Route("/x", guard.handler("public", closed)), Mount("/m", app=Router(default=Opaque(guard)))]
    )
    assert (await request(app, "/x")).status == 200
    assert (await request(app, "/m/x")).text == "opaque"
    guard.ran.clear()
