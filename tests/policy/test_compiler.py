"""Compilation: what is shared, what is refused, and that nothing can be changed afterwards."""

from __future__ import annotations

import socket
from typing import Any

import msgspec
import pytest

from authz_middleware.errors import PolicyError
from authz_middleware.policy.compiler import compile_policy
from authz_middleware.policy.document import parse_policy
from authz_middleware.policy.model import (
    AllOf,
    Always,
    AnyOf,
    AtMost,
    Between,
    Condition,
    Equals,
    Exists,
    Has,
    InputDeclaration,
    Match,
    Not,
    OneOf,
    Policy,
    PolicyTest,
    Rule,
    StartsWith,
)
from authz_middleware.policy.snapshot import Snapshot
from authz_middleware.step_up import StepUp
from tests.support.policies import BILLING, ask, rules_document, snapshot_of


def policy_of(*conditions: Condition, **fields: Any) -> Policy:
    """A policy with one permit rule for each condition, of the actions `act:0`, `act:1` …"""
    rules = tuple(Rule(f"r{i}", "permit", (f"act:{i}",), condition) for i, condition in enumerate(conditions))
    inputs = (InputDeclaration("resource.x", "application"),)
    return Policy(**{"name": "p", "owner": "o", "inputs": inputs, "rules": rules, **fields})


def test_of(snapshot: Snapshot, action: str) -> Any:
    plan = snapshot._find(action)
    assert plan is not None
    return plan.test


test_of.__test__ = False  # type: ignore[attr-defined]


def test_equal_conditions_are_one_closure() -> None:
    scope, kind = Match("subject.scopes", Has("a")), Match("subject.kind", Equals("agent"))
    snapshot = compile_policy(
        policy_of(AllOf((scope, kind)), AllOf((Match("subject.scopes", Has("a"), line=9), kind)), scope, Not(kind))
    )
    assert test_of(snapshot, "act:0") is test_of(snapshot, "act:1")
    assert len({test_of(snapshot, f"act:{i}") for i in range(4)}) == 3


def test_equal_rules_but_for_their_authentication_are_not_one_closure() -> None:
    asked = [None, StepUp(("phr",)), StepUp(("phr",)), StepUp(("phr",), 60), StepUp((), 60)]
    rules = tuple(Rule(f"r{i}", "permit", (f"act:{i}",), Always(), authentication=each) for i, each in enumerate(asked))
    snapshot = compile_policy(policy_of(rules=rules))
    assert test_of(snapshot, "act:1") is test_of(snapshot, "act:2")
    assert len({test_of(snapshot, f"act:{i}") for i in range(5)}) == 4


def test_a_revision_depends_on_the_authentication_that_is_asked_for() -> None:
    asked = [None, StepUp(("a", "b")), StepUp(("b", "a")), StepUp(("a", "b"), 60), StepUp(("a", "b"), 61)]
    revisions = [
        compile_policy(policy_of(rules=(Rule("r", "permit", ("act",), Always(), authentication=each),))).revision
        for each in asked
    ]
    assert len(set(revisions)) == 5


def test_a_policy_that_asks_for_no_authentication_keeps_its_revision() -> None:
    """Revisions stand in records and in signed bundles; a new key of the format must not change them."""
    revision = "3e30e5edccbe3b4a719ab70a161535678007208ebcab373aa4183d912000fdad"
    assert compile_policy(policy_of(Always())).revision == revision


def test_a_snapshot_names_the_scopes_that_its_permits_ask_for() -> None:
    rules = """\
    - {rule: a, permit: a, when: {subject.scopes: {has: read}}}
    - {rule: b, permit: b, authentication: {acr: phr}, when: {any: [{subject.scopes: {has_any: [write, x]}}]}}
    - {rule: c, permit: c, when: {not: {subject.scopes: {has: banned}}, subject.roles: {has: manager}}}
    - {rule: d, deny: "*", when: {subject.scopes: {has: frozen}}}
    """
    assert snapshot_of(rules_document(rules)).scopes == {"read", "write", "x"}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Equals(1), Equals(True)),
        (Equals(1), Equals("1")),
        (Equals(0), Equals(False)),
        (OneOf((1, 0)), OneOf((True, False))),
        (Equals("a"), Has("a")),
        (AtMost(1), Equals(1)),
        (Exists(True), Equals(True)),
    ],
)
def test_conditions_that_only_python_takes_for_equal_are_not_shared(one: Any, other: Any) -> None:
    snapshot = compile_policy(policy_of(Match("resource.x", one), Match("resource.x", other)))
    assert test_of(snapshot, "act:0") is not test_of(snapshot, "act:1")


def test_a_condition_keeps_its_type_whatever_was_compiled_before_it() -> None:
    snapshot = compile_policy(policy_of(Match("resource.x", Equals(1)), Match("resource.x", Equals(True))))
    assert snapshot.evaluate(ask("act:0", attributes={"x": 1})).permit
    assert not snapshot.evaluate(ask("act:1", attributes={"x": 1})).permit
    assert snapshot.evaluate(ask("act:1", attributes={"x": True})).permit


