"""Finds everything that is wrong with a policy, all at once.

A policy read from a file and one built in memory go through the same checks; the compiler relies on them. What cannot
mean anything, or can never hold, is refused: a rule that silently never applies is the worst kind of mistake.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from typing import Final

from authz_middleware.errors import Problem
from authz_middleware.policy.check_matchers import MatcherCheck
from authz_middleware.policy.check_tests import TestCheck
from authz_middleware.policy.inputs import BUILT_IN, Input, InputType, find_input, source_of
from authz_middleware.policy.model import (
    EFFECTS,
    INPUT_SOURCES,
    AllOf,
    Always,
    AnyOf,
    Condition,
    InputDeclaration,
    Match,
    Not,
    Policy,
    Rule,
)
from authz_middleware.policy.wording import instead_of, shown
from authz_middleware.step_up import StepUp, find_faults

ACTION_PATTERN: Final = r"\*|[A-Za-z0-9_.-]+(?::[A-Za-z0-9_.-]+)*(?::\*)?"
DECLARABLE_PATTERN: Final = r"(?:subject|resource)\.[A-Za-z_][A-Za-z0-9_-]{0,63}"
MAX_NAME: Final = 200
MAX_DEPTH: Final = 16

_ACTION = re.compile(ACTION_PATTERN)
_DECLARABLE = re.compile(DECLARABLE_PATTERN)


def find_problems(policy: Policy) -> tuple[Problem, ...]:
    """Every mistake in the policy, in the order of its lines; empty for a policy that can be compiled."""
    return _Check(policy).run()


def is_name(value: object) -> bool:
    """Whether a name of a policy, rule, label or test can be shown and logged as it is."""
    return isinstance(value, str) and 0 < len(value) <= MAX_NAME and value.isprintable() and value.strip() == value


class _Check:
    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._found: list[tuple[int, str]] = []
        self._inputs: dict[str, Input] = {}

    def run(self) -> tuple[Problem, ...]:
        policy = self._policy
        for key, value in (("policy", policy.name), ("owner", policy.owner)):
            self._check_name(f"'{key}'", value, self._line(key))
        self._check_labels()
        self._check_inputs()
        self._check_rules()
        check_tests = TestCheck(policy, self._inputs, self._problem)
        for test in policy.tests:
            check_tests.check(test)
        self._check_unique("test", ((test.name, test.line) for test in policy.tests))
        file = policy.file
        ordered = sorted(dict.fromkeys(self._found), key=lambda found: found[0])
        return tuple(Problem(f"{file}:{line}" if line else file, what) for line, what in ordered)

    def _line(self, key: str) -> int:
        return self._policy.lines.get(key, 0)

    def _problem(self, line: int, what: str) -> None:
        self._found.append((line, what))

    def _check_name(self, label: str, value: object, line: int) -> None:
        if not is_name(value):
            self._problem(line, f"{label} must be a name of 1 to {MAX_NAME} printable characters, not {shown(value)}")

    def _check_unique(self, label: str, names: Iterable[tuple[str, int]]) -> None:
        first: dict[str, int] = {}
        for name, line in names:
            if name in first:
                where = f"; it was first given on line {first[name]}" if first[name] else ""
                self._problem(line, f"{label} {shown(name)} is given twice{where}")
            first.setdefault(name, line)

    def _check_labels(self) -> None:
        for name, labels in self._policy.labels.items():
            line = self._line(f"labels.{name}")
            self._check_name("a label set", name, line)
            if len(labels) < 2 or len(set(labels)) < len(labels) or not all(is_name(label) for label in labels):
                self._problem(line, f"labels {shown(name)} must be two or more different names, lowest first")

    def _check_inputs(self) -> None:
        self._check_unique("input", ((each.name, each.line) for each in self._policy.inputs))
        for name in BUILT_IN:
            self._know(name, None)
        for declaration in self._policy.inputs:
            if self._is_input(declaration):
                self._know(declaration.name, declaration)
                self._check_declaration(declaration, self._inputs[declaration.name])

    def _know(self, name: str, declaration: InputDeclaration | None) -> None:
        if declaration is not None and declaration.labels not in self._policy.labels:
            declaration = InputDeclaration(name, declaration.source, declaration.max_age)
        found = find_input(name, declaration, self._policy.labels)
        if found is not None:
            self._inputs[name] = found

    def _is_input(self, declaration: InputDeclaration) -> bool:
        name = declaration.name
        if name in BUILT_IN or (isinstance(name, str) and _DECLARABLE.fullmatch(name)):
            return True
        self._problem(
            declaration.line,
            f"input {shown(name)} cannot be declared: beside the built-in names only subject.<claim> (from the "
            f"token) and resource.<attribute> (from the application) can; {instead_of(name, BUILT_IN)}",
        )
        return False

    def _check_declaration(self, declaration: InputDeclaration, input_: Input) -> None:
        name, line, source = declaration.name, declaration.line, source_of(declaration.name)
        if declaration.source not in INPUT_SOURCES or declaration.source != source:
            self._problem(line, f"input {name} comes 'from: {source}', not {shown(declaration.source)}")
        if declaration.max_age is not None:
            if source == "request":
                self._problem(line, f"input {name} is read from the request itself and has no age; leave max_age out")
            elif not (0 < declaration.max_age < math.inf):
                self._problem(line, f"input {name}: max_age must be a time above zero")
        if declaration.labels is None:
            return
        if declaration.labels not in self._policy.labels:
            accepted = instead_of(declaration.labels, self._policy.labels)
            self._problem(line, f"input {name} has no label set {shown(declaration.labels)}; {accepted}")
        built_in = BUILT_IN.get(name)
        if input_.type not in (InputType.TEXT, InputType.UNKNOWN) or (built_in is not None and built_in.choices):
            self._problem(line, f"input {name} is {input_.type.value} and cannot hold the labels of a set")

    def _check_rules(self) -> None:
        sets: list[tuple[str, tuple[Rule, ...]]] = [("", self._policy.rules), *self._policy.degrade.items()]
        self._check_unique("rule", ((rule.name, rule.line) for _, rules in sets for rule in rules))
        check_matchers = MatcherCheck(self._inputs)
        for name, rules in sets:
            for rule in rules:
                self._check_rule(rule)
                if name and rule.sensitive:
                    self._problem(
                        rule.line,
                        f"rule {shown(rule.name)} of degrade {shown(name)} is marked sensitive, which means nothing "
                        "there: these rules are for when the decision point does not answer",
                    )
                for match in self._matches(rule, rule.condition, 1):
                    for what in check_matchers.find_problems(match):
                        self._problem(match.line or rule.line, f"rule {shown(rule.name)}: {what}")
        for name in self._policy.degrade:
            self._check_name("a degrade rule set", name, self._line(f"degrade.{name}"))

    def _check_rule(self, rule: Rule) -> None:
        self._check_name("rule", rule.name, rule.line)
        if rule.owner is not None:
            self._check_name(f"rule {shown(rule.name)}: owner", rule.owner, rule.line)
        if rule.effect not in EFFECTS:
            self._problem(
                rule.line, f"rule {shown(rule.name)}: effect must be permit or deny, not {shown(rule.effect)}"
            )
        if rule.sensitive and rule.effect == "deny":
            self._problem(rule.line, f"rule {shown(rule.name)}: only a permit can be sensitive; a deny is final")
        if rule.authentication is not None:
            self._check_authentication(rule, rule.authentication)
        if not rule.actions or len(set(rule.actions)) < len(rule.actions):
            self._problem(rule.line, f"rule {shown(rule.name)}: {rule.effect} must name one or more actions, each once")
        for action in rule.actions:
            if not isinstance(action, str) or not _ACTION.fullmatch(action):
                self._problem(
                    rule.line,
                    f"rule {shown(rule.name)}: {shown(action)} is not an action pattern; accepted: a name such as "
                    "'invoice:read', a prefix such as 'invoice:*', or '*'",
                )

    def _check_authentication(self, rule: Rule, asked: StepUp) -> None:
        label = f"rule {shown(rule.name)}: authentication"
        if rule.effect == "deny":
            self._problem(rule.line, f"{label} can only be asked for by a permit; a deny is final")
        for fault in find_faults(asked):
            self._problem(rule.line, f"{label} {fault}")

    def _matches(self, rule: Rule, condition: Condition, depth: int) -> Iterator[Match]:
        if depth > MAX_DEPTH:
            self._problem(rule.line, f"rule {shown(rule.name)}: its condition is nested deeper than {MAX_DEPTH} levels")
        elif isinstance(condition, Match):
            yield condition
        elif isinstance(condition, Not):
            yield from self._matches(rule, condition.part, depth + 1)
        elif isinstance(condition, AllOf | AnyOf):
            if not condition.parts:
                self._problem(rule.line, f"rule {shown(rule.name)}: an empty list of conditions; write 'when: always'")
            for part in condition.parts:
                yield from self._matches(rule, part, depth + 1)
        elif not isinstance(condition, Always):
            self._problem(rule.line, f"rule {shown(rule.name)}: {shown(condition)} is not a condition")
