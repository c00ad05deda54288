"""Rules in the form that decides: found by action through dictionaries, so that their number does not matter.

Deny overrides permit, and nothing matched is a deny. What cannot be told (None) makes a deny rule apply and a permit
rule not apply. Every comparison below is with True or False themselves: an answer that is neither never permits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NoReturn

import msgspec

from authz_middleware.decision import Decision, Reason
from authz_middleware.policy.logic import Test, never
from authz_middleware.policy.profile import Profile, find_gaps, find_helpful_scopes
from authz_middleware.question import Question
from authz_middleware.step_up import StepUp, told_to


class CompiledRule(msgspec.Struct, frozen=True, gc=False):
    """A rule's test and its name."""

    test: Test
    name: str


class Plan(msgspec.Struct, frozen=True, gc=False):
    """The rules for one action: all denies, then the permits, sensitive ones first.

    The first permit is part of the plan itself. Nearly every action has just one, and 100,000 rules are kept in memory.
    """

    denies: tuple[CompiledRule, ...] = ()
    test: Test = never
    rule: str = ""
    more: tuple[CompiledRule, ...] = ()

    def permits(self) -> Iterator[CompiledRule]:
        """The permit rules, in the order in which they are tried."""
        if self.rule:
            yield CompiledRule(self.test, self.rule)
            yield from self.more


class Mark(msgspec.Struct, frozen=True, gc=False):
    """What sets a rule apart: that its permit is sensitive, or that somebody else than the policy's owner owns it."""

    sensitive: bool = False
    owner: str | None = None


class Version(msgspec.Struct, frozen=True):
    """The policy that decides, as each of its decisions names it."""

    policy: str
    owner: str
    revision: str
    serial: int | None = None


_NO_MARK: Final = Mark()
_NO_PROFILE: Final = Profile()


class RuleTable(msgspec.Struct, frozen=True):
    """All that a rule set decides by.

    `exact` has a complete plan for each action named in full, `prefixes` for each prefix (its colon included), and
    `fallthrough` is for every other action. `marks` are by rule name, `profiles` by test. `scopes` are all that its
    permit rules name.
    """

    exact: Mapping[str, Plan]
    prefixes: Mapping[str, Plan]
    fallthrough: Plan
    marks: Mapping[str, Mark]
    profiles: Mapping[Test, Profile]
    scopes: frozenset[str]


