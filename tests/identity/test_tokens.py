"""Which tokens are believed, and which of the forged, stretched and misdirected ones are not, and why."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import logging
import re
import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from authz_middleware.decision import Reason
from authz_middleware.identity.authenticator import Authenticator
from authz_middleware.identity.claims.values import ABSENT, MAX_TEXT, MAX_WORDS, lookup
from authz_middleware.identity.compact import MAX_CLAIM_ITEMS, MAX_HEADER, MAX_HEADER_ITEMS, MAX_TOKEN, parse_token
from authz_middleware.identity.keys.jwk import VerificationKey, read_jwks
from authz_middleware.identity.keys.key_set import RefreshTimes
from authz_middleware.identity.principal import Principal
from authz_middleware.identity.problem import PROBLEMS, CredentialDetail, CredentialProblem, TokenRefusedError
from authz_middleware.identity.tokens import OTHER_KINDS, IssuerRules, check_claims, verify
from authz_middleware.settings.issuers import IssuerSettings
from authz_middleware.strict_json import MAX_BODY, StrictJSONError, parse_object
from tests.support.tokens import AUDIENCE, REMOVED, Issuer, KeyServer, base64url, bearer, shown

NOW = 1_750_000_000.0
ISSUER = Issuer()
OTHER = Issuer(kid="key-2")
SECOND = Issuer("https://other.example/", kid="key-3")


def settings_for(issuer: Issuer, **changes: Any) -> IssuerSettings:
    base = IssuerSettings(issuer.url, (AUDIENCE,), (issuer.alg,), jwks=issuer.jwks())
    return msgspec.structs.replace(base, **changes)


AUTHENTICATOR = Authenticator([settings_for(ISSUER), settings_for(SECOND)])
SOLE = Authenticator([settings_for(ISSUER)])


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


def respelled(part: int) -> str:
    """A token one of whose signed parts ends in set bits beyond the last byte, correctly signed so."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    header = {"typ": "at+jwt", "alg": ISSUER.alg, "kid": ISSUER.kid}
    parts = [base64url({**header, "x": ""}), base64url(ISSUER.claims(NOW, x=""))]
    pad = ""
    while len(parts[part]) % 4 == 0:
        pad += "x"
        parts = [base64url({**header, "x": pad}), base64url(ISSUER.claims(NOW, x=pad))]
    parts[part] = parts[part][:-1] + alphabet[alphabet.index(parts[part][-1]) + 1]
    return ISSUER.sign(*parts)


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


def items(count: int) -> str:
    """A valid payload with so many commas and opening brackets in it."""
    payload = json.dumps(ISSUER.claims(NOW))
    return payload[:-1] + ', "x": [' + "0," * (count - payload.count(",") - payload.count("{") - 2) + "0]}"


def header_items(count: int) -> str:
    """A valid header with so many commas and opening brackets in it."""
    header = '{"typ":"at+jwt","alg":"ES256","kid":"key-1","x":['
    return header + "0," * (count - header.count(",") - 2) + "0]}"


