"""Who acts for whom: the `act` claim and what it takes away (RFC 8693 section 4.1)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, cast

import msgspec

from authz_middleware.identity.principal import KINDS, Actor, Kind
from authz_middleware.identity.problem import CredentialDetail, TokenRefusedError
from authz_middleware.identity.values import ABSENT, Path, lookup, text_at, words_of

MAX_CHAIN: Final = 32
_SCOPE: Final[Path] = ("scope",)
_ROLES: Final[Path] = ("roles",)


class Delegation(msgspec.Struct, frozen=True):
    """The chain of actors and what it leaves of the subject's rights.

    `kind` is the kind of whoever acts, over the whole chain, dropped actors included; None without a chain. `scopes`
    and `roles` are what every actor that states any holds; None where no actor states any.
    """

    actors: tuple[Actor, ...] = ()
    dropped: int = 0
    kind: Kind | None = None
    scopes: frozenset[str] | None = None
    roles: frozenset[str] | None = None

    def limit_scopes(self, held: frozenset[str]) -> frozenset[str]:
        """Of the subject's scopes, those that the actors hold too."""
        return held if self.scopes is None else held & self.scopes

    def limit_roles(self, held: frozenset[str]) -> frozenset[str]:
        """Of the subject's roles, those that the actors hold too."""
        return held if self.roles is None else held & self.roles


NO_DELEGATION: Final = Delegation()


def read_delegation(
    claims: Mapping[str, Any],
    *,
    actor: tuple[Path, ...],
    kind: tuple[Path, ...],
    scopes: tuple[Path, ...],
    roles: tuple[Path, ...],
    kept: int,
) -> Delegation:
    """The delegation that a token states; the party that makes this very call comes first.

    At most `kept` actors are named, the rest are counted. RFC 8693 has earlier actors inform only; here they can take
    away, never give: an agent anywhere in the chain makes the caller an agent, and rights shrink to what all hold.
    Raises TokenRefusedError for a chain that is not one.
    """
    entries = tuple(_entries(claims, actor))
    if not entries:
        return NO_DELEGATION
    chain = tuple(_actor(entry, kind) for entry in entries)
    return Delegation(
        actors=chain[:kept],
        dropped=max(0, len(chain) - kept),
        kind="agent" if any(one.kind == "agent" for one in chain) else chain[0].kind,
        # An actor's own scope counts by its standard name even where the subject's is read elsewhere.
        scopes=_held_by_all(entries, {*scopes, _SCOPE}),
        roles=_held_by_all(entries, {*roles, _ROLES}),
    )


def kind_at(claims: Mapping[str, Any], places: tuple[Path, ...]) -> Kind | None:
    """The kind that a token states; a word that is none of the known kinds states nothing."""
    stated = text_at(claims, places)
    return cast("Kind", stated) if stated in KINDS else None


def _entries(claims: Mapping[str, Any], places: tuple[Path, ...]) -> Iterator[Mapping[str, Any]]:
    entry = lookup(claims, places)
    for _ in range(MAX_CHAIN):
        if entry is ABSENT:
            return
        if not isinstance(entry, Mapping):
            raise TokenRefusedError(CredentialDetail.CLAIM_TYPE)
        yield entry
        # Inside the chain the next actor is always under `act`, wherever the chain itself was found.
        entry = entry.get("act", ABSENT)
    raise TokenRefusedError(CredentialDetail.CLAIM_TYPE)


def _actor(entry: Mapping[str, Any], kind: tuple[Path, ...]) -> Actor:
    identifier = text_at(entry, (("sub",),))
    if identifier is None:
        raise TokenRefusedError(CredentialDetail.CLAIM_TYPE)
    return Actor(id=identifier, kind=kind_at(entry, kind) or "agent", issuer=text_at(entry, (("iss",),)))


def _held_by_all(entries: tuple[Mapping[str, Any], ...], places: set[Path]) -> frozenset[str] | None:
    held: frozenset[str] | None = None
    for entry in entries:
        for place in places:
            stated = lookup(entry, (place,))
            if stated is not ABSENT:
                words = words_of(stated)
                held = words if held is None else held & words
    return held
