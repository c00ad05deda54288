"""A certificate is the same one in whatever form its holder brings it."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from authz_middleware.identity.connection.asgi import ASGICredentials
from authz_middleware.identity.connection.certificate import thumbprint_of
from authz_middleware.identity.connection.proxies import Proxies
from authz_middleware.identity.spiffe.trust_domains import TrustDomains
from authz_middleware.settings import Settings
from tests.support.certificates import Authority, Holder
from tests.support.spiffe import TrustDomain
from tests.support.treasury import settings

ORDER_OF_P256 = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
ECDSA_WITH_SHA256 = bytes.fromhex("300a06082a8648ce3d040302")
PROXY = "10.0.0.3"


def tlv(tag: int, body: bytes) -> bytes:
    size = len(body)
    length = bytes([size]) if size < 128 else bytes([0x82]) + size.to_bytes(2, "big")
    return bytes([tag]) + length + body


def twin_of(der: bytes) -> bytes:
    """What the holder of a certificate can make of it without its authority: the other signature that is as valid."""
    certificate = x509.load_der_x509_certificate(der)
    r, s = decode_dss_signature(certificate.signature)
    signature = encode_dss_signature(r, ORDER_OF_P256 - s)
    return tlv(0x30, certificate.tbs_certificate_bytes + ECDSA_WITH_SHA256 + tlv(0x03, b"\0" + signature))


def test_a_tls_server_takes_the_twin_of_a_certificate(tmp_path: Path) -> None:
    authority = Authority()
    holder = authority.issue("workload")
    twin = Holder(x509.load_der_x509_certificate(twin_of(holder.der)), holder.key)
    seen: list[bytes | None] = []

    def serve() -> None:
        plain, _ = listener.accept()
        with authority.server_context(tmp_path).wrap_socket(plain, server_side=True) as connection:
            seen.append(connection.getpeercert(binary_form=True))
            connection.sendall(b"x")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        plain = socket.create_connection(listener.getsockname(), timeout=20)
        with authority.client_context(tmp_path, twin).wrap_socket(plain, server_hostname="127.0.0.1") as connection:
            connection.recv(1)
        thread.join()
    assert seen == [twin.der]
    assert thumbprint_of(twin.der) != thumbprint_of(holder.der)


@pytest.mark.capability("C13", "C18")
@pytest.mark.promise("P5")
def test_the_twin_of_a_certificate_has_the_token_id_by_which_it_was_revoked(tmp_path: Path) -> None:
    now, domain = time.time(), TrustDomain()
    table = {"name": domain.name, "paths": ["/ns/**"], "x509": True, "environment": "production"}
    domains = TrustDomains(Settings.from_mapping({**settings(tmp_path), "trust_domains": [table]}).trust_domains)
    der = domain.certificate(now=now)
    ids = {domains.principal_of_certificate(each, now).token_id for each in (der, twin_of(der))}
    assert len(ids) == 1
    assert ids != {domains.principal_of_certificate(domain.certificate(now=now), now).token_id}


@pytest.mark.capability("C19", "C44")
@pytest.mark.promise("P3")
@pytest.mark.parametrize("port", ["443", "0443", "4_43", " 443"])
def test_an_address_and_port_that_a_server_took_from_two_headers_are_no_proxy(tmp_path: Path, port: str) -> None:
    """As daphne does with `--proxy-headers`."""
    proxies = {"trusted": [PROXY], "client_certificate": {"format": "rfc9440"}}
    known = Proxies(Settings.from_mapping({**settings(tmp_path), "proxies": proxies}).proxies)
    forged = [
        (b"x-forwarded-for", PROXY.encode()),
        (b"x-forwarded-port", port.encode()),
        (b"client-cert", b":QUJD:"),
    ]
    scope: dict[str, Any] = {"type": "http", "method": "GET", "client": [PROXY, 443], "headers": forged}
    credentials = ASGICredentials(scope)
    assert credentials.peer is None
    assert known.certificate_of(credentials) is None
