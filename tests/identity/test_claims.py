"""What verified claims say about a principal, and which claims refuse the token instead."""

from __future__ import annotations

import copy
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz_middleware.identity.claims.principals import CLAIM_NAMES, PRESETS, path_of, principal_of
from authz_middleware.identity.principal import Actor, Principal
from authz_middleware.identity.problem import TokenRefusedError
from authz_middleware.settings.issuers import IssuerSettings
from tests.support.policies import ask, permit_when

SETTINGS = IssuerSettings("https://issuer.example/", ("billing-api",), ("ES256",))
BASE = {"iss": SETTINGS.issuer, "sub": "alice", "aud": "billing-api", "iat": 1000, "exp": 1300}


def principal(settings: IssuerSettings = SETTINGS, /, **claims: Any) -> Principal:
    return principal_of({**BASE, **claims}, settings)


def with_preset(preset: str, **changes: Any) -> IssuerSettings:
    return msgspec.structs.replace(SETTINGS, claims=preset, **changes)


def refused(settings: IssuerSettings = SETTINGS, /, **claims: Any) -> str:
    with pytest.raises(TokenRefusedError) as caught:
        principal(settings, **claims)
    return caught.value.detail.value


def test_an_access_token_fills_the_principal() -> None:
    who = principal(
        aud=["billing-api", "other"],
        scope="invoices.read  invoices.list",
        roles=["cashier"],
        tenant="acme",
        task="close-month",
        purpose="audit",
        env="production",
        clearance="internal",
        client_id="web-shop",
        jti="t-1",
        txn="x-1",
    )
    assert who == Principal(
        issuer="https://issuer.example/",
        subject="alice",
        client="web-shop",
        scopes=frozenset({"invoices.read", "invoices.list"}),
        roles=frozenset({"cashier"}),
        tenant="acme",
        task="close-month",
        purpose="audit",
        environment="production",
        clearance="internal",
        audience=("billing-api", "other"),
        token_id="t-1",
        transaction="x-1",
        issued_at=1000.0,
        expires_at=1300.0,
    )


def test_what_a_token_does_not_say_is_not_assumed() -> None:
    assert principal() == Principal(
        issuer="https://issuer.example/",
        subject="alice",
        audience=("billing-api",),
        issued_at=1000.0,
        expires_at=1300.0,
    )


# presets: tokens as the profile or the product documents them, in full


CUSTOMER = "9c2ab1a5-1f3c-4a0e-8a52-0d3b6a5e7c11"
APPLICATION = "6e74172b-be56-4843-9ff4-e66a39bb12e3"
KEYCLOAK = "https://keycloak.example/realms/shop"
ENTRA_V1 = "https://sts.windows.net/fa15d692-e9c7-4460-a743-29f2956fd429/"
ENTRA_V2 = "https://login.microsoftonline.com/fa15d692-e9c7-4460-a743-29f2956fd429/v2.0"
TENANT = "fa15d692-e9c7-4460-a743-29f2956fd429"
TIMES = {"iat": 1000, "exp": 1300}

