"""What a snapshot answers: which rules count for an action, in which order, and why a denial came about."""

from __future__ import annotations

from typing import Any

import pytest

from authz_middleware.decision import Reason, Source
from authz_middleware.step_up import StepUp
from tests.support.policies import BILLING, NOON, ask, deny_when, instant, permit_when, rules_document, snapshot_of


class Unreadable(dict):
    def get(self, key: Any, default: Any = None) -> Any:
        raise RuntimeError("unreadable")


X = "inputs: {resource.x: {from: application, max_age: 30s}, resource.y: {from: application}}\n"


@pytest.mark.capability("C1", "C28")
def test_a_permit_names_its_rule_policy_owner_and_version() -> None:
    snapshot = snapshot_of(BILLING)
    decision = snapshot.evaluate(
        ask("invoice:read", scopes=frozenset({"invoices.read"}), purpose="audit", kind="human")
    )
    assert (decision.permit, decision.reason, decision.source) == (True, Reason.PERMITTED, Source.LOCAL)
    assert (decision.rule, decision.policy) == ("read-invoices", "billing")
    assert (decision.owner, decision.revision) == ("payments-platform@example.com", snapshot.revision)
    assert not decision.sensitive


def test_a_rule_may_have_an_owner_of_its_own() -> None:
    refund = ask(
        "invoice:refund",
        roles=frozenset({"cashier"}),
        tenant="acme",
        kind="human",
        attributes={"amount": 1, "tenant": "acme"},
    )
    decision = snapshot_of(BILLING).evaluate(refund)
    assert (decision.permit, decision.sensitive, decision.owner) == (True, True, "refunds@example.com")


def test_a_policy_without_rules_denies_everything() -> None:
    decision = snapshot_of("policy: empty\nowner: nobody").evaluate(ask())
    assert (decision.permit, decision.reason, decision.rule) == (False, Reason.NO_RULE, None)


@pytest.mark.parametrize(
    ("pattern", "action", "covered"),
    [
        ("invoice:read", "invoice:read", True),
        ("invoice:read", "invoice:reads", False),
        ("invoice:read", "invoice:read:all", False),
        ("invoice:read", "Invoice:read", False),
        ("invoice:*", "invoice:read", True),
        ("invoice:*", "invoice:line:read", True),
        ("invoice:*", "invoice", False),
        ("invoice:*", "invoices:read", False),
        ("invoice:*", "pre:invoice:read", False),
        ("invoice:line:*", "invoice:line:read", True),
        ("invoice:line:*", "invoice:read", False),
        ("*", "anything", True),
        ("*", "a:b:c:d", True),
        ("*", "", True),
        ("invoice:*", ":", False),
    ],
)
def test_a_pattern_covers_a_name_a_prefix_or_all(pattern: str, action: str, covered: bool) -> None:
    snapshot = snapshot_of(rules_document(f"- {{rule: r, permit: '{pattern}', when: always}}"))
    assert snapshot.evaluate(ask(action)).permit is covered


WIDE = """\
- {rule: exact, permit: "a:b:c", when: {subject.tenant: exact}}
- {rule: near, permit: "a:b:*", when: {subject.tenant: near}}
- {rule: far, permit: "a:*", when: {subject.tenant: far}}
- {rule: all, permit: "*", when: {subject.tenant: all}}
- {rule: no-exact, deny: "a:b:c", when: {subject.client: exact}}
- {rule: no-near, deny: "a:b:*", when: {subject.client: near}}
- {rule: no-far, deny: "a:*", when: {subject.client: far}}
- {rule: no-all, deny: "*", when: {subject.client: all}}
"""
SCOPES_OF = {
    "a:b:c": ["exact", "near", "far", "all"],
    "a:b:x": ["near", "far", "all"],
    "a:b:x:y": ["near", "far", "all"],
    "a:x": ["far", "all"],
    "x": ["all"],
    "a": ["all"],
}


@pytest.mark.capability("C44")
@pytest.mark.parametrize("action", SCOPES_OF)
@pytest.mark.parametrize("wanted", ["exact", "near", "far", "all"])
def test_an_action_gets_the_rules_of_every_pattern_that_covers_it(action: str, wanted: str) -> None:
    snapshot = snapshot_of(rules_document(WIDE))
    covered = wanted in SCOPES_OF[action]
    permitted = snapshot.evaluate(ask(action, tenant=wanted, client="none"))
    assert (permitted.permit, permitted.rule) == ((True, wanted) if covered else (False, None))
    denied = snapshot.evaluate(ask(action, tenant="all", client=wanted))
    assert (denied.permit, denied.rule) == ((False, f"no-{wanted}") if covered else (True, "all"))


