"""Which tokens are believed, and which of the forged, stretched and misdirected ones are not, and why."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from authz_middleware.decision import Reason
from authz_middleware.identity.authenticator import Authenticator
from authz_middleware.identity.jwk import VerificationKey
from authz_middleware.identity.principal import Principal
from authz_middleware.identity.problem import PROBLEMS, CredentialDetail, CredentialProblem, TokenRefusedError
from authz_middleware.identity.tokens import parse_token
from authz_middleware.settings.model import IssuerSettings
from tests.support.tokens import AUDIENCE, REMOVED, Issuer, base64url, bearer

NOW = 1_750_000_000.0
ISSUER = Issuer()
OTHER = Issuer(kid="key-2")
SECOND = Issuer("https://other.example/", kid="key-3")


def settings_for(issuer: Issuer, **changes: Any) -> IssuerSettings:
    base = IssuerSettings(issuer.url, (AUDIENCE,), (issuer.alg,), jwks=issuer.jwks())
    return msgspec.structs.replace(base, **changes)


AUTHENTICATOR = Authenticator([settings_for(ISSUER), settings_for(SECOND)])


def outcome_of(token: str, authenticator: Authenticator = AUTHENTICATOR, now: float = NOW) -> str:
    """The subject that a token establishes, or the detail of its refusal."""
    result = authenticator.authenticate(bearer(token), now)
    if isinstance(result, Principal):
        return result.subject
    assert result.reason is Reason.CREDENTIAL_INVALID
    return result.detail


def mint(**kwargs: Any) -> str:
    return ISSUER.mint(now=NOW, **kwargs)


def raw(payload: bytes | str) -> str:
    return ISSUER.mint_raw(payload)


def payload_with(extra: str) -> str:
    """A valid payload with some JSON text added to it."""
    return json.dumps(ISSUER.claims(NOW))[:-1] + f", {extra}}}"


def with_header(text: str | bytes) -> str:
    return ISSUER.mint_raw(json.dumps(ISSUER.claims(NOW)), header=text)


def nested(depth: int) -> str:
    return payload_with('"deep": ' + "[" * depth + "]" * depth)


def unsigned() -> str:
    header, payload, _ = mint(header={"alg": "none"}).split(".")
    return f"{header}.{payload}."


def hmac_with_public_key() -> str:
    """The classic confusion: HS256 keyed with the public key, which everybody knows."""
    public = ISSUER.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    signed = f"{base64url({'typ': 'at+jwt', 'alg': 'HS256', 'kid': ISSUER.kid})}.{base64url(ISSUER.claims(NOW))}"
    return f"{signed}.{base64url(hmac.new(public, signed.encode(), hashlib.sha256).digest())}"


def other_payload() -> str:
    header, _, signature = mint().split(".")
    return f"{header}.{base64url(ISSUER.claims(NOW, sub='mallory'))}.{signature}"


def respelled_signature() -> str:
    """The same signature bytes, with the unused bits of the last character set."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    token = mint()
    twin = token[:-1] + alphabet[alphabet.index(token[-1]) + 1]
    pad = "=" * (-len(token.rsplit(".", 1)[1]) % 4)
    assert base64.urlsafe_b64decode(token.rsplit(".", 1)[1] + pad) == base64.urlsafe_b64decode(
        twin.rsplit(".", 1)[1] + pad
    )
    return twin


def der_signature() -> str:
    """ECDSA in DER, as other formats write it, in place of the fixed-size form of RFC 7518."""
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.hashes import SHA256

    signed = mint().rpartition(".")[0]
    return f"{signed}.{base64url(ISSUER.key.sign(signed.encode(), ec.ECDSA(SHA256())))}"


def zero_signature() -> str:
    """r = s = 0, which a careless verifier accepts for every message (CVE-2022-21449)."""
    return f"{mint().rpartition('.')[0]}.{base64url(bytes(64))}"


def json_form() -> str:
    header, payload, signature = mint().split(".")
    return json.dumps({"protected": header, "payload": payload, "signature": signature}).replace(", ", ";")


def embedded_key() -> str:
    """A token that brings its own key, in the header, and is signed with it."""
    thief = Issuer(kid=ISSUER.kid)
    return thief.mint(now=NOW, header={"jwk": thief.jwk(), "jku": "https://thief.example/jwks"})