RFC_9068 = {
    **TIMES,
    "iss": "https://authorization-server.example.com/",
    "sub": "5ba552d67",
    "aud": "https://rs.example.com/",
    "jti": "dbe39bf3a3ba4238a513f51d6e1691c4",
    "client_id": "s6BhdRkqt3",
    "scope": "openid profile reademail",
    "auth_time": 940,
    "acr": "urn:mace:incommon:iap:silver",
}
RFC_8693 = {
    **TIMES,
    "aud": "https://consumer.example.com",
    "iss": "https://issuer.example.com",
    "sub": "user@example.com",
    "scope": "orders",
    "client_id": "s6BhdRkqt3",
    "act": {"sub": "https://service16.example.com", "act": {"sub": "https://service77.example.com"}},
}
TRANSACTION = {
    **TIMES,
    "iss": "https://trust-domain.example/txn-token-service",
    "aud": "trust-domain.example",
    "txn": "97053963-771d-49cc-a4e3-20aad399c312",
    "sub": "d084sdrt234fsaw34tr23t",
    "req_wl": "apigateway.trust-domain.example",
    "rctx": {"req_ip": "69.151.72.123", "authn": "face"},
    "scope": "trade.stocks",
    "tctx": {
        "action": "BUY",
        "ticker": "MSFT",
        "quantity": "100",
        "customer_type": {"geo": "US", "level": "VIP"},
        "env": "production",
        "tenant": "acme",
    },
}
AGENT_TRANSACTION = {
    **TIMES,
    "iss": "https://trust-domain.example/txn-token-service",
    "aud": "trust-domain.example",
    "txn": "c2dc3992-2d65-483a-93b5-2dd9f02c276e",
    "sub": "user:alice@example.com",
    "scope": "trade.stocks",
    "req_wl": "apigateway.trust-domain.example",
    "act": {"sub": "3p-assistant-ext-99"},
    "tctx": {"action": "BUY"},
    "agentic_ctx": {
        "current_actor": "1p-billing-svc-v2",
        "originator": "3p-assistant-ext-99",
        "chain_metadata": {"hop_count": 2, "min_assurance_level": "low"},
        "posture": {"tee": "aws-nitro-enclave", "boot_gold": True},
    },
}
RICH = {
    **RFC_9068,
    "aud": "https://billing.example.com/",
    "authorization_details": [
        {
            "type": "invoice",
            "actions": ["read", "approve"],
            "locations": ["https://billing.example.com/", "https://archive.example.com/"],
        },
        {"type": "invoice", "actions": ["delete"], "locations": ["https://archive.example.com/"]},
        {"type": "report", "identifier": "2026-Q1"},
    ],
}
SVID = {
    **TIMES,
    "iss": "https://oidc-discovery.prod.example.org",
    "sub": "spiffe://prod.example.org/ns/billing/sa/export",
    "aud": ["billing-api"],
    "jti": "7b1c",
}
KEYCLOAK_USER = {
    **TIMES,
    "auth_time": 900,
    "jti": "onrtac:d58f5dc8-fd8f-462b-8a19-716f8f83985b",
    "iss": KEYCLOAK,
    "aud": ["billing-api", "account"],
    "sub": "36fa0f91-f94d-4a0c-afed-6b7d952e47da",
    "typ": "Bearer",
    "azp": "web-shop",
    "sid": "2a88c258-f73a-4103-b862-e1fbd8f4e04e",
    "acr": "1",
    "allowed-origins": ["https://shop.example"],
    "realm_access": {"roles": ["offline_access", "cashier"]},
    "resource_access": {"account": {"roles": ["manage-account"]}},
    "scope": "email profile",
    "email_verified": True,
    "preferred_username": "alice",
}
ENTRA_USER = {
    **TIMES,
    "aud": "api://billing",
    "iss": ENTRA_V2,
    "nbf": 1000,
    "aio": "AXQAi/8IAAAA",
    "azp": APPLICATION,
    "azpacr": "0",
    "idtyp": "user",
    "name": "Abe Lincoln",
    "oid": "690222be-ff1a-4d56-abd1-7e4f7d38e474",
    "rh": "I",
    "roles": ["Invoices.Approver"],
    "scp": "invoices.read invoices.approve",
    "sub": "HKZpfaHyWadeOouYlitjrI-KffTm222X5rrV3xDqfKQ",
    "tid": TENANT,
    "uti": "fqiBqXLPj0eQa82S-IYFAA",
    "ver": "2.0",
}
ENTRA_APPLICATION = {
    **TIMES,
    "aud": "api://billing",
    "iss": ENTRA_V1,
    "nbf": 1000,
    "appid": APPLICATION,
    "appidacr": "1",
    "acr": "1",
    "idp": ENTRA_V1,
    "idtyp": "app",
    "oid": CUSTOMER,
    "roles": ["Invoices.Read.All"],
    "sub": CUSTOMER,
    "tid": TENANT,
    "uti": "nsS5tmaJnkucbkaeSgYZAA",
    "ver": "1.0",
}