@pytest.mark.capability("C44")
def test_a_deny_overrides_every_permit() -> None:
    decision = deny_when("{subject.kind: agent}").evaluate(ask(kind="agent"))
    assert (decision.permit, decision.reason, decision.rule) == (False, Reason.RULE_DENY, "only")


def test_a_deny_rule_without_conditions_always_applies() -> None:
    rules = "- {rule: open, permit: '*', when: always}\n- {rule: closed, deny: 'a:*'}"
    snapshot = snapshot_of(rules_document(rules))
    assert snapshot.evaluate(ask("a:b")).rule == "closed"
    assert snapshot.evaluate(ask("b")).permit


@pytest.mark.parametrize("order", [("plain", "careful"), ("careful", "plain")])
@pytest.mark.parametrize("pattern", ["act", "*"])
def test_a_sensitive_permit_marks_the_decision_whatever_else_permits(order: tuple[str, str], pattern: str) -> None:
    rules = {
        "plain": "- {rule: plain, permit: act, when: always}",
        "careful": f"- {{rule: careful, permit: '{pattern}', sensitive: true, when: {{subject.kind: agent}}}}",
    }
    snapshot = snapshot_of(rules_document("\n".join(rules[name] for name in order)))
    assert snapshot.evaluate(ask(kind="agent")).sensitive
    assert not snapshot.evaluate(ask(kind="human")).sensitive
    assert snapshot.sensitive_actions == {pattern}


@pytest.mark.capability("C27")
def test_a_missing_input_keeps_a_permit_rule_from_applying_and_is_named() -> None:
    decision = permit_when("{resource.x: {at_most: 5}, subject.tenant: acme}", X).evaluate(ask(attributes={}))
    assert (decision.permit, decision.reason) == (False, Reason.INPUT_MISSING)
    assert decision.missing_inputs == ("resource.x", "subject.tenant")
    assert decision.stale_inputs == ()
    assert decision.rule is None


@pytest.mark.capability("C27")
def test_a_missing_input_makes_a_deny_rule_apply_and_is_named() -> None:
    decision = deny_when("{resource.x: {at_most: 5}}", X).evaluate(ask(attributes={}))
    assert (decision.permit, decision.reason, decision.rule) == (False, Reason.INPUT_MISSING, "only")
    assert decision.missing_inputs == ("resource.x",)


@pytest.mark.capability("C27")
@pytest.mark.parametrize("first", ["subject.id: bob", "resource.x: 1"])
def test_a_missing_input_keeps_every_permit_rule_from_applying(first: str) -> None:
    rules = f"- {{rule: r, permit: act, when: {{{first}}}}}\n- {{rule: s, permit: act, when: {{resource.y: 1}}}}"
    decision = snapshot_of(rules_document(rules, X)).evaluate(ask(attributes={}))
    assert not decision.permit
    assert "resource.y" in decision.missing_inputs


@pytest.mark.capability("C27")
@pytest.mark.parametrize(
    ("attributes", "as_of", "reason"),
    [
        (Unreadable(), NOON, Reason.INPUT_MISSING),
        ({"x": 1}, "yesterday", Reason.INPUT_STALE),
    ],
)
def test_what_raises_when_it_is_read_is_explained_and_denied(attributes: Any, as_of: Any, reason: Reason) -> None:
    decision = permit_when("{resource.x: 1}", X).evaluate(ask(attributes=attributes, as_of=as_of))
    assert (decision.permit, decision.reason) == (False, reason)


@pytest.mark.capability("C27")
@pytest.mark.parametrize("snapshot", [permit_when("{resource.x: 1}", X), deny_when("{resource.x: 1}", X)])
@pytest.mark.parametrize("as_of", [None, NOON - 31])
def test_a_stale_input_denies_and_is_named(snapshot: object, as_of: float | None) -> None:
    decision = snapshot.evaluate(ask(attributes={"x": 1}, as_of=as_of))  # type: ignore[attr-defined]
    assert (decision.permit, decision.reason) == (False, Reason.INPUT_STALE)
    assert (decision.missing_inputs, decision.stale_inputs) == ((), ("resource.x",))