@pytest.mark.capability("C52")
def test_a_rule_hands_out_one_decision() -> None:
    snapshot = compile_policy(policy_of(Always()))
    assert snapshot.evaluate(ask("act:0")) is snapshot.evaluate(ask("act:0", tenant="other"))


@pytest.mark.capability("C52")
def test_a_policy_compiled_twice_decides_alike_to_the_byte() -> None:
    one, other = snapshot_of(BILLING), snapshot_of(BILLING)
    for action in ("invoice:read", "invoice:refund", "report:a", "unknown"):
        for attributes in (None, {}, {"amount": 5, "tenant": "acme", "classification": "public"}):
            question = ask(action, attributes=attributes, tenant="acme", clearance="internal", kind="human")
            assert msgspec.json.encode(one.evaluate(question)) == msgspec.json.encode(other.evaluate(question))


def test_a_revision_depends_on_what_is_said_and_not_on_the_layout() -> None:
    relaid = BILLING.replace("{from: token}", "{ from:  'token' }  # a comment").replace("rules:\n", "\n\nrules:\n")
    assert parse_policy(relaid, "other.yaml").rules[0].line != parse_policy(BILLING, "billing.yaml").rules[0].line
    assert snapshot_of(relaid).revision == snapshot_of(BILLING).revision


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("policy: billing", "policy: payroll"),
        ("owner: payments", "owner: others"),
        ("max_age: 30s", "max_age: 31s"),
        ("public, internal", "internal, public"),
        ("at_most: 500", "at_most: 500.5"),
        ("has: invoices.read", "has: invoices.write"),
        ("sensitive: true", "sensitive: false"),
        ("owner: refunds@", "owner: refund@"),
        ("read-only:", "no-writes:"),
        ("rule: no-agents-at-night", "rule: no-agents"),
        ("zone: Europe/Berlin", "zone: UTC"),
        ("at: 2026-03-02T23:00:00Z", "at: 2026-03-02T23:00:01Z"),
    ],
)
def test_a_revision_changes_with_everything_that_is_said(old: str, new: str) -> None:
    assert old in BILLING
    assert snapshot_of(BILLING.replace(old, new)).revision != snapshot_of(BILLING).revision


def test_a_serial_is_carried_by_the_snapshot_and_its_decisions() -> None:
    snapshot = compile_policy(policy_of(Always()), serial=7)
    assert (snapshot.serial, snapshot.name, snapshot.owner) == (7, "p", "o")
    assert [snapshot.evaluate(ask(action)).serial for action in ("act:0", "none")] == [7, 7]
    assert "serial=7" in repr(snapshot)


@pytest.mark.parametrize("name", ["_find", "_fallthrough", "rule_sets", "sensitive_actions", "evaluate", "new"])
def test_a_snapshot_cannot_be_changed(name: str) -> None:
    snapshot = snapshot_of(BILLING)
    with pytest.raises(AttributeError):
        setattr(snapshot, name, None)
    with pytest.raises(AttributeError):
        delattr(snapshot, name)


def test_the_parts_of_a_snapshot_cannot_be_changed() -> None:
    snapshot = snapshot_of(BILLING)
    with pytest.raises(TypeError):
        snapshot.rule_sets["other"] = snapshot  # type: ignore[index]
    plan = snapshot._find("invoice:read")
    assert plan is not None
    with pytest.raises(AttributeError):
        plan.test = lambda question: True  # type: ignore[misc]
    with pytest.raises(AttributeError):
        plan.denies[0].test = lambda question: False  # type: ignore[misc]


