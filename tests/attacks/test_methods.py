"""A method that a handler takes for its own is that method to the policy as well."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import pytest
from django.core.handlers.asgi import ASGIRequest
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from starlette.types import Receive, Scope, Send

from authz_middleware import requires
from tests.starlette.guarded import Guard, request

POLICY = """
policy: methods
owner: methods@example.com
rules:
  - rule: use
    permit: thing:use
    when: always
  - rule: delete-nothing
    deny: thing:use
    when:
      context.method: DELETE
"""


def _guard(folder: Path) -> Guard:
    guard = Guard(folder)
    Path(guard.settings["policy"]["source"]).write_text(POLICY)
    return guard


@pytest.mark.promise("P1", "P8")
@pytest.mark.parametrize(("method", "runs"), [("GET", True), ("DELETE", False), ("Delete", False), ("delete", False)])
async def test_the_policy_sees_the_method_that_runs_in_whatever_case_it_came(
    tmp_path: Path, method: str, runs: bool
) -> None:
    ran: list[str] = []

    @requires("thing:use")
    class Thing(HTTPEndpoint):
        async def get(self, _: Request) -> PlainTextResponse:
            ran.append("get")
            return PlainTextResponse("got")

        async def delete(self, _: Request) -> PlainTextResponse:
            ran.append("delete")
            return PlainTextResponse("deleted")

    app = _guard(tmp_path).on(Starlette(routes=[Route("/", Thing)]))
    await request(app, "/", method=method)
    assert bool(ran) is runs


@pytest.mark.promise("P1", "P8")
@pytest.mark.parametrize(("method", "runs"), [("GET", True), ("DELETE", False), ("Delete", False)])
async def test_the_policy_sees_the_method_that_a_mounted_application_of_another_framework_sees(
    tmp_path: Path, method: str, runs: bool
) -> None:
    ran: list[str | None] = []

    @requires("thing:use")
    async def mounted(scope: Scope, receive: Receive, send: Send) -> None:
        ran.append(ASGIRequest(scope, BytesIO()).method)  # Django's, which writes every method in capitals
        await PlainTextResponse("ran")(scope, receive, send)

    app = _guard(tmp_path).on(Starlette(routes=[Mount("/django", mounted)]))
    await request(app, "/django/", method=method)
    assert ran == (["GET"] if runs else [])
