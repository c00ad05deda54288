"""The settings of a decision point: what they mean, and every mistake said at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from authz_middleware.errors import SettingsError
from authz_middleware.server.settings import ServerSettings, base_url_of, is_loopback

POLICY: dict[str, Any] = {"source": "policy.yaml", "allow_unsigned": True}
TLS = {"certificate": "server.pem", "key": "server.key"}
REMOTE = {"host": "0.0.0.0", "base_url": "https://pdp.test"}
ISSUER = {"issuer": "https://idp.test/", "algorithms": ["ES256"], "jwks_uri": "https://idp.test/jwks"}


def read(**tables: Any) -> ServerSettings:
    return ServerSettings.from_mapping({"policy": POLICY, **tables}, Path("/etc/pdp"))


def problems(**tables: Any) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        read(**tables)
    return [problem.where for problem in caught.value.problems]


def test_a_policy_is_all_it_takes_on_this_machine() -> None:
    settings = read()
    assert settings.base_url == "http://127.0.0.1:8181"
    assert settings.policy.source == Path("/etc/pdp/policy.yaml")
    assert settings.policy.refresh == 1.0
    assert settings.decision_log is None
    assert not settings.knows_callers


def test_everything_can_be_said(tmp_path: Path) -> None:
    file = tmp_path / "pdp.toml"
    file.write_text(
        """
        [server]
        host = "0.0.0.0"
        port = 8443
        base_url = "https://pdp.test/authz"
        name = "pdp"
        environment = "production"
        workers = 2
        drain = "30s"
        max_body = 65536
        max_batch = 50
        max_page = 20
        [tls]
        certificate = "server.pem"
        key = "server.key"
        client_ca = "clients.pem"
        client_certificate = "optional"
        [callers]
        tokens = {billing = "billing.token"}
        certificates = ["spiffe://example.org/billing"]
        [[issuers]]
        issuer = "https://idp.test/"
        algorithms = ["ES256"]
        jwks_uri = "https://idp.test/jwks"
        [policy]
        source = "policy.yaml"
        allow_unsigned = true
        refresh = "5s"
        [decision_log]
        sink = "file:decisions.jsonl"
        mode = "required"
        """
    )
    settings = ServerSettings.from_toml(file)
    assert settings.callers.tokens == {"billing": tmp_path / "billing.token"}
    assert settings.callers.issuers[0].audience == ("https://pdp.test/authz",)
    assert settings.callers.certificates == ("spiffe://example.org/billing",)
    assert settings.tls is not None
    assert settings.tls.client_ca == tmp_path / "clients.pem"
    assert settings.decision_log is not None
    assert settings.decision_log.sink == f"file:{tmp_path / 'decisions.jsonl'}"
    assert (settings.app.name, settings.app.environment) == ("pdp", "production")
    assert (settings.workers, settings.drain, settings.policy.refresh) == (2, 30.0, 5.0)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "pdp.internal", "127.0.0.1.evil.test"])
def test_where_others_can_come_somebody_says_who_may_ask_and_under_which_name(host: str) -> None:
    assert problems(server={"host": host}) == ["server.base_url", "callers", "server.plain_http"]


@pytest.mark.parametrize(
    "tables",
    [
        {"callers": {"anyone": True}, "tls": TLS},
        {"callers": {"tokens": {"a": "a"}}, "tls": TLS},
        {"callers": {"tokens": {"a": "a"}}, "server": {**REMOTE, "plain_http": True}},
        {"issuers": [ISSUER], "tls": TLS},
        {"tls": {**TLS, "client_ca": "ca.pem"}},
    ],
)
def test_these_say_so(tables: dict[str, Any]) -> None:
    read(**{"server": REMOTE, **tables})


@pytest.mark.parametrize(
    ("tables", "where"),
    [
        ({"server": REMOTE, "callers": {"tokens": {"a": "a"}}}, ["server.plain_http"]),
        ({"server": REMOTE, "tls": TLS}, ["callers"]),
        ({"callers": {"anyone": True, "tokens": {"a": "a"}}}, ["callers.anyone"]),
        ({"callers": {"certificates": ["a.test"]}, "tls": TLS}, ["callers.certificates"]),
        ({"callers": {"certificates": []}, "tls": {**TLS, "client_ca": "ca"}}, ["callers.certificates"]),
        ({"callers": {"tokens": {"a": 7}}}, ["callers.tokens.a"]),
        ({"callers": {"tokens": {"a": "x\0"}}}, ["callers.tokens.a"]),
        ({"callers": {"tokens": {}}}, ["callers.tokens"]),
        ({"tls": {"certificate": "server.pem"}}, ["tls.key"]),
        ({"tls": {**TLS, "client_certificate": "required"}}, ["tls.client_ca"]),
        ({"tls": {**TLS, "client_ca": "ca", "client_certificate": "none"}}, ["tls.client_certificate"]),
        ({"tls": {**TLS, "verify": False}}, ["tls.verify"]),
        ({"server": {"base_url": "http://pdp.test"}}, ["server.base_url"]),
        ({"server": {"base_url": "https://pdp.test/"}}, ["server.base_url"]),
        ({"server": {"base_url": "https://pdp.test?x=1"}}, ["server.base_url"]),
        ({"server": {"base_url": "http://127.0.0.1:8181"}, "tls": TLS}, ["server.base_url"]),
        ({"server": {"port": 0}}, ["server.port"]),
        ({"server": {"workers": 0, "max_batch": 0, "drain": 5}}, ["server.workers", "server.drain"]),
        ({"server": {"reload": True}}, ["server.reload"]),
        ({"decision_log": {"mode": "required"}}, ["decision_log.sink"]),
        ({"policy": {"source": "p.yaml"}}, ["policy.allow_unsigned"]),
        ({"remote": {"url": "https://pdp.test"}}, ["remote"]),
        ({"app": {"name": "x"}}, ["app"]),
        ({"issuers": [{"issuer": "https://idp.test/"}]}, ["issuers[0].algorithms"]),
    ],
)  # fmt: skip
def test_a_mistake_is_named(tables: dict[str, Any], where: list[str]) -> None:
    assert set(problems(**tables)) >= set(where)


def test_the_audience_of_a_token_can_be_another_one() -> None:
    settings = read(issuers=[{**ISSUER, "audience": ["pdp"]}])
    assert settings.callers.issuers[0].audience == ("pdp",)


@pytest.mark.parametrize("text", ["[server", "\xff", "a = " + "[" * 9999, "a = " + "9" * 9999])
def test_a_file_that_is_no_settings_file_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "pdp.toml"
    file.write_bytes(text.encode("latin-1"))
    for path in (file, tmp_path / "absent.toml"):
        with pytest.raises(SettingsError, match=path.name):
            ServerSettings.from_toml(path)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_these_addresses_are_this_machine_only(host: str) -> None:
    assert is_loopback(host)


def test_a_base_url_puts_an_ipv6_address_in_brackets() -> None:
    assert base_url_of("::1", 8181) == "http://[::1]:8181"
    assert base_url_of("127.0.0.1", 8181) == "http://127.0.0.1:8181"