PRINCIPALS: list[tuple[str, dict[str, Any], Principal]] = [
    (
        "rfc9068",
        RFC_9068,
        Principal(
            issuer="https://authorization-server.example.com/",
            subject="5ba552d67",
            client="s6BhdRkqt3",
            scopes=frozenset({"openid", "profile", "reademail"}),
            audience=("https://rs.example.com/",),
            token_id="dbe39bf3a3ba4238a513f51d6e1691c4",
            authenticated_at=940.0,
            acr="urn:mace:incommon:iap:silver",
        ),
    ),
    (
        "rfc8693",
        RFC_8693,
        Principal(
            issuer="https://issuer.example.com",
            subject="user@example.com",
            kind="agent",
            actors=(Actor("https://service16.example.com"), Actor("https://service77.example.com")),
            client="s6BhdRkqt3",
            scopes=frozenset({"orders"}),
            audience=("https://consumer.example.com",),
        ),
    ),
    (
        "txn-token",
        TRANSACTION,
        Principal(
            issuer="https://trust-domain.example/txn-token-service",
            subject="d084sdrt234fsaw34tr23t",
            client="apigateway.trust-domain.example",
            scopes=frozenset({"trade.stocks"}),
            purpose="trade.stocks",
            environment="production",
            tenant="acme",
            audience=("trust-domain.example",),
            transaction="97053963-771d-49cc-a4e3-20aad399c312",
            claims={
                "tctx_action": "BUY",
                "tctx_ticker": "MSFT",
                "tctx_quantity": "100",
                "tctx_customer_type_geo": "US",
                "tctx_customer_type_level": "VIP",
                "tctx_env": "production",
                "tctx_tenant": "acme",
                "rctx_req_ip": "69.151.72.123",
                "rctx_authn": "face",
            },
        ),
    ),
    (
        "txn-token-agent",
        AGENT_TRANSACTION,
        Principal(
            issuer="https://trust-domain.example/txn-token-service",
            subject="user:alice@example.com",
            kind="agent",
            actors=(Actor("1p-billing-svc-v2"), Actor("3p-assistant-ext-99")),
            client="apigateway.trust-domain.example",
            scopes=frozenset({"trade.stocks"}),
            purpose="trade.stocks",
            audience=("trust-domain.example",),
            transaction="c2dc3992-2d65-483a-93b5-2dd9f02c276e",
            claims={
                "tctx_action": "BUY",
                "agentic_ctx_current_actor": "1p-billing-svc-v2",
                "agentic_ctx_originator": "3p-assistant-ext-99",
                "agentic_ctx_chain_metadata_hop_count": 2,
                "agentic_ctx_chain_metadata_min_assurance_level": "low",
                "agentic_ctx_posture_tee": "aws-nitro-enclave",
                "agentic_ctx_posture_boot_gold": True,
            },
        ),
    ),
    (
        "rar",
        RICH,
        Principal(
            issuer="https://authorization-server.example.com/",
            subject="5ba552d67",
            client="s6BhdRkqt3",
            scopes=frozenset({"openid", "profile", "reademail"}),
            audience=("https://billing.example.com/",),
            token_id="dbe39bf3a3ba4238a513f51d6e1691c4",
            authenticated_at=940.0,
            acr="urn:mace:incommon:iap:silver",
            claims={"authorizations": ("invoice:approve", "invoice:read", "report:*@2026-Q1")},
        ),
    ),
    (
        "spiffe",
        SVID,
        Principal(
            issuer="https://oidc-discovery.prod.example.org",
            subject="spiffe://prod.example.org/ns/billing/sa/export",
            kind="workload",
            subject_kind="workload",
            audience=("billing-api",),
            token_id="7b1c",
        ),
    ),
    (
        "keycloak",
        KEYCLOAK_USER,
        Principal(
            issuer=KEYCLOAK,
            subject="36fa0f91-f94d-4a0c-afed-6b7d952e47da",
            client="web-shop",
            scopes=frozenset({"email", "profile"}),
            roles=frozenset({"offline_access", "cashier"}),
            audience=("billing-api", "account"),
            token_id="onrtac:d58f5dc8-fd8f-462b-8a19-716f8f83985b",
            authenticated_at=900.0,
            acr="1",
            claims={
                "typ": "Bearer",
                "sid": "2a88c258-f73a-4103-b862-e1fbd8f4e04e",
                "allowed-origins": ("https://shop.example",),
                "email_verified": True,
                "preferred_username": "alice",
            },
        ),
    ),
    (
        "entra",
        ENTRA_USER,
        Principal(
            issuer=ENTRA_V2,
            subject="HKZpfaHyWadeOouYlitjrI-KffTm222X5rrV3xDqfKQ",
            kind="human",
            subject_kind="human",
            client=APPLICATION,
            scopes=frozenset({"invoices.read", "invoices.approve"}),
            roles=frozenset({"Invoices.Approver"}),
            tenant=TENANT,
            audience=("api://billing",),
            token_id="fqiBqXLPj0eQa82S-IYFAA",
            claims={
                "aio": "AXQAi/8IAAAA",
                "azpacr": "0",
                "name": "Abe Lincoln",
                "oid": "690222be-ff1a-4d56-abd1-7e4f7d38e474",
                "rh": "I",
                "ver": "2.0",
            },
        ),
    ),
    (
        "entra",
        ENTRA_APPLICATION,
        Principal(
            issuer=ENTRA_V1,
            subject=CUSTOMER,
            kind="workload",
            subject_kind="workload",
            client=APPLICATION,
            roles=frozenset({"Invoices.Read.All"}),
            tenant=TENANT,
            audience=("api://billing",),
            token_id="nsS5tmaJnkucbkaeSgYZAA",
            acr="1",
            claims={"appidacr": "1", "idp": ENTRA_V1, "oid": CUSTOMER, "ver": "1.0"},
        ),
    ),
]


