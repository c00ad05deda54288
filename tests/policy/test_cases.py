"""The tests a policy carries: what they ask, and how a failing one is reported."""

from __future__ import annotations

import pytest

from authz_middleware.policy.cases import question_of_case, run_cases
from authz_middleware.policy.compiler import compile_policy
from authz_middleware.policy.document import parse_policy
from authz_middleware.policy.model import Policy, PolicyTest
from authz_middleware.policy.store import build_snapshot
from tests.support.policies import BILLING, NOON, rules_document, snapshot_of

AT = "2026-03-02T12:00:00Z"
INPUTS = "inputs: {resource.x: {from: application, max_age: 30s}, subject.level: {from: token}}\n"


def policy_with(rules: str, case: str) -> Policy:
    return parse_policy(
        rules_document(rules, f"{INPUTS}tests:\n- {{name: case, at: {AT}, action: act, {case}}}\n"), "p.yaml"
    )


def failures_of(rules: str, case: str) -> list[str]:
    policy = policy_with(rules, case)
    return [str(failure) for failure in run_cases(policy, compile_policy(policy))]


def test_the_cases_of_the_example_pass() -> None:
    policy = parse_policy(BILLING, "billing.yaml")
    assert run_cases(policy, compile_policy(policy)) == ()


SCOPED = "- {rule: r, permit: act, when: {subject.scopes: {has: a}}}"


@pytest.mark.parametrize(
    "case",
    [
        "expect: permit, subject: {scopes: [a]}",
        "expect: permit, subject: {scopes: [a]}, rule: r",
        "expect: permit, subject: {scopes: [a]}, reason: permitted",
        "expect: deny, subject: {scopes: [b]}",
        "expect: deny, subject: {scopes: [b]}, reason: rule.none",
        "expect: deny, reason: input.missing",
    ],
)
def test_a_case_that_comes_out_as_expected_does_not_fail(case: str) -> None:
    assert failures_of(SCOPED, case) == []


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("expect: permit", "test 'case': expected permit, got deny (input.missing)"),
        ("expect: deny, subject: {scopes: [a]}", "test 'case': expected deny, got permit by rule 'r' (permitted)"),
        (
            "expect: deny, subject: {scopes: [b]}, reason: rule.deny",
            "test 'case': expected deny (rule.deny), got deny (rule.none)",
        ),
        (
            "expect: deny, subject: {scopes: [b]}, rule: r",
            "test 'case': expected deny by rule 'r', got deny (rule.none)",
        ),
    ],
)
def test_a_failing_case_says_what_came_out_instead(case: str, said: str) -> None:
    assert failures_of(SCOPED, case) == [said]


def test_a_failing_case_is_reported_at_its_line() -> None:
    policy = policy_with(SCOPED, "expect: permit")
    assert [failure.line for failure in run_cases(policy, compile_policy(policy))] == [5]


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        ("{subject.id: bob}", "subject: {id: bob}"),
        ("{subject.issuer: 'https://other'}", "subject: {issuer: 'https://other'}"),
        ("{subject.kind: agent, subject.subject_kind: human}", "subject: {kind: agent, subject_kind: human}"),
        ("{subject.actors: {has: bot}}", "subject: {actors: [bot]}"),
        ("{subject.roles: {has: r}, subject.tenant: t}", "subject: {roles: [r], tenant: t}"),
        ("{subject.level: 5}", "subject: {level: 5}"),
        ("{subject.clearance: c, subject.client: k}", "subject: {clearance: c, client: k}"),
        (
            "{subject.environment: {same_as: context.environment}}",
            "subject: {environment: e}, context: {environment: e}",
        ),
        ("{subject.acr: phr}", "subject: {acr: phr}"),
        ("{subject.token_id: i, subject.transaction: n}", "subject: {token_id: i, transaction: n}"),
        ("{context.purpose: p, context.task: q}", "context: {purpose: p, task: q}"),
        ("{context.method: POST, context.route: /a}", "context: {method: POST, route: /a}"),
        ("{context.client: 10.0.0.1, context.tls: true}", "context: {client: 10.0.0.1, tls: true}"),
        ("{context.protocol: websocket}", "context: {protocol: websocket}"),
        ("{resource.type: invoice, resource.id: '7'}", "resource: {type: invoice, id: '7'}"),
        ("{resource.x: [1]}".replace("[1]", "{has: 1}"), "resource: {properties: {x: [1]}}"),
        ("{resource.x: 1}", f"resource: {{properties: {{x: 1}}, as_of: {AT}}}"),
        ("{context.time: {between: ['12:00', '12:01'], zone: UTC}}", "subject: {}"),
    ],
)
def test_a_case_says_every_input_that_a_rule_can_read(condition: str, said: str) -> None:
    assert failures_of(f"- {{rule: r, permit: act, when: {condition}}}", f"expect: permit, {said}") == []
    assert failures_of(f"- {{rule: r, permit: act, when: {{not: {condition}}}}}", f"expect: deny, {said}") == []


