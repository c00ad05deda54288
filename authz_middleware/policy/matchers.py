"""Matchers as closures over a question.

Types are strict: a bool is never a number, "5" is never 5, NaN equals and orders nothing, a text is not a collection of
characters. A value of the wrong type cannot be told about (None), so that `not` does not turn it into a permit.
Whatever an application's object raises while it is looked at cannot be told either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import Any, Final, Literal

from authz_middleware.policy.inputs import Input, InputType, Reader
from authz_middleware.policy.logic import Test
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
    Matcher,
    OneOf,
    SameAs,
    StartsWith,
)
from authz_middleware.policy.times import DAYS, daily_window, find_zone, parse_clock
from authz_middleware.question import Question

Match = Callable[[Any], bool | None]
Find = Callable[[str], Input]
ScalarType = Literal["text", "number", "true or false"]


def scalar_type(value: object) -> ScalarType | None:
    """What a value is to a matcher; None for everything that no matcher compares, NaN included."""
    if isinstance(value, str):
        return "text"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float | Decimal):
        return "number" if value == value else None  # NaN is what does not equal itself
    return None


def compile_matcher(source: Input, matcher: Matcher, find: Find) -> Test:
    """The test of one matcher on one input. `find` gives the other inputs that the matcher names.

    Both have been checked: `find` knows every name, and the operand fits the input.
    """
    return _BUILDERS[type(matcher)](source, matcher, find)


def _equals(source: Input, matcher: Equals, find: Find) -> Test:  # noqa: ARG001 - one shape for all
    value = matcher.value
    if _is_plain(source, InputType.TEXT) and isinstance(value, str):
        return _text_equals(source.read, value)
    return _guarded(source.value_reader(), lambda found: _same(found, value))


def _one_of(source: Input, matcher: OneOf, find: Find) -> Test:  # noqa: ARG001 - one shape for all
    values = matcher.values
    if not isinstance(values[0], str):
        return _guarded(source.value_reader(), lambda found: _any_same(values, found))
    texts = frozenset(values)
    if _is_plain(source, InputType.TEXT):
        return _text_in(source.read, texts)
    return _guarded(source.value_reader(), lambda found: found in texts if isinstance(found, str) else None)


def _has(source: Input, matcher: Has, find: Find) -> Test:  # noqa: ARG001 - one shape for all
    value = matcher.value
    if _is_plain(source, InputType.NAMES):
        return _scope_held(value) if source.name == "subject.scopes" else _names_contain(source.read, value)
    return _guarded(_collection_reader(source), lambda found: _any_same(found, value))


def _has_any(source: Input, matcher: HasAny, find: Find) -> Test:  # noqa: ARG001 - one shape for all
    values = matcher.values
    if _is_plain(source, InputType.NAMES):
        return _names_overlap(source.read, frozenset(values))
    return _guarded(_collection_reader(source), lambda found: _kleene_any(_any_same(found, value) for value in values))


def _has_all(source: Input, matcher: HasAll, find: Find) -> Test:  # noqa: ARG001 - one shape for all
    values = matcher.values
    if _is_plain(source, InputType.NAMES):
        return _names_include(source.read, frozenset(values))
    return _guarded(_collection_reader(source), lambda found: _kleene_all(_any_same(found, value) for value in values))


def _at_most(source: Input, matcher: AtMost, find: Find) -> Test:
    return _ordered(source, matcher.bound, find, lambda found, bound: bool(found <= bound))


def _at_least(source: Input, matcher: AtLeast, find: Find) -> Test:
    return _ordered(source, matcher.bound, find, lambda found, bound: bool(found >= bound))


def _same_as(source: Input, matcher: SameAs, find: Find) -> Test:
    return _guarded_pair(source.value_reader(), find(matcher.input).value_reader(), _same)


def _starts_with(source: Input, matcher: StartsWith, find: Find) -> Test:  # noqa: ARG001 - one shape for all
    prefix = matcher.prefix
    return _guarded(source.value_reader(), lambda found: found.startswith(prefix) if isinstance(found, str) else None)


def _exists(source: Input, matcher: Exists, find: Find) -> Test:  # noqa: ARG001 - one shape for all
    wanted, is_fresh, is_attribute = matcher.wanted, source.is_fresh, source.is_attribute
    is_missing = source.is_missing

    def test(question: Question) -> bool | None:
        # An attribute is known to be absent only where somebody has looked, and recently enough.
        if is_attribute and question.resource.attributes is None:
            return None
        try:
            if is_fresh is not None and not is_fresh(question):
                return None
        except Exception:  # noqa: BLE001 - `as_of` is given by the application
            return None
        return is_missing(question) is not wanted

    return test


def _between(source: Input, matcher: Between, find: Find) -> Test:  # noqa: ARG001 - one shape for all
    start, end, zone = parse_clock(matcher.start), parse_clock(matcher.end), find_zone(matcher.zone)
    assert start is not None
    assert end is not None
    assert zone is not None
    days = frozenset(DAYS.index(day) for day in matcher.days or DAYS)
    return _guarded(source.value_reader(), daily_window(start, end, days, zone))


_BUILDERS: Final[Mapping[type[Matcher], Callable[[Input, Any, Find], Test]]] = {
    Equals: _equals,
    OneOf: _one_of,
    Has: _has,
    HasAny: _has_any,
    HasAll: _has_all,
    AtMost: _at_most,
    AtLeast: _at_least,
    SameAs: _same_as,
    StartsWith: _starts_with,
    Exists: _exists,
    Between: _between,
}


# The library's own fields hold exactly the types they declare, so the commonest tests need no guard: after the check of
# the class nothing in them can raise.


def _is_plain(source: Input, type_: InputType) -> bool:
    return source.type is type_ and source.is_fresh is None and source.ranks is None


def _text_equals(read: Reader, text: str) -> Test:
    def test(question: Question) -> bool | None:
        found = read(question)
        return found == text if found.__class__ is str else None

    return test


def _text_in(read: Reader, texts: frozenset[Any]) -> Test:
    def test(question: Question) -> bool | None:
        found = read(question)
        return found in texts if found.__class__ is str else None

    return test


def _scope_held(scope: object) -> Test:
    """`_names_contain` for the scopes, which nearly every rule asks for, without the call of a reader."""

    def test(question: Question) -> bool | None:
        found = question.principal.scopes
        return scope in found if found.__class__ is frozenset and found else None

    return test


def _names_contain(read: Reader, name: object) -> Test:
    def test(question: Question) -> bool | None:
        found = read(question)
        return name in found if found.__class__ is frozenset and found else None

    return test


def _names_overlap(read: Reader, names: frozenset[Any]) -> Test:
    def test(question: Question) -> bool | None:
        found = read(question)
        return not names.isdisjoint(found) if found.__class__ is frozenset and found else None

    return test


def _names_include(read: Reader, names: frozenset[Any]) -> Test:
    def test(question: Question) -> bool | None:
        found = read(question)
        return names <= found if found.__class__ is frozenset and found else None

    return test


# Everything else may meet any object at all.


def _guarded(read: Reader, match: Match) -> Test:
    def test(question: Question) -> bool | None:
        try:
            found = read(question)
            return None if found is None else match(found)
        except Exception:  # noqa: BLE001 - attributes are objects of the application and may raise anything
            return None

    return test


def _guarded_pair(read: Reader, read_other: Reader, match: Callable[[Any, Any], bool | None]) -> Test:
    def test(question: Question) -> bool | None:
        try:
            found, other = read(question), read_other(question)
            return None if found is None or other is None else match(found, other)
        except Exception:  # noqa: BLE001 - attributes are objects of the application and may raise anything
            return None

    return test


def _collection_reader(source: Input) -> Reader:
    """A reader that answers None for what is not a collection, and for an empty set of a token's names."""
    read, may_be_empty = source.value_reader(), source.type is not InputType.NAMES

    def read_collection(question: Question) -> Any:
        found = read(question)
        if isinstance(found, list | tuple | set | frozenset) and (found or may_be_empty):
            return found
        return None

    return read_collection


