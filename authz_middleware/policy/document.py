"""Reads a policy document (YAML) into a `Policy`.

Every problem is reported at once, with its file and line: those of the shape, found here, and those of the meaning,
found by `check`. A document with any problem gives no policy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from authz_middleware.duration import parse_duration
from authz_middleware.errors import PolicyError, Problem
from authz_middleware.policy.authentication import read_authentication
from authz_middleware.policy.check import find_problems
from authz_middleware.policy.conditions import ALWAYS, read_condition
from authz_middleware.policy.inputs import source_of
from authz_middleware.policy.memory import give_back
from authz_middleware.policy.model import (
    EFFECTS,
    INPUT_SOURCES,
    Always,
    Condition,
    Effect,
    InputDeclaration,
    Policy,
    PolicyTest,
    Rule,
)
from authz_middleware.policy.nodes import MAX_CHARACTERS, Node, read_nodes
from authz_middleware.policy.reading import Reading
from authz_middleware.policy.times import parse_instant
from authz_middleware.policy.wording import shown

MAX_BYTES: Final = 4 * MAX_CHARACTERS
POLICY_KEYS: Final = ("policy", "owner")
OPTIONAL_POLICY_KEYS: Final = ("inputs", "labels", "rules", "degrade", "tests")
RULE_KEYS: Final = ("permit", "deny", "sensitive", "authentication", "when", "owner")
INPUT_KEYS: Final = ("max_age", "labels")
TEST_KEYS: Final = ("name", "at", "action", "expect")
OPTIONAL_TEST_KEYS: Final = ("subject", "resource", "context", "rule", "reason")
RESOURCE_KEYS: Final = ("type", "id", "properties", "as_of")


def read_policy(path: Path) -> Policy:
    """Read a policy file. Raises PolicyError when it cannot be read or is not a policy without problems."""
    return parse_policy(decode_policy(load_bytes(path), path.name), path.name)


def load_bytes(path: Path) -> bytes:
    """The bytes of a policy file, bounded. Raises PolicyError."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise PolicyError([Problem(str(path), f"cannot be read: {error.strerror or 'unknown reason'}")]) from None
    if len(data) > MAX_BYTES:
        raise PolicyError([Problem(str(path), f"is larger than {MAX_BYTES} bytes")])
    return data


