"""`protect` adds annotations to a part of the URLconf and changes nothing else about it."""

from __future__ import annotations

from typing import Any

import pytest
from asgiref.sync import iscoroutinefunction
from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.test import override_settings
from django.urls import include, path, re_path, resolve, reverse
from django.utils.functional import SimpleLazyObject
from django.views import View
from django.views.decorators.csrf import csrf_exempt
from rest_framework.response import Response
from rest_framework.routers import SimpleRouter
from rest_framework.viewsets import ViewSet

from authz_django import protect
from authz_middleware import AnnotationError, public, requires
from authz_middleware.permission import annotations_of
from tests.django.conftest import OpenSite
from tests.django_project.site import urlconf

BILLING = requires("billing:use")


@requires("invoice:read")
def read(request: HttpRequest, **kwargs: Any) -> HttpResponse:
    return HttpResponse("invoice")


@requires("invoice:read")
async def read_async(request: HttpRequest) -> HttpResponse:
    return HttpResponse("invoice")


def undeclared(request: HttpRequest) -> HttpResponse:
    return HttpResponse("plain")


@public(reason="probe", owner="platform")
def health(request: HttpRequest) -> HttpResponse:
    return HttpResponse("well")


class Invoice(View):
    @requires("invoice:read")
    def get(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse("read")


class Invoices(ViewSet):
    @requires("invoice:read")
    def list(self, request: Any) -> Response:
        return Response("list")


class Feed:
    def __call__(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse("feed")


ROUTER = SimpleRouter()
ROUTER.register("rest", Invoices, basename="rest")

VIEWS = [
    path("read/", read),
    path("read-async/", read_async),
    path("undeclared/", undeclared),
    path("health/", health),
    path("class/", Invoice.as_view()),
    path("deeper/", include([path("read/", read)])),
    *ROUTER.urls,
]


@pytest.mark.parametrize(
    ("url", "own"),
    [
        ("read/", ["invoice:read"]),
        ("read-async/", ["invoice:read"]),
        ("undeclared/", []),
        ("health/", []),
        ("class/", ["invoice:read"]),
        ("deeper/read/", ["invoice:read"]),
        ("rest/", ["invoice:read"]),
    ],
)
def test_what_is_asked_of_a_part_holds_for_each_view_in_it_beside_its_own(
    site: OpenSite, url: str, own: list[str]
) -> None:
    shop = site(protect(path("billing/", include(VIEWS)), BILLING), path("open/", include(VIEWS)))
    assert shop.ask("GET", f"/billing/{url}", nobody=True).status_code == 401
    assert shop.ask("GET", f"/billing/{url}", "openid", *own).status_code == 403
    assert shop.ask("GET", f"/billing/{url}", "billing:use", *own).status_code == 200
    if own:
        assert shop.ask("GET", f"/billing/{url}", "billing:use").status_code == 403


def test_views_outside_of_the_part_are_untouched(site: OpenSite) -> None:
    shop = site(protect(path("billing/", include(VIEWS)), BILLING), path("open/", include(VIEWS)))
    assert shop.ask("GET", "/open/read/", "invoice:read").status_code == 200
    assert shop.ask("GET", "/open/health/", nobody=True).status_code == 200


def test_a_view_added_later_is_protected_too(site: OpenSite) -> None:
    late = [path("read/", read)]
    shop = site(protect(path("billing/", include(late)), BILLING))
    assert shop.ask("GET", "/billing/read/", "invoice:read").status_code == 403
    late.append(path("late/", health))
    assert shop.ask("GET", "/billing/late/", nobody=True).status_code == 401
    assert shop.ask("GET", "/billing/late/", "billing:use").status_code == 200


def test_each_pattern_of_a_list_is_protected(site: OpenSite) -> None:
    shop = site(*protect([path("one/", health), re_path("^two/$", health)], BILLING))
    assert [shop.ask("GET", url, nobody=True).status_code for url in ("/one/", "/two/")] == [401, 401]


def test_protection_within_protection_asks_for_both(site: OpenSite) -> None:
    inner = protect(path("inner/", include([path("read/", undeclared)])), requires("invoice:read"))
    shop = site(protect(protect(path("outer/", include([inner])), BILLING), requires("invoice:pay")))
    scopes = ["invoice:read", "billing:use", "invoice:pay"]
    for missing in scopes:
        fewer = [scope for scope in scopes if scope != missing]
        assert shop.ask("GET", "/outer/inner/read/", *fewer).status_code == 403, missing
    assert shop.ask("GET", "/outer/inner/read/", *scopes).status_code == 200


def test_the_admin_site_can_be_protected(site: OpenSite) -> None:
    shop = site(
        protect(path("admin/", admin.site.urls), requires("admin:use")),
        after=[
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
            "django.contrib.messages.middleware.MessageMiddleware",
        ],
    )
    assert shop.ask("GET", "/admin/", "openid").status_code == 403
    assert shop.ask("GET", "/admin/", "admin:use")["location"] == "/admin/login/?next=/admin/"


def test_the_pattern_handed_in_is_left_as_it_is() -> None:
    pattern = path("read/", read)
    guarded = protect(pattern, BILLING)
    original, carrier = pattern.resolve("read/"), guarded.resolve("read/")
    assert original is not None
    assert carrier is not None
    assert original.func is read
    assert carrier.func is not read


def test_names_lead_where_they_did_and_resolve_to_the_same() -> None:
    inside = include(([path("read/<int:pk>/", read, name="read"), path("feed/", Feed())], "billing"))
    plain, guarded = path("b/", inside), protect(path("b/", inside), BILLING)
    found = []
    for pattern in (plain, guarded):
        with override_settings(ROOT_URLCONF=urlconf(pattern)):
            assert reverse("billing:read", kwargs={"pk": 7}) == "/b/read/7/"
            assert reverse("billing:read", args=[7]) == "/b/read/7/"
            for url in ("/b/read/7/", "/b/feed/"):
                match = resolve(url)
                found.append((match.view_name, match.route, match.kwargs, match.namespaces, match._func_path))
    assert found[:2] == found[2:]


def test_a_view_keeps_its_attributes_and_its_colour() -> None:
    exempt = csrf_exempt(read)
    views = [exempt, read_async, Invoice.as_view(), ROUTER.urls[0].callback]
    carriers = []
    for view in views:
        match = protect(path("x/", view), BILLING).resolve("x/")
        assert match is not None
        carriers.append(match.func)
    assert [iscoroutinefunction(carrier) for carrier in carriers] == [False, True, False, False]
    assert carriers[0].csrf_exempt
    assert carriers[2].view_class is Invoice
    assert (carriers[3].cls, carriers[3].actions["get"]) == (Invoices, "list")


def test_a_view_gets_the_same_carrier_every_time() -> None:
    pattern = protect(path("x/", read), BILLING)
    one, other = pattern.resolve("x/"), pattern.resolve("x/")
    assert one is not None
    assert other is not None
    assert one.func is other.func


def test_views_made_anew_for_every_request_are_protected_and_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("authz_django.urlconf.MAX_CARRIERS", 3)
    pattern = path("x/", read)
    guarded = protect(pattern, BILLING)
    for _ in range(10):
        pattern.callback = lambda request: HttpResponse("")
        match = guarded.resolve("x/")
        assert match is not None
        assert annotations_of(match.func) == annotations_of(guarded)
    assert len(guarded.__dict__["resolve"]._carriers) <= 3


def test_a_path_that_does_not_match_does_not_match() -> None:
    assert protect(path("x/", read), BILLING).resolve("y/") is None


@pytest.mark.parametrize("wrong", [read, include([]), "billing.urls", SimpleLazyObject(dict)], ids=str)
def test_only_patterns_can_be_protected(wrong: Any) -> None:
    with pytest.raises(AnnotationError, match=r"path\(\.\.\.\)"):
        protect(wrong, BILLING)


def test_protecting_with_nothing_is_a_mistake() -> None:
    with pytest.raises(AnnotationError, match="needs an annotation"):
        protect(path("x/", read))
