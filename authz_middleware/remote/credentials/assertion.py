"""Shows an authorization server who asks: a short-lived statement signed with our private key (RFC 7523 section 2.2).

As narrow as RFC 7523bis section 4 has it: typed, for this one server by its issuer identifier, for one use.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from jwt.algorithms import get_default_algorithms

from authz_middleware.identity.keys.jwk import KEY_ID
from authz_middleware.remote.credentials.steady import SteadySecret
from authz_middleware.remote.failure import FailureKind, RemoteFailure
from authz_middleware.settings.remote.credential import ClientCredentials
from authz_middleware.strict_json import parse_object

LIFETIME_S: Final = 60
RSA_BITS: Final = 2048

_METHODS: Final[Mapping[str, Any]] = get_default_algorithms()
_KEYS: Final[Mapping[str, type]] = {
    "ES": ec.EllipticCurvePrivateKey,
    "Ed": ed25519.Ed25519PrivateKey,
    "RS": rsa.RSAPrivateKey,
    "PS": rsa.RSAPrivateKey,
}

UNAVAILABLE: Final = RemoteFailure(FailureKind.CONFIG, "credential.key.unavailable")
UNUSABLE: Final = RemoteFailure(FailureKind.CONFIG, "credential.key.unusable")


class Signer:
    """Signs with the private key as it is at the moment: it is read each time, so that a new one counts at once."""

    def __init__(self, settings: ClientCredentials) -> None:
        self._settings = settings
        self._secret = SteadySecret(settings.private_key)

    def __repr__(self) -> str:
        return f"<Signer {self._secret!r}>"

    def assertion(self, now: float) -> str | RemoteFailure:
        """A statement made at `now`, in seconds since the epoch."""
        text = self._secret.read()
        if text is None:
            return UNAVAILABLE
        try:
            return self._signed(text, now)
        except Exception:  # noqa: BLE001 - whatever a library says of a key that cannot be used may quote it
            return UNUSABLE

    def _signed(self, text: str, now: float) -> str:
        settings = self._settings
        method = _METHODS[settings.algorithm]
        key, key_id = _read_jwk(text, settings) if text.startswith("{") else _read_pem(text, settings)
        _check(key, settings.algorithm)
        header: dict[str, str] = {"alg": settings.algorithm, "typ": settings.assertion_type}
        if key_id is not None:
            header["kid"] = key_id
        claims = {
            "iss": settings.client_id,
            "sub": settings.client_id,
            "aud": settings.issuer,
            "jti": secrets.token_urlsafe(24),
            "iat": int(now),
            "exp": int(now) + LIFETIME_S,
        }
        signed = f"{_part(msgspec.json.encode(header))}.{_part(msgspec.json.encode(claims))}"
        return f"{signed}.{_part(method.sign(signed.encode('ascii'), method.prepare_key(key)))}"


def _read_pem(text: str, settings: ClientCredentials) -> tuple[object, str | None]:
    return load_pem_private_key(text.encode(), None), settings.key_id


def _read_jwk(text: str, settings: ClientCredentials) -> tuple[object, str | None]:
    """A JSON Web Key brings its own id, so that key and id change in one step."""
    members = parse_object(text.encode())
    key_id = members.get("kid", settings.key_id)
    if key_id is not None and not (isinstance(key_id, str) and KEY_ID.fullmatch(key_id)):
        raise ValueError("kid")
    if members.get("alg", settings.algorithm) != settings.algorithm:
        raise ValueError("alg")
    return _METHODS[settings.algorithm].from_jwk(members), key_id


def _check(key: object, algorithm: str) -> None:
    """A private key, of the kind and the strength for this algorithm; its curve is checked by PyJWT."""
    if not isinstance(key, _KEYS[algorithm[:2]]):
        raise TypeError("key")
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size < RSA_BITS:
        raise ValueError("size")


def _part(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")
