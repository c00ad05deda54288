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
    ID_TOKEN = "token.id_token"  # noqa: S105 - a code, no secret
    """The claims are those of an ID token or a refresh token, whatever `typ` says."""
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
    ACTOR = "token.actor"
    """The actor (`act`) is not one that the token's `may_act` names, or it cannot be told who acts (RFC 8693 4.4)."""
    SPIFFE_ID = "spiffe.id"
    """`sub`, or the certificate's one URI, is no SPIFFE ID as the SPIFFE standard spells it (SPIFFE-ID section 2)."""
    SPIFFE_TRUST_DOMAIN = "spiffe.trust_domain"
    """The trust domain of the SPIFFE ID is not configured, or not for this kind of SVID."""
    SPIFFE_PATH = "spiffe.path"
    """The path of the SPIFFE ID is none that the trust domain's `paths` let in."""
    SPIFFE_CERTIFICATE = "spiffe.certificate"
    """The certificate is not an X.509-SVID of a leaf with one URI, `digitalSignature` and client use (X509-SVID 4)."""
    EXPIRED = "token.expired"
    """`exp` has passed."""
    NOT_YET_VALID = "token.not_yet_valid"
    """`nbf`, `iat` or `auth_time` lies in the future."""
    LIFETIME = "token.lifetime"
    """`exp` minus `iat` exceeds the issuer's `max_lifetime`, or is not positive."""
    AUDIENCE = "token.audience"
    """`aud` names none of the configured audiences."""
    AUDIENCE_NOT_SINGLE = "token.audience_not_single"
    """`aud` names several audiences where the issuer's tokens must name one."""
    BOUND = "token.bound"
    """The token is bound to a key of its sender (`cnf`, RFC 7800); a plain Bearer credential proves no possession."""
    UNBOUND = "token.unbound"
    """The issuer's tokens must be bound to their sender (`proof`), and this one is not, or not in that way."""
    DPOP_UNBOUND = "dpop.unbound"
    """Shown with the scheme DPoP, but not bound to a key (`cnf.jkt`)."""
    DPOP_MISSING = "dpop.missing"
    """A token that is bound to a key came without a DPoP header."""
    DPOP_MULTIPLE = "dpop.multiple"
    """More than one DPoP header, or several proofs joined by commas in one."""
    DPOP_MALFORMED = "dpop.malformed"
    """Not a JSON Web Token of type `dpop+jwt` with all its claims, up to 8 KiB (RFC 9449 section 4.2)."""
    DPOP_ALGORITHM = "dpop.algorithm"
    """`alg` is not one of the configured public-key algorithms."""
    DPOP_KEY = "dpop.key"
    """`jwk` is no public key, shows a private one, is too weak, or does not fit `alg`."""
    DPOP_MISMATCH = "dpop.mismatch"
    """`jwk` is not the key that the token is bound to."""
    DPOP_METHOD = "dpop.method"
    """`htm` is not the method of the request."""
    DPOP_TARGET = "dpop.target"
    """`htu` is not where the request was sent to, or that cannot be told."""
    DPOP_ATH = "dpop.token"
    """`ath` is absent or not the hash of the token."""
    DPOP_TIME = "dpop.time"
    """The proof is older than `dpop.max_age`, from the future, or outside its own `exp` and `nbf`."""
    DPOP_NONCE = "dpop.nonce"
    """`nonce` is absent, or not one that was handed out lately."""
    DPOP_SIGNATURE = "dpop.signature"
    """The signature of the proof does not hold over the exact bytes received."""
    DPOP_REPLAYED = "dpop.replayed"
    """A proof with this `jti` of this key has been shown before."""
    DPOP_REPLAY_UNAVAILABLE = "dpop.replay_unavailable"
    """It cannot be told whether the proof has been shown before."""
    CERTIFICATE_MISSING = "certificate.missing"
    """A token that is bound to a certificate came over a connection that showed none (RFC 8705 section 3)."""
    CERTIFICATE_MISMATCH = "certificate.mismatch"
    """The certificate shown is not the one that the token is bound to."""
    CERTIFICATE_UNKNOWN = "certificate.unknown"
    """The certificate is none of those that the settings name."""
    CERTIFICATE_EXPIRED = "certificate.expired"
    """The certificate, or its entry in the settings, has ended."""
    CERTIFICATE_NOT_YET_VALID = "certificate.not_yet_valid"
    """The certificate begins in the future."""
    CERTIFICATE_MALFORMED = "certificate.malformed"
    """Not one certificate in DER of up to 16 KiB, or that of an authority, which is nobody's to call with."""
    INACTIVE = "token.inactive"
    """The issuer says that the token is not, or no longer, valid (RFC 7662 section 2.2)."""
    INTROSPECTION_UNAVAILABLE = "introspection.unavailable"
    """The issuer could not be asked about the token: it is unreachable, too slow, overloaded or in trouble."""
    INTROSPECTION_FAILED = "introspection.failed"
    """The issuer answered, but not as RFC 7662 has it; or it does not accept our own credential."""
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
    CredentialDetail.INTROSPECTION_UNAVAILABLE: Reason.ISSUER_UNAVAILABLE,
    CredentialDetail.INTROSPECTION_FAILED: Reason.ISSUER_UNAVAILABLE,
    CredentialDetail.DPOP_REPLAY_UNAVAILABLE: Reason.ERROR,
}

PROBLEMS: Final = {
    detail: CredentialProblem(_REASONS.get(detail, Reason.CREDENTIAL_INVALID), detail.value)
    for detail in CredentialDetail
}
"""The one problem of each detail; they hold nothing of a request and are shared."""
