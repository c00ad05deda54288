"""The table `[[issuers]]`: one key source each, with the settings that mean something for it and no others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from authz_middleware.errors import SettingsError
from authz_middleware.settings import IssuerSettings, Secret, Settings
from authz_middleware.settings.key_sources import IntrospectionSettings, RefreshTimes

URL = "https://idp.example.com/"
ASKED = {"url": f"{URL}introspect", "client_id": "billing", "client_secret": {"env": "CLIENT_SECRET"}}
JWKS_URI = {"jwks_uri": f"{URL}jwks", "algorithms": ["ES256"]}
JWKS_FILE = {"jwks_file": "keys.json", "algorithms": ["ES256"]}
JWKS = {"jwks": {"keys": []}, "algorithms": ["ES256"]}
DISCOVERY = {"discovery": "openid", "algorithms": ["ES256"]}
INTROSPECTION: dict[str, Any] = {"introspection": ASKED}


def values(*issuers: dict[str, Any]) -> dict[str, Any]:
    return {
        "app": {"name": "billing", "environment": "production"},
        "issuers": [{"issuer": f"{URL}{i or ''}", "audience": ["billing-api"], **one} for i, one in enumerate(issuers)],
        "policy": {"source": "billing.yaml", "allow_unsigned": True},
        "decision_log": {"sink": "stdout"},
    }


def issuer(**written: Any) -> IssuerSettings:
    return Settings.from_mapping(values(written), base=Path("/etc/billing")).issuers[0]


def problems(*issuers: dict[str, Any]) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        Settings.from_mapping(values(*issuers))
    return [str(problem) for problem in caught.value.problems]


def asked(**changes: Any) -> dict[str, Any]:
    """The introspection table with other values; those that are None are left out."""
    return {"introspection": {name: value for name, value in {**ASKED, **changes}.items() if value is not None}}


@pytest.mark.parametrize("source", [JWKS_URI, DISCOVERY], ids=["jwks_uri", "discovery"])
def test_keys_that_are_fetched_have_hosts_authorities_and_times(source: dict[str, Any]) -> None:
    settings = issuer(
        **source,
        key_hosts=["keys.example.com", "IDP.example.com:443", "[::1]:8443"],
        ca_file="ca.pem",
        key_refresh="1m",
        key_cooldown="30s",
        key_max_age="2h",
        key_deadline="2s",
    )
    assert settings.key_hosts == (("keys.example.com", 443), ("idp.example.com", 443), ("::1", 8443))
    assert settings.ca_file == Path("/etc/billing/ca.pem")
    assert settings.refresh == RefreshTimes(interval=60, cooldown=30, max_age=7200, deadline=2)


def test_without_being_told_keys_are_looked_for_every_five_minutes_and_kept_for_a_day() -> None:
    assert issuer(**JWKS_URI).refresh == RefreshTimes(interval=300, cooldown=10, max_age=86_400, deadline=5)


def test_a_key_file_has_a_pace_of_its_own() -> None:
    assert issuer(**JWKS_FILE).refresh.poll == 1
    settings = issuer(**JWKS_FILE, key_refresh="200ms", key_max_age="1h")
    assert (settings.refresh.poll, settings.refresh.max_age) == (0.2, 3600)
    assert settings.jwks_file == Path("/etc/billing/keys.json")


@pytest.mark.parametrize("discovery", ["openid", "oauth"])
def test_the_metadata_of_the_issuer_may_name_the_keys(discovery: str) -> None:
    settings = issuer(discovery=discovery, algorithms=["ES256"])
    assert (settings.discovery, settings.jwks_uri, settings.issuer) == (discovery, None, URL)


def test_opaque_tokens_have_no_algorithms_and_are_asked_about() -> None:
    settings = issuer(**asked(ca_file="ca.pem", deadline="300ms", cache_ttl="10s", max_connections=8))
    assert settings.algorithms == ()
    assert settings.introspection == IntrospectionSettings(
        url=f"{URL}introspect",
        client_id="billing",
        client_secret=Secret(env="CLIENT_SECRET"),
        ca_file=Path("/etc/billing/ca.pem"),
        deadline=0.3,
        cache_ttl=10.0,
        max_connections=8,
    )


def test_the_introspection_endpoint_may_be_shown_a_token_of_a_file() -> None:
    settings = issuer(introspection={"url": f"{URL}introspect", "token_file": "token"})
    assert settings.introspection is not None
    assert settings.introspection.token == Secret(file=Path("/etc/billing/token"))
    assert (settings.introspection.deadline, settings.introspection.cache_ttl) == (1.0, 0.0)


ONE_OF = "issuers[0]: needs exactly one of jwks_uri, jwks_file, jwks, discovery, introspection"


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ({"algorithms": ["ES256"]}, ONE_OF),
        ({**JWKS_URI, **DISCOVERY}, ONE_OF),
        ({**JWKS_FILE, **JWKS}, ONE_OF),
        ({**INTROSPECTION, **JWKS_URI}, ONE_OF),
        ({**DISCOVERY, **INTROSPECTION}, ONE_OF),
        ({**DISCOVERY, "discovery": "saml"}, 'issuers[0].discovery: must be one of "openid", "oauth", not \'saml\''),
        ({**DISCOVERY, "discovery": True}, 'issuers[0].discovery: must be one of "openid", "oauth", not True'),
        ({**DISCOVERY, "issuer": "urn:issuer"}, "issuers[0].issuer: must have a host"),
        ({**DISCOVERY, "issuer": "http://idp.example.com/"}, "issuers[0].issuer: must be an https URL"),
        ({**DISCOVERY, "issuer": "https://idp.example.com./"}, "issuers[0].issuer: must be a plain URL"),
        ({**DISCOVERY, "issuer": "https://idp.example.com/?tenant=1"}, "issuers[0].issuer: must have a host"),
        ({"discovery": "openid"}, "issuers[0].algorithms: is required"),
        ({**JWKS_URI, "jwks_uri": 7}, "issuers[0].jwks_uri: must be a non-empty string, not 7"),
        ({**JWKS_URI, "jwks_uri": "https://idp.example.com./jwks"}, "issuers[0].jwks_uri: must be a plain URL"),
        ({**JWKS_URI, "jwks_uri": "https://bücher.example/jwks"}, "issuers[0].jwks_uri: must be a plain URL"),
        ({**JWKS_URI, "key_hosts": ["keys.example.com"]}, "issuers[0].key_hosts: does not have the host of jwks_uri"),
        ({**JWKS_URI, "key_hosts": ["idp.example.com:8443"]}, "issuers[0].key_hosts: does not have the host"),
        ({**JWKS_URI, "key_hosts": "idp.example.com"}, "issuers[0].key_hosts: must be a non-empty list of strings"),
        ({**JWKS_URI, "key_hosts": []}, "issuers[0].key_hosts: must be a non-empty list of strings"),
        ({**JWKS_URI, "key_hosts": ["*.example.com"]}, "issuers[0].key_hosts: has '*.example.com'; accepted: a host"),
        ({**JWKS_URI, "key_hosts": ["https://idp.example.com/"]}, "issuers[0].key_hosts: has 'https://idp"),
        ({**JWKS_URI, "key_refresh": "9s"}, "issuers[0].key_refresh: must be a duration from 10s to 1d"),
        ({**JWKS_URI, "key_cooldown": "0s"}, "issuers[0].key_cooldown: must be a duration from 1s to 1h"),
        ({**JWKS_URI, "key_max_age": "31d"}, "issuers[0].key_max_age: must be a duration from 1m to 30d"),
        ({**JWKS_URI, "key_deadline": "31s"}, "issuers[0].key_deadline: must be a duration from 100ms to 30s"),
        ({**JWKS_URI, "key_refresh": "1h", "key_max_age": "10m"}, "issuers[0].key_max_age: must not be shorter than"),
        ({**JWKS_FILE, "key_hosts": ["idp.example.com"]}, "issuers[0].key_hosts: is not a known key; accepted here:"),
        ({**JWKS_FILE, "ca_file": "ca.pem"}, "issuers[0].ca_file: is not a known key"),
        ({**JWKS_FILE, "key_deadline": "1s"}, "issuers[0].key_deadline: is not a known key"),
        ({**JWKS, "key_refresh": "1m"}, "issuers[0].key_refresh: is not a known key"),
        ({**INTROSPECTION, "algorithms": ["ES256"]}, "issuers[0].algorithms: is not a known key"),
        ({**INTROSPECTION, "token_types": ["JWT"]}, "issuers[0].token_types: is not a known key"),
        ({"token_types": ["at+jwt", "application/DPoP+JWT"]}, "issuers[0].token_types: has 'application/DPoP+JWT'"),
        ({"token_types": ["J\u0174T"]}, "issuers[0].token_types: has"),
        ({**INTROSPECTION, "ca_file": "ca.pem"}, "issuers[0].ca_file: is not a known key"),
        ({"introspection": "https://idp.example.com/"}, "issuers[0].introspection: must be a table, not of type str"),
        (asked(url=None), "issuers[0].introspection.url: is required: a non-empty string"),
        (asked(url="http://idp.example.com/"), "issuers[0].introspection.url: must be an https URL"),
        (asked(url="https://u:p@idp.example.com/"), "issuers[0].introspection.url: must have a host"),
        (asked(url="https://idp.example.com./"), "issuers[0].introspection.url: must be a plain URL"),
        (asked(client_id=None), "issuers[0].introspection: needs either client_id and client_secret, or token_file"),
        (
            asked(client_secret=None),
            "issuers[0].introspection: needs either client_id and client_secret, or token_file",
        ),
        (asked(client_id=None, client_secret=None), "issuers[0].introspection: needs either client_id and"),
        (
            asked(token_file="token"),
            "issuers[0].introspection: needs either client_id and client_secret, or token_file",
        ),
        (asked(client_secret="s3cret"), "issuers[0].introspection.client_secret: must be { env"),
        (asked(deadline="31s"), "issuers[0].introspection.deadline: must be a duration from 1ms to 30s"),
        (asked(cache_ttl="6m"), "issuers[0].introspection.cache_ttl: must be a duration from 0s to 5m"),
        (asked(max_connections=0), "issuers[0].introspection.max_connections: must be a whole number from 1 to 4096"),
        (asked(cache="5m"), "issuers[0].introspection.cache: is not a known key; accepted here: ca_file, cache_ttl"),
    ],
)
def test_a_mistake_is_named_with_its_place_and_what_is_accepted(written: dict[str, Any], said: str) -> None:
    told = problems(written)
    assert any(problem.startswith(said) for problem in told), told
    assert not any("s3cret" in problem for problem in told)
    assert len(told) == len(set(told))


@pytest.mark.capability("C44")
def test_two_issuers_cannot_both_be_asked_about_opaque_tokens() -> None:
    """A token that says nothing of itself would be shown to one that it is not for."""
    (told,) = problems(INTROSPECTION, INTROSPECTION)
    assert told.startswith("issuers: has several entries with introspection")
    assert len(Settings.from_mapping(values(INTROSPECTION, JWKS_URI, DISCOVERY)).issuers) == 3
