"""Over real sockets: whose certificate and whose word about a client an application gets to see, and from whom."""

from __future__ import annotations

import base64
import http.client
import json
import os
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, Self

import pytest
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.serving import make_server

from authz_middleware.identity.connection.certificate import thumbprint_of
from authz_middleware.identity.connection.credentials import Credentials, Target
from authz_middleware.identity.connection.wsgi import WSGICredentials
from tests.support.certificates import Authority, Holder

pytestmark = [pytest.mark.capability("C19", "C44"), pytest.mark.promise("P3")]

ROOT: Final = Path(__file__).parents[2]
PROXY, OUTSIDER, LOOPBACK = "127.0.0.3", "127.0.0.2", "127.0.0.1"

AUTHORITY = Authority()
CLIENT, OTHER = AUTHORITY.issue("client"), AUTHORITY.issue("other")
STRANGER = Authority("another authority").issue("client")

PROXIES: Final = {
    "trusted": [PROXY],
    "forwarded": ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"],
    "client_certificate": {"format": "rfc9440"},
}

FORGED: Final = f":{base64.b64encode(CLIENT.der).decode()}:"
CLAIMS: Final = (
    f"Client-Cert: {FORGED}",
    "X-Forwarded-For: 192.0.2.1",
    "X-Forwarded-Proto: https",
    "X-Forwarded-Host: app.example",
)
UNDERSCORED: Final = tuple(
    f"{name.replace('-', '_')}:{value}" for name, _, value in (claim.partition(":") for claim in CLAIMS)
)


