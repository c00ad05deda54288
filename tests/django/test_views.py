"""Whatever kind of view Django resolves, it runs only with the permissions that were asked of it."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator
from typing import Any

import pytest
from django.contrib import admin
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.test import AsyncClient
from django.urls import include, path, re_path
from django.utils.decorators import method_decorator
from django.views import View
from rest_framework.decorators import action, api_view
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.routers import SimpleRouter
from rest_framework.views import APIView
from rest_framework.viewsets import ViewSet

from authz_django.endpoint import Endpoints
from authz_middleware import Settings, public, requires
from tests.django.conftest import OpenSite
from tests.django_project.site import authz_settings, open_site, token


@requires("invoice:read", "invoice/{invoice_id}")
def read(request: HttpRequest, invoice_id: str) -> HttpResponse:
    return HttpResponse(f"invoice {invoice_id}")


@requires("invoice:read")
async def read_async(request: HttpRequest) -> HttpResponse:
    return HttpResponse("invoice")


@requires("invoice:read")
def read_any(request: HttpRequest, size: int) -> HttpResponse:
    return HttpResponse("invoice")


@public(reason="liveness probe", owner="platform")
def health(request: HttpRequest) -> HttpResponse:
    return HttpResponse("well")


def undeclared(request: HttpRequest) -> HttpResponse:
    return HttpResponse("never")


async def undeclared_async(request: HttpRequest) -> HttpResponse:
    return HttpResponse("never")


def keeping(view: Any) -> Any:
    @functools.wraps(view)
    def wrapper(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        return view(request, *args, **kwargs)

    return wrapper


def dropping(view: Any) -> Any:
    def wrapper(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        return view(request, *args, **kwargs)

    return wrapper


@requires("invoice:read")
class Invoice(View):
    def get(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse("read")

    @requires("invoice:amend")
    def post(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse("amended")


class MethodsOnly(View):
    @requires("invoice:read")
    def get(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse("read")

    def post(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse("never")


class AsyncInvoice(View):
    @requires("invoice:read")
    async def get(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse("read")


@method_decorator(requires("invoice:amend"), name="get")
class DecoratedByName(View):
    def get(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse("read")


@requires("invoice:read")
class ReadersOnly:
    pass


@requires("billing:use")
class BillingOnly:
    pass


class TwoMixins(ReadersOnly, BillingOnly, View):
    def get(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse("both")


@requires("invoice:read")
class Callable_:  # noqa: N801 - named so as not to hide the typing name
    def __call__(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse("called")


@requires("invoice:read")
class RestInvoice(APIView):
    def get(self, request: Request) -> Response:
        return Response({"by": str(request.authz.principal.subject)})

    @requires("invoice:amend")
    def post(self, request: Request) -> Response:
        return Response("amended")


class Undeclared(APIView):
    def get(self, request: Request) -> Response:
        return Response("never")


@requires("invoice:read")
@api_view(["GET", "POST"])
def rest_above(request: Request) -> Response:
    return Response("above")


@api_view(["GET"])
@requires("invoice:read")
def rest_below(request: Request) -> Response:
    return Response("below")


@api_view(["GET"])
def rest_undeclared(request: Request) -> Response:
    return Response("never")


class Invoices(ViewSet):
    @requires("invoice:read")
    def list(self, request: Request) -> Response:
        return Response("list")

    @requires("invoice:read", "invoice/{pk}")
    def retrieve(self, request: Request, pk: str) -> Response:
        return Response(pk)

    def destroy(self, request: Request, pk: str) -> Response:
        return Response("never")

    @action(detail=True, methods=["post"])
    @requires("invoice:pay", "invoice/{pk}")
    def pay(self, request: Request, pk: str) -> Response:
        return Response("paid")

    @requires("invoice:pay", "invoice/{pk}")
    @pay.mapping.delete
    def unpay(self, request: Request, pk: str) -> Response:
        return Response("unpaid")


def rest_routes() -> Any:
    router = SimpleRouter()
    router.register("invoices", Invoices, basename="invoice")
    return path("api/", include(router.urls))


FUNCTION = (
    path("invoices/<invoice_id>/", read),
    path("async/", read_async),
    path("health/", health),
    path("partial/", functools.partial(read_any, size=9)),
    path("kept/", keeping(read_async)),
    path("instance/", Callable_()),
    path("class/", Invoice.as_view()),
    path("class-partial/", functools.partial(Invoice.as_view())),
    path("class-kept/", keeping(Invoice.as_view())),
    path("async-class/", AsyncInvoice.as_view()),
    path("methods/", MethodsOnly.as_view()),
    path("by-name/", DecoratedByName.as_view()),
    path("mixins/", TwoMixins.as_view()),
    path("rest/", RestInvoice.as_view()),
    path("rest-above/", rest_above),
    path("rest-below/", rest_below),
)


CLOSED = (
    path("function/", undeclared),
    path("async/", undeclared_async),
    path("dropped/", dropping(read)),
    path("class/", MethodsOnly.as_view()),
    path("rest/", Undeclared.as_view()),
    path("rest-function/", rest_undeclared),
    path("included/", include([path("leaf/", undeclared)])),
    rest_routes(),
)

UNDECLARED = [
    *[("GET", f"/{name}/") for name in ("function", "async", "dropped", "rest", "rest-function", "included/leaf")],
    ("POST", "/class/"),
    ("DELETE", "/class/"),
    ("BREW", "/class/"),
    ("DELETE", "/api/invoices/7/"),
    ("OPTIONS", "/api/invoices/7/"),
    ("OPTIONS", "/class/"),
    ("__INIT__", "/class/"),
    ("OPTIONS", "/function/"),
    ("HEAD", "/function/"),
]


@pytest.mark.capability("C2", "C47")
@pytest.mark.parametrize(("method", "url"), UNDECLARED)
def test_an_undeclared_view_is_closed_to_everybody(site: OpenSite, method: str, url: str) -> None:
    shop = site(*CLOSED)
    unknown = shop.ask(method, url, nobody=True)
    known = shop.ask(method, url, "invoice:read")
    assert (unknown.status_code, unknown["www-authenticate"]) == (401, "Bearer")
    assert known.status_code == 403
    assert b"never" not in unknown.content + known.content
    assert shop.reasons == ["credential.missing", "permission.missing"]


PERMITTED = [
    ("GET", "/invoices/7/", ("invoice:read",)),
    ("POST", "/invoices/7/", ("invoice:read",)),
    ("OPTIONS", "/invoices/7/", ("invoice:read",)),
    ("GET", "/async/", ("invoice:read",)),
    ("GET", "/partial/", ("invoice:read",)),
    ("GET", "/instance/", ("invoice:read",)),
    ("GET", "/class/", ("invoice:read",)),
    ("HEAD", "/class/", ("invoice:read",)),
    ("OPTIONS", "/class/", ("invoice:read",)),
    ("POST", "/class/", ("invoice:read", "invoice:amend")),
    ("POST", "/class-partial/", ("invoice:read", "invoice:amend")),
    ("POST", "/class-kept/", ("invoice:read", "invoice:amend")),
    ("GET", "/async-class/", ("invoice:read",)),
    ("GET", "/methods/", ("invoice:read",)),
    ("HEAD", "/methods/", ("invoice:read",)),
    ("GET", "/by-name/", ("invoice:amend",)),
    ("GET", "/mixins/", ("invoice:read", "billing:use")),
    ("GET", "/rest/", ("invoice:read",)),
    ("POST", "/rest/", ("invoice:read", "invoice:amend")),
    ("GET", "/rest-above/", ("invoice:read",)),
    ("GET", "/rest-below/", ("invoice:read",)),
    ("GET", "/api/invoices/", ("invoice:read",)),
    ("HEAD", "/api/invoices/", ("invoice:read",)),
    ("GET", "/api/invoices/7/", ("invoice:read",)),
    ("POST", "/api/invoices/7/pay/", ("invoice:pay",)),
]


@pytest.mark.capability("C2", "C47")
@pytest.mark.parametrize(("method", "url", "scopes"), PERMITTED)
def test_a_view_runs_with_all_of_its_permissions_and_not_with_fewer(
    site: OpenSite, method: str, url: str, scopes: tuple[str, ...]
) -> None:
    shop = site(*FUNCTION, rest_routes())
    assert shop.ask(method, url, nobody=True).status_code == 401
    for missing in scopes:
        refused = shop.ask(method, url, *(scope for scope in scopes if scope != missing))
        assert (refused.status_code, refused["content-type"]) == (403, "application/problem+json"), missing
    assert shop.ask(method, url, *scopes).status_code == 200


def test_a_method_added_to_a_view_set_action_needs_its_own_permission(site: OpenSite) -> None:
    shop = site(rest_routes())
    assert shop.ask("DELETE", "/api/invoices/7/pay/", "invoice:read").status_code == 403
    assert shop.ask("DELETE", "/api/invoices/7/pay/", "invoice:pay").status_code == 200


def test_a_public_view_is_open_to_everybody(site: OpenSite) -> None:
    shop = site(*FUNCTION)
    assert shop.ask("GET", "/health/", nobody=True).content == b"well"
    assert shop.reasons == ["public"]


def test_a_method_that_the_class_lacks_is_refused_by_the_class_with_the_permission_of_the_class(site: OpenSite) -> None:
    shop = site(*FUNCTION)
    assert shop.ask("DELETE", "/class/", "billing:use").status_code == 403
    assert shop.ask("DELETE", "/class/", "invoice:read").status_code == 405


def test_a_handler_swapped_in_later_needs_its_own_annotation(site: OpenSite, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = site(*FUNCTION)
    assert shop.ask("GET", "/methods/", "invoice:read").status_code == 200
    monkeypatch.setattr(MethodsOnly, "get", lambda self, request: HttpResponse("never"))
    assert shop.ask("GET", "/methods/", "invoice:read").status_code == 403


def test_what_is_remembered_of_views_is_bounded(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setattr("authz_django.endpoint.MAX_REMEMBERED", 3)
    endpoints = Endpoints(Settings.from_mapping(authz_settings(tmp_path)))
    for _ in range(10):

        @requires("invoice:read")
        def view(request: HttpRequest) -> HttpResponse:
            return HttpResponse("")

        assert endpoints.of(view, "GET", "view").requirement.permissions
    assert len(endpoints._known) <= 3


def test_the_resource_is_what_the_router_resolved(site: OpenSite) -> None:
    shop = site(*FUNCTION, re_path(r"^dated/(?P<invoice_id>\d+)(?:/(?P<page>\d+))?/$", keeping_id))
    assert shop.ask("GET", "/invoices/caf%C3%A9/", "invoice:read").status_code == 200
    assert shop.ask("GET", "/dated/007/", "invoice:read").status_code == 200
    asked = [record["input"]["resource"] for record in shop.records]
    assert [(resource["type"], resource["id"]) for resource in asked] == [("invoice", "café"), ("invoice", "007")]


class Either:
    """A pattern of a project's own kind: Django only asks it to resolve."""

    def __init__(self, *patterns: Any) -> None:
        self._patterns = patterns
        self.pattern = patterns[0].pattern

    def resolve(self, rest: str) -> Any:
        return next(filter(None, (pattern.resolve(rest) for pattern in self._patterns)), None)


