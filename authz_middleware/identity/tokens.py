"""The checks that turn the claims of a token into verified ones.

PyJWT checks the signature of the exact bytes received. Everything before that (form, sizes: see `compact`) and after
it (JSON, types, times, audience) is done here, and stricter than its defaults.
"""

from __future__ import annotations

from typing import Final

from authz_middleware.identity.claims.principals import ClaimMap, claim_map_of
from authz_middleware.identity.claims.values import ABSENT, MAX_WORDS, is_text
from authz_middleware.identity.compact import MAX_HEADER, MAX_TOKEN, RawClaims, RawHeader, RawToken, parse_token
from authz_middleware.identity.keys.jwk import KEY_ID, Keyring, VerificationKey
from authz_middleware.identity.kinds import OTHER_KINDS, kind_of
from authz_middleware.identity.problem import CredentialDetail, TokenRefusedError
from authz_middleware.settings.issuers import IssuerSettings

__all__ = [
    "MAX_HEADER",
    "MAX_TIME",
    "MAX_TOKEN",
    "OTHER_KINDS",
    "IssuerRules",
    "RawClaims",
    "RawHeader",
    "RawToken",
    "Verified",
    "check_audience",
    "check_claims",
    "check_header",
    "check_issuer",
    "check_kind",
    "check_subject",
    "check_times",
    "check_use",
    "is_id_token",
    "parse_token",
    "select_key",
    "verify",
]

# The end of the year 9999: what lies beyond is no time but a mistake, and breaks date arithmetic elsewhere.
MAX_TIME: Final = 253_402_300_799

_UNDERSTOOD_BY_NOBODY_HERE: Final = frozenset({"crit", "zip", "b64"})

_HASHES: Final = frozenset({"at_hash", "c_hash", "s_hash"})
_OTHER_USES: Final = frozenset({"ID", "Serialized-ID", "Refresh", "Offline", "Logout"})
_GRANTED: Final = frozenset({"scope", "scp", "client_id", "appidacr", "azpacr"})


class IssuerRules:
    """What one issuer's tokens must be, prepared from its settings."""

    __slots__ = ("algorithms", "audiences", "claim_map", "settings", "types")

    def __init__(self, settings: IssuerSettings) -> None:
        """Raise ValueError for a claim map override that is no JSON pointer."""
        self.settings = settings
        self.claim_map: ClaimMap = claim_map_of(settings)
        self.audiences = frozenset(settings.audience)
        self.algorithms = frozenset(settings.algorithms)
        self.types = frozenset(filter(None, map(kind_of, settings.token_types))) - OTHER_KINDS


class Verified:
    """The claims of a token whose checks have all passed, and the key that its signature was made with."""

    __slots__ = ("claims", "key")

    def __init__(self, claims: RawClaims, key: VerificationKey) -> None:
        self.claims = claims
        self.key = key


def verify(token: RawToken, rules: IssuerRules, keys: Keyring, now: float) -> Verified:
    """The claims of a token, verified for this issuer at this time (seconds since the epoch).

    Raises TokenRefusedError at the first check that fails: header, key, signature, then claims. What an issuer has not
    signed is not read as JSON.
    """
    key = select_key(token.unverified_header, rules, keys)
    if not key.verifies(token.signed, token.signature):
        raise TokenRefusedError(CredentialDetail.SIGNATURE)
    claims = token.unverified_claims
    check_issuer(claims, rules)
    check_use(claims)
    check_claims(claims, rules, now)
    return Verified(claims, key)


def select_key(header: RawHeader, rules: IssuerRules, keys: Keyring) -> VerificationKey:
    """The one key of the issuer that a token with this header is checked with. Raises TokenRefusedError."""
    kid, algorithm = check_header(header, rules)
    check_kind(header, rules)
    # `jku`, `x5u`, `jwk` and `x5c` are not read: keys come from the settings alone (RFC 8725 section 3.10).
    return keys.select(kid, algorithm)


def check_header(header: RawHeader, rules: IssuerRules) -> tuple[str | None, str]:
    """The `kid`, if any, and the `alg` of a token. Raises TokenRefusedError."""
    if not _UNDERSTOOD_BY_NOBODY_HERE.isdisjoint(header):
        raise TokenRefusedError(CredentialDetail.HEADER)
    kid = header.get("kid")
    if "kid" in header and not (isinstance(kid, str) and KEY_ID.fullmatch(kid)):
        raise TokenRefusedError(CredentialDetail.HEADER)
    algorithm = header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in rules.algorithms:
        raise TokenRefusedError(CredentialDetail.ALGORITHM)
    return kid, algorithm


