"""Which workloads are known by their SPIFFE ID, and which ids, tokens and certificates only look as if they were."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from authz_middleware.errors import SettingsError
from authz_middleware.identity.authenticator import Authenticator
from authz_middleware.identity.claims.status_reference import StatusReference
from authz_middleware.identity.connection.credentials import Credentials
from authz_middleware.identity.principal import Principal
from authz_middleware.identity.problem import CredentialProblem, TokenRefusedError
from authz_middleware.identity.spiffe.spiffe_id import PathPattern, SpiffeId
from authz_middleware.identity.spiffe.trust_domains import TrustDomains
from authz_middleware.identity.tokens import parse_token
from authz_middleware.settings import Settings
from authz_middleware.settings.issuers import IssuerSettings
from authz_middleware.settings.key_sources import RefreshTimes
from authz_middleware.settings.trust_domains import TrustDomainSettings
from tests.support.spiffe import PATH, TrustDomain
from tests.support.tokens import AUDIENCE, REMOVED, Issuer, KeyServer, base64url, bearer, make_key, shown

pytestmark = [pytest.mark.capability("C13"), pytest.mark.promise("P2")]

NOW = 1_750_000_000.0
PROD = TrustDomain()
STAGING = TrustDomain("staging.example.org", "svid-2")
AGENTS = TrustDomain("agents.example.org", "svid-3")
FOREIGN = TrustDomain()  # another one that took the name
ISSUER = Issuer()

APP = {
    "app": {"name": "billing", "environment": "production"},
    "policy": {"source": "policy.yaml", "allow_unsigned": True},
    "decision_log": {"sink": "stdout"},
}


def table(domain: TrustDomain = PROD, **changes: Any) -> dict[str, Any]:
    """An entry of `[[trust_domains]]` for a trust domain; a change to REMOVED leaves the key out."""
    whole = {
        "name": domain.name,
        "audience": [AUDIENCE],
        "algorithms": ["ES256"],
        "jwks": domain.bundle(),
        "paths": ["/ns/billing/sa/*"],
        "environment": "production",
        "x509": True,
        **changes,
    }
    return {key: value for key, value in whole.items() if value is not REMOVED}


def read(*tables: dict[str, Any], base: Path | None = None) -> tuple[TrustDomainSettings, ...]:
    return Settings.from_mapping({**APP, "trust_domains": list(tables)}, base).trust_domains


def domains_of(*tables: dict[str, Any], issuers: tuple[str, ...] = (ISSUER.url,), **how: Any) -> TrustDomains:
    domains = TrustDomains(read(*tables), issuers=issuers, **how)
    domains.start()
    return domains


DOMAINS = domains_of(table(), table(STAGING, environment="staging"), table(AGENTS, kind="agent", paths=["/**"]))


def principal(token: str, domains: TrustDomains = DOMAINS, now: float = NOW) -> Principal | None:
    """The workload that a token stands for, as the authenticator asks; None where it is not taken for an SVID."""
    raw = parse_token(token)
    rules = domains.svid_rules(raw)
    if rules is None:
        return None
    keyring = rules.keys.current
    assert keyring is not None
    verified = rules.verify(raw, keyring, now)
    return rules.principal_of(verified.claims, key_id=verified.key.kid)


def outcome_of(token: str, domains: TrustDomains = DOMAINS, now: float = NOW) -> str | None:
    """The SPIFFE ID that a token establishes, or the detail of its refusal, or None where it is no SVID at all."""
    try:
        who = principal(token, domains, now)
    except TokenRefusedError as refusal:
        return refusal.detail.value
    return None if who is None else who.subject


def certified(der: bytes, domains: TrustDomains = DOMAINS, now: float = NOW) -> str:
    """The SPIFFE ID that a certificate establishes, or the detail of its refusal."""
    try:
        return domains.principal_of_certificate(der, now).subject
    except TokenRefusedError as refusal:
        return refusal.detail.value


# ids

NOT_IDS = [
    *("", "alice", "spiffe:", "spiffe:/", "spiffe://", "spiffe:///ns", "spiffe:prod.example.org/ns"),
    *("SPIFFE://prod.example.org/ns", "Spiffe://prod.example.org/ns", "https://prod.example.org/ns"),
    *(" spiffe://prod.example.org/ns", "spiffe://prod.example.org/ns ", "spiffe://prod.example.org/ns\n"),
    *("spiffe://prod.example.org:443/ns", "spiffe://prod.example.org:/ns", "spiffe://user@prod.example.org/ns"),
    *("spiffe://@prod.example.org/ns", "spiffe://[::1]/ns", "spiffe://prod%2eexample.org/ns"),
    *("spiffe://PROD.example.org/ns", "spiffe://prod.Example.org/ns"),
    *("spiffe://prod.example.org/", "spiffe://prod.example.org/ns/", "spiffe://prod.example.org//ns"),
    *("spiffe://prod.example.org/ns//sa", "spiffe://prod.example.org/./ns", "spiffe://prod.example.org/ns/."),
    *("spiffe://prod.example.org/ns/../admin", "spiffe://prod.example.org/..", "spiffe://prod.example.org/ns/.."),
    *("spiffe://prod.example.org/ns/%2e%2e/admin", "spiffe://prod.example.org/ns%2Fsa", "spiffe://td/a%00"),
    *("spiffe://prod.example.org/ns?x=1", "spiffe://prod.example.org/ns#x", "spiffe://prod.example.org/ns;x=1"),
    *("spiffe://prod.example.org\\ns", "spiffe://prod.example.org/ns\\sa", "spiffe://prod.example.org/a b"),
    *("spiffe://prod.example.org/a:b", "spiffe://prod.example.org/a@b", "spiffe://prod.example.org/*"),
    # characters that look the part: Cyrillic letters, full width, a soft hyphen, a zero width space
    *("spiffe://pr\u043ed.example.org/ns", "spiffe://prod.example.org/n\u0455", "spiffe://prod\uff0eexample.org/ns"),
    *("spiffe://prod.example.org/n\u00ads", "spiffe://prod.example.org/n\u200bs", "spiffe://prod.example.org/n\x00"),
    *("spiffe://straße.example/ns", "spiffe://prod.example.org/\u0661", "spiffe\uff1a//prod.example.org/ns"),
    "spiffe://" + "a" * 256 + "/ns",
    "spiffe://td/" + "a" * 2037,
]


@pytest.mark.parametrize("text", NOT_IDS, ids=lambda text: ascii(text)[:60])
def test_a_text_that_only_resembles_a_spiffe_id_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="not a SPIFFE ID"):
        SpiffeId.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        *("spiffe://prod.example.org", "spiffe://td/a", "spiffe://10.0.0.1/a", "spiffe://a_b-c.d/A_B-c.d/..."),
        *("spiffe://td/.hidden", "spiffe://td/a..b", "spiffe://" + "a" * 255 + "/x", "spiffe://td/" + "a" * 2036),
    ],
    ids=lambda text: text[:60],
)
def test_a_spiffe_id_is_read_and_written_as_it_is(text: str) -> None:
    assert str(SpiffeId.parse(text)) == text


@given(st.text("spife:/.%~a-B_1@?#\\ é", max_size=30).map("spiffe://td".__add__))
def test_an_id_that_is_read_is_written_the_same(text: str) -> None:
    try:
        id_ = SpiffeId.parse(text)
    except ValueError:
        return
    assert str(id_) == text
    assert not {"", ".", ".."} & set(id_.segments)


# patterns


@pytest.mark.parametrize(
    ("pattern", "path", "covered"),
    [
        ("/ns/billing/sa/*", "/ns/billing/sa/export", True),
        ("/ns/billing/sa/*", "/ns/billing/sa", False),
        ("/ns/billing/sa/*", "/ns/billing/sa/export/admin", False),
        ("/ns/billing/sa/*", "/ns/billing2/sa/export", False),
        ("/ns/billing/sa/*", "/ns/Billing/sa/export", False),
        ("/ns/billing/sa/*", "/x/ns/billing/sa/export", False),
        ("/ns/*/sa/export", "/ns/any/sa/export", True),
        ("/ns/*/sa/export", "/ns/a/b/sa/export", False),
        ("/ns/billing/**", "/ns/billing/sa/export", True),
        ("/ns/billing/**", "/ns/billing/sa", True),
        ("/ns/billing/**", "/ns/billing", False),
        ("/ns/billing/**", "/ns/billing-admin/sa", False),
        ("/**", "/a", True),
        ("/**", "/a/b/c", True),
        ("/**", "", False),
        ("/*", "", False),
        ("/a", "/a", True),
        ("/a", "/ab", False),
        ("/a.c", "/abc", False),
    ],
)
def test_a_pattern_covers_whole_segments(pattern: str, path: str, covered: bool) -> None:
    assert PathPattern.parse(pattern).covers(SpiffeId.parse(f"spiffe://td{path}")) is covered


@pytest.mark.parametrize(
    "text",
    [
        *("", "/", "ns", "*", "**", "ns/billing", "/ns/", "//ns", "/ns//sa", "/ns/./sa", "/ns/../sa"),
        *("/ns/bill*", "/ns/*a", "/**/sa", "/ns/**/sa", "/ns/***", "/ns/?", "/ns/[a]", "/ns/a b", "/ns/%2e", "/ns\n"),
        "spiffe://prod.example.org/ns",
    ],
    ids=repr,
)
def test_a_pattern_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a path pattern"):
        PathPattern.parse(text)


# settings


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"name": "Prod.example.org"}, "trust_domains[0].name"),
        ({"name": "spiffe://prod.example.org"}, "trust_domains[0].name"),
        ({"name": "prod.example.org:8443"}, "trust_domains[0].name"),
        ({"name": "prod.example.org/ns"}, "trust_domains[0].name"),
        ({"name": "a" * 256}, "trust_domains[0].name"),
        ({"name": REMOVED}, "trust_domains[0].name"),
        ({"paths": REMOVED}, "trust_domains[0].paths"),
        ({"paths": []}, "trust_domains[0].paths"),
        ({"paths": ["/ns/bill*"]}, "trust_domains[0].paths"),
        ({"audience": REMOVED}, "trust_domains[0].audience"),
        ({"algorithms": REMOVED}, "trust_domains[0].algorithms"),
        ({"algorithms": ["HS256"]}, "trust_domains[0].algorithms"),
        ({"algorithms": ["EdDSA"]}, "trust_domains[0].algorithms"),
        ({"jwks_file": "bundle.json"}, "trust_domains[0]"),
        ({"jwks": REMOVED, "jwks_uri": "http://spire.example/bundle"}, "trust_domains[0].jwks_uri"),
        ({"jwks": REMOVED}, "trust_domains[0].audience"),
        ({"jwks": REMOVED, "audience": REMOVED, "algorithms": REMOVED, "x509": False}, "trust_domains[0]"),
        ({"token_types": ["at+jwt"]}, "trust_domains[0].token_types"),
        ({"discovery": "openid"}, "trust_domains[0].discovery"),
        ({"jwks": REMOVED, "discovery": "openid"}, "trust_domains[0].discovery"),
        ({"kind": "human"}, "trust_domains[0].kind"),
        ({"max_lifetime": "2d"}, "trust_domains[0].max_lifetime"),
        ({"leeway": "61s"}, "trust_domains[0].leeway"),
        ({"x509_max_lifetime": "91d"}, "trust_domains[0].x509_max_lifetime"),
        ({"environments": {"/ns/b*": "staging"}}, "trust_domains[0].environments./ns/b*"),
        ({"environments": {"/ns/**": ""}}, "trust_domains[0].environments./ns/**"),
        ({"claims": "rfc9068"}, "trust_domains[0].claims"),
    ],
    ids=repr,
)
def test_settings_that_cannot_hold_are_reported(changes: dict[str, Any], where: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read(table(**changes))
    assert where in [problem.where for problem in caught.value.problems]


def test_a_trust_domain_is_named_once() -> None:
    with pytest.raises(SettingsError, match="twice"):
        read(table(), table())


def test_every_setting_arrives() -> None:
    (settings,) = read(
        table(
            environments={"/ns/staging/**": "staging"},
            kind="agent",
            max_lifetime="5m",
            leeway="1s",
            single_audience=True,
            x509_max_lifetime="2h",
        )
    )
    assert (settings.name, settings.kind, settings.environment) == ("prod.example.org", "agent", "production")
    assert settings.paths == (PathPattern(("ns", "billing", "sa", "*")),)
    assert settings.environments == ((PathPattern(("ns", "staging"), any_below=True), "staging"),)
    assert (settings.x509, settings.x509_max_lifetime) == (True, 7200.0)
    tokens = settings.tokens
    assert tokens is not None
    assert (tokens.audience, tokens.algorithms) == ((AUDIENCE,), ("ES256",))
    assert (tokens.max_lifetime, tokens.leeway, tokens.single_audience) == (300.0, 1.0, True)


def test_certificates_alone_need_no_keys() -> None:
    (settings,) = read(table(jwks=REMOVED, audience=REMOVED, algorithms=REMOVED))
    assert settings.tokens is None


@pytest.mark.parametrize(
    "bundle",
    [
        {"keys": []},
        {"keys": "none"},
        {"keys": [ISSUER.jwk()]},
        {"keys": [ISSUER.jwk(use="JWT-SVID")]},
        {"keys": [ISSUER.jwk(use="x509-svid")]},
        {"keys": [ISSUER.jwk(use=REMOVED)]},
        {"keys": [PROD.signer.jwk(use="jwt-svid"), FOREIGN.signer.jwk(use="jwt-svid")]},
    ],
    ids=["empty", "not a list", "a signature key", "another case", "for certificates", "no use", "one kid twice"],
)
def test_a_bundle_without_keys_for_jwt_svids_is_refused_in_the_settings(bundle: dict[str, Any]) -> None:
    with pytest.raises(SettingsError) as caught:
        domains_of(table(jwks=bundle))
    assert [problem.where for problem in caught.value.problems] == ["trust_domains[0]"]


def test_an_issuer_that_passes_for_a_trust_domain_is_refused() -> None:
    with pytest.raises(SettingsError, match="is also an issuer"):
        domains_of(table(), issuers=("spiffe://prod.example.org",))


# JWT-SVIDs


def test_a_jwt_svid_names_a_workload() -> None:
    assert principal(PROD.svid(now=NOW, jti="t-1", department="treasury", scope="admin")) == Principal(
        issuer="spiffe://prod.example.org",
        subject=f"spiffe://prod.example.org{PATH}",
        kind="workload",
        subject_kind="workload",
        environment="production",
        audience=(AUDIENCE,),
        token_id="t-1",
        issued_at=NOW,
        expires_at=NOW + 300,
        key_id="svid-1",
    )


def test_an_svid_that_is_in_a_status_list_says_so() -> None:
    who = principal(PROD.svid(now=NOW, status={"status_list": {"idx": 7, "uri": "https://status.example/1"}}))
    assert who.status == StatusReference("https://status.example/1", 7)


@pytest.mark.capability("C22")
def test_a_trust_domain_says_what_kind_its_workloads_are() -> None:
    who = principal(AGENTS.svid(now=NOW))
    assert who is not None
    assert (who.kind, who.subject_kind) == ("agent", "agent")


@pytest.mark.capability("C21")
def test_a_workload_that_a_trust_domain_vouches_for_is_told_apart() -> None:
    who = principal(PROD.svid(now=NOW))
    assert who is not None
    assert who.is_accountable
    # what any issuer may write into `sub` is not
    for issuer in ("https://issuer.example/", "spiffe://prod.example", "spiffe://other.example"):
        assert not msgspec.structs.replace(who, issuer=issuer).is_accountable
    assert not Principal(issuer="https://issuer.example", subject="https://issuer.example/alice").is_accountable


@pytest.mark.parametrize("typ", ["JWT", "JOSE", REMOVED])
@pytest.mark.parametrize("iss", [REMOVED, "https://oidc-discovery.example.org", "spiffe://prod.example.org"])
def test_type_and_issuer_of_an_svid_are_optional(typ: str, iss: str) -> None:
    assert outcome_of(PROD.svid(now=NOW, header={"typ": typ}, iss=iss)) == PROD.id()


def sub(subject: Any, **how: Any) -> str:
    return PROD.svid(now=NOW, sub=subject, **how)


ATTACKS: dict[str, tuple[str, str | None]] = {
    # whose it is
    "another trust domain of ours": (sub(STAGING.id()), "token.key_unknown"),
    "another trust domain of ours, its kid": (sub(STAGING.id(), header={"kid": "svid-2"}), "token.signature"),
    "a foreign domain of the same name": (FOREIGN.svid(now=NOW), "token.signature"),
    "an unknown trust domain": (sub("spiffe://evil.example/ns/billing/sa/export"), "spiffe.trust_domain"),
    "a longer name": (sub("spiffe://prod.example.org.evil.example/ns/billing/sa/export"), "spiffe.trust_domain"),
    "a subdomain": (sub("spiffe://a.prod.example.org/ns/billing/sa/export"), "spiffe.trust_domain"),
    "a parent": (sub("spiffe://example.org/ns/billing/sa/export"), "spiffe.trust_domain"),
    "a trailing dot": (sub("spiffe://prod.example.org./ns/billing/sa/export"), "spiffe.trust_domain"),
    "a hyphen for a dot": (sub("spiffe://prod-example.org/ns/billing/sa/export"), "spiffe.trust_domain"),
    # which id
    "a path that is not let in": (sub("spiffe://prod.example.org/ns/payroll/sa/export"), "spiffe.path"),
    "one segment more": (sub(PROD.id(PATH + "/admin")), "spiffe.path"),
    "one segment less": (sub(PROD.id("/ns/billing/sa")), "spiffe.path"),
    "the trust domain itself": (sub("spiffe://prod.example.org"), "spiffe.path"),
    "path traversal": (sub(PROD.id("/ns/payroll/../billing/sa/export")), "spiffe.id"),
    "encoded traversal": (sub(PROD.id("/ns/billing/sa/%2e%2e")), "spiffe.id"),
    "an empty segment": (sub(PROD.id("/ns/billing/sa//export")), "spiffe.id"),
    "a trailing slash": (sub(PROD.id(PATH + "/")), "spiffe.id"),
    "a port": (sub("spiffe://prod.example.org:443" + PATH), "spiffe.id"),
    "a user": (sub("spiffe://evil.example@prod.example.org" + PATH), "spiffe.id"),
    "a query": (sub(PROD.id(PATH + "?x")), "spiffe.id"),
    "a fragment": (sub(PROD.id(PATH + "#x")), "spiffe.id"),
    "capitals in the domain": (sub("spiffe://PROD.example.org" + PATH), "spiffe.id"),
    "Cyrillic in the domain": (sub("spiffe://pr\u043ed.example.org" + PATH), "spiffe.id"),
    "too long": (sub(PROD.id("/ns/billing/sa/" + "a" * 2100)), "spiffe.id"),
    "a capital scheme": (sub("SPIFFE://prod.example.org" + PATH), None),
    "no SPIFFE ID": (sub("alice"), None),
    "no subject": (sub(REMOVED), None),
    "a list of subjects": (sub([PROD.id()]), None),
    # claims
    "no audience": (PROD.svid(now=NOW, aud=REMOVED), "token.claim_missing"),
    "an empty audience": (PROD.svid(now=NOW, aud=[]), "token.audience"),
    "another audience": (PROD.svid(now=NOW, aud="payroll-api"), "token.audience"),
    "the trust domain for audience": (PROD.svid(now=NOW, aud="spiffe://prod.example.org"), "token.audience"),
    "no expiry": (PROD.svid(now=NOW, exp=REMOVED), "token.claim_missing"),
    "no time of issue": (PROD.svid(now=NOW, iat=REMOVED), "token.claim_missing"),
    "expired": (PROD.svid(now=NOW - 400), "token.expired"),
    "from the future": (PROD.svid(now=NOW + 60), "token.not_yet_valid"),
    "too long a life": (PROD.svid(now=NOW, exp=NOW + 901), "token.lifetime"),
    "an actor": (PROD.svid(now=NOW, act={"sub": "bot"}), "token.actor"),
    "somebody who may act": (PROD.svid(now=NOW, may_act={"sub": "bot"}), "token.actor"),
    # header
    "no kid": (PROD.svid(now=NOW, header={"kid": REMOVED}), "token.header"),
    "an unknown kid": (PROD.svid(now=NOW, header={"kid": "other"}), "token.key_unknown"),
    "a key in the header": (PROD.svid(now=NOW, header={"jwk": PROD.signer.jwk()}), "token.header"),
    "a certificate in the header": (PROD.svid(now=NOW, header={"x5c": ["MIIB"]}), "token.header"),
    "a member that is not for SVIDs": (PROD.svid(now=NOW, header={"cty": "JWT"}), "token.header"),
    "a critical member": (PROD.svid(now=NOW, header={"crit": ["exp"]}), "token.header"),
    "the type of an access token": (PROD.svid(now=NOW, header={"typ": "at+jwt"}), "token.type"),
    "the type in another case": (PROD.svid(now=NOW, header={"typ": "jwt"}), "token.type"),
    "the type as a media type": (PROD.svid(now=NOW, header={"typ": "application/JWT"}), "token.type"),
    "a type that is no text": (PROD.svid(now=NOW, header={"typ": 7}), "token.type"),
    "an empty type": (PROD.svid(now=NOW, header={"typ": ""}), "token.type"),
    "another algorithm": (PROD.svid(now=NOW, header={"alg": "ES384"}), "token.algorithm"),
    "no algorithm": (PROD.svid(now=NOW, header={"alg": "none"}), "token.algorithm"),
    "a secret": (PROD.svid(now=NOW, signer=Issuer(kid="svid-1", alg="HS256")), "token.algorithm"),
    "EdDSA": (PROD.svid(now=NOW, signer=Issuer(kid="svid-1", alg="EdDSA")), "token.algorithm"),
    # whose token it is
    "an issuer of ours": (PROD.svid(now=NOW, iss=ISSUER.url), None),
    "a list of issuers": (PROD.svid(now=NOW, iss=[ISSUER.url]), "token.issuer"),
    "no text for an issuer": (PROD.svid(now=NOW, iss={"a": 1}), "token.issuer"),
}


@pytest.mark.parametrize(("token", "detail"), ATTACKS.values(), ids=ATTACKS)
def test_what_only_looks_like_a_jwt_svid_is_refused(token: str, detail: str | None) -> None:
    assert outcome_of(token) == detail


def test_a_key_signs_for_its_own_trust_domain_alone() -> None:
    rules = DOMAINS.svid_rules(parse_token(PROD.svid(now=NOW)))
    assert rules is not None
    assert rules.keys.current is not None
    with pytest.raises(TokenRefusedError) as caught:
        rules.verify(parse_token(sub(STAGING.id())), rules.keys.current, NOW)
    assert caught.value.detail.value == "spiffe.trust_domain"


def test_a_duplicate_subject_is_refused() -> None:
    payload = json.dumps(PROD.signer.claims(NOW, sub=STAGING.id()))[:-1] + f', "sub": "{PROD.id()}"}}'
    header = {"alg": "ES256", "kid": "svid-1"}
    assert outcome_of(PROD.signer.sign(base64url(header), base64url(payload))) == "token.malformed"


def test_an_svid_for_several_audiences_is_refused_where_one_must_do() -> None:
    domains = domains_of(table(single_audience=True))
    assert outcome_of(PROD.svid(now=NOW), domains) == PROD.id()
    assert outcome_of(PROD.svid(now=NOW, aud=[AUDIENCE, "other"]), domains) == "token.audience_not_single"


def test_a_trust_domain_without_keys_has_no_jwt_svids() -> None:
    domains = domains_of(table(jwks=REMOVED, audience=REMOVED, algorithms=REMOVED))
    assert outcome_of(PROD.svid(now=NOW), domains) == "spiffe.trust_domain"


# an SVID and an access token are two things


@pytest.mark.parametrize("token_types", [("at+jwt",), ("JWT", "at+jwt")])
def test_an_svid_is_no_access_token_even_where_one_key_signs_both(token_types: tuple[str, ...]) -> None:
    shared = Issuer(kid="svid-1", key=PROD.signer.key)
    settings = IssuerSettings(
        shared.url, (AUDIENCE,), ("ES256",), jwks=shared.jwks(), token_types=token_types, claims="rfc9068"
    )
    result = Authenticator([settings]).authenticate(bearer(PROD.svid(now=NOW)), NOW)
    assert isinstance(result, CredentialProblem)
    assert result.detail in ("token.issuer", "token.type")


def test_a_token_that_names_an_issuer_is_that_issuers_alone() -> None:
    shared = Issuer(kid="svid-1", key=PROD.signer.key)
    settings = IssuerSettings(shared.url, (AUDIENCE,), ("ES256",), jwks=shared.jwks(), token_types=("JWT",))
    result = Authenticator([settings]).authenticate(bearer(PROD.svid(now=NOW, iss=shared.url)), NOW)
    assert isinstance(result, Principal)
    assert (result.issuer, result.kind, result.environment) == (shared.url, None, None)
    assert outcome_of(PROD.svid(now=NOW, iss=shared.url)) is None


def test_an_access_token_is_no_svid_even_where_one_key_signs_both() -> None:
    shared = Issuer(kid="svid-1", key=PROD.signer.key)
    assert outcome_of(shared.mint(now=NOW, iss=REMOVED, sub=PROD.id(), client_id=REMOVED)) == "token.type"
    assert outcome_of(shared.mint(now=NOW, sub=PROD.id())) is None


def test_a_token_of_an_issuer_is_not_looked_at_whatever_its_subject() -> None:
    own = Issuer().mint(now=NOW, sub=PROD.id(), header={"typ": "JWT"})
    assert outcome_of(own) is None
    assert DOMAINS.svid_rules(parse_token(own)) is None


# as the authenticator takes them

ACCESS = IssuerSettings(ISSUER.url, (AUDIENCE,), ("ES256",), jwks=ISSUER.jwks())
AUTHENTICATOR = Authenticator([ACCESS], trust_domains=read(table(), table(STAGING)))


def who_is(credentials: Credentials) -> tuple[str, str] | str:
    """The issuer and subject that credentials establish, or the detail of their refusal."""
    result = AUTHENTICATOR.authenticate(credentials, NOW)
    return (result.issuer, result.subject) if isinstance(result, Principal) else result.detail


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        (PROD.svid(now=NOW), ("spiffe://prod.example.org", PROD.id())),
        (STAGING.svid(now=NOW), ("spiffe://staging.example.org", STAGING.id())),
        (PROD.svid(now=NOW, sub=STAGING.id()), "token.key_unknown"),
        (ISSUER.mint(now=NOW), (ISSUER.url, "alice")),
        # an issuer may name whom it likes; it is its word alone
        (ISSUER.mint(now=NOW, sub=PROD.id()), (ISSUER.url, PROD.id())),
        (PROD.svid(now=NOW, iss=ISSUER.url), "token.type"),
        (PROD.svid(now=NOW, iss=ISSUER.url, header={"typ": "at+jwt"}), "token.key_unknown"),
        (PROD.svid(now=NOW, signer=ISSUER), "token.key_unknown"),
        (PROD.svid(now=NOW, signer=ISSUER, header={"kid": "svid-1"}), "token.signature"),
        (ISSUER.mint(now=NOW, iss=REMOVED, sub=PROD.id()), "token.type"),
        (PROD.svid(now=NOW, sub="alice"), "token.issuer"),
        (PROD.svid(now=NOW, cnf={"jkt": "A" * 43}), "token.bound"),
    ],
)
def test_svids_and_access_tokens_are_checked_each_with_its_own_keys(
    token: str, expected: tuple[str, str] | str
) -> None:
    assert who_is(bearer(token)) == expected


def test_a_certificate_alone_names_a_workload_and_beside_a_token_it_does_not() -> None:
    der = PROD.certificate(now=NOW)
    assert who_is(shown(certificate=der)) == ("spiffe://prod.example.org", PROD.id())
    token = ISSUER.mint(now=NOW)
    assert who_is(shown(f"Bearer {token}", certificate=der)) == (ISSUER.url, "alice")
    assert who_is(shown("Bearer forged", certificate=der)) == "token.malformed"
    assert who_is(shown(certificate=FOREIGN.certificate("spiffe://evil.example/a", now=NOW))) == "spiffe.trust_domain"


# environments


@pytest.mark.capability("C5")
@pytest.mark.parametrize(
    ("path", "environment"),
    [
        ("/ns/prod/sa/a", "production"),
        ("/ns/staging/sa/a", "staging"),
        ("/ns/other/sa/a", "test"),
        # where two patterns differ nobody knows
        ("/ns/prod/sa/stage-runner", None),
    ],
)
def test_the_environment_goes_by_the_path(path: str, environment: str | None) -> None:
    places = {"/ns/prod/**": "production", "/ns/staging/**": "staging", "/ns/*/sa/stage-runner": "staging"}
    domains = domains_of(table(paths=["/**"], environments=places, environment="test"))
    who = principal(PROD.svid(now=NOW, sub=PROD.id(path)), domains)
    assert who is not None
    assert who.environment == environment
    assert domains.principal_of_certificate(PROD.certificate(PROD.id(path), now=NOW), NOW).environment == environment


def test_a_workload_of_no_environment_has_none() -> None:
    who = principal(PROD.svid(now=NOW), domains_of(table(environment=REMOVED)))
    assert who is not None
    assert who.environment is None


# bundles that change

TIMES = RefreshTimes(interval=0.02, poll=0.02, cooldown=0.0, retry=0.02, deadline=2.0)
NEXT = TrustDomain(kid="svid-9")


def written(path: Path, bundle: Any) -> Path:
    path.write_text(bundle if isinstance(bundle, str) else json.dumps(bundle), encoding="utf-8")
    return path


def test_keys_come_from_a_bundle_in_a_file_and_change_with_it(tmp_path: Path) -> None:
    file = written(tmp_path / "bundle.json", PROD.bundle())
    domains = domains_of(table(jwks=REMOVED, jwks_file=str(file)))
    assert outcome_of(PROD.svid(now=NOW), domains) == PROD.id()
    assert outcome_of(NEXT.svid(now=NOW), domains) == "token.key_unknown"
    written(file, PROD.bundle(NEXT))
    domains.start()
    assert outcome_of(NEXT.svid(now=NOW), domains) == PROD.id()


@pytest.mark.parametrize(
    "bundle",
    [{"keys": []}, {"keys": [ISSUER.jwk(use="x509-svid")]}, {"keys": [ISSUER.jwk(use="jwt-svid", kty="unheard-of")]}],
    ids=["no keys", "none for JWT-SVIDs", "none that can be used"],
)
@pytest.mark.parametrize("source", ["file", "address"])
def test_a_bundle_that_lost_its_keys_has_revoked_them(tmp_path: Path, bundle: dict[str, Any], source: str) -> None:
    file = written(tmp_path / "bundle.json", PROD.bundle())
    with KeyServer(PROD.bundle()) as server:
        where: dict[str, Any] = {"jwks_file": str(file)} if source == "file" else {"jwks_uri": server.url}
        domains = domains_of(table(jwks=REMOVED, **where), times=TIMES)
        assert outcome_of(PROD.svid(now=NOW), domains) == PROD.id()
        written(file, bundle)
        server.document = bundle
        domains.start()
        assert outcome_of(PROD.svid(now=NOW), domains) == "token.key_unknown"


@pytest.mark.parametrize("bundle", ["", "{", '{"keys": 7}', '{"keys": [], "keys": []}', "[]"])
def test_a_bundle_that_cannot_be_read_changes_nothing(tmp_path: Path, bundle: str) -> None:
    file = written(tmp_path / "bundle.json", PROD.bundle())
    domains = domains_of(table(jwks=REMOVED, jwks_file=str(file)))
    written(file, bundle)
    domains.start()
    assert outcome_of(PROD.svid(now=NOW), domains) == PROD.id()


def test_a_secret_in_a_bundle_file_is_no_key(tmp_path: Path) -> None:
    secret = Issuer(kid="svid-1", alg="HS256", key=make_key("HS256"))
    file = written(tmp_path / "bundle.json", {"keys": [secret.jwk(use="jwt-svid")]})
    domains = domains_of(table(jwks=REMOVED, jwks_file=str(file)))
    assert outcome_of(PROD.svid(now=NOW, signer=secret), domains) == "token.algorithm"


def test_keys_are_fetched_from_a_bundle_endpoint() -> None:
    with KeyServer(PROD.bundle()) as server:
        domains = domains_of(table(jwks=REMOVED, jwks_uri=server.url))
        assert outcome_of(PROD.svid(now=NOW), domains) == PROD.id()
        assert server.fetches == 1
        domains.close()


# X.509-SVIDs


def test_a_certificate_names_a_workload() -> None:
    der = PROD.certificate(now=NOW)
    who = DOMAINS.principal_of_certificate(der, NOW)
    assert who == Principal(
        issuer="spiffe://prod.example.org",
        subject=PROD.id(),
        kind="workload",
        subject_kind="workload",
        environment="production",
        token_id=who.token_id,
        issued_at=NOW - 10,
        expires_at=NOW + 3590,
    )
    assert who.token_id is not None
    assert int(who.token_id, 16) == x509.load_der_x509_certificate(der).serial_number
    assert who.is_accountable


URI = x509.UniformResourceIdentifier
AUTHORITY = x509.BasicConstraints(ca=True, path_length=0)


def usage(*, sign: bool = True, certificates: bool = False, lists: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(sign, False, False, False, True, certificates, lists, False, False)


def purposes(*kinds: x509.ObjectIdentifier) -> x509.ExtendedKeyUsage:
    return x509.ExtendedKeyUsage(kinds)


CERTIFICATES: dict[str, tuple[bytes, str]] = {
    "as SPIRE makes them": (PROD.certificate(now=NOW), PROD.id()),
    "without basic constraints": (PROD.certificate(now=NOW, constraints=None), PROD.id()),
    "without purposes": (PROD.certificate(now=NOW, purposes=None), PROD.id()),
    "for clients only": (PROD.certificate(now=NOW, purposes=purposes(ExtendedKeyUsageOID.CLIENT_AUTH)), PROD.id()),
    # names
    "two ids": (PROD.certificate(PROD.id(), PROD.id("/ns/billing/sa/b"), now=NOW), "spiffe.certificate"),
    "one id twice": (PROD.certificate(PROD.id(), PROD.id(), now=NOW), "spiffe.certificate"),
    "an id and another URI": (PROD.certificate(PROD.id(), "https://a.example/", now=NOW), "spiffe.certificate"),
    "no URI": (PROD.certificate(now=NOW, names=[x509.DNSName("prod.example.org")]), "spiffe.certificate"),
    "no names": (PROD.certificate(now=NOW, names=[]), "spiffe.certificate"),
    "an id as a host name": (PROD.certificate(now=NOW, names=[x509.DNSName(PROD.id())]), "spiffe.certificate"),
    "a URI that is no id": (PROD.certificate("https://prod.example.org/ns", now=NOW), "spiffe.id"),
    "path traversal": (PROD.certificate(PROD.id("/ns/x/../billing/sa/export"), now=NOW), "spiffe.id"),
    "a capital scheme": (PROD.certificate("SPIFFE://prod.example.org" + PATH, now=NOW), "spiffe.id"),
    "a port": (PROD.certificate("spiffe://prod.example.org:8443" + PATH, now=NOW), "spiffe.id"),
    "another trust domain": (PROD.certificate("spiffe://evil.example" + PATH, now=NOW), "spiffe.trust_domain"),
    "another path": (PROD.certificate(PROD.id("/ns/payroll/sa/export"), now=NOW), "spiffe.path"),
    "the trust domain itself": (PROD.certificate("spiffe://prod.example.org", now=NOW), "spiffe.path"),
    # what it is for
    "an authority": (PROD.certificate(now=NOW, constraints=AUTHORITY), "spiffe.certificate"),
    "signs certificates": (PROD.certificate(now=NOW, usage=usage(certificates=True)), "spiffe.certificate"),
    "signs revocation lists": (PROD.certificate(now=NOW, usage=usage(lists=True)), "spiffe.certificate"),
    "signs nothing": (PROD.certificate(now=NOW, usage=usage(sign=False)), "spiffe.certificate"),
    "no key usage": (PROD.certificate(now=NOW, usage=None), "spiffe.certificate"),
    "for servers only": (
        PROD.certificate(now=NOW, purposes=purposes(ExtendedKeyUsageOID.SERVER_AUTH)),
        "spiffe.certificate",
    ),
    "for any purpose": (
        PROD.certificate(now=NOW, purposes=purposes(ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE)),
        "spiffe.certificate",
    ),
    # when
    "expired": (PROD.certificate(now=NOW - 3591), "certificate.expired"),
    "expires now": (PROD.certificate(now=NOW - 3590), "certificate.expired"),
    "not yet valid": (PROD.certificate(now=NOW + 11), "certificate.not_yet_valid"),
    "valid from now": (PROD.certificate(now=NOW + 10), PROD.id()),
    "too long a life": (PROD.certificate(now=NOW, lifetime=86_401), "token.lifetime"),
    "the longest life": (PROD.certificate(now=NOW, lifetime=86_400), PROD.id()),
    # what it is made of
    "nothing": (b"", "spiffe.certificate"),
    "no certificate": (b"spiffe://prod.example.org" + PATH.encode(), "spiffe.certificate"),
    "cut off": (PROD.certificate(now=NOW)[:-1], "spiffe.certificate"),
    "something behind it": (PROD.certificate(now=NOW) + b"\x00", "spiffe.certificate"),
    "PEM": (b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n", "spiffe.certificate"),
    "very long": (
        PROD.certificate(now=NOW, names=[URI(PROD.id()), *(x509.DNSName(f"{n}.example") for n in range(1500))]),
        "spiffe.certificate",
    ),
}


@pytest.mark.parametrize(("der", "expected"), CERTIFICATES.values(), ids=CERTIFICATES)
def test_a_certificate_is_an_svid_of_a_leaf_or_refused(der: bytes, expected: str) -> None:
    assert certified(der) == expected


def test_a_certificate_counts_only_where_certificates_do() -> None:
    assert certified(PROD.certificate(now=NOW), domains_of(table(x509=False))) == "spiffe.trust_domain"
    assert certified(PROD.certificate(now=NOW), domains_of(table(x509=REMOVED))) == "spiffe.trust_domain"


@given(st.binary(max_size=64), st.integers(0, 10_000))
def test_a_damaged_certificate_is_refused_and_never_raises_otherwise(noise: bytes, position: int) -> None:
    whole = CERTIFICATES["as SPIRE makes them"][0]
    at = position % len(whole)
    assert certified(whole[:at] + noise + whole[at + len(noise) :])
