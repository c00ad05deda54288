"""Other people's tests: Project Wycheproof's JSON Web Signatures and the IETF's cookbook, through our own layers.

Their payloads are no claims, so a text goes through form, header rules, key reading, key choice and signature, and
stops there. Nothing invalid is accepted; what is valid is accepted, or is in a table with the reason why it is not.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from authz_middleware.errors import SettingsError
from authz_middleware.identity.authenticator import Authenticator
from authz_middleware.identity.compact import parse_token
from authz_middleware.identity.keys.jwk import KeySetError, read_jwks, read_key
from authz_middleware.identity.problem import CredentialProblem, TokenRefusedError
from authz_middleware.identity.tokens import IssuerRules, check_header
from authz_middleware.settings.issuers import IssuerSettings
from tests.support.tokens import AUDIENCE, base64url, bearer

pytestmark = pytest.mark.capability("C47")

VECTORS: Final = Path(__file__).parents[1] / "vectors" / "jwt"
COOKBOOK: Final = VECTORS / "jose-cookbook"
PUBLIC_KEY: Final = (*(f"{family}{bits}" for family in ("ES", "RS", "PS") for bits in (256, 384, 512)), "EdDSA")
HMAC: Final = ("HS256", "HS384", "HS512")
PRIVATE: Final = frozenset({"d", "p", "q", "dp", "dq", "qi"})
ACCEPTED: Final = "accepted"


class Case(NamedTuple):
    """One text to be judged with one key; `name` tells it from all others."""

    name: str
    text: str
    jwk: Mapping[str, Any]
    valid: bool


def name_of(case: Case) -> str:
    return case.name


def algorithms_for(jwk: Mapping[str, Any]) -> tuple[str, ...]:
    """All algorithms of an issuer that has such a key: the key alone decides, as far as it can."""
    return HMAC if jwk["kty"] == "oct" else PUBLIC_KEY


def judge(text: str, jwk: Mapping[str, Any], algorithms: tuple[str, ...]) -> str:
    """ACCEPTED, or the code of the layer that refuses."""
    rules = IssuerRules(IssuerSettings("https://issuer.example/", (AUDIENCE,), algorithms))
    try:
        keys = read_jwks({"keys": [jwk]}, algorithms, secrets=jwk["kty"] == "oct", name="vectors")
    except KeySetError:
        return "key"
    try:
        token = parse_token(text)
        key = keys.select(*check_header(token.unverified_header, rules))
    except TokenRefusedError as refusal:
        return refusal.detail.value
    return ACCEPTED if key.verifies(token.signed, token.signature) else "token.signature"


# ---- Wycheproof


def wycheproof() -> Iterator[Case]:
    document = json.loads((VECTORS / "json_web_signature_test.json").read_text())
    for group in document["testGroups"]:
        # What a verifier holds: the public key, or the secret where there is no other.
        jwk = group.get("public") or group["private"]
        for test in group["tests"]:
            assert test["result"] in ("valid", "invalid")
            yield Case(f"{test['tcId']} {test['comment']}", test["jws"], jwk, test["result"] == "valid")


WYCHEPROOF: Final = tuple(wycheproof())

NO_PAYLOAD = "an empty payload is no claims"
OTHER_ALPHABET = "a character outside base64url, which the set takes for one to pass over"
OTHER_ALGORITHM = "the key names PS256, the token PS384"
NO_ALGORITHM = "the key names ES521, which is no registered algorithm (RFC 7518 section 3.4: ES512)"
REFUSED_ON_PURPOSE: Final = {
    "259 emptyPayload": ("token.malformed", NO_PAYLOAD),
    "264 emptyPayload": ("token.malformed", NO_PAYLOAD),
    "268 emptyPayload": ("token.malformed", NO_PAYLOAD),
    "272 emptyPayload": ("token.malformed", NO_PAYLOAD),
    "320 emptyPayload": ("token.malformed", NO_PAYLOAD),
    "325 emptyPayload": ("token.malformed", NO_PAYLOAD),
    "346 Figure20": ("token.algorithm", OTHER_ALGORITHM),
    "347 Figure27": ("key", NO_ALGORITHM),
    "350 Figure20": ("token.algorithm", OTHER_ALGORITHM),
    "351 Figure27": ("key", NO_ALGORITHM),
    "372 InvalidCharacterInsertedInHeader": ("token.malformed", OTHER_ALPHABET),
    "373 InvalidCharacterInsertedInPayload": ("token.malformed", OTHER_ALPHABET),
}
# Their texts, keys included, are those of case 357, which the set calls valid.
SAID_BOTH_WAYS: Final = frozenset({"367 invalidBase64Padding", "370 invalidBase64PaddingInPayload"})


def test_the_set_is_complete() -> None:
    assert len(WYCHEPROOF) == len({case.name for case in WYCHEPROOF}) == 401


@pytest.mark.parametrize("case", [c for c in WYCHEPROOF if not c.valid and c.name not in SAID_BOTH_WAYS], ids=name_of)
def test_nothing_that_wycheproof_calls_invalid_is_accepted(case: Case) -> None:
    assert judge(case.text, case.jwk, algorithms_for(case.jwk)) != ACCEPTED


@pytest.mark.parametrize("case", [case for case in WYCHEPROOF if case.valid], ids=name_of)
def test_what_wycheproof_calls_valid_is_accepted_or_refused_on_purpose(case: Case) -> None:
    expected, _why = REFUSED_ON_PURPOSE.get(case.name, (ACCEPTED, ""))
    assert judge(case.text, case.jwk, algorithms_for(case.jwk)) == expected


def test_what_the_set_says_both_ways_is_also_among_the_valid() -> None:
    valid = {(case.text, json.dumps(case.jwk)) for case in WYCHEPROOF if case.valid}
    assert {
        case.name for case in WYCHEPROOF if not case.valid and (case.text, json.dumps(case.jwk)) in valid
    } == SAID_BOTH_WAYS


def test_forged_signatures_reach_the_signature_check() -> None:
    """Each layer has its share: a reader that refused everything at the door would pass the tests above."""
    invalid = [case for case in WYCHEPROOF if not case.valid]
    assert Counter(judge(case.text, case.jwk, algorithms_for(case.jwk)) for case in invalid) == {
        "token.signature": 293,
        "token.malformed": 47,
        "token.algorithm": 6,
        "key": 4,
        "token.key_unknown": 3,
        ACCEPTED: len(SAID_BOTH_WAYS),
    }


def test_no_vector_makes_a_principal() -> None:
    """The whole way, with the issuer's settings: none of the texts is a token for us, whoever has signed it."""
    keys = {json.dumps(case.jwk): case.jwk for case in WYCHEPROOF if case.jwk["kty"] != "oct"}
    for written, jwk in keys.items():
        try:
            settings = IssuerSettings("https://issuer.example/", (AUDIENCE,), PUBLIC_KEY, jwks={"keys": [jwk]})
            authenticator = Authenticator([settings])
        except SettingsError:  # a key that is refused, as the tests above have counted
            continue
        for case in WYCHEPROOF:
            if json.dumps(case.jwk) == written:
                assert isinstance(authenticator.authenticate(bearer(case.text), 1.0), CredentialProblem)


