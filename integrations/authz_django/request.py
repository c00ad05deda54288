"""A Django request in the words of the core, and an `Answer` as a Django response."""

from __future__ import annotations

import functools
from collections.abc import Mapping, MutableMapping
from typing import Any

from django.http import HttpRequest, HttpResponse

from authz_middleware.answer import Answer
from authz_middleware.errors import AuthzError
from authz_middleware.facts import NO_PARAMS, RequestFacts
from authz_middleware.identity.connection.asgi import ASGICredentials
from authz_middleware.identity.connection.credentials import Credentials
from authz_middleware.identity.connection.wsgi import WSGICredentials


class MethodChangedError(AuthzError):
    """Something changed `request.method` after it was decided whether this method of the view may run."""


def facts_of(
    request: HttpRequest, route: str, endpoint: str, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] = NO_PARAMS
) -> RequestFacts:
    """The facts of a request. Path parameters are what the view is called with; positional ones are named by number."""
    meta = request.META
    scope: Mapping[str, Any] | None = getattr(request, "scope", None)
    return RequestFacts(
        method=request.method or "",
        route=route,
        endpoint=endpoint,
        path_params=_params(args, kwargs) if args or kwargs else NO_PARAMS,
        client=meta.get("REMOTE_ADDR") or None,
        # What the server says, not `request.is_secure()`, which may ask a header.
        tls=(meta.get("wsgi.url_scheme") if scope is None else scope.get("scheme")) == "https",
        traceparent=meta.get("HTTP_TRACEPARENT"),
    )


def credentials_of(request: HttpRequest) -> Credentials:
    """The credentials as the server handed them over."""
    scope: MutableMapping[str, Any] | None = getattr(request, "scope", None)
    return WSGICredentials(request.META) if scope is None else ASGICredentials(scope)


def response_of(answer: Answer) -> HttpResponse:
    """The response that says what the answer says."""
    response = HttpResponse(answer.body, status=answer.status)
    del response.headers["Content-Type"]
    for name, value in answer.headers:
        earlier = response.headers.get(name)
        response.headers[name] = value if earlier is None else f"{earlier}, {value}"
    return response


def seal_method(request: HttpRequest) -> None:
    """Let nobody change the method from here on: class-based views look at it again to choose what they run, and a
    middleware may take it from a header or a form field."""
    cls = type(request)
    if not issubclass(cls, _Sealed):
        request.__class__ = _sealed(cls)  # type: ignore[arg-type]  # a class is hashable, whatever its stubs say


class _Sealed:
    @property
    def method(self) -> str | None:
        return self.__dict__.get("method")

    @method.setter
    def method(self, method: str | None) -> None:
        if method != self.method:
            raise MethodChangedError(
                "request.method was changed after it was decided whether the request may run; "
                "change it in the middleware's __call__, before the view is resolved, not in process_view or later"
            )


@functools.cache
def _sealed(cls: type[HttpRequest]) -> type[HttpRequest]:
    return type(cls.__name__, (_Sealed, cls), {"__module__": cls.__module__, "__qualname__": cls.__qualname__})


def _params(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, str]:
    named = [*((str(position), value) for position, value in enumerate(args)), *kwargs.items()]
    return {name: str(value) for name, value in named if value is not None}
