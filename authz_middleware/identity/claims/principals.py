"""From verified claims to a `Principal`: which claim means what, and what a claim must look like to mean it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from authz_middleware.identity.claims.authorization_details import words_of_details
from authz_middleware.identity.claims.claim_map import CLAIM_NAMES, PRESETS, ClaimMap, path_of
from authz_middleware.identity.claims.delegation import Delegation, kind_at, read_delegation
from authz_middleware.identity.claims.status_reference import status_reference_of
from authz_middleware.identity.claims.values import ABSENT, FrozenMapping, lookup, text_at, words_at
from authz_middleware.identity.principal import Kind, Principal
from authz_middleware.identity.problem import CredentialDetail, TokenRefusedError
from authz_middleware.identity.spiffe.spiffe_id import SpiffeId

if TYPE_CHECKING:
    from authz_middleware.settings.issuers import IssuerSettings

__all__ = ["CLAIM_NAMES", "PRESETS", "ClaimMap", "claim_map_of", "path_of", "principal_of"]

_CARRIED: Final = CLAIM_NAMES | {
    # checked and carried elsewhere
    *("iss", "sub", "aud", "exp", "nbf", "iat", "jti", "act", "may_act", "cnf", "status"),
    # a claim must not pass for what policies read under these names
    *("id", "issuer", "subject_kind", "actors"),
}


def claim_map_of(settings: IssuerSettings) -> ClaimMap:
    """The claim map of an issuer: its preset with its overrides."""
    return PRESETS[settings.claims].replace(settings.claim_overrides)


def principal_of(
    claims: Mapping[str, Any],
    settings: IssuerSettings,
    claim_map: ClaimMap | None = None,
    *,
    key_id: str | None = None,
) -> Principal:
    """The principal that these claims of a verified token describe; `key_id` names the key that it was signed with.

    `claims` have passed the checks of `tokens.verify`: `iss`, `sub`, `aud`, `exp` and `iat` hold. What subject and
    actors each hold is intersected, so the principal never has more than the weakest of them (RFC 8693 section 4.1).
    Raises TokenRefusedError when a claim that is read has another type than it must have, when the claims are not
    those of an access token of this profile, or when the actor is not one that the token lets act.
    """
    where = claim_map or claim_map_of(settings)
    _check_mark(claims, where)
    subject = _subject(claims, where)
    client = text_at(claims, where.client)
    audiences = frozenset(settings.audience)
    delegation = read_delegation(claims, where, subject, audiences=audiences, kept=settings.max_actors)
    subject_kind = _subject_kind(claims, where, delegation, subject, client)
    scopes = delegation.limit_scopes(words_at(claims, where.scopes))
    environment = _environment(text_at(claims, where.environment), settings.environment)
    audience = claims["aud"]
    return Principal(
        issuer=claims["iss"],
        subject=subject,
        kind="agent" if subject_kind == "agent" else delegation.kind or subject_kind,
        subject_kind=subject_kind,
        actors=delegation.actors,
        dropped_actors=delegation.dropped,
        client=client,
        scopes=scopes,
        roles=delegation.limit_roles(words_at(claims, where.roles)),
        tenant=delegation.limit_text(text_at(claims, where.tenant), where.tenant),
        task=delegation.limit_text(text_at(claims, where.task), where.task),
        purpose=_purpose(claims, where, delegation, scopes),
        environment=delegation.limit_text(environment, where.environment),
        clearance=delegation.limit_text(text_at(claims, where.clearance), where.clearance),
        audience=(audience,) if isinstance(audience, str) else tuple(audience),
        token_id=text_at(claims, where.token_id),
        transaction=text_at(claims, where.transaction),
        issued_at=float(claims["iat"]),
        expires_at=float(claims["exp"]),
        authenticated_at=_authenticated_at(claims, where, settings.leeway),
        acr=text_at(claims, where.acr),
        key_id=key_id,
        status=status_reference_of(claims),
        claims=_further(claims, where, _authorizations(claims, where, delegation, audiences)),
    )


def _check_mark(claims: Mapping[str, Any], where: ClaimMap) -> None:
    """An ID token, which its issuer signs with the same keys, must not pass for an access token."""
    if where.mark is None:
        return
    found = text_at(claims, where.mark.places)
    if found is None or (where.mark.values is not None and found not in where.mark.values):
        raise TokenRefusedError(CredentialDetail.TYPE)


def _subject(claims: Mapping[str, Any], where: ClaimMap) -> str:
    subject = text_at(claims, where.subject)
    if subject is None:
        raise TokenRefusedError(CredentialDetail.CLAIM_MISSING)
    if where.svid:
        try:
            SpiffeId.parse(subject)
        except ValueError:
            raise TokenRefusedError(CredentialDetail.SPIFFE_ID) from None
    return subject


def _subject_kind(
    claims: Mapping[str, Any], where: ClaimMap, delegation: Delegation, subject: str, client: str | None
) -> Kind | None:
    stated = kind_at(claims, where)
    if stated is not None:
        return stated
    if delegation.context is not None and delegation.context.names(subject):
        return "agent"
    # RFC 9068 section 5: in a token of the client credentials grant the subject is the client itself.
    return "workload" if where.svid or client == subject else None


def _environment(claimed: str | None, of_issuer: str | None) -> str | None:
    """The token's environment. An issuer that belongs to one cannot vouch for another: such a token has none."""
    if claimed is not None and of_issuer is not None and claimed != of_issuer:
        return None
    return claimed or of_issuer


