"""A real token endpoint on loopback, as strict with a client as a good authorization server (RFC 7523 section 3)."""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import parse_qsl

import jwt
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from jwt.algorithms import get_default_algorithms

from tests.support.authorization_server import reply
from tests.support.tokens import make_key

CLIENT_ID: Final = "billing-pep"
ISSUER: Final = "https://idp.example/"
ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

_METHODS: Final = get_default_algorithms()


class ClientKey:
    """A private key of a client; `public` is what its server knows of it."""

    def __init__(self, kid: str = "key-1", alg: str = "ES256", *, key: Any = None) -> None:
        self.kid = kid
        self.alg = alg
        self.key = make_key(alg) if key is None else key
        self.public = self.key.public_key()

    def pem(self) -> bytes:
        return bytes(self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))

    def jwk(self, **members: Any) -> bytes:
        return json.dumps({**_METHODS[self.alg].to_jwk(self.key, as_dict=True), "kid": self.kid, **members}).encode()

    def write(self, path: Path, *, jwk: bool = False) -> Path:
        path.write_bytes(self.jwk() if jwk else self.pem())
        return path


class _QuietServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that breaks off is what the tests are about


class TokenEndpoint:
    """A context manager. `keys` are those of the client that count at the moment; `tokens` all that were granted.

    `behave`, when set, answers a request instead; `change` alters the answer that is about to be given.
    """

    def __init__(self, *keys: ClientKey, lifetime: int = 300, tls: ssl.SSLContext | None = None) -> None:
        self.keys = list(keys)
        self.lifetime = lifetime
        self.tokens: list[str] = []
        self.forms: list[dict[str, list[str]]] = []
        self.headers: list[dict[str, str]] = []
        self.assertions: list[tuple[dict[str, Any], dict[str, Any]]] = []
        self.refusals: list[str] = []
        self.connections = 0
        self.behave: Callable[[BaseHTTPRequestHandler], object] | None = None
        self.change: Callable[[dict[str, Any]], Mapping[str, Any]] = lambda answer: answer
        self.delay = 0.0
        self._seen: set[str] = set()
        self._lock = threading.Lock()
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                endpoint.connections += 1
                super().setup()

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode("ascii")
                form: dict[str, list[str]] = {}
                for name, value in parse_qsl(body, strict_parsing=True):
                    form.setdefault(name, []).append(value)
                endpoint.forms.append(form)
                endpoint.headers.append(dict(self.headers))
                if endpoint.delay:
                    time.sleep(endpoint.delay)
                try:
                    (endpoint.behave or endpoint._grant)(self)
                except OSError:
                    self.close_connection = True  # the client has left

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name in the base
                pass

        self._server = _QuietServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_port
        self.origin = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    @property
    def url(self) -> str:
        return f"{self.origin}/token"

    def _grant(self, handler: BaseHTTPRequestHandler) -> None:
        with self._lock:
            error = self._error(self.forms[-1])
            if error is not None:
                self.refusals.append(error)
                reply(handler, {"error": error, "error_description": "said by the server"}, status=401)
                return
            token = f"granted-{len(self.tokens)}-{self.port}"
            self.tokens.append(token)
        answer = {"access_token": token, "token_type": "Bearer", "expires_in": self.lifetime}
        reply(handler, self.change(answer), headers={"Cache-Control": "no-store"})

    def _error(self, form: Mapping[str, list[str]]) -> str | None:
        if form.get("grant_type") != ["client_credentials"] or form.get("client_id") != [CLIENT_ID]:
            return "invalid_request"
        if form.get("client_assertion_type") != [ASSERTION_TYPE] or len(form.get("client_assertion", [])) != 1:
            return "invalid_request"
        assertion = form["client_assertion"][0]
        header = jwt.get_unverified_header(assertion)
        for key in self.keys:
            if header.get("kid") in (None, key.kid) and header["alg"] == key.alg:
                try:
                    claims = jwt.decode(
                        assertion,
                        key.public,
                        algorithms=[key.alg],
                        audience=ISSUER,
                        issuer=CLIENT_ID,
                        options={"require": ["iss", "sub", "aud", "exp", "iat", "jti"]},
                    )
                except jwt.PyJWTError:
                    continue
                return self._claimed(header, claims)
        return "invalid_client"

    def _claimed(self, header: dict[str, Any], claims: dict[str, Any]) -> str | None:
        self.assertions.append((header, claims))
        lives = claims["exp"] - time.time()
        if claims["sub"] != CLIENT_ID or claims["jti"] in self._seen or not 0 < lives <= 61:
            return "invalid_client"
        self._seen.add(claims["jti"])
        return None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