# ---- the cookbook


def signed() -> Iterator[tuple[str, dict[str, Any]]]:
    """The examples of signatures by their path: input, key and every form of output."""
    for folder in ("jws", "rfc7797", "curve25519"):
        for path in sorted((COOKBOOK / folder).glob("*.json")):
            example = json.loads(path.read_text())
            if "signing" in example:
                yield f"{folder}/{path.stem}", example
    nested = json.loads((COOKBOOK / "6.nesting_signatures_and_encryption.json").read_text())
    yield "6.nesting", nested["sign"]


def cookbook() -> Iterator[Case]:
    for name, example in signed():
        if isinstance(example["input"]["key"], list):
            jwk, alg = example["input"]["key"][0], example["input"]["alg"][0]
        else:
            jwk, alg = example["input"]["key"], example["input"]["alg"]
        jwk = {member: value for member, value in jwk.items() if member not in PRIVATE} | {"alg": alg}
        for form, text in example["output"].items():
            yield Case(f"{name} {form}", text if isinstance(text, str) else json.dumps(text), jwk, True)


SIGNED: Final = tuple(cookbook())

JSON_FORM = "a JSON serialization (RFC 7515 section 7.2), which no bearer token has (RFC 6750 section 2.1)"
DETACHED = "detached content: the payload is empty"
RAW_PAYLOAD = "an unencoded payload with characters outside base64url (RFC 7797)"
COOKBOOK_REFUSED: Final = {
    "jws/4_5.signature_with_detached_content compact": DETACHED,
    "rfc7797/hmac-sha2_b64_false compact": RAW_PAYLOAD,
    **{
        f"{name} {form}": JSON_FORM
        for name, example in signed()
        for form in ("json", "json_flat")
        if form in example["output"]
    },
}


