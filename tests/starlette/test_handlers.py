"""What a handler finds: its authorization, in every colour, for exactly as long as it runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Self

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from authz_middleware import NoRequestError, authz, requires
from authz_middleware.current import current_authorization
from tests.starlette.guarded import Guard, closed, denied, request, scope_of, token, websocket

Make = Callable[..., Guard]


def telling(sync: bool) -> Any:
    def tell(request: Request) -> Response:
        assert authz.current is request.scope["authz"]
        assert authz.principal is not None
        return PlainTextResponse(f"{authz.principal.subject} {authz.decision.rule}")

    async def atell(request: Request) -> Response:
        return tell(request)

    return requires("area:x")(tell if sync else atell)


@pytest.mark.parametrize("sync", [True, False])
async def test_the_authorization_is_in_the_scope_and_in_the_context(guard: Guard, sync: bool) -> None:
    app = guard.on(Starlette(routes=[Route("/x", telling(sync))]))
    assert (await request(app, "/x")).text == "alice run"


async def test_it_is_there_in_a_websocket(guard: Guard) -> None:
    @requires("area:x")
    async def talk(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(str(await authz.apermitted("area:y")))
        await websocket.close()

    assert (await websocket(guard.on(Starlette(routes=[WebSocketRoute("/x", talk)])), "/x"))[1]["text"] == "True"


@pytest.mark.parametrize("sync", [True, False])
async def test_it_is_gone_afterwards(guard: Guard, sync: bool) -> None:
    app = guard.on(Starlette(routes=[Route("/x", telling(sync))]))
    await request(app, "/x")
    with pytest.raises(NoRequestError):
        _ = authz.current
    leftovers = await asyncio.gather(*(asyncio.to_thread(current_authorization.get, None) for _ in range(8)))
    assert leftovers == [None] * 8


async def test_requests_at_the_same_time_see_their_own(guard: Guard) -> None:
    @requires("area:x")
    async def handle(request: Request) -> Response:
        await asyncio.sleep(0.01)
        assert authz.principal is not None
        return PlainTextResponse(authz.principal.subject)

    app = guard.on(Starlette(routes=[Route("/x", handle)]))
    names = [f"user-{number}" for number in range(20)]
    replies = await asyncio.gather(*(request(app, "/x", who=token(sub=name)) for name in names))
    assert [reply.text for reply in replies] == names


@pytest.mark.capability("C46")
@pytest.mark.parametrize("who", ["", None, "forged"])
@pytest.mark.parametrize("annotate", [closed, denied])
async def test_observing_refuses_nothing_and_records_what_it_would_have_refused(
    make_guard: Make, annotate: Any, who: str | None
) -> None:
    guard = make_guard(app={"mode": "observe"})
    routes = [Route("/x", guard.handler("x", annotate)), WebSocketRoute("/s", guard.socket("s", annotate))]
    app = guard.on(Starlette(routes=routes))
    assert (await request(app, "/x", who=who)).text == "x"
    assert (await websocket(app, "/s", who=who))[0]["type"] == "websocket.accept"
    assert [(record["result"], record["authz"]["shadow"]) for record in guard.records] == [(False, True)] * 2
    guard.ran.clear()


@pytest.mark.capability("C46")
async def test_observing_lets_out_what_nobody_decided_about_and_records_it(make_guard: Make) -> None:
    guard = make_guard(app={"mode": "observe"})

    async def page(request: Request, error: Exception) -> Response:
        return PlainTextResponse("page")

    app = guard.on(Starlette(exception_handlers={404: page}))
    assert (await request(app, "/x")).text == "page"
    assert guard.reasons == ["guard.undecided"]


async def test_path_parameters_fill_the_resource_as_the_router_resolved_them(guard: Guard) -> None:
    app = guard.on(
        Starlette(
            routes=[
                Route("/int/{id:int}", guard.handler("public", requires("area:x", "item/{id}"))),
                Route("/path/{id:path}", guard.handler("public", requires("area:x", "item/{id}"))),
                Route("/text/{id}", guard.handler("public", requires("area:x", "item/{id}"))),
            ]
        )
    )
    for path in ("/int/007", "/path/a/b", "/text/ü"):
        assert (await request(app, path)).status == 200
    assert [record["input"]["resource"]["id"] for record in guard.records] == ["7", "a/b", "ü"]
    guard.ran.clear()


class HangingPoint:
    """A decision point that accepts questions and never answers."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.asked.set()
        await reader.read()
        writer.close()


@pytest.mark.capability("C41")
@pytest.mark.parametrize("where", ["before the handler", "in the handler"])
async def test_a_request_cancelled_while_the_decision_point_is_asked_leaves_one_record(
    make_guard: Make, where: str
) -> None:
    @requires("area:x")
    async def asking(request: Request) -> Response:
        await authz.acheck("ask:it")
        raise AssertionError

    async with HangingPoint() as point:
        guard = make_guard(remote={"url": point.url, "deadline": "20s"})
        before = where == "before the handler"
        handler = guard.handler("x", requires("ask:it")) if before else asking
        app = guard.on(Starlette(routes=[Route("/x", handler)]))
        task = asyncio.create_task(request(app, "/x"))
        await asyncio.wait_for(point.asked.wait(), 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert guard.reasons == (["cancelled"] if before else ["permitted", "cancelled"])
        assert guard.ran == []
        await app.middleware_stack.app.pep.aclose()


@pytest.mark.capability("C30")
async def test_a_decision_point_that_is_away_is_503(guard: Guard) -> None:
    app = guard.on(Starlette(routes=[Route("/x", guard.handler("x", requires("ask:it")))]))
    reply = await request(app, "/x")
    assert (reply.status, "retry-after" in reply.headers, guard.ran) == (503, True, [])


async def test_it_serves_a_real_client(guard: Guard) -> None:
    app = guard.on(Starlette(routes=[Route("/x", guard.handler("x"))]))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app.example") as client:
        assert (await client.get("/x")).status_code == 401
        assert (await client.get("/x", headers={"Authorization": f"Bearer {token()}"})).status_code == 200


async def test_two_credentials_are_no_credential(guard: Guard) -> None:
    app = guard.on(Starlette(routes=[Route("/x", guard.handler("x"))]))
    scope = scope_of("http", "/x")
    scope["headers"].append((b"authorization", f"Bearer {token(sub='mallory')}".encode()))
    statuses = []

    async def send(message: Any) -> None:
        statuses.append(message.get("status"))

    async def receive() -> Any:
        return {"type": "http.request"}

    await app(scope, receive, send)
    assert (statuses[0], guard.ran) == (401, [])


async def test_the_trace_of_a_request_is_in_its_record(guard: Guard) -> None:
    app = guard.on(Starlette(routes=[Route("/x", guard.handler("x"))]))
    trace = "0af7651916cd43dd8448eb211c80319c"
    await request(app, "/x", headers={"traceparent": f"00-{trace}-b7ad6b7169203331-01"})
    assert guard.records[0]["trace_id"] == trace