def long_header(size: int) -> str:
    """A token whose encoded header has so many characters."""
    bare = base64url({"typ": "at+jwt", "alg": "ES256", "kid": ISSUER.kid, "x": ""})
    pad = "x" * ((size - len(bare)) * 3 // 4)
    while len(base64url({"typ": "at+jwt", "alg": "ES256", "kid": ISSUER.kid, "x": pad})) < size:
        pad += "x"
    return mint(header={"x": pad})


def long_token(size: int) -> str:
    """A token of exactly so many characters; three in four lengths of a part are possible."""
    for header in ({}, {"x": ""}, {"x": "x"}):
        pad = "x" * ((size - len(mint(header=header, pad=""))) * 3 // 4 - 8)
        while len(token := mint(header=header, pad=pad)) < size:
            pad += "x"
        if len(token) == size:
            return token
    raise AssertionError("no such length")


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
    ("more than 16 KiB", lambda: long_token(MAX_TOKEN + 1), "token.too_long"),
    ("a header beyond 4 KiB", lambda: long_header(MAX_HEADER + 1), "token.too_long"),
    ("a header without end", lambda: "a" * 5_000, "token.too_long"),
    ("4 KiB without a dot", lambda: "a" * 4_096, "token.malformed"),
    ("4 KiB and one more without a dot", lambda: "a" * 4_097, "token.too_long"),
    ("nothing at all between the dots", lambda: "..", "token.malformed"),
    ("no header", lambda: "." + ".".join(mint().split(".")[1:]), "token.malformed"),
    ("no payload", lambda: ".".join([mint().split(".")[0], "", "AAAA"]), "token.malformed"),
    ("a part with one character too many", lambda: mint()[:-1], "token.malformed"),
    ("characters of plain base64", lambda: mint()[:-4] + "+/+/", "token.malformed"),
    ("a space before it", lambda: " " + mint(), "authorization.scheme"),
    ("the same payload spelled another way", lambda: respelled(1), "token.malformed"),
    ("the same header spelled another way", lambda: respelled(0), "token.malformed"),
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
    ("a number of 65 characters", lambda: raw(payload_with(f'"x": 0.{"1" * 63}')), "token.malformed"),
    ("one member or element too many", lambda: raw(items(MAX_CLAIM_ITEMS + 1)), "token.malformed"),
    ("too many elements in the header", lambda: with_header(header_items(257)), "token.malformed"),
    ("iss twice", lambda: raw(payload_with(f'"iss": "{ISSUER.url}"')), "token.malformed"),
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
    ("257 audiences", lambda: mint(aud=[AUDIENCE] * 257), "token.claim_type"),
    ("an audience with a line feed beside ours", lambda: mint(aud=[AUDIENCE, "a\nb"]), "token.claim_type"),
    (
        "an audience that is null",
        lambda: raw(payload_with('"x": 1').replace(f'"{AUDIENCE}"', "null")),
        "token.claim_type",
    ),
    ("an audience list with a number", lambda: mint(aud=[AUDIENCE, 7]), "token.claim_type"),
    ("an audience object", lambda: mint(aud={AUDIENCE: True}), "token.claim_type"),
    ("257 scopes", lambda: mint(scope=["s"] * 257), "token.claim_type"),
    ("no sub", lambda: mint(sub=REMOVED), "token.claim_missing"),
    ("an empty sub", lambda: mint(sub=""), "token.claim_type"),
    ("a blank sub", lambda: mint(sub="  "), "token.claim_type"),
    ("a sub that is a number", lambda: mint(sub=17), "token.claim_type"),
    ("a sub with a null byte", lambda: mint(sub="alice\x00bob"), "token.claim_type"),
    ("a sub with a line feed", lambda: mint(sub="alice\nbob"), "token.claim_type"),
    ("a sub that runs backwards on screen", lambda: mint(sub="alice\u202ebob"), "token.claim_type"),
    ("a sub of 3000 characters", lambda: mint(sub="a" * 3000), "token.claim_type"),
    ("a sub of 2049 characters", lambda: mint(sub="a" * 2049), "token.claim_type"),
    ("a sub that is null", lambda: raw(payload_with('"x": 1').replace('"alice"', "null")), "token.claim_type"),
    # times
    ("no exp", lambda: mint(exp=REMOVED), "token.claim_missing"),
    ("no iat", lambda: mint(iat=REMOVED), "token.claim_missing"),
    ("exp as text", lambda: mint(exp=str(int(NOW) + 300)), "token.claim_type"),
    ("exp as true", lambda: mint(exp=True), "token.claim_type"),
    ("exp at the end of the year 9999", lambda: mint(exp=253402300799), "token.lifetime"),
    ("exp in the year 10000", lambda: mint(exp=253402300800), "token.claim_type"),
    ("exp in milliseconds", lambda: mint(exp=int(NOW + 300) * 1000), "token.claim_type"),
    ("iat zero", lambda: mint(iat=0), "token.lifetime"),
    ("a negative iat", lambda: mint(iat=-1), "token.claim_type"),
    ("iat as text", lambda: mint(iat="now"), "token.claim_type"),
    ("nbf as text", lambda: mint(nbf="now"), "token.claim_type"),
    ("expired beyond the leeway", lambda: mint(iat=NOW - 100, exp=NOW - 10), "token.expired"),
    ("nbf beyond the leeway", lambda: mint(nbf=NOW + 11), "token.not_yet_valid"),
    ("iat beyond the leeway", lambda: mint(iat=NOW + 11), "token.not_yet_valid"),
    ("iat beyond the leeway after an early nbf", lambda: mint(iat=NOW + 11, nbf=NOW), "token.not_yet_valid"),
    ("exp before iat", lambda: mint(iat=NOW + 5, exp=NOW + 4), "token.lifetime"),
    ("exp at iat", lambda: mint(iat=NOW + 5, exp=NOW + 5), "token.lifetime"),
    ("nbf as true", lambda: mint(nbf=True), "token.claim_type"),
    ("exp as null", lambda: raw(payload_with('"x": 1').replace(str(int(NOW) + 300), "null")), "token.claim_type"),
    ("exp in Arabic digits as text", lambda: mint(exp="١٧٥٠٠٠٠٣٠٠"), "token.claim_type"),
]


def test_the_bounds() -> None:
    assert (MAX_TOKEN, MAX_HEADER, MAX_HEADER_ITEMS, MAX_CLAIM_ITEMS) == (16_384, 4_096, 256, 2_048)
    assert (MAX_TEXT, MAX_WORDS) == (2_048, 256)


@pytest.mark.capability("C47")
@pytest.mark.parametrize(("make", "detail"), [row[1:] for row in ADVERSARIAL], ids=[row[0] for row in ADVERSARIAL])
def test_a_bad_token_is_refused_for_what_is_wrong_with_it(make: Callable[[], str], detail: str) -> None:
    assert outcome_of(make()) == detail


@pytest.mark.capability("C47")
@pytest.mark.parametrize("make", [row[1] for row in ADVERSARIAL], ids=[row[0] for row in ADVERSARIAL])
def test_a_bad_token_is_refused_where_nothing_is_read_before_the_signature(make: Callable[[], str]) -> None:
    """With one issuer the claims meet the strict reader alone; with several, a quick one has looked at them before."""
    assert outcome_of(make(), SOLE) != "alice"


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
        pytest.param(lambda: mint(nbf=NOW + 10), id="nbf at the end of the leeway"),
        pytest.param(lambda: mint(iat=NOW - 0.5, exp=NOW + 200.5), id="fractions of seconds"),
        pytest.param(lambda: raw(nested(31)), id="nesting at the bound"),
        pytest.param(lambda: long_token(MAX_TOKEN), id="16 KiB"),
        pytest.param(lambda: long_header(MAX_HEADER), id="a header of 4 KiB"),
        pytest.param(lambda: raw(items(MAX_CLAIM_ITEMS)), id="as many members and elements as may be"),
        pytest.param(lambda: with_header(header_items(256)), id="as many members and elements in the header"),
        pytest.param(lambda: mint(sub="alice", tenant="t" * MAX_TEXT), id="a text of 2048 characters"),
        pytest.param(lambda: raw(payload_with(f'"x": 0.{"1" * 62}')), id="a number of 64 characters"),
        pytest.param(lambda: raw(payload_with(f'"x": -{"9" * 18}')), id="a whole number of 19 characters"),
        pytest.param(lambda: mint(aud=[AUDIENCE] * MAX_WORDS), id="256 audiences"),
        pytest.param(lambda: mint(scope=["s"] * MAX_WORDS), id="256 scopes"),
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


@pytest.mark.parametrize(
    ("iss", "outcome"),
    [
        (ISSUER.url, "alice"),
        ("https://other.example/", "token.issuer"),
        (REMOVED, "token.issuer"),
        (["x"], "token.issuer"),
        (1, "token.issuer"),
    ],
)
def test_a_good_signature_says_nothing_for_another_issuer(iss: Any, outcome: str) -> None:
    """Where there is one issuer its key is tried before the token is asked who has issued it."""
    assert outcome_of(mint(iss=iss), SOLE) == outcome


def test_two_issuers_with_one_key_do_not_vouch_for_each_other() -> None:
    twin = Issuer("https://twin.example/", kid=ISSUER.kid, key=ISSUER.key)
    rules = IssuerRules(settings_for(twin))
    keys = read_jwks(twin.jwks(), ("ES256",), secrets=False, name="twin")
    with pytest.raises(TokenRefusedError, match=r"token\.issuer"):
        verify(parse_token(mint()), rules, keys, NOW)


def test_what_nobody_signed_is_not_read_as_json() -> None:
    header, payload, _ = raw(payload_with('"sub": "mallory"')).split(".")
    forged = f"{header}.{payload}.{base64url(bytes(64))}"
    assert outcome_of(forged, SOLE) == "token.signature"
    assert outcome_of(forged) == "token.signature"


def test_a_verified_token_names_the_key_that_signed_it() -> None:
    keys = read_jwks(ISSUER.jwks(OTHER), ("ES256",), secrets=False, name="issuer")
    verified = verify(parse_token(OTHER.mint(now=NOW)), IssuerRules(settings_for(ISSUER)), keys, NOW)
    assert verified.key.kid == "key-2"
    assert verified.claims["sub"] == "alice"
    assert "alice" not in repr(verified)


@pytest.mark.parametrize(
    ("claims", "detail"),
    [
        ({"sub": REMOVED}, "claim_missing"),
        ({"sub": 7}, "claim_type"),
        ({"sub": " "}, "claim_type"),
        ({"aud": REMOVED}, "claim_missing"),
        ({"aud": "x"}, "audience"),
        ({"exp": REMOVED}, "claim_missing"),
        ({"iat": NOW + 11}, "not_yet_valid"),
        ({"exp": NOW - 10, "iat": NOW - 20}, "expired"),
        ({"exp": NOW + 901}, "lifetime"),
    ],
)
def test_claims_that_an_issuer_vouches_for_otherwise_are_checked_alike(claims: dict[str, Any], detail: str) -> None:
    with pytest.raises(TokenRefusedError, match=rf"token\.{detail}$"):
        check_claims(ISSUER.claims(NOW, **claims), IssuerRules(settings_for(ISSUER)), NOW)


# ---- tokens that were made for something else

GENERIC = Authenticator([settings_for(ISSUER, token_types=("JWT",))])
PLAIN = {"scope": REMOVED, "client_id": REMOVED}


def generic(**claims: Any) -> str:
    return mint(header={"typ": "JWT"}, **claims)


@pytest.mark.parametrize(
    "claims",
    [
        pytest.param({"at_hash": "MTIzNDU2Nzg5MDEyMzQ1Ng"}, id="the hash of an access token"),
        pytest.param({"c_hash": "MTIzNDU2Nzg5MDEyMzQ1Ng"}, id="the hash of a code"),
        pytest.param({"s_hash": "MTIzNDU2Nzg5MDEyMzQ1Ng"}, id="the hash of a state"),
        pytest.param({"typ": "ID", "nonce": "n"}, id="Keycloak's ID token"),
        pytest.param({"typ": "Serialized-ID"}, id="Keycloak's serialized ID token"),
        pytest.param({"typ": "Refresh"}, id="Keycloak's refresh token"),
        pytest.param({"typ": "Offline"}, id="Keycloak's offline token"),
        pytest.param({"typ": "Logout"}, id="Keycloak's logout token"),
        pytest.param({"token_use": "id"}, id="Cognito's ID token"),
        pytest.param({**PLAIN, "nonce": "n"}, id="a nonce and no trace of an authorization"),
        pytest.param({**PLAIN, "azp": AUDIENCE}, id="a client for its own audience"),
        pytest.param({**PLAIN, "azp": AUDIENCE, "aud": ["x", AUDIENCE]}, id="a client among its own audiences"),
    ],
)
def test_an_id_token_is_no_access_token_whatever_its_typ(claims: dict[str, Any]) -> None:
    assert outcome_of(generic(**claims), GENERIC) == "token.id_token"
    assert outcome_of(mint(**claims)) == "token.id_token"


@pytest.mark.parametrize(
    "claims",
    [
        pytest.param({"typ": "Bearer", "nonce": "n", "client_id": REMOVED, "azp": "shop"}, id="Keycloak before 25"),
        pytest.param({"typ": "DPoP"}, id="Keycloak's, by its own word for a bound one"),
        pytest.param(
            {**PLAIN, "scp": "invoices.read", "azp": "app", "azpacr": "1", "ver": "2.0"}, id="Entra for a person"
        ),
        pytest.param(
            {**PLAIN, "azp": AUDIENCE, "azpacr": "1", "roles": ["r"]}, id="Entra 2.0, an application for itself"
        ),
        pytest.param(
            {**PLAIN, "appid": AUDIENCE, "appidacr": "1", "nonce": "n"}, id="Entra 1.0, an application for itself"
        ),
        pytest.param({**PLAIN, "azp": "m2m", "gty": "client-credentials"}, id="Auth0 for a machine"),
        *(
            pytest.param({**PLAIN, "nonce": "n", "azp": AUDIENCE, trace: "x"}, id=f"a nonce beside {trace}")
            for trace in ("scope", "scp", "client_id", "appidacr", "azpacr")
        ),
        pytest.param({"token_use": "access"}, id="Cognito's access token"),
        pytest.param({**PLAIN, "azp": "shop", "aud": ["x", AUDIENCE]}, id="a client that is not among the audiences"),
        pytest.param({**PLAIN, "jti": REMOVED, "repository": "o/r"}, id="a workload's identity"),
        pytest.param({"typ": ["ID"]}, id="a claim of the name that is no text"),
    ],
)
def test_an_access_token_is_not_taken_for_an_id_token(claims: dict[str, Any]) -> None:
    assert outcome_of(generic(**claims), GENERIC) == "alice"


NEVER = [
    *("client-authentication+jwt", "dc+sd-jwt", "dpop+jwt", "entity-statement+jwt", "jwk-set+jwt", "kb+jwt"),
    *("logout+jwt", "oauth-authz-req+jwt", "oauth-client-attestation+jwt", "oauth-client-attestation-pop+jwt"),
    *("openid4vci-proof+jwt", "secevent+jwt", "statuslist+jwt", "token-introspection+jwt", "trust-mark+jwt"),
    *("vc+jwt", "vp+jwt"),
]


def test_the_kinds_that_are_never_credentials() -> None:
    assert frozenset(NEVER) == OTHER_KINDS


@pytest.mark.parametrize("kind", NEVER)
def test_a_kind_that_is_never_a_credential_is_refused_even_where_the_settings_list_it(kind: str) -> None:
    authenticator = Authenticator([settings_for(ISSUER, token_types=("at+jwt", f"Application/{kind.upper()}"))])
    assert outcome_of(mint(header={"typ": kind}), authenticator) == "token.type"
    assert outcome_of(mint(header={"typ": f"application/{kind}"}), authenticator) == "token.type"


def test_a_token_type_that_cannot_be_one_does_not_let_in_tokens_without() -> None:
    authenticator = Authenticator([settings_for(ISSUER, token_types=("j\u00fct",))])
    assert outcome_of(mint(header={"typ": REMOVED}), authenticator) == "token.type"
    assert outcome_of(mint(header={"typ": "\u00fc"}), authenticator) == "token.type"


# ---- what a header can make us do


@pytest.mark.parametrize("member", ["jku", "x5u"])
def test_no_address_in_a_header_is_ever_visited(member: str) -> None:
    thief = Issuer(kid=ISSUER.kid)
    with KeyServer(thief.jwks()) as server:
        assert outcome_of(thief.mint(now=NOW, header={member: server.url}), SOLE) == "token.signature"
        assert outcome_of(thief.mint(now=NOW, header={member: server.url, "kid": "other"}), SOLE) == "token.key_unknown"
        assert server.fetches == 0


def test_a_key_or_certificate_in_a_header_is_not_used() -> None:
    thief = Issuer(kid="thief")
    embedded = {"jwk": thief.jwk(), "x5c": [base64.b64encode(b"certificate").decode()], "x5t#S256": "x"}
    assert outcome_of(thief.mint(now=NOW, header=embedded), SOLE) == "token.key_unknown"
    assert outcome_of(thief.mint(now=NOW, header={**embedded, "kid": REMOVED}), SOLE) == "token.signature"
    assert outcome_of(thief.mint(now=NOW, header={**embedded, "kid": ISSUER.kid}), SOLE) == "token.signature"


@pytest.mark.promise("P6")
@pytest.mark.parametrize(
    "kid", ["../../../etc/passwd", "key?x=1#y", "%0d%0aX: y", "' OR 1=1 --", "http://thief.example/"]
)
def test_a_kid_goes_nowhere_but_into_the_lookup(kid: str, caplog: pytest.LogCaptureFixture) -> None:
    """Unknown ones cause a refresh, and neither its address nor any log line holds them."""
    paths: list[str] = []
    with KeyServer(ISSUER.jwks()) as server, caplog.at_level(logging.DEBUG):

        def behave(handler: Any) -> None:
            paths.append(handler.path)
            server.serve(handler)

        server.behave = behave
        authenticator = Authenticator([settings_for(ISSUER, jwks=None, jwks_uri=server.url)])
        authenticator.start()
        assert outcome_of(mint(header={"kid": kid}), authenticator) == "token.key_unknown"
        authenticator.start()
        authenticator.close()
    assert set(paths) == {"/jwks"}
    assert len(paths) >= 2
    assert kid not in caplog.text


def test_a_stranger_s_token_is_no_reason_to_look_for_new_keys() -> None:
    """Where there is one issuer its keys are looked through first, before it shows that the token is another's."""
    times = RefreshTimes(cooldown=0.0, interval=3600.0)
    with KeyServer(ISSUER.jwks()) as server:
        source = settings_for(ISSUER, jwks=None, jwks_uri=server.url)
        authenticator = Authenticator([source], times=times)
        authenticator.start()
        assert outcome_of(SECOND.mint(now=NOW), authenticator) == "token.issuer"
        time.sleep(0.1)
        assert server.fetches == 1
        assert outcome_of(mint(header={"kid": "new"}), authenticator) == "token.key_unknown"
        until = time.monotonic() + 5
        while server.fetches < 2 and time.monotonic() < until:
            time.sleep(0.01)
        authenticator.close()
        assert server.fetches == 2


def test_a_stranger_s_token_is_refused_even_where_keys_are_missing() -> None:
    with KeyServer({"keys": []}) as server:
        authenticator = Authenticator([settings_for(ISSUER, jwks=None, jwks_uri=server.url)])
        authenticator.start()
        assert outcome_of(SECOND.mint(now=NOW), authenticator) == "token.issuer"
        assert authenticator.authenticate(bearer(mint()), NOW) == PROBLEMS[CredentialDetail.KEYS_UNAVAILABLE]
        authenticator.close()


# ---- reading


@pytest.mark.parametrize(
    ("claims", "path", "found"),
    [
        ({"a": ["x", "y"]}, ("a", "1"), "y"),
        ({"a": ["x", "y"]}, ("a", "2"), ABSENT),
        ({"a": ["x", "y"]}, ("a", "-1"), ABSENT),
        ({"a": ["x", "y"]}, ("a", "\u0661"), ABSENT),
        ({"a": "xy"}, ("a", "1"), ABSENT),
        ({"a": None}, ("a", "b"), ABSENT),
        ({"a": None}, ("a",), None),
    ],
)
def test_a_place_is_a_member_or_an_element_and_nothing_else(claims: Any, path: tuple[str, ...], found: Any) -> None:
    assert lookup(claims, (path,)) is found or lookup(claims, (path,)) == found


def test_a_body_has_at_most_64_kib() -> None:
    assert parse_object(b"{}".ljust(65_536)) == {}
    with pytest.raises(StrictJSONError, match=r"^body\.too_large$"):
        parse_object(b"{}".ljust(65_537))
    assert MAX_BODY == 65_536


# ---- form


FORM = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+){2}")
PARTS = st.text(alphabet="AQgwE_-.+/= \n\u00e9\x00{}", max_size=12) | st.from_regex(FORM, fullmatch=True)