ADVERSARIAL: list[tuple[str, Callable[[], str], str]] = [
    # form and size
    ("not a token", lambda: "opensesame", "token.malformed"),
    ("two parts", lambda: "a.b", "token.malformed"),
    ("five parts, as an encrypted token has", lambda: f"{mint()}.a.b", "token.malformed"),
    ("no signature", unsigned, "token.malformed"),
    ("padded parts", lambda: mint() + "==", "token.malformed"),
    ("JSON serialisation", lambda: json_form().replace(" ", ""), "token.malformed"),
    ("a line feed behind it", lambda: mint() + "\n", "token.malformed"),
    ("letters outside ASCII", lambda: mint() + "é", "token.malformed"),
    ("half of a surrogate pair", lambda: mint() + "\ud800", "token.malformed"),
    ("the same signature spelled another way", respelled_signature, "token.malformed"),
    ("more than 16 KiB", lambda: mint(pad="x" * 12_500), "token.too_long"),
    ("a header beyond 4 KiB", lambda: mint(header={"pad": "x" * 3_100}), "token.too_long"),
    ("a header without end", lambda: "a" * 5_000, "token.too_long"),
    # JSON
    ("a payload that is a list", lambda: raw("[]"), "token.malformed"),
    ("a payload that is text", lambda: raw('"alice"'), "token.malformed"),
    ("a payload that is not JSON", lambda: raw("sub=alice"), "token.malformed"),
    ("a payload with something behind it", lambda: raw(payload_with('"a": 1') + "{}"), "token.malformed"),
    ("a header that is a list", lambda: with_header("[]"), "token.malformed"),
    ("a header that is not JSON", lambda: with_header(b"\xff"), "token.malformed"),
    ("a duplicate member", lambda: raw(payload_with('"sub": "mallory"')), "token.malformed"),
    ("a duplicate through an escape", lambda: raw(payload_with('"\\u0073ub": "mallory"')), "token.malformed"),
    ("a duplicate deep inside", lambda: raw(payload_with('"x": [{"a": 1, "a": 2}]')), "token.malformed"),
    (
        "a duplicate header member",
        lambda: with_header('{"typ":"at+jwt","alg":"ES256","kid":"key-1","alg":"none"}'),
        "token.malformed",
    ),
    ("NaN", lambda: raw(payload_with('"x": NaN')), "token.malformed"),
    ("Infinity", lambda: raw(payload_with('"x": -Infinity')), "token.malformed"),
    ("a number too large for a double", lambda: raw(payload_with('"x": 1e999')), "token.malformed"),
    ("a number of 5000 digits", lambda: raw(payload_with(f'"x": {"9" * 5000}')), "token.malformed"),
    ("a number of 20 digits", lambda: raw(payload_with(f'"x": {"9" * 20}')), "token.malformed"),
    ("Arabic digits", lambda: raw(payload_with('"x": ١٢')), "token.malformed"),
    ("bytes that are not UTF-8", lambda: raw(payload_with('"x": "').encode() + b"\xff"), "token.malformed"),
    ("UTF-16", lambda: raw(json.dumps(ISSUER.claims(NOW)).encode("utf-16")), "token.malformed"),
    ("a byte order mark", lambda: raw(b"\xef\xbb\xbf" + payload_with('"x": 1').encode()), "token.malformed"),
    ("half of a surrogate pair inside", lambda: raw(payload_with('"x": ["\\ud800"]')), "token.malformed"),
    ("half of a surrogate pair as a name", lambda: raw(payload_with('"\\udfff": 1')), "token.malformed"),
    ("nesting one beyond the bound", lambda: raw(nested(32)), "token.malformed"),
    ("nesting beyond any stack", lambda: raw(nested(5000)), "token.malformed"),
    # header
    ("crit", lambda: mint(header={"crit": ["exp"]}), "token.header"),
    ("zip", lambda: mint(header={"zip": "DEF"}), "token.header"),
    ("b64", lambda: mint(header={"b64": True}), "token.header"),
    ("a kid that is a number", lambda: mint(header={"kid": 1}), "token.header"),
    ("a kid that is null", lambda: with_header('{"typ":"at+jwt","alg":"ES256","kid":null}'), "token.header"),
    ("an empty kid", lambda: mint(header={"kid": ""}), "token.header"),
    ("a kid with a line feed", lambda: mint(header={"kid": "key-1\n"}), "token.header"),
    ("a kid of 257 characters", lambda: mint(header={"kid": "k" * 257}), "token.header"),
    ("a kid that looks like a path", lambda: mint(header={"kid": "../../dev/null"}), "token.key_unknown"),
    ("a kid in another case", lambda: mint(header={"kid": "KEY-1"}), "token.key_unknown"),
    ("no alg", lambda: mint(header={"alg": REMOVED}), "token.algorithm"),
    ("alg none with a signature", lambda: mint(header={"alg": "none"}), "token.algorithm"),
    ("alg in another case", lambda: mint(header={"alg": "es256"}), "token.algorithm"),
    ("alg as a list", lambda: mint(header={"alg": ["ES256"]}), "token.algorithm"),
    ("an alg of another key size", lambda: mint(header={"alg": "ES512"}), "token.algorithm"),
    ("an alg that no key has, and no kid", lambda: mint(header={"alg": "HS256", "kid": REMOVED}), "token.algorithm"),
    ("HMAC with the public key as secret", hmac_with_public_key, "token.algorithm"),
    ("no typ", lambda: mint(header={"typ": REMOVED}), "token.type"),
    ("plain JWT, as ID tokens are", lambda: mint(header={"typ": "JWT"}), "token.type"),
    ("a logout token", lambda: mint(header={"typ": "logout+jwt"}), "token.type"),
    ("a DPoP proof", lambda: mint(header={"typ": "dpop+jwt"}), "token.type"),
    ("a security event", lambda: mint(header={"typ": "secevent+jwt"}), "token.type"),
    ("typ as a list", lambda: mint(header={"typ": ["at+jwt"]}), "token.type"),
    # keys and signatures
    ("signed by a stranger under a known kid", lambda: Issuer(kid=ISSUER.kid).mint(now=NOW), "token.signature"),
    ("a stranger's key in its own header", embedded_key, "token.signature"),
    ("signed by another trusted issuer", lambda: SECOND.mint(now=NOW, iss=ISSUER.url), "token.key_unknown"),
    (
        "signed by another trusted issuer under our kid",
        lambda: SECOND.mint(now=NOW, iss=ISSUER.url, header={"kid": ISSUER.kid}),
        "token.signature",
    ),
    ("another payload under the signature", other_payload, "token.signature"),
    ("a DER signature", der_signature, "token.signature"),
    ("a signature of zeros", zero_signature, "token.signature"),
    ("a signature cut short", lambda: mint()[:-6], "token.signature"),
    # issuer, audience, subject
    ("no iss", lambda: mint(iss=REMOVED), "token.issuer"),
    ("an unknown iss", lambda: mint(iss="https://thief.example/"), "token.issuer"),
    ("iss without its slash", lambda: mint(iss="https://issuer.example"), "token.issuer"),
    ("iss in another case", lambda: mint(iss="https://ISSUER.example/"), "token.issuer"),
    ("iss as a list", lambda: mint(iss=[ISSUER.url]), "token.issuer"),
    ("no aud", lambda: mint(aud=REMOVED), "token.claim_missing"),
    ("another audience", lambda: mint(aud="payroll-api"), "token.audience"),
    ("an audience that starts like ours", lambda: mint(aud="billing-api2"), "token.audience"),
    ("our audience in another case", lambda: mint(aud="Billing-API"), "token.audience"),
    ("no audience in the list", lambda: mint(aud=[]), "token.audience"),
    ("an audience that is a number", lambda: mint(aud=7), "token.claim_type"),
    ("an audience list with a number", lambda: mint(aud=[AUDIENCE, 7]), "token.claim_type"),
    ("an audience object", lambda: mint(aud={AUDIENCE: True}), "token.claim_type"),
    ("no sub", lambda: mint(sub=REMOVED), "token.claim_missing"),
    ("an empty sub", lambda: mint(sub=""), "token.claim_type"),
    ("a blank sub", lambda: mint(sub="  "), "token.claim_type"),
    ("a sub that is a number", lambda: mint(sub=17), "token.claim_type"),
    ("a sub with a null byte", lambda: mint(sub="alice\x00bob"), "token.claim_type"),
    ("a sub with a line feed", lambda: mint(sub="alice\nbob"), "token.claim_type"),
    ("a sub that runs backwards on screen", lambda: mint(sub="alice\u202ebob"), "token.claim_type"),
    ("a sub of 3000 characters", lambda: mint(sub="a" * 3000), "token.claim_type"),
    # times
    ("no exp", lambda: mint(exp=REMOVED), "token.claim_missing"),
    ("no iat", lambda: mint(iat=REMOVED), "token.claim_missing"),
    ("exp as text", lambda: mint(exp=str(int(NOW) + 300)), "token.claim_type"),
    ("exp as true", lambda: mint(exp=True), "token.claim_type"),
    ("exp in the year 10000", lambda: mint(exp=253402300800), "token.claim_type"),
    ("exp in milliseconds", lambda: mint(exp=int(NOW + 300) * 1000), "token.claim_type"),
    ("a negative iat", lambda: mint(iat=-1), "token.claim_type"),
    ("iat as text", lambda: mint(iat="now"), "token.claim_type"),
    ("nbf as text", lambda: mint(nbf="now"), "token.claim_type"),
    ("expired beyond the leeway", lambda: mint(iat=NOW - 100, exp=NOW - 10), "token.expired"),
    ("nbf beyond the leeway", lambda: mint(nbf=NOW + 11), "token.not_yet_valid"),
    ("iat beyond the leeway", lambda: mint(iat=NOW + 11), "token.not_yet_valid"),
    ("iat beyond the leeway after an early nbf", lambda: mint(iat=NOW + 11, nbf=NOW), "token.not_yet_valid"),
    ("exp before iat", lambda: mint(iat=NOW + 5, exp=NOW + 4), "token.lifetime"),
]


