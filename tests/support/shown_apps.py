"""Applications that real servers serve in tests: they answer with what a request shows, and with what the proxies of
AUTHZ_TEST_PROXIES (a JSON table) make of it."""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any, Final

from authz_middleware.facts import RequestFacts
from authz_middleware.identity.connection.asgi import ASGICredentials
from authz_middleware.identity.connection.certificate import thumbprint_of
from authz_middleware.identity.connection.credentials import Credentials
from authz_middleware.identity.connection.proxies import Proxies
from authz_middleware.identity.connection.wsgi import WSGICredentials
from authz_middleware.settings.proxies import read_proxies
from authz_middleware.settings.section import Section

NAMES: Final = ("client-cert", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded")


def _proxies() -> Proxies:
    problems: list[Any] = []
    table = json.loads(os.environ.get("AUTHZ_TEST_PROXIES", "null"))
    read = read_proxies(Section({"proxies": table} if table else {}, "", problems, Path.cwd()))
    assert not problems, problems
    return Proxies(read)


PROXIES: Final = _proxies()


def show(credentials: Credentials) -> bytes:
    """Everything there is to see, as JSON."""
    facts = PROXIES.facts(RequestFacts(method="GET", route="/", endpoint="app", client="server"), credentials)
    try:
        target: Any = list(_parts(PROXIES.target_of(credentials)))
    except ValueError as error:
        target = str(error)
    seen = {
        "peer": credentials.peer,
        "client": PROXIES.client_of(credentials),
        "facts": [facts.client, facts.tls],
        "target": target,
        "certificate": _print(PROXIES.certificate_of(credentials)),
        "of_connection": _print(credentials.certificate()),
        "headers": {name: list(credentials.values(name)) for name in NAMES if credentials.values(name)},
    }
    log = os.environ.get("AUTHZ_TEST_LOG")
    if log:  # for requests whose sender does not stay to read the answer
        descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, f"{json.dumps(seen)}\n".encode())
        os.close(descriptor)
    return json.dumps(seen).encode()


def wsgi(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """The WSGI application."""
    body = show(WSGICredentials(environ))
    start_response("200 OK", [("Content-Length", str(len(body))), ("Content-Type", "application/json")])
    return [body]


async def asgi(scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]) -> None:
    """The ASGI application."""
    body = show(ASGICredentials(scope))
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def django_asgi() -> Any:
    """Django's ASGI handler with one view, which sees the request as the adapter for Django does."""
    import django
    from django.conf import settings
    from django.core.handlers.asgi import ASGIHandler
    from django.http import HttpRequest, HttpResponse
    from django.urls import path

    def view(request: HttpRequest) -> HttpResponse:
        meta = sorted(key for key in request.META if key.startswith("HTTP_"))
        return HttpResponse(show(ASGICredentials(request.scope)), headers={"Seen-In-Meta": ",".join(meta)})  # type: ignore[attr-defined]  # ASGIRequest

    urls = type("Urls", (), {"urlpatterns": [path("", view)]})
    settings.configure(ROOT_URLCONF=urls, ALLOWED_HOSTS=["*"], MIDDLEWARE=[], SECRET_KEY="throw-away")
    django.setup()
    return ASGIHandler()


def _parts(target: Any) -> tuple[str, str, str]:
    return target.scheme, target.authority, target.path


def _print(der: bytes | None) -> str | None:
    return None if der is None else thumbprint_of(der)
