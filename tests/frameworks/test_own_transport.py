"""A transport that the application brings carries the questions, in every framework."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import django
import pytest
from django.http import HttpRequest, HttpResponse
from django.urls import path as django_path
from fastapi import FastAPI
from flask import Flask
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from authz_flask import Authz
from authz_middleware import requires
from authz_middleware.remote.failure import RemoteFailure
from authz_middleware.remote.transport.protocol import RawAnswer
from authz_starlette import AuthzMiddleware
from example_apps.transport import OneCallEach, OneThreadEach
from tests.support.pdp import DENY, PERMIT, ScriptedServer, answer
from tests.support.surfaces.asgi import AsgiSurface
from tests.support.treasury import settings, token

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.django_project.settings")
django.setup()

from tests.django_project.site import Colour, open_site  # noqa: E402 - needs Django set up

CARRIED: list[str] = []


class Noted(OneCallEach):
    def post(self, url: str, headers: Mapping[str, str], body: bytes, deadline: float) -> RawAnswer | RemoteFailure:
        CARRIED.append(url)
        return super().post(url, headers, body, deadline)


class NotedAsync(OneThreadEach):
    async def post(
        self, url: str, headers: Mapping[str, str], body: bytes, deadline: float
    ) -> RawAnswer | RemoteFailure:
        CARRIED.append(url)
        return await super().post(url, headers, body, deadline)


@pytest.fixture(autouse=True)
def nothing_carried() -> None:
    CARRIED.clear()


Send = Callable[[dict[str, str]], int]


@contextmanager
def in_starlette(chosen: dict[str, Any], application: type[Starlette]) -> Iterator[Send]:
    @requires("invoice:approve")
    async def approve(request: Request) -> Response:
        return JSONResponse({})

    app = application(routes=[Route("/approve", approve, methods=["POST"])])
    app.add_middleware(AuthzMiddleware, settings=chosen, async_transport=NotedAsync())
    surface = AsgiSurface(app, [])
    yield lambda headers: surface.request("POST", "/approve", headers).status
    surface.close()


@contextmanager
def in_flask(chosen: dict[str, Any]) -> Iterator[Send]:
    app = Flask("treasury")

    @app.post("/approve")
    @requires("invoice:approve")
    def approve() -> dict[str, str]:
        return {}

    guard = Authz(app, settings=chosen, transport=Noted())
    yield lambda headers: app.test_client().post("/approve", headers=headers).status_code
    guard.pep.close()


@requires("ask:sensitive", sensitive=True)
def approve(_: HttpRequest) -> HttpResponse:
    return HttpResponse()


@requires("ask:sensitive", sensitive=True)
async def approve_async(_: HttpRequest) -> HttpResponse:
    return HttpResponse()


@contextmanager
def in_django(chosen: dict[str, Any], folder: Path, colour: Colour) -> Iterator[Send]:
    named = {"AUTHZ_TRANSPORT": f"{__name__}.Noted", "AUTHZ_ASYNC_TRANSPORT": f"{__name__}.NotedAsync"}
    tables = {name: chosen[name] for name in ("remote", "fallback")}
    tables["fallback"] = {"default": "deny"}
    view = approve if colour == "sync" else approve_async
    with open_site(folder, colour, django_path("approve", view), tables=tables, **named) as site:
        yield lambda _: site.ask("POST", "/approve", "ask:sensitive").status_code


FRAMEWORKS: dict[str, Callable[[dict[str, Any], Path], AbstractContextManager[Send]]] = {
    "starlette": lambda chosen, _: in_starlette(chosen, Starlette),
    "fastapi": lambda chosen, _: in_starlette(chosen, FastAPI),
    "flask": lambda chosen, _: in_flask(chosen),
    "django_sync": lambda chosen, folder: in_django(chosen, folder, "sync"),
    "django_async": lambda chosen, folder: in_django(chosen, folder, "async"),
}


@pytest.mark.capability("C29")
@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize(("said", "status"), [(PERMIT, 200), (DENY, 403), (b"{}", 503)])
def test_a_transport_of_ones_own_carries_the_questions_and_judges_no_answer(
    framework: str, said: bytes, status: int, tmp_path: Path
) -> None:
    with ScriptedServer(answer(said)) as point:
        chosen = settings(tmp_path, remote=point.url)
        chosen["remote"]["deadline"] = "5s"
        with FRAMEWORKS[framework](chosen, tmp_path) as send:
            assert send({"authorization": f"Bearer {token(roles=['manager'])}"}) == status
        assert [f"{point.url}/access/v1/evaluation"] == CARRIED
