"""`[remote]`: where the APIs of the decision point are, by default, by hand and by metadata."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from authz_middleware.errors import Problem
from authz_middleware.settings.remote.decision_point import RemoteSettings, read_remote
from authz_middleware.settings.remote.endpoints import DiscoverySettings, EndpointSettings, MetadataKeys
from authz_middleware.settings.section import Section

URL = "https://pdp.example.com/tenant1"


def read(values: dict[str, Any]) -> tuple[RemoteSettings | None, list[str]]:
    problems: list[Problem] = []
    remote = read_remote(Section({"remote": {"url": URL, **values}}, "", problems, Path("/etc/billing")))
    return remote, [str(problem) for problem in problems]


def endpoints(**values: Any) -> EndpointSettings:
    remote, problems = read(values)
    assert remote is not None
    assert problems == []
    return remote.endpoints


def problem(**values: Any) -> str:
    _, problems = read(values)
    assert len(problems) == 1
    return problems[0]


def test_by_default_the_paths_are_the_standard_s_and_nothing_is_looked_up() -> None:
    assert endpoints() == EndpointSettings({}, None, 50)


def test_each_endpoint_can_be_given() -> None:
    given = {
        name: f"https://api.example.com/{name}"
        for name in ("evaluation", "evaluations", "search_subject", "search_resource", "search_action")
    }
    assert endpoints(**{f"{name}_endpoint": url for name, url in given.items()}).given == given


@pytest.mark.parametrize("key", ["evaluation_endpoint", "search_action_endpoint"])
@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("http://api.example.com/one", "must be an https URL"),
        ("https://user:pass@api.example.com/one", "neither credentials, query nor fragment"),
        ("https://api.example.com/one?a=b", "neither credentials, query nor fragment"),
        ("https://api.example.com./one", "must be a plain URL"),
        ("", "must be a non-empty string"),
        (1, "must be a non-empty string"),
    ],
)
def test_a_given_endpoint_is_an_address_of_one_reading(key: str, url: object, what: str) -> None:
    told = problem(**{key: url})
    assert told.startswith(f"remote.{key}: ")
    assert what in told


def test_discovery_has_defaults() -> None:
    assert endpoints(discovery=True).discovery == DiscoverySettings((), None, 300.0, 5.0)


def test_discovery_can_be_told_everything() -> None:
    assert endpoints(
        discovery=True,
        allowed_hosts=["API.example.com", "other.example.com:8443"],
        discovery_refresh="10m",
        discovery_deadline="2s",
        metadata_keys={
            "jwks_file": "pdp.jwks",
            "algorithms": ["ES256", "EdDSA"],
            "issuer": "https://signer.example.com",
        },
    ).discovery == DiscoverySettings(
        (("api.example.com", 443), ("other.example.com", 8443)),
        MetadataKeys(Path("/etc/billing/pdp.jwks"), ("ES256", "EdDSA"), "https://signer.example.com"),
        600.0,
        2.0,
    )


def test_metadata_is_signed_by_the_decision_point_itself_unless_another_is_named() -> None:
    found = endpoints(discovery=True, metadata_keys={"jwks_file": "k", "algorithms": ["ES256"]}).discovery
    assert found is not None
    assert found.keys == MetadataKeys(Path("/etc/billing/k"), ("ES256",), URL)


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ({"discovery": "yes"}, "remote.discovery: must be true or false"),
        ({"allowed_hosts": ["a.example.com"]}, "remote.allowed_hosts: means nothing without discovery = true"),
        ({"discovery_refresh": "1m"}, "remote.discovery_refresh: means nothing without discovery = true"),
        ({"discovery_deadline": "1s"}, "remote.discovery_deadline: means nothing without discovery = true"),
        (
            {"discovery": False, "metadata_keys": {"jwks_file": "k", "algorithms": ["ES256"]}},
            "remote.metadata_keys: means nothing without discovery = true",
        ),
        ({"discovery": True, "allowed_hosts": ["https://a.example.com/"]}, "remote.allowed_hosts: has 'https://a.exa"),
        (
            {"discovery": True, "allowed_hosts": ["a.example.com/path"]},
            "remote.allowed_hosts: has 'a.example.com/path'",
        ),
        ({"discovery": True, "discovery_refresh": "1s"}, "remote.discovery_refresh: must be a duration from 10s to 1d"),
        ({"discovery": True, "discovery_deadline": "1h"}, "remote.discovery_deadline: must be a duration from 100ms"),
        ({"discovery": True, "metadata_keys": {"jwks_file": "k"}}, "remote.metadata_keys.algorithms: is required"),
        (
            {"discovery": True, "metadata_keys": {"algorithms": ["ES256"]}},
            "remote.metadata_keys.jwks_file: is required",
        ),
        (
            {"discovery": True, "metadata_keys": {"jwks_file": "k", "algorithms": ["HS256"]}},
            "remote.metadata_keys.algorithms: has 'HS256'; accepted: ES256",
        ),
        (
            {"discovery": True, "metadata_keys": {"jwks_file": "k", "algorithms": ["none"]}},
            "remote.metadata_keys.algorithms: has 'none'; accepted: ES256",
        ),
        (
            {"discovery": True, "metadata_keys": {"jwks_file": "k", "algorithms": ["ES256"], "keys": 1}},
            "remote.metadata_keys.keys: is not a known key",
        ),
        ({"discovery": True, "url": "https://pdp.example.com./"}, "remote.url: must be a plain URL"),
        ({"discovery": True, "url": "ftp://pdp.example.com"}, "remote.url: must be an https URL"),
        ({"discovery": True, "unix_socket": "/run/pdp"}, "remote.discovery: fetches metadata from the host of the url"),
        ({"max_batch": 0}, "remote.max_batch: must be a whole number from 1 to 1000"),
        ({"max_batch": True}, "remote.max_batch: must be a whole number from 1 to 1000"),
    ],
)
def test_what_cannot_be_meant_is_said(values: dict[str, Any], what: str) -> None:
    assert problem(**values).startswith(what)
