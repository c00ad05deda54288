"""Checks one matcher against the input it is put on: that the operand is well formed, and that it can ever hold."""

from __future__ import annotations

import math
import zoneinfo
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from authz_middleware.policy.inputs import BUILT_IN, Input, InputType, source_of
from authz_middleware.policy.matchers import scalar_type
from authz_middleware.policy.model import (
    AtLeast,
    AtMost,
    Between,
    Equals,
    Exists,
    Has,
    HasAll,
    HasAny,
    InputRef,
    Match,
    Matcher,
    OneOf,
    SameAs,
    StartsWith,
)
from authz_middleware.policy.times import DAYS, find_zone, parse_clock
from authz_middleware.policy.wording import instead_of, listed, shown

_FITTING: Final[Mapping[InputType, tuple[type[Matcher], ...]]] = {
    InputType.TEXT: (Equals, OneOf, SameAs, StartsWith, AtMost, AtLeast, Exists),
    InputType.NAMES: (Has, HasAny, HasAll, Exists),
    InputType.FLAG: (Equals, SameAs, Exists),
    InputType.TIME: (Between,),
    InputType.UNKNOWN: (Equals, OneOf, Has, HasAny, HasAll, AtMost, AtLeast, SameAs, StartsWith, Exists),
}
_SCALAR_OF: Final = {InputType.TEXT: "text", InputType.NAMES: "text", InputType.FLAG: "true or false"}


def word_of(matcher: type[Matcher]) -> str:
    """The word an author writes for a matcher."""
    return str(matcher.__struct_config__.tag)