def test_a_view_behind_a_pattern_of_another_kind_is_decided_on_like_any_other(site: OpenSite) -> None:
    shop = site(Either(path("closed/", undeclared), path("read/", read_any, {"size": 1})))
    assert shop.ask("GET", "/closed/", "invoice:read").status_code == 403
    assert shop.ask("GET", "/read/", "openid").status_code == 403
    assert shop.ask("GET", "/read/", "invoice:read").status_code == 200


@pytest.mark.capability("C44")
@pytest.mark.parametrize("spelling", ["7%0A", "7%00", "7%E2%80%8B", "%EF%BF%BD", "7%0D"])
def test_an_id_that_a_person_cannot_read_is_refused(site: OpenSite, spelling: str) -> None:
    shop = site(*FUNCTION)
    assert shop.ask("GET", f"/invoices/{spelling}/", "invoice:read").status_code == 403
    assert shop.reasons == ["resource.invalid"]


@requires("invoice:read", "invoice/{invoice_id}")
def keeping_id(request: HttpRequest, invoice_id: str, page: str | None = None) -> HttpResponse:
    return HttpResponse(invoice_id)


@requires("invoice:read", "invoice/{invoice_id}")
def unset(request: HttpRequest, **kwargs: Any) -> HttpResponse:
    return HttpResponse("never")


