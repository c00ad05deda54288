"""Setting an application up: where settings come from, and what stops it."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from werkzeug.routing import Rule

from authz_flask import Authz
from authz_middleware import PolicyError, Settings, SettingsError, requires
from tests.flask.office import ISSUER, Office, bearer, is_refusal, replace, settings


def write_toml(folder: Path) -> None:
    (folder / "keys.json").write_bytes(__import__("msgspec").json.encode(ISSUER.jwks()))
    settings(folder)  # writes the policy
    (folder / "authz.toml").write_text(
        f"""
        [app]
        name = "office"
        environment = "production"
        [[issuers]]
        issuer = "{ISSUER.url}"
        audience = ["{ISSUER.audience}"]
        jwks_file = "keys.json"
        algorithms = ["ES256"]
        environment = "production"
        [policy]
        source = "office.yaml"
        allow_unsigned = true
        [remote]
        url = "http://127.0.0.1:9"
        [fallback]
        default = "deny"
        [decision_log]
        sink = "file:decisions.jsonl"
        """
    )


@pytest.mark.parametrize("kind", ["config", "argument", "absolute", "path", "mapping", "settings"])
@pytest.mark.parametrize("factory", [True, False])
def test_settings_come_from_the_configuration_or_the_argument(office: Office, kind: str, factory: bool) -> None:
    write_toml(office.folder)
    app = office.app()
    app.add_url_rule("/invoices", view_func=requires("invoice:read")(office.view("read")))
    toml = office.folder / "authz.toml"
    sources: dict[str, Any] = {
        "config": "authz.toml",
        "argument": "authz.toml",
        "absolute": str(toml),
        "path": Path("authz.toml"),
        "mapping": tomllib.loads(toml.read_text()),  # its paths start from app.root_path as well
        "settings": Settings.from_toml(toml),
    }
    given = None if kind == "config" else sources[kind]
    if kind == "config":
        app.config["AUTHZ"] = sources[kind]

    if factory:
        authz = Authz(settings=given)
        authz.init_app(app)
    else:
        authz = Authz(app, given)

    assert app.test_client().get("/invoices", headers=bearer()).data == b"read"
    assert app.extensions["authz"].pep is authz.pep
    authz.pep.close()
    assert len((office.folder / "decisions.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (None, 'app.config["AUTHZ"]: must be a mapping or the path of a TOML file'),
        (7, "must be a mapping or the path of a TOML file"),
        ("missing.toml", "cannot be read"),
        ({"app": {"name": "x"}, "unknown": 1}, "unknown: is not a known key"),
    ],
)
def test_settings_that_cannot_be_used_stop_the_application(office: Office, given: Any, said: str) -> None:
    app = office.app()
    app.config["AUTHZ"] = given

    with pytest.raises(SettingsError) as caught:
        Authz(app)

    assert said in str(caught.value)
    assert "authz" not in app.extensions


def test_a_policy_that_cannot_be_used_stops_the_application(office: Office) -> None:
    values = settings(office.folder)
    (office.folder / "office.yaml").write_text("policy: office\nowner: o@example.com\nrules: [{permit: 7}]\n")

    with pytest.raises(PolicyError, match=r"office\.yaml:3"):
        Authz(office.app(), values)


def test_a_policy_with_a_sensitive_action_and_no_fallback_stops_the_application(office: Office) -> None:
    with pytest.raises(PolicyError, match="fallback"):
        Authz(office.app(), settings(office.folder, fallback=None))


def test_an_application_is_set_up_once(office: Office) -> None:
    app = office.app()
    office.guard(app)

    with pytest.raises(SettingsError, match="once an application"):
        Authz(app, settings(office.folder))


def test_an_extension_that_guards_nothing_yet_has_no_enforcement_point() -> None:
    with pytest.raises(RuntimeError, match="init_app"):
        _ = Authz().pep


def test_one_extension_guards_several_applications_apart(office: Office) -> None:
    authz = Authz(settings=settings(office.folder))
    clients, points = [], []
    for name in ("first", "second"):
        app = Flask(name)
        app.add_url_rule("/", name, requires("invoice:read")(office.view(name)))
        authz.init_app(app)
        clients.append(app.test_client())
        points.append(authz.pep)

    assert [client.get("/", headers=bearer()).data for client in clients] == [b"first", b"second"]
    assert points[0] is not points[1]
    for point in points:
        point.close()


@pytest.mark.parametrize("declared", ["view", "blueprint", "table"])
def test_a_sensitive_annotation_without_a_fallback_stops_every_request(office: Office, declared: str) -> None:
    from flask import Blueprint

    sensitive = requires("desk:clear", sensitive=True)
    app = office.app()
    view = office.view("desk")
    blueprint = Blueprint("desk", __name__)
    blueprint.add_url_rule("/desk", "clear", sensitive(view) if declared == "view" else view)
    app.register_blueprint(sensitive(blueprint) if declared == "blueprint" else blueprint)
    app.add_url_rule("/invoices", view_func=requires("invoice:read")(office.view("read")))
    table = {"desk.*": {"action": "desk:clear", "sensitive": True}} if declared == "table" else {}
    fallback = {"actions": {"report:*": {"mode": "deny"}}}
    client = office.guard(app, fallback=fallback, handlers=table)

    for _ in range(2):
        for path in ("/invoices", "/missing"):
            with pytest.raises(SettingsError, match="desk:clear"):
                client.get(path, headers=bearer())
    assert office.ran == []


def test_a_sensitive_annotation_that_comes_after_the_first_request_is_denied(office: Office) -> None:
    app = office.app()
    client = office.guard(app, fallback={"actions": {"report:*": {"mode": "deny"}}})
    assert client.get("/missing").status_code == 404
    app.url_map.add(Rule("/late", endpoint="late"))
    app.view_functions["late"] = requires("invoice:read", sensitive=True)(office.view("late"))

    assert is_refusal(client.get("/late", headers=bearer()), 503)
    assert office.ran == []


def test_replacing_and_taking_back_what_flask_calls_leaves_the_guard_in_place(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = office.app()
    app.add_url_rule("/invoices", view_func=requires("invoice:read")(office.view("read")))
    client = office.guard(app)

    def answer(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"bypass"]

    with monkeypatch.context() as patch:
        patch.setattr(app, "wsgi_app", answer)
        patch.setattr(app, "dispatch_request", lambda: "bypass")
        assert is_refusal(client.get("/invoices", headers=bearer()), 403)
    assert client.get("/invoices", headers=bearer()).data == b"read"

    replace(app, wsgi_app=answer)
    del app.wsgi_app
    assert client.get("/invoices", headers=bearer()).data == b"read"


def test_the_application_is_still_of_its_own_class(office: Office) -> None:
    class OwnFlask(Flask):
        """An application class with an attribute of its own."""

        flavour = "own"

    app = OwnFlask("office", root_path=str(office.folder))
    office.guard(app)

    assert isinstance(app, OwnFlask)
    assert (type(app).__name__, type(app).__module__, app.flavour) == ("OwnFlask", __name__, "own")
    assert repr(app) == "<OwnFlask 'office'>"