@settings(max_examples=500, deadline=None)
@given(PARTS)
def test_a_text_is_taken_apart_only_if_it_has_the_form(text: str) -> None:
    """The form is checked without the expression that states it; both are the same."""
    try:
        token = parse_token(f"{base64url({})}.{text}")
    except TokenRefusedError:
        return
    assert FORM.fullmatch(f"{base64url({})}.{text}")
    payload, signature = text.split(".")
    assert base64url(token.signature) == signature
    assert token.signed == f"{base64url({})}.{payload}".encode()


@settings(max_examples=300, deadline=None)
@given(st.binary(min_size=1, max_size=200), st.binary(min_size=1, max_size=200))
def test_every_token_is_taken_apart_into_the_bytes_it_was_made_of(payload: bytes, signature: bytes) -> None:
    token = parse_token(f"{base64url({'kid': 'x'})}.{base64url(payload)}.{base64url(signature)}")
    assert token.signature == signature
    assert token.unverified_header == {"kid": "x"}
    assert token.signed.decode() == f"{base64url({'kid': 'x'})}.{base64url(payload)}"


@settings(max_examples=300, deadline=None)
@given(
    st.binary(min_size=1, max_size=60)
    | st.recursive(st.none() | st.text(), st.lists).map(lambda x: json.dumps(x).encode())
)
def test_whatever_a_payload_is_asking_for_its_issuer_is_an_answer_or_a_refusal(payload: bytes) -> None:
    token = parse_token(f"{base64url({})}.{base64url(payload)}.AAAA")
    with contextlib.suppress(TokenRefusedError):
        assert isinstance(token.claimed_issuer(), str | None)