@pytest.mark.capability("C4")
@pytest.mark.parametrize(
    ("preset", "claims", "expected"), PRINCIPALS, ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_preset_reads_the_tokens_of_its_profile(preset: str, claims: dict[str, Any], expected: Principal) -> None:
    settings = with_preset(preset, audience=("https://billing.example.com/",))
    times = {"issued_at": 1000.0, "expires_at": 1300.0}
    assert principal_of(claims, settings) == msgspec.structs.replace(expected, **times)


def test_every_preset_has_a_token_in_the_table() -> None:
    assert {preset for preset, _, _ in PRINCIPALS} == set(PRESETS)


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_every_preset_reads_actors(preset: str) -> None:
    claims = next(claims for name, claims, _ in PRINCIPALS if name == preset)
    who = principal_of({**claims, "act": {"sub": "bot"}}, with_preset(preset))
    assert "bot" in [actor.id for actor in who.actors]
    assert who.kind == "agent"


@pytest.mark.parametrize("preset", sorted(set(PRESETS) - {"spiffe"}))
def test_every_preset_reads_the_issuers_own_words_on_authentication(preset: str) -> None:
    claims = next(claims for name, claims, _ in PRINCIPALS if name == preset)
    who = principal_of({**claims, "acr": "phr", "auth_time": 990}, with_preset(preset))
    assert (who.acr, who.authenticated_at) == ("phr", 990.0)


@pytest.mark.parametrize("preset", sorted(PRESETS))
@pytest.mark.parametrize("name", ["purp", "azd"])
def test_no_preset_reads_the_names_that_the_transaction_token_drafts_have_dropped(preset: str, name: str) -> None:
    claims = next(claims for known, claims, _ in PRINCIPALS if known == preset)
    before = principal_of(claims, with_preset(preset))
    after = principal_of({**claims, name: "marketing"}, with_preset(preset))
    assert msgspec.structs.replace(after, claims={}) == msgspec.structs.replace(before, claims={})
    assert all(name not in path for part in CLAIM_NAMES for path in getattr(PRESETS[preset], part))


def test_a_dropped_name_can_still_be_mapped() -> None:
    settings = with_preset("txn-token", claim_overrides={"purpose": "purp"})
    assert principal(settings, purp="refund", scope="a b").purpose == "refund"


def test_token_exchange_knows_the_client_by_its_registered_name_only() -> None:
    assert principal(with_preset("rfc8693"), azp="web-shop").client is None
    assert principal(with_preset("rfc9068"), azp="web-shop").client == "web-shop"


# purpose in the scope


@pytest.mark.capability("C4")
@pytest.mark.parametrize(
    ("scope", "act", "purpose"),
    [
        ("refund", None, "refund"),
        (" refund ", None, "refund"),
        ("refund export", None, None),
        ("", None, None),
        ("refund export", {"sub": "bot", "scope": "refund"}, "refund"),
        ("refund", {"sub": "bot", "scope": "export"}, None),
        ("refund", {"sub": "bot", "scope": ""}, None),
    ],
    ids=repr,
)
def test_a_transaction_has_the_one_purpose_that_subject_and_actors_share(
    scope: str, act: dict[str, str] | None, purpose: str | None
) -> None:
    claims = {"scope": scope} if act is None else {"scope": scope, "act": act}
    assert principal(with_preset("txn-token"), **claims).purpose == purpose


# tokens of another use


@pytest.mark.parametrize(
    ("preset", "claims", "missing"),
    [
        ("keycloak", {**KEYCLOAK_USER, "typ": "ID"}, ()),
        ("keycloak", {**KEYCLOAK_USER, "typ": "Refresh"}, ()),
        ("keycloak", {**KEYCLOAK_USER, "typ": "bearer"}, ()),
        ("keycloak", KEYCLOAK_USER, ("typ",)),
        ("entra", ENTRA_USER, ("azp",)),
        ("entra", ENTRA_APPLICATION, ("appid",)),
    ],
)
def test_a_token_that_its_issuer_did_not_make_for_an_api_is_refused(
    preset: str, claims: dict[str, Any], missing: tuple[str, ...]
) -> None:
    left = {name: value for name, value in claims.items() if name not in missing}
    with pytest.raises(TokenRefusedError) as caught:
        principal_of(left, with_preset(preset))
    assert caught.value.detail.value == "token.type"


def test_a_key_bound_token_of_keycloak_is_an_access_token() -> None:
    assert principal_of({**KEYCLOAK_USER, "typ": "DPoP"}, with_preset("keycloak")).client == "web-shop"


@pytest.mark.parametrize(("idtyp", "kind"), [("app", "workload"), ("user", "human"), ("App", None), ("device", None)])
def test_the_words_of_entra_for_a_kind_are_understood(idtyp: str, kind: str | None) -> None:
    assert principal_of({**ENTRA_USER, "idtyp": idtyp}, with_preset("entra")).kind == kind


def test_the_words_of_entra_mean_nothing_elsewhere() -> None:
    assert principal(kind="user").kind is None


# SVIDs that an issuer publishes keys for


@pytest.mark.capability("C13")
@pytest.mark.parametrize("subject", ["alice", "spiffe://prod.example.org/../admin", "spiffe://PROD.example.org/a"])
def test_a_subject_that_is_no_spiffe_id_is_refused(subject: str) -> None:
    assert refused(with_preset("spiffe"), sub=subject) == "spiffe.id"


def test_an_svid_says_who_and_nothing_else() -> None:
    who = principal(
        with_preset("spiffe"), sub="spiffe://td/a", scope="admin", roles=["admin"], tenant="acme", acr="x", other="x"
    )
    assert (who.scopes, who.roles, who.tenant, who.acr, who.claims) == (frozenset(), frozenset(), None, None, {})


# contexts


@pytest.mark.parametrize("name", ["tctx", "rctx"])
@pytest.mark.parametrize("value", [None, "BUY", ["BUY"], 7, True], ids=repr)
def test_a_context_that_is_no_object_refuses_the_token(name: str, value: Any) -> None:
    assert refused(with_preset("txn-token"), **{name: value}) == "token.claim_type"


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ({"tctx": {"a": {"b": "in"}}}, {"tctx_a_b": "in"}),
        # two members that come to one name: neither is told
        ({"tctx": {"a": {"b": "in"}, "a_b": "out"}}, {}),
        ({"tctx": {"a_b": "out", "a": {"b": "in"}}}, {}),
        ({"tctx": {"a": {"b": {"c": 1}}, "a_b": {"c": 2}, "a_b_c": 3}}, {}),
        ({"tctx": {"a": {"b": "in"}, "a_b": [{}]}}, {}),
        # a claim beside the context is not in it
        ({"tctx_a": "out"}, {}),
        ({"tctx_a": "out", "tctx": {"a": "in"}}, {"tctx_a": "in"}),
        ({"rctx_a": "out", "other": "kept"}, {"other": "kept"}),
        ({"tctx": {"list": ["a", "b"], "objects": [{"a": 1}], "null": None}}, {"tctx_list": ("a", "b")}),
    ],
    ids=repr,
)
def test_the_members_of_a_context_have_names_of_their_own(claims: dict[str, Any], expected: dict[str, Any]) -> None:
    assert principal(with_preset("txn-token"), **claims).claims == expected