@pytest.mark.capability("C47")
@pytest.mark.parametrize(("make", "detail"), [row[1:] for row in ADVERSARIAL], ids=[row[0] for row in ADVERSARIAL])
def test_a_bad_token_is_refused_for_what_is_wrong_with_it(make: Callable[[], str], detail: str) -> None:
    assert outcome_of(make()) == detail


def test_a_good_token_establishes_its_subject() -> None:
    assert outcome_of(mint()) == "alice"


@pytest.mark.parametrize(
    "token",
    [
        pytest.param(lambda: mint(header={"typ": "application/at+jwt"}), id="typ with its media type prefix"),
        pytest.param(lambda: mint(header={"typ": "AT+JWT"}), id="typ in another case"),
        pytest.param(lambda: mint(header={"kid": REMOVED}), id="no kid where one key fits"),
        pytest.param(lambda: mint(header={"jku": "https://thief.example/", "x5u": "x", "x5c": []}), id="key hints"),
        pytest.param(lambda: mint(aud=["other", AUDIENCE]), id="ours among two audiences"),
        pytest.param(lambda: mint(iat=NOW - 100, exp=NOW - 9), id="expired within the leeway"),
        pytest.param(lambda: mint(nbf=NOW + 9), id="nbf within the leeway"),
        pytest.param(lambda: mint(iat=NOW - 0.5, exp=NOW + 200.5), id="fractions of seconds"),
        pytest.param(lambda: raw(nested(31)), id="nesting at the bound"),
        pytest.param(lambda: mint(pad="x" * 11_500), id="just below 16 KiB"),
    ],
)
def test_a_token_within_the_rules_is_accepted(token: Callable[[], str]) -> None:
    assert outcome_of(token()) == "alice"