def test_a_case_may_be_stale() -> None:
    rules = "- {rule: r, permit: act, when: {resource.x: 1}}"
    stale = "resource: {properties: {x: 1}, as_of: 2026-03-02T11:59:29Z}"
    assert failures_of(rules, f"expect: deny, reason: input.stale, {stale}") == []


def test_a_case_says_when_its_token_was_issued() -> None:
    policy = policy_with(SCOPED, "expect: deny, subject: {issued_at: '2026-03-02T11:00:00Z'}")
    question = question_of_case(policy.tests[0])
    assert (question.now, question.principal.issued_at) == (NOON, NOON - 3600)
    assert "issued_at" not in question.principal.claims


PERSON = "subject: {kind: human, subject_kind: human, acr: phr"


@pytest.mark.capability("C25")
@pytest.mark.parametrize(
    "case",
    [
        f"expect: permit, {PERSON}, authenticated_at: '2026-03-02T11:55:00Z'}}",
        f"expect: deny, reason: authentication.insufficient, {PERSON}, authenticated_at: '2026-03-02T11:54:59Z'}}",
        f"expect: deny, reason: authentication.insufficient, {PERSON}}}",
        "expect: deny, reason: authentication.insufficient, subject: {acr: pwd}",
    ],
)
def test_a_case_says_how_and_when_the_person_authenticated(case: str) -> None:
    rules = "- {rule: r, permit: act, authentication: {acr: [phr], max_age: 5m}, when: always}"
    assert failures_of(rules, case) == []


def test_an_action_that_no_rule_names_must_be_denied_to_the_callers_of_the_cases() -> None:
    """Only a snapshot that is not that of the policy can permit one; then the case says so."""
    policy = policy_with(SCOPED, "expect: permit, subject: {scopes: [a]}")
    lax = snapshot_of(rules_document("- {rule: all, permit: '*', when: always}"))
    assert [str(failure) for failure in run_cases(policy, lax)] == [
        "test 'case, but for an action that no rule names': expected deny, got permit by rule 'all' (permitted)"
    ]


def test_the_action_that_no_rule_names_is_one_that_no_rule_names() -> None:
    rules = "- {rule: r, permit: act, when: {subject.scopes: {has: a}}}\n- {rule: odd, permit: unlisted, when: always}"
    assert failures_of(rules, "expect: permit, subject: {scopes: [a]}") == []


def test_a_policy_that_permits_everything_says_so_itself() -> None:
    assert failures_of("- {rule: all, permit: '*', when: always}", "expect: permit") == []


def test_a_policy_built_in_memory_runs_its_cases_too() -> None:
    case = PolicyTest("c", NOON, "act", "deny")
    assert build_snapshot(Policy(name="p", owner="o", tests=(case,))).name == "p"