def test_a_policy_can_read_the_members_of_a_context() -> None:
    head = "inputs: {subject.tctx_customer_type_level: {from: token}, subject.authorizations: {from: token}}\n"
    condition = "{subject.tctx_customer_type_level: VIP, subject.authorizations: {has: 'stock:buy'}}"
    settings = with_preset("txn-token", claim_overrides={"authorizations": "authorization_details"})
    for level, action, permitted in (("VIP", "buy", True), ("basic", "buy", False), ("VIP", "sell", False)):
        who = principal(
            settings,
            tctx={"customer_type": {"level": level}},
            authorization_details=[{"type": "stock", "actions": [action]}],
        )
        asked = msgspec.structs.replace(ask(), principal=who)
        assert permit_when(condition, head).evaluate(asked).permit is permitted


# when and how a person was authenticated


@pytest.mark.capability("C25")
@pytest.mark.parametrize("value", [True, "990", None, [990], {}, -1, "٩٩٠"], ids=repr)
def test_a_time_of_authentication_of_another_type_refuses_the_token(value: Any) -> None:
    assert refused(auth_time=value) == "token.claim_type"


@pytest.mark.capability("C25")
@pytest.mark.parametrize(
    ("auth_time", "detail"), [(1010, None), (1010.5, "token.not_yet_valid"), (2000, "token.not_yet_valid")]
)
def test_nobody_is_authenticated_after_the_token_was_issued(auth_time: float, detail: str | None) -> None:
    if detail is None:
        assert principal(auth_time=auth_time).authenticated_at == auth_time
    else:
        assert refused(auth_time=auth_time) == detail


@pytest.mark.capability("C25")
def test_authentication_is_read_where_the_map_says() -> None:
    settings = msgspec.structs.replace(SETTINGS, claim_overrides={"acr": "/login/level", "auth_time": "/login/at"})
    who = principal(settings, login={"level": "phr", "at": 990}, acr="forged", auth_time=999)
    assert (who.acr, who.authenticated_at) == ("phr", 990.0)
    assert set(who.claims) == set()


def test_the_key_that_a_token_was_signed_with_is_told() -> None:
    assert principal_of(BASE, SETTINGS, key_id="key-1").key_id == "key-1"
    assert principal_of(BASE, SETTINGS).key_id is None


