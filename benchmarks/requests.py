"""A whole request in process, bare and with authorization: cached token, one local rule, one record.

Every variant serves the same handler; the rounds of the variants are interleaved, and the best round counts, so
that a noisy neighbour hits all of them alike. A round is short and followed by a pause: what is measured is what a
request waits for. What its record costs afterwards, in the recorder's own thread, is `record_written_us`; a server
that is never idle pays both.
"""

from __future__ import annotations

import asyncio
import gc
import io
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, AuthenticationBackend, SimpleUser
from starlette.authentication import requires as starlette_requires
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from authz_middleware import Settings, requires
from authz_middleware.facts import RequestFacts
from authz_middleware.pep import EnforcementPoint
from authz_middleware.permission import Requirement, annotations_of
from tests.support.tokens import Issuer, bearer

ROUNDS, REQUESTS, PAUSE_S = 200, 20, 0.004
ISSUER = Issuer()
TOKEN = ISSUER.mint(env="production", kind="human")

Round = Callable[[], float]


def settings(folder: Path) -> dict[str, Any]:
    policy = folder / "bench.yaml"
    policy.write_text(
        "policy: bench\nowner: bench@example.com\nrules:\n"
        "  - {rule: read, permit: 'invoice:read', when: {subject.scopes: {has: invoices.read}}}\n"
    )
    return {
        "app": {"name": "bench", "environment": "production"},
        "issuers": [
            {"issuer": ISSUER.url, "audience": [ISSUER.audience], "jwks": ISSUER.jwks(), "algorithms": ["ES256"]}
        ],
        "policy": {"source": str(policy), "allow_unsigned": True},
        "decision_log": {"sink": f"file:{folder / 'decisions.jsonl'}", "queue": 1_000_000},
    }


@requires("invoice:read", resource="invoice/{invoice_id}")
async def guarded(request: Request) -> Response:
    return PlainTextResponse("ok")


async def bare(request: Request) -> Response:
    return PlainTextResponse("ok")


@starlette_requires("invoices.read")
async def starlette_guarded(request: Request) -> Response:
    return PlainTextResponse("ok")


class PyJWTBackend(AuthenticationBackend):
    """What Starlette's documentation suggests, with PyJWT."""

    def __init__(self) -> None:
        self._key = jwt.PyJWK(ISSUER.jwk()).key

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, SimpleUser]:
        token = conn.headers["authorization"].removeprefix("Bearer ")
        claims = jwt.decode(token, self._key, ["ES256"], audience=ISSUER.audience, issuer=ISSUER.url)
        return AuthCredentials(claims["scope"].split()), SimpleUser(claims["sub"])


def measure() -> dict[str, float]:
    """Microseconds a request, by the keys of `latest.json`."""
    with tempfile.TemporaryDirectory() as name:
        chosen = settings(Path(name))
        loop = asyncio.new_event_loop()
        rounds = {
            **_starlette(chosen, loop),
            **_fastapi(chosen, loop),
            **_flask(chosen),
            **_django(chosen, loop),
        }
        best = _best(rounds)
        loop.close()
    figures: dict[str, float] = {}
    for framework in ("starlette", "fastapi", "flask", "django_sync", "django_async"):
        figures[f"{framework}_bare_us"] = best[f"{framework}_bare"]
        figures[f"{framework}_authz_added_us"] = best[f"{framework}_authz"] - best[f"{framework}_bare"]
    figures["starlette_authn_requires_added_us"] = best["starlette_authn"] - best["starlette_bare"]
    figures["record_written_us"] = _record_us()
    return figures


def _record_us() -> float:
    """The processor time of the recorder's thread for one record, its write included."""
    records = 5_000
    with tempfile.TemporaryDirectory() as name:
        point = EnforcementPoint(Settings.from_mapping(settings(Path(name))))
        point.start()
        facts = RequestFacts(method="GET", route="/invoices/{invoice_id}", endpoint="bench:read")
        request = point.enforce(facts, bearer(TOKEN), Requirement.of(annotations_of(guarded)))
        question = request.question("invoice:read", "invoice/7")
        both, ours = time.process_time(), time.thread_time()
        for _ in range(records):
            point.recorder.submit(question, facts, request.decision)
        point.recorder.flush()
        both, ours = time.process_time() - both, time.thread_time() - ours
        point.close()
    return (both - ours) * 1e6 / records


def _best(rounds: dict[str, Round]) -> dict[str, float]:
    for run in rounds.values():
        run()
    best = dict.fromkeys(rounds, float("inf"))
    gc.collect()
    gc.disable()
    try:
        for _ in range(ROUNDS):
            for name, run in rounds.items():
                best[name] = min(best[name], run())
                time.sleep(PAUSE_S)
    finally:
        gc.enable()
    return {name: seconds * 1e6 / REQUESTS for name, seconds in best.items()}


