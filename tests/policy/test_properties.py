"""Random policies and questions: the compiled evaluator against the naive one, and the promises that always hold."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authz_middleware.decision import Reason
from authz_middleware.policy import model
from authz_middleware.policy.compiler import compile_policy
from authz_middleware.policy.model import AllOf, AnyOf, InputDeclaration, Match, Not, Policy, Rule
from authz_middleware.question import Question
from authz_middleware.step_up import StepUp
from tests.policy.naive import YES, Naive
from tests.support.policies import NOON, ask

LABELS = {"secrecy": ("public", "internal", "restricted")}
INPUTS = (
    InputDeclaration("resource.amount", "application", max_age=30.0),
    InputDeclaration("resource.tenant", "application"),
    InputDeclaration("resource.tags", "application"),
    InputDeclaration("resource.secrecy", "application", labels="secrecy"),
    InputDeclaration("subject.clearance", "token", labels="secrecy"),
    InputDeclaration("subject.roles", "token", max_age=300.0),
    InputDeclaration("subject.level", "token"),
)
ACTIONS = ["a:b:c", "a:b", "a:x", "b", "a"]
PATTERNS = ["a:b:c", "a:b", "b", "a:b:*", "a:*", "*"]
NAMES = ["a", "b", "c"]

names = st.sampled_from(NAMES)
name_lists = st.lists(names, min_size=1, max_size=2).map(tuple)
labels = st.sampled_from(LABELS["secrecy"])
numbers = st.sampled_from([0, 1, 2, 0.5, 1.0, -3])
clocks = st.sampled_from(["00:00", "08:00", "12:00", "18:00", "23:59:59", "24:00"])


def match(inputs: list[str], matcher: st.SearchStrategy[Any]) -> st.SearchStrategy[Match]:
    return st.builds(Match, st.sampled_from(inputs), matcher)


TEXTS = [
    *("subject.acr", "subject.tenant", "context.purpose", "context.task", "subject.client", "resource.tenant"),
    "subject.level",
]
SETS = ["subject.scopes", "subject.roles", "resource.tags"]
REFS = st.builds(model.InputRef, st.sampled_from(["resource.amount", "resource.tags"]))
LABEL_REFS = st.builds(model.InputRef, st.sampled_from(["subject.clearance", "resource.secrecy"]))

windows = st.builds(
    model.Between,
    clocks.filter(lambda clock: clock != "24:00"),
    clocks,
    st.sampled_from(["UTC", "Europe/Berlin"]),
    st.sampled_from([(), ("mon",), ("sat", "sun")]),
).filter(lambda window: window.start != window.end)

plain_matches = st.one_of(
    match(["subject.kind"], st.builds(model.Equals, st.sampled_from(["human", "agent"]))),
    match(TEXTS, st.builds(model.Equals, names)),
    match(TEXTS, st.builds(model.OneOf, name_lists)),
    match(TEXTS, st.builds(model.StartsWith, names)),
    match(["resource.tenant"], st.builds(model.SameAs, st.sampled_from(["subject.tenant", "subject.level"]))),
    match(SETS, st.one_of(st.builds(model.Has, names), st.builds(model.HasAny, name_lists))),
    match(SETS, st.builds(model.HasAll, name_lists)),
    match(["resource.amount", "subject.level"], st.builds(model.Equals, numbers | st.booleans())),
    match(["resource.amount", "subject.level"], st.builds(model.AtMost, numbers | REFS)),
    match(["resource.amount", "subject.level"], st.builds(model.AtLeast, numbers | REFS)),
    match(["resource.tags"], st.builds(model.Has, numbers | st.booleans())),
    match(["resource.secrecy", "subject.clearance"], st.builds(model.AtMost, labels | LABEL_REFS)),
    match(["resource.secrecy", "subject.clearance"], st.builds(model.Equals, labels)),
    match(["context.time"], windows),
)
exist_matches = match([*TEXTS, *SETS, "resource.amount", "resource.secrecy"], st.builds(model.Exists, st.booleans()))


def conditions(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.builds(AllOf, st.lists(inner, min_size=1, max_size=3).map(tuple)),
            st.builds(AnyOf, st.lists(inner, min_size=1, max_size=3).map(tuple)),
            st.builds(Not, inner),
        ),
        max_leaves=5,
    )


authentications = st.none() | st.builds(
    StepUp, st.lists(names, max_size=2, unique=True).map(tuple), st.none() | st.sampled_from([60, 300])
).filter(lambda asked: asked != StepUp())


@st.composite
def policies(draw: st.DrawFn, leaves: st.SearchStrategy[Any] = plain_matches | exist_matches) -> Policy:
    rules = []
    for number in range(draw(st.integers(0, 5))):
        effect = draw(st.sampled_from(["permit", "permit", "permit", "deny"]))
        rules.append(
            Rule(
                f"r{number}",
                effect,  # type: ignore[arg-type]
                tuple(draw(st.lists(st.sampled_from(PATTERNS), min_size=1, max_size=2, unique=True))),
                draw(conditions(leaves)),
                sensitive=effect == "permit" and draw(st.booleans()),
                authentication=draw(authentications) if effect == "permit" else None,
            )
        )
    return Policy(name="p", owner="o", inputs=INPUTS, labels=LABELS, rules=tuple(rules))


odd = st.sampled_from(
    [None, True, False, 0, 1, 2, 0.5, float("nan"), Decimal(1), Decimal("NaN"), "a", "1", "", "ab", [], {}, ["a"]]
)
tags = st.lists(st.sampled_from(["a", "b", "c", 1, True, None, float("nan")]), max_size=3)
attribute_sets = st.none() | st.fixed_dictionaries(
    {},
    optional={
        "amount": numbers | odd,
        "tenant": names | odd,
        "tags": tags | odd,
        "secrecy": labels | st.sampled_from(["Public", "secret"]) | odd,
    },
)


@st.composite
def questions(draw: st.DrawFn) -> Question:
    now = NOON + draw(st.integers(0, 8 * 24 * 12)) * 300
    maybe_name = st.none() | names
    return ask(
        draw(st.sampled_from(ACTIONS)),
        attributes=draw(attribute_sets),
        as_of=draw(st.sampled_from([None, now, now - 30, now - 31, now + 61])),
        now=now,
        issued_at=draw(st.sampled_from([now, now - 301])),
        scopes=frozenset(draw(st.lists(names, max_size=2))),
        roles=frozenset(draw(st.lists(names, max_size=2))),
        tenant=draw(maybe_name),
        purpose=draw(maybe_name),
        task=draw(maybe_name),
        client=draw(maybe_name),
        kind=draw(st.sampled_from([None, "human", "agent"])),
        clearance=draw(st.none() | labels | st.just("secret")),
        acr=draw(maybe_name),
        authenticated_at=draw(st.sampled_from([None, now, now - 60, now - 61, now - 301, now + 61])),
        subject_kind=draw(st.sampled_from([None, "human", "workload"])),
        claims=draw(st.sampled_from([{}, {"level": "a"}, {"level": 1}, {"level": True}])),
    )


def replaced(question: Question, **changes: Any) -> Question:
    """The question with fields of its principal or resource replaced."""
    principal, resource = question.principal, question.resource
    for name, value in changes.items():
        if name in resource.__struct_fields__:
            resource = msgspec.structs.replace(resource, **{name: value})
        else:
            principal = msgspec.structs.replace(principal, **{name: value})
    return msgspec.structs.replace(question, principal=principal, resource=resource)


def with_less(question: Question) -> list[Question]:
    """The same question with one input taken away, in every way there is."""
    lesser = [
        replaced(question, **{name: empty})
        for name, empty in [
            ("scopes", frozenset()),
            ("roles", frozenset()),
            ("tenant", None),
            ("purpose", None),
            ("task", None),
            ("client", None),
            ("kind", None),
            ("clearance", None),
            ("acr", None),
            ("authenticated_at", None),
            ("claims", {}),
            ("attributes", None),
            ("as_of", None),
            ("issued_at", 0.0),
        ]
    ]
    attributes = question.resource.attributes or {}
    for gone in attributes:
        rest = {name: value for name, value in attributes.items() if name != gone}
        lesser.append(replaced(question, attributes=rest))
    return lesser


@pytest.mark.capability("C1", "C27", "C44", "C52")
@settings(max_examples=200, deadline=None)
@given(policies(), questions())
def test_the_compiled_evaluator_agrees_with_the_naive_one(policy: Policy, question: Question) -> None:
    decision = compile_policy(policy).evaluate(question)
    naive = Naive(policy, question)
    assert (decision.permit, decision.sensitive) == naive.decide()
    assert decision.rule in naive.rules_that_could_name()


@pytest.mark.promise("P2")
@pytest.mark.capability("C27")
@settings(max_examples=80, deadline=None)
@given(policies(plain_matches), questions())
def test_an_input_that_goes_missing_never_brings_a_permit(policy: Policy, question: Question) -> None:
    snapshot = compile_policy(policy)
    if not snapshot.evaluate(question).permit:
        for lesser in with_less(question):
            assert not snapshot.evaluate(lesser).permit


@pytest.mark.promise("P2")
@pytest.mark.capability("C27")
@settings(max_examples=80, deadline=None)
@given(policies(), questions())
def test_an_input_that_goes_stale_never_brings_a_permit(policy: Policy, question: Question) -> None:
    """Whatever the rules ask about existence: an old look is not a look."""
    snapshot = compile_policy(policy)
    if not snapshot.evaluate(question).permit:
        for lesser in (replaced(question, as_of=None), replaced(question, issued_at=0.0)):
            assert not snapshot.evaluate(lesser).permit


@pytest.mark.capability("C44")
@settings(max_examples=80, deadline=None)
@given(policies(), questions(), conditions(plain_matches | exist_matches), st.sampled_from(PATTERNS))
def test_a_further_deny_rule_never_brings_a_permit(policy: Policy, question: Question, when: Any, pattern: str) -> None:
    stricter = msgspec.structs.replace(policy, rules=(*policy.rules, Rule("further", "deny", (pattern,), when)))
    if not compile_policy(policy).evaluate(question).permit:
        assert not compile_policy(stricter).evaluate(question).permit


@settings(max_examples=80, deadline=None)
@given(policies(), questions(), attribute_sets)
def test_attributes_that_are_not_needed_change_nothing(policy: Policy, question: Question, found: Any) -> None:
    snapshot = compile_policy(policy)
    blind = replaced(question, attributes=None)
    if not snapshot.needs_attributes(blind):
        before = snapshot.evaluate(blind)
        after = snapshot.evaluate(replaced(blind, attributes=found, as_of=question.now))
        assert (before.permit, before.sensitive) == (after.permit, after.sensitive)
        assert before.step_up == after.step_up


@pytest.mark.capability("C2")
@settings(max_examples=80, deadline=None)
@given(policies(), questions())
def test_helpful_scopes_would_have_made_a_permit_rule_apply(policy: Policy, question: Question) -> None:
    decision = compile_policy(policy).evaluate(question)
    if decision.helpful_scopes:
        assert not decision.permit
        granted = Naive(policy, replaced(question, scopes=question.principal.scopes | set(decision.helpful_scopes)))
        covering = [rule for rule in policy.rules if any(granted.covers(pattern) for pattern in rule.actions)]
        permits = [rule for rule in covering if rule.effect == "permit" and granted.judge(rule.condition) == YES]
        person = question.principal.subject_kind == "human"
        assert any(person or granted.authenticated(rule) for rule in permits)


@pytest.mark.promise("P2")
@pytest.mark.capability("C25")
@settings(max_examples=150, deadline=None)
@given(policies(), questions())
def test_a_step_up_is_told_exactly_where_it_is_all_that_is_lacking(policy: Policy, question: Question) -> None:
    decision, naive = compile_policy(policy).evaluate(question), Naive(policy, question)
    covering = [rule for rule in policy.rules if any(naive.covers(pattern) for pattern in rule.actions)]
    denied = any(rule.effect == "deny" and naive.applies(rule) for rule in covering)
    holding = [rule for rule in covering if rule.effect == "permit" and naive.judge(rule.condition) == YES]
    lacking = not denied and bool(holding) and not any(naive.authenticated(rule) for rule in holding)
    assert (decision.reason is Reason.AUTHENTICATION_INSUFFICIENT) is lacking
    assert (decision.step_up is not None) is (lacking and question.principal.subject_kind == "human")


@pytest.mark.capability("C25")
@settings(max_examples=150, deadline=None)
@given(policies(), questions())
def test_whoever_steps_up_as_told_is_permitted(policy: Policy, question: Question) -> None:
    snapshot = compile_policy(policy)
    told = snapshot.evaluate(question).step_up
    if told is not None and not any("acr" in str(rule.condition) for rule in policy.rules):
        for acr in told.acr_values or (question.principal.acr,):
            assert snapshot.evaluate(replaced(question, acr=acr, authenticated_at=question.now)).permit


@pytest.mark.capability("C27")
@settings(max_examples=80, deadline=None)
@given(policies(), questions())
def test_every_input_that_is_blamed_is_lacking(policy: Policy, question: Question) -> None:
    decision = compile_policy(policy).evaluate(question)
    naive = Naive(policy, question)
    for name in decision.missing_inputs:
        assert not isinstance(naive.raw(name), str | int | float | frozenset | list | Decimal)
    for name in decision.stale_inputs:
        assert not naive.fresh(name)


@pytest.mark.capability("C52")
@settings(max_examples=80, deadline=None)
@given(policies(), questions())
def test_the_same_question_gives_the_same_decision(policy: Policy, question: Question) -> None:
    one, other = compile_policy(policy), compile_policy(msgspec.structs.replace(policy))
    first = one.evaluate(question)
    assert first == one.evaluate(question) == other.evaluate(question)
    assert msgspec.json.encode(first) == msgspec.json.encode(other.evaluate(question))