# overrides


@pytest.mark.parametrize(
    ("name", "place", "claims", "expected"),
    [
        ("tenant", "tid", {"tid": "acme", "tenant": "not-read"}, "acme"),
        ("tenant", "https://example/tenant", {"https://example/tenant": "acme"}, "acme"),
        ("tenant", "/org/id", {"org": {"id": "acme"}}, "acme"),
        ("tenant", "/a~1b/c~0d", {"a/b": {"c~d": "acme"}}, "acme"),
        ("tenant", "/orgs/1", {"orgs": ["first", "acme"]}, "acme"),
        ("tenant", "/orgs/2", {"orgs": ["first", "acme"]}, None),
        ("tenant", "/orgs/-1", {"orgs": ["first", "acme"]}, None),
        ("tenant", "/org/id", {"org": "acme"}, None),
        ("roles", "/realm_access/roles", {"realm_access": {"roles": ["a"]}, "roles": ["b"]}, frozenset({"a"})),
        ("scopes", "scp", {"scp": ["a", "b"]}, frozenset({"a", "b"})),
        ("subject", "oid", {"oid": "690222be"}, "690222be"),
        ("purpose", "/authorization_details/0/type", {"authorization_details": [{"type": "refund"}]}, "refund"),
    ],
)
def test_an_entry_of_the_map_can_be_read_elsewhere(
    name: str, place: str, claims: dict[str, Any], expected: Any
) -> None:
    settings = msgspec.structs.replace(SETTINGS, claim_overrides={name: place})
    assert getattr(principal(settings, **claims), name) == expected


def test_a_token_without_the_subject_that_the_map_reads_is_refused() -> None:
    assert refused(msgspec.structs.replace(SETTINGS, claim_overrides={"subject": "oid"})) == "token.claim_missing"


@pytest.mark.parametrize("place", ["/a~2b", "/a~", "/~"])
def test_a_wrong_json_pointer_is_refused(place: str) -> None:
    with pytest.raises(ValueError, match="not a JSON pointer"):
        path_of(place)


def test_the_map_names_what_settings_may_override() -> None:
    assert {"scopes", "roles", "tenant", "task", "purpose", "environment", "kind", "client", "actor"} <= CLAIM_NAMES


# types


WRONG_TEXT: list[Any] = [7, True, None, [], ["acme"], {}, "", "a\nb", "a\x00", "\u202eacme", "x" * 2049]


@pytest.mark.parametrize("value", WRONG_TEXT, ids=repr)
@pytest.mark.parametrize(
    "name", ["tenant", "task", "purpose", "env", "clearance", "kind", "client_id", "azp", "jti", "txn", "acr"]
)
def test_a_text_claim_of_another_type_refuses_the_token(name: str, value: Any) -> None:
    assert refused(**{name: value}) == "token.claim_type"


@pytest.mark.parametrize("name", ["scope", "roles"])
@pytest.mark.parametrize(
    "value", [7, True, None, {}, [7], ["a", None], [["a"]], [""], "a\tb", "a\nb", ["x"] * 257, "x " * 257]
)
def test_a_set_of_another_type_refuses_the_token(name: str, value: Any) -> None:
    assert refused(**{name: value}) == "token.claim_type"


@pytest.mark.parametrize(
    "act",
    [
        None,
        "bot",
        [],
        [{"sub": "bot"}],
        {},
        {"iss": "https://issuer.example/"},
        {"sub": 7},
        {"sub": ""},
        {"sub": "bot\n"},
        {"sub": "bot", "iss": 7},
        {"sub": "bot", "kind": 7},
        {"sub": "bot", "scope": 7},
        {"sub": "bot", "act": "boss"},
        {"sub": "bot", "act": {}},
        {"sub": "bot", "act": None},
    ],
    ids=repr,
)
@pytest.mark.capability("C20")
def test_a_chain_that_is_not_one_refuses_the_token(act: Any) -> None:
    assert refused(act=act) == "token.claim_type"


# environment


@pytest.mark.capability("C5")
@pytest.mark.parametrize(
    ("of_issuer", "claim", "expected"),
    [
        (None, {}, None),
        ("staging", {}, "staging"),
        (None, {"env": "staging"}, "staging"),
        ("production", {"env": "production"}, "production"),
        ("production", {"env": "staging"}, None),
        ("staging", {"env": "production"}, None),
    ],
)
def test_the_environment_is_the_claim_or_the_issuers_and_none_where_they_differ(
    of_issuer: str | None, claim: dict[str, str], expected: str | None
) -> None:
    settings = msgspec.structs.replace(SETTINGS, environment=of_issuer)
    assert principal(settings, **claim).environment == expected


# who acts


