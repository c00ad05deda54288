"""A real authorization server on loopback: metadata, key set and introspection, each of which can misbehave."""

from __future__ import annotations

import base64
import json
import ssl
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, Self
from urllib.parse import parse_qsl, unquote_plus

from tests.support.tokens import Issuer

CLIENT_ID: Final = "billing:api"
CLIENT_SECRET: Final = "s3cret:+/ %&=ü"
"""With every character that means something in a form, a header or between the two."""
BEARER: Final = "resource.server~token=="

Behaviour = Callable[[BaseHTTPRequestHandler], object]


class _QuietServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that breaks off is what the tests are about


class AuthorizationServer:
    """A context manager. `path` is that of the issuer; `tokens` are the answers about the tokens that are active.

    `metadata` and `keys` are served as they are at the moment; `behave` replaces the answer of a path.
    """

    def __init__(self, path: str = "", *, tls: ssl.SSLContext | None = None) -> None:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                server.fetched.append(self.path)
                server._answer(self, server._document)

            def do_POST(self) -> None:
                form = self.rfile.read(int(self.headers["Content-Length"])).decode("ascii")
                server.questions.append((dict(self.headers), parse_qsl(form, strict_parsing=True)))
                server._answer(self, server._introspect)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name in the base
                pass

        self._server = _QuietServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_port
        self.origin = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.issuer = self.origin + path
        self.signer = Issuer(self.issuer)
        self.keys: Mapping[str, Any] = self.signer.jwks()
        self.metadata: dict[str, Any] = {"issuer": self.issuer, "jwks_uri": f"{self.origin}/jwks"}
        self.tokens: dict[str, Mapping[str, Any]] = {}
        self.behave: dict[str, Behaviour] = {}
        self.fetched: list[str] = []
        self.questions: list[tuple[dict[str, str], list[tuple[str, str]]]] = []
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    @property
    def endpoint(self) -> str:
        """The address of the introspection endpoint."""
        return f"{self.origin}/introspect"

    def grant(self, token: str, now: float | None = None, **claims: Any) -> str:
        """Make a token active, with these claims."""
        self.tokens[token] = {"active": True, **self.signer.claims(now, **claims)}
        return token

    def _answer(self, handler: BaseHTTPRequestHandler, usually: Behaviour) -> None:
        try:
            self.behave.get(handler.path, usually)(handler)
        except OSError:
            handler.close_connection = True  # the client has left, as it should when it is kept waiting

    def _document(self, handler: BaseHTTPRequestHandler) -> None:
        if handler.path == "/jwks":
            reply(handler, self.keys, content_type="application/jwk-set+json")
        elif "/.well-known/" in handler.path:
            reply(handler, self.metadata)
        else:
            reply(handler, {}, status=404)

    def _introspect(self, handler: BaseHTTPRequestHandler) -> None:
        (token,) = (value for name, value in self.questions[-1][1] if name == "token")
        if not _is_ours(handler.headers.get_all("Authorization") or []):
            reply(handler, {"error": "invalid_client"}, status=401)
        else:
            reply(handler, self.tokens.get(token, {"active": False}))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def reply(
    handler: BaseHTTPRequestHandler,
    body: object,
    *,
    status: int = 200,
    content_type: str | None = "application/json",
    headers: Mapping[str, str] | None = None,
) -> None:
    """Answer with a body: bytes as they are, anything else as JSON."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    handler.send_response(status)
    for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
        handler.send_header(name, value)
    if content_type is not None:
        handler.send_header("Content-Type", content_type)
    handler.end_headers()
    handler.wfile.write(data)


def _is_ours(authorization: list[str]) -> bool:
    """Whether this is our client (RFC 6749 section 2.3.1) or our bearer token, decoded as a server does it."""
    if len(authorization) != 1:
        return False
    scheme, _, value = authorization[0].partition(" ")
    if scheme == "Bearer":
        return value == BEARER
    name, _, secret = base64.b64decode(value, validate=True).decode("ascii").partition(":")
    return scheme == "Basic" and (unquote_plus(name), unquote_plus(secret)) == (CLIENT_ID, CLIENT_SECRET)
