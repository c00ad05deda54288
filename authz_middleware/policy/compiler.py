"""Compiles a policy into a snapshot: conditions into closures, rules into one plan for each action.

Equal conditions become one closure. Each plan is complete, so a decision looks its action up once: an action named
in full also gets the rules of the prefixes that cover it, and those of `*`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from authz_middleware.errors import PolicyError
from authz_middleware.policy.canonical import condition_key, revision_of
from authz_middleware.policy.check import find_problems
from authz_middleware.policy.inputs import Input, find_input
from authz_middleware.policy.logic import Test, always, every, negated, some
from authz_middleware.policy.matchers import compile_matcher
from authz_middleware.policy.memory import give_back
from authz_middleware.policy.model import (
    AllOf,
    AnyOf,
    AtLeast,
    AtMost,
    Condition,
    Has,
    HasAll,
    HasAny,
    InputRef,
    Match,
    Not,
    Policy,
    Rule,
    SameAs,
)
from authz_middleware.policy.profile import Leaf, Profile
from authz_middleware.policy.rule_set import CompiledRule, Mark, Plan, RuleSet, RuleTable, Version
from authz_middleware.policy.snapshot import Snapshot
from authz_middleware.question import Question
from authz_middleware.step_up import StepUp, is_met


def compile_policy(policy: Policy, *, serial: int | None = None) -> Snapshot:
    """Compile a policy, read from a file or built in memory.

    Raises PolicyError with every problem found; what it returns cannot fail for a reason that lies in the policy.
    """
    problems = find_problems(policy)
    if problems:
        raise PolicyError(problems)
    version = Version(policy.name, policy.owner, revision_of(policy), serial)
    conditions = _Conditions(policy)
    return Snapshot(
        version,
        _table_of(policy.rules, conditions),
        {name: RuleSet(version, _table_of(rules, conditions)) for name, rules in policy.degrade.items()},
        frozenset(action for rule in policy.rules if rule.sensitive for action in rule.actions),
    )


class _Conditions:
    """Compiles conditions, each distinct one once, and keeps a profile of those that rules have."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._declared = {declaration.name: declaration for declaration in policy.inputs}
        self._inputs: dict[str, Input] = {}
        self._tests: dict[bytes, Test] = {}
        self._authenticated: dict[tuple[Test, StepUp], Test] = {}
        self._profiles: dict[Test, Profile] = {}

    def profiles_of(self, tests: Iterable[Test]) -> Mapping[Test, Profile]:
        """The profiles of these tests."""
        return {test: self._profiles[test] for test in tests}

    def compile(self, rule: Rule) -> Test:
        """The test of a rule: its condition, and the authentication that it asks for."""
        condition, asked = self._test(rule.condition), rule.authentication
        test = condition if asked is None else self._with_authentication(condition, asked)
        if test not in self._profiles:
            self._profiles[test] = self._profile(rule.condition, condition, asked)
        return test

    def _with_authentication(self, condition: Test, asked: StepUp) -> Test:
        test = self._authenticated.get((condition, asked))
        if test is None:
            test = self._authenticated[condition, asked] = every((condition, _authentication(asked)))
        return test

    def _test(self, condition: Condition) -> Test:
        key = condition_key(condition)
        test = self._tests.get(key)
        if test is None:
            test = self._tests[key] = self._build(condition)
        return test

    def _build(self, condition: Condition) -> Test:
        if isinstance(condition, Match):
            return compile_matcher(self._input(condition.input), condition.matcher, self._input)
        if isinstance(condition, AllOf):
            return every(self._test(part) for part in condition.parts)
        if isinstance(condition, AnyOf):
            return some(self._test(part) for part in condition.parts)
        if isinstance(condition, Not):
            return negated(self._test(condition.part))
        return always

    def _input(self, name: str) -> Input:
        found = self._inputs.get(name)
        if found is None:
            found = find_input(name, self._declared.get(name), self._policy.labels)
            assert found is not None, "find_problems refuses unknown inputs"
            self._inputs[name] = found
        return found

    def _profile(self, condition: Condition, test: Test, asked: StepUp | None) -> Profile:
        parts = condition.parts if isinstance(condition, AllOf) else (condition,)
        leaves = [self._leaves(part) for part in parts]
        return Profile(
            leaves=tuple(leaf for found in leaves for leaf in found),
            condition=test,
            settled=every(
                self._test(part)
                for part, found in zip(parts, leaves, strict=True)
                if not Profile(found).reads_attributes
            ),
            scopes=tuple(dict.fromkeys(scope for part in parts for scope in _asked_scopes(part))),
            unscoped=every(self._test(part) for part in parts if not _asked_scopes(part)),
            named_scopes=_named_scopes(condition),
            step_up=asked,
        )

    def _leaves(self, condition: Condition) -> tuple[Leaf, ...]:
        if isinstance(condition, Match):
            return (Leaf(self._test(condition), tuple(self._input(name) for name in _read_by(condition))),)
        if isinstance(condition, AllOf | AnyOf):
            return tuple(leaf for part in condition.parts for leaf in self._leaves(part))
        return self._leaves(condition.part) if isinstance(condition, Not) else ()


