"""A second evaluator, for tests: slow, over the model itself, with nothing compiled, shared or looked up by hash.

It takes its rules from the documentation, not from the compiler, and imports none of the evaluator's modules.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from authz_middleware.policy import model
from authz_middleware.policy.model import Condition, Match, Policy, Rule
from authz_middleware.question import Question

YES, NO, UNKNOWN = "yes", "no", "unknown"
Answer = str
ABSENT = object()
NOBODY_LOOKED = object()

PRINCIPAL = {
    "subject.id": "subject", "subject.issuer": "issuer", "subject.kind": "kind", "subject.tenant": "tenant",
    "subject.scopes": "scopes", "subject.roles": "roles", "subject.clearance": "clearance", "subject.client": "client",
    "subject.acr": "acr", "subject.environment": "environment", "context.purpose": "purpose", "context.task": "task",
}  # fmt: skip


class Naive:
    def __init__(self, policy: Policy, question: Question) -> None:
        self.policy = policy
        self.question = question
        self.declared = {declaration.name: declaration for declaration in policy.inputs}

    def decide(self) -> tuple[bool, bool]:
        """Permit or not, and whether a sensitive rule permits."""
        rules = [rule for rule in self.policy.rules if any(self.covers(pattern) for pattern in rule.actions)]
        for rule in rules:
            if rule.effect == "deny" and self.judge(rule.condition) != NO:
                return False, False
        applying = [rule for rule in rules if rule.effect == "permit" and self.applies(rule)]
        if not applying:
            return False, False
        return True, any(rule.sensitive for rule in applying)

    def rules_that_could_name(self) -> set[str | None]:
        """The rules a decision may name: any rule that applies and gives this outcome."""
        permit, sensitive = self.decide()
        rules = [rule for rule in self.policy.rules if any(self.covers(pattern) for pattern in rule.actions)]
        if permit:
            return {r.name for r in rules if r.effect == "permit" and r.sensitive == sensitive and self.applies(r)}
        return {r.name for r in rules if r.effect == "deny" and self.applies(r)} or {None}

    def applies(self, rule: Rule) -> bool:
        answer = self.judge(rule.condition)
        return answer == YES and self.authenticated(rule) if rule.effect == "permit" else answer != NO

    def authenticated(self, rule: Rule) -> bool:
        asked, who = rule.authentication, self.question.principal
        if asked is None:
            return True
        if asked.acr_values and who.acr not in list(asked.acr_values):
            return False
        if asked.max_age is None:
            return True
        return who.authenticated_at is not None and -60 <= self.question.now - who.authenticated_at <= asked.max_age

    def covers(self, pattern: str) -> bool:
        action = self.question.permission.action
        if pattern == "*" or pattern == action:
            return True
        return pattern.endswith(":*") and action.startswith(pattern.removesuffix("*"))

    def judge(self, condition: Condition) -> Answer:
        if isinstance(condition, model.Always):
            return YES
        if isinstance(condition, model.Not):
            return {YES: NO, NO: YES, UNKNOWN: UNKNOWN}[self.judge(condition.part)]
        if isinstance(condition, model.AllOf):
            answers = [self.judge(part) for part in condition.parts]
            return NO if NO in answers else UNKNOWN if UNKNOWN in answers else YES
        if isinstance(condition, model.AnyOf):
            answers = [self.judge(part) for part in condition.parts]
            return YES if YES in answers else UNKNOWN if UNKNOWN in answers else NO
        try:
            return self.judge_match(condition)
        except Exception:
            return UNKNOWN

    def judge_match(self, match: Match) -> Answer:
        matcher = match.matcher
        if isinstance(matcher, model.Exists):
            value = self.raw(match.input)
            if value is NOBODY_LOOKED or not self.fresh(match.input):
                return UNKNOWN
            return YES if (value is not ABSENT) == matcher.wanted else NO
        value = self.value(match.input)
        if value is ABSENT:
            return UNKNOWN
        if isinstance(matcher, model.Equals):
            return equal(value, matcher.value)
        if isinstance(matcher, model.OneOf):
            return any_of(equal(value, operand) for operand in matcher.values)
        if isinstance(matcher, model.Has | model.HasAny | model.HasAll):
            return holds(value, matcher)
        if isinstance(matcher, model.StartsWith):
            return truth(value[: len(matcher.prefix)] == matcher.prefix) if isinstance(value, str) else UNKNOWN
        if isinstance(matcher, model.SameAs):
            other = self.value(matcher.input)
            return UNKNOWN if other is ABSENT else equal(value, other)
        if isinstance(matcher, model.Between):
            return truth(inside(matcher, self.question.now))
        return self.judge_order(match, value)

    def judge_order(self, match: Match, value: Any) -> Answer:
        bound, order = match.matcher.bound, self.order(match.input)
        if isinstance(bound, model.InputRef):
            order = order or self.order(bound.name)
            bound = self.value(bound.name)
        if order:
            if value not in order or bound not in order:
                return UNKNOWN
            value, bound = order.index(value), order.index(bound)
        if kind(value) != "number" or kind(bound) != "number":
            return UNKNOWN
        value, bound = exact(value), exact(bound)
        return truth(value <= bound if isinstance(match.matcher, model.AtMost) else value >= bound)

    def order(self, name: str) -> list[str]:
        declaration = self.declared.get(name)
        return list(self.policy.labels[declaration.labels]) if declaration and declaration.labels else []

    def value(self, name: str) -> Any:
        value = self.raw(name)
        if value is NOBODY_LOOKED or not self.fresh(name):
            return ABSENT
        order = self.order(name)
        return ABSENT if order and not (isinstance(value, str) and value in order) else value

    def raw(self, name: str) -> Any:
        question = self.question
        if name in PRINCIPAL:
            value = getattr(question.principal, PRINCIPAL[name])
            return ABSENT if value is None or value == frozenset() else value
        if name.startswith("subject."):
            value = question.principal.claims.get(name.removeprefix("subject."))
        elif name == "context.time":
            value = question.now
        elif name == "context.environment":
            value = question.environment
        elif name == "resource.type":
            value = question.resource.type
        elif name == "resource.id":
            value = question.resource.id
        elif question.resource.attributes is None:
            return NOBODY_LOOKED
        else:
            value = question.resource.attributes.get(name.removeprefix("resource."))
        return ABSENT if value is None else value

    def fresh(self, name: str) -> bool:
        declaration = self.declared.get(name)
        if declaration is None or declaration.max_age is None:
            return True
        read_at = self.question.principal.issued_at if declaration.source == "token" else self.question.resource.as_of
        if read_at is None:
            return False
        age = self.question.now - read_at
        return age <= declaration.max_age and age >= -60


def truth(value: bool) -> Answer:
    return YES if value else NO


def any_of(answers: Any) -> Answer:
    found = list(answers)
    return YES if YES in found else UNKNOWN if UNKNOWN in found else NO


def kind(value: Any) -> str | None:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, str):
        return "text"
    if isinstance(value, int | float | Decimal):
        return None if value != value else "number"
    return None


def exact(value: Any) -> Any:
    """A number as the digits it is written with."""
    return Decimal(repr(value)) if isinstance(value, float) else value


def equal(one: Any, other: Any) -> Answer:
    if kind(one) is None or kind(one) != kind(other):
        return UNKNOWN
    return truth(exact(one) == exact(other))


def contains(collection: Any, operand: Any) -> Answer:
    if not isinstance(collection, list | tuple | set | frozenset):
        return UNKNOWN
    return any_of(equal(item, operand) for item in collection)


def holds(value: Any, matcher: model.Has | model.HasAny | model.HasAll) -> Answer:
    if isinstance(matcher, model.Has):
        return contains(value, matcher.value)
    answers = [contains(value, operand) for operand in matcher.values]
    if isinstance(matcher, model.HasAny):
        return any_of(answers)
    return NO if NO in answers else UNKNOWN if UNKNOWN in answers else YES


def inside(window: model.Between, now: float) -> bool:
    """Builds each day's window as wall-clock times, and asks whether the wall clock is in one."""
    local = datetime.fromtimestamp(now, ZoneInfo(window.zone)).replace(tzinfo=None)
    for back in (0, 1):
        day = local.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=back)
        start, end = day + clock(window.start), day + clock(window.end)
        if end <= start:
            end += timedelta(days=1)
        name = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"][day.weekday()]
        if start <= local < end and (not window.days or name in window.days):
            return True
    return False


def clock(text: str) -> timedelta:
    parts = [int(part) for part in text.split(":")]
    return timedelta(hours=parts[0], minutes=parts[1], seconds=parts[2] if len(parts) > 2 else 0)
