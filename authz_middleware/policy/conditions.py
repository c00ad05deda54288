"""Reads the `when:` of a rule into a condition.

A mapping of inputs to matchers holds when all of them do; `any:` and `all:` take a list of such mappings, `not:` one.
The same three words nest the matchers of one input. A bare value is short for `equals`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from authz_middleware.policy.model import (
    AllOf,
    Always,
    AnyOf,
    AtLeast,
    AtMost,
    Between,
    Condition,
    Equals,
    Exists,
    Has,
    HasAll,
    HasAny,
    InputRef,
    Match,
    Matcher,
    Not,
    OneOf,
    SameAs,
    StartsWith,
)
from authz_middleware.policy.nodes import Node
from authz_middleware.policy.reading import Reading
from authz_middleware.policy.wording import instead_of, shown

ALWAYS: Final = "always"
NESTS: Final = ("all", "any", "not")
MATCHERS: Final = (
    "equals",
    "in",
    "has",
    "has_any",
    "has_all",
    "at_most",
    "at_least",
    "same_as",
    "starts_with",
    "exists",
    "between",
    "outside",
)
WINDOW_DETAILS: Final = ("zone", "days")

_Parse = Callable[[Node], Condition | None]


def read_condition(node: Node, reading: Reading, label: str) -> Condition | None:
    """The condition of a `when:`, as far as it could be read; None when nothing of it could."""
    return _When(reading, label).read(node)


class _When:
    def __init__(self, reading: Reading, label: str) -> None:
        self._reading = reading
        self._label = label
        self._readers: Mapping[str, Callable[[Node], Matcher | None]] = {
            "equals": self._scalar(Equals),
            "in": self._scalars(OneOf),
            "has": self._scalar(Has),
            "has_any": self._scalars(HasAny),
            "has_all": self._scalars(HasAll),
            "at_most": self._bound(AtMost),
            "at_least": self._bound(AtLeast),
            "same_as": self._text(SameAs),
            "starts_with": self._text(StartsWith),
            "exists": self._exists,
        }

    def read(self, node: Node) -> Condition | None:
        if node.value == ALWAYS:
            return Always()
        if not isinstance(node.value, dict) or not node.value:
            accepted = "a mapping of inputs to matchers, or 'always' for a rule without conditions"
            self._reading.problem(node.line, f"{self._label}: 'when' must be {accepted}")
            return None
        return self._all(node, self._entry)

    def _entry(self, key: str, node: Node) -> Condition | None:
        if key in NESTS:
            return self._nest(key, node, self.read)
        return self._input(key, node)

    def _input(self, name: str, node: Node) -> Condition | None:
        if isinstance(node.value, str | bool | int | float):
            return Match(name, Equals(node.value), node.line)
        if not isinstance(node.value, dict) or not node.value:
            what = f"{name} must be a value or a matcher; {instead_of('', (*MATCHERS, *NESTS))}"
            self._reading.problem(node.line, f"{self._label}: {what}")
            return None
        return self._all(node, lambda word, child: self._matcher(name, word, child, node))

    def _matcher(self, name: str, word: str, node: Node, parent: Node) -> Condition | None:
        if word in NESTS:
            return self._nest(word, node, lambda child: self._input(name, child))
        if word in WINDOW_DETAILS and "between" in parent.value:
            return None
        if word == "between":
            window = self._window(parent.value, parent.line)
            return None if window is None else Match(name, window, node.line)
        if word == "outside":
            return self._outside(name, node)
        if word not in self._readers:
            accepted = instead_of(word, (*MATCHERS, *NESTS))
            self._reading.problem(node.key_line, f"{self._label}: {name} has no matcher {shown(word)}; {accepted}")
            return None
        matcher = self._readers[word](node)
        return None if matcher is None else Match(name, matcher, node.line)

    def _all(self, node: Node, read: Callable[[str, Node], Condition | None]) -> Condition | None:
        found = _found(read(key, child) for key, child in node.value.items())
        if len(found) == 1:
            return found[0]
        return AllOf(found) if found else None

    def _nest(self, word: str, node: Node, read: _Parse) -> Condition | None:
        if word == "not":
            part = read(node)
            return None if part is None else Not(part)
        items = self._reading.items(node, f"{self._label}: '{word}'")
        if not items and isinstance(node.value, list):
            self._reading.problem(node.line, f"{self._label}: '{word}' must not be an empty list")
        parts = _found(map(read, items))
        if not parts:
            return None
        return AllOf(parts) if word == "all" else AnyOf(parts)

    def _outside(self, name: str, node: Node) -> Condition | None:
        entries = self._reading.fields(node, f"{self._label}: 'outside'", ("between", "zone"), ("days",))
        window = self._window(entries, node.line) if "between" in entries else None
        return None if window is None else Not(Match(name, window, node.line))

    def _window(self, entries: Mapping[str, Node], line: int) -> Between | None:
        label = f"{self._label}: 'between'"
        ends = self._reading.texts(entries["between"], label)
        if len(ends) != 2:
            self._reading.problem(entries["between"].line, f'{label} must be two times, such as ["08:00", "18:00"]')
        zone = self._reading.text(entries.get("zone"), f"{self._label}: 'zone'")
        if "zone" not in entries:
            self._reading.problem(line, f"{label} needs a 'zone', an IANA name such as 'Europe/Berlin' or 'UTC'")
        days = self._reading.texts(entries["days"], f"{self._label}: 'days'") if "days" in entries else ()
        return Between(ends[0], ends[1], zone, days) if len(ends) == 2 and zone is not None else None

    def _scalar(self, build: Callable[[Any], Matcher]) -> Callable[[Node], Matcher | None]:
        def read(node: Node) -> Matcher | None:
            value = self._reading.scalar(node, f"{self._label}: a compared value")
            return None if value is None else build(value)

        return read

    def _scalars(self, build: Callable[[tuple[Any, ...]], Matcher]) -> Callable[[Node], Matcher | None]:
        def read(node: Node) -> Matcher | None:
            label = f"{self._label}: compared values"
            values = tuple(self._reading.scalar(item, label) for item in self._reading.items(node, label))
            if not values and isinstance(node.value, list):
                self._reading.problem(node.line, f"{label} must not be an empty list")
            return build(values) if values and None not in values else None

        return read

    def _bound(self, build: Callable[[Any], Matcher]) -> Callable[[Node], Matcher | None]:
        def read(node: Node) -> Matcher | None:
            if isinstance(node.value, dict):
                entries = self._reading.fields(node, f"{self._label}: a bound", ("input",))
                name = self._reading.text(entries.get("input"), f"{self._label}: 'input'")
                return None if name is None else build(InputRef(name))
            value = self._reading.scalar(node, f"{self._label}: a bound")
            return None if value is None else build(value)

        return read

    def _text(self, build: Callable[[str], Matcher]) -> Callable[[Node], Matcher | None]:
        def read(node: Node) -> Matcher | None:
            text = self._reading.text(node, f"{self._label}: a compared value")
            return None if text is None else build(text)

        return read

    def _exists(self, node: Node) -> Matcher | None:
        wanted = self._reading.flag(node, f"{self._label}: 'exists'")
        return None if wanted is None else Exists(wanted)


def _found(parts: Iterable[Condition | None]) -> tuple[Condition, ...]:
    return tuple(part for part in parts if part is not None)
