"""Reads an ASGI scope."""

from __future__ import annotations

from starlette.types import Scope

from authz_middleware.facts import NO_PARAMS, RequestFacts
from authz_starlette.path_values import Fields, values_of


def facts_of(
    scope: Scope, route: str, endpoint: str, traceparent: str | None = None, fields: Fields = ()
) -> RequestFacts:
    """The facts of a request whose route has been chosen. The method is upper case, as every handler reads it."""
    client = scope.get("client")
    params = scope.get("path_params")
    return RequestFacts(
        method=scope.get("method", "GET").upper(),
        route=route,
        endpoint=endpoint,
        path_params=values_of(params, fields) if params else NO_PARAMS,
        protocol=scope["type"],
        client=client[0] if client else None,
        tls=scope.get("scheme") in ("https", "wss"),
        traceparent=traceparent,
    )


def header_of(scope: Scope, wanted: bytes) -> str | None:
    """The first value of a header, by its lower-case name."""
    return next((value.decode("latin-1") for name, value in scope["headers"] if name == wanted), None)