@pytest.mark.parametrize(
    ("payload", "named"),
    [
        ('{"iss": "a"}', "a"),
        ('{"\\u0069ss": "\\u0061"}', "a"),
        ('{"iss": ["a"]}', None),
        ('{"iss": null}', None),
        ("{}", None),
        (b'{"iss": "\xff"}', None),
    ],
)
def test_the_issuer_that_a_token_names(payload: str | bytes, named: str | None) -> None:
    assert parse_token(ISSUER.mint_raw(payload)).claimed_issuer() == named


@pytest.mark.parametrize("payload", ["[]", '"a"', "{", '{"iss": "a"} {}', '{"x": ' + "[" * 6000 + "]" * 6000 + "}"])
def test_what_is_no_object_names_no_issuer(payload: str) -> None:
    with pytest.raises(TokenRefusedError, match=r"token\.malformed"):
        parse_token(f"{base64url({})}.{base64url(payload)}.AAAA").claimed_issuer()


def test_the_claims_are_read_once() -> None:
    token = parse_token(mint())
    assert token.unverified_claims is token.unverified_claims


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


def test_a_panic_of_the_library_is_a_refusal_and_an_interrupt_is_not() -> None:
    """Rust code that panics raises what is no Exception; Ctrl-C raises the like and ends the process."""

    class Raising:
        def __init__(self, error: type[BaseException]) -> None:
            self._error = error

        def verify(self, *_: object) -> bool:
            raise self._error

    panic = type("PanicException", (BaseException,), {"__module__": "pyo3_runtime"})
    assert VerificationKey("k", "ES256", Raising(panic), None).verifies(b"", b"") is False  # type: ignore[arg-type]
    for error in (KeyboardInterrupt, SystemExit, type("Cancelled", (BaseException,), {})):
        with pytest.raises(error):
            VerificationKey("k", "ES256", Raising(error), None).verifies(b"", b"")  # type: ignore[arg-type]


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

    assert (
        AUTHENTICATOR.authenticate(shown(Long("Bearer " + "A" * 1_000_000)), NOW) == PROBLEMS[CredentialDetail.TOO_LONG]
    )
    with pytest.raises(TokenRefusedError, match="too_long"):
        parse_token(Long("A." * 10_000))
