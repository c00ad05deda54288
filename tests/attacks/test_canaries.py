"""Tokens, secrets and forged lines, looked for wherever the library writes something."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.http import HttpRequest, HttpResponse
from django.test import override_settings
from django.urls import path as django_path
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from authz_django import protect
from authz_middleware import ResourceLoaders, authz, requires
from authz_middleware.record.masking import mask
from tests.django_project.site import open_site
from tests.django_project.site import token as site_token
from tests.flask.office import Office
from tests.starlette.guarded import Guard, request
from tests.starlette.guarded import token as guarded_token
from tests.support import treasury
from tests.support.surfaces.all import FRAMEWORKS, open_surface
from tests.support.treasury import settings, token

PATH_TOKEN = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJjYW5hcnkifQ.c2lnbmF0dXJl"
OPAQUE = "opaque-canary-0123456789abcdef"


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    office = Office(tmp_path)
    yield office
    office.close()


@pytest.mark.promise("P6")
def test_no_log_line_carries_a_token_that_stood_in_the_path(office: Office, caplog: pytest.LogCaptureFixture) -> None:
    app = office.app()
    app.before_request(lambda: "answered before any handler")
    office.guard(app).get(f"/magic/{PATH_TOKEN}")
    assert office.reasons == ["guard.undecided"]
    assert PATH_TOKEN not in str(office.records)
    assert PATH_TOKEN not in caplog.text


def _documents(folder: Path) -> Guard:
    guard = Guard(folder)
    Path(guard.settings["policy"]["source"]).write_text(
        "policy: documents\nowner: o@example.com\ninputs:\n  resource.notes: {from: application}\n"
        "rules:\n  - {rule: read, permit: 'run:it', when: {resource.notes: {exists: true}}}\n"
    )
    return guard


@pytest.mark.promise("P6")
async def test_no_name_in_the_data_of_the_application_forges_a_log_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    guard, loaders = _documents(tmp_path), ResourceLoaders()
    loaders.register("document")(lambda _: {"notes": {f"x\nERROR forged {OPAQUE}": 2**60}})

    @requires("run:it", "document/{document}")
    async def read(_: Request) -> PlainTextResponse:
        return PlainTextResponse("read")

    app = guard.on(Starlette(routes=[Route("/{document}", read)]), loaders=loaders)
    assert (await request(app, "/1")).status == 503
    assert caplog.records
    assert [line for record in caplog.records for line in record.getMessage().split("\n")[1:]] == []


@pytest.mark.promise("P6")
@pytest.mark.parametrize(
    "name",
    [
        *("password", "client_secret", "x-api-key", "authToken", "sessionId", "private_key", "credentials", "otp"),
        *("pwd", "pass", "passcode", "session", "sid", "creds", "encryptionKey", "ssh_key", "connectionString"),
        *("tokenValue", "authorizationHeader", "accessKeyId", "recoveryCodes", "signature"),
    ],
)
def test_a_member_named_after_a_secret_is_masked(name: str) -> None:
    assert OPAQUE not in str(mask({name: OPAQUE}))


@pytest.mark.promise("P6")
@pytest.mark.parametrize(
    "text",
    [
        PATH_TOKEN,
        f"Bearer {OPAQUE}",
        f"https://user:{OPAQUE}@host/",
        "ghp_abcdefghijklmnopqrstuvwxyz0123456789",
        f"Bearer%20{OPAQUE}",
        f"{PATH_TOKEN.replace('.', '%2E')}",
        "v4.public.eyJzdWIiOiJjYW5hcnkifQabcdefghijklmnop",
        "ya29.a0AfH6SMBabcdefghijklmnopqrstuvwxyz",
        "AIzaSyA1234567890abcdefghijklmnopqrstuv",
        "npm_abcdefghijklmnopqrstuvwxyz0123456789",
        f"https://host/?sig={OPAQUE}",
    ],
)
def test_a_text_that_is_a_well_known_kind_of_credential_is_masked(text: str) -> None:
    assert mask({"note": text})[1] == ("/note",)


REQUESTS = (
    ("GET", "/invoices/1"),
    ("GET", "/invoices/boom"),
    ("GET", "/broken"),
    ("GET", "/amend/boom"),
    ("GET", "/swallow/1"),
    ("GET", "/undeclared"),
    ("POST", "/export"),
    ("POST", "/invoices/1/approve"),
    ("GET", "/invoices/%00"),
    ("BREW", "/invoices"),
    ("GET", "/nowhere"),
)


@pytest.mark.promise("P6")
@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("mode", ["enforce", "observe"])
def test_no_record_log_line_header_or_page_carries_a_token(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    framework: str,
    mode: str,
) -> None:
    good = token()
    canaries = (good.split(".")[1], good.split(".")[2], OPAQUE)

    class Hostile(dict[str, Any]):
        def get(self, key: str, default: Any = None) -> Any:
            if key == "boom":
                raise RuntimeError(f"could not load with Authorization: Bearer {good} {OPAQUE}")
            return super().get(key, default)

    hostile = Hostile(treasury.INVOICES)
    for module in ("tests.support.treasury", "tests.support.surfaces.django_surface"):
        monkeypatch.setattr(f"{module}.INVOICES", hostile)
    caplog.set_level(logging.DEBUG, "authz")
    headers = ({"Authorization": f"Bearer {good}"}, {"Authorization": f"Basic {OPAQUE}"})
    headers += ({"Authorization": f"Bearer {good}x"}, {"Authorization": f"Bearer {OPAQUE}, Bearer {good}"})
    with open_surface(framework, settings(tmp_path, mode=mode)) as surface, override_settings(DEBUG=True):
        for sent in headers:
            for method, path in REQUESTS:
                reply = surface.request(method, path, sent)
                shown = f"{reply.headers} {reply.body!r}"
                assert not any(canary in shown for canary in canaries), f"{method} {path}: {shown}"
        log = (tmp_path / "decisions.jsonl").read_text()
    assert log
    ours = "\n".join(record.getMessage() + str(record.exc_info) for record in caplog.records if "authz" in record.name)
    assert not any(canary in log + ours for canary in canaries)


@pytest.mark.promise("P6")
@pytest.mark.parametrize("where", ["view", "loader", "check"])
@pytest.mark.parametrize("colour", ["sync", "async"])
def test_the_debug_page_of_django_shows_no_token(tmp_path: Path, colour: Any, where: str) -> None:
    def load(_: str) -> dict[str, Any]:
        raise RuntimeError("the loader failed")

    @requires("invoice:read", "canary/{number}" if where == "loader" else None)
    def view(request: HttpRequest, number: str) -> HttpResponse:
        if where == "check":
            authz.check("no action at all")
        raise RuntimeError("the view failed")

    authz.loaders.register("canary")(load)
    policy = tmp_path / "debug.yaml"
    policy.write_text(
        "policy: debug\nowner: o@example.com\ninputs:\n  resource.a: {from: application}\n"
        "rules:\n  - {rule: read, permit: 'invoice:read', when: {any: [{subject.scopes: {has: 'invoice:read'}}, "
        "{resource.a: 1}]}}\n"
    )
    tables = {"policy": {"source": str(policy), "allow_unsigned": True}}
    page = django_path("<number>", view)
    if where != "loader":
        page = protect(page, requires("invoice:read"))
    try:
        with open_site(tmp_path, colour, page, tables=tables, DEBUG=True) as site:
            header = site_token("other:scope" if where == "loader" else "invoice:read")
            reply = site.send("GET", "/1", {"authorization": header})
    finally:
        del authz.loaders._loaders["canary"]
    assert reply.status_code == (503 if where == "loader" else 500)
    assert not any(part in reply.content.decode() for part in header.split(".")[1:])


@pytest.mark.promise("P6")
async def test_the_debug_page_of_starlette_shows_no_token(tmp_path: Path) -> None:
    guard = Guard(tmp_path)

    @requires("run:it")
    async def view(_: Request) -> PlainTextResponse:
        raise RuntimeError("the view failed")

    who = guarded_token()
    app = guard.on(Starlette(debug=True, routes=[Route("/", view)]))
    reply = await request(app, "/", who=who, headers={"accept": "text/html"})
    assert reply.status == 500
    assert not any(part in reply.text for part in who.split(".")[1:])
