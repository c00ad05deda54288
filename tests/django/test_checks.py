"""Mistakes are found before the first request: by `manage.py check`, and by the server when it loads the middleware."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pytest
from django.contrib import admin
from django.core.checks import CheckMessage, run_checks
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, HttpResponse
from django.test import Client, override_settings
from django.urls import include, path
from django.views import View

from authz_django import AuthzMiddleware, enforcement, protect
from authz_middleware import Settings, public, requires
from authz_middleware.facts import RequestFacts
from authz_middleware.pipeline import PUBLIC
from tests.django.conftest import OpenSite
from tests.django_project.site import AUTHZ, ISSUER, authz_settings, open_site, token, urlconf, write_policy


@requires("invoice:read")
def read(request: HttpRequest) -> HttpResponse:
    return HttpResponse("invoice")


@requires("ask:sensitive", sensitive=True)
def sensitive(request: HttpRequest) -> HttpResponse:
    return HttpResponse("sensitive")


@public(reason="probe", owner="platform")
def health(request: HttpRequest) -> HttpResponse:
    return HttpResponse("well")


def forgotten(request: HttpRequest) -> HttpResponse:
    return HttpResponse("never")


class Half(View):
    @requires("invoice:read")
    def get(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse("read")

    def post(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse("never")


class Whole(View):
    @requires("invoice:read")
    def get(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse("read")


class Ours(AuthzMiddleware):
    """A middleware line of the project's own class."""


def checked(tmp_path: Path, *patterns: Any, **overrides: Any) -> dict[str, list[CheckMessage]]:
    """The messages of our checks for a project, by their ids."""
    chosen = {"ROOT_URLCONF": urlconf(*patterns), "MIDDLEWARE": [AUTHZ], **overrides}
    if "AUTHZ" not in chosen:
        chosen["AUTHZ"] = authz_settings(tmp_path)
    found: dict[str, list[CheckMessage]] = {}
    with override_settings(**chosen):
        for message in run_checks(tags=["authz"]):
            found.setdefault(str(message.id), []).append(message)
    return found


def test_a_project_without_mistakes_has_no_messages(tmp_path: Path) -> None:
    assert checked(tmp_path, path("read/", read), path("health/", health), path("whole/", Whole.as_view())) == {}


def test_checking_leaves_no_decision_log_behind(tmp_path: Path) -> None:
    checked(tmp_path, path("read/", read))
    assert not (tmp_path / "decisions.jsonl").exists()


def test_every_problem_of_the_settings_is_one_error(tmp_path: Path) -> None:
    wrong = authz_settings(tmp_path, app={"name": "project", "colour": "red"}, decision_log={"sink": "printer"})
    errors = checked(tmp_path, AUTHZ=wrong)["authz.E001"]
    text = "\n".join(error.msg for error in errors)
    assert len(errors) == 3
    assert all(where in text for where in ("app.colour", "app.environment", "decision_log.sink"))
    assert all(error.hint for error in errors)


@pytest.mark.parametrize("missing", [None, 7, ["authz.toml"]])
def test_settings_that_are_neither_mapping_nor_path_are_an_error(tmp_path: Path, missing: Any) -> None:
    [error] = checked(tmp_path, AUTHZ=missing)["authz.E001"]
    assert "settings.AUTHZ" in error.msg


@pytest.mark.parametrize("name", ["nowhere.render", "os", "os.sep", 7])
def test_a_renderer_that_is_none_is_an_error(tmp_path: Path, name: Any) -> None:
    [error] = checked(tmp_path, AUTHZ_RENDER=name)["authz.E001"]
    assert "AUTHZ_RENDER" in error.msg


def test_every_problem_of_the_policy_is_one_error(tmp_path: Path) -> None:
    settings = authz_settings(tmp_path)
    (tmp_path / "policy.yaml").write_text(
        "policy: project\nowner: x\nrules:\n  - {rule: a}\n  - {rule: b, permit: 7}\n"
    )
    errors = checked(tmp_path, AUTHZ=settings)["authz.E002"]
    assert len(errors) > 1
    assert all("policy.yaml:" in error.msg for error in errors)


def test_a_policy_with_a_sensitive_rule_and_no_fallback_is_an_error(tmp_path: Path) -> None:
    settings = authz_settings(tmp_path)
    policy = tmp_path / "policy.yaml"
    policy.write_text(policy.read_text().replace("permit: invoice:pay", "permit: invoice:pay\n    sensitive: true"))
    found = checked(tmp_path, AUTHZ=settings)["authz.E004"]
    assert all("invoice:pay" in error.msg for error in found)