class RuleSet:
    """Rules compiled from one list of a policy. It never changes, and may be used by any number of threads.

    `scopes` are those that its permit rules name: what a caller may have to ask for.
    """

    __slots__ = (
        *("_decided", "_fallthrough", "_find", "_marks", "_pending", "_prefixes", "_profiles", "_version"),
        "scopes",
    )

    _decided: dict[str, Decision]
    _fallthrough: Plan
    _find: Callable[[str], Plan | None]
    _marks: Mapping[str, Mark]
    _pending: Mapping[Test, Profile]
    _prefixes: Mapping[str, Plan]
    _profiles: Mapping[Test, Profile]
    _version: Version
    scopes: frozenset[str]

    def __init__(self, version: Version, table: RuleTable) -> None:
        self._fix(
            _version=version,
            _find=table.exact.get,
            _prefixes=table.prefixes,
            _fallthrough=table.fallthrough,
            _marks=table.marks,
            _profiles=table.profiles,
            _pending={test: profile for test, profile in table.profiles.items() if profile.reads_attributes},
            # Permits carry nothing of the request, so each rule needs only one; made when first asked for.
            _decided={},
            scopes=table.scopes,
        )

    def _fix(self, **values: object) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"a rule set never changes: {name}")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"a rule set never changes: {name}")

    def evaluate(self, question: Question) -> Decision:
        """Decide a question. Reads nothing but the question; opens nothing."""
        action = question.permission.action
        plan = self._find(action) or self._nearest(action)
        for rule in plan.denies:
            if rule.test(question) is not False:
                return self._refuse(rule, question)
        if plan.test(question) is True:
            return self._decided.get(plan.rule) or self._permit(plan.rule)
        for rule in plan.more:
            if rule.test(question) is True:
                return self._decided.get(rule.name) or self._permit(rule.name)
        return self._explain(plan, question)

    def ways_in(self, question: Question) -> list[StepUp]:
        """What each permit rule whose condition holds asks of the authentication, met or not."""
        plan = self._find(question.permission.action) or self._nearest(question.permission.action)
        profiles = [self._profiles.get(rule.test, _NO_PROFILE) for rule in plan.permits()]
        return [profile.step_up or StepUp() for profile in profiles if profile.condition(question) is True]

    def needs_attributes(self, question: Question) -> bool:
        """Whether nobody has looked the resource up yet, and its attributes could still change the outcome."""
        if question.resource.attributes is not None or not self._pending:
            return False
        action = question.permission.action
        plan = self._find(action) or self._nearest(action)
        if not self._reads_attributes(plan):
            return False
        for rule in plan.denies:
            outcome = rule.test(question)
            if outcome is True or (outcome is None and rule.test not in self._pending):
                return False
        if any(rule.test(question) is None for rule in plan.denies) and any(
            self._condition(rule)(question) is True for rule in plan.permits()
        ):
            return True
        permits = {rule.name for rule in plan.permits() if rule.test(question) is True}
        return self._permit_hangs(plan, permits, question)

    def _reads_attributes(self, plan: Plan) -> bool:
        if plan.test in self._pending:
            return True
        for rules in (plan.denies, plan.more):
            for rule in rules:
                if rule.test in self._pending:
                    return True
        return False

    def _permit_hangs(self, plan: Plan, settled: set[str], question: Question) -> bool:
        """Whether attributes could still bring a permit, or make a permit that is settled a sensitive one."""
        for sensitive in (True, False):
            rules = [rule for rule in plan.permits() if self._mark(rule.name).sensitive is sensitive]
            if any(rule.name in settled for rule in rules):
                return False
            if any(self._hangs(rule, settled, question) for rule in rules):
                return True
        return False

    def _hangs(self, rule: CompiledRule, settled: set[str], question: Question) -> bool:
        profile = self._pending.get(rule.test)
        if profile is None or profile.settled(question) is not True:
            return False
        # Where nothing permits yet, it matters as well whether the authentication is all that is lacking.
        test = rule.test if settled else profile.condition
        return test(question) is None

    def _condition(self, rule: CompiledRule) -> Test:
        """The test of a rule without the authentication that it asks for."""
        return self._profiles.get(rule.test, _NO_PROFILE).condition

    def _nearest(self, action: str) -> Plan:
        """The plan of the longest prefix that covers an action which no rule names in full."""
        prefixes = self._prefixes
        if prefixes:
            colon = action.rfind(":")
            while colon >= 0:
                plan = prefixes.get(action[: colon + 1])
                if plan is not None:
                    return plan
                colon = action.rfind(":", 0, colon)
        return self._fallthrough

    def _mark(self, name: str) -> Mark:
        return self._marks.get(name, _NO_MARK)

    def _permit(self, name: str) -> Decision:
        sensitive = self._mark(name).sensitive
        decision = self._decision(name, permit=True, reason=Reason.PERMITTED, sensitive=sensitive)
        return self._decided.setdefault(name, decision)

    def _refuse(self, rule: CompiledRule, question: Question) -> Decision:
        """The deny of a deny rule that applies, or that cannot be told not to."""
        gaps = find_gaps([self._profiles.get(rule.test, _NO_PROFILE)], question)
        if rule.test(question) is True or not (gaps.missing or gaps.stale):
            return self._decision(rule.name, permit=False, reason=Reason.RULE_DENY)
        reason = Reason.INPUT_MISSING if gaps.missing else Reason.INPUT_STALE
        return self._decision(
            rule.name, permit=False, reason=reason, missing_inputs=gaps.missing, stale_inputs=gaps.stale
        )

    def _explain(self, plan: Plan, question: Question) -> Decision:
        """The deny of an action that no permit rule applies to, and what would have helped."""
        profiles = [self._profiles.get(rule.test, _NO_PROFILE) for rule in plan.permits()]
        permits = [(profile.condition(question), profile) for profile in profiles]
        gaps = find_gaps((profile for outcome, profile in permits if outcome is None), question)
        # A condition that holds, of a rule that did not permit: the authentication is what it lacks.
        ways = [profile.step_up for outcome, profile in permits if outcome is True and profile.step_up is not None]
        reason = Reason.INPUT_MISSING if gaps.missing else Reason.INPUT_STALE if gaps.stale else Reason.NO_RULE
        return self._decision(
            None,
            permit=False,
            reason=Reason.AUTHENTICATION_INSUFFICIENT if ways else reason,
            missing_inputs=gaps.missing,
            stale_inputs=gaps.stale,
            helpful_scopes=find_helpful_scopes(profiles, question),
            step_up=told_to(question.principal, question.permission.step_up, ways),
        )

    def _decision(self, rule: str | None, **fields: Any) -> Decision:
        version = self._version
        owner = self._mark(rule).owner if rule is not None else None
        return Decision(
            rule=rule,
            policy=version.policy,
            owner=owner or version.owner,
            revision=version.revision,
            serial=version.serial,
            **fields,
        )
