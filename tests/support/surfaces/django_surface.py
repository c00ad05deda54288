"""The treasury in Django, in both colours: sync views behind WSGI's handler, async views behind ASGI's."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import django
from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.test import AsyncClient, Client
from django.test.utils import override_settings
from django.urls import path
from django.views import View

from authz_django import enforcement
from authz_middleware import authz
from tests.support.surfaces.surface import Reply
from tests.support.treasury import ENDPOINTS, INVOICES, Endpoint, Handlers

URLCONF = "tests.support.surfaces.django_treasury_urls"


def build(settings: dict[str, Any], colour: str) -> DjangoSurface:
    """The treasury behind the middleware, with an exception middleware that answers everything with 200."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.django_project.settings")
    django.setup()
    return DjangoSurface(settings, is_async=colour == "async")


class DjangoSurface:
    """A Django project called without a socket."""

    def __init__(self, settings: dict[str, Any], *, is_async: bool) -> None:
        handlers = Handlers()
        self.ran = handlers.ran
        self._is_async = is_async
        module = ModuleType(URLCONF)
        module.urlpatterns = _patterns(handlers, is_async=is_async)  # type: ignore[attr-defined]
        sys.modules[URLCONF] = module
        authz.loaders.register("invoice")(INVOICES.get)
        self._override = override_settings(
            ROOT_URLCONF=URLCONF,
            AUTHZ=settings,
            MIDDLEWARE=["authz_django.AuthzMiddleware", "tests.support.surfaces.django_surface.welcome"],
        )
        self._override.enable()
        self._loop = asyncio.new_event_loop()
        client: Any = AsyncClient if is_async else Client
        self._client = client(raise_request_exception=False)

    def request(self, method: str, path: str, headers: Mapping[str, str]) -> Reply:
        """Send one request."""
        reply: Any = self._client.generic(method, path, headers=dict(headers))
        if self._is_async:
            reply = self._loop.run_until_complete(reply)
        return Reply(reply.status_code, {k.lower(): v for k, v in reply.headers.items()}, reply.content)

    def close(self) -> None:
        """Take the project down."""
        self._loop.run_until_complete(enforcement.current().pep.aclose())
        self._override.disable()
        self._loop.close()
        authz.loaders._loaders.pop("invoice")
        del sys.modules[URLCONF]


def welcome(get_response: Callable[[HttpRequest], Any]) -> Any:
    """A middleware that makes every exception look fine."""
    return _Welcome(get_response)


class _Welcome:
    sync_capable = async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self._get_response = get_response
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Any:
        return self._get_response(request)

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse:
        return JsonResponse({"ran": "error handler"})


welcome.sync_capable = welcome.async_capable = True  # type: ignore[attr-defined]


def _patterns(handlers: Handlers, *, is_async: bool) -> list[Any]:
    """One pattern a path; a path with one method is a class-based view, so that others answer 405."""
    return [
        path(
            endpoint.path.lstrip("/").replace("{", "<").replace("}", ">"),
            _view(handlers, endpoint, is_async=is_async),
            name=endpoint.name,
        )
        for endpoint in ENDPOINTS
    ]


def _view(handlers: Handlers, endpoint: Endpoint, *, is_async: bool) -> Any:
    def handle(self: View, request: HttpRequest, invoice_id: str = "", user: str = "") -> HttpResponse:
        return JsonResponse(handlers.handle(endpoint, invoice_id))

    async def ahandle(self: View, request: HttpRequest, invoice_id: str = "", user: str = "") -> HttpResponse:
        return JsonResponse(await handlers.ahandle(endpoint, invoice_id))

    methods = {endpoint.method.lower(): ahandle if is_async else handle}
    view = type(endpoint.name, (View,), {**methods, "__module__": __name__})
    return endpoint.annotate(view).as_view()
