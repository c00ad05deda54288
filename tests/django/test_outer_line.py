"""What leaves a Django project was decided, whatever stands between its views and its outermost middleware."""

from __future__ import annotations

from typing import Any

import pytest
from django.http import FileResponse, Http404, HttpRequest, HttpResponse
from django.urls import path, register_converter
from django.urls.converters import StringConverter
from django.views import View

from authz_middleware import AccessDenied, Answer, Decision, authz, public, requires
from tests.django.conftest import OpenSite
from tests.django_project.middleware import Dual

HOSTILE = "tests.django_project.middleware."
COMMON = "django.middleware.common.CommonMiddleware"


@requires("invoice:read")
def read(request: HttpRequest) -> HttpResponse:
    return HttpResponse("invoice")


@requires("invoice:read")
def check(request: HttpRequest) -> HttpResponse:
    authz.check("invoice:amend", resource="invoice/7")
    return HttpResponse("amended")


@requires("invoice:read")
async def check_async(request: HttpRequest) -> HttpResponse:
    await authz.acheck("invoice:amend", resource="invoice/7")
    return HttpResponse("amended")


@requires("invoice:read")
def check_and_swallow(request: HttpRequest) -> HttpResponse:
    try:
        authz.check("invoice:amend")
    except AccessDenied:
        return HttpResponse("amended all the same")
    return HttpResponse("amended")


@requires("invoice:read")
def ask(request: HttpRequest) -> HttpResponse:
    return HttpResponse(f"{authz.permitted('invoice:amend')}")


@requires("invoice:read")
async def ask_async(request: HttpRequest) -> HttpResponse:
    return HttpResponse(f"{await authz.apermitted('invoice:amend')}")


def undeclared(request: HttpRequest) -> HttpResponse:
    return HttpResponse("never")


@requires("invoice:read")
def broken(request: HttpRequest) -> HttpResponse:
    raise RuntimeError("broken")


@requires("invoice:read")
def denies_itself(request: HttpRequest) -> HttpResponse:
    raise AccessDenied(authz.decision)


@requires("invoice:read")
def absent(request: HttpRequest) -> HttpResponse:
    raise Http404


PATTERNS = (
    path("read/", read),
    path("check/", check),
    path("check-async/", check_async),
    path("swallow/", check_and_swallow),
    path("ask/", ask),
    path("ask-async/", ask_async),
    path("undeclared/", undeclared),
    path("broken/", broken),
    path("absent/", absent),
    path("denies-itself/", denies_itself),
)