def _asgi_round(app: Any, loop: asyncio.AbstractEventLoop, path: str = "/invoices/7") -> Round:
    def receiver() -> Callable[[], Any]:
        messages = [{"type": "http.request", "body": b"", "more_body": False}]

        async def receive() -> dict[str, Any]:
            if messages:
                return messages.pop()
            await asyncio.sleep(60)  # the client stays; Django listens for it to go, and stops listening
            raise AssertionError

        return receive

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start" and message["status"] != 200:
            raise RuntimeError(f"answered {message['status']}")

    async def serve() -> float:
        begin = time.perf_counter()
        for _ in range(REQUESTS):
            scope = {
                "type": "http",
                "asgi": {"version": "3.0"},
                "http_version": "1.1",
                "method": "GET",
                "scheme": "http",
                "path": path,
                "raw_path": path.encode(),
                "query_string": b"",
                "root_path": "",
                "headers": [(b"host", b"localhost"), (b"authorization", b"Bearer " + TOKEN.encode())],
                "client": ("127.0.0.1", 5000),
                "server": ("127.0.0.1", 8000),
            }
            await app(scope, receiver(), send)
        return time.perf_counter() - begin

    return lambda: loop.run_until_complete(serve())


def _wsgi_round(app: Any) -> Round:
    def start_response(status: str, headers: Any, exc_info: Any = None) -> Any:
        if not status.startswith("200"):
            raise RuntimeError(f"answered {status}")

    def serve() -> float:
        begin = time.perf_counter()
        for _ in range(REQUESTS):
            environ = {
                "REQUEST_METHOD": "GET",
                "SCRIPT_NAME": "",
                "PATH_INFO": "/invoices/7",
                "QUERY_STRING": "",
                "SERVER_NAME": "localhost",
                "SERVER_PORT": "8000",
                "SERVER_PROTOCOL": "HTTP/1.1",
                "REMOTE_ADDR": "127.0.0.1",
                "HTTP_AUTHORIZATION": f"Bearer {TOKEN}",
                "wsgi.version": (1, 0),
                "wsgi.url_scheme": "http",
                "wsgi.input": io.BytesIO(),
                "wsgi.errors": io.StringIO(),
                "wsgi.multithread": True,
                "wsgi.multiprocess": False,
                "wsgi.run_once": False,
            }
            answer = app(environ, start_response)
            b"".join(answer)
            getattr(answer, "close", lambda: None)()
        return time.perf_counter() - begin

    return serve


def _starlette(chosen: dict[str, Any], loop: asyncio.AbstractEventLoop) -> dict[str, Round]:
    from authz_starlette import AuthzMiddleware

    def app(handler: Any, *middleware: Middleware) -> Any:
        return Starlette(routes=[Route("/invoices/{invoice_id}", handler)], middleware=middleware)

    authn = Middleware(AuthenticationMiddleware, backend=PyJWTBackend())
    return {
        "starlette_bare": _asgi_round(app(bare), loop),
        "starlette_authz": _asgi_round(app(guarded, Middleware(AuthzMiddleware, settings=chosen)), loop),
        "starlette_authn": _asgi_round(app(starlette_guarded, authn), loop),
    }


def _fastapi(chosen: dict[str, Any], loop: asyncio.AbstractEventLoop) -> dict[str, Round]:
    from fastapi import FastAPI

    from authz_starlette import AuthzMiddleware

    async def handle(invoice_id: str) -> Response:
        return PlainTextResponse("ok")

    async def handle_guarded(invoice_id: str) -> Response:
        return PlainTextResponse("ok")

    plain, protected = FastAPI(), FastAPI()
    plain.get("/invoices/{invoice_id}")(handle)
    protected.get("/invoices/{invoice_id}")(requires("invoice:read", "invoice/{invoice_id}")(handle_guarded))
    protected.add_middleware(AuthzMiddleware, settings=chosen)
    return {"fastapi_bare": _asgi_round(plain, loop), "fastapi_authz": _asgi_round(protected, loop)}


def _flask(chosen: dict[str, Any]) -> dict[str, Round]:
    from flask import Flask

    from authz_flask import Authz

    def handle(invoice_id: str) -> str:
        return "ok"

    def handle_guarded(invoice_id: str) -> str:
        return "ok"

    plain, protected = Flask("plain"), Flask("protected")
    plain.add_url_rule("/invoices/<invoice_id>", view_func=handle)
    annotated = requires("invoice:read", "invoice/{invoice_id}")(handle_guarded)
    protected.add_url_rule("/invoices/<invoice_id>", view_func=annotated)
    Authz(protected, settings=chosen)
    return {"flask_bare": _wsgi_round(plain), "flask_authz": _wsgi_round(protected)}


def _django(chosen: dict[str, Any], loop: asyncio.AbstractEventLoop) -> dict[str, Round]:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "benchmarks.django_settings")
    import django
    from django.conf import settings as django_settings
    from django.core.handlers.asgi import ASGIHandler
    from django.core.handlers.wsgi import WSGIHandler

    django.setup()
    django_settings.AUTHZ = chosen

    def handlers(middleware: list[str]) -> tuple[Any, Any]:
        django_settings.MIDDLEWARE = middleware
        return WSGIHandler(), ASGIHandler()

    bare_sync, bare_async = handlers(["benchmarks.django_settings.without_authz"])
    authz_sync, authz_async = handlers(["authz_django.AuthzMiddleware"])
    return {
        "django_sync_bare": _wsgi_round(bare_sync),
        "django_sync_authz": _wsgi_round(authz_sync),
        "django_async_bare": _asgi_round(bare_async, loop, "/async/invoices/7"),
        "django_async_authz": _asgi_round(authz_async, loop, "/async/invoices/7"),
    }
