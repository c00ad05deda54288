"""The views of the served project. Each asks for an action of its own, so that a record tells which one was decided."""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path
from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.urls import include, path, re_path
from django.views import View

from authz_django import protect
from authz_middleware import requires


def ran(request: HttpRequest, action: str) -> HttpResponse:
    """Leave a line about a handler that runs: the action that it needs, and the trace id of the request."""
    line = json.dumps({"action": action, "trace": request.headers.get("traceparent", "")[3:35]})
    with Path(os.environ["AUTHZ_TEST_RAN"]).open("a") as file:
        file.write(f"{line}\n")
    return HttpResponse(f"ran {action}")


def view(action: str, *, annotated: bool = True) -> Any:
    """A view function that needs an action of the same name."""

    def handle(request: HttpRequest, **kwargs: Any) -> HttpResponse:
        return ran(request, action)

    return requires(action)(handle) if annotated else handle


@requires("run:async")
async def asynchronous(request: HttpRequest) -> HttpResponse:
    return ran(request, "run:async")


class Invoice(View):
    @requires("run:class.get")
    def get(self, request: HttpRequest, **kwargs: Any) -> HttpResponse:
        return ran(request, "run:class.get")

    @requires("run:class.post")
    def post(self, request: HttpRequest, **kwargs: Any) -> HttpResponse:
        return ran(request, "run:class.post")

    def delete(self, request: HttpRequest, **kwargs: Any) -> HttpResponse:
        return ran(request, "run:undeclared")


urlpatterns = [
    path("plain/", view("run:plain")),
    path("secret/", view("run:secret")),
    path("closed/", view("run:undeclared", annotated=False)),
    path("async/", asynchronous),
    path("class/<invoice_id>/", Invoice.as_view()),
    path("partial/", functools.partial(view("run:partial"), extra=True)),
    re_path(r"^anchored$", view("run:anchored")),
    re_path(r"^loose/(?P<rest>.*)", view("run:loose")),
    path("any/<path:rest>", view("run:any")),
    protect(path("inner/", include([path("leaf/", view("run:leaf"))])), requires("run:inner")),
    path("admin/", admin.site.urls),
]
