"""A check that was refused is final, also when the handler swallows it after it has called another application."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.http import HttpRequest, StreamingHttpResponse
from django.urls import path as django_path
from flask import Response, request
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

from authz_middleware import AccessDenied, authz, requires
from authz_middleware.answer import answer_for
from authz_middleware.decision import Decision, Reason
from authz_middleware.resource import Resource
from tests.django_project.site import open_site
from tests.flask.office import Office, clerk
from tests.starlette.guarded import Guard, opened
from tests.starlette.guarded import request as ask


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    office = Office(tmp_path)
    yield office
    office.close()


def _swallowed() -> None:
    with contextlib.suppress(AccessDenied):
        authz.check("admin:nuke")


@pytest.mark.promise("P3")
@pytest.mark.parametrize("calls", ["nobody", "another application", "itself"])
def test_flask_restores_a_swallowed_refusal_whatever_the_view_called_before(office: Office, calls: str) -> None:
    inner, outer = office.app("inner"), office.app("outer")

    @inner.get("/a")
    @requires("invoice:list")
    def within() -> str:
        return "inner"

    @outer.get("/b")
    @requires("invoice:list")
    def beside() -> str:
        return "beside"

    @outer.get("/a")
    @requires("invoice:list")
    def view() -> str:
        if calls == "another application":
            inner.wsgi_app(request.environ, lambda *_: lambda _: None)
        elif calls == "itself":
            with outer.request_context({**request.environ, "PATH_INFO": "/b"}):
                outer.full_dispatch_request()
        _swallowed()
        return "SECRET"

    office.guard(inner)
    client = office.guard(outer)
    reply = client.get("/a", headers=clerk())
    assert (reply.status_code, reply.data == b"SECRET") == (403, False)


@pytest.mark.promise("P3")
def test_flask_sends_nothing_more_of_a_stream_that_was_refused_midway(office: Office) -> None:
    app = office.app()

    @app.get("/")
    @requires("invoice:list")
    def view() -> Response:
        def body() -> Iterator[str]:
            yield "begun"
            _swallowed()
            yield "SECRET"

        return Response(body())

    client = office.guard(app)
    try:
        sent = client.get("/", headers=clerk()).data
    except Exception:
        sent = b""
    assert b"SECRET" not in sent


@pytest.mark.promise("P3")
async def test_starlette_sends_nothing_more_of_a_stream_that_was_refused_midway(tmp_path: Path) -> None:
    guard = Guard(tmp_path)

    @requires("run:stream")
    async def view(_: Request) -> StreamingResponse:
        async def body() -> Any:
            yield "begun"
            with contextlib.suppress(AccessDenied):
                await authz.acheck("denied:it")
            yield "SECRET"

        return StreamingResponse(body())

    reply = await ask(guard.on(Starlette(routes=[Route("/", view)])), "/")
    assert b"SECRET" not in reply.body


@pytest.mark.promise("P3")
@pytest.mark.parametrize("before", [(), ("begun",)], ids=["before the first byte", "midway"])
def test_django_sends_nothing_more_of_a_stream_that_was_refused(tmp_path: Path, before: tuple[str, ...]) -> None:
    @requires("invoice:read")
    def view(request: HttpRequest) -> StreamingHttpResponse:
        held: Any = request.authz  # type: ignore[attr-defined]

        def body() -> Iterator[str]:
            yield from before
            with contextlib.suppress(AccessDenied):
                held.check("invoice:amend")
            yield "SECRET"

        return StreamingHttpResponse(body())

    with open_site(tmp_path, "sync", django_path("s", view)) as site:
        reply = site.ask("GET", "/s", "invoice:read")
        try:
            sent = b"".join(reply.streaming_content) if reply.streaming else reply.content
        except Exception:
            sent = b""
    assert b"SECRET" not in sent


@pytest.mark.promise("P1")
async def test_a_public_view_that_dispatches_to_another_route_does_not_open_it(tmp_path: Path) -> None:
    guard = Guard(tmp_path)
    closed = Route("/closed", guard.handler("closed", requires("denied:it")))

    class Forward:
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await closed.handle(scope, receive, send)

    app = guard.on(Starlette(routes=[Route("/", opened(Forward()))]))
    await ask(app, "/")
    assert guard.ran == []


class _Broken:
    def __init__(self, how: str) -> None:
        self._how = how

    def __authz_resource__(self) -> Resource:
        if self._how == "raises":
            raise RuntimeError("the data base is away")
        return Resource("invoice", "1", {"amount": 2**60 if self._how == "too large" else float("nan")})


@pytest.mark.promise("P3", "P6")
@pytest.mark.parametrize("how", ["raises", "too large", "not a number"])
def test_a_check_of_a_resource_that_cannot_be_described_ends_in_a_recorded_refusal(office: Office, how: str) -> None:
    app = office.app()

    @app.get("/")
    @requires("invoice:list")
    def view() -> str:
        authz.check("invoice:approve", resource=_Broken(how))
        return "approved"

    app.register_error_handler(Exception, lambda _: ("all is well", 200))
    reply = office.guard(app).get("/", headers=clerk())
    assert (reply.status_code, office.reasons) == (503, ["permitted", "error"])


@pytest.mark.promise("P1")
@pytest.mark.parametrize("resource", ["invoice\u200b/1", "inv\noice/1", "invoice /1", "invoice/1\u202e"])
def test_a_check_refuses_a_resource_that_is_not_clear(office: Office, resource: str) -> None:
    app = office.app()

    @app.get("/")
    @requires("invoice:list")
    def view() -> str:
        return str(authz.permitted("invoice:approve", resource=resource))

    assert office.guard(app).get("/", headers=clerk()).data == b"False"


@pytest.mark.promise("P6")
@pytest.mark.parametrize("scope", ['a"', "a\r\nset-cookie: x", "a b", "\u00e9", "", "a\\"])
def test_no_scope_of_a_policy_writes_into_the_header(scope: str) -> None:
    decision = Decision(permit=False, reason=Reason.NO_RULE, helpful_scopes=(scope, "fine"))
    headers = dict(answer_for(decision, "id", retry_after=1.0).headers)
    assert headers["www-authenticate"] == 'Bearer error="insufficient_scope", scope="fine"'