def _read_by(match: Match) -> tuple[str, ...]:
    """The names of the inputs that a matcher reads: its own, and the one it compares with."""
    matcher = match.matcher
    if isinstance(matcher, SameAs):
        return match.input, matcher.input
    if isinstance(matcher, AtMost | AtLeast) and isinstance(matcher.bound, InputRef):
        return match.input, matcher.bound.name
    return (match.input,)


def _asked_scopes(condition: Condition) -> tuple[str, ...]:
    if not isinstance(condition, Match) or condition.input != "subject.scopes":
        return ()
    matcher = condition.matcher
    if isinstance(matcher, Has):
        return (str(matcher.value),)
    return tuple(str(value) for value in matcher.values) if isinstance(matcher, HasAll) else ()


def _named_scopes(condition: Condition) -> tuple[str, ...]:
    """Every scope that could help a condition to hold: all that it names but within a `not`."""
    if isinstance(condition, AllOf | AnyOf):
        return tuple(scope for part in condition.parts for scope in _named_scopes(part))
    if not isinstance(condition, Match) or condition.input != "subject.scopes":
        return ()
    matcher = condition.matcher
    return tuple(map(str, matcher.values)) if isinstance(matcher, HasAny) else _asked_scopes(condition)


def _authentication(asked: StepUp) -> Test:
    def test(question: Question) -> bool:
        return is_met(asked, question.principal, question.now)

    return test


_Groups = dict[str, list[CompiledRule]]


def _table_of(rules: Iterable[Rule], conditions: _Conditions) -> RuleTable:
    denies: _Groups = {}
    sensitive: _Groups = {}
    plain: _Groups = {}
    marks: dict[str, Mark] = {}
    shared: dict[tuple[bool, str | None], Mark] = {}
    tests: dict[Test, None] = {}
    permits: dict[Test, None] = {}
    for rule in rules:
        compiled = CompiledRule(conditions.compile(rule), rule.name)
        tests[compiled.test] = None
        if rule.sensitive or rule.owner is not None:
            marks[rule.name] = shared.setdefault((rule.sensitive, rule.owner), Mark(rule.sensitive, rule.owner))
        if rule.effect == "permit":
            permits[compiled.test] = None
        groups = denies if rule.effect == "deny" else sensitive if rule.sensitive else plain
        for action in rule.actions:
            groups.setdefault(action, []).append(compiled)
    planner = _Planner(denies, sensitive, plain)
    patterns = [*plain, *(action for groups in (denies, sensitive) for action in groups if action not in plain)]
    exact = {action: planner.plan(action) for action in patterns if not action.endswith("*")}
    prefixes = {action[:-1]: planner.plan(action) for action in patterns if action.endswith(":*")}
    fallthrough = planner.plan("*")
    for groups in (denies, sensitive, plain):
        give_back(groups)
    scopes = (scope for profile in conditions.profiles_of(permits).values() for scope in profile.named_scopes)
    return RuleTable(exact, prefixes, fallthrough, marks, conditions.profiles_of(tests), frozenset(scopes))


class _Planner:
    """Puts together the plan of an action pattern from the rules of all that cover it, sharing equal tuples."""

    def __init__(self, denies: _Groups, sensitive: _Groups, plain: _Groups) -> None:
        self._denies = denies
        self._permits = (sensitive, plain)
        self._shared: dict[tuple[int, ...], tuple[CompiledRule, ...]] = {}

    def plan(self, pattern: str) -> Plan:
        """The complete plan of a pattern: its own rules, then those of ever wider ones."""
        covering = _covering(pattern)
        denies = self._tuple(rule for name in covering for rule in self._denies.get(name, ()))
        rules = (rule for groups in self._permits for name in covering for rule in groups.get(name, ()))
        permits = list({id(rule): rule for rule in rules}.values())
        if not permits:
            return Plan(denies)
        return Plan(denies, permits[0].test, permits[0].name, self._tuple(permits[1:]))

    def _tuple(self, rules: Iterable[CompiledRule]) -> tuple[CompiledRule, ...]:
        distinct = {id(rule): rule for rule in rules}
        return self._shared.setdefault(tuple(distinct), tuple(distinct.values())) if distinct else ()


def _covering(pattern: str) -> list[str]:
    """The patterns that cover a pattern, itself first, then ever wider ones."""
    covering = [pattern]
    colon = pattern.removesuffix(":*").rfind(":")
    while colon >= 0:
        covering.append(f"{pattern[:colon]}:*")
        colon = pattern.rfind(":", 0, colon)
    if pattern != "*":
        covering.append("*")
    return covering
