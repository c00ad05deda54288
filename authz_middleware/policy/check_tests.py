"""Checks the `tests:` of a policy: that each case can be asked, and asks about inputs that exist."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

from authz_middleware.decision import Reason
from authz_middleware.permission import ACTION_NAME
from authz_middleware.policy.inputs import BUILT_IN, Input, InputType
from authz_middleware.policy.model import EFFECTS, Policy, PolicyTest
from authz_middleware.policy.times import parse_instant
from authz_middleware.policy.wording import instead_of, shown
from authz_middleware.resource import is_clear_id

SUBJECT_TIMES: Final = ("issued_at", "authenticated_at")
"""What a case may say of the subject beside its inputs, as RFC 3339 date-times: when the token was issued, and when the
person behind it was last authenticated."""


class TestCheck:
    """Checks cases against the inputs and rules of their policy."""

    __test__ = False  # a test runner must not collect it

    def __init__(self, policy: Policy, inputs: Mapping[str, Input], problem: Callable[[int, str], None]) -> None:
        self._inputs = inputs
        self._rules = {rule.name for rule in policy.rules}
        self._problem = problem

    def check(self, test: PolicyTest) -> None:
        """Report what is wrong with one case."""

        def problem(what: str) -> None:
            self._problem(test.line, f"test {shown(test.name)}: {what}")

        if not isinstance(test.name, str) or not test.name.strip() or not test.name.isprintable():
            problem("must have a name of printable characters")
        if not math.isfinite(test.at):
            problem("'at' must be a point in time")
        if not ACTION_NAME.fullmatch(test.action):
            problem(f"action {shown(test.action)} must be one action, such as 'invoice:read'")
        if test.expect not in EFFECTS:
            problem(f"'expect' must be permit or deny, not {shown(test.expect)}")
        if test.rule is not None and test.rule not in self._rules:
            problem(f"there is no rule {shown(test.rule)}; {instead_of(test.rule, sorted(self._rules))}")
        if test.reason is not None and test.reason not in tuple(Reason):
            problem(f"there is no reason {shown(test.reason)}; {instead_of(test.reason, tuple(Reason))}")
        if not test.resource_type or not is_clear_id(test.resource_id):
            problem("its resource must have a type and an id")
        self._check_named(test.subject, "subject", problem)
        self._check_named(test.context, "context", problem)

    def _check_named(self, values: Mapping[str, Any], part: str, problem: Callable[[str], None]) -> None:
        accepted = [name.partition(".")[2] for name in self._inputs if name.startswith(f"{part}.")]
        accepted = [name for name in accepted if (part, name) != ("context", "time")]
        for name, value in values.items():
            if part == "subject" and name in SUBJECT_TIMES:
                if not isinstance(value, str) or parse_instant(value) is None:
                    problem(f"subject.{name} must be a date and time with its offset, not {shown(value)}")
                continue
            if name not in accepted:
                problem(f"{part} has no {shown(name)}; {instead_of(name, accepted)}")
                continue
            wanted = self._wanted(f"{part}.{name}", value)
            if wanted:
                problem(f"{part}.{name} is {wanted}, not {shown(value)}")

    def _wanted(self, name: str, value: object) -> str:
        """What the value should be, or nothing when it is that."""
        type_ = self._inputs[name].type
        built_in = BUILT_IN.get(name)
        if built_in is not None and built_in.choices and value not in built_in.choices:
            return "one of " + ", ".join(built_in.choices)
        fits = {
            InputType.TEXT: isinstance(value, str) and bool(value),
            InputType.FLAG: isinstance(value, bool),
            InputType.NAMES: isinstance(value, list | tuple) and all(isinstance(item, str) for item in value),
        }.get(type_, True)
        return "" if fits else "a list of names" if type_ is InputType.NAMES else type_.value