@pytest.mark.parametrize("alg", ["ES256", "ES384", "ES512", "EdDSA", "RS256", "RS512", "PS256", "PS384"])
def test_each_public_key_algorithm_verifies_its_own_tokens_only(alg: str) -> None:
    issuer = Issuer(alg=alg)
    authenticator = Authenticator([settings_for(issuer)])
    token = issuer.mint(now=NOW)
    first = token.rfind(".") + 1
    tampered = token[:first] + ("A" if token[first] != "A" else "B") + token[first + 1 :]
    assert outcome_of(token, authenticator) == "alice"
    assert outcome_of(tampered, authenticator) == "token.signature"


def test_a_key_serves_no_other_algorithm_than_its_own() -> None:
    """PS256 is allowed and an RSA key is there, but that key carries RS256."""
    rs = Issuer(alg="RS256", kid="rs")
    ps = Issuer(alg="PS256", kid="ps")
    authenticator = Authenticator([settings_for(rs, algorithms=("RS256", "PS256"), jwks=rs.jwks(ps))])
    confused = Issuer(alg="PS256", kid="rs", key=rs.key)
    assert outcome_of(rs.mint(now=NOW), authenticator) == "alice"
    assert outcome_of(ps.mint(now=NOW), authenticator) == "alice"
    assert outcome_of(confused.mint(now=NOW), authenticator) == "token.algorithm"


def test_without_kid_two_fitting_keys_are_one_too_many() -> None:
    authenticator = Authenticator([settings_for(ISSUER, jwks=ISSUER.jwks(OTHER))])
    assert outcome_of(mint(header={"kid": REMOVED}), authenticator) == "token.key_unknown"


def test_another_kind_of_token_is_refused_even_where_the_settings_list_it() -> None:
    authenticator = Authenticator([settings_for(ISSUER, token_types=("at+jwt", "Logout+JWT"))])
    assert outcome_of(mint(header={"typ": "logout+jwt"}), authenticator) == "token.type"


def test_typ_is_not_folded_beyond_ascii() -> None:
    """The Kelvin sign becomes a k in lower case."""
    authenticator = Authenticator([settings_for(ISSUER, token_types=("task+jwt",))])
    assert outcome_of(mint(header={"typ": "TASK+jwt"}), authenticator) == "alice"
    assert outcome_of(mint(header={"typ": "tas\u212a+jwt"}), authenticator) == "token.type"


