"""From verified claims to a `Principal`: which claim means what, and what a claim must look like to mean it.

A claim map names, for each part of a principal, the places in the token where it is looked for. Presets
follow the published token profiles; any entry can be replaced in the settings (`[issuers.claims]`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec

from authz_middleware.identity.delegation import Delegation, kind_at, read_delegation
from authz_middleware.identity.principal import Kind, Principal
from authz_middleware.identity.values import ABSENT, FrozenMapping, Path, text_at, words_at

if TYPE_CHECKING:
    from authz_middleware.settings.model import IssuerSettings


class ClaimMap(msgspec.Struct, frozen=True, kw_only=True):
    """Where each part of a principal is found: the first of these places that the token has.

    A part without places is never read. A place is a path of member names from the top of the claims.
    """

    scopes: tuple[Path, ...] = (("scope",),)
    roles: tuple[Path, ...] = ()
    tenant: tuple[Path, ...] = ()
    task: tuple[Path, ...] = ()
    purpose: tuple[Path, ...] = ()
    environment: tuple[Path, ...] = ()
    clearance: tuple[Path, ...] = ()
    kind: tuple[Path, ...] = ()
    client: tuple[Path, ...] = (("client_id",),)
    actor: tuple[Path, ...] = (("act",),)
    token_id: tuple[Path, ...] = (("jti",),)
    transaction: tuple[Path, ...] = (("txn",),)

    def replace(self, overrides: Mapping[str, str]) -> ClaimMap:
        """This map with some entries read elsewhere: `{"tenant": "tid", "roles": "/realm_access/roles"}`."""
        return msgspec.structs.replace(self, **{name: (path_of(place),) for name, place in overrides.items()})

    def mapped(self) -> frozenset[str]:
        """The top-level claims that this map reads whole."""
        places = (path for name in CLAIM_NAMES for path in getattr(self, name))
        return frozenset(path[0] for path in places if len(path) == 1)


CLAIM_NAMES: Final = frozenset(ClaimMap.__struct_fields__)
"""The entries of a claim map, as the settings name them."""

_ACCESS_TOKEN: Final = ClaimMap(
    roles=(("roles",),),
    tenant=(("tenant",),),
    task=(("task",),),
    purpose=(("purpose",),),
    environment=(("env",),),
    clearance=(("clearance",),),
    kind=(("kind",),),
    client=(("client_id",), ("azp",)),
)

PRESETS: Final[Mapping[str, ClaimMap]] = FrozenMapping(
    {
        # RFC 9068 sections 2.2 and 2.2.3; what the RFC has no claim for goes by its plain name.
        "rfc9068": _ACCESS_TOKEN,
        # RFC 8693 section 4: `scope` and `client_id` as registered there, and no other name for the client.
        "rfc8693": msgspec.structs.replace(_ACCESS_TOKEN, client=(("client_id",),)),
        # draft-ietf-oauth-transaction-tokens: `scope` states the purpose of the transaction, `req_wl` is the workload
        # that asked for the token, and `tctx` holds what stays fixed along the call chain.
        "txn-token": ClaimMap(
            roles=(("tctx", "roles"),),
            tenant=(("tctx", "tenant"),),
            task=(("tctx", "task"),),
            purpose=(("scope",),),
            environment=(("tctx", "env"),),
            clearance=(("tctx", "clearance"),),
            kind=(("tctx", "kind"),),
            client=(("req_wl",),),
        ),
    }
)

_NOT_EXTRA: Final = CLAIM_NAMES | {
    # checked and carried elsewhere
    *("iss", "sub", "aud", "exp", "nbf", "iat", "jti", "act", "may_act", "cnf"),
    # a claim must not pass for what policies read under these names
    *("id", "issuer", "subject_kind", "actors"),
}

_POINTER: Final = re.compile(r"(?:/(?:[^~/]|~[01])*)+")


def path_of(place: str) -> Path:
    """The path of a claim name, or of a JSON pointer (RFC 6901) when it starts with `/`.

    Raises ValueError for a pointer that is not one.
    """
    if not place.startswith("/"):
        return (place,)
    if not _POINTER.fullmatch(place):
        raise ValueError("not a JSON pointer")
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in place[1:].split("/"))


def claim_map_of(settings: IssuerSettings) -> ClaimMap:
    """The claim map of an issuer: its preset with its overrides."""
    return PRESETS[settings.claims].replace(settings.claim_overrides)


def principal_of(claims: Mapping[str, Any], settings: IssuerSettings, claim_map: ClaimMap | None = None) -> Principal:
    """The principal that these claims of a verified token describe.

    `claims` have passed the checks of `tokens.verify`: `iss`, `sub`, `aud`, `exp` and `iat` hold. What subject and
    actors each hold is intersected, so the principal never has more than the weakest of them (RFC 8693 section 4.1).
    Raises TokenRefusedError when a claim that is read has another type than it must have.
    """
    where = claim_map or claim_map_of(settings)
    subject: str = claims["sub"]
    client = text_at(claims, where.client)
    subject_kind = _subject_kind(claims, where, subject, client)
    delegation = read_delegation(
        claims, actor=where.actor, kind=where.kind, scopes=where.scopes, roles=where.roles, kept=settings.max_actors
    )
    audience = claims["aud"]
    return Principal(
        issuer=claims["iss"],
        subject=subject,
        kind=_acting_kind(subject_kind, delegation),
        subject_kind=subject_kind,
        actors=delegation.actors,
        dropped_actors=delegation.dropped,
        client=client,
        scopes=delegation.limit_scopes(words_at(claims, where.scopes)),
        roles=delegation.limit_roles(words_at(claims, where.roles)),
        tenant=text_at(claims, where.tenant),
        task=text_at(claims, where.task),
        purpose=text_at(claims, where.purpose),
        environment=_environment(text_at(claims, where.environment), settings.environment),
        clearance=text_at(claims, where.clearance),
        audience=(audience,) if isinstance(audience, str) else tuple(audience),
        token_id=text_at(claims, where.token_id),
        transaction=text_at(claims, where.transaction),
        issued_at=float(claims["iat"]),
        expires_at=float(claims["exp"]),
        claims=_extra(claims, where),
    )


def _environment(claimed: str | None, of_issuer: str | None) -> str | None:
    """The token's environment. An issuer that belongs to one cannot vouch for another: such a token has none."""
    if claimed is not None and of_issuer is not None and claimed != of_issuer:
        return None
    return claimed or of_issuer


def _subject_kind(claims: Mapping[str, Any], where: ClaimMap, subject: str, client: str | None) -> Kind | None:
    stated = kind_at(claims, where.kind)
    if stated is not None:
        return stated
    # RFC 9068 section 5: in a token of the client credentials grant the subject is the client itself.
    return "workload" if client == subject else None


def _acting_kind(subject_kind: Kind | None, delegation: Delegation) -> Kind | None:
    return subject_kind if delegation.kind is None else delegation.kind


def _extra(claims: Mapping[str, Any], where: ClaimMap) -> Mapping[str, Any]:
    """What policies may read beyond the map: plain values and lists of plain values, as they cannot change."""
    passed_over = _NOT_EXTRA | where.mapped()
    extra = {name: _plain(value) for name, value in claims.items() if name not in passed_over}
    return FrozenMapping({name: value for name, value in extra.items() if value is not ABSENT})


def _plain(value: object) -> object:
    if isinstance(value, str | int | float):
        return value
    if isinstance(value, list) and all(isinstance(item, str | int | float) for item in value):
        return tuple(value)
    return ABSENT
