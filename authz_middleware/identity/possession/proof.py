"""One proof of possession (RFC 9449 section 4.3): a token that the sender of a request has signed, for this request.

Cheap checks come first, and the signature last: only with the very key that the verified token is bound to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any, Final

import msgspec

from authz_middleware.identity.claims.values import is_text
from authz_middleware.identity.compact import RawToken, parse_token
from authz_middleware.identity.connection.credentials import Target
from authz_middleware.identity.keys.jwk import KeySetError, VerificationKey, read_key
from authz_middleware.identity.possession.binding import thumbprint_of
from authz_middleware.identity.possession.target_uri import normalise_target, normalise_uri
from authz_middleware.identity.problem import CredentialDetail, TokenRefusedError

MAX_PROOF: Final = 8 * 1024
MAX_ID: Final = 256
AHEAD_S: Final = 5.0
"""How far in the future a proof may have been made: clocks differ."""

_NOT_UNDERSTOOD: Final = frozenset({"crit", "zip", "b64"})
_PRIVATE: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
_MAX_TIME: Final = 253_402_300_799.0


class Proof(msgspec.Struct, frozen=True, gc=False):
    """A verified proof, as far as it must be remembered: the digest of its key and its `jti`, and the time (seconds
    since the epoch) from which on it is too old."""

    key: bytes
    until: float


class Showing(msgspec.Struct, frozen=True, gc=False):
    """The request that a proof must be for: its method, where it was sent to, the hash of its token (`ath`), the
    thumbprint of the key that this is bound to, and the time in seconds since the epoch."""

    method: str
    target: Target
    ath: str
    jkt: str
    now: float


def verify_proof(
    text: str,
    showing: Showing,
    *,
    algorithms: frozenset[str],
    max_age: float,
    accepts_nonce: Callable[[object], bool] | None = None,
) -> Proof:
    """Check a proof against the request it came with; all but whether it has been shown before.

    Without `accepts_nonce` no nonce is asked for. Raises TokenRefusedError at the first check that fails.
    """
    raw, claims = _parse(text)
    algorithm = _algorithm(raw.unverified_header, algorithms)
    jwk = _public_jwk(raw.unverified_header)
    if thumbprint_of(jwk) != showing.jkt:
        raise TokenRefusedError(CredentialDetail.DPOP_MISMATCH)
    identifier, issued = _text(claims, "jti"), _time(claims, "iat")
    if len(identifier) > MAX_ID:
        raise TokenRefusedError(CredentialDetail.DPOP_MALFORMED)
    _check_request(claims, showing)
    _check_time(claims, issued, max_age, showing.now)
    if accepts_nonce is not None and not accepts_nonce(claims.get("nonce")):
        raise TokenRefusedError(CredentialDetail.DPOP_NONCE)
    if not _key(jwk, algorithm).verifies(raw.signed, raw.signature):
        raise TokenRefusedError(CredentialDetail.DPOP_SIGNATURE)
    # Of the claim, not of the text: a second signature over the same claims is the same proof.
    return Proof(sha256(f"{showing.jkt}.{identifier}".encode()).digest()[:16], issued + max_age)


def _parse(text: str) -> tuple[RawToken, Mapping[str, Any]]:
    try:
        if len(text) <= MAX_PROOF:
            raw = parse_token(text)
            return raw, raw.unverified_claims
    except TokenRefusedError:
        pass  # its code tells of the token, not of the proof
    raise TokenRefusedError(CredentialDetail.DPOP_MALFORMED)


def _algorithm(header: Mapping[str, Any], algorithms: frozenset[str]) -> str:
    if header.get("typ") != "dpop+jwt" or not _NOT_UNDERSTOOD.isdisjoint(header):
        raise TokenRefusedError(CredentialDetail.DPOP_MALFORMED)
    algorithm = header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in algorithms:
        raise TokenRefusedError(CredentialDetail.DPOP_ALGORITHM)
    return algorithm


def _public_jwk(header: Mapping[str, Any]) -> Mapping[str, Any]:
    jwk = header.get("jwk")
    if not isinstance(jwk, Mapping) or not _PRIVATE.isdisjoint(jwk) or thumbprint_of(jwk) is None:
        raise TokenRefusedError(CredentialDetail.DPOP_KEY)
    return jwk


def _key(jwk: Mapping[str, Any], algorithm: str) -> VerificationKey:
    """The key, with the same quality asked of it as of an issuer's."""
    try:
        return read_key(jwk, (algorithm,))
    except KeySetError:
        raise TokenRefusedError(CredentialDetail.DPOP_KEY) from None


def _check_request(claims: Mapping[str, Any], showing: Showing) -> None:
    """The proof is for this method, this address and this token."""
    method, uri = _text(claims, "htm"), _text(claims, "htu")
    if method != showing.method:
        raise TokenRefusedError(CredentialDetail.DPOP_METHOD)
    target = normalise_target(showing.target)
    if target is None or normalise_uri(uri) != target:
        raise TokenRefusedError(CredentialDetail.DPOP_TARGET)
    if claims.get("ath") != showing.ath:
        raise TokenRefusedError(CredentialDetail.DPOP_ATH)


def _text(claims: Mapping[str, Any], name: str) -> str:
    value = claims.get(name)
    if not isinstance(value, str) or not is_text(value):
        raise TokenRefusedError(CredentialDetail.DPOP_MALFORMED)
    return value


def _check_time(claims: Mapping[str, Any], issued: float, max_age: float, now: float) -> None:
    """It was made lately; and within its own bounds, where it states any (RFC 7519 section 4.1)."""
    ends = min(issued + max_age, _time(claims, "exp") if "exp" in claims else _MAX_TIME)
    begins = max(issued, _time(claims, "nbf") if "nbf" in claims else 0.0)
    if not begins - AHEAD_S <= now < ends:
        raise TokenRefusedError(CredentialDetail.DPOP_TIME)


def _time(claims: Mapping[str, Any], name: str) -> float:
    value: Any = claims.get(name)
    # An exact type: true is an int in Python.
    if type(value) not in (int, float) or not 0 <= value <= _MAX_TIME:
        raise TokenRefusedError(CredentialDetail.DPOP_MALFORMED)
    return float(value)