@pytest.mark.capability("C14")
def test_a_long_lived_token_of_a_trusted_issuer_is_refused() -> None:
    ten_years = mint(iat=NOW, exp=NOW + 10 * 365 * 86_400)
    assert outcome_of(ten_years) == "token.lifetime"


@pytest.mark.capability("C14")
@pytest.mark.parametrize(("lifetime", "outcome"), [(900, "alice"), (900.5, "token.lifetime")])
def test_the_lifetime_bound_is_exact(lifetime: float, outcome: str) -> None:
    assert outcome_of(mint(iat=NOW, exp=NOW + lifetime)) == outcome


@pytest.mark.capability("C11")
@pytest.mark.parametrize(
    ("audience", "outcome"),
    [
        (AUDIENCE, "alice"),
        ([AUDIENCE], "alice"),
        ([AUDIENCE, "payroll-api"], "token.audience_not_single"),
        ([AUDIENCE, AUDIENCE], "token.audience_not_single"),
    ],
)
def test_in_strict_mode_a_token_is_for_one_audience(audience: Any, outcome: str) -> None:
    authenticator = Authenticator([settings_for(ISSUER, single_audience=True)])
    assert outcome_of(mint(aud=audience), authenticator) == outcome


@pytest.mark.parametrize("cnf", [{"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}, {}, None])
def test_a_token_bound_to_a_key_is_no_bearer_token(cnf: Any) -> None:
    payload = {**ISSUER.claims(NOW), "cnf": cnf}
    assert outcome_of(ISSUER.mint_raw(json.dumps(payload))) == "token.bound"


@pytest.mark.parametrize("error", [ValueError, RuntimeError, RecursionError, MemoryError, KeyError])
def test_whatever_a_library_raises_while_verifying_is_a_refusal(error: type[Exception]) -> None:
    class Broken:
        def verify(self, *_: object) -> bool:
            raise error("eyJ-secret")

    key = VerificationKey("k", "ES256", Broken(), None)  # type: ignore[arg-type]
    assert key.verifies(b"signed", b"signature") is False


def test_only_exactly_true_from_a_library_is_a_good_signature() -> None:
    class Truthy:
        def verify(self, *_: object) -> Any:
            return "yes"

    assert VerificationKey("k", "ES256", Truthy(), None).verifies(b"", b"") is False  # type: ignore[arg-type]


VALID = mint()


@settings(max_examples=300, deadline=None)
@given(position=st.integers(0, len(VALID) - 1), replacement=st.characters(codec="ascii") | st.just(""))
def test_no_token_with_a_character_changed_or_removed_is_believed(position: int, replacement: str) -> None:
    mutated = VALID[:position] + replacement + VALID[position + 1 :]
    if mutated != VALID:
        assert isinstance(AUTHENTICATOR.authenticate(bearer(mutated), NOW), CredentialProblem)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
CHECKED = ("iss", "sub", "aud", "exp", "iat", "nbf", "act", "scope", "roles", "tenant", "kind", "jti", "client_id")


@settings(max_examples=300, deadline=None)
@given(name=st.sampled_from(CHECKED), value=JSON_VALUES, header=st.booleans())
def test_signed_claims_of_any_type_give_a_well_typed_principal_or_a_refusal(
    name: str, value: Any, header: bool
) -> None:
    if header:
        token = ISSUER.mint_raw(
            json.dumps(ISSUER.claims(NOW)), header=json.dumps({"alg": "ES256", "typ": "at+jwt", name: value})
        )
    else:
        token = ISSUER.mint_raw(json.dumps({**ISSUER.claims(NOW), name: value}))
    result = AUTHENTICATOR.authenticate(bearer(token), NOW)
    if isinstance(result, Principal):
        msgspec.convert(msgspec.to_builtins(result), Principal, strict=True)
        assert result.issuer == ISSUER.url
        assert result.expires_at > NOW - 10
        assert AUDIENCE in result.audience
    else:
        assert result.detail != "token.unexpected"


def test_the_size_is_checked_before_anything_is_made_of_the_token() -> None:
    class Long(str):
        def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
            raise AssertionError("copied")

        def __getitem__(self, key: object) -> str:
            raise AssertionError("cut")

    assert AUTHENTICATOR.authenticate([Long("Bearer " + "A" * 1_000_000)], NOW) == PROBLEMS[CredentialDetail.TOO_LONG]
    with pytest.raises(TokenRefusedError, match="too_long"):
        parse_token(Long("A." * 10_000))
