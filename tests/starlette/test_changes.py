"""P1 for applications that change: routes that come late, parts that are swapped, classes that are patched."""

from __future__ import annotations

import copy
import functools
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount, Route, Router, WebSocketRoute, compile_path, request_response
from starlette.types import Receive, Scope, Send

from authz_middleware import requires
from authz_starlette import gate
from tests.starlette.guarded import Guard, closed, denied, request, websocket


async def test_a_route_appended_after_start_is_closed_until_it_is_annotated(guard: Guard) -> None:
    app = guard.on(Starlette(routes=[Route("/x", guard.handler("x"))]))
    assert (await request(app, "/x")).status == 200
    app.router.routes.append(Route("/late", guard.handler("late", closed)))
    app.router.routes.append(Route("/late-too", guard.handler("late-too")))
    app.router.routes.append(WebSocketRoute("/late-socket", guard.socket("talk", closed)))
    assert (await request(app, "/late")).status == 403
    assert (await request(app, "/late-too")).status == 200
    assert (await websocket(app, "/late-socket"))[0]["status"] == 403


async def test_the_routes_of_a_router_that_was_swapped_in_are_decided(guard: Guard) -> None:
    app = Starlette(routes=[Mount("/m", app=Router([Route("/x", guard.handler("x"))]))])
    app.router = Router([Route("/x", guard.handler("swapped", closed))])
    guard.on(app)
    assert (await request(app, "/x")).status == 403
    assert guard.ran == []


async def test_a_list_of_routes_that_was_swapped_in_is_decided(guard: Guard) -> None:
    app = guard.on(Starlette(routes=[Route("/x", guard.handler("x"))]))
    assert (await request(app, "/x")).status == 200
    app.router.routes = [Route("/x", guard.handler("swapped", closed))]
    assert (await request(app, "/x")).status == 403


def starlette_route(handler: Any, *, sync: bool = False) -> tuple[Any, Any]:
    route = Route("/x", handler)
    return Starlette(routes=[route]), route


def fastapi_route(handler: Any) -> tuple[Any, Any]:
    app = FastAPI()
    app.add_api_route("/x", handler)
    return app, app.routes[-1]


def included_route(handler: Any) -> tuple[Any, Any]:
    app, router = FastAPI(), APIRouter()
    router.add_api_route("/x", handler)
    app.include_router(router)
    return app, router.routes[0]


@pytest.mark.parametrize("make", [starlette_route, fastapi_route, included_route])
@pytest.mark.parametrize("when", ["before the first request", "after it"])
@pytest.mark.parametrize(("bound", "named"), [(denied, "run"), (closed, "run"), ("run", denied), ("run", closed)])
async def test_a_swapped_endpoint_needs_the_permits_of_both_the_name_and_the_deed(
    guard: Guard, make: Any, when: str, bound: Any, named: Any
) -> None:
    handlers = [guard.handler(n, None if a == "run" else a) for n, a in (("bound", bound), ("named", named))]
    app, route = make(handlers[0])
    guard.on(app)
    if when == "after it":
        await request(app, "/x")
        guard.ran.clear()
    route.endpoint = handlers[1]
    reply = await request(app, "/x")
    if make is included_route and when == "before the first request" and named == "run":
        # FastAPI binds an included handler at the first request, so that here the deed is as the name says.
        assert guard.ran == ["named"]
    else:
        assert (reply.status, guard.ran) == (403, [])


@pytest.mark.parametrize("make_handler", ["handler", "sync_handler"])
async def test_an_application_swapped_into_a_route_is_decided_on(guard: Guard, make_handler: str) -> None:
    app, route = starlette_route(guard.handler("x"))
    guard.on(app)
    assert (await request(app, "/x")).status == 200
    route.app = request_response(getattr(guard, make_handler)("swapped", closed))
    assert (await request(app, "/x")).status == 403
    assert guard.ran == ["x"]


async def test_a_method_swapped_into_an_endpoint_class_is_decided_on(guard: Guard) -> None:
    class Page(HTTPEndpoint):
        @requires("run:page")
        async def get(self, request: Request) -> Response:
            guard.ran.append("page")
            return Response()

    @requires("deny:it")
    async def other(self: Page, request: Request) -> Response:
        guard.ran.append("other")
        return Response()

    app = guard.on(Starlette(routes=[Route("/x", requires("area:page")(Page))]))
    assert (await request(app, "/x")).status == 200
    Page.get = other  # type: ignore[method-assign]
    assert (await request(app, "/x")).status == 403
    assert guard.ran == ["page"]


async def test_a_mount_that_was_copied_does_not_inherit_what_was_found_for_its_original(guard: Guard) -> None:
    router = APIRouter()
    router.mount("/m", requires("run:opaque")(Greeter(guard)))
    app = FastAPI(openapi_url=None)
    app.include_router(router, prefix="/one")
    app.include_router(router, prefix="/two")
    guard.on(app)
    for path in ("/one/m/x", "/two/m/x", "/one/m/x"):
        assert (await request(app, path)).status == 200
    assert [r["input"]["context"]["route"] for r in guard.records] == [
        "/one/m/{path}",
        "/two/m/{path}",
        "/one/m/{path}",
    ]


