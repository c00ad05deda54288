"""How the person behind a token must have authenticated, and what to do when that does not suffice (RFC 9470).

A route or a rule asks for a `StepUp`; the token tells what there was (`acr`, `auth_time`). What it does not tell does
not suffice. Nobody but a person can do more: where none is behind the token, nothing is told that would help.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from authz_middleware.challenge import is_word
from authz_middleware.duration import parse_duration

if TYPE_CHECKING:
    from authz_middleware.identity.principal import Principal

MAX_AGE: Final = 365 * 86_400
MAX_VALUES: Final = 16
MAX_LENGTH: Final = 256
ACR_PATTERN: Final = rf"[!#-\[\]-~]{{1,{MAX_LENGTH}}}"
ACCEPTED_AGE: Final = 'a time of whole seconds from 1s to 365d, with its unit, such as "30s", "5m" or "8h"'

CLOCK_SKEW: Final = 60.0
"""Seconds by which an authentication may lie in the future before it is taken for none."""


class StepUp(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """What is asked of an authentication, and what a client is told to obtain.

    `acr_values` are the authentication context classes of which the token must name one, the preferred first, compared
    character for character; empty where any will do. `max_age` is in whole seconds since the person was last
    authenticated; None where any age will do.
    """

    acr_values: tuple[str, ...] = ()
    max_age: int | None = None


def is_met(step_up: StepUp, principal: Principal, now: float) -> bool:
    """Whether the authentication behind the token suffices at `now`, in seconds since the epoch."""
    if step_up.acr_values and principal.acr not in step_up.acr_values:
        return False
    if step_up.max_age is None:
        return True
    at = principal.authenticated_at
    return at is not None and -CLOCK_SKEW <= now - at <= step_up.max_age


def can_be_met(step_up: StepUp, principal: Principal, now: float) -> bool:
    """Whether it suffices, or a person is there who can authenticate anew. An agent that acts for one can pass that
    on; of a subject whose kind is not known nobody can say so."""
    return principal.subject_kind == "human" or is_met(step_up, principal, now)


def strictest(asked: Iterable[StepUp]) -> StepUp | None:
    """All of these at once: an `acr` that each accepts, at the lowest age. None when no `acr` suits all."""
    accepted: tuple[str, ...] = ()
    youngest: int | None = None
    for each in asked:
        if each.acr_values:
            accepted = tuple(value for value in accepted or each.acr_values if value in each.acr_values)
            if not accepted:
                return None
        if each.max_age is not None:
            youngest = each.max_age if youngest is None else min(youngest, each.max_age)
    return StepUp(accepted, youngest)


def enough_for_one(ways: Sequence[StepUp]) -> StepUp:
    """What leads to one of several ways in, whichever `acr` the client gets: all their values, at the lowest age.

    Ways that ask for more than another one does are left out, and where one asks for no `acr`, all that do.
    """
    fewest = [way for way in ways if not any(_implies(way, other) and not _implies(other, way) for other in ways)]
    easiest = [way for way in fewest if not way.acr_values] or fewest
    values = dict.fromkeys(value for way in easiest for value in way.acr_values)
    return StepUp(tuple(values), min((way.max_age for way in easiest if way.max_age is not None), default=None))


def _implies(one: StepUp, other: StepUp) -> bool:
    """Whether whoever meets the one meets the other."""
    if other.acr_values and not (one.acr_values and set(one.acr_values) <= set(other.acr_values)):
        return False
    return other.max_age is None or (one.max_age is not None and one.max_age <= other.max_age)


def told_to(principal: Principal, route: StepUp | None, ways: Iterable[StepUp]) -> StepUp | None:
    """What a client should obtain to meet the route and one of these ways; None where nobody could."""
    if principal.subject_kind != "human":
        return None
    together = [strictest((way,) if route is None else (route, way)) for way in ways]
    possible = [each for each in together if each is not None]
    return enough_for_one(possible) if possible else None


def parse_max_age(text: object) -> int | None:
    """Whole seconds from a text with a unit (`5m`), or None when it is not one or is out of bounds."""
    seconds = parse_duration(text)
    return int(seconds) if seconds is not None and seconds.is_integer() and 1 <= seconds <= MAX_AGE else None


def find_faults(step_up: StepUp) -> Iterator[str]:
    """Everything that keeps this from being asked of anybody."""
    if not isinstance(step_up, StepUp) or not isinstance(step_up.acr_values, tuple):
        yield "must be a StepUp with a tuple of acr values"  # of one text, each character would be a value
        return
    values, age = step_up.acr_values, step_up.max_age
    if not values and age is None:
        yield "must ask for acr, max_age or both"
    if len(values) > MAX_VALUES or len(set(values)) < len(values):
        yield f"acr must be up to {MAX_VALUES} values, each once"
    for value in values:
        if not isinstance(value, str) or not is_word(value) or len(value) > MAX_LENGTH:
            yield (
                f"acr {str(value)[:60]!r} must be 1 to {MAX_LENGTH} visible ASCII characters without space, quote or "
                "backslash"
            )
    if age is not None and (type(age) is not int or not 1 <= age <= MAX_AGE):
        yield f"max_age must be {ACCEPTED_AGE}"
