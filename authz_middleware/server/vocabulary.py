"""What a policy itself names: the only subjects, resources and actions that a search can look among.

An action counts where a rule names it in full, a subject or a resource where a condition compares its id with a
literal text. Whether what is named is permitted as well is for the engine to say, candidate by candidate.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from authz_middleware.permission import ACTION_NAME
from authz_middleware.policy.model import AllOf, AnyOf, Condition, Equals, Match, Not, OneOf, Rule
from authz_middleware.resource import is_clear_id

_ACTION: Final = "action.name"
_RESOURCE: Final = "resource.id"
_SUBJECT: Final = "subject.id"


class Vocabulary(msgspec.Struct, frozen=True):
    """The candidates of each kind of search, sorted, each once, and all of them such as could be asked about."""

    subjects: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()


def vocabulary_of(rules: Iterable[Rule]) -> Vocabulary:
    """The vocabulary of these rules, permits and denies alike."""
    named: dict[str, set[str]] = {_SUBJECT: set(), _RESOURCE: set(), _ACTION: set()}
    for rule in rules:
        named[_ACTION].update(rule.actions)
        for match in _matches(rule.condition):
            if match.input in named:
                named[match.input].update(_literals(match))
    return Vocabulary(
        subjects=tuple(sorted(filter(is_clear_id, named[_SUBJECT]))),
        resources=tuple(sorted(filter(is_clear_id, named[_RESOURCE]))),
        actions=tuple(sorted(filter(ACTION_NAME.fullmatch, named[_ACTION]))),
    )


def _matches(condition: Condition) -> Iterator[Match]:
    if isinstance(condition, Match):
        yield condition
    elif isinstance(condition, AllOf | AnyOf):
        for part in condition.parts:
            yield from _matches(part)
    elif isinstance(condition, Not):
        yield from _matches(condition.part)


def _literals(match: Match) -> Iterator[str]:
    matcher = match.matcher
    values = (matcher.value,) if isinstance(matcher, Equals) else matcher.values if isinstance(matcher, OneOf) else ()
    return (value for value in values if isinstance(value, str))
