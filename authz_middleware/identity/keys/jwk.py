"""Verification keys: JSON Web Keys (RFC 7517) turned into typed keys that carry one algorithm each.

A token never chooses how it is verified: its `kid` selects a key, and the key brings its algorithm
(RFC 8725 section 3.1).
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import Algorithm, HMACAlgorithm, get_default_algorithms

from authz_middleware.identity.keys.lookalikes import reads_as_key
from authz_middleware.identity.problem import CredentialDetail, TokenRefusedError

logger = logging.getLogger("authz")

MAX_KEYS: Final = 64
RSA_BITS: Final = range(2048, 8192 + 1)
RSA_EXPONENT_BITS: Final = 32
"""More makes a signature dear to check, and nobody has more."""
KEY_ID: Final = re.compile(r"[ -~]{1,256}")

_FORMS: Final[Mapping[str, tuple[str, str | None]]] = {
    "ES256": ("EC", "P-256"),
    "ES384": ("EC", "P-384"),
    "ES512": ("EC", "P-521"),
    "EdDSA": ("OKP", "Ed25519"),
    **{f"{family}{bits}": ("RSA", None) for family in ("RS", "PS") for bits in (256, 384, 512)},
    **{f"HS{bits}": ("oct", None) for bits in (256, 384, 512)},
}
_BINARY: Final[Mapping[str, tuple[str, ...]]] = {"EC": ("x", "y"), "OKP": ("x",), "RSA": ("n", "e"), "oct": ("k",)}
_BASE64URL: Final = re.compile(r"[A-Za-z0-9_-]+")
# The y coordinates of the eight points of small order, in every spelling that is read (RFC 8032 section 5.1.3): with
# one of them as the key, anybody can sign.
_FIELD: Final = 2**255 - 19
_EIGHTH: Final = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
_SMALL_ORDER: Final = frozenset({0, 1, _FIELD - 1, _FIELD, _FIELD + 1, _EIGHTH, _FIELD - _EIGHTH})
_PRIVATE: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth"})
_ALGORITHMS: Final = get_default_algorithms()


class KeySetError(Exception):
    """A key set, or one entry of it, cannot be used. The text is ours and holds nothing of the key."""


class VerificationKey:
    """A key that checks signatures of one algorithm and does nothing else. Its `repr` does not show it."""

    __slots__ = ("_method", "_secret_or_public", "algorithm", "kid")

    def __init__(self, kid: str | None, algorithm: str, method: Algorithm, key: object) -> None:
        self.kid = kid
        self.algorithm = algorithm
        self._method = method
        self._secret_or_public = key

    def __repr__(self) -> str:
        return f"<{self.algorithm} verification key>"

    def verifies(self, signed: bytes, signature: bytes) -> bool:
        """Whether the signature holds over exactly these bytes; whatever a library raises means that it does not."""
        try:
            return self._method.verify(signed, self._secret_or_public, signature) is True
        except BaseException as error:
            if _is_failure(error):
                return False
            raise


class Keyring:
    """The usable keys of one issuer at one time. Never changed: a refresh makes another one."""

    __slots__ = ("_by_kid", "keys")

    def __init__(self, keys: Sequence[VerificationKey]) -> None:
        self.keys = tuple(keys)
        self._by_kid = {key.kid: key for key in self.keys if key.kid is not None}

    def holds(self, kid: str) -> bool:
        """Whether there is a key of this id."""
        return kid in self._by_kid

    def select(self, kid: str | None, algorithm: str) -> VerificationKey:
        """The key for a token's `kid` and `alg`.

        A token without `kid` is served only where exactly one key fits (RFC 7515 section 6). Raises
        TokenRefusedError with KEY_UNKNOWN, or with ALGORITHM when the key carries another one.
        """
        if kid is None:
            fitting = [key for key in self.keys if key.algorithm == algorithm]
            if len(fitting) != 1:
                raise TokenRefusedError(CredentialDetail.KEY_UNKNOWN)
            return fitting[0]
        key = self._by_kid.get(kid)
        if key is None:
            raise TokenRefusedError(CredentialDetail.KEY_UNKNOWN)
        if key.algorithm != algorithm:
            raise TokenRefusedError(CredentialDetail.ALGORITHM)
        return key


def read_jwks(document: Mapping[str, Any], algorithms: Sequence[str], *, secrets: bool, name: str) -> Keyring:
    """The keys of a JSON Web Key Set that fit the issuer's algorithms.

    An entry that cannot be used is passed over with a warning that names `name` and its position. `secrets` says
    whether symmetric keys may come from this source. Raises KeySetError when the set as a whole is ambiguous, too
    large, or leaves no key.
    """
    entries = document.get("keys")
    if not isinstance(entries, list | tuple) or not entries:
        raise KeySetError("has no list 'keys' with at least one key")
    if len(entries) > MAX_KEYS:
        raise KeySetError(f"holds more than {MAX_KEYS} keys")
    members = [entry for entry in entries if isinstance(entry, Mapping)]
    _check_unambiguous(members, secrets=secrets)
    keys = []
    for position, entry in enumerate(entries):
        try:
            keys.append(read_key(entry, algorithms))
        except KeySetError as error:
            logger.warning("key set of %s: entry %d is not used: it %s", name, position, error)
    if not keys:
        raise KeySetError(f"holds no key that fits {', '.join(algorithms)}")
    return Keyring(keys)


def _check_unambiguous(entries: Sequence[Mapping[str, Any]], *, secrets: bool) -> None:
    kids = Counter(entry["kid"] for entry in entries if isinstance(entry.get("kid"), str))
    if any(count > 1 for count in kids.values()):
        raise KeySetError("names two keys by one 'kid'")
    symmetric = sum(entry.get("kty") == "oct" for entry in entries)
    if symmetric and not secrets:
        raise KeySetError("holds a symmetric key; a secret comes from a file (jwks_file) only")
    if 0 < symmetric < len(entries):
        raise KeySetError("mixes symmetric and public keys")


def read_key(entry: object, algorithms: Sequence[str]) -> VerificationKey:
    """One JSON Web Key as a typed key. Raises KeySetError saying why it is not used."""
    if not isinstance(entry, Mapping):
        raise KeySetError("is not an object")
    kid = entry.get("kid")
    if kid is not None and not (isinstance(kid, str) and KEY_ID.fullmatch(kid)):
        raise KeySetError("has a 'kid' that is not 1 to 256 printable ASCII characters")
    if entry.get("use", "sig") != "sig":
        raise KeySetError("is not for signatures ('use')")
    operations = entry.get("key_ops", ["verify"])
    if not isinstance(operations, list | tuple) or "verify" not in operations:
        raise KeySetError("is not for verifying ('key_ops')")
    if not _PRIVATE.isdisjoint(entry):
        raise KeySetError("is a private key, which has no place here and should be replaced")
    algorithm = _algorithm_of(entry, algorithms)
    method = _ALGORITHMS[algorithm]
    return VerificationKey(kid, algorithm, method, _typed(entry, algorithm, method))


def _algorithm_of(entry: Mapping[str, Any], algorithms: Sequence[str]) -> str:
    """The one algorithm of a key: the one it names, or the only one of the issuer's that fits its type and curve."""
    form = (entry.get("kty"), entry.get("crv"))
    fitting = [algorithm for algorithm in algorithms if _FORMS.get(algorithm) == form]
    stated = entry.get("alg")
    if stated is not None:
        fitting = [algorithm for algorithm in fitting if algorithm == stated]
    if not fitting:
        raise KeySetError("fits none of the issuer's algorithms")
    if len(fitting) > 1:
        raise KeySetError(f"names no 'alg' and fits several of the issuer's ({', '.join(fitting)})")
    return fitting[0]