def check_kind(header: RawHeader, rules: IssuerRules) -> None:
    """`typ` is one of those that the issuer's access tokens have. Raises TokenRefusedError."""
    if kind_of(header.get("typ")) not in rules.types:
        raise TokenRefusedError(CredentialDetail.TYPE)


def check_issuer(claims: RawClaims, rules: IssuerRules) -> None:
    """`iss` is, character for character, the issuer whose key has signed. Raises TokenRefusedError."""
    if claims.get("iss") != rules.settings.issuer:
        raise TokenRefusedError(CredentialDetail.ISSUER)


def check_use(claims: RawClaims) -> None:
    """The token was made to be shown to an API, not to tell its client who has logged in. Raises TokenRefusedError."""
    if is_id_token(claims):
        raise TokenRefusedError(CredentialDetail.ID_TOKEN)


def is_id_token(claims: RawClaims) -> bool:
    """Whether these are the claims of an ID token (OpenID Connect Core section 2) or of a refresh token.

    Where an issuer's `typ` is plain `JWT` its ID tokens pass for access tokens, and a client id that also serves as an
    audience lets them through. They are known by marks that an access token does not have:

    * `at_hash`, `c_hash` or `s_hash`, the hash of what was issued beside it: no access token holds its own;
    * the payload's own word: `typ` of Keycloak (`ID`; also `Refresh`, `Offline`, `Logout`), `token_use` of Cognito;
    * `nonce`, or a client (`azp`) that is its own audience, in a token that shows no trace of an authorization:
      neither `scope`, `scp`, `client_id` (RFC 9068 section 2.2) nor Entra's `appidacr` or `azpacr`. Access tokens of
      Keycloak before 25 have a `nonce`, those of an Entra application that calls itself have `azp` for `aud`; both
      show such a trace.

    That `client_id` or `jti` is absent proves nothing: Entra, Auth0 and workload identities (SPIFFE JWT-SVID, GitHub)
    leave them out. So an ID token without any mark, as the code flow may give, is told from an access token by `aud`
    alone: never make a client id an API's audience.
    """
    if not _HASHES.isdisjoint(claims) or claims.get("token_use") == "id":
        return True
    stated = claims.get("typ")
    if isinstance(stated, str) and stated in _OTHER_USES:
        return True
    return _GRANTED.isdisjoint(claims) and ("nonce" in claims or _is_for_its_client(claims))


def _is_for_its_client(claims: RawClaims) -> bool:
    client, audience = claims.get("azp", ABSENT), claims.get("aud")
    return client == audience or (isinstance(audience, list) and client in audience)


def check_claims(claims: RawClaims, rules: IssuerRules, now: float) -> None:
    """What the claims of an access token must be, whether a signature or its issuer's answer vouches for them.

    Raises TokenRefusedError at the first check that fails.
    """
    check_times(claims, rules.settings, now)
    check_audience(claims, rules)
    check_subject(claims)


def check_times(claims: RawClaims, settings: IssuerSettings, now: float) -> None:
    """`exp` and `iat` are there, `exp`, `nbf` and `iat` hold at `now`, and the lifetime is short enough.

    Raises TokenRefusedError.
    """
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
    if type(value) not in (int, float) or not 0 <= value <= MAX_TIME:
        raise TokenRefusedError(CredentialDetail.CLAIM_TYPE)
    return float(value)


def check_audience(claims: RawClaims, rules: IssuerRules) -> None:
    """`aud` names one of ours, exactly; and, where the issuer's tokens must, nobody else. Raises TokenRefusedError."""
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


def check_subject(claims: RawClaims) -> None:
    """`sub` is a text that a record can show. Raises TokenRefusedError."""
    subject = claims.get("sub", ABSENT)
    if subject is ABSENT:
        raise TokenRefusedError(CredentialDetail.CLAIM_MISSING)
    if not is_text(subject):
        raise TokenRefusedError(CredentialDetail.CLAIM_TYPE)