def test_a_snapshot_does_not_follow_what_it_was_compiled_from() -> None:
    labels = {"l": ("low", "high")}
    degrade = {"d": (Rule("q", "permit", ("act:0",), Always()),)}
    condition = Match("resource.x", AtMost("low"))
    inputs = (InputDeclaration("resource.x", "application", labels="l"),)
    snapshot = compile_policy(policy_of(condition, inputs=inputs, labels=labels, degrade=degrade))
    labels["l"] = ("high", "low")
    degrade.clear()
    assert not snapshot.evaluate(ask("act:0", attributes={"x": "high"})).permit
    assert list(snapshot.rule_sets) == ["d"]


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        (Match("resource.nothing", Equals("a")), "is not declared"),
        (Match("resource.x", Equals(None)), "must compare with text"),  # type: ignore[arg-type]
        (Match("resource.x", Equals(float("nan"))), "must compare with text"),
        (Match("resource.x", OneOf(())), "must compare with text"),
        (Match("resource.x", AtMost(float("inf"))), "must be a finite number"),
        (Match("resource.x", AtMost([])), "must be a finite number"),  # type: ignore[arg-type]
        (Match("resource.x", StartsWith(5)), "must be a text"),  # type: ignore[arg-type]
        (Match("resource.x", Exists(1)), "must be true or false"),  # type: ignore[arg-type]
        (Match("resource.x", "equals"), "cannot be matched"),  # type: ignore[arg-type]
        (Match("context.time", Between("x", "y", "Nowhere")), "'between' has 'x'"),
        (Match("context.time", Between(8, 9, 10)), "'between' has 8"),  # type: ignore[arg-type]
        (Match(5, Equals("a")), "there is no input 5"),  # type: ignore[arg-type]
        (AllOf(()), "an empty list of conditions"),
        (AnyOf(()), "an empty list of conditions"),
        (None, "None is not a condition"),
        ("always", "'always' is not a condition"),
    ],
)
def test_a_policy_built_in_memory_is_checked_like_one_that_was_read(condition: Any, said: str) -> None:
    with pytest.raises(PolicyError, match="policy: rule 'r0'") as caught:
        compile_policy(policy_of(condition))
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"name": ""}, "'policy' must be a name"),
        ({"owner": "a\nb"}, "'owner' must be a name"),
        ({"rules": (Rule("r", "allow", ("a",), Always()),)}, "effect must be permit or deny"),  # type: ignore[arg-type]
        ({"rules": (Rule("", "deny", ("a",), Always()),)}, "rule must be a name"),
        ({"rules": (Rule("r", "deny", (), Always()),)}, "must name one or more actions"),
        ({"rules": (Rule("r", "deny", (5,), Always()),)}, "5 is not an action pattern"),  # type: ignore[arg-type]
        ({"rules": (Rule("r", "deny", ("a",), Always(), owner=" "),)}, "owner must be a name"),
        ({"rules": (Rule("r", "deny", ("a",), Always(), authentication=StepUp(("a",))),)}, "by a permit"),
        ({"rules": (Rule("r", "permit", ("a",), Always(), authentication=StepUp()),)}, "must ask for acr"),
        (
            {"rules": (Rule("r", "permit", ("a",), Always(), authentication="phr"),)},  # type: ignore[arg-type]
            "authentication must be a StepUp",
        ),
        ({"degrade": {"d": (Rule("r", "permit", ("a",), Always(), authentication=StepUp((), 0)),)}}, "max_age must"),
        ({"degrade": {"d": (Rule("r", "permit", ("a",), Always(), sensitive=True),)}}, "is marked sensitive"),
        ({"degrade": {"": ()}}, "a degrade rule set must be a name"),
        ({"labels": {"": ("a", "b")}}, "a label set must be a name"),
        ({"tests": (PolicyTest("t", float("nan"), "act", "deny"),)}, "'at' must be a point in time"),
        ({"tests": (PolicyTest("t", 0.0, "act", "allow"),)}, "'expect' must be permit or deny"),  # type: ignore[arg-type]
        ({"inputs": (InputDeclaration("tenant", "token"),)}, "input 'tenant' cannot be declared"),
        ({"inputs": (InputDeclaration("subject.a", "token", max_age=float("inf")),)}, "max_age must be a time"),
    ],
)
def test_a_policy_built_in_memory_is_checked_as_a_whole(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(PolicyError) as caught:
        compile_policy(policy_of(**fields))
    assert said in str(caught.value)


@pytest.mark.capability("C28")
def test_a_decision_opens_no_file_and_no_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = snapshot_of(BILLING)

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("opened something")

    monkeypatch.setattr("builtins.open", refuse)
    monkeypatch.setattr("os.open", refuse)
    monkeypatch.setattr("io.open", refuse)
    monkeypatch.setattr(socket, "socket", refuse)
    for action in ("invoice:read", "invoice:refund", "report:x", "nothing"):
        snapshot.evaluate(ask(action, kind="agent", scopes=frozenset({"invoices.read"}), attributes={}))


def test_a_decision_runs_no_test_of_another_action() -> None:
    rules = tuple(
        Rule(f"r{i}", "permit", (f"act:{i}",), Match("resource.x", Equals(f"v{i}"))) for i in range(50)
    )  # each condition reads the attribute once
    snapshot = compile_policy(policy_of(rules=rules))
    reads: list[str] = []

    class Watched(dict):
        def get(self, key: Any, default: Any = None) -> Any:
            reads.append(key)
            return super().get(key, default)

    assert snapshot.evaluate(ask("act:49", attributes=Watched(x="v49"))).permit
    assert reads == ["x"]


def test_a_long_action_name_costs_one_look_up_for_each_colon() -> None:
    looked: list[str] = []

    class Counting(dict):
        def get(self, key: Any, default: Any = None) -> Any:
            looked.append(key)
            return super().get(key, default)

    snapshot = snapshot_of(rules_document("- {rule: r, permit: 'a:*', when: always}"))
    object.__setattr__(snapshot, "_prefixes", Counting(snapshot._prefixes))
    assert not snapshot.evaluate(ask("x:y:z")).permit
    assert looked == ["x:y:", "x:"]