def test_a_path_parameter_without_a_value_names_no_resource(site: OpenSite) -> None:
    shop = site(path("unset/", unset, {"invoice_id": None}))
    assert shop.ask("GET", "/unset/", "invoice:read").status_code == 403
    assert shop.reasons == ["resource.invalid"]


@requires("invoice:read")
def stream(request: HttpRequest) -> StreamingHttpResponse:
    return StreamingHttpResponse(iter([b"one ", b"two"]))


@requires("invoice:read")
async def stream_async(request: HttpRequest) -> StreamingHttpResponse:
    async def parts() -> AsyncIterator[bytes]:
        yield b"one "
        yield b"two"

    return StreamingHttpResponse(parts())


def test_streams_leave_as_they_are(tmp_path: Any) -> None:
    with open_site(tmp_path, "sync", path("", stream)) as shop:
        assert b"".join(shop.ask("GET", "/", "invoice:read")) == b"one two"
        assert shop.ask("GET", "/", nobody=True).status_code == 401


async def test_asynchronous_streams_leave_as_they_are(tmp_path: Any) -> None:
    with open_site(tmp_path, "async", path("", stream_async)):
        reply: Any = await AsyncClient().get("/", headers={"authorization": token("invoice:read")})
        assert b"".join([part async for part in reply]) == b"one two"