def _typed(entry: Mapping[str, Any], algorithm: str, method: Algorithm) -> object:
    if not all(_is_base64url(entry.get(name)) for name in _BINARY[entry["kty"]]):
        raise KeySetError("cannot be read as a key: a part of it is absent or not base64url without padding")
    try:
        key: Any = method.from_jwk(dict(entry))
    except BaseException as error:
        if _is_failure(error):  # no library text, which may quote the key, leaves here
            raise KeySetError("cannot be read as a key") from None
        raise
    if isinstance(method, HMACAlgorithm):
        _check_secret(key, algorithm, method)
    elif isinstance(key, rsa.RSAPublicKey):
        _check_rsa(key)
    elif algorithm == "EdDSA" and int.from_bytes(key.public_bytes_raw(), "little") % 2**255 in _SMALL_ORDER:
        raise KeySetError("is a point of small order, for which anybody can sign")
    return key


def _is_base64url(value: object) -> bool:
    """PyJWT passes over what is not of the alphabet, and so reads a key that nobody has written."""
    return isinstance(value, str) and _BASE64URL.fullmatch(value) is not None


def _check_secret(secret: bytes, algorithm: str, method: HMACAlgorithm) -> None:
    if reads_as_key(secret):
        raise KeySetError("is no secret: it reads as a key or certificate of another kind; make one of random bytes")
    if method.check_key_length(secret):
        raise KeySetError(f"is a secret shorter than the hash of {algorithm} (RFC 7518 section 3.2)")


def _check_rsa(key: rsa.RSAPublicKey) -> None:
    numbers = key.public_numbers()
    if key.key_size not in RSA_BITS:
        raise KeySetError(f"is an RSA key outside {RSA_BITS.start} to {RSA_BITS.stop - 1} bits")
    if numbers.n % 2 == 0:
        raise KeySetError("is an RSA key whose modulus is even, which everybody can factor")
    if numbers.e.bit_length() > RSA_EXPONENT_BITS:  # one and even ones are no numbers that from_jwk accepts
        raise KeySetError(f"is an RSA key whose exponent has more than {RSA_EXPONENT_BITS} bits")


def _is_failure(error: BaseException) -> bool:
    """Whether a library failed, rather than somebody ending this process. A panic of Rust code, of which the
    cryptography library is made, is no Exception."""
    return isinstance(error, Exception) or type(error).__module__ == "pyo3_runtime"
