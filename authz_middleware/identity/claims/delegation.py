"""Who acts for whom: the `act` and `may_act` claims and what they take away (RFC 8693 sections 4.1 and 4.4).

RFC 8693 has earlier actors inform only. Here they can take away, never give: an agent anywhere in the chain makes the
caller an agent, and rights shrink to what all hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import msgspec

from authz_middleware.identity.claims.agent_context import AgentContext, read_agent_context
from authz_middleware.identity.claims.authorization_details import words_of_details
from authz_middleware.identity.claims.claim_map import ClaimMap
from authz_middleware.identity.claims.values import ABSENT, Path, lookup, text_at, words_of
from authz_middleware.identity.principal import Actor, Kind
from authz_middleware.identity.problem import CredentialDetail, TokenRefusedError

MAX_CHAIN: Final = 32
_ACT: Final[tuple[Path, ...]] = (("act",),)
_SCOPE: Final[Path] = ("scope",)
_ROLES: Final[Path] = ("roles",)
_DETAILS: Final[Path] = ("authorization_details",)

Entries = tuple[Mapping[str, Any], ...]


class Delegation(msgspec.Struct, frozen=True):
    """The chain of actors and what it leaves of the subject's rights.

    `kind` is the kind of whoever acts, over the whole chain, dropped actors included; None without a chain. `scopes`,
    `roles` and `authorizations` are what every actor that states any holds; None where no actor states any. `entries`
    are the claims of each actor as the token states them.
    """

    actors: tuple[Actor, ...] = ()
    dropped: int = 0
    kind: Kind | None = None
    scopes: frozenset[str] | None = None
    roles: frozenset[str] | None = None
    authorizations: frozenset[str] | None = None
    entries: Entries = ()
    context: AgentContext | None = None

    def limit_scopes(self, held: frozenset[str]) -> frozenset[str]:
        """Of the subject's scopes, those that the actors hold too."""
        return held if self.scopes is None else held & self.scopes

    def limit_roles(self, held: frozenset[str]) -> frozenset[str]:
        """Of the subject's roles, those that the actors hold too."""
        return held if self.roles is None else held & self.roles

    def limit_authorizations(self, held: frozenset[str]) -> frozenset[str]:
        """Of the subject's authorizations, those that the actors hold too, word for word."""
        return held if self.authorizations is None else held & self.authorizations

    def limit_text(self, held: str | None, places: tuple[Path, ...]) -> str | None:
        """The subject's tenant, task or the like; None where an actor is confined to another one."""
        for entry in self.entries:
            if text_at(entry, places) not in (None, held):
                return None
        return held


NO_DELEGATION: Final = Delegation()


def read_delegation(
    claims: Mapping[str, Any], where: ClaimMap, subject: str, *, audiences: frozenset[str], kept: int
) -> Delegation:
    """The delegation that a token states; the party that makes this very call comes first.

    At most `kept` actors are named, the rest are counted. Raises TokenRefusedError for a chain that is not one, and
    for an actor that the token's own `may_act` does not name.
    """
    context = read_agent_context(claims, where.agent_context)
    entries = _with_current(tuple(_entries(claims, where.actor)), context, subject)
    _check_may_act(claims, where.may_act, entries)
    if not entries and context is None:
        return NO_DELEGATION
    chain = tuple(_actor(entry, where) for entry in entries)
    depth = max(len(chain), _hops(context, subject))
    return Delegation(
        actors=chain[:kept],
        dropped=max(0, depth - kept),
        kind="agent" if context or any(one.kind == "agent" for one in chain) else chain[0].kind,
        # An actor's own rights count by their standard names even where the subject's are read elsewhere.
        scopes=_held_by_all(entries, {*where.scopes, _SCOPE}, words_of),
        roles=_held_by_all(entries, {*where.roles, _ROLES}, words_of),
        authorizations=_held_by_all(
            entries,
            {*where.authorizations, _DETAILS} if where.authorizations else set(),
            lambda value: words_of_details(value, audiences),
        ),
        entries=entries,
        context=context,
    )