def test_both_inputs_of_a_comparison_are_named_when_they_are_missing() -> None:
    decision = permit_when("{resource.y: {same_as: subject.tenant}}", X).evaluate(ask(attributes={}))
    assert decision.missing_inputs == ("resource.y", "subject.tenant")


def test_an_input_of_a_rule_that_fails_anyway_is_not_blamed() -> None:
    decision = permit_when("{resource.x: 1, subject.id: bob}", X).evaluate(ask(attributes={}))
    assert (decision.reason, decision.missing_inputs) == (Reason.NO_RULE, ())


def test_an_absence_that_a_rule_asks_for_is_not_blamed() -> None:
    decision = permit_when("{resource.y: {exists: false}, resource.x: 1}", X).evaluate(ask(attributes={}))
    assert decision.missing_inputs == ("resource.x",)


@pytest.mark.parametrize("build", [permit_when, deny_when])
def test_a_value_of_the_wrong_type_is_neither_missing_nor_a_match(build: object) -> None:
    decision = build("{resource.x: {at_most: 5}}", X).evaluate(ask(attributes={"x": "1"}))  # type: ignore[operator]
    assert not decision.permit
    assert decision.reason in (Reason.NO_RULE, Reason.RULE_DENY)
    assert decision.missing_inputs == ()


@pytest.mark.capability("C2")
@pytest.mark.parametrize(
    ("held", "helpful"),
    [
        ({"other"}, ("a", "b")),
        ({"a"}, ("b",)),
        (set(), ("a", "b")),
        ({"a", "b"}, ()),
    ],
)
def test_the_scopes_that_would_have_helped_are_named(held: set[str], helpful: tuple[str, ...]) -> None:
    snapshot = permit_when("{subject.scopes: {has_all: [a, b]}, subject.id: ada}")
    assert snapshot.evaluate(ask(scopes=frozenset(held))).helpful_scopes == helpful


@pytest.mark.capability("C2")
def test_scopes_are_not_said_to_help_where_they_would_not() -> None:
    snapshot = permit_when("{subject.scopes: {has: a}, subject.id: bob}")
    assert snapshot.evaluate(ask(scopes=frozenset({"x"}))).helpful_scopes == ()
    assert deny_when("{subject.id: ada}").evaluate(ask()).helpful_scopes == ()


def test_the_fewest_scopes_that_help_are_named() -> None:
    rules = """\
    - {rule: many, permit: act, when: {subject.scopes: {has_all: [a, b]}}}
    - {rule: one, permit: "*", when: {subject.scopes: {has: c}}}
    """
    assert snapshot_of(rules_document(rules)).evaluate(ask(scopes=frozenset({"x"}))).helpful_scopes == ("c",)


@pytest.mark.parametrize(
    ("rules", "said", "needed"),
    [
        ("- {rule: r, permit: act, when: {resource.x: 1}}", {}, True),
        ("- {rule: r, permit: act, when: {resource.y: {same_as: subject.tenant}}}", {"tenant": "a"}, True),
        ("- {rule: r, permit: act, when: {resource.x: 1}}", {"attributes": {}}, False),
        ("- {rule: r, permit: act, when: {subject.id: ada}}", {}, False),
        ("- {rule: r, permit: other, when: {resource.x: 1}}", {}, False),
        ("- {rule: r, permit: act, when: {resource.x: 1, subject.id: bob}}", {}, False),
        ("- {rule: r, permit: act, when: {resource.x: 1, subject.tenant: a}}", {}, False),
        ("- {rule: r, permit: act, when: {any: [{resource.x: 1}, {subject.id: ada}]}}", {}, False),
        ("- {rule: r, permit: act, when: {any: [{resource.x: 1}, {subject.id: bob}]}}", {}, True),
        # a permit without attributes is as good as one with them
        (
            "- {rule: r, permit: act, when: {resource.x: 1}}\n- {rule: s, permit: act, when: {subject.id: ada}}",
            {},
            False,
        ),
        # but a sensitive one could be due
        (
            "- {rule: r, permit: act, sensitive: true, when: {resource.x: 1}}\n- {rule: s, permit: act, when: always}",
            {},
            True,
        ),
        (
            "- {rule: r, permit: act, when: {resource.x: 1}}\n- {rule: s, permit: act, sensitive: true, when: always}",
            {},
            False,
        ),
        # deny rules
        ("- {rule: r, deny: act, when: {resource.x: 1}}\n- {rule: s, permit: act, when: always}", {}, True),
        (
            """\
            - {rule: r, deny: act, when: {resource.x: 1}}
            - {rule: s, deny: act, when: {subject.tenant: a}}
            - {rule: t, permit: act, when: always}
            """,
            {},
            False,
        ),
        ("- {rule: r, deny: act, when: {resource.x: 1}}\n- {rule: s, deny: '*'}", {}, False),
        ("- {rule: r, deny: act, when: {resource.x: 1}}", {}, False),
        ("- {rule: r, deny: act, when: {resource.x: 1}}\n- {rule: s, permit: act, when: {resource.y: 1}}", {}, True),
        (
            "- {rule: r, deny: act, when: {resource.x: 1, subject.id: bob}}\n- {rule: s, permit: act, when: always}",
            {},
            False,
        ),
    ],
)
def test_attributes_are_needed_only_where_they_can_change_the_outcome(rules: str, said: dict, needed: bool) -> None:
    assert snapshot_of(rules_document(rules, X)).needs_attributes(ask(**said)) is needed


