"""One token: its parts as they came, unverified, and the checks that turn its claims into verified ones.

PyJWT checks the signature of the exact bytes received. Everything before that (form, sizes, JSON) and after
it (types, times, audience) is done here, and stricter than its defaults.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Mapping
from typing import Any, Final

from authz_middleware.identity.claims import ClaimMap, claim_map_of
from authz_middleware.identity.jwk import KEY_ID, Keyring
from authz_middleware.identity.problem import CredentialDetail, TokenRefusedError
from authz_middleware.identity.values import ABSENT, MAX_WORDS, is_text
from authz_middleware.settings.model import IssuerSettings
from authz_middleware.strict_json import parse_object

RawHeader = Mapping[str, Any]
RawClaims = Mapping[str, Any]

MAX_TOKEN: Final = 16 * 1024
MAX_HEADER: Final = 4 * 1024
_COMPACT: Final = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")
# Bits beyond the last byte must be zero (RFC 4648 section 3.5), so that one signature has one spelling. What the last
# character may be for each length modulo 4; with one character over there is no last byte at all.
_LAST_CHARACTERS: Final = ("", "", "AQgw", "AEIMQUYcgkosw048")

# The end of the year 9999: what lies beyond is no time but a mistake, and breaks date arithmetic elsewhere.
_MAX_TIME: Final = 253_402_300_799

_UNDERSTOOD_BY_NOBODY_HERE: Final = frozenset({"crit", "zip", "b64"})

OTHER_KINDS: Final = frozenset(
    {
        "dpop+jwt",
        "kb+jwt",
        "logout+jwt",
        "oauth-authz-req+jwt",
        "secevent+jwt",
        "statuslist+jwt",
        "token-introspection+jwt",
    }
)
"""Kinds of signed tokens that are never a credential, even where the settings list them (RFC 8725 section 3.11)."""


class RawToken:
    """A token in its parts. Nothing in it is verified, and its `repr` shows none of it."""

    __slots__ = ("signature", "signed", "unverified_claims", "unverified_header")

    def __init__(self, header: RawHeader, claims: RawClaims, signed: bytes, signature: bytes) -> None:
        self.unverified_header = header
        self.unverified_claims = claims
        self.signed = signed
        self.signature = signature


class IssuerRules:
    """What one issuer's tokens must be, prepared from its settings."""

    __slots__ = ("algorithms", "audiences", "claim_map", "settings", "types")

    def __init__(self, settings: IssuerSettings) -> None:
        """Raise ValueError for a claim map override that is no JSON pointer."""
        self.settings = settings
        self.claim_map: ClaimMap = claim_map_of(settings)
        self.audiences = frozenset(settings.audience)
        self.algorithms = frozenset(settings.algorithms)
        self.types = frozenset(_kind_of(kind) for kind in settings.token_types) - OTHER_KINDS


def parse_token(text: str) -> RawToken:
    """A token in compact form (RFC 7515 section 7.1), taken apart but not believed.

    Sizes come first, so that a long forged token costs next to nothing. Raises TokenRefusedError.
    """
    if len(text) > MAX_TOKEN:
        raise TokenRefusedError(CredentialDetail.TOO_LONG)
    if len(text) > MAX_HEADER and "." not in text[: MAX_HEADER + 1]:
        raise TokenRefusedError(CredentialDetail.TOO_LONG)
    parts = _COMPACT.fullmatch(text)
    if parts is None:
        raise TokenRefusedError(CredentialDetail.MALFORMED)
    header, claims, signature = parts.groups()
    try:
        return RawToken(
            parse_object(_decoded(header)),
            parse_object(_decoded(claims)),
            text[: parts.end(2)].encode("ascii"),
            _decoded(signature),
        )
    except ValueError:
        raise TokenRefusedError(CredentialDetail.MALFORMED) from None


def _decoded(part: str) -> bytes:
    """The bytes of a part whose alphabet has been checked. Raises ValueError for a spelling that is not canonical."""
    over = len(part) % 4
    if over and part[-1] not in _LAST_CHARACTERS[over]:
        raise ValueError("not canonical")
    return binascii.a2b_base64(part.replace("-", "+").replace("_", "/") + "=" * (-over % 4))


