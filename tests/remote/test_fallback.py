"""The three fallbacks over a real policy: what each permits, and everything under which it refuses."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from authz_middleware.decision import Decision, Fallback, FallbackMode, Reason, Source
from authz_middleware.permission import Permission
from authz_middleware.policy.document import parse_policy
from authz_middleware.policy.store import build_snapshot
from authz_middleware.question import Question
from authz_middleware.remote.cache import DecisionCache
from authz_middleware.remote.failure import FailureKind, RemoteAnswer, RemoteFailure
from authz_middleware.remote.fallback import fall_back
from authz_middleware.remote.query import RemoteQuery
from authz_middleware.settings.fallback import FallbackChoice
from tests.support.questions import NOW, question

POLICY = """
policy: billing
owner: payments@example.com
rules:
  - rule: refund
    permit: [invoice:refund, invoice:read]
    sensitive: true
    when:
      subject.kind: agent
  - rule: delete
    permit: invoice:delete
    sensitive: true
    when:
      subject.kind: agent
degrade:
  read-only:
    - rule: refund-during-an-outage
      permit: [invoice:refund, invoice:read]
      when:
        subject.roles: {has: cashier}
"""
SNAPSHOT = build_snapshot(parse_policy(POLICY, "billing.yaml"))
OUTAGE = RemoteFailure(FailureKind.DEADLINE, "read")
FAULT = RemoteFailure(FailureKind.MALFORMED, "body.decision")
DENY = FallbackChoice(FallbackMode.DENY)
DEGRADE = FallbackChoice(FallbackMode.DEGRADE, rules="read-only")
CACHED = FallbackChoice(FallbackMode.CACHED, max_stale=60.0)
PERMIT_AGO = 10.0
OUTAGES = [kind for kind in FailureKind if RemoteFailure(kind).is_outage]
FAULTS = [kind for kind in FailureKind if not RemoteFailure(kind).is_outage]


def key(asked: Question) -> Any:
    return RemoteQuery.of(asked, SNAPSHOT.revision).key


def cache_with(*answers: tuple[float, bool], asked: Question | None = None) -> DecisionCache:
    cache = DecisionCache(10)
    asked = asked or question()
    for ago, permit in answers:
        cache.remember(key(asked), RemoteAnswer(permit), NOW - ago, asked.principal.expires_at)
    return cache


def decide(
    choice: FallbackChoice | None, failure: RemoteFailure = OUTAGE, asked: Question | None = None, **changes: Any
) -> Decision:
    asked = asked or question()
    given: dict[str, Any] = {
        "local": SNAPSHOT.evaluate(asked),
        "snapshot": SNAPSHOT,
        "cache": cache_with((PERMIT_AGO, True)),
        "key": key(asked),
        **changes,
    }
    return fall_back(choice=choice, failure=failure, question=asked, **given)


@pytest.mark.capability("C30")
@pytest.mark.parametrize("kind", OUTAGES)
def test_deny_refuses_and_says_that_it_was_chosen(kind: FailureKind) -> None:
    decision = decide(DENY, RemoteFailure(kind, "why"))
    assert (decision.permit, decision.reason, decision.source) == (False, Reason.REMOTE_UNAVAILABLE, Source.FALLBACK)
    assert decision.fallback == Fallback(kind.value, FallbackMode.DENY)
    assert decision.detail == "why"


@pytest.mark.capability("C31")
@pytest.mark.parametrize("kind", OUTAGES)
def test_degrade_permits_what_the_narrower_rules_permit(kind: FailureKind) -> None:
    decision = decide(DEGRADE, RemoteFailure(kind))
    assert (decision.permit, decision.reason, decision.source) == (True, Reason.DEGRADED, Source.FALLBACK)
    assert decision.degraded
    assert decision.fallback == Fallback(kind.value, FallbackMode.DEGRADE)


@pytest.mark.capability("C31")
@pytest.mark.parametrize(
    "asked",
    [question(permission=Permission(action="invoice:delete")), question(roles=frozenset({"clerk"}))],
    ids=["another action", "another role"],
)
def test_degrade_refuses_what_the_narrower_rules_do_not_permit(asked: Question) -> None:
    decision = decide(DEGRADE, asked=asked)
    assert SNAPSHOT.evaluate(asked).permit
    assert (decision.permit, decision.reason) == (False, Reason.REMOTE_UNAVAILABLE)
    assert not decision.degraded
    assert decision.fallback == Fallback("deadline", FallbackMode.DEGRADE)


@pytest.mark.capability("C32")
@pytest.mark.parametrize("kind", OUTAGES)
def test_cached_serves_the_last_permit_with_its_age(kind: FailureKind) -> None:
    decision = decide(CACHED, RemoteFailure(kind))
    assert (decision.permit, decision.reason, decision.source) == (True, Reason.CACHED, Source.FALLBACK)
    assert not decision.degraded
    assert decision.fallback == Fallback(kind.value, FallbackMode.CACHED, PERMIT_AGO)


@pytest.mark.capability("C32")
@pytest.mark.parametrize(
    "changes",
    [
        {"cache": cache_with()},
        {"cache": None},
        {"cache": cache_with((60.0, True))},
        {"cache": cache_with((10.0, False))},
        {"cache": cache_with((20.0, True), (10.0, False))},
        {"key": RemoteQuery.of(question(), "another revision").key},
        {"key": key(question(subject="bob"))},
        {"key": key(question(token_id="another"))},
        {"key": key(question(client="another"))},
        {"now": NOW + 50.0},
        {"now": NOW - 10.001},
        {"cache": cache_with((1.0, True), asked=question(expires_at=NOW + 5)), "now": NOW + 5},
    ],
    ids=[
        "never asked", "no cache", "too old", "denied", "denied last", "another policy", "another subject",
        "another token", "another client", "too old by now", "clock set back", "token expired",
    ],
)  # fmt: skip
def test_cached_refuses_outside_of_any_bound(changes: dict[str, Any]) -> None:
    decision = decide(CACHED, **changes)
    assert (decision.permit, decision.reason) == (False, Reason.REMOTE_UNAVAILABLE)
    assert decision.fallback == Fallback("deadline", FallbackMode.CACHED)


@pytest.mark.capability("C30", "C33")
@pytest.mark.parametrize("choice", [DENY, DEGRADE, CACHED, None])
@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_refuses_whatever_was_chosen_for_an_outage(choice: FallbackChoice | None, kind: FailureKind) -> None:
    decision = decide(choice, RemoteFailure(kind))
    assert (decision.permit, decision.reason) == (False, Reason.REMOTE_UNAVAILABLE)
    assert decision.fallback == Fallback(kind.value, FallbackMode.DENY)


@pytest.mark.capability("C33")
def test_nothing_chosen_refuses() -> None:
    decision = decide(None)
    assert (decision.permit, decision.fallback) == (False, Fallback("deadline", FallbackMode.DENY))


@pytest.mark.parametrize("choice", [DENY, DEGRADE, CACHED])
def test_a_local_deny_stays_a_deny(choice: FallbackChoice) -> None:
    local = msgspec.structs.replace(SNAPSHOT.evaluate(question()), permit=False)
    assert not decide(choice, local=local).permit


@pytest.mark.parametrize("choice", [DENY, DEGRADE, CACHED])
def test_the_rule_and_the_policy_that_permitted_locally_stay_named(choice: FallbackChoice) -> None:
    local = SNAPSHOT.evaluate(question())
    decision = decide(choice, local=local)
    assert (decision.rule, decision.policy, decision.owner, decision.revision, decision.serial) == (
        "refund",
        "billing",
        "payments@example.com",
        SNAPSHOT.revision,
        None,
    )
    assert decision.sensitive


def _raise(error: Exception) -> Callable[..., Any]:
    def raising(*_: object, **__: object) -> Any:
        raise error

    return raising


class _Broken:
    rule_sets = property(_raise(RuntimeError("a secret")))
    stale = _raise(MemoryError("a secret"))


@pytest.mark.parametrize(
    "case",
    [
        (DEGRADE, {"snapshot": _Broken()}),
        (FallbackChoice(FallbackMode.DEGRADE, rules="nowhere"), {}),
        (FallbackChoice(FallbackMode.DEGRADE), {}),
        (CACHED, {"cache": _Broken()}),
    ],
    ids=["broken rules", "unknown rules", "unnamed rules", "broken cache"],
)
def test_an_error_inside_refuses_and_tells_nothing(case: tuple[FallbackChoice, dict[str, Any]]) -> None:
    choice, changes = case
    decision = decide(choice, **changes)
    assert (decision.permit, decision.reason) == (False, Reason.REMOTE_UNAVAILABLE)
    assert "secret" not in repr(decision)


class _Yes:
    """Truthy, and no decision."""

    permit = "yes"


def test_only_true_is_a_permit_of_the_narrower_rules() -> None:
    class Rules:
        def evaluate(self, _: Question) -> _Yes:
            return _Yes()

    snapshot = SimpleNamespace(rule_sets={"read-only": Rules()})
    assert not decide(DEGRADE, snapshot=snapshot).permit