@pytest.mark.capability("C31")
def test_a_degrade_rule_set_decides_by_its_own_rules_only() -> None:
    snapshot = snapshot_of(BILLING)
    narrow = snapshot.rule_sets["read-only"]
    reader = {"scopes": frozenset({"invoices.read"}), "kind": "agent", "now": instant("2026-03-02T23:00:00Z")}
    decision = narrow.evaluate(ask("invoice:read", **reader))
    assert (decision.permit, decision.rule) == (True, "read-while-degraded")
    assert not narrow.evaluate(ask("invoice:list", **reader)).permit
    assert not narrow.needs_attributes(ask("invoice:read"))


@pytest.mark.capability("C7")
@pytest.mark.parametrize(
    ("time", "kind", "permit"),
    [
        ("2026-03-02T12:00:00Z", "agent", True),
        ("2026-03-02T23:00:00Z", "agent", False),
        ("2026-03-02T23:00:00Z", "human", True),
        ("2026-03-02T23:00:00Z", None, False),
        ("2026-03-02T12:00:00Z", None, True),
    ],
)
def test_the_example_policy_keeps_agents_out_at_night(time: str, kind: str | None, permit: bool) -> None:
    question = ask("invoice:read", scopes=frozenset({"invoices.read"}), purpose="audit", kind=kind, now=instant(time))
    assert snapshot_of(BILLING).evaluate(question).permit is permit


def test_no_condition_is_tried_to_learn_that_an_action_reads_no_attribute() -> None:
    rules = "- {rule: r, permit: act, when: {resource.x: 1}}\n- {rule: s, permit: other, when: {subject.level: 1}}"
    snapshot = snapshot_of(rules_document(rules, X.replace("inputs: {", "inputs: {subject.level: {from: token}, ")))
    tried: list[str] = []

    class Watched(dict):
        def get(self, key: Any, default: Any = None) -> Any:
            tried.append(key)
            return super().get(key, default)

    assert not snapshot.needs_attributes(ask("other", claims=Watched(level=1)))
    assert tried == []
    assert snapshot.needs_attributes(ask("act"))


STEPPED = """\
- {rule: strong, permit: act, authentication: {acr: [phr, mfa], max_age: 5m}, when: {subject.tenant: acme}}
- {rule: no-bob, deny: act, when: {subject.id: bob}}
"""
PERSON: dict[str, Any] = {"subject_kind": "human", "tenant": "acme"}
ASKED = StepUp(("phr", "mfa"), 300)


@pytest.mark.capability("C25")
@pytest.mark.parametrize(
    ("said", "reason", "step_up"),
    [
        ({"acr": "phr", "authenticated_at": NOON - 300}, Reason.PERMITTED, None),
        ({"acr": "phr", "authenticated_at": NOON - 301}, Reason.AUTHENTICATION_INSUFFICIENT, ASKED),
        ({"acr": "pwd", "authenticated_at": NOON}, Reason.AUTHENTICATION_INSUFFICIENT, ASKED),
        ({}, Reason.AUTHENTICATION_INSUFFICIENT, ASKED),
        ({"subject_kind": "workload"}, Reason.AUTHENTICATION_INSUFFICIENT, None),
        ({"subject_kind": None}, Reason.AUTHENTICATION_INSUFFICIENT, None),
        ({"kind": "agent"}, Reason.AUTHENTICATION_INSUFFICIENT, ASKED),
        ({"tenant": "globex"}, Reason.NO_RULE, None),
        ({"tenant": None}, Reason.INPUT_MISSING, None),
        ({"subject": "bob"}, Reason.RULE_DENY, None),
    ],
)
def test_a_rule_that_lacks_nothing_but_the_authentication_says_so(
    said: dict[str, Any], reason: Reason, step_up: StepUp | None
) -> None:
    decision = snapshot_of(rules_document(STEPPED)).evaluate(ask(**{**PERSON, **said}))
    assert (decision.permit, decision.reason, decision.step_up) == (reason is Reason.PERMITTED, reason, step_up)
    assert decision.rule == {Reason.PERMITTED: "strong", Reason.RULE_DENY: "no-bob"}.get(reason)


