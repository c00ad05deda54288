"""What is said about a token agrees with what becomes of it, and says all that is wrong with it at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authz_middleware.identity.authenticator import Authenticator
from authz_middleware.identity.inspection import Inspection, Outcome, inspect_token
from authz_middleware.identity.possession.binding import Binding
from authz_middleware.identity.principal import Principal
from authz_middleware.settings.issuers import IssuerSettings
from authz_middleware.settings.key_sources import IntrospectionSettings
from tests.support.tokens import AUDIENCE, REMOVED, Issuer, base64url, bearer

NOW = 1_750_000_000.0
ISSUER = Issuer()
SECOND = Issuer("https://other.example/", kid="key-2")


def settings_for(issuer: Issuer, **changes: Any) -> IssuerSettings:
    base = IssuerSettings(issuer.url, (AUDIENCE,), (issuer.alg,), jwks=issuer.jwks())
    return msgspec.structs.replace(base, **changes)


ONE = (settings_for(ISSUER),)
TWO = (settings_for(ISSUER), settings_for(SECOND))
AUTHENTICATORS = {len(issuers): Authenticator(issuers) for issuers in (ONE, TWO)}


def refusals(inspection: Inspection) -> dict[str, str]:
    return {check.subject: str(check.detail) for check in inspection.refusals}


def test_a_good_token_passes_every_check() -> None:
    inspection = inspect_token(ISSUER.mint(now=NOW, kind="human"), ONE, NOW)
    assert inspection.is_accepted
    assert [check.subject for check in inspection.checks] == [
        *("form", "claims", "header", "type", "keys", "key", "signature"),
        *("issuer", "times", "audience", "subject", "use", "binding", "meaning"),
    ]
    assert inspection.principal is not None
    assert (inspection.principal.subject, inspection.principal.kind) == ("alice", "human")
    assert inspection.issuer is ONE[0]


def test_everything_that_is_wrong_is_said_at_once() -> None:
    token = Issuer(kid=ISSUER.kid).mint(
        now=NOW - 10_000, aud="other", sub="", header={"typ": "logout+jwt", "alg": "ES256"}, at_hash="x"
    )
    assert refusals(inspect_token(token, ONE, NOW)) == {
        "type": "token.type",
        "signature": "token.signature",
        "times": "token.expired",
        "audience": "token.audience",
        "subject": "token.claim_type",
        "use": "token.id_token",
    }


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        ("rubbish", {"form": "token.malformed"}),
        (ISSUER.mint_raw("[]"), {"claims": "token.malformed"}),
        (ISSUER.mint(now=NOW, header={"kid": "x"}), {"key": "token.key_unknown"}),
        (ISSUER.mint(now=NOW, header={"alg": "HS256"}), {"header": "token.algorithm"}),
        (ISSUER.mint(now=NOW, iss="https://x/"), {"issuer": "token.issuer"}),
        (ISSUER.mint(now=NOW, iss=REMOVED), {"issuer": "token.issuer"}),
        (ISSUER.mint(now=NOW, exp=REMOVED), {"times": "token.claim_missing"}),
        (ISSUER.mint(now=NOW, scope=7), {"meaning": "token.claim_type"}),
        (ISSUER.mint(now=NOW, cnf={"jwk": {}}), {"binding": "token.bound"}),
    ],
)
def test_one_fault_is_one_refusal(token: str, expected: dict[str, str]) -> None:
    inspection = inspect_token(token, ONE, NOW)
    assert refusals(inspection) == expected
    assert not inspection.is_accepted


def test_a_stranger_s_token_is_compared_with_nobody_s_settings_where_there_are_several() -> None:
    token = ISSUER.mint(now=NOW, iss="https://x/")
    inspection = inspect_token(token, TWO, NOW)
    assert refusals(inspection) == {"issuer": "token.issuer"}
    assert inspection.issuer is None


def test_a_token_is_judged_by_its_own_issuer() -> None:
    inspection = inspect_token(SECOND.mint(now=NOW), TWO, NOW)
    assert inspection.is_accepted
    assert inspection.issuer is TWO[1]


def test_a_bound_token_is_accepted_with_its_proof() -> None:
    thumbprint = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"
    inspection = inspect_token(ISSUER.mint(now=NOW, cnf={"jkt": thumbprint}), ONE, NOW)
    assert inspection.is_accepted
    assert inspection.binding == Binding(jkt=thumbprint)


def test_a_token_that_must_be_bound_and_is_not_is_refused() -> None:
    bound = (settings_for(ISSUER, proof="dpop"),)
    assert refusals(inspect_token(ISSUER.mint(now=NOW), bound, NOW)) == {"binding": "token.unbound"}


def test_a_workload_s_token_is_left_to_its_trust_domain() -> None:
    token = ISSUER.mint(now=NOW, iss=REMOVED, sub="spiffe://example.org/billing")
    inspection = inspect_token(token, ONE, NOW, has_trust_domains=True)
    assert [check.subject for check in inspection.checks if check.outcome is Outcome.UNKNOWN] == ["trust domain"]
    assert not inspection.is_accepted
    assert refusals(inspect_token(token, ONE, NOW)) == {"issuer": "token.issuer"}
    own = ISSUER.mint(now=NOW, sub="spiffe://example.org/billing")
    assert inspect_token(own, ONE, NOW, has_trust_domains=True).is_accepted


# ---- keys


def test_keys_that_are_fetched_leave_the_signature_open() -> None:
    remote = (settings_for(ISSUER, jwks=None, jwks_uri="https://issuer.example/jwks"),)
    inspection = inspect_token(Issuer(kid=ISSUER.kid).mint(now=NOW), remote, NOW)
    (unknown,) = (check for check in inspection.checks if check.outcome is Outcome.UNKNOWN)
    assert unknown.subject == "signature"
    assert not inspection.is_accepted
    assert not inspection.refusals


def test_a_key_set_beside_the_settings_closes_it() -> None:
    remote = (settings_for(ISSUER, jwks=None, jwks_uri="https://issuer.example/jwks"),)
    jwks = json.dumps(ISSUER.jwks()).encode()
    assert inspect_token(ISSUER.mint(now=NOW), remote, NOW, jwks=jwks).is_accepted
    forged = inspect_token(Issuer(kid=ISSUER.kid).mint(now=NOW), remote, NOW, jwks=jwks)
    assert refusals(forged) == {"signature": "token.signature"}


def test_a_secret_beside_the_settings_is_not_taken_for_fetched_keys() -> None:
    issuer = Issuer(alg="HS256")
    remote = (settings_for(issuer, jwks=None, jwks_uri="https://issuer.example/jwks"),)
    inspection = inspect_token(issuer.mint(now=NOW), remote, NOW, jwks=json.dumps(issuer.jwks()).encode())
    assert refusals(inspection) == {"keys": "keys.unavailable"}


def test_keys_from_a_file(tmp_path: Path) -> None:
    issuer = Issuer(alg="HS256")
    path = tmp_path / "jwks.json"
    from_file = (settings_for(issuer, jwks=None, jwks_file=path),)
    assert refusals(inspect_token(issuer.mint(now=NOW), from_file, NOW)) == {"keys": "keys.unavailable"}
    path.write_text("{")
    assert refusals(inspect_token(issuer.mint(now=NOW), from_file, NOW)) == {"keys": "keys.unavailable"}
    path.write_text(json.dumps(issuer.jwks()))
    assert inspect_token(issuer.mint(now=NOW), from_file, NOW).is_accepted


def test_nobody_is_asked_about_an_opaque_token() -> None:
    asked = (settings_for(ISSUER, jwks=None, algorithms=(), introspection=IntrospectionSettings("https://i.example/")),)
    opaque = inspect_token("opaque", asked, NOW)
    assert [check.subject for check in opaque.checks if check.outcome is Outcome.UNKNOWN] == ["introspection"]
    assert not opaque.is_accepted
    signed = inspect_token(ISSUER.mint(now=NOW), asked, NOW)
    assert [check.subject for check in signed.checks if check.outcome is Outcome.UNKNOWN] == ["introspection"]
    assert not signed.is_accepted


# ---- agreement

VALUES = st.sampled_from(
    [
        *(REMOVED, "", "x", "alice", AUDIENCE, ISSUER.url, SECOND.url, 0, 1, True, None, [], [AUDIENCE], {}, "ID"),
        *(NOW - 1000, NOW - 5, NOW, NOW + 5, NOW + 300, NOW + 10_000, str(NOW)),
    ]
)
CLAIMS = st.dictionaries(
    st.sampled_from(
        ["iss", "sub", "aud", "exp", "iat", "nbf", "scope", "act", "nonce", "azp", "typ", "client_id", "jti"]
    ),
    VALUES,
    max_size=3,
)
HEADERS = st.dictionaries(
    st.sampled_from(["alg", "typ", "kid", "crit", "jwk"]),
    st.sampled_from([REMOVED, "ES256", "none", "key-1", "key-2", "at+jwt", "JWT", 1]),
    max_size=2,
)


@settings(max_examples=400, deadline=None)
@given(CLAIMS, HEADERS, st.sampled_from([ONE, TWO]), st.sampled_from([ISSUER, SECOND]), st.booleans())
def test_what_is_said_agrees_with_what_becomes_of_the_token(
    claims: dict[str, Any], header: dict[str, Any], issuers: tuple[IssuerSettings, ...], signer: Issuer, cut: bool
) -> None:
    token = signer.mint(now=NOW, header=header, **claims)[: -8 if cut else None]
    result = AUTHENTICATORS[len(issuers)].authenticate(bearer(token), NOW)
    inspection = inspect_token(token, issuers, NOW)
    if isinstance(result, Principal):
        assert inspection.is_accepted
    else:
        assert result.detail in refusals(inspection).values()


@settings(max_examples=300, deadline=None)
@given(st.text() | st.binary().map(lambda data: f"{base64url({})}.{base64url(data)}.AAAA"))
def test_whatever_is_inspected_there_is_an_answer(text: str) -> None:
    assert not inspect_token(text, ONE, NOW).is_accepted


def test_an_inspection_shows_no_signature() -> None:
    token = ISSUER.mint(now=NOW)
    assert token.rpartition(".")[2] not in repr(inspect_token(token, ONE, NOW))
    assert token.rpartition(".")[2] not in repr(inspect_token(token[:-4] + "AAAA", ONE, NOW))
