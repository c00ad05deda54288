"""Signed documents are read as strictly as tokens: one spelling, one key, one algorithm, one kind."""

from __future__ import annotations

import json
from typing import Any

import pytest

from authz_middleware.identity.keys.jwk import Keyring, read_jwks
from authz_middleware.revocation.feeds.jws import DocumentRefusedError, decode_base64url, parse_document, time_of
from tests.support.status_lists import REMOVED, document
from tests.support.tokens import Issuer, base64url

ISSUER = Issuer()
TYP = "authz-revocations+jwt"


def keys_of(*issuers: Issuer) -> Keyring:
    jwks = {"keys": [issuer.jwk() for issuer in issuers]}
    return read_jwks(jwks, [issuer.alg for issuer in issuers], secrets=True, name="test")


def outcome(
    data: bytes, *, keys: Keyring | None = None, algorithms: tuple[str, ...] = ("ES256",), limit: int = 4096
) -> Any:
    try:
        parsed = parse_document(data, typ=TYP, limit=limit)
        parsed.check_signature(keys or keys_of(ISSUER), algorithms)
    except DocumentRefusedError as refusal:
        return refusal.code
    return parsed.unverified_claims


def signed(header: dict[str, Any] | None = None, issuer: Issuer = ISSUER, **claims: Any) -> bytes:
    return document(issuer, {"a": 1, **claims}, typ=TYP, header=header)


def test_a_signed_document_is_read() -> None:
    assert outcome(signed(serial=7)) == {"a": 1, "serial": 7}


def test_the_type_may_be_written_as_a_media_type() -> None:
    assert outcome(signed({"typ": "application/AUTHZ-revocations+JWT"})) == {"a": 1}


@pytest.mark.parametrize(
    ("header", "code"),
    [
        ({"typ": REMOVED}, "document.type"),
        ({"typ": "JWT"}, "document.type"),
        ({"typ": "at+jwt"}, "document.type"),
        ({"typ": "statuslist+jwt"}, "document.type"),
        ({"typ": ["authz-revocations+jwt"]}, "document.type"),
        ({"crit": ["exp"]}, "document.header"),
        ({"zip": "DEF"}, "document.header"),
        ({"b64": False}, "document.header"),
        ({"kid": 1}, "document.header"),
        ({"kid": ""}, "document.header"),
        ({"kid": "other"}, "document.key_unknown"),
        ({"alg": REMOVED}, "document.algorithm"),
        ({"alg": "none"}, "document.algorithm"),
        ({"alg": "ES384"}, "document.algorithm"),
        ({"alg": ["ES256"]}, "document.algorithm"),
    ],
)
def test_what_a_header_must_not_say(header: dict[str, Any], code: str) -> None:
    data = document(ISSUER, {"a": 1}, typ=TYP, header=header)
    assert outcome(data) == code


def test_a_document_of_another_key_is_refused() -> None:
    assert outcome(signed(issuer=Issuer(kid=ISSUER.kid))) == "document.signature"


def test_a_key_of_another_algorithm_does_not_serve() -> None:
    keys = keys_of(ISSUER, Issuer(kid="rsa", alg="RS256"))
    assert outcome(signed({"kid": "rsa"}), keys=keys, algorithms=("ES256", "RS256")) == "document.algorithm"


def test_a_secret_is_no_public_key() -> None:
    shared = Issuer(alg="HS256", kid="shared")
    assert outcome(signed(issuer=shared), keys=keys_of(shared)) == "document.algorithm"


def test_a_changed_byte_is_noticed() -> None:
    header, payload, signature = signed(n="aaaa").split(b".")
    changed = base64url(json.dumps({"a": 1, "n": "aaab"}, separators=(",", ":"))).encode()
    assert changed != payload
    assert outcome(b".".join((header, changed, signature))) == "document.signature"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"a.b",
        b"a.b.c",
        b"a.b.c.d",
        b"..",
        signed() + b".",
        signed() + b"=",
        signed() + b"\n",
        signed().replace(b".", b" .", 1),
        b"e30.e30.",
        ISSUER.sign("W10", base64url({})).encode(),
        ISSUER.sign(base64url({"typ": TYP, "alg": "ES256", "kid": "key-1"}), base64url(b"[1]")).encode(),
        ISSUER.sign(base64url({"typ": TYP, "alg": "ES256", "kid": "key-1"}), base64url(b'{"a":1,"a":2}')).encode(),
        ISSUER.sign(base64url({"typ": TYP, "alg": "ES256", "kid": "key-1"}), base64url(b'{"a":NaN}')).encode(),
        ISSUER.sign(base64url({"typ": TYP, "alg": "ES256", "kid": "key-1"}), base64url(b'{"a":"\xff"}')).encode(),
    ],
)
def test_what_is_no_document(data: bytes) -> None:
    assert outcome(data) == "document.malformed"


def test_a_part_has_one_spelling_only() -> None:
    good = signed()
    last = good[-1:]
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    # An ES256 signature is 64 bytes: of its last character two bits count.
    twin = good[:-1] + alphabet[alphabet.index(last) ^ 1 :][:1]
    assert outcome(twin) == "document.malformed"


def test_length_is_bounded_before_anything_else() -> None:
    data = signed(filler="x" * 5000)
    assert outcome(data) == "document.too_long"
    assert outcome(data, limit=8192)["a"] == 1


def test_a_long_header_is_refused() -> None:
    assert outcome(signed({"pad": "x" * 5000}), limit=100_000) == "document.malformed"


@pytest.mark.parametrize("text", [b"A", b"AB", b"AA=", b"A A", b"+/", b"\xc3\xa4"])
def test_base64url_is_canonical(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"not (canonical|base64url)"):
        decode_base64url(text)


@pytest.mark.parametrize("value", [None, True, "1", -1, 253_402_300_800, 1e300, [1]])
def test_a_time_is_a_number_within_the_calendar(value: Any) -> None:
    with pytest.raises(DocumentRefusedError, match=r"document\.iat"):
        time_of({"iat": value}, "iat")


def test_a_refusal_shows_nothing_of_the_document() -> None:
    assert "secret" not in repr(parse_document(signed(note="secret"), typ=TYP, limit=4096))