class Served:
    """A server in a process of its own, on a loopback port or a unix socket."""

    def __init__(self, folder: Path, *command: str, unix: bool = False, **tables: Any) -> None:
        self.folder = folder
        self.log = folder / "seen.jsonl"
        self._unix = unix
        self._command = command
        self._environment = {**os.environ, "AUTHZ_TEST_LOG": str(self.log)}
        self._environment.pop("FORWARDED_ALLOW_IPS", None)
        self._environment["AUTHZ_TEST_PROXIES"] = json.dumps({**PROXIES, **tables})

    def __enter__(self) -> Self:
        self._listener = socket.socket(socket.AF_UNIX if self._unix else socket.AF_INET)
        self._listener.bind(str(self.folder / "app.sock") if self._unix else (LOOPBACK, 0))
        self._listener.listen(500)
        self.address: Any = self._listener.getsockname()
        command = [part.replace("{fd}", str(self._listener.fileno())) for part in self._command]
        with (self.folder / "server.log").open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=ROOT,
                env=self._environment,
                pass_fds=[self._listener.fileno()],
                stdout=output,
                stderr=output,
            )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(timeout=30)
        finally:
            self._process.kill()
            self._listener.close()

    def connect(self, source: str = OUTSIDER, name: str | None = None) -> socket.socket:
        """A connection from this address; to a unix socket, from one bound to `name`."""
        if not self._unix:
            return socket.create_connection(self.address, timeout=60, source_address=(source, 0))
        connection = socket.socket(socket.AF_UNIX)
        if name is not None:
            connection.bind(name)
        connection.settimeout(60)
        connection.connect(self.address)
        return connection

    def ask(self, *headers: str, source: str = OUTSIDER, tls: ssl.SSLContext | None = None, **how: Any) -> Any:
        """What the application saw of a request; the listening socket holds it until the server is up."""
        return json.loads(self.reply(*headers, source=source, tls=tls, **how)[1])

    def reply(
        self, *headers: str, source: str = OUTSIDER, tls: ssl.SSLContext | None = None, **how: Any
    ) -> tuple[http.client.HTTPMessage, bytes]:
        """The answer to a request whose headers go out as they are written."""
        lines = ["GET / HTTP/1.1", "Host: inner.example", "Connection: close", *headers, "", ""]
        with self.connect(source, **how) as plain:
            connection = plain if tls is None else tls.wrap_socket(plain, server_hostname=LOOPBACK)
            with connection:
                connection.sendall("\r\n".join(lines).encode("latin-1"))
                response = http.client.HTTPResponse(connection)
                response.begin()
                assert response.status == 200, response.read()
                return response.headers, response.read()

    def shoot(self, *headers: str) -> None:
        """Send a request and reset the connection at once."""
        lines = ["GET / HTTP/1.1", "Host: inner.example", *headers, "", ""]
        with self.connect() as connection:
            connection.sendall("\r\n".join(lines).encode("latin-1"))
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    @property
    def seen(self) -> list[Any]:
        """What the application has seen of every request, in order."""
        return [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []


def gunicorn(folder: Path, *options: str, unix: bool = False, **tables: Any) -> Served:
    command = ("gunicorn", "--bind", "fd://{fd}", "--workers", "1", "--log-level", "warning", *options)
    return Served(folder, *command, "tests.support.shown_apps:wsgi", unix=unix, **tables)


def uvicorn(
    folder: Path, *options: str, app: str = "tests.support.shown_apps:asgi", unix: bool = False, **tables: Any
) -> Served:
    command = ("uvicorn", app, "--fd", "{fd}", "--lifespan", "off", "--no-access-log", *options)
    return Served(folder, *command, unix=unix, **tables)


@contextmanager
def started(*servers: Served) -> Iterator[None]:
    with ExitStack() as stack:
        for server in servers:
            stack.enter_context(server)
        yield


# certificates of the connection itself


def tls_options(folder: Path, mode: ssl.VerifyMode) -> tuple[str, ...]:
    certificate, key = AUTHORITY.issue("server", addresses=(LOOPBACK,)).save(folder, "server")
    root, _ = AUTHORITY.root.save(folder, "root")
    return (
        "--certfile",
        str(certificate),
        "--keyfile",
        str(key),
        "--ca-certs",
        str(root),
        "--cert-reqs",
        str(int(mode)),
    )


@pytest.fixture(scope="module", params=["sync", "gthread"])
def secured(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """gunicorn that asks for a certificate and goes on without one."""
    folder = tmp_path_factory.mktemp("gunicorn")
    with gunicorn(folder, "--worker-class", request.param, *tls_options(folder, ssl.CERT_OPTIONAL)) as served:
        yield served


@pytest.fixture
def showing(tmp_path: Path) -> Callable[[Holder | None], ssl.SSLContext]:
    return lambda holder: AUTHORITY.client_context(tmp_path, holder)


def test_gunicorn_shows_the_certificate_that_its_client_has_proven_to_hold(secured: Served, showing: Any) -> None:
    for holder in (CLIENT, OTHER):
        assert secured.ask(tls=showing(holder))["certificate"] == thumbprint_of(holder.der)
    assert secured.ask(tls=showing(None))["certificate"] is None


def test_gunicorn_does_not_let_a_stranger_in(secured: Served, showing: Any) -> None:
    for holder in (STRANGER, AUTHORITY.issue("late", days=-0.5)):
        with pytest.raises((ssl.SSLError, OSError, http.client.HTTPException)):
            secured.ask(tls=showing(holder))


def test_no_header_replaces_the_certificate_of_a_connection(secured: Served, showing: Any) -> None:
    headers = (*CLAIMS, *UNDERSCORED, "SSL-Client-Verify: SUCCESS", "SSL_CLIENT_VERIFY: SUCCESS")
    seen = secured.ask(*headers, tls=showing(OTHER))
    assert (seen["certificate"], seen["client"]) == (thumbprint_of(OTHER.der), OUTSIDER)
    assert secured.ask(*headers, tls=showing(None))["certificate"] is None


def test_the_certificate_of_the_proxy_is_not_that_of_its_client(secured: Served, showing: Any) -> None:
    seen = secured.ask(*CLAIMS, source=PROXY, tls=showing(OTHER))
    assert seen["of_connection"] == thumbprint_of(OTHER.der)
    assert seen["certificate"] == thumbprint_of(CLIENT.der)
    assert secured.ask(source=PROXY, tls=showing(OTHER))["certificate"] is None


@pytest.mark.parametrize("mode", [ssl.CERT_REQUIRED, ssl.CERT_NONE])
def test_gunicorn_shows_no_certificate_that_it_has_not_asked_for(
    tmp_path: Path, showing: Any, mode: ssl.VerifyMode
) -> None:
    with gunicorn(tmp_path, *tls_options(tmp_path, mode)) as served:
        shown = thumbprint_of(CLIENT.der) if mode is ssl.CERT_REQUIRED else None
        assert served.ask(tls=showing(CLIENT))["certificate"] == shown
        if mode is ssl.CERT_REQUIRED:
            with pytest.raises((ssl.SSLError, OSError, http.client.HTTPException)):
                served.ask(tls=showing(None))


def test_the_development_server_of_werkzeug_shows_a_verified_certificate(tmp_path: Path, showing: Any) -> None:
    from tests.support.shown_apps import wsgi

    for mode, shown in ((ssl.CERT_REQUIRED, thumbprint_of(CLIENT.der)), (ssl.CERT_NONE, None)):
        server = make_server(LOOPBACK, 0, wsgi, ssl_context=AUTHORITY.server_context(tmp_path, mode))
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        plain = socket.create_connection((LOOPBACK, server.server_port), timeout=20)
        with plain, showing(CLIENT).wrap_socket(plain, server_hostname=LOOPBACK) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nSSL_CLIENT_VERIFY: SUCCESS\r\nConnection: close\r\n\r\n")
            response = http.client.HTTPResponse(connection)
            response.begin()
            assert json.loads(response.read())["certificate"] == shown
        thread.join()
        server.server_close()


def test_uvicorn_tells_of_no_certificate_and_a_proxy_in_front_of_it_does(tmp_path: Path, showing: Any) -> None:
    """A proxy that ends TLS and speaks for its client is what brings a certificate to an ASGI application."""
    certificate, key = AUTHORITY.issue("server", addresses=(LOOPBACK,)).save(tmp_path, "server")
    root, _ = AUTHORITY.root.save(tmp_path, "root")
    options = ("--ssl-certfile", str(certificate), "--ssl-keyfile", str(key), "--ssl-ca-certs", str(root))
    (tmp_path / "plain").mkdir()
    bare = uvicorn(tmp_path / "plain", "--no-proxy-headers")
    with started(secure := uvicorn(tmp_path, *options, "--ssl-cert-reqs", str(int(ssl.CERT_REQUIRED))), bare):
        seen = secure.ask(*CLAIMS, tls=showing(CLIENT))
        assert (seen["certificate"], seen["target"][0]) == (None, "https")
        with TLSProxy(tmp_path, bare) as proxy:
            seen = proxy.ask(showing(CLIENT))
            assert seen["certificate"] == thumbprint_of(CLIENT.der)
            assert (seen["peer"], seen["client"], seen["facts"]) == (PROXY, OUTSIDER, [OUTSIDER, True])
            assert seen["target"] == ["https", "app.example", "/"]
            forged = f":{base64.b64encode(OTHER.der).decode()}:"
            seen = proxy.ask(showing(CLIENT), f"Client-Cert: {forged}", "X-Forwarded-For: 192.0.2.7")
            assert (seen["certificate"], seen["client"]) == (thumbprint_of(CLIENT.der), OUTSIDER)
            seen = proxy.ask(showing(None), f"Client-Cert: {forged}", f"Client_Cert: {forged}")
            assert seen["certificate"] is None


class TLSProxy:
    """Ends TLS, replaces the headers that it is configured to set, and passes one request a connection on from the
    address of the trusted proxy. Headers with underscores pass through it, as through Envoy by default."""

    def __init__(self, folder: Path, behind: Served) -> None:
        self._context = AUTHORITY.server_context(folder, ssl.CERT_OPTIONAL)
        self._listener = socket.create_server((LOOPBACK, 0))
        self._behind = behind
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def ask(self, tls: ssl.SSLContext, *headers: str) -> Any:
        lines = ["GET / HTTP/1.1", "Host: app.example", *headers, "", ""]
        plain = socket.create_connection(self._listener.getsockname(), timeout=20, source_address=(OUTSIDER, 0))
        with plain, tls.wrap_socket(plain, server_hostname=LOOPBACK) as connection:
            connection.sendall("\r\n".join(lines).encode())
            return json.loads(b"".join(iter(lambda: connection.recv(65536), b"")))

    def _serve(self) -> None:
        while True:
            try:
                plain, (address, _) = self._listener.accept()
            except OSError:
                return
            with self._context.wrap_socket(plain, server_side=True) as connection:
                received = connection.recv(65536).decode("latin-1").split("\r\n")
                ours = ("client-cert", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "host")
                passed = [line for line in received[1:-2] if line.partition(":")[0].lower() not in ours]
                passed += [f"X-Forwarded-For: {address}", "X-Forwarded-Proto: https", "X-Forwarded-Host: app.example"]
                certificate = connection.getpeercert(binary_form=True)
                if certificate is not None:
                    passed.append(f"Client-Cert: :{base64.b64encode(certificate).decode()}:")
                connection.sendall(self._behind.reply(*passed, source=PROXY)[1])


# whose word counts

PLAIN: Final[dict[str, Callable[[Path], Served]]] = {
    "gunicorn sync": gunicorn,
    "gunicorn gthread": lambda folder: gunicorn(folder, "--worker-class", "gthread"),
    "uvicorn h11": lambda folder: uvicorn(folder, "--http", "h11"),
    "uvicorn httptools": lambda folder: uvicorn(folder, "--http", "httptools", "--no-proxy-headers"),
    "django": lambda folder: uvicorn(folder, "--factory", app="tests.support.shown_apps:django_asgi"),
}


@pytest.fixture(scope="module", params=PLAIN)
def plain(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with PLAIN[request.param](tmp_path_factory.mktemp("plain")) as served:
        yield served


def test_a_configured_proxy_is_believed(plain: Served) -> None:
    seen = plain.ask(*CLAIMS, source=PROXY)
    assert (seen["peer"], seen["client"]) == (PROXY, "192.0.2.1")
    assert seen["certificate"] == thumbprint_of(CLIENT.der)
    assert seen["target"] == ["https", "app.example", "/"]
    assert seen["facts"] == ["192.0.2.1", True]


def test_an_outsider_is_not(plain: Served) -> None:
    seen = plain.ask(*CLAIMS, "Forwarded: for=192.0.2.1;proto=https;host=app.example")
    assert (seen["peer"], seen["client"], seen["facts"]) == (OUTSIDER, OUTSIDER, [OUTSIDER, False])
    assert seen["certificate"] is None
    assert seen["target"] == ["http", "inner.example", "/"]


def test_headers_spelled_with_underscores_are_not_read_even_from_a_proxy(plain: Served) -> None:
    headers, body = plain.reply(*UNDERSCORED, source=PROXY)
    seen = json.loads(body)
    assert seen["headers"] == {}
    assert (seen["certificate"], seen["client"], seen["facts"]) == (None, None, [None, False])
    assert headers.get("Seen-In-Meta", "HTTP_CONNECTION,HTTP_HOST") == "HTTP_CONNECTION,HTTP_HOST"


def test_underscores_add_nothing_to_what_a_proxy_says(plain: Served) -> None:
    forged = (f"Client_Cert: :{base64.b64encode(OTHER.der).decode()}:", "X_Forwarded_For: 203.0.113.9")
    seen = plain.ask(*forged, *CLAIMS, *forged, source=PROXY)
    assert (seen["certificate"], seen["client"]) == (thumbprint_of(CLIENT.der), "192.0.2.1")


def test_a_header_that_the_proxy_has_not_replaced_is_no_certificate(plain: Served) -> None:
    seen = plain.ask(f"Client-Cert: :{base64.b64encode(OTHER.der).decode()}:", *CLAIMS, source=PROXY)
    assert seen["certificate"] is None


def test_nobody_becomes_the_proxy_by_naming_its_address(plain: Served) -> None:
    """uvicorn takes its client from X-Forwarded-For when loopback says it (its default)."""
    for source in (OUTSIDER, LOOPBACK):
        for named in (PROXY, f"{PROXY}:4711", f"192.0.2.1, {PROXY}", f"{PROXY}, {PROXY}", f"[{PROXY}]:4711"):
            seen = plain.ask(CLAIMS[0], f"X-Forwarded-For: {named}", *CLAIMS[2:], source=source)
            assert seen["certificate"] is None, (source, named)
            assert seen["peer"] in (source, None), (source, named)
            assert seen["facts"][0] in (source, None), (source, named)


# ways in which a server mistakes who is there


def test_where_uvicorn_believes_everybody_nobody_is_the_proxy(tmp_path: Path) -> None:
    with uvicorn(tmp_path, "--forwarded-allow-ips", "*") as served:
        for named in (PROXY, f"{PROXY}:4711", f"{PROXY}:4_711", f"[{PROXY}]:4711", f"{PROXY}, 192.0.2.1", "192.0.2.1"):
            for source in (OUTSIDER, LOOPBACK, PROXY):
                seen = served.ask(CLAIMS[0], f"X-Forwarded-For: {named}", *CLAIMS[2:], source=source)
                assert (seen["peer"], seen["certificate"], seen["client"]) == (None, None, None), (source, named)
        assert served.ask(*CLAIMS[2:], source=PROXY)["peer"] == PROXY, "with nothing to take it from, it is known"


def test_a_reset_connection_is_not_taken_for_a_unix_socket(tmp_path: Path) -> None:
    """uvicorn handles the request of a TCP connection that was reset before it looked, and knows no client of it."""
    with uvicorn(tmp_path, trusted=["unix", PROXY]) as served:
        served.ask()
        for _ in range(50):
            served.shoot(*CLAIMS)
        end = time.monotonic() + 20
        while len(served.seen) < 51:
            assert time.monotonic() < end
            time.sleep(0.02)
        seen = served.seen[1:]
    assert any(request["peer"] is None for request in seen), "the mistake is there to be made"
    assert {request["peer"] for request in seen} <= {None, OUTSIDER}
    assert {request["certificate"] for request in seen} == {None}


UNIX_SERVERS: Final[dict[str, Callable[..., Served]]] = {
    "gunicorn sync": lambda folder, **tables: gunicorn(folder, unix=True, **tables),
    "gunicorn gthread": lambda folder, **tables: gunicorn(folder, "--worker-class", "gthread", unix=True, **tables),
    "uvicorn": lambda folder, **tables: uvicorn(folder, unix=True, **tables),
}


@pytest.mark.parametrize("server", UNIX_SERVERS)
def test_a_proxy_on_a_unix_socket_is_believed_when_the_settings_name_it(tmp_path: Path, server: str) -> None:
    with UNIX_SERVERS[server](tmp_path, trusted=["unix"]) as served:
        seen = served.ask(*CLAIMS)
        assert (seen["peer"], seen["client"]) == ("unix", "192.0.2.1")
        assert seen["certificate"] == thumbprint_of(CLIENT.der)


@pytest.mark.parametrize("server", UNIX_SERVERS)
def test_a_unix_socket_is_no_proxy_by_a_name_like_its_address(
    tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with UNIX_SERVERS[server](tmp_path) as served:
        for name in (None, PROXY):
            seen = served.ask(*CLAIMS, name=name)
            assert (seen["peer"], seen["client"], seen["certificate"]) == ("unix", None, None)


def test_what_proxy_fix_replaced_is_read_as_the_server_received_it() -> None:
    seen: list[Credentials] = []

    def app(environ: Any, start_response: Any) -> list[bytes]:
        seen.append(WSGICredentials(environ))
        return []

    environ = {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/a",
        "HTTP_HOST": "app.example",
        "wsgi.url_scheme": "http",
        "REMOTE_ADDR": "10.0.0.5",
        "HTTP_X_FORWARDED_FOR": "10.0.0.1",
        "HTTP_X_FORWARDED_PROTO": "https",
        "HTTP_X_FORWARDED_HOST": "evil.example",
        "HTTP_X_FORWARDED_PREFIX": "/evil",
    }
    list(ProxyFix(app, x_for=1, x_proto=1, x_host=1, x_prefix=1)(environ, lambda *_: lambda _: None))
    assert environ["REMOTE_ADDR"] == "10.0.0.1", "it was replaced"
    assert seen[0].peer == "10.0.0.5"
    assert seen[0].target() == Target("http", "app.example", "/a")