@pytest.mark.capability("C25")
def test_another_permit_needs_no_step_up() -> None:
    rules = STEPPED + "- {rule: weak, permit: act, when: {subject.roles: {has: clerk}}}\n"
    decision = snapshot_of(rules_document(rules)).evaluate(ask(**PERSON, roles=frozenset({"clerk"})))
    assert (decision.rule, decision.step_up) == ("weak", None)


def test_a_rule_that_lacks_an_input_beside_is_not_told_instead() -> None:
    rules = STEPPED + "- {rule: other, permit: act, when: {subject.client: x}}\n"
    decision = snapshot_of(rules_document(rules)).evaluate(ask(**PERSON))
    assert (decision.reason, decision.step_up) == (Reason.AUTHENTICATION_INSUFFICIENT, ASKED)


def test_a_degrade_rule_may_ask_for_an_authentication_too() -> None:
    rule = "{rule: r, permit: act, authentication: {acr: phr}, when: always}"
    narrow = snapshot_of(f"policy: p\nowner: o\ndegrade: {{d: [{rule}]}}").rule_sets["d"]
    assert narrow.evaluate(ask(acr="phr")).permit
    assert not narrow.evaluate(ask(acr="pwd")).permit


@pytest.mark.parametrize(
    ("rules", "said", "needed"),
    [
        # whether the authentication is all that is lacking hangs on an attribute
        ("- {rule: r, permit: act, authentication: {acr: a}, when: {resource.x: 1}}", {}, True),
        ("- {rule: r, permit: act, authentication: {acr: a}, when: {resource.x: 1}}", {"acr": "a"}, True),
        ("- {rule: r, permit: act, authentication: {acr: a}, when: {resource.x: 1, subject.id: bob}}", {}, False),
        ("- {rule: r, permit: act, authentication: {acr: a}, when: always}", {}, False),
        # a permit stands already, and a rule that lacks the authentication cannot make it a sensitive one
        (
            """\
            - {rule: r, permit: act, sensitive: true, authentication: {acr: a}, when: {resource.x: 1}}
            - {rule: s, permit: act, when: always}
            """,
            {},
            False,
        ),
        (
            """\
            - {rule: r, permit: act, sensitive: true, authentication: {acr: a}, when: {resource.x: 1}}
            - {rule: s, permit: act, when: always}
            """,
            {"acr": "a"},
            True,
        ),
        # a deny hangs on an attribute, and without it only the authentication would be lacking
        (
            """\
            - {rule: r, permit: act, authentication: {acr: a}, when: always}
            - {rule: s, deny: act, when: {resource.x: 1}}
            """,
            {},
            True,
        ),
    ],
)
def test_attributes_are_needed_to_learn_whether_the_authentication_is_all_that_is_lacking(
    rules: str, said: dict[str, Any], needed: bool
) -> None:
    assert snapshot_of(rules_document(rules, X)).needs_attributes(ask(**said)) is needed


@pytest.mark.capability("C2", "C25")
@pytest.mark.parametrize(("kind", "helpful"), [("human", ("pay",)), ("workload", ()), (None, ())])
def test_a_scope_helps_only_whoever_can_authenticate_as_well(kind: str | None, helpful: tuple[str, ...]) -> None:
    rules = "- {rule: r, permit: act, authentication: {acr: phr}, when: {subject.scopes: {has: pay}}}"
    snapshot = snapshot_of(rules_document(rules))
    assert snapshot.evaluate(ask(subject_kind=kind, scopes=frozenset({"x"}))).helpful_scopes == helpful
    assert snapshot.evaluate(ask(acr="phr", scopes=frozenset({"x"}))).helpful_scopes == ("pay",)
