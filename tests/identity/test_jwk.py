"""Which keys are used, which entries are passed over, and which key sets are refused as a whole."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from authz_middleware.identity.jwk import Keyring, KeySetError, read_jwks, read_key
from tests.support.tokens import Issuer, base64url, make_key

EC = Issuer(kid="ec")
RSA = Issuer(kid="rsa", alg="RS256")
SECRET = Issuer(kid="secret", alg="HS256")


def keyring(*entries: Any, algorithms: tuple[str, ...] = ("ES256",), secrets: bool = False) -> Keyring:
    return read_jwks({"keys": list(entries)}, algorithms, secrets=secrets, name="https://issuer.example/")


def secret_jwk(secret: bytes) -> dict[str, Any]:
    return {"kty": "oct", "k": base64url(secret), "alg": "HS256", "kid": "s"}


def spki(encoding: Encoding) -> bytes:
    return EC.key.public_key().public_bytes(encoding, PublicFormat.SubjectPublicKeyInfo)


def certificate() -> bytes:
    import datetime as dt

    from cryptography.hazmat.primitives.hashes import SHA256

    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "issuer.example")])
    start = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    builder = x509.CertificateBuilder(name, name, EC.key.public_key(), 1, start, start.replace(year=2027))
    return builder.sign(EC.key, SHA256()).public_bytes(Encoding.DER)


UNUSABLE: list[tuple[str, Any, tuple[str, ...], str]] = [
    ("text", "key", ("ES256",), "is not an object"),
    ("a kid that is a number", EC.jwk(kid=1), ("ES256",), "'kid'"),
    ("a kid with a line feed", EC.jwk(kid="a\nb"), ("ES256",), "'kid'"),
    ("a key for encryption", EC.jwk(use="enc"), ("ES256",), "'use'"),
    ("a key that may only sign", EC.jwk(key_ops=["sign"]), ("ES256",), "'key_ops'"),
    ("key_ops as text", EC.jwk(key_ops="verify"), ("ES256",), "'key_ops'"),
    ("a private EC key", EC.jwk(**ECAlgorithm.to_jwk(EC.key, as_dict=True)), ("ES256",), "private key"),
    ("a private RSA key", {**RSAAlgorithm.to_jwk(RSA.key, as_dict=True), "key_ops": ["verify"]}, ("RS256",), "private"),
    ("an algorithm that is not the issuer's", RSA.jwk(), ("ES256",), "fits none"),
    ("an algorithm that does not fit the type", EC.jwk(alg="RS256"), ("ES256", "RS256"), "fits none"),
    ("alg none", EC.jwk(alg="none"), ("ES256",), "fits none"),
    ("no type", EC.jwk(kty=None), ("ES256",), "fits none"),
    ("a curve that is a list", EC.jwk(crv=["P-256"]), ("ES256",), "fits none"),
    ("an unknown curve", EC.jwk(crv="secp256k1"), ("ES256",), "fits none"),
    ("several fitting algorithms", RSA.jwk(alg=None), ("RS256", "PS256"), "fits several"),
    ("a point off the curve", EC.jwk(x=base64url(bytes(32))), ("ES256",), "cannot be read"),
    ("no point", EC.jwk(x=None), ("ES256",), "cannot be read"),
    ("a short RSA key", Issuer(alg="RS256", key=make_key("RS256", rsa_bits=1024)).jwk(), ("RS256",), "2048 to 8192"),
    ("a huge RSA modulus", RSA.jwk(n=base64url(b"\xff" * 1025)), ("RS256",), "2048 to 8192"),
    ("an RSA exponent of one", RSA.jwk(e="AQ"), ("RS256",), "cannot be read"),
    ("an empty secret", secret_jwk(b""), ("HS256",), "cannot be read"),
    ("a short secret", secret_jwk(b"x" * 31), ("HS256",), "shorter than the hash"),
    ("a public key in PEM as secret", secret_jwk(spki(Encoding.PEM)), ("HS256",), "cannot be read"),
    ("a public key in DER as secret", secret_jwk(spki(Encoding.DER)), ("HS256",), "cannot be read"),
    ("a certificate as secret", secret_jwk(certificate()), ("HS256",), "cannot be read"),
    ("a JWK as secret", secret_jwk(json.dumps(EC.jwk()).encode()), ("HS256",), "cannot be read"),
]


@pytest.mark.parametrize(("entry", "algorithms", "why"), [r[1:] for r in UNUSABLE], ids=[r[0] for r in UNUSABLE])
def test_an_unusable_key_is_refused_with_its_reason(entry: Any, algorithms: tuple[str, ...], why: str) -> None:
    with pytest.raises(KeySetError, match=why):
        read_key(entry, algorithms)


@pytest.mark.parametrize(("entry", "algorithms"), [row[1:3] for row in UNUSABLE if isinstance(row[1], dict)])
def test_no_refusal_quotes_the_key(entry: dict[str, Any], algorithms: tuple[str, ...]) -> None:
    with pytest.raises(KeySetError) as caught:
        read_key(entry, algorithms)
    said = str(caught.value)
    assert not any(isinstance(part, str) and len(part) > 16 and part in said for part in entry.values())
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("name", ["ES256", "ES384", "ES512", "EdDSA", "RS256", "PS512"])
def test_a_key_without_alg_takes_the_only_algorithm_that_fits(name: str) -> None:
    issuer = Issuer(alg=name)
    assert (
        read_key(
            issuer.jwk(alg=None), ("ES256", "ES384", "ES512", "EdDSA") if name[:2] not in ("RS", "PS") else (name,)
        ).algorithm
        == name
    )


def test_one_unusable_entry_does_not_disable_the_others(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        ring = keyring("rubbish", EC.jwk(), RSA.jwk())
    assert [key.kid for key in ring.keys] == ["ec"]
    assert "entry 0 is not used" in caplog.text


@pytest.mark.parametrize(
    ("document", "why"),
    [
        ({}, "no list 'keys'"),
        ({"keys": []}, "no list 'keys'"),
        ({"keys": {"ec": EC.jwk()}}, "no list 'keys'"),
        ({"keys": [EC.jwk(kid=f"k{i}") for i in range(65)]}, "more than 64"),
        ({"keys": [EC.jwk(), Issuer(kid="ec").jwk()]}, "two keys by one 'kid'"),
        ({"keys": [EC.jwk(), RSA.jwk(kid="ec")]}, "two keys by one 'kid'"),
        ({"keys": [EC.jwk(), EC.jwk(use="enc")]}, "two keys by one 'kid'"),
        ({"keys": [RSA.jwk()]}, "no key that fits ES256"),
        ({"keys": [SECRET.jwk()]}, "symmetric key"),
        ({"keys": [EC.jwk(), SECRET.jwk()]}, "symmetric key"),
    ],
)
def test_an_ambiguous_or_empty_set_is_refused_as_a_whole(document: dict[str, Any], why: str) -> None:
    with pytest.raises(KeySetError, match=why):
        read_jwks(document, ("ES256",), secrets=False, name="issuer")


def test_symmetric_and_public_keys_are_never_mixed() -> None:
    with pytest.raises(KeySetError, match="mixes symmetric and public"):
        keyring(EC.jwk(), SECRET.jwk(), algorithms=("ES256", "HS256"), secrets=True)


def test_secrets_come_only_from_where_they_may() -> None:
    assert keyring(SECRET.jwk(), algorithms=("HS256",), secrets=True).keys[0].algorithm == "HS256"
    with pytest.raises(KeySetError, match="from a file"):
        keyring(SECRET.jwk(), algorithms=("HS256",))


def test_a_key_does_not_show_itself() -> None:
    (key,) = keyring(SECRET.jwk(), algorithms=("HS256",), secrets=True).keys
    assert repr(key) == "<HS256 verification key>"
    assert repr(SECRET.key) not in repr(vars(Keyring)) + repr(keyring(EC.jwk()))
