"""Django for the benchmark: two views, no database, no middleware but the one that is measured."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from asgiref.sync import markcoroutinefunction
from django.http import HttpRequest, HttpResponse
from django.urls import path

from authz_middleware import requires

SECRET_KEY = "a throw-away key"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "benchmarks.django_settings"
MIDDLEWARE: list[str] = []
LOGGING_CONFIG = None


@requires("invoice:read", resource="invoice/{invoice_id}")
def view(request: HttpRequest, invoice_id: str) -> HttpResponse:
    return HttpResponse("ok")


@requires("invoice:read", resource="invoice/{invoice_id}")
async def async_view(request: HttpRequest, invoice_id: str) -> HttpResponse:
    return HttpResponse("ok")


def without_authz(get_response: Callable[..., Any]) -> Callable[..., Any]:
    """The cheapest middleware there is: what the authorization line is compared with."""
    if inspect.iscoroutinefunction(get_response):

        async def pass_on(request: HttpRequest) -> Any:
            return await get_response(request)

        return markcoroutinefunction(pass_on)

    def pass_on_sync(request: HttpRequest) -> Any:
        return get_response(request)

    return pass_on_sync


without_authz.sync_capable = without_authz.async_capable = True  # type: ignore[attr-defined]
urlpatterns = [path("invoices/<invoice_id>", view), path("async/invoices/<invoice_id>", async_view)]
