"""Which keys are used, which entries are passed over, and which key sets are refused as a whole."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from authz_middleware.identity.keys import jwk
from authz_middleware.identity.keys.jwk import Keyring, KeySetError, read_jwks, read_key
from authz_middleware.identity.keys.lookalikes import reads_as_key
from tests.support.tokens import Issuer, base64url, make_key

EC = Issuer(kid="ec")
RSA = Issuer(kid="rsa", alg="RS256")
ED = Issuer(kid="ed", alg="EdDSA")
SECRET = Issuer(kid="secret", alg="HS256")


def keyring(*entries: Any, algorithms: tuple[str, ...] = ("ES256",), secrets: bool = False) -> Keyring:
    return read_jwks({"keys": list(entries)}, algorithms, secrets=secrets, name="https://issuer.example/")


def secret_jwk(secret: bytes) -> dict[str, Any]:
    return {"kty": "oct", "k": base64url(secret), "alg": "HS256", "kid": "s"}


def spki(encoding: Encoding) -> bytes:
    return bytes(EC.key.public_key().public_bytes(encoding, PublicFormat.SubjectPublicKeyInfo))


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
    ("no point", EC.jwk(x=None), ("ES256",), "not base64url"),
    ("a short RSA key", Issuer(alg="RS256", key=make_key("RS256", rsa_bits=1024)).jwk(), ("RS256",), "2048 to 8192"),
    ("a huge RSA modulus", RSA.jwk(n=base64url(b"\xff" * 1025)), ("RS256",), "2048 to 8192"),
    ("an RSA exponent of one", RSA.jwk(e="AQ"), ("RS256",), "cannot be read"),
    ("an even RSA exponent", RSA.jwk(e="BA"), ("RS256",), "cannot be read"),
    ("an RSA exponent of 33 bits", RSA.jwk(e=base64url((2**32 + 1).to_bytes(5, "big"))), ("RS256",), "32 bits"),
    ("an even RSA modulus", RSA.jwk(n=base64url((2**2047).to_bytes(256, "big"))), ("RS256",), "even"),
    (
        "an RSA key one bit too short",
        RSA.jwk(n=base64url((2**2046 + 1).to_bytes(256, "big"))),
        ("RS256",),
        "2048 to 8192",
    ),
    (
        "an RSA key one bit too long",
        RSA.jwk(n=base64url((2**8192 + 1).to_bytes(1025, "big"))),
        ("RS256",),
        "2048 to 8192",
    ),
    ("a modulus with line feeds", RSA.jwk(n=RSA.jwk()["n"] + "\n"), ("RS256",), "not base64url"),
    ("a padded exponent", RSA.jwk(e="AQAB="), ("RS256",), "not base64url"),
    *(
        (f"a public key with the private member {member}", RSA.jwk(**{member: "AQAB"}), ("RS256",), "private key")
        for member in ("d", "p", "q", "dp", "dq", "qi", "oth")
    ),
    ("a padded coordinate", EC.jwk(x=EC.jwk()["x"] + "="), ("ES256",), "not base64url"),
    ("a coordinate in plain base64", EC.jwk(x="+" + EC.jwk()["x"][1:]), ("ES256",), "not base64url"),
    ("a coordinate that is a number", EC.jwk(x=7), ("ES256",), "not base64url"),
    (
        "an EC key of another curve's size",
        EC.jwk(x=base64url(bytes(48)), y=base64url(bytes(48))),
        ("ES256",),
        "cannot be",
    ),
    ("an EC key without y", EC.jwk(y=None), ("ES256",), "not base64url"),
    ("the point zero", EC.jwk(x=base64url(bytes(32)), y=base64url(bytes(32))), ("ES256",), "cannot be read"),
    ("an Ed25519 key of 31 bytes", ED.jwk(x=base64url(bytes(31))), ("EdDSA",), "cannot be read"),
    ("a secret with characters to pass over", {**secret_jwk(b"x" * 32), "k": "!" * 50}, ("HS256",), "not base64url"),
    ("a secret that is null", {**secret_jwk(b"x" * 32), "k": None}, ("HS256",), "not base64url"),
    ("a kid of 257 characters", EC.jwk(kid="k" * 257), ("ES256",), "'kid'"),
    ("an empty kid", EC.jwk(kid=""), ("ES256",), "'kid'"),
    ("a kid outside ASCII", EC.jwk(kid="k\u00e9y"), ("ES256",), "'kid'"),
    ("an empty secret", secret_jwk(b""), ("HS256",), "not base64url"),
    ("a short secret", secret_jwk(b"x" * 31), ("HS256",), "shorter than the hash"),
    ("a public key in PEM as secret", secret_jwk(spki(Encoding.PEM)), ("HS256",), "no secret"),
    ("a public key in DER as secret", secret_jwk(spki(Encoding.DER)), ("HS256",), "no secret"),
    ("a certificate as secret", secret_jwk(certificate()), ("HS256",), "no secret"),
    ("a JWK as secret", secret_jwk(json.dumps(EC.jwk()).encode()), ("HS256",), "no secret"),
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


# ---- secrets that are none

SPKI = PublicFormat.SubjectPublicKeyInfo


def csr() -> bytes:
    from cryptography.hazmat.primitives.hashes import SHA256

    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "issuer.example")])
    return x509.CertificateSigningRequestBuilder(name).sign(EC.key, SHA256()).public_bytes(Encoding.DER)


def private(key: Any, form: PrivateFormat = PrivateFormat.PKCS8, encoding: Encoding = Encoding.DER) -> bytes:
    return bytes(key.private_bytes(encoding, form, NoEncryption()))


def pem_of_ssh2() -> bytes:
    return b"---- BEGIN SSH2 PUBLIC KEY ----\nAAAA\n---- END SSH2 PUBLIC KEY ----"


def point(curve: str) -> bytes:
    return bytes(make_key(curve).public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint))


WRITTEN: list[tuple[str, bytes]] = [
    ("PEM", spki(Encoding.PEM)),
    ("PEM that lost its end", spki(Encoding.PEM)[:120]),
    ("PEM of an RSA key", RSA.key.public_key().public_bytes(Encoding.PEM, PublicFormat.PKCS1)),
    ("PEM of a private key", private(EC.key, encoding=Encoding.PEM)),
    ("PEM of OpenPGP", b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nmQENB"),
    ("PEM of SSH2", pem_of_ssh2()),
    ("DER", spki(Encoding.DER)),
    ("DER of an RSA key", RSA.key.public_key().public_bytes(Encoding.DER, PublicFormat.PKCS1)),
    ("DER of an Ed25519 key", ED.key.public_key().public_bytes(Encoding.DER, SPKI)),
    ("DER of a private key", private(ED.key)),
    ("DER of a private RSA key", private(RSA.key, PrivateFormat.TraditionalOpenSSL)),
    ("a certificate in DER", certificate()),
    ("a request for a certificate", csr()),
    ("SSH", EC.key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)),
    ("SSH after options", b"no-pty " + ED.key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)),
    ("SSH on the wire", base64.b64decode(
        RSA.key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).split()[1])),
    ("a JWK", json.dumps(EC.jwk()).encode()),
    ("a JWKS", json.dumps(RSA.jwks()).encode()),
    ("XML", b"<RSAKeyValue><Modulus>AAAA</Modulus></RSAKeyValue>"),
    ("a point of P-256", point("ES256")),
    ("a point of P-384", point("ES384")),
    ("a point of P-521", point("ES512")),
    ("a point without the byte before it", point("ES256")[1:]),
]  # fmt: skip
WRAPPED: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("as it is", bytes),
    ("in base64", base64.b64encode),
    ("in lines of base64", base64.encodebytes),
    ("in base64 without padding", lambda key: base64.b64encode(key).rstrip(b"=")),
    ("in base64url", base64.urlsafe_b64encode),
    ("in hexadecimal digits", lambda key: key.hex().encode()),
    ("in hexadecimal digits and colons", lambda key: key.hex(":").upper().encode()),
    ("in base64 of base64 of base64", lambda key: base64.b64encode(base64.b64encode(base64.b64encode(key)))),
]


@pytest.mark.parametrize("wrap", [wrap for _, wrap in WRAPPED], ids=[name for name, _ in WRAPPED])
@pytest.mark.parametrize("written", [key for _, key in WRITTEN], ids=[name for name, _ in WRITTEN])
def test_a_key_of_another_kind_is_no_secret_in_whichever_way_it_is_written(
    written: bytes, wrap: Callable[[bytes], bytes]
) -> None:
    with pytest.raises(KeySetError, match="no secret"):
        read_key(secret_jwk(wrap(written)), ("HS256",))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize(
    "text", [spki(Encoding.PEM).decode(), json.dumps(EC.jwk()), base64.b64encode(certificate()).decode()]
)
def test_a_key_in_wide_characters_is_no_secret(text: str, encoding: str) -> None:
    with pytest.raises(KeySetError, match="no secret"):
        read_key(secret_jwk(text.encode(encoding)), ("HS256",))


def test_a_bare_point_is_no_secret_even_if_it_begins_like_one_with_its_byte() -> None:
    while (bare := point("ES256")[1:])[0] != 4:
        pass
    assert reads_as_key(bare)


@settings(max_examples=300, deadline=None)
@given(st.binary(min_size=32, max_size=200))
def test_random_bytes_are_a_secret(secret: bytes) -> None:
    assert read_key(secret_jwk(secret), ("HS256",)).algorithm == "HS256"


@pytest.mark.parametrize(
    "secret",
    [
        b"0123456789abcdef0123456789abcdef",
        base64.b64encode(bytes(range(48))),
        b"correct horse battery staple, and then some more words",
        b'{"not": "a key", "but": ["json"]}',
        b"1234567890123456789012345678901234567890",
        b"\x04" + bytes(64),
        b"\x30\x82" + bytes(64),
        b"\x05" + point("ES256")[1:],
        base64.b64encode(base64.b64encode(base64.b64encode(base64.b64encode(spki(Encoding.DER))))),
    ],
)
def test_what_only_resembles_a_key_from_afar_is_a_secret(secret: bytes) -> None:
    assert not reads_as_key(secret)
    assert read_key(secret_jwk(secret), ("HS256",)).algorithm == "HS256"


@pytest.mark.parametrize(("name", "least"), [("HS256", 32), ("HS384", 48), ("HS512", 64)])
def test_a_secret_is_at_least_as_long_as_the_hash(name: str, least: int) -> None:
    assert read_key({**secret_jwk(b"x" * least), "alg": name}, (name,)).algorithm == name
    with pytest.raises(KeySetError, match="shorter than the hash"):
        read_key({**secret_jwk(b"x" * (least - 1)), "alg": name}, (name,))


# ---- keys for which anybody can sign


def small_order() -> list[bytes]:
    """Ed25519 points of small order, the spellings that RFC 8032 does not want included."""
    field = 2**255 - 19
    eighth = bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05")
    other = bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a")
    ys = [0, 1, field - 1, field, field + 1, int.from_bytes(eighth, "little"), int.from_bytes(other, "little")]
    return [(y | sign << 255).to_bytes(32, "little") for y in ys for sign in (0, 1)]


def forges(key: bytes) -> bool:
    """Whether a signature that took no secret to make holds for one message in a few."""
    public = Ed25519PublicKey.from_public_bytes(key)
    for nonce in small_order():
        for message in range(32):
            try:
                public.verify(nonce + bytes(32), b"%d" % message)
            except Exception:
                continue
            return True
    return False


@pytest.mark.parametrize("key", small_order(), ids=bytes.hex)
def test_an_ed25519_key_of_small_order_is_refused(key: bytes) -> None:
    assert forges(key)
    with pytest.raises(KeySetError, match="small order"):
        read_key(ED.jwk(x=base64url(key)), ("EdDSA",))


def test_nobody_forges_for_a_regular_ed25519_key() -> None:
    assert not forges(ED.key.public_key().public_bytes_raw())


@pytest.mark.parametrize("exponent", [3, 65537, 2**32 - 1])
def test_rsa_exponents_that_are_used(exponent: int) -> None:
    written = exponent.to_bytes((exponent.bit_length() + 7) // 8, "big")
    assert read_key(RSA.jwk(e=base64url(written)), ("RS256",)).algorithm == "RS256"


@pytest.mark.parametrize("bits", [2048, 8192])
def test_rsa_sizes_at_the_bounds(bits: int) -> None:
    modulus = base64url((2 ** (bits - 1) + 1).to_bytes(bits // 8, "big"))
    assert read_key(RSA.jwk(n=modulus), ("RS256",)).algorithm == "RS256"


def test_a_modulus_may_begin_with_zeros() -> None:
    modulus = b"\0" + base64.urlsafe_b64decode(RSA.jwk()["n"] + "==")
    assert read_key(RSA.jwk(n=base64url(modulus)), ("RS256",)).verifies(*signature_of(RSA))


def signature_of(issuer: Issuer) -> tuple[bytes, bytes]:
    signed, _, signature = issuer.mint().rpartition(".")
    return signed.encode(), base64.urlsafe_b64decode(signature + "==")


@pytest.mark.parametrize("name", ["ES256", "ES384", "ES512", "EdDSA", "RS256", "RS384", "RS512", "PS256", "HS512"])
def test_a_key_that_was_read_verifies_what_its_other_half_has_signed(name: str) -> None:
    issuer = Issuer(alg=name)
    key = read_key(issuer.jwk(), (name,))
    signed, signature = signature_of(issuer)
    assert key.verifies(signed, signature)
    assert not key.verifies(signed + b"x", signature)
    assert not key.verifies(signed, signature[:-1])
    assert not key.verifies(signed, signature + b"\0")
    assert not key.verifies(signed, b"")


class Raising:
    """In the place of a library's algorithm."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def from_jwk(self, _: object) -> object:
        raise self._error


@pytest.mark.parametrize(
    "error",
    [
        ValueError("k3y"),
        MemoryError("k3y"),
        RecursionError(),
        type("PanicException", (BaseException,), {"__module__": "pyo3_runtime"})(),
    ],
)
def test_whatever_a_library_raises_while_reading_a_key_is_a_key_that_is_not_used(
    error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(jwk._ALGORITHMS, "ES256", Raising(error))
    with pytest.raises(KeySetError, match=r"^cannot be read as a key$") as caught:
        read_key(EC.jwk(), ("ES256",))
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_an_interrupt_while_reading_a_key_is_not_held_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(jwk._ALGORITHMS, "ES256", Raising(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        read_key(EC.jwk(), ("ES256",))


# ---- key sets


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


def test_a_set_may_have_64_keys() -> None:
    assert len(keyring(*(EC.jwk(kid=f"k{i}") for i in range(64))).keys) == 64


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
