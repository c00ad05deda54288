"""What an answer of the decision point comes to: with a step-up that is met or not, of a person or of nobody."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authz_middleware.advice import NO_ADVICE, Advice, Obligation, is_obligation_id
from authz_middleware.decision import Decision, Reason, Source
from authz_middleware.remote.verdict import CONDITIONAL, decided
from authz_middleware.step_up import StepUp, is_met
from tests.support.alice import NOW, asks

LOCAL = Decision(permit=True, reason=Reason.PERMITTED, rule="pay", policy="billing", revision="ab" * 32, serial=7)
PHR = Advice(step_up=StepUp(("phr",)))
PERSON = {"subject_kind": "human"}


def verdict(
    *,
    permit: bool,
    advice: Advice = NO_ADVICE,
    who: dict[str, Any] | None = None,
    source: Source = Source.REMOTE,
    step_up: StepUp | None = None,
    **more: Any,
) -> Decision:
    question = asks("invoice:pay", who=who, step_up=step_up)
    return decided(LOCAL, permit=permit, advice=advice, question=question, source=source, **more)


@pytest.mark.capability("C29")
@pytest.mark.parametrize("source", [Source.REMOTE, Source.CACHE])
def test_an_answer_without_advice_keeps_the_rule_and_the_version_of_the_local_permit(source: Source) -> None:
    for permit, reason in ((True, Reason.PERMITTED), (False, Reason.REMOTE_DENY)):
        assert verdict(permit=permit, source=source) == Decision(
            permit=permit,
            reason=reason,
            source=source,
            rule="pay",
            policy="billing",
            revision="ab" * 32,
            serial=7,
            sensitive=True,
        )


@pytest.mark.promise("P4")
@pytest.mark.parametrize("permit", [1, "true", None, [True], 0])
def test_only_true_is_a_permit(permit: Any) -> None:
    assert verdict(permit=permit).permit is False


STEP_UPS: dict[str, tuple[bool, dict[str, Any], Advice, Reason, StepUp | None, str | None]] = {
    "deny, a person": (
        False, PERSON, PHR, Reason.AUTHENTICATION_INSUFFICIENT, StepUp(("phr",)), None,
    ),
    "deny, a person behind an agent": (
        False, {**PERSON, "kind": "agent"}, PHR, Reason.AUTHENTICATION_INSUFFICIENT, StepUp(("phr",)), None,
    ),
    "deny, already met": (False, {**PERSON, "acr": "phr"}, PHR, Reason.REMOTE_DENY, None, None),
    "deny, a workload": (False, {"subject_kind": "workload"}, PHR, Reason.REMOTE_DENY, None, None),
    "deny, nobody knows who": (False, {}, PHR, Reason.REMOTE_DENY, None, None),
    "deny, too long ago": (
        False, {**PERSON, "authenticated_at": NOW - 301}, Advice(step_up=StepUp((), 300)),
        Reason.AUTHENTICATION_INSUFFICIENT, StepUp((), 300), None,
    ),
    "deny, just now": (
        False, {**PERSON, "authenticated_at": NOW - 300}, Advice(step_up=StepUp((), 300)),
        Reason.REMOTE_DENY, None, None,
    ),
    "permit, met": (True, {**PERSON, "acr": "phr"}, PHR, Reason.PERMITTED, None, None),
    "permit, met by a workload": (True, {"acr": "phr"}, PHR, Reason.PERMITTED, None, None),
    "permit, not met": (
        True, {**PERSON, "acr": "pwd"}, PHR, Reason.AUTHENTICATION_INSUFFICIENT, StepUp(("phr",)), CONDITIONAL,
    ),
    "permit, not met by a workload": (
        True, {"subject_kind": "workload"}, PHR, Reason.AUTHENTICATION_INSUFFICIENT, None, CONDITIONAL,
    ),
}  # fmt: skip


@pytest.mark.capability("C25")
@pytest.mark.parametrize("source", [Source.REMOTE, Source.CACHE])
@pytest.mark.parametrize("name", STEP_UPS)
def test_a_step_up_is_asked_of_people_who_have_not_done_it(name: str, source: Source) -> None:
    permit, who, advice, reason, told, detail = STEP_UPS[name]
    decision = verdict(permit=permit, advice=advice, who=who, source=source)
    assert (decision.reason, decision.step_up, decision.detail) == (reason, told, detail)
    assert decision.permit is (reason is Reason.PERMITTED)
    assert decision.source is source
    assert decision.advice == advice


@pytest.mark.capability("C25")
def test_who_is_told_to_authenticate_is_told_all_that_is_asked_at_once() -> None:
    decision = verdict(permit=False, advice=PHR, who=PERSON, step_up=StepUp(("mfa", "phr"), 300))
    assert decision.step_up == StepUp(("phr",), 300)
    decision = verdict(permit=False, advice=PHR, who=PERSON, ways=[StepUp(("mfa",)), StepUp((), 60)])
    assert decision.step_up == StepUp(("phr",), 60)


@pytest.mark.capability("C25")
@pytest.mark.parametrize(
    "asked", [{"step_up": StepUp(("mfa",))}, {"ways": [StepUp(("mfa",))]}, {"ways": []}], ids=["route", "rules", "none"]
)
def test_nobody_is_sent_to_authenticate_for_a_token_that_would_be_refused(asked: dict[str, Any]) -> None:
    decision = verdict(permit=False, advice=PHR, who=PERSON, **asked)
    assert (decision.reason, decision.step_up) == (Reason.REMOTE_DENY, None)
    decision = verdict(permit=True, advice=PHR, who=PERSON, **asked)
    assert (decision.permit, decision.reason, decision.step_up) == (False, Reason.AUTHENTICATION_INSUFFICIENT, None)


@pytest.mark.capability("C25")
def test_a_remembered_permit_is_judged_at_the_time_that_it_is_served() -> None:
    recent = Advice(step_up=StepUp((), 300))
    who = {**PERSON, "authenticated_at": NOW - 290}
    assert verdict(permit=True, advice=recent, who=who, source=Source.CACHE).permit
    assert not verdict(permit=True, advice=recent, who=who, source=Source.CACHE, now=NOW + 11).permit


@pytest.mark.promise("P4")
def test_what_one_request_does_to_its_obligations_no_other_sees() -> None:
    advice = Advice(obligations=(Obligation("log", {"to": ["audit"]}),))
    decision = verdict(permit=True, advice=advice)
    assert decision.advice == advice
    assert decision.advice is not None
    decision.advice.obligations[0].attributes["to"].append("nobody")
    assert advice.obligations[0].attributes == {"to": ["audit"]}


@pytest.mark.promise("P6")
def test_what_the_decision_point_says_is_in_no_repr() -> None:
    advice = Advice("hush-user", "hush-admin", None, (Obligation("log", {"key": "hush-key"}),))
    for shown in (repr(advice), repr(advice.obligations[0]), repr(verdict(permit=False, advice=advice))):
        assert "log" in shown
        assert "hush" not in shown


@pytest.mark.parametrize("value", ["log-access", "urn:example:notify", "a" * 128])
def test_a_word_is_an_obligation_id(value: str) -> None:
    assert is_obligation_id(value)


@pytest.mark.parametrize("value", ["", "a" * 129, "a b", 'a"', "a\\", "a\n", "ä", None, 7, b"a", ["a"]])
def test_anything_else_is_none(value: object) -> None:
    assert not is_obligation_id(value)


acr = st.sampled_from(["phr", "mfa", "pwd"])
step_ups = st.builds(StepUp, st.lists(acr, max_size=2, unique=True).map(tuple), st.none() | st.integers(1, 400))
people = st.fixed_dictionaries(
    {
        "subject_kind": st.sampled_from(["human", "workload", None]),
        "acr": st.none() | acr,
        "authenticated_at": st.none() | st.integers(0, 500).map(lambda age: NOW - age),
    }
)


@pytest.mark.capability("C25")
@settings(deadline=None)
@given(st.booleans(), st.none() | step_ups, people, st.none() | step_ups, st.lists(step_ups, max_size=3))
def test_a_permit_takes_a_permit_and_whoever_does_as_told_is_not_told_so_again(
    permit: bool, asked: StepUp | None, who: dict[str, Any], route: StepUp | None, ways: list[StepUp]
) -> None:
    question = asks("invoice:pay", who=who, step_up=route)
    met = asked is None or is_met(asked, question.principal, NOW)
    advice = Advice(step_up=asked)
    decision = decided(LOCAL, permit=permit, advice=advice, question=question, source=Source.REMOTE, ways=ways)
    assert decision.permit is (permit and met)
    told = decision.step_up
    if told is None:
        return
    assert who["subject_kind"] == "human"
    assert decision.reason is Reason.AUTHENTICATION_INSUFFICIENT
    for value in told.acr_values or ("any",):
        obtained = asks("invoice:pay", who={**who, "acr": value, "authenticated_at": NOW}, step_up=route)
        assert route is None or is_met(route, obtained.principal, NOW)
        assert any(is_met(way, obtained.principal, NOW) for way in ways)
        again = decided(LOCAL, permit=permit, advice=advice, question=obtained, source=Source.REMOTE, ways=ways)
        assert again.step_up is None