@pytest.mark.parametrize(
    "names", [[], ["django.middleware.common.CommonMiddleware"], [AUTHZ, AUTHZ], [AUTHZ, f"{__name__}.Ours"]]
)
def test_a_missing_or_doubled_middleware_line_is_an_error(tmp_path: Path, names: list[str]) -> None:
    assert [error.level for error in checked(tmp_path, MIDDLEWARE=names)["authz.E003"]] == [40]


def test_a_middleware_line_of_ones_own_class_counts(tmp_path: Path) -> None:
    assert checked(tmp_path, MIDDLEWARE=[f"{__name__}.Ours"]) == {}


def test_what_stands_before_the_middleware_and_can_answer_is_named(tmp_path: Path) -> None:
    before = [
        "django.middleware.security.SecurityMiddleware",
        "django.middleware.cache.FetchFromCacheMiddleware",
        "whitenoise.middleware.WhiteNoiseMiddleware",
    ]
    [warning] = checked(tmp_path, MIDDLEWARE=[*before, AUTHZ])["authz.W001"]
    assert "FetchFromCacheMiddleware" in warning.msg
    assert "WhiteNoiseMiddleware" in warning.msg
    assert "SecurityMiddleware" not in warning.msg


@pytest.mark.capability("C33")
@pytest.mark.parametrize(
    "patterns",
    [
        (path("deep/", include([path("sensitive/", sensitive)])),),
        (protect(path("deep/", include([path("read/", read)])), requires("ask:sensitive", sensitive=True)),),
    ],
    ids=["on the view", "on the URLconf"],
)
def test_a_sensitive_view_without_a_fallback_does_not_start(tmp_path: Path, patterns: Any) -> None:
    errors = checked(tmp_path, *patterns)["authz.E004"]
    assert ["fallback" in error.msg for error in errors] == [False, True]
    with (
        open_site(tmp_path, "sync", *patterns) as shop,
        pytest.raises(ImproperlyConfigured, match="nothing says what happens"),
    ):
        shop.ask("GET", "/")


@pytest.mark.capability("C33")
def test_a_view_that_the_settings_make_sensitive_needs_a_fallback(tmp_path: Path) -> None:
    app = {"name": "project", "environment": "production", "sensitive": ["invoice:*"]}
    errors = checked(tmp_path, path("read/", read), AUTHZ=authz_settings(tmp_path, app=app))["authz.E004"]
    assert any("invoice:read" in error.msg for error in errors)


def test_an_annotated_pattern_that_was_not_protected_does_not_start(tmp_path: Path) -> None:
    mistaken = requires("billing:use")(path("billing/", include([path("read/", read)])))
    [error] = checked(tmp_path, mistaken)["authz.E005"]
    assert "authz_django.protect" in error.msg
    with open_site(tmp_path, "sync", mistaken) as shop, pytest.raises(ImproperlyConfigured, match="billing/"):
        shop.ask("GET", "/")


def test_an_annotation_added_to_a_protected_pattern_is_found_out(tmp_path: Path) -> None:
    mistaken = requires("invoice:pay")(protect(path("billing/", read), requires("billing:use")))
    assert list(checked(tmp_path, mistaken)) == ["authz.E005"]


def test_forgotten_views_are_listed_by_name(tmp_path: Path) -> None:
    [info] = checked(
        tmp_path,
        path("read/", read),
        path("forgotten/", functools.partial(forgotten)),
        path("shop/", include(([path("half/", Half.as_view(), name="half")], "shop"))),
        protect(path("billing/", include([path("leaf/", forgotten, name="leaf")])), requires("billing:use")),
    )["authz.I001"]
    assert info.level == 20
    lines = info.msg.splitlines()[1:]
    assert [line.strip() for line in lines] == [
        f"functools.partial ({__name__}:forgotten)",
        f"shop:half ({__name__}:Half POST)",
    ]


def test_a_project_without_a_urlconf_has_nothing_to_check(tmp_path: Path) -> None:
    assert checked(tmp_path, ROOT_URLCONF=None) == {}


def test_forgotten_views_of_others_are_listed_until_the_settings_name_them(tmp_path: Path) -> None:
    patterns = [path("admin/", admin.site.urls)]
    named = authz_settings(tmp_path, handlers={"admin:*": {"action": "admin:use"}})
    assert (
        "admin:index (django.contrib.admin.sites:AdminSite.index)" in checked(tmp_path, *patterns)["authz.I001"][0].msg
    )
    assert checked(tmp_path, *patterns, AUTHZ=named) == {}


