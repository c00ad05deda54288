"""The engine: what it decides by itself, what it asks, and what it makes of every kind of answer."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz_middleware.decision import Decision, FallbackMode, Reason, Source
from authz_middleware.engine import Attempt, Engine
from authz_middleware.policy.compiler import compile_policy
from authz_middleware.policy.document import parse_policy
from authz_middleware.policy.snapshot import Snapshot
from authz_middleware.remote.breaker import BreakerState
from authz_middleware.remote.failure import FailureKind, RemoteAnswer, RemoteFailure
from authz_middleware.settings import FallbackChoice, FallbackSettings, RemoteSettings, Settings
from authz_middleware.settings.model import AppSettings, DecisionLogSettings, PolicySettings
from authz_middleware.settings.remote.decision_point import BreakerSettings
from tests.support.alice import NOW, asks

POLICY = """
policy: billing
owner: payments@example.com
inputs:
  resource.amount: {from: application}
rules:
  - {rule: read, permit: "invoice:read", when: always}
  - {rule: pay, permit: "invoice:pay", sensitive: true, when: always}
  - {rule: export, permit: "invoice:export", sensitive: true, when: always}
  - {rule: report, permit: "report:*", sensitive: true, when: always}
  - {rule: never, deny: "invoice:burn"}
degrade:
  read-only:
    - {rule: reports-may-be-read, permit: "report:read", when: always}