async def test_a_route_that_a_person_copied_is_recorded_as_itself(guard: Guard) -> None:
    app = guard.on(Starlette(routes=[Route("/x", guard.handler("x"))]))
    await request(app, "/x")
    twin = copy.copy(app.routes[0])
    twin.path_regex, twin.path_format, twin.param_convertors = compile_path("/y")
    app.routes.append(twin)
    await request(app, "/y")
    assert [record["input"]["context"]["route"] for record in guard.records] == ["/x", "/y"]


async def test_an_included_route_that_is_bound_anew_is_decided_anew(guard: Guard) -> None:
    app, router = FastAPI(openapi_url=None), APIRouter()
    router.add_api_route("/x", guard.handler("old", denied))
    app.include_router(router)
    guard.on(app)
    assert (await request(app, "/x")).status == 403
    router.routes[0].endpoint = guard.handler("new")
    assert (await request(app, "/x")).status == 403  # the old one is still bound
    router.add_api_route("/y", guard.handler("y"))  # FastAPI builds its contexts again
    assert (await request(app, "/x")).status == 200
    assert guard.ran == ["new"]


class Greeter:
    def __init__(self, guard: Guard) -> None:
        self.guard = guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.guard.ran.append("opaque")
        await PlainTextResponse("opaque")(scope, receive, send)


@pytest.fixture
def classes() -> Iterator[None]:
    """Puts the methods back that a test has patched."""
    known = {cls: cls.__dict__["handle"] for cls in (BaseRoute, Route, Mount, WebSocketRoute)}
    yield
    for cls, handle in known.items():
        cls.handle = handle  # type: ignore[method-assign]
    gate.mend()


class Descriptor:
    """Wraps a method as wrapt does: a descriptor that binds, and tells its wrapper which instance it is called on."""

    def __init__(self, wrapped: Any, seen: list[str]) -> None:
        self.__wrapped__ = wrapped
        self.seen = seen

    def __get__(self, instance: Any, owner: Any) -> Any:
        async def bound(*args: Any) -> None:
            on, *arguments = args if instance is None else (instance, *args)
            await self.around(on, *arguments)

        return bound

    async def __call__(self, *args: Any) -> None:
        await self.around(None, *args)

    async def around(self, instance: Any, *args: Any) -> None:
        self.seen.append(instance.path)
        await self.__wrapped__(instance, *args)


def plain_wrapper(wrapped: Any, seen: list[str]) -> Any:
    @functools.wraps(wrapped)
    async def handle(self: Any, scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(self.path)
        await wrapped(self, scope, receive, send)

    return handle


@pytest.fixture
def ungated() -> Any:
    """`Route.handle` as Starlette wrote it, from before there was a gate."""
    handle = Route.handle
    while handle in gate._ours:
        handle = next(
            c.cell_contents
            for c in handle.__closure__ or ()
            if callable(c.cell_contents) and c.cell_contents is not handle
        )
    assert handle.__module__ == "starlette.routing"
    assert handle not in gate._ours
    return handle


@pytest.mark.usefixtures("classes")
@pytest.mark.parametrize("wrap", [plain_wrapper, Descriptor])
@pytest.mark.parametrize("when", ["before the gate", "after the gate", "while serving"])
async def test_instrumentation_of_a_route_class_does_not_disarm_the_gate(
    guard: Guard, ungated: Any, wrap: Any, when: str
) -> None:
    seen: list[str] = []
    app = guard.on(Starlette(routes=[Route("/x", guard.handler("x")), Route("/y", guard.handler("y", closed))]))
    if when == "before the gate":
        Route.handle = wrap(ungated, seen)
        gate.install()
    elif when == "after the gate":
        Route.handle = wrap(Route.handle, seen)
    else:
        await request(app, "/x")
        Route.handle = wrap(Route.handle, seen)
    guard.ran.clear()
    before = len(guard.records)
    assert (await request(app, "/x")).status == 200
    assert (await request(app, "/y")).status == 403
    assert guard.ran == ["x"]
    assert len(guard.records) == before + 2
    assert "/x" in seen


@pytest.mark.usefixtures("classes")
async def test_instrumentation_that_is_switched_off_does_not_take_the_gate_with_it(guard: Guard, ungated: Any) -> None:
    app = guard.on(Starlette(routes=[Route("/y", guard.handler("y", closed))]))
    assert (await request(app, "/y")).status == 403
    Route.handle = ungated  # what a tool found before the gate was there, and puts back
    assert (await request(app, "/y")).status == 403
    assert guard.ran == []


def test_there_is_nothing_to_unwrap() -> None:
    assert not any(hasattr(handle, "__wrapped__") for handle in gate._gates.values())


@pytest.mark.usefixtures("classes")
async def test_a_gate_that_is_put_back_is_not_gated_again(guard: Guard) -> None:
    app = guard.on(Starlette(routes=[Route("/x", guard.handler("x"))]))
    first = Route.handle
    for _ in range(3):
        Route.handle = plain_wrapper(Route.handle, [])
        await request(app, "/x")
        Route.handle = first
        await request(app, "/x")
        assert Route.handle is first
    assert len(guard.records) == 6


def test_the_gate_stands_as_soon_as_the_package_is_imported() -> None:
    """FastAPI keeps bound methods of routes that it has dispatched to, so a later gate would not be met."""
    code = (
        "from starlette.routing import Route; before = Route.handle; import authz_starlette; "
        "assert Route.handle is not before"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
