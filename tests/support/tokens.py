"""A throw-away issuer: makes keys, publishes them, mints tokens of any shape, the forbidden ones included."""

from __future__ import annotations

import base64
import json
import secrets
import ssl
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, Self

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import get_default_algorithms

from authz_middleware.identity.connection.credentials import Credentials, Target

AUDIENCE: Final = "billing-api"
REMOVED: Final[Any] = None
"""As the value of a claim or header member: leave it out."""

_METHODS: Final = get_default_algorithms()
_CURVES: Final = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}


def base64url(data: bytes | str | Mapping[str, Any]) -> str:
    """One part of a compact token; a mapping is written as JSON first."""
    if isinstance(data, Mapping):
        data = json.dumps(data, separators=(",", ":"))
    if isinstance(data, str):
        data = data.encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def make_key(alg: str, *, rsa_bits: int = 2048) -> Any:
    """A new private key (for HS algorithms: a secret) for a JOSE algorithm."""
    if alg in _CURVES:
        return ec.generate_private_key(_CURVES[alg])
    if alg == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    if alg.startswith("HS"):
        return secrets.token_bytes(64)
    return rsa.generate_private_key(public_exponent=65537, key_size=rsa_bits)


class Issuer:
    """An issuer with one key. `url` is its `iss`; `kid` and `alg` are those of its key."""

    def __init__(
        self,
        url: str = "https://issuer.example/",
        kid: str | None = "key-1",
        alg: str = "ES256",
        *,
        key: Any = None,
        audience: str | list[str] = AUDIENCE,
    ) -> None:
        self.url = url
        self.kid = kid
        self.alg = alg
        self.key = make_key(alg) if key is None else key
        self.audience = audience

    def jwk(self, **members: Any) -> dict[str, Any]:
        """The public half of the key (for HS algorithms: the secret) as a JSON Web Key; members can be replaced."""
        public = self.key if self.alg.startswith("HS") else self.key.public_key()
        jwk = {**_METHODS[self.alg].to_jwk(public, as_dict=True), "alg": self.alg, "use": "sig"}
        jwk.pop("key_ops", None)
        return _without_removed({**jwk, "kid": self.kid, **members})

    def jwks(self, *others: Issuer) -> dict[str, Any]:
        """The key set of this issuer, with the keys of `others` in it when it has several."""
        return {"keys": [self.jwk(), *(other.jwk() for other in others)]}

    def claims(self, now: float | None = None, **claims: Any) -> dict[str, Any]:
        """The claims of an access token (RFC 9068) that is valid for five minutes; each can be replaced or REMOVED."""
        issued = int(time.time() if now is None else now)
        return _without_removed(
            {
                "iss": self.url,
                "sub": "alice",
                "aud": self.audience,
                "iat": issued,
                "exp": issued + 300,
                "jti": uuid.uuid4().hex,
                "client_id": "web-shop",
                "scope": "invoices.read",
                **claims,
            }
        )

    def mint(self, *, header: Mapping[str, Any] | None = None, now: float | None = None, **claims: Any) -> str:
        """A signed token; `header` replaces or removes members of its header."""
        full = _without_removed({"typ": "at+jwt", "alg": self.alg, "kid": self.kid, **(header or {})})
        return self.sign(base64url(full), base64url(self.claims(now, **claims)))

    def sign(self, header: str, payload: str) -> str:
        """A compact token over two parts that are already encoded, however wrong they are."""
        signed = f"{header}.{payload}"
        return f"{signed}.{base64url(_METHODS[self.alg].sign(signed.encode(), self.key))}"

    def mint_raw(self, payload: bytes | str, *, header: bytes | str | Mapping[str, Any] | None = None) -> str:
        """A signed token over a payload of any bytes."""
        default = {"typ": "at+jwt", "alg": self.alg, "kid": self.kid}
        return self.sign(base64url(default if header is None else header), base64url(payload))


class ShownCredentials(Credentials):
    """Credentials as a test states them; see `shown`."""

    def __init__(
        self,
        headers: Sequence[tuple[str, str]],
        method: str,
        peer: str | None,
        target: Target,
        certificate: bytes | None,
    ) -> None:
        self._headers = headers
        self._method = method
        self._peer = peer
        self._target = target
        self._certificate = certificate

    @property
    def method(self) -> str:
        return self._method

    @property
    def peer(self) -> str | None:
        return self._peer

    def values(self, name: str) -> list[str]:
        return [value for known, value in self._headers if known == name]

    def target(self) -> Target:
        return self._target

    def certificate(self) -> bytes | None:
        return self._certificate


def shown(
    *authorization: str,
    headers: Sequence[tuple[str, str]] = (),
    method: str = "GET",
    peer: str | None = "127.0.0.1",
    target: Target = Target("https", "billing.example", "/invoices"),  # noqa: B008 - frozen
    certificate: bytes | None = None,
) -> ShownCredentials:
    """The credentials of a request with these Authorization headers and these others, lower-case names first."""
    all_headers = [*(("authorization", value) for value in authorization), *headers]
    return ShownCredentials(all_headers, method, peer, target, certificate)


def bearer(token: str) -> ShownCredentials:
    """The credentials of a request that carries this token and nothing else."""
    return shown(f"Bearer {token}")


class _QuietServer(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that breaks off is what the tests are about


class KeyServer:
    """A real HTTP server on loopback that publishes a key set; a context manager.

    `document` is what it serves; `fetches` counts the requests. `behave`, when set, answers a request instead: it gets
    the handler, and whatever it does to the connection is what the client meets.
    """

    def __init__(self, document: Mapping[str, Any], *, tls: ssl.SSLContext | None = None) -> None:
        self.document = document
        self.fetches = 0
        self.behave: Callable[[BaseHTTPRequestHandler], object] | None = None
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.fetches += 1
                try:
                    (server.behave or server.serve)(self)
                except OSError:
                    self.close_connection = True  # the client has left, as it should when it is kept waiting

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name in the base
                pass

        self._server = _QuietServer(("127.0.0.1", 0), Handler)
        self._origin = f"http://127.0.0.1:{self._server.server_port}"
        if tls is not None:
            self._origin = f"https://localhost:{self._server.server_port}"
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    @property
    def url(self) -> str:
        """The address of the key set."""
        return f"{self._origin}/jwks"

    def serve(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer with the document."""
        body = json.dumps(self.document).encode()
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _without_removed(members: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not REMOVED}
