"""P3: what leaves the application agrees with what was decided, whatever stands or fails in between."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, Router, WebSocketRoute
from starlette.types import Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from authz_middleware import AccessDenied, Answer, Decision, authz, requires
from authz_starlette import AuthzMiddleware
from tests.starlette.guarded import Guard, closed, denied, opened, request, token, websocket

pytestmark = pytest.mark.promise("P3")


async def fine(request: Request, error: Exception) -> Response:
    """An error handler that makes everything look fine."""
    return PlainTextResponse("fine")


FINE: Any = dict.fromkeys([Exception, HTTPException, 401, 403, 404, 405, 500, 503, AccessDenied], fine)


@pytest.mark.parametrize("annotate", [closed, denied])
@pytest.mark.parametrize("who", ["", None, "forged"])
async def test_error_handlers_cannot_turn_a_refusal_into_a_success(
    guard: Guard, annotate: Any, who: str | None
) -> None:
    app = guard.on(Starlette(routes=[Route("/x", guard.handler("x", annotate))], exception_handlers=FINE))
    reply = await request(app, "/x", who=who)
    assert reply.status == (403 if who == "" else 401)
    assert reply.headers["content-type"] == "application/problem+json"
    assert guard.ran == []


class Answering:
    """Middleware that answers by itself."""

    def __init__(self, app: Any, response: Response) -> None:
        self.app = app
        self.response = response

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.response(scope, receive, send)


def behind(guard: Guard, response: Response, *routes: Any) -> Any:
    return guard.on(Starlette(routes=[*routes], middleware=[Middleware(Answering, response=response)]))


@pytest.mark.parametrize(
    "response",
    [
        PlainTextResponse("secret"),
        PlainTextResponse("secret", status_code=500),
        PlainTextResponse("secret", status_code=206),
        RedirectResponse("https://elsewhere.example/"),
        RedirectResponse("/x/y"),
        RedirectResponse("/x"),
    ],
    ids=["200", "500", "206", "redirect away", "redirect deeper", "redirect to itself"],
)
async def test_an_answer_nobody_decided_about_is_replaced_and_raises_the_alarm(
    guard: Guard, caplog: pytest.LogCaptureFixture, response: Response
) -> None:
    reply = await request(behind(guard, response), "/x")
    assert (reply.status, b"secret" in reply.body, guard.reasons) == (403, False, ["guard.undecided"])
    assert "location" not in reply.headers
    assert [record.levelno for record in caplog.records if record.name == "authz"] == [logging.ERROR]


async def test_a_websocket_nobody_decided_about_is_refused_before_accept(guard: Guard) -> None:
    class Accepting:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.send", "text": "secret"})
            await send({"type": "websocket.close", "code": 1000})

    app = guard.on(Starlette(middleware=[Middleware(Accepting)]))
    messages = await websocket(app, "/x")
    assert [m["type"] for m in messages] == ["websocket.http.response.start", "websocket.http.response.body"]
    assert messages[0]["status"] == 403
    messages = await websocket(app, "/x", extension=False)
    assert [(m["type"], m.get("code")) for m in messages] == [("websocket.close", 4403)]


@pytest.mark.parametrize(
    "message",
    [
        {"type": "http.response.body", "body": b"secret"},
        {"type": "http.response.pathsend", "path": "/etc/passwd"},
        {"type": "http.response.zerocopysend", "file": 0},
        {"type": "http.response.push", "path": "/secret", "headers": []},
        {"type": "http.response.early_hint", "links": [b"</secret>"]},
        {"type": "http.response.debug", "info": {"secret": 1}},
        {"type": "websocket.send", "text": "secret"},
    ],
    ids=lambda message: message["type"],
)
async def test_nothing_leaves_before_a_start_that_was_compared(guard: Guard, message: Message) -> None:
    class Early:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await send(message)
            await self.app(scope, receive, send)

    app = guard.on(Starlette(routes=[Route("/x", guard.handler("x", denied))], middleware=[Middleware(Early)]))
    reply = await request(app, "/x")
    assert (reply.status, len(reply.messages)) == (403, 2)


async def test_a_response_of_a_permitted_handler_may_send_hints_first(guard: Guard) -> None:
    @requires("run:x")
    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        guard.ran.append("x")
        await send({"type": "http.response.early_hint", "links": []})
        await PlainTextResponse("x")(scope, receive, send)

    app = guard.on(Starlette(routes=[requires("run:x")(Mount("/x", app=handle))]))
    assert (await request(app, "/x/")).messages[0]["type"] == "http.response.early_hint"


async def test_middleware_that_rewrites_a_refusal_is_overruled(guard: Guard) -> None:
    class Softening(BaseHTTPMiddleware):
        async def dispatch(self, request: Request, call_next: Any) -> Response:
            response = await call_next(request)
            return PlainTextResponse("soft") if response.status_code == 403 else response

    app = guard.on(Starlette(routes=[Route("/x", guard.handler("x", denied))], middleware=[Middleware(Softening)]))
    reply = await request(app, "/x")
    assert (reply.status, reply.headers["content-type"]) == (403, "application/problem+json")
    assert len(guard.records) == 1


async def test_middleware_that_fails_before_the_decision_is_a_refusal(guard: Guard) -> None:
    class Failing:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            raise RuntimeError("broken")

    app = guard.on(Starlette(middleware=[Middleware(Failing)], exception_handlers=FINE))
    assert (await request(app, "/x")).status == 403
    assert guard.reasons == ["guard.undecided"]


async def test_a_client_that_went_away_raises_no_alarm(guard: Guard, caplog: pytest.LogCaptureFixture) -> None:
    async def reading(scope: Scope, receive: Receive, send: Send) -> None:
        raise ClientDisconnect

    with pytest.raises(ClientDisconnect):
        await request(AuthzMiddleware(reading, settings=guard.settings), "/x")
    assert (guard.records, [record for record in caplog.records if record.name == "authz"]) == ([], [])


async def test_a_handler_that_fails_is_the_applications_own_affair(guard: Guard) -> None:
    @requires("run:x")
    async def broken(request: Request) -> Response:
        guard.ran.append("x")
        raise RuntimeError("broken")

    app = guard.on(Starlette(routes=[Route("/x", broken)], exception_handlers={500: fine}))
    assert (await request(app, "/x")).text == "fine"


@pytest.mark.parametrize("path", ["/nowhere", "/x/deeper"])
async def test_404_passes(guard: Guard, path: str) -> None:
    app = guard.on(Starlette(routes=[Route("/x", guard.handler("x"))]))
    assert (await request(app, path, who=None)).status == 404
    assert guard.records == []


@pytest.mark.parametrize("error_handlers", [None, {405: fine}, {HTTPException: fine}])
async def test_405_passes_but_not_what_is_made_of_it(guard: Guard, error_handlers: Any) -> None:
    app = guard.on(Starlette(routes=[Route("/x", guard.handler("x"))], exception_handlers=error_handlers))
    reply = await request(app, "/x", method="POST", who=None)
    if error_handlers is None:
        assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD")
    else:
        assert reply.status == 403
    assert guard.ran == []


async def test_405_of_a_bare_router_passes(guard: Guard) -> None:
    app = AuthzMiddleware(Router([Route("/x", guard.handler("x"))]), settings=guard.settings)
    assert (await request(app, "/x", method="POST")).status == 405
    assert (await request(app, "/x")).status == 200


async def test_a_404_page_that_pretends_to_be_found_is_replaced(guard: Guard) -> None:
    app = guard.on(Starlette(exception_handlers={404: fine}))
    assert (await request(app, "/nowhere")).status == 403


@pytest.mark.parametrize(
    ("route", "path", "location"),
    [
        ("/x/", "/x", "http://app.example/x/"),
        ("/x", "/x/", "http://app.example/x"),
        ("/x y/", "/x y", "http://app.example/x%20y/"),
        ("/{name}/", "/a?b=c", "http://app.example/a/?b=c"),
        ("/ü/", "/ü", "http://app.example/%C3%BC/"),
    ],
)
async def test_a_slash_redirect_passes(guard: Guard, route: str, path: str, location: str) -> None:
    app = guard.on(Starlette(routes=[Route(route, guard.handler("x"))]))
    reply = await request(app, path, who=None)
    assert (reply.status, reply.headers["location"], guard.records) == (307, location, [])


async def test_a_slash_redirect_in_a_mount_and_under_a_root_path_passes(guard: Guard) -> None:
    from tests.starlette.guarded import scope_of

    app = guard.on(Starlette(routes=[Mount("/m", routes=[Route("/x/", guard.handler("x"))])]))
    assert (await request(app, "/m/x", who=None)).status == 307
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request"}

    async def send(message: Any) -> None:
        sent.append(message)

    await app({**scope_of("http", "/prefix/m/x", who=None), "root_path": "/prefix"}, receive, send)
    assert sent[0]["status"] == 307


PREFLIGHT = {"Origin": "https://shop.example", "Access-Control-Request-Method": "GET"}


@pytest.mark.parametrize("place", ["inside", "outside"])
async def test_a_cors_preflight_passes_bare(guard: Guard, place: str) -> None:
    app = Starlette(routes=[Route("/x", guard.handler("x"))])
    if place == "outside":
        guard.on(app)
    app.add_middleware(CORSMiddleware, allow_origins=["https://shop.example"])
    if place == "inside":
        guard.on(app)
    reply = await request(app, "/x", method="OPTIONS", who=None, headers=PREFLIGHT)
    assert (reply.status, reply.headers["access-control-allow-origin"]) == (200, "https://shop.example")
    assert reply.body == (b"" if place == "inside" else b"OK")
    reply = await request(app, "/x", headers=PREFLIGHT)
    assert (reply.status, reply.headers["access-control-allow-origin"]) == (200, "https://shop.example")
    assert (guard.ran, len(guard.records)) == (["x"], 1)


async def test_nothing_but_cors_headers_leaves_as_a_preflight(guard: Guard) -> None:
    response = PlainTextResponse("secret", headers={"x-secret": "1", "access-control-allow-origin": "*"})
    reply = await request(behind(guard, response), "/x", method="OPTIONS", headers=PREFLIGHT)
    assert (reply.status, reply.body, "x-secret" in reply.headers) == (200, b"", False)


async def test_a_request_that_only_looks_like_a_preflight_does_not_open_a_handler(guard: Guard) -> None:
    app = guard.on(Starlette(routes=[Route("/x", guard.handler("x", closed), methods=["OPTIONS", "GET"])]))
    for method in ("OPTIONS", "GET"):
        assert (await request(app, "/x", method=method, headers=PREFLIGHT)).status == 403


def swallowing(guard: Guard, *, sync: bool = False) -> Any:
    async def handle(request: Request) -> Response:
        guard.ran.append("swallow")
        try:
            await request.scope["authz"].acheck("deny:it")
        except AccessDenied:
            return PlainTextResponse("fine")
        return PlainTextResponse("permitted")

    def handle_sync(request: Request) -> Response:
        guard.ran.append("swallow")
        try:
            authz.check("deny:it")
        except AccessDenied:
            return PlainTextResponse("fine")
        return PlainTextResponse("permitted")

    return requires("run:swallow")(handle_sync if sync else handle)


@pytest.mark.parametrize("sync", [True, False])
async def test_a_handler_that_swallows_a_refused_check_is_overruled(guard: Guard, sync: bool) -> None:
    app = guard.on(Starlette(routes=[Route("/x", swallowing(guard, sync=sync))]))
    reply = await request(app, "/x")
    assert (reply.status, b"fine" in reply.body) == (403, False)
    assert guard.reasons == ["permitted", "rule.none"]


@pytest.mark.parametrize("error_handlers", [None, FINE])
async def test_a_refused_check_that_is_raised_is_answered_with_the_refusal(guard: Guard, error_handlers: Any) -> None:
    @requires("run:x")
    async def handle(request: Request) -> Response:
        guard.ran.append("x")
        await authz.acheck("deny:it")
        raise AssertionError

    app = guard.on(Starlette(routes=[Route("/x", handle)], exception_handlers=error_handlers))
    assert (await request(app, "/x")).status == 403


async def test_an_access_denied_of_nobodys_making_is_an_error(guard: Guard) -> None:
    @requires("run:x")
    async def handle(request: Request) -> Response:
        guard.ran.append("x")
        raise AccessDenied(request.scope["authz"].decision)

    app = AuthzMiddleware(Starlette(routes=[Route("/x", handle)]), settings=guard.settings)
    assert (await request(app, "/x")).status == 500
    bare = AuthzMiddleware(Router([Route("/x", handle)]), settings=guard.settings)
    with pytest.raises(AccessDenied):
        await request(bare, "/x")


async def test_a_handler_that_answers_nothing_after_a_refused_check_is_answered_for(guard: Guard) -> None:
    @requires("area:x")
    async def silent(scope: Scope, receive: Receive, send: Send) -> None:
        with pytest.raises(AccessDenied):
            await authz.acheck("deny:it")

    app = guard.on(Starlette(routes=[requires("area:x")(Mount("/x", app=silent))]))
    assert (await request(app, "/x/")).status == 403


async def test_an_error_page_that_is_permitted_does_not_undo_a_refusal(guard: Guard) -> None:
    """An error handler may dispatch to another route; that one's permit is not the refused one's."""
    page = Route("/page", guard.handler("public", opened))

    async def forward(request: Request, error: Exception) -> Response:
        sent: list[Message] = []

        async def keep(message: Message) -> None:
            sent.append(message)

        await page.handle(request.scope, request.receive, keep)
        return PlainTextResponse("page")

    @requires("run:x")
    async def handle(request: Request) -> Response:
        guard.ran.append("x")
        await authz.acheck("deny:it")
        raise AssertionError

    app = guard.on(Starlette(routes=[Route("/x", handle)], exception_handlers={AccessDenied: forward}))
    reply = await request(app, "/x")
    assert (reply.status, guard.ran) == (403, ["x"])


async def test_a_check_refused_after_another_route_was_permitted_is_still_final(guard: Guard) -> None:
    other = Route("/other", guard.handler("other"))

    @requires("run:x")
    async def handle(request: Request) -> Response:
        guard.ran.append("x")
        mine = request.scope["authz"]
        await other.handle(dict(request.scope), request.receive, ignore)
        with pytest.raises(AccessDenied):
            await mine.acheck("deny:it")
        return PlainTextResponse("fine")

    app = guard.on(Starlette(routes=[Route("/x", handle)]))
    assert (await request(app, "/x")).status == 403
    assert guard.ran == ["x", "other"]


async def ignore(message: Message) -> None:
    """Where messages go that nobody wants."""


async def test_a_stream_is_cut_where_a_check_is_refused(guard: Guard) -> None:
    async def chunks() -> AsyncIterator[str]:
        yield "first"
        with pytest.raises(AccessDenied):
            await authz.acheck("deny:it")
        yield "secret"

    @requires("run:x")
    async def handle(request: Request) -> Response:
        guard.ran.append("x")
        return StreamingResponse(chunks())

    reply = await request(guard.on(Starlette(routes=[Route("/x", handle)])), "/x")
    assert (reply.status, reply.body) == (200, b"first")
    assert reply.messages[-1]["more_body"] is True, "the client must see that the response is not complete"


async def test_a_background_task_runs_with_the_requests_authorization(guard: Guard) -> None:
    done = []

    async def task() -> None:
        done.append(await authz.apermitted("area:x"))
        with pytest.raises(AccessDenied):
            await authz.acheck("deny:it")
        done.append("end")

    @requires("run:x")
    async def handle(request: Request) -> Response:
        guard.ran.append("x")
        return PlainTextResponse("x", background=BackgroundTask(task))

    reply = await request(guard.on(Starlette(routes=[Route("/x", handle)])), "/x")
    assert (reply.status, reply.text, done) == (200, "x", [True, "end"])


def talking(check: Callable[[], Any], *, swallow: bool) -> Any:
    async def talk(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text("hello")
        try:
            await check()
        except AccessDenied:
            if not swallow:
                raise
        await websocket.send_text("secret")
        await websocket.close()

    return requires("area:talk")(talk)


@pytest.mark.parametrize("swallow", [True, False])
@pytest.mark.parametrize("error_handlers", [FINE, None], ids=["with error handlers", "without"])
async def test_a_websocket_is_closed_where_a_check_is_refused(guard: Guard, swallow: bool, error_handlers: Any) -> None:
    handler = talking(lambda: authz.acheck("deny:it"), swallow=swallow)
    app = guard.on(Starlette(routes=[WebSocketRoute("/x", handler)], exception_handlers=error_handlers))
    messages = await websocket(app, "/x")
    assert [(m["type"], m.get("text"), m.get("code")) for m in messages] == [
        ("websocket.accept", None, None),
        ("websocket.send", "hello", None),
        ("websocket.close", None, 4403),
    ]


async def test_a_websocket_that_only_asks_goes_on(guard: Guard) -> None:
    handler = talking(lambda: authz.apermitted("deny:it"), swallow=False)
    messages = await websocket(guard.on(Starlette(routes=[WebSocketRoute("/x", handler)])), "/x")
    assert messages[-2]["text"] == "secret"


@pytest.mark.parametrize("extension", [True, False])
async def test_a_websocket_refused_by_a_check_before_accept_is_refused(guard: Guard, extension: bool) -> None:
    @requires("area:talk")
    async def talk(websocket: WebSocket) -> None:
        await authz.acheck("deny:it")

    app = guard.on(Starlette(routes=[WebSocketRoute("/x", talk)]))
    messages = await websocket(app, "/x", extension=extension)
    assert messages[0].get("status", messages[0].get("code")) == (403 if extension else 4403)


@pytest.mark.parametrize("extension", [True, False])
async def test_a_websocket_that_closes_itself_after_a_refused_check_is_closed_once(
    guard: Guard, extension: bool
) -> None:
    @requires("area:talk")
    async def talk(websocket: WebSocket) -> None:
        with pytest.raises(AccessDenied):
            await authz.acheck("deny:it")
        await websocket.close(1000)

    app = guard.on(Starlette(routes=[WebSocketRoute("/x", talk)]))
    messages = await websocket(app, "/x", extension=extension)
    assert [m["type"] for m in messages] == ["websocket.close"]


DEGRADED = {"actions": {"ask:it": {"mode": "degrade", "rules": "narrower"}}}


@pytest.mark.capability("C31")
async def test_a_degraded_permit_is_marked_and_told(make_guard: Callable[..., Guard]) -> None:
    @requires("ask:it")
    async def handle(request: Request) -> Response:
        return PlainTextResponse(str(request.scope["authz"].degraded))

    app = make_guard(fallback=DEGRADED).on(Starlette(routes=[Route("/x", handle)]))
    reply = await request(app, "/x")
    assert (reply.status, reply.text, reply.headers["authz-degraded"]) == (200, "True", "true")


@pytest.mark.capability("C31")
async def test_a_degraded_websocket_is_marked(make_guard: Callable[..., Guard]) -> None:
    guard = make_guard(fallback=DEGRADED)
    app = guard.on(Starlette(routes=[WebSocketRoute("/x", guard.socket("public", requires("ask:it")))]))
    assert (b"authz-degraded", b"true") in (await websocket(app, "/x"))[0]["headers"]
    guard.ran.clear()


async def test_a_plain_permit_is_not_marked(guard: Guard) -> None:
    app = guard.on(Starlette(routes=[Route("/x", guard.handler("x"))]))
    assert "authz-degraded" not in (await request(app, "/x")).headers


async def test_a_refusal_is_rendered_by_the_application_but_stays_one(guard: Guard) -> None:
    def render(decision: Decision, answer: Answer) -> Answer:
        return Answer(answer.status, (("content-type", "text/plain"),), b"no")

    app = guard.on(Starlette(routes=[Route("/x", guard.handler("x", denied))]), render=render)
    reply = await request(app, "/x")
    assert (reply.status, reply.text, reply.headers["content-length"]) == (403, "no", "2")


async def test_a_route_that_cannot_be_read_is_refused(guard: Guard) -> None:
    class Unreadable(Route):
        @property
        def name(self) -> str:
            raise RuntimeError("broken")

        @name.setter
        def name(self, value: str) -> None:
            pass

    handled = []

    async def handle(request: Request, error: Exception) -> Response:
        handled.append(error)
        return PlainTextResponse("fine")

    route = Unreadable("/x", guard.handler("x"))
    app = Starlette(exception_handlers={RuntimeError: handle})
    guard.on(app)
    assert (await request(app, "/none")).status == 404  # started
    app.router.routes.append(route)
    assert (await request(app, "/x")).status == 503
    assert (guard.ran, handled) == ([], [])
    assert guard.reasons == ["error"]


async def test_a_token_is_in_no_log(guard: Guard, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    app = behind(guard, PlainTextResponse("secret"))
    await request(app, "/x", who=token())
    assert ".eyJ" not in caplog.text