def chain(*actors: dict[str, Any]) -> dict[str, Any]:
    """A nested `act` claim, the current actor outermost."""
    inner: dict[str, Any] = {}
    for actor in reversed(actors):
        inner = {**actor, **({"act": inner} if inner else {})}
    return inner


@pytest.mark.capability("C20")
def test_the_chain_starts_with_the_party_that_makes_this_call() -> None:
    who = principal(act=chain({"sub": "tool", "iss": "https://b.example/"}, {"sub": "planner"}))
    assert who.actors == (Actor("tool", "agent", "https://b.example/"), Actor("planner"))


@pytest.mark.capability("C20")
@pytest.mark.parametrize(("kept", "named", "dropped"), [(0, 0, 6), (4, 4, 2), (6, 6, 0), (16, 6, 0)])
def test_actors_beyond_the_bound_are_counted(kept: int, named: int, dropped: int) -> None:
    settings = msgspec.structs.replace(SETTINGS, max_actors=kept)
    who = principal(settings, act=chain(*({"sub": f"a{i}"} for i in range(6))))
    assert [actor.id for actor in who.actors] == [f"a{i}" for i in range(named)]
    assert who.dropped_actors == dropped


@pytest.mark.capability("C20")
def test_a_chain_without_end_refuses_the_token() -> None:
    assert refused(act=chain(*({"sub": f"a{i}"} for i in range(33)))) == "token.claim_type"


@pytest.mark.capability("C20")
@pytest.mark.parametrize(
    ("act", "scopes", "roles"),
    [
        ({"sub": "bot"}, {"read", "write"}, {"admin", "user"}),
        ({"sub": "bot", "scope": "read export"}, {"read"}, {"admin", "user"}),
        ({"sub": "bot", "scope": ""}, set(), {"admin", "user"}),
        ({"sub": "bot", "roles": ["user"]}, {"read", "write"}, {"user"}),
        (chain({"sub": "a", "scope": "read"}, {"sub": "b", "scope": "write"}), set(), {"admin", "user"}),
        (chain({"sub": "a"}, {"sub": "b", "scope": "write", "roles": []}), {"write"}, set()),
    ],
    ids=repr,
)
def test_the_effective_right_is_what_subject_and_actors_hold(act: Any, scopes: set[str], roles: set[str]) -> None:
    who = principal(scope="read write", roles=["admin", "user"], act=act)
    assert who.scopes == scopes
    assert who.roles == roles


@pytest.mark.capability("C20")
def test_an_actor_beyond_the_bound_still_limits_the_right() -> None:
    settings = msgspec.structs.replace(SETTINGS, max_actors=1)
    who = principal(settings, scope="read write", act=chain({"sub": "a"}, {"sub": "b", "scope": "read"}))
    assert (len(who.actors), who.dropped_actors, who.scopes) == (1, 1, frozenset({"read"}))


@pytest.mark.capability("C20")
def test_an_actors_own_scope_counts_where_the_subjects_is_read_elsewhere() -> None:
    settings = msgspec.structs.replace(SETTINGS, claim_overrides={"scopes": "scp"})
    assert principal(settings, scp="read write", act={"sub": "bot", "scope": "read"}).scopes == {"read"}
    assert principal(settings, scp="read write", act={"sub": "bot", "scp": "write"}).scopes == {"write"}


@pytest.mark.capability("C20")
def test_an_actors_own_roles_count_by_either_name() -> None:
    settings = msgspec.structs.replace(SETTINGS, claim_overrides={"roles": "/realm/roles"})
    held = {"realm": {"roles": ["a", "b"]}}
    assert principal(settings, **held, act={"sub": "bot", "roles": ["a"]}).roles == {"a"}
    assert principal(settings, **held, act={"sub": "bot", "realm": {"roles": ["b"]}}).roles == {"b"}


WORDS = st.frozensets(st.sampled_from("abcdef"))


@pytest.mark.capability("C20")
@given(own=WORDS, actors=st.lists(st.none() | WORDS, max_size=8), kept=st.integers(0, 16))
def test_nobody_in_the_chain_ever_adds_a_right(
    own: frozenset[str], actors: list[frozenset[str] | None], kept: int
) -> None:
    entries = [{"sub": "x", **({} if words is None else {"scope": " ".join(words)})} for words in actors]
    settings = msgspec.structs.replace(SETTINGS, max_actors=kept)
    who = principal(settings, scope=" ".join(own), **({"act": chain(*entries)} if entries else {}))
    expected = own
    for words in actors:
        expected = expected if words is None else expected & words
    assert who.scopes == expected
    assert len(who.actors) + who.dropped_actors == len(actors)


