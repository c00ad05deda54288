"""What others push is revoked, in a whole application: the event comes in where the next request is refused."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, Response, request
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.test import Client

from authz_flask import Authz
from authz_middleware import authz, public, requires
from authz_middleware.revocation.feeds.mounting import ASGIEvents, WSGIEvents
from authz_starlette import AuthzMiddleware
from tests.support.security_events import AUDIENCE, CONTENT_TYPE, TRANSMITTER, security_event
from tests.support.surfaces.asgi import AsgiSurface
from tests.support.treasury import ISSUER, settings, token

OPEN = {"reason": "RFC 8935 push; events are signed", "owner": "platform"}

Send = Callable[[str, str, bytes, dict[str, str]], int]
"""Method, path, body and headers of a request to an application; answers the status."""


def values(folder: Path, *, transmitters: bool = True) -> dict[str, Any]:
    transmitter = {
        "issuer": TRANSMITTER.url,
        "audience": [AUDIENCE],
        "about": [ISSUER.url],
        "algorithms": ["RS256"],
        "jwks": TRANSMITTER.jwks(),
    }
    revocations = {
        "store": f"file:{folder / 'revocations.db'}",
        "on_unavailable": {"default": "deny"},
        "transmitters": [transmitter] if transmitters else [],
    }
    return {**settings(folder), "revocations": revocations, "handlers": {"events": {"public": OPEN}}}


def starlette(folder: Path, **options: Any) -> Iterator[Send]:
    @requires("invoice:list")
    async def list_invoices(_: Request) -> PlainTextResponse:
        return PlainTextResponse("invoices")

    app = Starlette(routes=[Route("/invoices", list_invoices), Mount("/events", app=ASGIEvents(), name="events")])
    app.add_middleware(AuthzMiddleware, settings=values(folder, **options))
    surface = AsgiSurface(app, [])

    def send(method: str, path: str, body: bytes, headers: dict[str, str]) -> int:
        sending = surface._client.request(method, path, content=body, headers=headers)
        return surface._loop.run_until_complete(sending).status_code

    yield send
    surface.close()


def flask_view(folder: Path, **options: Any) -> Iterator[Send]:
    app = Flask(__name__)

    @app.get("/invoices")
    @requires("invoice:list")
    def list_invoices() -> str:
        return "invoices"

    @app.post("/events/")
    @public(**OPEN)
    def events() -> Response:
        headers = [(name.lower(), value) for name, value in request.headers]
        answer = authz.receiver.receive(request.method, headers, request.get_data())
        return Response(answer.body, answer.status, list(answer.headers))

    guard = Authz(app, settings=values(folder, **options))
    yield _wsgi(app)
    guard.pep.close()


def flask_beside(folder: Path) -> Iterator[Send]:
    app = Flask(__name__)
    app.add_url_rule("/invoices", "list", requires("invoice:list")(lambda: "invoices"))
    guard = Authz(app, settings=values(folder))
    yield _wsgi(DispatcherMiddleware(app, {"/events": WSGIEvents(guard.pep.receiver)}))
    guard.pep.close()


def _wsgi(app: Any) -> Send:
    client = Client(app)
    return lambda method, path, body, headers: client.open(path, method=method, data=body, headers=headers).status_code


@pytest.mark.capability("C16", "C18", "C51")
@pytest.mark.parametrize("build", [starlette, flask_view, flask_beside])
def test_an_event_that_was_acknowledged_refuses_the_next_request(build: Any, tmp_path: Path) -> None:
    opened = build(tmp_path)
    send = next(opened)
    now = int(time.time())
    shown = {"Authorization": f"Bearer {token(iat=now - 5, exp=now + 200)}"}
    assert send("GET", "/invoices", b"", shown) == 200
    event = security_event(event={"event_timestamp": now - 1})
    assert send("POST", "/events/", event, {"Content-Type": CONTENT_TYPE}) == 202
    assert send("GET", "/invoices", b"", shown) == 401
    again = {"Authorization": f"Bearer {token(iat=now, exp=now + 200)}"}
    assert send("GET", "/invoices", b"", again) == 200
    assert list(opened) == []


@pytest.mark.capability("C44")
@pytest.mark.parametrize("build", [starlette, flask_view])
def test_without_a_transmitter_nobody_can_push(build: Any, tmp_path: Path) -> None:
    opened = build(tmp_path, transmitters=False)
    send = next(opened)
    assert send("POST", "/events/", security_event(), {"Content-Type": CONTENT_TYPE}) == 500
    assert list(opened) == []
