"""Claim maps: which claim of a token means what, by token profile.

Presets follow the published profiles; any entry can be replaced in the settings (`[issuers.claims]`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import msgspec

from authz_middleware.identity.claims.values import FrozenMapping, Path
from authz_middleware.identity.principal import KINDS, Kind


class Mark(msgspec.Struct, frozen=True):
    """A claim that tells the access tokens of a profile from other tokens of the same issuer, where `typ` does not.

    The first of `places` that the token has must hold one of `values`, or any text at all where these are None.
    """

    places: tuple[Path, ...]
    values: tuple[str, ...] | None = None


class ClaimMap(msgspec.Struct, frozen=True, kw_only=True):
    """Where each part of a principal is found: the first of these places that the token has.

    A part without places is never read. A place is a path of member names from the top of the claims.
    """

    subject: tuple[Path, ...] = (("sub",),)
    scopes: tuple[Path, ...] = (("scope",),)
    roles: tuple[Path, ...] = ()
    authorizations: tuple[Path, ...] = ()
    tenant: tuple[Path, ...] = ()
    task: tuple[Path, ...] = ()
    purpose: tuple[Path, ...] = ()
    environment: tuple[Path, ...] = ()
    clearance: tuple[Path, ...] = ()
    kind: tuple[Path, ...] = ()
    client: tuple[Path, ...] = (("client_id",),)
    actor: tuple[Path, ...] = (("act",),)
    may_act: tuple[Path, ...] = (("may_act",),)
    agent_context: tuple[Path, ...] = ()
    token_id: tuple[Path, ...] = (("jti",),)
    transaction: tuple[Path, ...] = (("txn",),)
    acr: tuple[Path, ...] = (("acr",),)
    auth_time: tuple[Path, ...] = (("auth_time",),)

    kinds: Mapping[str, Kind] = FrozenMapping({kind: kind for kind in KINDS})
    """What the words found under `kind` mean; any other word means nothing."""
    contexts: tuple[str, ...] = ()
    """Claims that are objects, whose members policies read as `subject.<claim>_<member>`."""
    mark: Mark | None = None
    svid: bool = False
    """Whether these are JWT-SVIDs: the subject is a SPIFFE ID and a workload, and nothing else in them is read."""
    mapped: frozenset[str] = frozenset()
    """The top-level claims that this map reads whole; worked out, never given."""

    def __post_init__(self) -> None:
        places = (path for name in CLAIM_NAMES for path in getattr(self, name))
        msgspec.structs.force_setattr(self, "mapped", frozenset(path[0] for path in places if len(path) == 1))

    def replace(self, overrides: Mapping[str, str]) -> ClaimMap:
        """This map with some entries read elsewhere: `{"tenant": "tid", "roles": "/realm_access/roles"}`.

        Raises ValueError for a JSON pointer that is not one.
        """
        return msgspec.structs.replace(self, **{name: (path_of(place),) for name, place in overrides.items()})


CLAIM_NAMES: Final = frozenset(ClaimMap.__struct_fields__) - {"kinds", "contexts", "mark", "svid", "mapped"}
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

# draft-ietf-oauth-transaction-tokens-10: `scope` states, as narrowly as can be, the purpose of the transaction;
# `req_wl` is the workload that asked for the token, `tctx` what stays fixed along the call chain, `rctx` what
# surrounded the first request.
_TRANSACTION_TOKEN: Final = ClaimMap(
    roles=(("tctx", "roles"),),
    tenant=(("tctx", "tenant"),),
    task=(("tctx", "task"),),
    purpose=(("scope",),),
    environment=(("tctx", "env"),),
    clearance=(("tctx", "clearance"),),
    kind=(("tctx", "kind"),),
    client=(("req_wl",),),
    contexts=("tctx", "rctx"),
)

PRESETS: Final[Mapping[str, ClaimMap]] = FrozenMapping(
    {
        # RFC 9068 sections 2.2 and 2.2.3; what the RFC has no claim for goes by its plain name.
        "rfc9068": _ACCESS_TOKEN,
        # RFC 8693 section 4: `scope` and `client_id` as registered there, and no other name for the client.
        "rfc8693": msgspec.structs.replace(_ACCESS_TOKEN, client=(("client_id",),)),
        # RFC 9396 section 9.1 on top of RFC 9068.
        "rar": msgspec.structs.replace(_ACCESS_TOKEN, authorizations=(("authorization_details",),)),
        "txn-token": _TRANSACTION_TOKEN,
        # draft-araut-oauth-transaction-tokens-for-agents-02 section 3.6.
        "txn-token-agent": msgspec.structs.replace(
            _TRANSACTION_TOKEN,
            agent_context=(("agentic_ctx",),),
            contexts=("tctx", "rctx", "agentic_ctx"),
        ),
        # JWT-SVID sections 2 and 3, for trust domains that publish their keys as an OpenID provider.
        "spiffe": ClaimMap(scopes=(), client=(), transaction=(), acr=(), auth_time=(), svid=True),
        # Keycloak says in the claim `typ` what it does not say in the header: an ID token is "ID" there.
        "keycloak": msgspec.structs.replace(
            _ACCESS_TOKEN,
            roles=(("realm_access", "roles"),),
            client=(("azp",), ("client_id",)),
            mark=Mark((("typ",),), ("Bearer", "DPoP")),
        ),
        # Access token claims reference of the Microsoft identity platform: `azp` in v2.0, `appid` in v1.0; an ID token,
        # which may well name the same audience, has neither.
        "entra": msgspec.structs.replace(
            _ACCESS_TOKEN,
            scopes=(("scp",),),
            tenant=(("tid",),),
            kind=(("idtyp",),),
            kinds=FrozenMapping({**{kind: kind for kind in KINDS}, "app": "workload", "user": "human"}),
            client=(("azp",), ("appid",)),
            token_id=(("uti",),),
            mark=Mark((("azp",), ("appid",))),
        ),
    }
)

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
