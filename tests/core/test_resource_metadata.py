"""Protected-resource metadata (RFC 9728): what is told, where it lies, and what is never told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from authz_middleware.errors import SettingsError
from authz_middleware.identity.possession.binding import AcceptedBindings
from authz_middleware.resource_metadata import metadata_answer, metadata_of, metadata_path, metadata_url
from authz_middleware.settings import Settings
from tests.support.policies import rules_document, snapshot_of

RESOURCE = "https://billing.example.com"
ISSUERS = ["https://idp.example.com/", "https://partner.example.org", "spiffe.example"]
# RFC 9728 sections 2 and 7.1: the registered members.
REGISTERED = {
    *("resource", "authorization_servers", "jwks_uri", "scopes_supported", "bearer_methods_supported"),
    *("resource_signing_alg_values_supported", "resource_name", "resource_documentation", "resource_policy_uri"),
    *("resource_tos_uri", "tls_client_certificate_bound_access_tokens", "authorization_details_types_supported"),
    *("dpop_signing_alg_values_supported", "dpop_bound_access_tokens_required", "signed_metadata"),
}
NONE = AcceptedBindings()
SCOPED = snapshot_of(
    rules_document("""\
    - {rule: a, permit: "a:*", when: {subject.scopes: {has: read}}}
    - {rule: b, permit: b, when: {any: [{subject.scopes: {has_any: [write, admin]}}, {subject.roles: {has: manager}}]}}
    - {rule: c, permit: c, authentication: {acr: phr}, when: {subject.scopes: {has_all: [pay, read]}, subject.id: x}}
    - {rule: d, permit: d, when: {not: {subject.scopes: {has: banned}}}}
    - {rule: e, permit: e, when: {subject.scopes: {has: "not a scope"}}}
    - {rule: f, deny: "*", when: {subject.scopes: {has: secret}}}
    """)
)


def described(**table: Any) -> Settings:
    issuers = [
        {"issuer": issuer, "audience": ["billing-api"], "algorithms": ["ES256"], "jwks_file": "keys.json"}
        for issuer in ISSUERS
    ]
    return Settings.from_mapping(
        {
            "app": {"name": "billing", "environment": "production"},
            "issuers": issuers,
            "policy": {"source": "billing.yaml", "allow_unsigned": True},
            "decision_log": {"sink": "stdout"},
            "protected_resource": {"resource": RESOURCE, **table},
        },
        Path("/etc/billing"),
    )


def members(**table: Any) -> dict[str, Any]:
    told = metadata_of(described(**table), SCOPED, NONE)
    assert told is not None
    return told


@pytest.mark.parametrize(
    ("resource", "path"),
    [
        # RFC 9728 section 3.1
        ("https://resource.example.com", "/.well-known/oauth-protected-resource"),
        ("https://resource.example.com/", "/.well-known/oauth-protected-resource"),
        ("https://resource.example.com/resource1", "/.well-known/oauth-protected-resource/resource1"),
        ("https://resource.example.com/a/b", "/.well-known/oauth-protected-resource/a/b"),
        ("https://resource.example.com/a/", "/.well-known/oauth-protected-resource/a/"),
        ("https://resource.example.com:8443/a", "/.well-known/oauth-protected-resource/a"),
    ],
)
def test_the_metadata_lies_between_host_and_path(resource: str, path: str) -> None:
    assert metadata_path(resource) == path
    assert metadata_url(resource) == "/".join(resource.split("/")[:3]) + path


def test_little_said_tells_the_resource_its_issuers_and_its_scopes() -> None:
    assert members() == {
        "resource": RESOURCE,
        "authorization_servers": ["https://idp.example.com/", "https://partner.example.org"],
        "scopes_supported": ["admin", "pay", "read", "write"],
        "bearer_methods_supported": ["header"],
    }


def test_all_that_can_be_said_is_registered() -> None:
    pages = {
        "resource_documentation": "https://docs.example.com/billing#tokens",
        "resource_policy_uri": "https://example.com/policy?lang=en",
        "resource_tos_uri": "https://example.com/terms",
    }
    settings = described(
        resource_name="Billing",
        scopes_supported=["read"],
        authorization_servers=[ISSUERS[0]],
        **pages,
    )
    told = metadata_of(settings, SCOPED, AcceptedBindings(("ES256", "EdDSA"), proof_required=True, certificates=True))
    assert told == {
        "resource": RESOURCE,
        "authorization_servers": [ISSUERS[0]],
        "scopes_supported": ["read"],
        "bearer_methods_supported": ["header"],
        "resource_name": "Billing",
        **pages,
        "tls_client_certificate_bound_access_tokens": True,
        "dpop_signing_alg_values_supported": ["ES256", "EdDSA"],
        "dpop_bound_access_tokens_required": True,
    }
    assert told.keys() <= REGISTERED


def test_scopes_can_be_kept_to_oneself() -> None:
    assert "scopes_supported" not in members(scopes_supported=[])


def test_without_a_policy_its_scopes_are_left_out() -> None:
    told = metadata_of(described(), None, NONE)
    assert told is not None
    assert "scopes_supported" not in told


def test_nothing_is_told_where_nobody_chose_to() -> None:
    silent = msgspec.structs.replace(described(), protected_resource=None)
    assert metadata_of(silent, SCOPED, NONE) is None
    assert metadata_answer(silent, SCOPED, NONE) is None


def test_the_answer_is_json_that_may_be_kept() -> None:
    told = metadata_answer(described(max_age="5m"), SCOPED, AcceptedBindings(("ES256",)))
    assert told is not None
    assert told.status == 200
    assert dict(told.headers) == {"content-type": "application/json", "cache-control": "public, max-age=300"}
    assert json.loads(told.body) == {**members(), "dpop_signing_alg_values_supported": ["ES256"]}


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"resource": None}, "protected_resource.resource: must be a non-empty string"),
        ({"resource": "http://billing.example.com"}, "must be an https URL"),
        ({"resource": "billing"}, "must have a host"),
        ({"resource": f"{RESOURCE}#part"}, "neither credentials, query nor fragment"),
        ({"resource": f"{RESOURCE}?tenant=a"}, "neither credentials, query nor fragment"),
        ({"resource": "https://u:p@billing.example.com"}, "neither credentials, query nor fragment"),
        ({"resource": "https://billing.example.com\\@evil.example"}, "neither credentials, query nor fragment"),
        ({"resource": "https://b\u00edlling.example.com"}, "must be a plain URL"),
        ({"resource": f"{RESOURCE}/a//b"}, "must have a path of plain segments"),
        ({"resource": f"{RESOURCE}/a/../b"}, "must have a path of plain segments"),
        ({"resource": f"{RESOURCE}/a/.."}, "must have a path of plain segments"),
        ({"resource": f"{RESOURCE}/."}, "must have a path of plain segments"),
        ({"resource": f"{RESOURCE}/%61"}, "must have a path of plain segments"),
        ({"authorization_servers": ["https://other.example/"]}, "which is not the issuer of any [[issuers]]"),
        ({"authorization_servers": ISSUERS[0]}, "must be a non-empty list of strings"),
        ({"scopes_supported": "read"}, "must be a list of scopes"),
        ({"scopes_supported": ["read write"]}, "must be a list of scopes"),
        ({"scopes_supported": [1]}, "must be a list of scopes"),
        ({"resource_documentation": "http://docs.example.com"}, "must be an https URL"),
        ({"resource_policy_uri": "https://a b"}, "must be an https URL"),
        ({"resource_tos_uri": "javascript:alert(1)"}, "must be an https URL"),
        ({"resource_name": ""}, "must be a non-empty string"),
        ({"max_age": "2d"}, "must be a duration from 0s to 1d"),
        ({"jwks_uri": "https://x.example"}, "is not a known key"),
    ],
)
def test_a_mistake_is_named(table: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        described(**table)
    assert [problem for problem in caught.value.problems if said in str(problem)], caught.value.problems
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize("resource", ["https://billing.example.com/v1.0/a_b~c-d/", "http://127.0.0.1:8000/api"])
def test_a_resource_may_have_a_path(resource: str) -> None:
    assert members(resource=resource)["resource"] == resource


def test_issuers_that_are_no_list_are_somebody_elses_problem() -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_mapping({"issuers": 5, "protected_resource": {"resource": RESOURCE}})
    assert not [problem for problem in caught.value.problems if problem.where.startswith("protected_resource")]