ADMIN = {"admin:*": {"action": "admin:use"}}


@pytest.mark.capability("C47")
@pytest.mark.parametrize("url", ["/admin/", "/admin/login/", "/admin/auth/user/", "/admin/auth/user/7/change/"])
def test_the_admin_site_is_closed_until_the_settings_name_it(site: OpenSite, url: str) -> None:
    shop = site(path("admin/", admin.site.urls))
    assert shop.ask("GET", url, nobody=True).status_code == 401
    assert shop.ask("GET", url, "admin:use").status_code == 403
    assert shop.reasons == ["credential.missing", "permission.missing"]


SESSIONS = (
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
)


@pytest.mark.capability("C47")
@pytest.mark.parametrize("url", ["/admin/", "/admin/auth/user/", "/admin/auth/user/7/change/", "/admin/nowhere/"])
def test_the_admin_site_asks_for_what_the_settings_say_by_name(site: OpenSite, url: str) -> None:
    shop = site(path("admin/", admin.site.urls), after=SESSIONS, tables={"handlers": ADMIN})
    assert shop.ask("GET", url, "invoice:read").status_code == 403
    # With the permission the admin site runs, and sends whoever has no session to its login.
    assert shop.ask("GET", url, "admin:use")["location"].startswith("/admin/login/")
    assert shop.reasons == ["rule.none", "permitted"]


@pytest.mark.parametrize("name", [f"{__name__}:undeclared", f"{__name__}.undeclared", "shop:leaf", "shop:*"])
def test_a_view_can_be_named_by_its_function_and_by_its_name_in_the_urlconf(site: OpenSite, name: str) -> None:
    inside = include(([path("leaf/", undeclared, name="leaf")], "shop"))
    patterns = [path("named/", inside)] if name.startswith("shop") else [path("named/leaf/", undeclared)]
    shop = site(*patterns, tables={"handlers": {name: {"action": "invoice:read"}}})
    assert shop.ask("GET", "/named/leaf/", "invoice:amend").status_code == 403
    assert shop.ask("GET", "/named/leaf/", "invoice:read").status_code == 200


def test_the_settings_add_to_what_a_view_asks_for_and_do_not_open_it(site: OpenSite) -> None:
    opening = {"public": {"reason": "none", "owner": "nobody"}}
    handlers = {f"{__name__}:read": {"action": "billing:use"}, f"{__name__}:*": opening}
    shop = site(*FUNCTION, tables={"handlers": handlers})
    assert shop.ask("GET", "/invoices/7/", nobody=True).status_code == 401
    assert shop.ask("GET", "/invoices/7/", "invoice:read").status_code == 403
    assert shop.ask("GET", "/invoices/7/", "invoice:read", "billing:use").status_code == 200