def _ordered(source: Input, bound: object, find: Find, compare: Callable[[Any, Any], bool]) -> Test:
    """The test `value compare bound`, both numbers, or both labels of the set that orders one of the two."""
    other = find(bound.name) if isinstance(bound, InputRef) else None
    ranks = source.ranks or (other.ranks if other is not None else None)

    def match(found: Any, limit: Any) -> bool | None:
        if ranks is not None:
            rank, top = _rank(found, ranks), _rank(limit, ranks)
            return None if rank is None or top is None else compare(rank, top)
        if scalar_type(found) != "number" or scalar_type(limit) != "number":
            return None
        return compare(*_aligned(found, limit))

    if other is not None:
        return _guarded_pair(source.value_reader(), other.value_reader(), match)
    return _guarded(source.value_reader(), lambda found: match(found, bound))


def _rank(label: object, ranks: Mapping[str, int]) -> int | None:
    return ranks.get(label) if isinstance(label, str) else None


def _same(one: Any, other: Any) -> bool | None:
    """Strict equality of two scalars; None unless both are of one type."""
    kind = scalar_type(one)
    if kind is None or kind != scalar_type(other):
        return None
    if kind == "number":
        one, other = _aligned(one, other)
    return bool(one == other)


def _aligned(one: Any, other: Any) -> tuple[Any, Any]:
    """Two numbers, a float beside a Decimal taken for the digits it is written with: 0.1 is Decimal("0.1")."""
    if isinstance(one, Decimal) and isinstance(other, float):
        return one, Decimal(repr(float(other)))
    if isinstance(other, Decimal) and isinstance(one, float):
        return Decimal(repr(float(one))), other
    return one, other


def _any_same(found: Iterable[Any], value: Any) -> bool | None:
    return _kleene_any(_same(item, value) for item in found)


def _kleene_any(answers: Iterable[bool | None]) -> bool | None:
    unsure = False
    for answer in answers:
        if answer:
            return True
        unsure = unsure or answer is None
    return None if unsure else False


def _kleene_all(answers: Iterable[bool | None]) -> bool | None:
    unsure = False
    for answer in answers:
        if answer is False:
            return False
        unsure = unsure or answer is None
    return None if unsure else True
