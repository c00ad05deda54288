"""TLS and the Unix socket in `[remote]`: everything a person may write, and what is said when it cannot be meant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from authz_middleware.errors import Problem
from authz_middleware.identity.spiffe.spiffe_id import SpiffeId
from authz_middleware.settings.remote.decision_point import RemoteSettings, read_remote
from authz_middleware.settings.remote.tls import KeyPair, TlsSettings
from authz_middleware.settings.section import Section

PAIR = {"certificate_file": "tls.crt", "key_file": "tls.key"}
SPIFFE = {
    "certificate_file": "svid.pem",
    "key_file": "svid_key.pem",
    "bundle_file": "bundle.pem",
    "id": "spiffe://example.org/pdp",
}
BASE = Path("/etc/billing")


def read(**values: Any) -> tuple[RemoteSettings | None, list[str]]:
    problems: list[Problem] = []
    root = Section({"remote": {"url": "https://pdp.test", **values}}, "", problems, BASE)
    return read_remote(root), list(map(str, problems))


def test_a_client_certificate_and_authorities_are_files_beside_the_settings() -> None:
    settings, problems = read(client_certificate=PAIR, ca_file="ca.pem")
    assert problems == []
    assert settings is not None
    assert settings.tls == TlsSettings(BASE / "ca.pem", KeyPair(BASE / "tls.crt", BASE / "tls.key"))


def test_with_spiffe_the_bundle_is_all_that_is_trusted() -> None:
    settings, problems = read(spiffe=SPIFFE)
    assert problems == []
    assert settings is not None
    assert settings.tls == TlsSettings(
        BASE / "bundle.pem", KeyPair(BASE / "svid.pem", BASE / "svid_key.pem"), SpiffeId.parse(SPIFFE["id"])
    )


def test_a_unix_socket_needs_no_tls() -> None:
    settings, problems = read(unix_socket="run/pdp.sock", url="http://pdp.internal")
    assert problems == []
    assert settings is not None
    assert settings.unix_socket == BASE / "run/pdp.sock"


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"url": "http://pdp.internal"}, "remote.url: must be an https URL"),
        ({"url": "ftp://pdp.internal", "unix_socket": "a"}, "remote.url: must be an https URL"),
        ({"unix_socket": ""}, "remote.unix_socket: must be a non-empty string"),
        ({"unix_socket": "x" * 100}, "remote.unix_socket: must be a path of at most 103 bytes"),
        ({"unix_socket": "é" * 50}, "remote.unix_socket: must be a path of at most 103 bytes"),
        ({"unix_socket": "a\0b"}, "remote.unix_socket: must be a path, without a zero byte"),
        ({"client_certificate": "tls.pem"}, "remote.client_certificate: must be a table"),
        ({"client_certificate": {"certificate_file": "a"}}, "remote.client_certificate.key_file: is required"),
        ({"client_certificate": {**PAIR, "password": "x"}}, "remote.client_certificate.password: is not a known key"),
        ({"client_certificate": PAIR, "url": "http://localhost"}, "remote.client_certificate: needs an https URL"),
        ({"spiffe": SPIFFE, "url": "http://localhost"}, "remote.spiffe: needs an https URL"),
        ({"spiffe": SPIFFE, "ca_file": "ca.pem"}, "remote.spiffe: says whom to trust and what to show: leave out"),
        ({"spiffe": SPIFFE, "client_certificate": PAIR}, "remote.spiffe: says whom to trust and what to show"),
        ({"spiffe": {**SPIFFE, "id": "spiffe://example.org/*"}}, "remote.spiffe.id: must be the SPIFFE ID"),
        ({"spiffe": {**SPIFFE, "id": "pdp.example.org"}}, "remote.spiffe.id: must be the SPIFFE ID"),
        ({"spiffe": {"id": "spiffe://example.org/pdp"}}, "remote.spiffe.bundle_file: is required"),
        ({"spiffe": {**SPIFFE, "socket": "x"}}, "remote.spiffe.socket: is not a known key"),
    ],
)
def test_what_cannot_be_meant_is_told(values: dict[str, Any], problem: str) -> None:
    _, problems = read(**values)
    assert any(told.startswith(problem) for told in problems), problems