def _entries(claims: Mapping[str, Any], places: tuple[Path, ...]) -> Iterator[Mapping[str, Any]]:
    entry = _start(claims, places)
    for _ in range(MAX_CHAIN):
        if entry is ABSENT:
            return
        if not isinstance(entry, Mapping):
            raise TokenRefusedError(CredentialDetail.CLAIM_TYPE)
        yield entry
        # Inside the chain the next actor is always under `act`, wherever the chain itself was found.
        entry = entry.get("act", ABSENT)
    raise TokenRefusedError(CredentialDetail.CLAIM_TYPE)


def _start(claims: Mapping[str, Any], places: tuple[Path, ...]) -> Any:
    """Where the chain begins. An `act` beside the chain that the map reads would be an actor that nobody looks at."""
    if places == _ACT:
        return claims.get("act", ABSENT)
    starts = [start for place in {*places, *_ACT} if (start := lookup(claims, (place,))) is not ABSENT]
    if len(starts) > 1:
        raise TokenRefusedError(CredentialDetail.ACTOR)
    return starts[0] if starts else ABSENT


def _with_current(entries: Entries, context: AgentContext | None, subject: str) -> Entries:
    """The chain with the agent in front that carries the transaction on, unless it is there already."""
    if context is None or context.current is None:
        return entries
    first = entries[0].get("sub") if entries else subject
    return entries if context.current == first else ({"sub": context.current}, *entries)


def _hops(context: AgentContext | None, subject: str) -> int:
    """How many agents act for the subject; an agent that is the subject itself does not act for it."""
    if context is None:
        return 0
    return context.hops - 1 if context.names(subject) else context.hops


def _actor(entry: Mapping[str, Any], where: ClaimMap) -> Actor:
    identifier = text_at(entry, (("sub",),))
    if identifier is None:
        raise TokenRefusedError(CredentialDetail.CLAIM_TYPE)
    return Actor(id=identifier, kind=kind_at(entry, where) or "agent", issuer=text_at(entry, (("iss",),)))


def kind_at(claims: Mapping[str, Any], where: ClaimMap) -> Kind | None:
    """The kind that a token states; a word that the map has no meaning for states nothing."""
    stated = text_at(claims, where.kind)
    return None if stated is None else where.kinds.get(stated)


def _check_may_act(claims: Mapping[str, Any], places: tuple[Path, ...], entries: Entries) -> None:
    """The party that acts is the one that the token lets act, where it says which (RFC 8693 section 4.4)."""
    for place in {*places, ("may_act",)}:
        allowed = lookup(claims, (place,))
        if allowed is ABSENT:
            continue
        if not isinstance(allowed, Mapping):
            raise TokenRefusedError(CredentialDetail.CLAIM_TYPE)
        party = _identity(allowed, claims)
        if party["sub"] is None and party["client_id"] is None:
            raise TokenRefusedError(CredentialDetail.CLAIM_TYPE)
        actor = _identity(entries[0], claims) if entries else party
        if any(text is not None and actor[name] != text for name, text in party.items()):
            raise TokenRefusedError(CredentialDetail.ACTOR)


def _identity(entry: Mapping[str, Any], claims: Mapping[str, Any]) -> dict[str, str | None]:
    """The members that identify a party; where no issuer is named, a `sub` is one of the token's own issuer."""
    named = {name: text_at(entry, ((name,),)) for name in ("sub", "iss", "client_id")}
    return {**named, "iss": named["iss"] or claims.get("iss")}


def _held_by_all(
    entries: Entries, places: set[Path], read: Callable[[object], frozenset[str]]
) -> frozenset[str] | None:
    held: frozenset[str] | None = None
    for entry in entries:
        for place in places:
            stated = lookup(entry, (place,))
            if stated is not ABSENT:
                words = read(stated)
                held = words if held is None else held & words
    return held
