"""Whatever stands in the settings, wherever: it is used, or said to be no use; never a crash, never a secret shown."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz_middleware.errors import SettingsError
from authz_middleware.server.settings import ServerSettings
from authz_middleware.settings import Settings
from tests.support.misplaced import CANARY, HIDDEN, Place, places, put, told, values

REQUEST: dict[str, Any] = {
    "subject": {"type": "human", "id": "a", "properties": {"roles": ["r"]}},
    "action": {"name": "a:b"},
    "resource": {"type": "t", "id": "1"},
    "context": {"purpose": "p"},
}
COMMON: dict[str, Any] = {
    "policy": {"source": "policy.yaml", "allow_unsigned": True, "refresh": "1s"},
    "issuers": [
        {"issuer": "https://idp.test/", "audience": ["a"], "jwks_uri": "https://idp.test/k", "algorithms": ["ES256"]}
    ],
    "decision_log": {"sink": "file:log", "mode": "blocking", "queue": 10, "max_wait": "1s"},
}
APPLICATION: dict[str, Any] = {
    **COMMON,
    "app": {"name": "billing", "environment": "test", "mode": "enforce", "sensitive": ["a:*"]},
    "fallback": {
        "default": "deny",
        "degraded_header": True,
        "actions": {
            "a:b": {"mode": "cached", "max_stale": "1s", "on_faults": True},
            "a:c": {"mode": "degrade", "rules": "few"},
        },
    },
}
TOKEN_FILE: dict[str, Any] = {
    "url": "https://pdp.test",
    "dialect": "authzen",
    "deadline": "1s",
    "deadlines": {"a:b": "1s"},
    "credential": {"token_file": "token"},
    "ca_file": "ca.pem",
    "client_certificate": {"certificate_file": "c.pem", "key_file": "c.key"},
    "max_connections": 1,
    "permit_ttl": "1s",
    "breaker": {"failures": 1, "pause": "1s"},
    "discovery": True,
    "allowed_hosts": ["other.test"],
    "metadata_keys": {"jwks_file": "keys", "algorithms": ["ES256"], "issuer": "https://pdp.test"},
    "discovery_refresh": "1m",
    "discovery_deadline": "1s",
    "evaluation_endpoint": "https://pdp.test/e",
    "max_batch": 1,
}
STATIC: dict[str, Any] = {
    "url": "https://pdp.test",
    "credential": {"token": {"env": "PDP"}, "owner": "o", "rotate_by": "2026-12-31"},
    "spiffe": {"certificate_file": "c", "key_file": "k", "bundle_file": "b", "id": "spiffe://example.org/pdp"},
    "unix_socket": "pdp.sock",
    "probe": {"permit": REQUEST, "deny": {**REQUEST, "context": {"purpose": "q"}}},
}
CLIENT: dict[str, Any] = {
    "token_endpoint": "https://idp.test/token",
    "issuer": "https://idp.test/",
    "client_id": "billing",
    "private_key": {"file": "key.pem"},
    "algorithm": "ES256",
    "key_id": "k",
    "assertion_type": "JWT",
    "scope": ["s"],
    "audience": "a",
    "resource": ["https://pdp.test"],
    "ca_file": "ca.pem",
    "deadline": "1s",
}
SERVER: dict[str, Any] = {
    **COMMON,
    "server": {
        "host": "127.0.0.1",
        "port": 8181,
        "base_url": "https://pdp.test",
        "name": "pdp",
        "environment": "test",
        "workers": 1,
        "arrival": "1s",
        "drain": "1s",
        "max_body": 2048,
        "max_batch": 1,
        "max_page": 1,
        "unknown_members": "ignore",
        "plain_http": True,
    },
    "tls": {"certificate": "c", "key": "k", "client_ca": "ca", "client_certificate": "required"},
    "callers": {"tokens": {"a": "b"}, "certificates": ["x.test"], "anyone": False},
}

Read = Callable[[Any, Path], object]
TABLES: dict[str, tuple[Any, Read]] = {
    "token file": ({**APPLICATION, "remote": TOKEN_FILE}, Settings.from_mapping),
    "static token": ({**APPLICATION, "remote": STATIC}, Settings.from_mapping),
    "client credentials": (
        {**APPLICATION, "remote": {"url": "https://pdp.test", "credential": {"client_credentials": CLIENT}}},
        Settings.from_mapping,
    ),
    "server": (SERVER, ServerSettings.from_mapping),
}
PLACES = [(name, place) for name, (tables, _) in TABLES.items() for place in places(tables)]


@pytest.mark.parametrize("name", TABLES)
def test_what_the_others_spoil_can_be_used(name: str) -> None:
    tables, read = TABLES[name]
    read(tables, Path("/etc/app"))


@given(st.sampled_from(PLACES), values)
def test_no_value_anywhere_is_more_than_a_mistake(where: tuple[str, Place], value: Any) -> None:
    name, place = where
    tables, read = TABLES[name]
    with contextlib.suppress(SettingsError):
        read(put(tables, place, value), Path("/etc/app"))


def problems(name: str, place: Place, value: Any) -> str:
    tables, read = TABLES[name]
    try:
        read(put(tables, place, value), Path("/etc/app"))
    except SettingsError as error:
        return told(error)
    return ""


@pytest.mark.promise("P6")
@pytest.mark.parametrize("name", TABLES)
def test_nothing_within_a_misplaced_table_is_shown(name: str) -> None:
    # In `deadlines` every name is one, so the value below is a duration, and no duration is a secret.
    some = [place for place in places(TABLES[name][0]) if place[-1:] != ("deadlines",)]
    assert [(place, hidden) for place in some for hidden in HIDDEN if CANARY in problems(name, place, hidden)] == []


@pytest.mark.parametrize("value", [10**5000, -(10**5000)], ids=["large", "small"])
def test_a_number_too_long_to_be_written_is_told_of(value: int) -> None:
    for name, place in PLACES:
        if "properties" not in place and "context" not in place:  # where any number has its place
            assert problems(name, place, value), place
