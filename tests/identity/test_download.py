"""A key set address may answer anything, slowly; what is taken from it is bounded in time, size and place."""

from __future__ import annotations

import datetime as dt
import gzip
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from authz_middleware.address import parse_address
from authz_middleware.identity.keys.download import DownloadError, download
from tests.support.pdp import certificate
from tests.support.tokens import KeyServer

Behaviour = Callable[[BaseHTTPRequestHandler], object]


@pytest.fixture
def server() -> Iterator[KeyServer]:
    with KeyServer({"keys": []}) as running:
        yield running


def answer(body: bytes, *headers: tuple[str, str], status: int = 200) -> Behaviour:
    def behave(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers:
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    return behave


def raw(data: bytes) -> Behaviour:
    return lambda handler: handler.wfile.write(data)


def half_closed(data: bytes) -> Behaviour:
    """Sends this, says that no more will come, and keeps the other half of the connection open."""

    def behave(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(data)
        handler.connection.shutdown(socket.SHUT_WR)
        time.sleep(1)

    return behave


def drip(head: bytes) -> Behaviour:
    """Sends a byte every 20 ms, so that no single read ever waits long."""

    def behave(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(head)
        for _ in range(150):
            handler.wfile.write(b"x")
            time.sleep(0.02)

    return behave


def test_the_body_of_a_plain_answer_is_returned(server: KeyServer) -> None:
    assert download(server.url, deadline=5) == b'{"keys": []}'


@pytest.mark.parametrize(
    "behave",
    [
        pytest.param(answer(b"0123456789"), id="ended by closing"),
        pytest.param(
            raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\n0123456789\r\n0\r\n\r\n"), id="chunks"
        ),
    ],
)
def test_a_body_of_any_framing_within_the_limit_is_returned(server: KeyServer, behave: Behaviour) -> None:
    server.behave = behave
    assert download(server.url, deadline=5, limit=10) == b"0123456789"


@pytest.mark.parametrize(
    ("behave", "why"),
    [
        pytest.param(answer(b"", ("Location", "/jwks"), status=302), "status 302", id="redirect"),
        pytest.param(answer(b"{}", status=404), "status 404", id="not found"),
        pytest.param(answer(b"{}", status=206), "status 206", id="partial"),
        pytest.param(answer(gzip.compress(b"{}"), ("Content-Encoding", "gzip")), "compressed", id="compressed"),
        pytest.param(answer(b"x" * 11), "more than 10 bytes", id="too long, ended by closing"),
        pytest.param(answer(b"x" * 11, ("Content-Length", "11")), "more than 10 bytes", id="too long, announced"),
        pytest.param(
            raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nb\r\nxxxxxxxxxxx\r\n0\r\n\r\n"),
            "more than 10 bytes",
            id="too long, in chunks",
        ),
        pytest.param(answer(b"x", ("Content-Length", "5")), "less than it announced", id="cut short"),
        pytest.param(raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfoo"), "well-formed", id="bad chunk"),
        pytest.param(raw(b"220 smtp.example ready\r\n"), "well-formed", id="not HTTP"),
        pytest.param(raw(b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 200 + b"\r\n"), "well-formed", id="200 headers"),
        pytest.param(lambda handler: handler.connection.close(), "well-formed|reached", id="hangs up"),
        pytest.param(half_closed(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nx"), "less than it", id="half closed"),
        pytest.param(
            half_closed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nx"), "well-formed", id="half chunk"
        ),
        pytest.param(half_closed(b"HTTP/1.1 200"), "less than a head", id="half a status line"),
        pytest.param(answer(b"{}", ("Content-Length", "2"), ("Content-Length", "2")), "two ways", id="two lengths"),
        pytest.param(
            answer(b"2\r\n{}\r\n0\r\n\r\n", ("Content-Length", "2"), ("Transfer-Encoding", "chunked")),
            "two ways",
            id="length and chunks",
        ),
        pytest.param(raw(b"HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\n{}"), "two ways", id="space before the colon"),
        pytest.param(answer(b"{}", ("Content-Length", "-2")), "unknown length", id="negative length"),
        pytest.param(
            answer(b"{}", ("Content-Length", "٢".encode().decode("latin-1"))), "unknown length", id="Arabic digit"
        ),
        pytest.param(answer(b"{}", ("Transfer-Encoding", "gzip")), "unknown length", id="unknown transfer coding"),
        pytest.param(
            answer(b"{}", ("Content-Encoding", "identity"), ("Content-Encoding", "br")), "compressed", id="brotli"
        ),
        pytest.param(answer(b"{}", ("Content-Type", "text/html")), "another type", id="a page"),
        pytest.param(answer(b"{}", ("Content-Type", "application/json, text/html")), "another type", id="two in one"),
        pytest.param(
            answer(b"{}", ("Content-Type", "application/json"), ("Content-Type", "text/html")),
            "another type",
            id="two types",
        ),
        pytest.param(answer(b"{}", ("Content-Type", "application/json; charset=utf-7")), "another type", id="utf-7"),
    ],
)
def test_any_other_answer_is_none(server: KeyServer, behave: Behaviour, why: str) -> None:
    server.behave = behave
    with pytest.raises(DownloadError, match=why) as caught:
        download(server.url, deadline=5, limit=10)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "behave",
    [
        pytest.param(lambda handler: time.sleep(3), id="silence"),
        pytest.param(drip(b"HTTP/1.1 200 OK\r\nA: "), id="headers that drip"),
        pytest.param(drip(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"), id="a body that drips"),
        pytest.param(drip(b"HTTP/1.1 200 OK\r\n\r\n"), id="a body without end"),
    ],
)
def test_the_deadline_is_for_the_whole_exchange(server: KeyServer, behave: Behaviour) -> None:
    server.behave = behave
    started = time.monotonic()
    with pytest.raises(DownloadError, match="in time"):
        download(server.url, deadline=0.3)
    assert time.monotonic() - started < 1


def test_a_tls_handshake_that_stalls_ends_at_the_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        started = time.monotonic()
        with pytest.raises(DownloadError, match="in time"):
            download(f"https://127.0.0.1:{listener.getsockname()[1]}/jwks", deadline=0.3)
    assert time.monotonic() - started < 1


@pytest.mark.capability("C44")
@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://issuer.example/jwks", "https"),
        ("https://user:password@127.0.0.1/jwks", "plain URL"),
        ("file:///etc/passwd", "plain URL"),
        ("https://127.0.0.1./jwks", "plain URL"),
    ],
)
def test_what_is_no_https_address_is_not_asked(url: str, why: str) -> None:
    with pytest.raises(DownloadError, match=why) as caught:
        download(url, deadline=1)
    assert "password" not in str(caught.value)


@pytest.mark.capability("C44")
def test_only_an_allowed_host_and_port_is_asked(server: KeyServer) -> None:
    port = parse_address(server.url).place[1]
    assert download(server.url, deadline=5, hosts=[("127.0.0.1", port)]) == b'{"keys": []}'
    for place in [("127.0.0.1", port + 1), ("localhost", port), ("127.0.0.1", 443), ("7.0.0.1", port), ("0.0.1", port)]:
        with pytest.raises(DownloadError, match="not allowed"):
            download(server.url, deadline=5, hosts=[place])
    assert server.fetches == 1


@pytest.mark.parametrize(
    "content_type", ["application/json", "Application/JWK-Set+JSON", 'application/json;charset="UTF-8"']
)
def test_a_key_set_may_say_what_it_is(server: KeyServer, content_type: str) -> None:
    server.behave = answer(b"{}", ("Content-Type", content_type))
    assert download(server.url, deadline=5) == b"{}"


def test_a_document_that_does_not_say_what_it_is_is_refused_where_it_must(server: KeyServer) -> None:
    with pytest.raises(DownloadError, match="another type"):
        download(server.url, deadline=5, media_types=["application/json"])


def test_nothing_is_asked_for_but_the_document(server: KeyServer) -> None:
    seen: list[tuple[str, str]] = []

    def behave(handler: BaseHTTPRequestHandler) -> None:
        seen.extend(handler.headers.items())
        server.serve(handler)

    server.behave = behave
    download(server.url, deadline=5)
    assert seen == [
        ("Host", f"127.0.0.1:{parse_address(server.url).place[1]}"),
        ("Accept", "application/jwk-set+json, application/json"),
        ("Accept-Encoding", "identity"),
        ("Connection", "close"),
    ]


def test_looking_up_the_host_is_part_of_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(2))
    started = time.monotonic()
    with pytest.raises(DownloadError, match="in time"):
        download("https://slow.example/jwks", deadline=0.2)
    assert time.monotonic() - started < 1


def test_a_proxy_of_the_environment_is_not_used(server: KeyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1/")
    assert download(server.url, deadline=5) == b'{"keys": []}'


def test_an_address_without_a_server_is_a_download_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(DownloadError, match="reached"):
        download(f"http://127.0.0.1:{port}/jwks", deadline=1)


@pytest.fixture
def tls_server(tmp_path: Path) -> Iterator[tuple[KeyServer, Path]]:
    """A key server over TLS, and the certificate that one has to trust to believe it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    start = dt.datetime.now(dt.UTC) - dt.timedelta(hours=1)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, start, start + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, SHA256())
    )
    pem = tmp_path / "certificate.pem"
    pem.write_bytes(certificate.public_bytes(Encoding.PEM))
    (tmp_path / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, tmp_path / "key.pem")
    with KeyServer({"keys": []}, tls=context) as running:
        yield running, pem


def test_over_tls_a_trusted_certificate_is_accepted(
    tls_server: tuple[KeyServer, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, trusted = tls_server
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    assert download(server.url, deadline=5) == b'{"keys": []}'


def test_over_tls_the_authorities_of_a_file_are_trusted_and_no_others(
    tls_server: tuple[KeyServer, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, trusted = tls_server
    assert download(server.url, deadline=5, ca_file=trusted) == b'{"keys": []}'
    (tmp_path / "other").mkdir()
    other, _ = certificate(tmp_path / "other")
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    with pytest.raises(DownloadError, match="trusted certificate"):
        download(server.url, deadline=5, ca_file=other)
    assert server.fetches == 1


@pytest.mark.parametrize("text", [None, "", "no certificate"])
def test_a_file_without_authorities_trusts_nobody(
    tls_server: tuple[KeyServer, Path], tmp_path: Path, text: str | None
) -> None:
    server, _ = tls_server
    path = tmp_path / "ca.pem"
    if text is not None:
        path.write_text(text)
    with pytest.raises(DownloadError, match=r"no certificates to trust can be read from .*ca\.pem"):
        download(server.url, deadline=5, ca_file=path)
    assert server.fetches == 0


def test_over_tls_an_unknown_certificate_is_refused(tls_server: tuple[KeyServer, Path]) -> None:
    server, _ = tls_server
    with pytest.raises(DownloadError, match="trusted certificate"):
        download(server.url, deadline=5)
    assert server.fetches == 0


def test_over_tls_a_certificate_for_another_name_is_refused(
    tls_server: tuple[KeyServer, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, trusted = tls_server
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    with pytest.raises(DownloadError, match="trusted certificate"):
        download(server.url.replace("localhost", "127.0.0.1"), deadline=5)
    assert server.fetches == 0