def decode_policy(data: bytes, name: str) -> str:
    """The text of a policy file, which is UTF-8. Raises PolicyError with the line of the first other byte."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise PolicyError([Problem(f"{name}:{line}", "is not UTF-8 text")]) from None


def parse_policy(text: str, name: str) -> Policy:
    """Parse a policy document; `name` is what problems call the file. Raises PolicyError with every problem found."""
    tree = read_nodes(text, name)
    problems = tree.problems
    if tree.root is None:
        raise PolicyError(problems)
    policy = _Document(Reading(name, problems)).read(tree.root, name)
    # What could be read is checked for its meaning too, so that an author sees all mistakes in one run.
    problems.extend(find_problems(policy))
    _give_back_rules(tree.root)
    if problems:
        raise PolicyError(sorted(dict.fromkeys(problems), key=_line))
    return policy


def _give_back_rules(root: Node) -> None:
    rules = root.value.get("rules") if isinstance(root.value, dict) else None
    if rules is not None and isinstance(rules.value, list):
        give_back(rules.value)


def _line(problem: Problem) -> int:
    line = problem.where.rpartition(":")[2]
    return int(line) if line.isdecimal() else 0


class _Document:
    def __init__(self, reading: Reading) -> None:
        self._reading = reading

    def read(self, root: Node, file: str) -> Policy:
        reading = self._reading
        entries = reading.fields(root, "a policy", POLICY_KEYS, OPTIONAL_POLICY_KEYS)
        labels, degrade = self._mapping(entries, "labels"), self._mapping(entries, "degrade")
        # A missing name is reported once, as a missing key, and not again as a name that is empty.
        return Policy(
            name=reading.text(entries.get("policy"), "'policy'") or "?",
            owner=reading.text(entries.get("owner"), "'owner'") or "?",
            inputs=tuple(self._input(name, node) for name, node in self._mapping(entries, "inputs")),
            labels={name: reading.texts(node, f"labels {shown(name)}") for name, node in labels},
            rules=self._rules(entries.get("rules"), "'rules'", sensitive=True),
            degrade={name: self._rules(node, f"degrade {shown(name)}", sensitive=False) for name, node in degrade},
            tests=tuple(self._test(node) for node in self._list(entries.get("tests"), "'tests'")),
            file=file,
            lines={
                **{key: node.line for key, node in entries.items()},
                **{f"labels.{name}": node.key_line for name, node in labels},
                **{f"degrade.{name}": node.key_line for name, node in degrade},
            },
        )

    def _mapping(self, entries: Mapping[str, Node], key: str) -> list[tuple[str, Node]]:
        return list(self._reading.mapping(entries[key], f"'{key}'").items()) if key in entries else []

    def _list(self, node: Node | None, label: str) -> list[Node]:
        return [] if node is None else self._reading.items(node, label)

    def _input(self, name: str, node: Node) -> InputDeclaration:
        reading, label = self._reading, f"input {shown(name)}"
        entries = reading.fields(node, label, ("from",), INPUT_KEYS)
        source: Any = reading.choice(entries.get("from"), f"{label}: 'from'", INPUT_SOURCES)
        return InputDeclaration(
            name=name,
            source=source or _source_guess(name),
            max_age=self._duration(entries.get("max_age"), f"{label}: 'max_age'"),
            labels=reading.text(entries.get("labels"), f"{label}: 'labels'"),
            line=node.key_line,
        )

    def _duration(self, node: Node | None, label: str) -> float | None:
        accepted = 'a time with its unit, such as "30s", "15m", "8h" or "1d"'
        return self._parsed(node, label, parse_duration, accepted)

    def _instant(self, node: Node | None, label: str) -> float | None:
        accepted = "a date and time with its offset, such as 2026-03-02T09:00:00+01:00 or 2026-03-02T08:00:00Z"
        return self._parsed(node, label, parse_instant, accepted)

    def _parsed(
        self, node: Node | None, label: str, parse: Callable[[str], float | None], accepted: str
    ) -> float | None:
        if node is None:
            return None
        number = parse(node.value) if isinstance(node.value, str) else None
        if number is None:
            self._reading.problem(node.line, f"{label} must be {accepted}, not {shown(node.plain)}")
        return number

    def _rules(self, node: Node | None, label: str, *, sensitive: bool) -> tuple[Rule, ...]:
        found = (self._rule(item, may_be_sensitive=sensitive) for item in self._list(node, label))
        return tuple(rule for rule in found if rule is not None)

    def _rule(self, node: Node, *, may_be_sensitive: bool) -> Rule | None:
        reading = self._reading
        title = node.value.get("rule") if isinstance(node.value, dict) else None
        label = "a rule" if title is None else f"rule {shown(title.value)}"
        entries = reading.fields(node, label, ("rule",), RULE_KEYS)
        effect = self._effect(node, entries, label)
        condition = self._condition(node, entries, label)
        sensitive = reading.flag(entries.get("sensitive"), f"{label}: 'sensitive'")
        if sensitive is not None and not may_be_sensitive:
            what = "'sensitive' means nothing in a degrade rule set, for when the decision point does not answer"
            reading.problem(entries["sensitive"].key_line, f"{label}: {what}")
            sensitive = False
        name = reading.text(entries.get("rule"), "'rule'")
        if name is None:
            return None
        # What could not be read has been reported; a stand-in keeps the rule's name known to the rest of the checks.
        return Rule(
            name=name,
            effect=effect or "deny",
            actions=self._actions(entries[effect], f"{label}: '{effect}'") if effect else ("*",),
            condition=condition or Always(),
            sensitive=sensitive or False,
            owner=reading.text(entries.get("owner"), f"{label}: 'owner'"),
            authentication=read_authentication(entries.get("authentication"), reading, label),
            line=entries["rule"].key_line,
        )

    def _effect(self, node: Node, entries: Mapping[str, Node], label: str) -> Effect | None:
        given: list[Effect] = [effect for effect in EFFECTS if effect in entries]
        if len(given) != 1 and isinstance(node.value, dict):
            self._reading.problem(node.line, f"{label} must have exactly one of 'permit' and 'deny'")
        return given[0] if given else None

    def _condition(self, node: Node, entries: Mapping[str, Node], label: str) -> Condition | None:
        if "when" in entries:
            return read_condition(entries["when"], self._reading, label)
        if "permit" in entries:
            self._reading.problem(node.line, f"{label} needs the key 'when'; 'when: {ALWAYS}' permits everybody")
        return None

    def _actions(self, node: Node, label: str) -> tuple[str, ...]:
        if isinstance(node.value, list):
            return self._reading.texts(node, label)
        action = self._reading.text(node, label)
        return ("*",) if action is None else (action,)

    def _test(self, node: Node) -> PolicyTest:
        reading = self._reading
        entries = reading.fields(node, "a test", TEST_KEYS, OPTIONAL_TEST_KEYS)
        name = reading.text(entries.get("name"), "a test's 'name'") or "?"
        label = f"test {shown(name)}"
        expect: Any = reading.choice(entries.get("expect"), f"{label}: 'expect'", EFFECTS)
        empty = Node({}, node.line)
        resource = reading.fields(entries.get("resource", empty), f"{label}: 'resource'", (), RESOURCE_KEYS)
        properties = resource.get("properties")
        return PolicyTest(
            name=name,
            at=self._instant(entries.get("at"), f"{label}: 'at'") or 0.0,
            action=reading.text(entries.get("action"), f"{label}: 'action'") or "unknown",
            expect=expect or "deny",
            subject=self._values(entries.get("subject", empty), f"{label}: 'subject'"),
            resource_type=reading.text(resource.get("type"), f"{label}: resource 'type'") or "resource",
            resource_id=reading.text(resource.get("id"), f"{label}: resource 'id'") or "any",
            properties=None if properties is None else self._values(properties, f"{label}: 'properties'"),
            as_of=self._instant(resource.get("as_of"), f"{label}: resource 'as_of'"),
            context=self._values(entries.get("context", empty), f"{label}: 'context'"),
            rule=reading.text(entries.get("rule"), f"{label}: 'rule'"),
            reason=reading.text(entries.get("reason"), f"{label}: 'reason'"),
            line=entries["name"].key_line if "name" in entries else node.line,
        )

    def _values(self, node: Node, label: str) -> Mapping[str, Any]:
        return {key: child.plain for key, child in self._reading.mapping(node, label).items()}


def _source_guess(name: str) -> Any:
    """A source that fits the name, so that a missing `from` is one problem and not two."""
    return source_of(name) or "token"
