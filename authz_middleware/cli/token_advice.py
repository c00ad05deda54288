"""What to do about a token that is refused: for each code, what is wrong and how to mend it."""

from __future__ import annotations

from typing import Final

from authz_middleware.identity.compact import MAX_CLAIM_ITEMS
from authz_middleware.identity.inspection import Check
from authz_middleware.identity.problem import CredentialDetail
from authz_middleware.settings.issuers import IssuerSettings

_ADVICE: Final = {
    CredentialDetail.TOO_LONG: "longer than 16 KiB, or its header than 4 KiB; have the issuer put less into it",
    CredentialDetail.MALFORMED: "not three parts of canonical base64url with a JSON object in the first two, without "
    f"duplicate members, NaN or more than {MAX_CLAIM_ITEMS} members and elements; check that it was copied whole and "
    "without quotes or padding, and that it is no opaque or encrypted token",
    CredentialDetail.HEADER: "the header has crit, zip or b64, or a kid that is not 1 to 256 printable ASCII "
    "characters; have the issuer leave them out",
    CredentialDetail.ALGORITHM: "alg is not the one that the key carries, or none of this issuer's ({algorithms}); set "
    "'algorithms' to what the issuer signs with",
    CredentialDetail.TYPE: "typ is none of this issuer's access tokens ({types}); if you hold an access token and not "
    "an ID token, add its typ to 'token_types'",
    CredentialDetail.ID_TOKEN: "this is an ID or refresh token; send the access token that was issued beside it",
    CredentialDetail.ISSUER: "iss is, character for character, no configured issuer; compare slashes and case with "
    "'issuer' in [[issuers]]",
    CredentialDetail.KEY_UNKNOWN: "the key set has no key of this kid, or the token names none and not exactly one "
    "fits; compare with the issuer's published keys",
    CredentialDetail.KEYS_UNAVAILABLE: "the issuer's key set cannot be used",
    CredentialDetail.SIGNATURE: "the signature does not hold: the token was changed or cut, or signed by another key",
    CredentialDetail.CLAIM_MISSING: "a claim is absent that must be there; have the issuer put iat, exp, aud and sub "
    "into its tokens",
    CredentialDetail.CLAIM_TYPE: "a claim has another type or form than it must have: times are numbers up to the year "
    "9999, texts are printable and not blank, lists have at most 256 texts",
    CredentialDetail.ACTOR: "the actor (act) is not the one that may_act names, or it cannot be told who acts",
    CredentialDetail.SPIFFE_ID: "sub is no SPIFFE ID such as spiffe://example.org/billing",
    CredentialDetail.EXPIRED: "exp has passed; get a new token",
    CredentialDetail.NOT_YET_VALID: "nbf, iat or auth_time lies in the future; compare the clocks",
    CredentialDetail.LIFETIME: "exp - iat is more than max_lifetime ({max_lifetime:g} s), or not positive; have the "
    "issuer give out shorter tokens, or raise 'max_lifetime'",
    CredentialDetail.AUDIENCE: "aud has none of {audience}; ask the issuer for a token for this application",
    CredentialDetail.AUDIENCE_NOT_SINGLE: "aud names more than this application, and single_audience is set; ask the "
    "issuer for a token for this application alone",
    CredentialDetail.BOUND: "cnf has something other than jkt and x5t#S256, which nobody checks here",
    CredentialDetail.UNBOUND: "this issuer's tokens must be bound to their sender (proof = {proof}); have the client "
    "ask for a bound one",
    CredentialDetail.UNEXPECTED: "the check failed in an unforeseen way; please report it, without the token",
}


def advice_for(check: Check, issuer: IssuerSettings | None) -> str:
    """What a refusal means under the settings of this issuer. Holds nothing of the token."""
    if check.detail is None:
        return check.why
    advice = _ADVICE.get(check.detail, "refused")
    if issuer is not None:
        advice = advice.format(
            algorithms=", ".join(issuer.algorithms),
            types=", ".join(issuer.token_types),
            audience=", ".join(issuer.audience),
            max_lifetime=issuer.max_lifetime,
            proof=issuer.proof,
        )
    return f"{advice}: it {check.why}" if check.detail is CredentialDetail.KEYS_UNAVAILABLE else advice
