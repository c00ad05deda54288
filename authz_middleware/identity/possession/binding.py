"""What a token is bound to: the key or the certificate that its sender must prove to hold (RFC 7800 `cnf`)."""

from __future__ import annotations

import json
import re
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Final, Literal

import msgspec

from authz_middleware.identity.problem import CredentialDetail, TokenRefusedError

Possession = Literal["any", "dpop", "mtls"]
"""What the tokens of an issuer must be bound to: a key or a certificate, a key, a certificate."""

# 32 bytes; the last character carries four bits of them and two that must be zero (RFC 4648 section 3.5).
_SHA256: Final = re.compile(r"[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]")
_MEMBERS: Final = frozenset({"jkt", "x5t#S256"})
# RFC 7638 section 3.2 and RFC 8037 section 2, each in the order of the alphabet.
_THUMBPRINT_MEMBERS: Final = {"EC": ("crv", "kty", "x", "y"), "OKP": ("crv", "kty", "x"), "RSA": ("e", "kty", "n")}


class Binding(msgspec.Struct, frozen=True, gc=False):
    """What must be proven beside the token: possession of the key with the thumbprint `jkt` (RFC 9449 section 6.1), of
    the certificate with the thumbprint `x5t_s256` (RFC 8705 section 3.1), or of both. Never of neither."""

    jkt: str | None = None
    x5t_s256: str | None = None


class AcceptedBindings(msgspec.Struct, frozen=True):
    """How tokens may, or must, be bound to their senders here: what proofs of possession may be signed with, whether
    every token has to be bound to a key, and whether tokens may be bound to a client certificate."""

    proof_algorithms: tuple[str, ...] = ()
    proof_required: bool = False
    certificates: bool = False


def binding_of(claims: Mapping[str, Any]) -> Binding | None:
    """What a token is bound to, or None where it is not bound.

    Raises TokenRefusedError with BOUND for a `cnf` with any other member than the two known ones: whoever put it there
    relies on a check that nobody makes here.
    """
    if "cnf" not in claims:
        return None
    confirmation = claims["cnf"]
    if (
        not isinstance(confirmation, Mapping)
        or not confirmation
        or not _MEMBERS.issuperset(confirmation)
        or not all(map(_is_sha256, confirmation.values()))
    ):
        raise TokenRefusedError(CredentialDetail.BOUND)
    return Binding(confirmation.get("jkt"), confirmation.get("x5t#S256"))


def check_possession(binding: Binding | None, required: Possession | None) -> None:
    """Refuse a token that is not bound to what its issuer's tokens must be bound to. Raises TokenRefusedError."""
    if required is None:
        return
    bound = binding or Binding()
    if not {"any": binding, "dpop": bound.jkt, "mtls": bound.x5t_s256}[required]:
        raise TokenRefusedError(CredentialDetail.UNBOUND)


def thumbprint_of(jwk: Mapping[str, Any]) -> str | None:
    """The SHA-256 thumbprint of a public JSON Web Key (RFC 7638), or None for what is not one.

    It is taken of the members as they are written, so that another spelling of a key is another key.
    """
    kty = jwk.get("kty")
    names = _THUMBPRINT_MEMBERS.get(kty) if isinstance(kty, str) else None
    if names is None:
        return None
    members = {name: jwk.get(name) for name in names}
    if not all(isinstance(value, str) and value.isascii() for value in members.values()):
        return None
    return digest_of(json.dumps(members, separators=(",", ":")))


def digest_of(text: str) -> str:
    """The SHA-256 of a text in base64url without padding, as thumbprints and `ath` are written."""
    return urlsafe_b64encode(sha256(text.encode()).digest()).rstrip(b"=").decode()


def _is_sha256(value: object) -> bool:
    return isinstance(value, str) and _SHA256.fullmatch(value) is not None