def welcome(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
    return HttpResponse("welcome")


WELCOMES: list[dict[str, Any]] = [
    {},
    {"after": [HOSTILE + "Welcome"]},
    {"members": {"handler403": welcome, "handler404": welcome, "handler500": welcome}},
]


@pytest.mark.capability("C47")
@pytest.mark.parametrize("options", WELCOMES, ids=["plain", "middleware", "error views"])
@pytest.mark.parametrize("url", ["/undeclared/", "/check/", "/check-async/", "/swallow/"])
def test_a_refusal_stays_a_refusal(site: OpenSite, url: str, options: dict[str, Any]) -> None:
    shop = site(*PATTERNS, **options)
    refused = shop.ask("GET", url, "invoice:read")
    assert (refused.status_code, refused["content-type"]) == (403, "application/problem+json")
    assert b"amended" not in refused.content


@pytest.mark.parametrize("url", ["/check/", "/check-async/"])
def test_a_check_in_a_view_is_decided_and_recorded_like_any_other(site: OpenSite, url: str) -> None:
    shop = site(*PATTERNS)
    assert shop.ask("GET", url, "invoice:read").status_code == 403
    assert shop.ask("GET", url, "invoice:read", "invoice:amend").content == b"amended"
    assert shop.reasons == ["permitted", "rule.none", "permitted", "permitted"]
    assert shop.records[1]["input"]["resource"] == {"type": "invoice", "id": "7"}


@pytest.mark.parametrize("url", ["/check/", "/check-async/"])
def test_a_refused_check_is_no_server_error(site: OpenSite, url: str, caplog: pytest.LogCaptureFixture) -> None:
    shop = site(*PATTERNS)
    shop.ask("GET", url, "invoice:read")
    assert [record.levelname for record in caplog.records] == ["WARNING"]


@pytest.mark.parametrize("url", ["/ask/", "/ask-async/"])
def test_asking_has_no_consequence(site: OpenSite, url: str) -> None:
    shop = site(*PATTERNS)
    assert shop.ask("GET", url, "invoice:read").content == b"False"
    assert shop.ask("GET", url, "invoice:read", "invoice:amend").content == b"True"


def test_a_refusal_that_nobody_catches_is_answered_as_one(site: OpenSite) -> None:
    shop = site(*PATTERNS, after=[HOSTILE + "ChecksLate"])
    assert shop.ask("GET", "/read/", "invoice:read").status_code == 403
    assert shop.ask("GET", "/read/", "invoice:read", "invoice:amend").content == b"invoice"


@pytest.mark.capability("C47", "C49")
@pytest.mark.parametrize("nobody", [True, False])
def test_content_that_a_middleware_serves_is_replaced(
    site: OpenSite, caplog: pytest.LogCaptureFixture, nobody: bool
) -> None:
    shop = site(*PATTERNS, after=[HOSTILE + "Kiosk"])
    replaced = shop.ask("GET", "/kiosk/", "invoice:read", nobody=nobody)
    assert (replaced.status_code, replaced["content-type"]) == (403, "application/problem+json")
    assert shop.reasons == ["guard.undecided"]
    assert "without a decision" in caplog.text


@pytest.mark.capability("C49")
def test_a_page_instead_of_404_is_replaced(site: OpenSite) -> None:
    shop = site(*PATTERNS, after=[HOSTILE + "FallbackPage"])
    assert shop.ask("GET", "/nowhere/").status_code == 403
    assert shop.reasons == ["guard.undecided"]


@pytest.mark.capability("C49")
def test_an_error_page_that_claims_success_is_replaced(site: OpenSite) -> None:
    shop = site(*PATTERNS, members={"handler404": welcome})
    assert shop.ask("GET", "/nowhere/").status_code == 403
    assert shop.reasons == ["guard.undecided"]


@pytest.mark.capability("C49")
def test_every_response_but_the_routers_own_has_a_record(site: OpenSite) -> None:
    shop = site(*PATTERNS, after=[HOSTILE + "Kiosk"])
    urls = ["/read/", "/undeclared/", "/kiosk/", "/broken/", "/nowhere/"]
    statuses = [shop.ask("GET", url, "invoice:read").status_code for url in urls]
    assert statuses == [200, 403, 403, 500, 404]
    assert shop.reasons == ["permitted", "permission.missing", "guard.undecided", "permitted"]


def test_what_is_replaced_is_closed_with_its_replacement(site: OpenSite, tmp_path: Any) -> None:
    (tmp_path / "secret").write_text("secret")
    served: list[Any] = []

    class Files(Dual):
        def before(self, request: HttpRequest) -> Any:
            served.append((tmp_path / "secret").open("rb"))
            return FileResponse(served[0])

    globals()["Files"] = Files
    shop = site(*PATTERNS, after=[f"{__name__}.Files"])
    assert b"secret" not in shop.ask("GET", "/files/").content
    assert served[0].closed


def test_a_path_without_a_view_is_djangos_404_and_no_decision(site: OpenSite) -> None:
    shop = site(*PATTERNS)
    assert shop.ask("GET", "/nowhere/", nobody=True).status_code == 404
    assert shop.reasons == []


def test_a_views_own_404_passes_with_its_permit(site: OpenSite) -> None:
    shop = site(*PATTERNS)
    assert shop.ask("GET", "/absent/", nobody=True).status_code == 401
    assert shop.ask("GET", "/absent/", "invoice:read").status_code == 404


@pytest.mark.parametrize("where", ["before", "after"])
def test_the_redirect_to_the_path_with_a_slash_passes(site: OpenSite, where: str) -> None:
    shop = site(*PATTERNS, **{where: [COMMON]})
    redirect = shop.ask("GET", "/undeclared?page=2", nobody=True)
    assert (redirect.status_code, redirect["location"]) == (301, "/undeclared/?page=2")


def test_a_redirect_to_another_path_does_not_pass(site: OpenSite) -> None:
    class Elsewhere(Dual):
        def before(self, request: HttpRequest) -> Any:
            return HttpResponse(status=302, headers={"Location": "/elsewhere/"})

    globals()["Elsewhere"] = Elsewhere
    shop = site(*PATTERNS, after=[f"{__name__}.Elsewhere"])
    assert shop.ask("GET", "/read/").status_code == 403


def test_a_preflight_passes_with_its_headers_alone(site: OpenSite) -> None:
    shop = site(*PATTERNS, after=[HOSTILE + "Preflight"])
    asked = {"origin": "https://shop.example", "access_control_request_method": "GET"}
    reply = shop.ask("OPTIONS", "/read/", nobody=True, **asked)
    assert (reply.status_code, reply.content) == (200, b"")
    assert reply["access-control-allow-origin"] == "https://shop.example"
    assert "x-secret" not in reply


@pytest.mark.capability("C47")
def test_a_preflight_that_reaches_a_view_needs_the_views_permission(site: OpenSite) -> None:
    shop = site(*PATTERNS)
    asked = {"origin": "https://shop.example", "access_control_request_method": "GET"}
    assert shop.ask("OPTIONS", "/read/", nobody=True, **asked).status_code == 401


def test_an_exception_of_ours_that_no_decision_stands_behind_is_an_error(site: OpenSite) -> None:
    shop = site(*PATTERNS)
    assert shop.ask("GET", "/denies-itself/", "invoice:read").status_code == 500


def test_an_error_of_a_permitted_view_is_djangos_own(site: OpenSite) -> None:
    shop = site(*PATTERNS)
    assert shop.ask("GET", "/broken/", "invoice:read").status_code == 500
    assert shop.ask("GET", "/broken/").status_code == 403


class Shy:
    def __str__(self) -> str:
        raise RuntimeError("not telling")


class ShyConverter(StringConverter):
    def to_python(self, value: str) -> Any:
        return Shy()


register_converter(ShyConverter, "shy")


@requires("invoice:read")
def shy(request: HttpRequest, name: Any) -> HttpResponse:
    return HttpResponse("never")


@pytest.mark.parametrize("options", WELCOMES, ids=["plain", "middleware", "error views"])
def test_an_error_while_deciding_is_a_refusal(site: OpenSite, options: dict[str, Any]) -> None:
    shop = site(path("shy/<shy:name>/", shy), **options)
    assert shop.ask("GET", "/shy/x/", "invoice:read").status_code == 503


def test_another_request_object_lets_nothing_leave(site: OpenSite) -> None:
    shop = site(*PATTERNS, after=[HOSTILE + "Exchange"])
    assert shop.ask("GET", "/read/", "invoice:read").status_code == 403


@pytest.mark.parametrize(
    ("first", "second", "status", "reasons"),
    [
        ("/read/", "/read/", 200, ["permitted", "permitted"]),
        ("/read/", "/undeclared/", 403, ["permitted", "permission.missing"]),
        ("/undeclared/", "/read/", 403, ["permission.missing", "permitted"]),  # a refusal is final for the request
        ("/undeclared/", "/nowhere/", 403, ["permission.missing"]),
    ],
)
def test_each_passage_of_a_request_is_decided_on_its_own(
    site: OpenSite, first: str, second: str, status: int, reasons: list[str]
) -> None:
    shop = site(*PATTERNS, after=[HOSTILE + "Again"])
    assert shop.ask("GET", first, "invoice:read", x_again=second).status_code == status
    assert shop.reasons == reasons


class Verbs(View):
    @requires("invoice:read")
    def get(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse("read")

    @requires("invoice:amend")
    def post(self, request: HttpRequest) -> HttpResponse:
        ran.append("post")
        return HttpResponse("amended")


ran: list[str] = []


@pytest.mark.capability("C44")
def test_a_method_changed_after_the_decision_does_not_run(site: OpenSite) -> None:
    ran.clear()
    shop = site(path("verbs/", Verbs.as_view()), after=[HOSTILE + "MethodOverride"])
    assert shop.ask("GET", "/verbs/", "invoice:read", x_http_method_override="POST").status_code == 500
    assert ran == []
    assert shop.ask("GET", "/verbs/", "invoice:read").content == b"read"


@pytest.mark.capability("C46")
def test_observing_lets_the_method_be_changed(site: OpenSite) -> None:
    ran.clear()
    app = {"name": "project", "environment": "production", "mode": "observe"}
    shop = site(path("verbs/", Verbs.as_view()), after=[HOSTILE + "MethodOverride"], tables={"app": app})
    assert shop.ask("GET", "/verbs/", "invoice:read", x_http_method_override="POST").content == b"amended"


def test_a_method_changed_before_the_decision_is_the_one_decided_on(site: OpenSite) -> None:
    shop = site(path("verbs/", Verbs.as_view()), after=[HOSTILE + "EarlyMethodOverride"])
    override: dict[str, Any] = {"x_http_method_override": "POST"}
    assert shop.ask("GET", "/verbs/", "invoice:read", **override).status_code == 403
    assert shop.ask("GET", "/verbs/", "invoice:amend", **override).content == b"amended"


@public(reason="probe", owner="platform")
def open_to_all(request: HttpRequest) -> HttpResponse:
    return HttpResponse("well")


@pytest.mark.capability("C44")
def test_headers_say_nothing_about_who_calls_and_from_where(site: OpenSite) -> None:
    shop = site(*PATTERNS, path("open/", open_to_all), SECURE_PROXY_SSL_HEADER=("HTTP_X_FORWARDED_PROTO", "https"))
    spoofed = {
        "x_forwarded_for": "10.0.0.1",
        "x_forwarded_proto": "https",
        "x_user": "admin",
        "remote_user": "admin",
        "x_original_url": "/open/",
        "x_rewrite_url": "/open/",
    }
    assert shop.ask("GET", "/read/", nobody=True, **spoofed).status_code == 401
    [record] = shop.records
    assert record["requested_by"] == "127.0.0.1"
    assert record["input"]["context"]["tls"] is False


@pytest.mark.capability("C46")
def test_observing_refuses_nothing_and_records_what_would_have_been(site: OpenSite) -> None:
    app = {"name": "project", "environment": "production", "mode": "observe"}
    shop = site(*PATTERNS, tables={"app": app})
    assert shop.ask("GET", "/undeclared/", nobody=True).content == b"never"
    assert shop.ask("GET", "/check/", "openid").content == b"amended"
    assert shop.reasons == ["credential.missing", "rule.none", "rule.none"]
    assert all(record["authz"]["shadow"] for record in shop.records)


@requires("ask:sensitive", sensitive=True)
def sensitive(request: HttpRequest) -> HttpResponse:
    return HttpResponse("sensitive")


@requires("ask:degraded", sensitive=True)
def degraded(request: HttpRequest) -> HttpResponse:
    return HttpResponse(f"degraded {authz.degraded} {request.authz.degraded}")  # type: ignore[attr-defined]


OUTAGE = {
    "remote": {"url": "http://127.0.0.1:9", "deadline": "500ms"},
    "fallback": {"default": "deny", "actions": {"ask:degraded": {"mode": "degrade", "rules": "narrow"}}},
}


@pytest.mark.capability("C30", "C31")
def test_a_degraded_permit_says_so_to_the_view_and_to_the_client(site: OpenSite) -> None:
    shop = site(path("sensitive/", sensitive), path("degraded/", degraded), path("read/", read), tables=OUTAGE)
    refused = shop.ask("GET", "/sensitive/", "ask:sensitive")
    assert (refused.status_code, "retry-after" in refused) == (503, True)
    reply = shop.ask("GET", "/degraded/", "ask:degraded")
    assert (reply.content, reply["authz-degraded"]) == (b"degraded True True", "true")
    assert "authz-degraded" not in shop.ask("GET", "/read/", "invoice:read")


def render(decision: Decision, answer: Answer) -> Answer:
    return Answer(200 if decision.reason.value == "rule.none" else answer.status, (("x-own", "1"),), b"our own words")


def test_a_refusal_can_be_worded_by_the_project_but_not_made_a_success(site: OpenSite) -> None:
    shop = site(*PATTERNS, AUTHZ_RENDER=f"{__name__}.render")
    reply = shop.ask("GET", "/read/", nobody=True)
    assert (reply.status_code, reply["x-own"], reply.content) == (401, "1", b"our own words")
    assert shop.ask("GET", "/read/", "billing:use").status_code == 403