"""

OUTAGES = [kind for kind in FailureKind if RemoteFailure(kind).is_outage]
FAULTS = [kind for kind in FailureKind if not RemoteFailure(kind).is_outage]


@pytest.fixture(scope="module")
def snapshot() -> Snapshot:
    return compile_policy(parse_policy(POLICY, "billing.yaml"), serial=7)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def settings(**members: Any) -> Settings:
    base = Settings(
        app=AppSettings("billing", "production", sensitive=("vault:*",)),
        issuers=(),
        policy=PolicySettings("unused"),  # type: ignore[arg-type]
        decision_log=DecisionLogSettings(),
        remote=RemoteSettings("http://127.0.0.1:9", breaker=BreakerSettings(failures=2, pause=5.0), permit_ttl=10.0),
        fallback=FallbackSettings(
            FallbackChoice(FallbackMode.DENY),
            {
                "invoice:export": FallbackChoice(FallbackMode.CACHED, max_stale=60.0),
                "report:*": FallbackChoice(FallbackMode.DEGRADE, rules="read-only"),
            },
        ),
    )
    return msgspec.structs.replace(base, **members)


def attempt(engine: Engine, snapshot: Snapshot, action: str = "invoice:pay", **members: Any) -> Attempt:
    step = engine.begin(asks(action, **members), snapshot)
    assert isinstance(step, Attempt), step
    return step


def answered(step: Attempt, reply: RemoteAnswer | RemoteFailure) -> Decision:
    with step:
        step.answer(reply)
    return step.decision


def test_a_local_decision_names_rule_owner_and_version(snapshot: Snapshot) -> None:
    decision = Engine(settings()).begin(asks(), snapshot)
    assert isinstance(decision, Decision)
    assert decision == Decision(
        permit=True,
        reason=Reason.PERMITTED,
        rule="read",
        policy="billing",
        owner="payments@example.com",
        revision=snapshot.revision,
        serial=7,
    )


def test_without_a_policy_nothing_is_permitted() -> None:
    decision = Engine(settings()).begin(asks(), None)
    assert isinstance(decision, Decision)
    assert (decision.permit, decision.reason) == (False, Reason.POLICY_UNAVAILABLE)


@pytest.mark.capability("C12")
@pytest.mark.parametrize("action", ["invoice:burn", "invoice:unknown"])
def test_a_local_deny_is_not_put_to_the_decision_point(snapshot: Snapshot, action: str) -> None:
    decision = Engine(settings()).begin(asks(action, sensitive=True), snapshot)
    assert isinstance(decision, Decision)
    assert not decision.permit


@pytest.mark.capability("C12")
@pytest.mark.parametrize("mark", ["rule", "annotation", "settings"])
def test_rule_annotation_or_settings_alone_mark_an_action_sensitive(snapshot: Snapshot, mark: str) -> None:
    app = AppSettings("billing", "production", sensitive=("invoice:re*",) if mark == "settings" else ())
    engine = Engine(settings(app=app))
    action = "invoice:pay" if mark == "rule" else "invoice:read"
    assert isinstance(engine.begin(asks(action, sensitive=mark == "annotation"), snapshot), Attempt)


def test_a_sensitive_action_without_a_decision_point_is_refused(snapshot: Snapshot) -> None:
    decision = Engine(settings(remote=None)).begin(asks("invoice:pay"), snapshot)
    assert isinstance(decision, Decision)
    assert (decision.permit, decision.reason) == (False, Reason.REMOTE_UNAVAILABLE)


@pytest.mark.capability("C29")
@pytest.mark.parametrize(
    ("said", "reason", "permit"),
    [(True, Reason.PERMITTED, True), (False, Reason.REMOTE_DENY, False), (1, Reason.REMOTE_DENY, False)],
)
def test_only_exactly_true_is_a_remote_permit(snapshot: Snapshot, said: Any, reason: Reason, permit: bool) -> None:
    decision = answered(attempt(Engine(settings()), snapshot), RemoteAnswer(said))
    assert (decision.permit, decision.reason) == (permit, reason)
    assert decision.permit is permit
    assert decision.source is Source.REMOTE
    assert decision.rule == "pay"


@pytest.mark.capability("C30")
@pytest.mark.parametrize("kind", list(FailureKind))
def test_no_failure_is_a_permit_where_deny_was_chosen(snapshot: Snapshot, kind: FailureKind) -> None:
    decision = answered(attempt(Engine(settings()), snapshot), RemoteFailure(kind))
    assert not decision.permit
    assert decision.reason is Reason.REMOTE_UNAVAILABLE
    assert decision.fallback is not None
    assert (decision.fallback.trigger, decision.fallback.mode) == (kind.value, FallbackMode.DENY)


@pytest.mark.capability("C31")
@pytest.mark.parametrize("kind", OUTAGES)
def test_an_outage_degrades_to_the_narrower_rules_and_no_further(snapshot: Snapshot, kind: FailureKind) -> None:
    engine = Engine(settings())
    read = answered(attempt(engine, snapshot, "report:read"), RemoteFailure(kind))
    assert (read.permit, read.reason, read.degraded) == (True, Reason.DEGRADED, True)
    engine = Engine(settings())
    assert not answered(attempt(engine, snapshot, "report:write"), RemoteFailure(kind)).permit


@pytest.mark.parametrize("kind", FAULTS)
@pytest.mark.parametrize("action", ["report:read", "invoice:export"])
def test_a_fault_takes_no_fallback(snapshot: Snapshot, kind: FailureKind, action: str) -> None:
    engine = Engine(settings())
    assert answered(attempt(engine, snapshot, action), RemoteAnswer(permit=True)).permit
    later = attempt(engine, snapshot, action, now=NOW + 11)
    assert not answered(later, RemoteFailure(kind)).permit


@pytest.mark.promise("P5")
@pytest.mark.capability("C32")
@pytest.mark.parametrize(
    ("said", "seconds", "who", "permit"),
    [
        (True, 59.9, {}, True),
        (True, 60.0, {}, False),
        (False, 30.0, {}, False),
        (True, -1.0, {}, False),
        (True, 30.0, {"expires_at": NOW + 30}, False),
        (True, 30.0, {"roles": frozenset({"other"})}, False),
        (True, 30.0, {"token_id": "other"}, False),
    ],
)
def test_a_cached_permit_is_bound_by_age_token_and_every_attribute(
    snapshot: Snapshot, said: bool, seconds: float, who: dict[str, Any], permit: bool
) -> None:
    engine = Engine(settings(remote=RemoteSettings("http://127.0.0.1:9")))
    first = {"expires_at": NOW + 30} if "expires_at" in who else {}
    answered(attempt(engine, snapshot, "invoice:export", who=first), RemoteAnswer(said))
    step = attempt(engine, snapshot, "invoice:export", now=NOW + seconds, who=who)
    decision = answered(step, RemoteFailure(FailureKind.DEADLINE))
    assert decision.permit is permit
    if permit:
        assert decision.fallback is not None
        assert (decision.reason, decision.source) == (Reason.CACHED, Source.FALLBACK)
        assert decision.fallback.age_s == pytest.approx(seconds)


@pytest.mark.capability("C32")
def test_a_fallback_is_never_the_source_of_another(snapshot: Snapshot) -> None:
    engine = Engine(settings(remote=RemoteSettings("http://127.0.0.1:9")))
    answered(attempt(engine, snapshot, "invoice:export"), RemoteAnswer(permit=True))
    served = answered(attempt(engine, snapshot, "invoice:export", now=NOW + 50), RemoteFailure(FailureKind.CONNECT))
    assert served.permit
    again = answered(attempt(engine, snapshot, "invoice:export", now=NOW + 70), RemoteFailure(FailureKind.CONNECT))
    assert not again.permit


@pytest.mark.capability("C17", "C32")
def test_a_new_policy_ends_every_cached_permit(snapshot: Snapshot) -> None:
    engine = Engine(settings())
    answered(attempt(engine, snapshot, "invoice:export"), RemoteAnswer(permit=True))
    assert isinstance(engine.begin(asks("invoice:export"), snapshot), Decision)
    changed = compile_policy(parse_policy(POLICY.replace("invoice:burn", "invoice:melt"), "billing.yaml"))
    step = attempt(engine, changed, "invoice:export")
    assert not answered(step, RemoteFailure(FailureKind.CONNECT)).permit


@pytest.mark.capability("C18", "C32")
@pytest.mark.promise("P5")
def test_a_revocation_ends_every_cached_permit(snapshot: Snapshot) -> None:
    engine = Engine(settings())
    answered(attempt(engine, snapshot, "invoice:export"), RemoteAnswer(permit=True))
    assert isinstance(engine.begin(asks("invoice:export"), snapshot, None), Decision)
    step = engine.begin(asks("invoice:export"), snapshot, ("file", 1))
    assert isinstance(step, Attempt)
    assert not answered(step, RemoteFailure(FailureKind.CONNECT)).permit


def test_a_fresh_answer_is_shared_for_its_time_to_live(snapshot: Snapshot) -> None:
    engine = Engine(settings())
    answered(attempt(engine, snapshot), RemoteAnswer(permit=True))
    shared = engine.begin(asks("invoice:pay", now=NOW + 9.9), snapshot)
    assert isinstance(shared, Decision)
    assert (shared.permit, shared.source) == (True, Source.CACHE)
    assert isinstance(engine.begin(asks("invoice:pay", now=NOW + 10), snapshot), Attempt)


@pytest.mark.capability("C34")
def test_an_open_breaker_answers_by_the_fallback_without_asking(snapshot: Snapshot) -> None:
    clock = Clock()
    engine = Engine(settings(), monotonic=clock)
    for _ in range(2):
        answered(attempt(engine, snapshot), RemoteFailure(FailureKind.DEADLINE))
    refused = engine.begin(asks("invoice:pay"), snapshot)
    assert isinstance(refused, Decision)
    assert refused.fallback is not None
    assert refused.fallback.trigger == "breaker_open"
    clock.now += 7
    assert answered(attempt(engine, snapshot), RemoteAnswer(permit=True)).permit
    assert isinstance(engine.begin(asks("invoice:pay", now=NOW + 20), snapshot), Attempt)


@pytest.mark.capability("C45")
def test_an_action_may_have_a_deadline_of_its_own(snapshot: Snapshot) -> None:
    remote = RemoteSettings("http://127.0.0.1:9", deadline=0.2, deadlines={"report:*": 2.0, "report:read": 1.0})
    engine = Engine(settings(remote=remote))
    asked = {action: attempt(engine, snapshot, action) for action in ("invoice:pay", "report:run", "report:read")}
    assert {action: each.query.deadline for action, each in asked.items()} == {
        "invoice:pay": 0.2,
        "report:run": 2.0,
        "report:read": 1.0,
    }


@pytest.mark.promise("P5")
def test_nothing_is_remembered_that_nobody_may_be_answered_by(snapshot: Snapshot) -> None:
    engine = Engine(settings(remote=RemoteSettings("http://127.0.0.1:9")))
    for action in ("invoice:pay", "invoice:export"):
        with attempt(engine, snapshot, action) as asked:
            asked.answer(RemoteAnswer(permit=True))
    assert engine.cache is not None
    assert len(engine.cache) == 1  # of the action whose fallback is `cached`


@pytest.mark.parametrize("kind", [*FAULTS, FailureKind.BUSY])
def test_what_a_caller_can_provoke_does_not_open_the_breaker(snapshot: Snapshot, kind: FailureKind) -> None:
    engine = Engine(settings())
    for _ in range(5):
        answered(attempt(engine, snapshot), RemoteFailure(kind))
    assert engine.breaker is not None
    assert engine.breaker.state is BreakerState.CLOSED


def half_open(snapshot: Snapshot) -> tuple[Engine, Attempt]:
    clock = Clock()
    engine = Engine(settings(), monotonic=clock)
    for _ in range(2):
        answered(attempt(engine, snapshot), RemoteFailure(FailureKind.DEADLINE))
    clock.now += 7
    return engine, attempt(engine, snapshot)


@pytest.mark.parametrize("error", [ValueError, TypeError, RecursionError, ExceptionGroup("x", [OSError()])])
def test_an_exception_while_asking_is_a_refusal(snapshot: Snapshot, error: Any) -> None:
    step = attempt(Engine(settings()), snapshot)
    with step:
        raise error
    assert (step.decision.permit, step.decision.reason) == (False, Reason.ERROR)


def test_leaving_without_an_answer_is_a_refusal(snapshot: Snapshot) -> None:
    with attempt(Engine(settings()), snapshot) as step:
        pass
    assert (step.decision.permit, step.decision.reason) == (False, Reason.ERROR)


@pytest.mark.parametrize("error", [asyncio.CancelledError, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_cancellation_passes_on_and_gives_the_probe_back(snapshot: Snapshot, error: type[BaseException]) -> None:
    engine, probe = half_open(snapshot)
    assert isinstance(engine.begin(asks("invoice:pay"), snapshot), Decision)
    with pytest.raises(error), probe:
        raise error
    assert (probe.decision.permit, probe.decision.reason) == (False, Reason.CANCELLED)
    assert isinstance(engine.begin(asks("invoice:pay"), snapshot), Attempt)


@pytest.mark.parametrize("error", [ValueError, MemoryError, RecursionError])
def test_an_error_while_deciding_is_a_refusal(error: type[Exception]) -> None:
    class Broken:
        def evaluate(self, _: object) -> Decision:
            raise error

    decision = Engine(settings()).begin(asks(), Broken())  # type: ignore[arg-type]
    assert isinstance(decision, Decision)
    assert (decision.permit, decision.reason) == (False, Reason.ERROR)


@pytest.mark.capability("C27")
def test_what_cannot_be_asked_in_json_is_a_refusal(snapshot: Snapshot) -> None:
    from authz_middleware.resource import Resource

    strange = Resource("invoice", "1", {"amount": object()}, NOW)
    decision = Engine(settings()).begin(asks("invoice:pay", resource=strange), snapshot)
    assert isinstance(decision, Decision)
    assert not decision.permit


@pytest.mark.parametrize(
    ("who", "permission", "reason"),
    [
        ({"expires_at": NOW - 60}, {}, Reason.CREDENTIAL_INVALID),
        ({"environment": "staging"}, {}, Reason.ENVIRONMENT_MISMATCH),
        ({"environment": None}, {}, Reason.ENVIRONMENT_MISMATCH),
        ({"dropped_actors": 1}, {}, Reason.ACTOR_DEPTH),
        ({"kind": "agent", "subject_kind": "human"}, {"kinds": frozenset({"human"})}, Reason.KIND_REFUSED),
        ({"kind": "human", "subject_kind": None}, {"kinds": frozenset({"human"})}, Reason.KIND_REFUSED),
        ({"kind": "agent", "subject_kind": "human"}, {"kinds": frozenset({"agent"})}, Reason.KIND_REFUSED),
        ({}, {"accountable": True}, Reason.ACTOR_REQUIRED),
        ({"client": "alice"}, {"accountable": True}, Reason.ACTOR_REQUIRED),
        ({"task": "b"}, {"tasks": frozenset({"a"})}, Reason.TASK_MISMATCH),
        ({}, {"tasks": frozenset({"a"})}, Reason.TASK_MISMATCH),
        ({"purpose": "b"}, {"purposes": frozenset({"a"})}, Reason.PURPOSE_MISMATCH),
        ({}, {"purposes": frozenset({"a"})}, Reason.PURPOSE_MISMATCH),
    ],
)
def test_a_border_is_not_crossed_whatever_the_policy_permits(
    snapshot: Snapshot, who: dict[str, Any], permission: dict[str, Any], reason: Reason
) -> None:
    decision = Engine(settings()).begin(asks(who=who, **permission), snapshot)
    assert isinstance(decision, Decision)
    assert (decision.permit, decision.reason, decision.revision) == (False, reason, snapshot.revision)


replies = st.one_of(
    st.builds(RemoteAnswer, st.sampled_from([False, 0, 1, "true", None, [True]])),
    st.builds(RemoteFailure, st.sampled_from(list(FailureKind))),
)


@pytest.mark.promise("P4")
@given(st.lists(replies, max_size=8))
def test_no_sequence_of_anything_but_true_ends_in_a_permit_where_deny_was_chosen(given_replies: list[Any]) -> None:
    policy = compile_policy(parse_policy(POLICY, "billing.yaml"))
    engine = Engine(settings(), monotonic=Clock())
    for number, reply in enumerate(given_replies):
        step = engine.begin(asks("invoice:pay", now=NOW + number), policy)
        decision = answered(step, reply) if isinstance(step, Attempt) else step
        assert not decision.permit