@pytest.mark.parametrize("case", SIGNED, ids=name_of)
def test_a_signature_of_the_cookbook_is_accepted_or_refused_on_purpose(case: Case) -> None:
    expected = "token.malformed" if case.name in COOKBOOK_REFUSED else ACCEPTED
    assert judge(case.text, case.jwk, (case.jwk["alg"],)) == expected


def test_the_cookbook_has_signatures_that_are_accepted() -> None:
    assert {case.name for case in SIGNED} >= set(COOKBOOK_REFUSED)
    assert {case.name for case in SIGNED if case.name not in COOKBOOK_REFUSED} == {
        "jws/4_1.rsa_v15_signature compact",
        "jws/4_2.rsa-pss_signature compact",
        "jws/4_3.ecdsa_signature compact",
        "jws/4_4.hmac-sha2_integrity_protection compact",
        "curve25519/jws compact",
        "6.nesting compact",
    }


@pytest.mark.parametrize("case", [case for case in SIGNED if case.name not in COOKBOOK_REFUSED], ids=name_of)
def test_a_signature_of_the_cookbook_holds_for_nothing_else(case: Case) -> None:
    header, payload, signature = case.text.split(".")
    other = "A" if payload[5] != "A" else "B"
    assert judge(f"{header}.{payload[:5]}{other}{payload[6:]}.{signature}", case.jwk, (case.jwk["alg"],)) == (
        "token.signature"
    )


def test_an_unencoded_payload_is_refused_even_where_its_characters_would_do() -> None:
    """The payload of RFC 7797 in base64url after all, correctly signed: `b64` and `crit` are in the header."""
    example = json.loads((COOKBOOK / "rfc7797" / "hmac-sha2_b64_false.json").read_text())
    jwk = example["input"]["key"]
    protected = example["output"]["json_flat"]["protected"]
    text = f"{protected}.{base64url(b'payload')}"
    secret = read_key(jwk, HMAC)._secret_or_public
    assert isinstance(secret, bytes)
    mac = hmac.new(secret, text.encode(), hashlib.sha256).digest()
    assert judge(f"{text}.{base64url(mac)}", jwk, HMAC) == "token.header"


def encrypted() -> Iterator[tuple[str, str]]:
    paths = [*sorted((COOKBOOK / "jwe").glob("*.json")), COOKBOOK / "curve25519" / "ecdh-es.json"]
    for path in paths:
        for form, text in json.loads(path.read_text())["output"].items():
            yield f"{path.stem} {form}", text if isinstance(text, str) else json.dumps(text)
    nested = json.loads((COOKBOOK / "6.nesting_signatures_and_encryption.json").read_text())
    yield "6.nesting", nested["encrypt"]["output"]["compact"]


@pytest.mark.parametrize("text", [pytest.param(text, id=name) for name, text in encrypted()])
def test_an_encrypted_token_is_refused_for_its_form(text: str) -> None:
    with pytest.raises(TokenRefusedError, match=r"token\.malformed"):
        parse_token(text)


@pytest.mark.parametrize(
    ("name", "algorithms", "why"),
    [
        ("3_1.ec_public_key", ("ES512",), None),
        ("3_1.ec_public_key", ("ES256",), "fits none"),
        ("3_2.ec_private_key", ("ES512",), "private key"),
        ("3_3.rsa_public_key", ("RS256",), None),
        ("3_3.rsa_public_key", ("PS384",), None),
        ("3_3.rsa_public_key", ("RS256", "PS256"), "fits several"),
        ("3_4.rsa_private_key", ("RS256",), "private key"),
        ("3_5.symmetric_key_mac_computation", HMAC, None),
        ("3_6.symmetric_key_encryption", HMAC, "'use'"),
    ],
)
def test_a_key_of_the_cookbook_is_read_or_refused_with_its_reason(
    name: str, algorithms: tuple[str, ...], why: str | None
) -> None:
    jwk = json.loads((COOKBOOK / "jwk" / f"{name}.json").read_text())
    if why is None:
        assert read_key(jwk, algorithms).algorithm in algorithms
    else:
        with pytest.raises(KeySetError, match=why):
            read_key(jwk, algorithms)
