"""Runs the `tests:` of a policy against its snapshot, before the snapshot comes into force.

Besides the cases an author wrote, each of their callers is asked about an action that no rule names: unless the policy
permits `*` to somebody, that must be a deny.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from authz_middleware.decision import Decision
from authz_middleware.facts import RequestFacts
from authz_middleware.identity.principal import Actor, Principal
from authz_middleware.permission import Permission
from authz_middleware.policy.check_tests import SUBJECT_TIMES
from authz_middleware.policy.model import Policy, PolicyTest
from authz_middleware.policy.rule_set import RuleSet
from authz_middleware.policy.times import parse_instant
from authz_middleware.question import Question
from authz_middleware.resource import Resource

_PRINCIPAL_FIELDS: Final = frozenset(
    {
        *("issuer", "kind", "subject_kind", "client", "tenant", "clearance", "environment", "token_id", "transaction"),
        "acr",
    }
)
_FACTS_FIELDS: Final = frozenset({"method", "route", "client", "tls", "protocol"})


class CaseFailure(msgspec.Struct, frozen=True):
    """One case that came out otherwise than its author expects. `line` is where the case is written."""

    case: str
    expected: str
    got: str
    reason: str
    rule: str | None
    line: int = 0

    def __str__(self) -> str:
        by = f" by rule {self.rule!r}" if self.rule is not None else ""
        return f"test {self.case!r}: expected {self.expected}, got {self.got}{by} ({self.reason})"


def run_cases(policy: Policy, snapshot: RuleSet) -> tuple[CaseFailure, ...]:
    """The cases of the policy that fail against the snapshot compiled from it; none when it may come into force."""
    return (*_failing_cases(policy, snapshot), *_permitted_unlisted(policy, snapshot))


def question_of_case(test: PolicyTest, *, action: str | None = None) -> Question:
    """The question that a case asks; `action` asks the same about another action.

    What a case leaves out of its caller is missing, as it would be from a token. A resource's properties are as
    fresh as the clock of the case unless `as_of` says otherwise.
    """
    as_of = test.as_of if test.as_of is not None or test.properties is None else test.at
    return Question(
        principal=_principal(test),
        permission=Permission(action=action or test.action),
        resource=Resource(test.resource_type, test.resource_id, test.properties, as_of),
        facts=_facts(test.context),
        environment=test.context.get("environment", "test"),
        now=test.at,
    )


def _principal(test: PolicyTest) -> Principal:
    said = dict(test.subject)
    issued_at, authenticated_at = (parse_instant(said.pop(name, "")) for name in SUBJECT_TIMES)
    fields: dict[str, Any] = {name: said.pop(name) for name in _PRINCIPAL_FIELDS if name in said}
    return Principal(
        issuer=fields.pop("issuer", "https://issuer.test"),
        subject=said.pop("id", "test-subject"),
        scopes=frozenset(said.pop("scopes", ())),
        roles=frozenset(said.pop("roles", ())),
        actors=tuple(Actor(id_) for id_ in said.pop("actors", ())),
        purpose=test.context.get("purpose"),
        task=test.context.get("task"),
        issued_at=test.at if issued_at is None else issued_at,
        authenticated_at=authenticated_at,
        claims=said,
        **fields,
    )


def _facts(context: Mapping[str, Any]) -> RequestFacts:
    said = {name: value for name, value in context.items() if name in _FACTS_FIELDS}
    return RequestFacts(**{"method": "GET", "route": "/", "endpoint": "policy test", **said})


def _failing_cases(policy: Policy, snapshot: RuleSet) -> Iterator[CaseFailure]:
    for test in policy.tests:
        decision = snapshot.evaluate(question_of_case(test))
        if not _is_expected(test, decision):
            yield _failure(test.name, _expectation(test), decision, test.line)


def _permitted_unlisted(policy: Policy, snapshot: RuleSet) -> Iterator[CaseFailure]:
    if any(rule.effect == "permit" and "*" in rule.actions for rule in policy.rules):
        return
    listed = {action for rule in policy.rules for action in rule.actions}
    unlisted = "unlisted"
    while unlisted in listed:
        unlisted += "-"
    for test in policy.tests:
        decision = snapshot.evaluate(question_of_case(test, action=unlisted))
        if decision.permit:
            yield _failure(f"{test.name}, but for an action that no rule names", "deny", decision, test.line)


def _is_expected(test: PolicyTest, decision: Decision) -> bool:
    return (
        decision.permit is (test.expect == "permit")
        and test.rule in (None, decision.rule)
        and test.reason in (None, decision.reason)
    )


def _expectation(test: PolicyTest) -> str:
    by = f" by rule {test.rule!r}" if test.rule is not None else ""
    reason = f" ({test.reason})" if test.reason is not None else ""
    return f"{test.expect}{by}{reason}"


def _failure(case: str, expected: str, decision: Decision, line: int) -> CaseFailure:
    got = "permit" if decision.permit else "deny"
    return CaseFailure(case, expected, got, decision.reason.value, decision.rule, line)