class MatcherCheck:
    """Checks matchers against the inputs that a policy knows."""

    def __init__(self, inputs: Mapping[str, Input]) -> None:
        self._inputs = inputs
        self._operand_checks: Mapping[type[Matcher], Callable[[Input, Any], Iterable[str]]] = {
            Equals: self._check_value,
            OneOf: self._check_values,
            Has: self._check_value,
            HasAny: self._check_values,
            HasAll: self._check_values,
            AtMost: self._check_bound,
            AtLeast: self._check_bound,
            SameAs: self._check_same_as,
            StartsWith: self._check_prefix,
            Exists: self._check_exists,
            Between: self._check_window,
        }

    def find_problems(self, match: Match) -> Iterator[str]:
        """What is wrong with one condition."""
        source = self._inputs.get(match.input)
        if source is None:
            yield self._unknown(match.input)
            return
        fitting = _FITTING[source.type]
        if type(match.matcher) not in fitting:
            word = word_of(type(match.matcher)) if isinstance(match.matcher, Matcher) else shown(match.matcher)
            accepted = listed(word_of(each) for each in fitting)
            yield f"{match.input} is {source.type.value} and cannot be matched with '{word}'; accepted: {accepted}"
            return
        for what in self._operand_checks[type(match.matcher)](source, match.matcher):
            yield f"{match.input}: {what}"

    def _unknown(self, name: object) -> str:
        accepted = instead_of(name, sorted(self._inputs))
        source = source_of(name) if isinstance(name, str) else None
        if source is None:
            return f"there is no input {shown(name)}; {accepted}"
        return f"input {shown(name)} is not declared; add '{name}: {{from: {source}}}' under inputs, or: {accepted}"

    def _check_value(self, source: Input, matcher: Equals | Has) -> Iterator[str]:
        yield from self._values(source, matcher, (matcher.value,))

    def _check_values(self, source: Input, matcher: OneOf | HasAny | HasAll) -> Iterator[str]:
        yield from self._values(source, matcher, matcher.values)

    def _values(self, source: Input, matcher: Matcher, values: tuple[Any, ...]) -> Iterator[str]:
        word, types = word_of(type(matcher)), {_literal_type(value) for value in values}
        if len(types) != 1 or None in types:
            yield (
                f"'{word}' must compare with text, numbers or true/false, all of one type, not "
                f"{shown(values[0] if len(values) == 1 else list(values))}"
            )
            return
        wanted = _SCALAR_OF.get(source.type)
        if wanted not in (None, *types):
            yield f"is {wanted}, never {shown(values[0])}"
            return
        accepted = _choices(source)
        for value in values:
            if accepted and value not in accepted:
                yield f"is never {shown(value)}; {instead_of(value, accepted)}"

    def _check_bound(self, source: Input, matcher: AtMost | AtLeast) -> Iterator[str]:
        word, bound = word_of(type(matcher)), matcher.bound
        if isinstance(bound, InputRef):
            yield from self._check_bound_input(source, word, bound.name)
        elif source.ranks is not None:
            if not isinstance(bound, str) or bound not in source.ranks:
                yield f"'{word}' must be a label, not {shown(bound)}; {instead_of(bound, source.ranks)}"
        elif isinstance(bound, str):
            yield f"'{word}: {bound}' compares labels; give the input its 'labels:' set under inputs"
        elif source.type is InputType.TEXT:
            yield f"is text, and '{word}' orders numbers; for labels, give the input its 'labels:' set under inputs"
        elif _literal_type(bound) != "number":
            yield f"'{word}' must be a finite number, a label or {{input: name}}, not {shown(bound)}"

    def _check_bound_input(self, source: Input, word: str, name: str) -> Iterator[str]:
        other = self._inputs.get(name)
        if other is None:
            yield self._unknown(name)
        elif AtMost not in _FITTING[other.type]:
            yield f"'{word}' cannot compare with {name}, which is {other.type.value}"
        elif source.ranks is not None and other.ranks is not None and source.ranks != other.ranks:
            yield f"'{word}' compares two different label sets: that of {source.name} and that of {name}"
        elif source.ranks is None and other.ranks is None and InputType.TEXT in (source.type, other.type):
            yield f"'{word}' cannot order text; give {source.name} or {name} its 'labels:' set under inputs"

    def _check_same_as(self, source: Input, matcher: SameAs) -> Iterator[str]:
        other = self._inputs.get(matcher.input)
        if other is None:
            yield self._unknown(matcher.input)
        elif other.name == source.name:
            yield "'same_as' compares the input with itself"
        elif SameAs not in _FITTING[other.type] or {source.type, other.type} == {InputType.TEXT, InputType.FLAG}:
            yield f"'same_as' never holds: {other.name} is {other.type.value}"

    def _check_prefix(self, source: Input, matcher: StartsWith) -> Iterator[str]:  # noqa: ARG002 - one shape for all
        if not isinstance(matcher.prefix, str) or not matcher.prefix:
            yield f"'starts_with' must be a text that is not empty, not {shown(matcher.prefix)}"

    def _check_exists(self, source: Input, matcher: Exists) -> Iterator[str]:  # noqa: ARG002 - one shape for all
        if not isinstance(matcher.wanted, bool):
            yield f"'exists' must be true or false, not {shown(matcher.wanted)}"

    def _check_window(self, source: Input, matcher: Between) -> Iterator[str]:  # noqa: ARG002 - one shape for all
        clocks = [parse_clock(text) if isinstance(text, str) else None for text in (matcher.start, matcher.end)]
        for text, clock in zip((matcher.start, matcher.end), clocks, strict=True):
            if clock is None:
                yield f'\'between\' has {shown(text)}; a time is written "08:00" or "08:00:30", up to "24:00"'
        if clocks[0] is not None and clocks[0] == clocks[1]:
            yield '\'between\' starts and ends at the same time; for a whole day write ["00:00", "24:00"]'
        if clocks[0] is not None and clocks[0] >= 86_400:
            yield '\'between\' cannot start at "24:00"; write "00:00"'
        if not isinstance(matcher.zone, str) or find_zone(matcher.zone) is None:
            yield f"'zone' {shown(matcher.zone)} is not known; {_zones_like(matcher.zone)}"
        for day in matcher.days:
            if day not in DAYS:
                yield f"'days' has {shown(day)}; {instead_of(day, DAYS)}"
        if len(set(matcher.days)) < len(matcher.days):
            yield "'days' gives a day twice"


def _literal_type(value: object) -> str | None:
    """The type of an operand: like that of a value, but finite and of YAML's own types."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return scalar_type(value) if isinstance(value, str | bool | int | float) else None


def _choices(source: Input) -> tuple[str, ...]:
    """The only values that an input can have, where they are known."""
    built_in = BUILT_IN.get(source.name)
    return tuple(source.ranks) if source.ranks is not None else built_in.choices if built_in is not None else ()


def _zones_like(name: object) -> str:
    """Reads the whole zone database, which is why it waits for a mistake."""
    close = instead_of(name, sorted(zoneinfo.available_timezones())).partition(" accepted:")[0]
    hint = f"{close} " if close.startswith("did you") else ""
    return f"{hint}accepted: IANA names such as 'Europe/Berlin' or 'UTC'"