def verify(token: RawToken, rules: IssuerRules, keys: Keyring, now: float) -> RawClaims:
    """The claims of a token, verified for this issuer at this time (seconds since the epoch).

    Raises TokenRefusedError at the first check that fails: header, signature, then claims.
    """
    header = token.unverified_header
    if not _UNDERSTOOD_BY_NOBODY_HERE.isdisjoint(header):
        raise TokenRefusedError(CredentialDetail.HEADER)
    kid = header.get("kid")
    if "kid" in header and not (isinstance(kid, str) and KEY_ID.fullmatch(kid)):
        raise TokenRefusedError(CredentialDetail.HEADER)
    algorithm = header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in rules.algorithms:
        raise TokenRefusedError(CredentialDetail.ALGORITHM)
    if _kind_of(header.get("typ")) not in rules.types:
        raise TokenRefusedError(CredentialDetail.TYPE)
    # `jku`, `x5u`, `jwk` and `x5c` are not read: keys come from the settings alone (RFC 8725 section 3.10).
    if not keys.select(kid, algorithm).verifies(token.signed, token.signature):
        raise TokenRefusedError(CredentialDetail.SIGNATURE)
    claims = token.unverified_claims
    _check_times(claims, rules.settings, now)
    _check_audience(claims, rules)
    _check_subject(claims)
    if "cnf" in claims:
        # Taken as plain Bearer, a stolen one would be worth as much as its owner's.
        raise TokenRefusedError(CredentialDetail.BOUND)
    return claims


def _kind_of(typ: object) -> str | None:
    """The media type in `typ`, without regard to case or to `application/` (RFC 7515 section 4.1.9)."""
    if not isinstance(typ, str) or not typ.isascii():
        return None
    return typ.lower().removeprefix("application/")


def _check_times(claims: RawClaims, settings: IssuerSettings, now: float) -> None:
    issued, expires = _time(claims, "iat"), _time(claims, "exp")
    if not now < expires + settings.leeway:
        raise TokenRefusedError(CredentialDetail.EXPIRED)
    not_before = _time(claims, "nbf") if "nbf" in claims else issued
    if max(issued, not_before) > now + settings.leeway:
        raise TokenRefusedError(CredentialDetail.NOT_YET_VALID)
    if not 0 < expires - issued <= settings.max_lifetime:
        raise TokenRefusedError(CredentialDetail.LIFETIME)


def _time(claims: RawClaims, name: str) -> float:
    value = claims.get(name, ABSENT)
    if value is ABSENT:
        raise TokenRefusedError(CredentialDetail.CLAIM_MISSING)
    # An exact type: true is an int in Python.
    if type(value) not in (int, float) or not 0 <= value <= _MAX_TIME:
        raise TokenRefusedError(CredentialDetail.CLAIM_TYPE)
    return float(value)


def _check_audience(claims: RawClaims, rules: IssuerRules) -> None:
    """`aud` names one of ours, exactly; and, where the issuer's tokens must, nobody else (capability C11)."""
    audience = claims.get("aud", ABSENT)
    if audience is ABSENT:
        raise TokenRefusedError(CredentialDetail.CLAIM_MISSING)
    named = [audience] if isinstance(audience, str) else audience
    if not isinstance(named, list) or len(named) > MAX_WORDS or not all(map(is_text, named)):
        raise TokenRefusedError(CredentialDetail.CLAIM_TYPE)
    if rules.audiences.isdisjoint(named):
        raise TokenRefusedError(CredentialDetail.AUDIENCE)
    if rules.settings.single_audience and len(named) != 1:
        raise TokenRefusedError(CredentialDetail.AUDIENCE_NOT_SINGLE)


def _check_subject(claims: RawClaims) -> None:
    subject = claims.get("sub", ABSENT)
    if subject is ABSENT:
        raise TokenRefusedError(CredentialDetail.CLAIM_MISSING)
    if not is_text(subject):
        raise TokenRefusedError(CredentialDetail.CLAIM_TYPE)
