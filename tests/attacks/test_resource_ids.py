"""Two spellings of one resource: whoever may choose the spelling must not choose the decision."""

from __future__ import annotations

import unicodedata
import uuid
from pathlib import Path
from typing import Any

import pytest
from django.http import HttpRequest
from django.urls import path as django_path
from django.views.static import serve
from fastapi import FastAPI
from flask import send_from_directory
from flask.typing import ResponseReturnValue

from authz_middleware import requires
from authz_middleware.resource import ResourceTemplate, is_clear_id
from authz_starlette import AuthzMiddleware
from tests.django_project.site import open_site
from tests.flask import office as flask_office
from tests.flask.office import Office, clerk
from tests.starlette import guarded

BARRED_UUID = "12345678-1234-5678-1234-567812345678"

FILES = """
policy: files
owner: files@example.com
rules:
  - rule: public-files
    permit: file:read
    when:
      resource.id: {starts_with: public/}
degrade:
  read-only:
    - {rule: reports-may-be-read, permit: "report:read", when: always}
"""

BARRED = f"""
policy: numbers
owner: numbers@example.com
rules:
  - rule: anything
    permit: number:read
    when: always
  - rule: but-not-these
    deny: number:read
    when:
      resource.id: {{in: ["7", "{BARRED_UUID}"]}}
"""


def _files(folder: Path) -> Path:
    root = folder / "files"
    (root / "public").mkdir(parents=True)
    (root / "public" / "a.txt").write_text("open")
    (root / "secret.txt").write_text("SECRET")
    return root


def _barring(folder: Path) -> guarded.Guard:
    guard = guarded.Guard(folder)
    Path(guard.settings["policy"]["source"]).write_text(BARRED)
    return guard


@pytest.mark.promise("P1")
@pytest.mark.parametrize(
    "path", ["/secret.txt", "/public/../secret.txt", "/public/%2e%2e/secret.txt", "/public//..//secret.txt"]
)
def test_flask_serves_no_file_above_the_prefix_that_the_policy_permits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr(flask_office, "POLICY", FILES)
    root, office = _files(tmp_path), Office(tmp_path)
    app = office.app()

    @app.get("/f/<path:name>")
    @requires("file:read", "file/{name}")
    def read(name: str) -> ResponseReturnValue:
        return send_from_directory(root, name)

    client = office.guard(app)
    try:
        with client.get("/f/public/a.txt", headers=clerk()) as opened:
            assert opened.data == b"open"
        with client.get(f"/f{path}", headers=clerk()) as reply:
            assert (reply.status_code, b"SECRET" in reply.data) == (403, False)
    finally:
        office.close()


@pytest.mark.promise("P1")
@pytest.mark.parametrize("path", ["/f/secret.txt", "/f/public/../secret.txt"])
def test_django_serves_no_file_above_the_prefix_that_the_policy_permits(tmp_path: Path, path: str) -> None:
    root = _files(tmp_path)
    policy = tmp_path / "files.yaml"
    policy.write_text(FILES)

    @requires("file:read", "file/{path}")
    def read(request: HttpRequest, path: str) -> Any:
        return serve(request, path, document_root=str(root))

    tables = {"policy": {"source": str(policy), "allow_unsigned": True}}
    with open_site(tmp_path, "sync", django_path("f/<path:path>", read), tables=tables) as site:
        reply = site.ask("GET", path)
        body = b"".join(reply.streaming_content) if reply.streaming else reply.content
    assert (reply.status_code, b"SECRET" in body) == (403, False)


@pytest.mark.promise("P1")
@pytest.mark.parametrize("id_", ["a/../b", "..", "../a", "a/.", "./a", "a//b"])
def test_an_id_with_dot_or_empty_segments_is_not_safe_to_decide_on(id_: str) -> None:
    assert ResourceTemplate.parse("file/{name}").fill({"name": id_}) is None


@pytest.mark.promise("P1")
@pytest.mark.parametrize(
    ("path", "runs"),
    [
        ("/n/8", True),
        ("/n/7", False),
        ("/n/07", False),
        ("/n/7.0", False),
        ("/n/+7", False),
        ("/n/ 7", False),
        ("/n/0_7", False),
        (f"/u/{BARRED_UUID}", False),
        (f"/u/{BARRED_UUID.replace('-', '')}", False),
        (f"/u/{{{BARRED_UUID}}}", False),
        (f"/u/urn:uuid:{BARRED_UUID}", False),
    ],
)
async def test_fastapi_decides_on_the_value_that_its_handler_gets(tmp_path: Path, path: str, runs: bool) -> None:
    guard = _barring(tmp_path)
    app = FastAPI()
    got: list[object] = []

    @app.get("/n/{number}")
    @requires("number:read", "number/{number}")
    def number(number: int) -> None:
        got.append(number)

    @app.get("/u/{number}")
    @requires("number:read", "number/{number}")
    def identifier(number: uuid.UUID) -> None:
        got.append(number)

    app.add_middleware(AuthzMiddleware, settings=guard.settings)
    await guarded.request(app, path)
    assert bool(got) is runs, f"{path} ran with {got}"


@pytest.mark.parametrize(
    "id_",
    [
        "1 ",
        " 1",
        "1\u00a0",
        unicodedata.normalize("NFD", "caf\u00e9"),
        "\u212aelvin",
        "1\ufe0f",
        "1\u034f",
        "\u3164",
        "\u2800",
    ],
    ids=["space-after", "space-before", "no-break", "nfd", "kelvin", "variation", "joiner", "filler", "blank"],
)
def test_an_id_that_a_person_cannot_tell_from_another_is_refused(id_: str) -> None:
    assert not is_clear_id(id_), ascii(id_)


def test_a_literal_after_the_only_field_forbids_no_letters_in_it() -> None:
    filled = ResourceTemplate.parse("invoice/{invoice_id}/lines").fill({"invoice_id": "line5"})
    assert filled is not None
    assert filled.id == "line5/lines"
