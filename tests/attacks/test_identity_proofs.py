"""A proof of possession is for one request, the whole of it, and for this application."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from authz_middleware import Settings, SettingsError, requires
from authz_middleware.identity.authenticator import Authenticator
from authz_middleware.identity.introspection.answer import claims_of
from authz_middleware.identity.problem import TokenRefusedError
from authz_middleware.identity.tokens import IssuerRules
from authz_middleware.remote.failure import RemoteAnswer
from authz_starlette import AuthzMiddleware
from tests.support.dpop import Client
from tests.support.surfaces.all import FRAMEWORKS, open_surface
from tests.support.surfaces.asgi import AsgiSurface
from tests.support.tokens import bearer
from tests.support.treasury import ISSUER, records, settings, token

pytestmark = [pytest.mark.capability("C19"), pytest.mark.promise("P3")]

CLIENT = Client()
URL = "http://treasury.example/in/note"
Build = Callable[[dict[str, Any]], Starlette]


class Wrapping:
    """An ASGI application that holds another."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)


@requires("note:read")
async def note(_: Request) -> PlainTextResponse:
    return PlainTextResponse("note")


def guarded(app: Starlette, values: dict[str, Any]) -> Starlette:
    app.add_middleware(AuthzMiddleware, settings=values)
    return app


def one_point(values: dict[str, Any]) -> Starlette:
    within = requires("note:read")(Wrapping(Starlette(routes=[Route("/note", note)])))
    return guarded(Starlette(routes=[Mount("/in", within)]), values)


def two_points(values: dict[str, Any]) -> Starlette:
    within = guarded(Starlette(routes=[Route("/note", note)]), values)
    return guarded(Starlette(routes=[Mount("/in", within)]), values)


@pytest.mark.parametrize("build", [one_point, two_points])
@pytest.mark.parametrize("replay", ["memory", "file"])
def test_a_proof_is_for_every_gate_of_its_request_and_for_no_other_request(
    tmp_path: Path, build: Build, replay: str
) -> None:
    place = f"file:{tmp_path / 'dpop.db'}" if replay == "file" else replay
    surface = AsgiSurface(build({**settings(tmp_path), "dpop": {"replay": place}}), [])
    try:
        shown = token(cnf=CLIENT.cnf)
        headers = {"Authorization": f"DPoP {shown}", "DPoP": CLIENT.prove(shown, url=URL)}
        assert [surface.request("GET", "/in/note", headers).status for _ in range(2)] == [200, 401]
    finally:
        surface.close()
    assert records(tmp_path)[-1]["authz"]["detail"] == "dpop.replayed"


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_proof_that_another_server_has_received_is_worth_nothing_here(tmp_path: Path, framework: str) -> None:
    origins = ["http://treasury.example", "http://testserver:80"]
    shown = token(cnf=CLIENT.cnf)
    with open_surface(framework, {**settings(tmp_path), "dpop": {"origins": origins}}) as surface:
        host = "testserver" if framework == "django_async" else "treasury.example"
        for called, status in ((host, 200), ("elsewhere.example", 401)):
            proof = CLIENT.prove(shown, url=f"http://{called}/invoices")
            own = {} if called == "testserver" else {"Host": called}
            reply = surface.request("GET", "/invoices", {**own, "Authorization": f"DPoP {shown}", "DPoP": proof})
            assert reply.status == status
    assert records(tmp_path)[-1]["authz"]["detail"] == "dpop.target"


@pytest.mark.parametrize(
    "origin", ["treasury.example", "https://a/b", "https://a/", "https://a@b", "ftp://a", "https://"]
)
def test_an_origin_is_scheme_and_host(tmp_path: Path, origin: str) -> None:
    with pytest.raises(SettingsError, match=r"dpop\.origins"):
        Settings.from_mapping({**settings(tmp_path), "dpop": {"origins": [origin]}})


def test_a_token_with_an_impossible_key_id_is_no_surprise_while_there_are_no_keys(tmp_path: Path) -> None:
    table = {"issuer": ISSUER.url, "audience": [ISSUER.audience], "algorithms": ["ES256"]}
    issuers = [{**table, "jwks_file": str(tmp_path / "none.json")}]
    now = [time.time()]
    found = Settings.from_mapping({**settings(tmp_path), "issuers": issuers}).issuers
    authenticator = Authenticator(found, clock=lambda: now[0])
    authenticator.start()
    try:
        for kid in ([1], {"a": 1}, 1, None):
            now[0] += 60  # past the cooldown
            known = authenticator.authenticate(bearer(ISSUER.mint(header={"kid": kid}, now=now[0])), now[0])
            assert getattr(known, "detail", None) == "keys.unavailable"
    finally:
        authenticator.close()


def test_an_answer_that_says_dpop_and_names_no_key_is_refused_whatever_else_it_names(tmp_path: Path) -> None:
    now = time.time()
    table = {"issuer": ISSUER.url, "audience": [ISSUER.audience], "algorithms": ["ES256"], "jwks": ISSUER.jwks()}
    rules = IssuerRules(Settings.from_mapping({**settings(tmp_path), "issuers": [table]}).issuers[0])
    for cnf, accepted in (({"x5t#S256": "A" * 43}, False), ("jkt", False), (5, False), (CLIENT.cnf, True)):
        answer = {"active": True, **ISSUER.claims(now), "token_type": "DPoP", "cnf": cnf}
        with nullcontext() if accepted else pytest.raises(TokenRefusedError, match=r"token\.bound"):
            claims_of(RemoteAnswer(True, answer), rules, now)