@pytest.mark.capability("C22")
@pytest.mark.parametrize(
    ("claims", "subject_kind", "kind"),
    [
        ({}, None, None),
        ({"kind": "human"}, "human", "human"),
        ({"kind": "agent"}, "agent", "agent"),
        ({"kind": "workload"}, "workload", "workload"),
        ({"kind": "superuser"}, None, None),
        ({"kind": "Human"}, None, None),
        ({"client_id": "alice"}, "workload", "workload"),
        ({"client_id": "web-shop"}, None, None),
        ({"client_id": "alice", "kind": "agent"}, "agent", "agent"),
        ({"kind": "human", "act": {"sub": "bot"}}, "human", "agent"),
        ({"kind": "human", "act": {"sub": "bot", "kind": "robot"}}, "human", "agent"),
        ({"kind": "human", "act": {"sub": "svc", "kind": "workload"}}, "human", "workload"),
        ({"kind": "workload", "act": {"sub": "bob", "kind": "human"}}, "workload", "human"),
        (
            {"kind": "human", "act": chain({"sub": "svc", "kind": "workload"}, {"sub": "bot"})},
            "human",
            "agent",
        ),
        ({"act": chain({"sub": "s", "kind": "workload"}, {"sub": "b", "kind": "human"})}, None, "workload"),
    ],
    ids=repr,
)
def test_kind_is_that_of_whoever_really_acts(
    claims: dict[str, Any], subject_kind: str | None, kind: str | None
) -> None:
    who = principal(**claims)
    assert (who.subject_kind, who.kind) == (subject_kind, kind)


@pytest.mark.capability("C22")
def test_an_agent_beyond_the_bound_still_makes_the_caller_an_agent() -> None:
    settings = msgspec.structs.replace(SETTINGS, max_actors=0)
    who = principal(settings, kind="human", act={"sub": "bot"})
    assert (who.kind, who.actors, who.dropped_actors) == ("agent", (), 1)


@pytest.mark.capability("C21")
@pytest.mark.parametrize(
    ("claims", "accountable"),
    [
        ({}, False),
        ({"client_id": "alice"}, False),
        ({"client_id": "web-shop"}, True),
        ({"act": {"sub": "bot"}}, True),
        ({"jti": "t-1"}, True),
        ({"txn": "x-1"}, True),
    ],
)
def test_a_shared_subject_is_told_apart_by_actor_client_token_or_transaction(
    claims: dict[str, Any], accountable: bool
) -> None:
    assert principal(**claims).is_accountable is accountable


# further claims


def test_further_plain_claims_are_kept_and_structures_are_not() -> None:
    who = principal(department="treasury", level=3, vip=True, groups=["a", "b"], nested={"a": 1}, mixed=[{}], none=None)
    assert who.claims == {"department": "treasury", "level": 3, "vip": True, "groups": ("a", "b")}


@pytest.mark.parametrize("name", ["roles", "id", "issuer", "scopes", "actors", "subject_kind", "cnf", "authorizations"])
def test_a_claim_cannot_pass_for_what_policies_read_under_a_built_in_name(name: str) -> None:
    settings = msgspec.structs.replace(SETTINGS, claim_overrides={"roles": "/realm_access/roles"})
    assert principal(settings, **{name: "forged"}).claims == {}


@pytest.mark.parametrize(
    "change",
    [
        lambda claims: claims.__setitem__("a", 1),
        lambda claims: claims.__delitem__("a"),
        lambda claims: claims.update(a=1),
        lambda claims: claims.setdefault("b", 1),
        lambda claims: claims.pop("a"),
        lambda claims: claims.popitem(),
        lambda claims: claims.clear(),
        lambda claims: claims.__ior__({"a": 1}),
    ],
)
def test_the_claims_of_a_principal_cannot_be_changed(change: Any) -> None:
    claims = principal(a="1").claims
    with pytest.raises(TypeError):
        change(claims)
    assert claims == {"a": "1"}


def test_a_principal_can_be_copied_and_encoded() -> None:
    who = principal(a=["1"])
    assert copy.deepcopy(who) == who
    assert msgspec.json.decode(msgspec.json.encode(who))["claims"] == {"a": ["1"]}


TEXT_LIKE = st.text(max_size=8) | st.integers() | st.none() | st.booleans() | st.lists(st.text(max_size=3), max_size=3)


@given(claims=st.dictionaries(st.sampled_from([*CLAIM_NAMES, "env", "scope", "jti", "txn", "act", "x"]), TEXT_LIKE))
def test_claims_of_any_type_give_a_typed_principal_or_a_refusal(claims: dict[str, Any]) -> None:
    try:
        who = principal(**claims)
    except TokenRefusedError:
        return
    msgspec.convert(msgspec.to_builtins(who), Principal, strict=True)
