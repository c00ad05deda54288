"""What a request shows, read from a server's own words: the other end, the address, the certificate."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from authz_middleware.identity.connection.asgi import ASGICredentials
from authz_middleware.identity.connection.credentials import UNIX, Target
from authz_middleware.identity.connection.wsgi import WSGICredentials
from tests.support.certificates import Authority

pytestmark = [pytest.mark.capability("C44"), pytest.mark.promise("P3")]

Pair = tuple[socket.socket, socket.socket]

AUTHORITY = Authority()
CLIENT = AUTHORITY.issue("client")
OTHER = AUTHORITY.issue("other")


def asgi(*headers: tuple[str, str], **scope: Any) -> ASGICredentials:
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    return ASGICredentials(
        {
            "type": "http",
            "method": "GET",
            "scheme": "http",
            "path": "/a b",
            "raw_path": b"/a%20b",
            "headers": raw,
            "client": ("10.0.0.5", 40000),
            "server": ("10.0.0.9", 8000),
            **scope,
        }
    )


def wsgi(**environ: Any) -> WSGICredentials:
    return WSGICredentials(
        {
            "REQUEST_METHOD": "GET",
            "SCRIPT_NAME": "",
            "PATH_INFO": "/a b",
            "HTTP_HOST": "app.example",
            "wsgi.url_scheme": "http",
            "REMOTE_ADDR": "10.0.0.5",
            **environ,
        }
    )


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Both ends of a TCP connection from 127.0.0.2, the server's first."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname(), source_address=("127.0.0.2", 0))
        server, _ = listener.accept()
        with client, server:
            yield server, client


def test_credentials_show_nothing_in_their_repr() -> None:
    for credentials in (asgi(("authorization", "Bearer secret")), wsgi(HTTP_AUTHORIZATION="Bearer secret")):
        assert repr(credentials) == f"<{type(credentials).__name__}>"


def test_a_method_is_upper_case_and_a_websocket_handshake_is_a_get() -> None:
    assert (asgi(method="post").method, wsgi(REQUEST_METHOD="post").method) == ("POST", "POST")
    assert ASGICredentials({"type": "websocket"}).method == "GET"


def test_without_a_scheme_there_is_no_target() -> None:
    with pytest.raises(ValueError, match="no scheme"):
        wsgi(**{"wsgi.url_scheme": None}).target()


ASGI_PEERS = {
    "IPv4": ({"client": ("10.0.0.5", 1)}, "10.0.0.5"),
    "IPv6": ({"client": ("2001:db8:0::5", 1)}, "2001:db8::5"),
    "IPv4 in IPv6": ({"client": ("::ffff:10.0.0.5", 1)}, "10.0.0.5"),
    "a link of its own": ({"client": ("fe80::1%eth0", 1)}, "fe80::1%eth0"),
    "a list": ({"client": ["10.0.0.5", 1]}, "10.0.0.5"),
    "a unix socket": ({"client": None, "server": ("/run/app.sock", None)}, UNIX),
    # what uvicorn says of a TCP connection that was reset before it looked
    "a reset connection": ({"client": None, "server": ("10.0.0.9", 8000)}, None),
    "no server": ({"client": None, "server": None}, None),
    "no address": ({"client": ("testclient", 50000)}, None),
    "a unix socket by name": ({"client": (UNIX, 1)}, None),
    "an empty address": ({"client": ("", 1)}, None),
    "white space": ({"client": ("10.0.0.5 ", 1)}, None),
    "octal": ({"client": ("010.0.0.5", 1)}, None),
    "several": ({"client": ("10.0.0.5, 10.0.0.6", 1)}, None),
    "no port": ({"client": ("10.0.0.5", 0)}, None),
    "a port that is none": ({"client": ("10.0.0.5", None)}, None),
}


@pytest.mark.parametrize(("scope", "peer"), ASGI_PEERS.values(), ids=ASGI_PEERS)
def test_the_other_end_is_an_address_a_unix_socket_or_unknown(scope: dict[str, Any], peer: str | None) -> None:
    assert asgi(**scope).peer == peer


FORGED = ("10.0.0.5:40000", "10.0.0.5:4_0000", "10.0.0.5:+40000", "a, 10.0.0.5:40000 ,b", "10.0.0.5:")


@pytest.mark.parametrize("forwarded", FORGED)
def test_an_address_that_a_server_may_have_taken_from_a_header_is_unknown(forwarded: str) -> None:
    assert asgi(("x-forwarded-for", "1.2.3.4"), ("x-forwarded-for", forwarded)).peer is None


def test_an_ipv6_address_from_a_header_is_unknown() -> None:
    for forwarded in ("[2001:db8::5]:40000", "[2001:db8::5]", "2001:db8::5:40000"):
        assert asgi(("x-forwarded-for", forwarded), client=("2001:db8::5", 40000)).peer is None


@pytest.mark.parametrize("forwarded", ["10.0.0.5", "10.0.0.55:40000", "1.10.0.0.5:1", "1.2.3.4:40000", "unknown"])
def test_a_proxy_may_speak_of_a_client_at_its_own_address(forwarded: str) -> None:
    """uvicorn would give a client that it took from these a port of zero, or another address."""
    assert asgi(("x-forwarded-for", forwarded)).peer == "10.0.0.5"


WSGI_PEERS = {
    "IPv4": ({"REMOTE_ADDR": "10.0.0.5"}, "10.0.0.5"),
    "IPv4 in IPv6": ({"REMOTE_ADDR": "::ffff:10.0.0.5"}, "10.0.0.5"),
    "none": ({"REMOTE_ADDR": ""}, None),
    "local": ({"REMOTE_ADDR": "<local>"}, None),
    "a name": ({"REMOTE_ADDR": "localhost"}, None),
    "a unix socket by name": ({"REMOTE_ADDR": UNIX}, None),
    "from a header": ({"HTTP_X_FORWARDED_FOR": "10.0.0.5"}, None),
    "from a header with a port": ({"HTTP_X_FORWARDED_FOR": "1.2.3.4,10.0.0.5:1"}, None),
    "of another": ({"HTTP_X_FORWARDED_FOR": "10.0.0.55"}, "10.0.0.5"),
    "before ProxyFix": ({"REMOTE_ADDR": "1.2.3.4", "werkzeug.proxy_fix.orig": {"REMOTE_ADDR": "10.0.0.5"}}, "10.0.0.5"),
}


@pytest.mark.parametrize(("environ", "peer"), WSGI_PEERS.values(), ids=WSGI_PEERS)
def test_without_its_socket_a_wsgi_server_is_believed_where_no_header_says_the_same(
    environ: dict[str, Any], peer: str | None
) -> None:
    assert wsgi(**environ).peer == peer


@pytest.mark.parametrize("key", ["gunicorn.socket", "werkzeug.socket"])
def test_a_servers_socket_knows_its_other_end_better_than_any_variable(pair: Pair, key: str) -> None:
    assert wsgi(**{key: pair[0], "REMOTE_ADDR": "10.0.0.5"}).peer == "127.0.0.2"


def test_a_closed_connection_has_no_other_end(pair: Pair) -> None:
    pair[0].close()
    assert wsgi(**{"gunicorn.socket": pair[0]}).peer is None


def test_whoever_binds_a_name_like_an_address_is_still_at_a_unix_socket(tmp_path: Any, monkeypatch: Any) -> None:
    """gunicorn takes the name of a unix socket's other end for its REMOTE_ADDR."""
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind("app.sock")
        listener.listen()
        client.bind("10.0.0.5")
        client.connect("app.sock")
        server, address = listener.accept()
        with server:
            assert address == "10.0.0.5"
            assert wsgi(**{"gunicorn.socket": server, "REMOTE_ADDR": address}).peer == UNIX