@pytest.mark.parametrize("tables", [{"app": {"name": "project"}}, {"policy": {"source": "nowhere.yaml"}}], ids=str)
def test_unusable_settings_stop_the_server(site: OpenSite, tables: dict[str, Any]) -> None:
    shop = site(path("read/", read), tables=tables)
    with pytest.raises(ImproperlyConfigured):
        shop.ask("GET", "/read/")


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    tables = {"app": {"name": "project", "colour": "red"}, "decision_log": {"sink": "printer"}}
    with open_site(tmp_path, "sync", tables=tables) as shop, pytest.raises(ImproperlyConfigured) as raised:
        shop.ask("GET", "/read/")
    assert all(where in str(raised.value) for where in ("app.colour", "app.environment", "decision_log.sink"))


TOML = """
[app]
name = "project"
environment = "production"
[[issuers]]
issuer = "https://issuer.example/"
audience = ["billing-api"]
jwks_file = "jwks.json"
algorithms = ["ES256"]
[policy]
source = "policy.yaml"
allow_unsigned = true
[decision_log]
sink = "file:decisions.jsonl"
"""


@pytest.mark.parametrize("source", ["authz.toml", Path("authz.toml")], ids=repr)
def test_settings_can_be_a_toml_file_beside_the_project(tmp_path: Path, source: Any) -> None:
    write_policy(tmp_path)
    (tmp_path / "jwks.json").write_text(json.dumps(ISSUER.jwks()))
    (tmp_path / "authz.toml").write_text(TOML)
    with open_site(tmp_path, "sync", path("read/", read), AUTHZ=source, BASE_DIR=str(tmp_path)) as shop:
        assert shop.ask("GET", "/read/", "invoice:read").status_code == 200
        assert shop.reasons == ["permitted"]


def test_relative_paths_in_a_mapping_start_from_the_base_folder(tmp_path: Path) -> None:
    values = authz_settings(tmp_path, policy={"source": "policy.yaml", "allow_unsigned": True})
    with open_site(tmp_path, "sync", path("read/", read), AUTHZ=values, BASE_DIR=tmp_path) as shop:
        assert shop.ask("GET", "/read/", "invoice:read").status_code == 200


def test_settings_that_are_read_already_are_taken_as_they_are(tmp_path: Path) -> None:
    settings = Settings.from_mapping(authz_settings(tmp_path))
    with open_site(tmp_path, "sync", path("read/", read), AUTHZ=settings) as shop:
        assert shop.ask("GET", "/read/", "invoice:read").status_code == 200


@pytest.mark.capability("C1")
def test_the_same_token_is_decided_anew_when_the_policy_changes(site: OpenSite, tmp_path: Path) -> None:
    shop = site(path("read/", read))
    headers = {"authorization": token("invoice:read")}
    assert shop.send("GET", "/read/", headers).status_code == 200
    write_policy(tmp_path, without=["invoice:read"])
    assert enforcement.current().pep.policy.reload()
    assert shop.send("GET", "/read/", headers).status_code == 403


@pytest.mark.capability("C46")
def test_overridden_settings_hold_from_the_next_request_on(tmp_path: Path) -> None:
    with open_site(tmp_path, "sync", path("forgotten/", forgotten)) as shop:
        assert shop.ask("GET", "/forgotten/").status_code == 403
        observing = {"name": "project", "environment": "production", "mode": "observe"}
        with override_settings(AUTHZ=authz_settings(tmp_path, app=observing)):
            assert shop.ask("GET", "/forgotten/").status_code == 200
        assert shop.ask("GET", "/forgotten/").status_code == 403


def test_all_handlers_of_a_process_share_one_enforcement_point(tmp_path: Path) -> None:
    with open_site(tmp_path, "sync", path("read/", read)):
        Client().get("/read/")
        point = enforcement.current().pep
        Client().get("/read/")
        assert enforcement.current().pep is point


def test_an_enforcement_point_is_closed_when_its_settings_go(tmp_path: Path) -> None:
    with open_site(tmp_path, "sync", path("read/", read)) as shop:
        shop.ask("GET", "/read/", "invoice:read")
        point = enforcement.current().pep
    assert point.recorder.submit(None, RequestFacts(method="GET", route="", endpoint=""), PUBLIC).refused
