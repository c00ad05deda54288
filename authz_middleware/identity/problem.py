"""Why a credential was not accepted: a value for the caller, a stable code for the record."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec

from authz_middleware.decision import Reason


class CredentialDetail(StrEnum):
    """Which check a credential failed. The codes are stable; they appear in records, never in an answer."""

    AUTHORIZATION_MISSING = "authorization.missing"
    """The request carries no Authorization header."""
    AUTHORIZATION_MULTIPLE = "authorization.multiple"
    """More than one Authorization header, or several credentials joined by commas in one."""
    AUTHORIZATION_SCHEME = "authorization.scheme"
    """The scheme is not Bearer followed by one space and one token (RFC 6750 section 2.1)."""
    TOO_LONG = "token.too_long"
    """The token exceeds 16 KiB, or its header 4 KiB."""
    MALFORMED = "token.malformed"
    """Not three canonical base64url parts of strict UTF-8 JSON objects (RFC 7515 section 7.1)."""
    HEADER = "token.header"
    """The header carries `crit`, `zip` or `b64`, or a `kid` that is not short printable ASCII."""
    TYPE = "token.type"
    """`typ` is absent, not one of the issuer's token types, or that of another kind of token (RFC 9068 section 4)."""
    ISSUER = "token.issuer"
    """`iss` is not, character for character, a configured issuer."""
    ALGORITHM = "token.algorithm"
    """`alg` is not the one algorithm that the selected key carries (RFC 8725 section 3.1)."""
    KEY_UNKNOWN = "token.key_unknown"
    """The issuer has no key with this `kid`, or the token names none and not exactly one key fits."""
    SIGNATURE = "token.signature"
    """The signature does not hold over the exact bytes received."""
    CLAIM_MISSING = "token.claim_missing"
    """`exp`, `iat`, `sub` or `aud` is absent."""
    CLAIM_TYPE = "token.claim_type"
    """A claim that is read has another type, form or size than it must have."""
    EXPIRED = "token.expired"
    """`exp` has passed."""
    NOT_YET_VALID = "token.not_yet_valid"
    """`nbf` or `iat` lies in the future."""
    LIFETIME = "token.lifetime"
    """`exp` minus `iat` exceeds the issuer's `max_lifetime`, or is not positive."""
    AUDIENCE = "token.audience"
    """`aud` names none of the configured audiences."""
    AUDIENCE_NOT_SINGLE = "token.audience_not_single"
    """`aud` names several audiences where the issuer's tokens must name one."""
    BOUND = "token.bound"
    """The token is bound to a key of its sender (`cnf`, RFC 7800); a plain Bearer credential proves no possession."""
    KEYS_UNAVAILABLE = "keys.unavailable"
    """No key set of the issuer has been loaded, or the last one is too old."""
    UNEXPECTED = "token.unexpected"
    """A check failed in a way that was not foreseen; the token is refused all the same."""


class CredentialProblem(msgspec.Struct, frozen=True, gc=False):
    """A credential that establishes nobody. `reason` is CREDENTIAL_MISSING, CREDENTIAL_INVALID or KEYS_UNAVAILABLE;
    `detail` is a `CredentialDetail` value for the record."""

    reason: Reason
    detail: str


class TokenRefusedError(Exception):
    """Leaves the checks of one token and never this package: the authenticator turns it into a value.

    It holds the code alone, nothing of the token.
    """

    def __init__(self, detail: CredentialDetail) -> None:
        self.detail = detail
        super().__init__(detail.value)


_REASONS: Final = {
    CredentialDetail.AUTHORIZATION_MISSING: Reason.CREDENTIAL_MISSING,
    CredentialDetail.KEYS_UNAVAILABLE: Reason.KEYS_UNAVAILABLE,
}

PROBLEMS: Final = {
    detail: CredentialProblem(_REASONS.get(detail, Reason.CREDENTIAL_INVALID), detail.value)
    for detail in CredentialDetail
}
"""The one problem of each detail; they hold nothing of a request and are shared."""