def test_with_the_proxy_protocol_the_peer_is_who_the_load_balancer_names(
    pair: Pair,
) -> None:
    assert wsgi(**{"gunicorn.socket": pair[0], "PROXY_PROTOCOL": "TCP4"}).peer == "10.0.0.5"


def test_a_header_is_read_by_its_hyphens_alone() -> None:
    credentials = asgi(("client_cert", "forged"), ("x_forwarded_for", "forged"), ("client-cert", "a"))
    assert credentials.values("client-cert") == ["a"]
    assert credentials.values("x-forwarded-for") == []


def test_every_value_of_a_header_is_shown_in_order() -> None:
    assert asgi(("a", "1"), ("b", "2"), ("a", "3")).values("a") == ["1", "3"]
    assert wsgi(HTTP_A="1,3").values("a") == ("1,3",)
    assert wsgi().values("a") == ()


def test_a_target_is_scheme_host_and_raw_path() -> None:
    host = ("host", "app.example:8000")
    assert asgi(host).target() == Target("http", "app.example:8000", "/a%20b")
    assert asgi(host, scheme="wss", type="websocket").target() == Target("https", "app.example:8000", "/a%20b")
    assert asgi(host, raw_path=None).target() == Target("http", "app.example:8000", "/a%20b")
    assert wsgi(RAW_URI="/a%20b?q=1").target() == Target("http", "app.example", "/a%20b")
    assert wsgi(SCRIPT_NAME="/sub").target() == Target("http", "app.example", "/sub/a%20b")
    assert wsgi(HTTP_HOST="[2001:db8::1]:8000").target().authority == "[2001:db8::1]:8000"


BAD_HOSTS = ("", " ", "a b", "a,b", "a, b", "user@a", "a/b", "a:b", "a:", "a:123456", "[::1", "a\n", "é.example", "a?b")


@pytest.mark.parametrize("host", BAD_HOSTS)
def test_a_target_needs_one_well_formed_host(host: str) -> None:
    for credentials in (asgi(("host", host)), wsgi(HTTP_HOST=host)):
        with pytest.raises(ValueError, match="not exactly one host"):
            credentials.target()