def _purpose(claims: Mapping[str, Any], where: ClaimMap, delegation: Delegation, scopes: frozenset[str]) -> str | None:
    """The purpose. Where the scope states it, it is the one that subject and actors have left, if it is only one."""
    if where.purpose == where.scopes:
        return next(iter(scopes)) if len(scopes) == 1 else None
    return delegation.limit_text(text_at(claims, where.purpose), where.purpose)


def _authorizations(
    claims: Mapping[str, Any], where: ClaimMap, delegation: Delegation, audiences: frozenset[str]
) -> frozenset[str]:
    details = lookup(claims, where.authorizations)
    if details is ABSENT:
        return frozenset()
    return delegation.limit_authorizations(words_of_details(details, audiences))


def _authenticated_at(claims: Mapping[str, Any], where: ClaimMap, leeway: float) -> float | None:
    """When the person was authenticated: before the token was issued, which itself is not from the future."""
    value = lookup(claims, where.auth_time)
    if value is ABSENT:
        return None
    # An exact type: true is an int in Python.
    if type(value) not in (int, float) or value < 0:
        raise TokenRefusedError(CredentialDetail.CLAIM_TYPE)
    if value > claims["iat"] + leeway:
        raise TokenRefusedError(CredentialDetail.NOT_YET_VALID)
    return float(value)


def _further(claims: Mapping[str, Any], where: ClaimMap, authorizations: frozenset[str]) -> Mapping[str, Any]:
    """What policies may read beside the built-in names: plain values and lists of plain values, as they cannot change.

    An SVID says who, and nothing else (JWT-SVID section 3).
    """
    if where.svid:
        return FrozenMapping()
    contexts = tuple(f"{name}_" for name in where.contexts)
    further = {
        name: _plain(value)
        for name, value in claims.items()
        if name not in _CARRIED and name not in where.mapped and not name.startswith(contexts)
    }
    for name in where.contexts:
        further |= _members(claims.get(name, {}), name)
    if authorizations:
        further["authorizations"] = tuple(sorted(authorizations))
    return FrozenMapping({name: value for name, value in further.items() if value is not ABSENT})


def _members(context: object, name: str) -> dict[str, Any]:
    """The members of a context by their full names; two that come to the same name are not told, as neither is meant.

    Raises TokenRefusedError for a context that is not an object.
    """
    if not isinstance(context, Mapping):
        raise TokenRefusedError(CredentialDetail.CLAIM_TYPE)
    members: dict[str, Any] = {}
    for full_name, value in _flattened(context, name):
        members[full_name] = ABSENT if full_name in members else _plain(value)
    return members


def _flattened(value: Mapping[str, Any], name: str) -> Iterator[tuple[str, Any]]:
    for member, inner in value.items():
        if isinstance(inner, Mapping):
            yield from _flattened(inner, f"{name}_{member}")
        else:
            yield f"{name}_{member}", inner


def _plain(value: object) -> object:
    if isinstance(value, str | int | float):
        return value
    if isinstance(value, list) and all(isinstance(item, str | int | float) for item in value):
        return tuple(value)
    return ABSENT
