"""Judges an issuer's answer about a token (RFC 7662 section 2.2), in two steps: is it an answer, and whose token is it.

It takes the place of a signature, so it is read as strictly as what is signed: a 200 in JSON, whole, without a
duplicate member, with an `active` that is exactly true or false. Whatever else comes back permits nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from authz_middleware.identity.claims.values import FrozenMapping
from authz_middleware.identity.keys.download import media_type
from authz_middleware.identity.problem import CredentialDetail, TokenRefusedError
from authz_middleware.identity.tokens import IssuerRules, RawClaims, check_claims, check_issuer, check_use
from authz_middleware.remote.failure import FailureKind, RemoteAnswer, RemoteFailure
from authz_middleware.remote.transport.protocol import RawAnswer
from authz_middleware.strict_json import StrictJSONError, parse_object

_KINDS: Final = {3: FailureKind.REDIRECT, 4: FailureKind.STATUS_4XX, 5: FailureKind.STATUS_5XX}

_ACCESS_TOKEN: Final[Mapping[str, frozenset[str]]] = {
    "token_type": frozenset({"bearer", "dpop", "access_token"}),
    "token_use": frozenset({"access", "access_token"}),
}
"""Members by which a server says what kind of token it was asked about: the first as in RFC 7662, the second as Ory
Hydra has it. `token_type_hint` is only a hint: asked about a refresh token, an endpoint may answer as well."""


def parse_introspection(raw: RawAnswer) -> RemoteAnswer | RemoteFailure:
    """The answer in a response: its `permit` is exactly `active`, its `context` all members."""
    if raw.status != 200:
        kind = FailureKind.THROTTLED if raw.status == 429 else _KINDS.get(raw.status // 100, FailureKind.MALFORMED)
        return RemoteFailure(kind, f"status.{raw.status}")
    types = raw.values("content-type")
    if len(types) != 1 or media_type(types[0]) != "application/json":
        return RemoteFailure(FailureKind.MALFORMED, "header.content_type")
    if any(value.lower() != "identity" for value in raw.values("content-encoding")):
        return RemoteFailure(FailureKind.MALFORMED, "header.content_encoding")
    try:
        members = parse_object(raw.body)
    except StrictJSONError as error:
        return RemoteFailure(FailureKind.MALFORMED, error.code)
    active = members.get("active")
    if active is not True and active is not False:
        return RemoteFailure(FailureKind.MALFORMED, "body.active")
    return RemoteAnswer(active, members)


def claims_of(answer: RemoteAnswer, rules: IssuerRules, now: float) -> RawClaims:
    """The claims of an active token, checked like those of a signed one at this time (seconds since the epoch).

    `iss`, where the answer leaves it out, is the issuer that was asked. Raises TokenRefusedError.
    """
    if answer.permit is not True:
        raise TokenRefusedError(CredentialDetail.INACTIVE)
    claims: dict[str, Any] = {"iss": rules.settings.issuer, **answer.context}
    del claims["active"]
    check_issuer(claims, rules)
    _check_kind(claims)
    check_use(claims)
    check_claims(claims, rules, now)
    return FrozenMapping(claims)


def _check_kind(claims: RawClaims) -> None:
    for member, accepted in _ACCESS_TOKEN.items():
        stated = claims.get(member, "")
        if member in claims and not (isinstance(stated, str) and stated.lower() in accepted):
            raise TokenRefusedError(CredentialDetail.TYPE)
    confirmation = claims.get("cnf")
    if str(claims.get("token_type", "")).lower() == "dpop" and not (
        isinstance(confirmation, Mapping) and "jkt" in confirmation
    ):
        # RFC 9449 section 6.2: bound to a key that the answer does not name. Without a proof of it it must not pass.
        raise TokenRefusedError(CredentialDetail.BOUND)