def test_no_host_and_two_hosts_are_no_target() -> None:
    for credentials in (asgi(), asgi(("host", "a"), ("host", "a")), wsgi(HTTP_HOST=None)):
        with pytest.raises(ValueError, match="not exactly one host"):
            credentials.target()


def tls(**members: Any) -> ASGICredentials:
    extension = {"client_cert_chain": [CLIENT.pem, AUTHORITY.root.pem], "client_cert_error": None, **members}
    return asgi(extensions={"tls": {key: value for key, value in extension.items() if value is not ...}})


def test_the_first_certificate_of_the_tls_extension_is_the_clients() -> None:
    """No server installed here offers the extension; this is its text (ASGI TLS extension 0.2)."""
    assert tls().certificate() == CLIENT.der
    assert tls(client_cert_chain=iter([CLIENT.pem])).certificate() == CLIENT.der


@pytest.mark.parametrize(
    "members",
    [
        {"client_cert_error": "self signed certificate"},
        {"client_cert_error": ""},
        {"client_cert_error": ...},
        {"client_cert_chain": []},
        {"client_cert_chain": None},
        {"client_cert_chain": ...},
        {"client_cert_chain": ["junk", CLIENT.pem]},
        {"client_cert_chain": [CLIENT.pem + OTHER.pem]},
        {"client_cert_chain": [CLIENT.der]},
    ],
)
def test_a_certificate_that_was_not_verified_or_cannot_be_read_is_none(members: dict[str, Any]) -> None:
    assert tls(**members).certificate() is None


def test_without_the_tls_extension_there_is_no_certificate() -> None:
    assert asgi().certificate() is None
    assert asgi(extensions={"http.response.debug": {}}).certificate() is None
    assert asgi(("ssl_client_cert", CLIENT.pem)).certificate() is None


def test_variables_of_a_server_that_verified_the_certificate_show_it() -> None:
    """mod_wsgi and uWSGI; nginx writes tabs into `$ssl_client_cert`."""
    tabs = CLIENT.pem.replace("\n", "\n\t").rstrip("\t")
    for pem in (CLIENT.pem, tabs):
        assert wsgi(SSL_CLIENT_VERIFY="SUCCESS", SSL_CLIENT_CERT=pem).certificate() == CLIENT.der


@pytest.mark.parametrize(
    "environ",
    [
        {"SSL_CLIENT_CERT": CLIENT.pem},  # werkzeug sets this one alone, whatever it verified
        {"SSL_CLIENT_VERIFY": "NONE", "SSL_CLIENT_CERT": CLIENT.pem},
        {"SSL_CLIENT_VERIFY": "GENEROUS", "SSL_CLIENT_CERT": CLIENT.pem},
        {"SSL_CLIENT_VERIFY": "FAILED:self signed certificate", "SSL_CLIENT_CERT": CLIENT.pem},
        {"SSL_CLIENT_VERIFY": "success", "SSL_CLIENT_CERT": CLIENT.pem},
        {"SSL_CLIENT_VERIFY": "SUCCESS"},
        {"SSL_CLIENT_VERIFY": "SUCCESS", "SSL_CLIENT_CERT": ""},
        {"SSL_CLIENT_VERIFY": "SUCCESS", "SSL_CLIENT_CERT": CLIENT.pem + OTHER.pem},
        {"SSL_CLIENT_VERIFY": "SUCCESS", "SSL_CLIENT_CERT": CLIENT.der},
        {"HTTP_SSL_CLIENT_VERIFY": "SUCCESS", "HTTP_SSL_CLIENT_CERT": CLIENT.pem},
    ],
)
def test_variables_that_nobody_verified_show_no_certificate(environ: dict[str, Any]) -> None:
    assert wsgi(**environ).certificate() is None


@pytest.mark.parametrize("key", ["gunicorn.socket", "werkzeug.socket"])
def test_a_tls_socket_shows_a_certificate_only_where_its_context_verifies(pair: Pair, tmp_path: Path, key: str) -> None:
    server, client = pair
    context = AUTHORITY.server_context(tmp_path)
    wrapped: list[ssl.SSLSocket] = []
    accepting = threading.Thread(target=lambda: wrapped.append(context.wrap_socket(server, server_side=True)))
    accepting.start()
    with AUTHORITY.client_context(tmp_path, CLIENT).wrap_socket(client, server_hostname="127.0.0.1") as speaking:
        accepting.join()
        with wrapped[0] as connection:
            speaking.sendall(b"x")
            assert connection.recv(1) == b"x"
            assert wsgi(**{key: connection}).certificate() == CLIENT.der
            assert wsgi(**{key: connection}).peer == "127.0.0.2"
            context.verify_mode = ssl.CERT_NONE
            assert wsgi(**{key: connection}).certificate() is None


def test_a_plain_socket_has_no_certificate_whatever_the_variables_say(
    pair: Pair,
) -> None:
    variables = {"SSL_CLIENT_VERIFY": "SUCCESS", "SSL_CLIENT_CERT": CLIENT.pem}
    assert wsgi(**variables, **{"gunicorn.socket": pair[0]}).certificate() is None
