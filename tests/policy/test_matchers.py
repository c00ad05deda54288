"""Every matcher against values it is meant for, and against values that hope to be mistaken for them."""

from __future__ import annotations

from decimal import Decimal
from enum import StrEnum
from typing import Any
from unittest.mock import ANY

import pytest

from tests.support.policies import NOON, answer_of, ask

X = "inputs: {resource.x: {from: application}, resource.y: {from: application}}\n"
LABELLED = """\
labels: {secrecy: [public, internal, restricted], size: [small, large]}
inputs:
  resource.x: {from: application, labels: secrecy}
  resource.y: {from: application}
  subject.clearance: {from: token, labels: secrecy}
"""
NAN = float("nan")


class Colour(StrEnum):
    RED = "red"


class Hostile:
    """An application object that raises whatever is done with it."""

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("equality")

    __hash__ = None  # type: ignore[assignment]

    def __iter__(self) -> Any:
        raise RuntimeError("iteration")


class HostileMapping(dict):
    def get(self, key: Any, default: Any = None) -> Any:
        raise RuntimeError("no")


class LiesInList(list):
    def __iter__(self) -> Any:
        raise RuntimeError("iteration")


MATCHES: list[tuple[str, Any, bool | None]] = [
    # equals, and a bare value for it
    ("red", "red", True),
    ("{equals: red}", "red", True),
    ("{equals: red}", Colour.RED, True),
    ("{equals: red}", "Red", False),
    ("{equals: red}", "red ", False),
    ("{equals: red}", b"red", None),
    ("{equals: red}", ["red"], None),
    ("{equals: red}", ANY, None),
    ("{equals: red}", Hostile(), None),
    ("{equals: 5}", 5, True),
    ("{equals: 5}", 5.0, True),
    ("{equals: 5}", Decimal(5), True),
    ("{equals: 5}", "5", None),
    ('{equals: "5"}', 5, None),
    ("{equals: 1}", True, None),
    ("{equals: true}", 1, None),
    ("{equals: true}", "true", None),
    ("{equals: true}", True, True),
    ("{equals: false}", True, False),
    ("{equals: false}", 0, None),
    ("{equals: false}", "", None),
    ("{equals: 0}", False, None),
    ("{equals: 0}", -0.0, True),
    ("{equals: 0.1}", Decimal("0.1"), True),
    ("{equals: 5}", NAN, None),
    ("{equals: 5}", Decimal("NaN"), None),
    ("{equals: 5}", Decimal("sNaN"), None),
    ("{equals: 5}", 5j, None),
    ("{equals: 5}", {}, None),
    # in
    ("{in: [red, blue]}", "blue", True),
    ("{in: [red, blue]}", "green", False),
    ("{in: [red, blue]}", 7, None),
    ("{in: [red, blue]}", ["red"], None),
    ("{in: [red, blue]}", Hostile(), None),
    ("{in: [1, 2]}", 2.0, True),
    ("{in: [1, 2]}", True, None),
    ("{in: [1, 2]}", "1", None),
    ("{in: [0, 2]}", NAN, None),
    ("{in: [true]}", 1, None),
    # has, has_any, has_all
    ("{has: red}", ["red", "blue"], True),
    ("{has: red}", ("blue",), False),
    ("{has: red}", {"red"}, True),
    ("{has: red}", frozenset({"blue"}), False),
    ("{has: red}", [], False),
    ("{has: red}", "red", None),
    ("{has: r}", "red", None),
    ("{has: red}", {"red": 1}, None),
    ("{has: red}", (item for item in ["red"]), None),
    ("{has: red}", [ANY], None),
    ("{has: red}", [Hostile()], None),
    ("{has: red}", [["red"], "red"], True),
    ("{has: red}", LiesInList(["red"]), None),
    ('{has: "5"}', [5], None),
    ("{has: 1}", [True], None),
    ("{has: 1}", [True, 1], True),
    ("{has: 1}", {1.0}, True),
    ("{has: 5}", [NAN], None),
    ("{has_any: [red, blue]}", ["blue"], True),
    ("{has_any: [red, blue]}", ["green"], False),
    ("{has_any: [red, blue]}", [3], None),
    ("{has_any: [red, blue]}", "red", None),
    ("{has_all: [red, blue]}", ["blue", "red"], True),
    ("{has_all: [red, blue]}", ["red"], False),
    ("{has_all: [red, blue]}", ["red", 3], None),
    ("{has_all: [red, blue]}", Hostile(), None),
    # at_most, at_least
    ("{at_most: 500}", 500, True),
    ("{at_most: 500}", 500.01, False),
    ("{at_most: 500}", Decimal("500.00"), True),
    ("{at_most: 500}", "5", None),
    ("{at_most: 500}", True, None),
    ("{at_most: 500}", None, None),
    ("{at_most: 500}", NAN, None),
    ("{at_most: 500}", Decimal("NaN"), None),
    ("{at_most: 500}", Decimal("sNaN"), None),
    ("{at_most: 500}", float("-inf"), True),
    ("{at_most: 500}", [1], None),
    ("{at_most: 500}", Hostile(), None),
    ("{at_least: 5}", 5, True),
    ("{at_least: 5}", 4, False),
    ("{at_least: 5}", "6", None),
    ("{at_least: 0.1}", Decimal("0.1"), True),
    ("{at_least: 1, at_most: 3}", 2, True),
    ("{at_least: 1, at_most: 3}", 4, False),
    # starts_with
    ("{starts_with: re}", "red", True),
    ("{starts_with: re}", "RED", False),
    ("{starts_with: re}", ["red"], None),
    ("{starts_with: re}", b"red", None),
    # exists
    ("{exists: true}", "", True),
    ("{exists: true}", 0, True),
    ("{exists: true}", [], True),
    ("{exists: true}", None, False),
    ("{exists: false}", None, True),
    ("{exists: false}", 0, False),
    # nests of one input
    ("{not: red}", "blue", True),
    ("{not: red}", 5, None),
    ("{not: {at_most: 5}}", "9", None),
    ("{any: [red, {starts_with: bl}]}", "blue", True),
    ("{any: [red, {at_most: 5}]}", "blue", None),
    ("{all: [{starts_with: r}, {not: {equals: red}}]}", "rust", True),
]


@pytest.mark.parametrize(("matcher", "value", "expected"), MATCHES)
def test_a_matcher_compares_without_ever_converting(matcher: str, value: Any, expected: bool | None) -> None:
    assert answer_of(f"{{resource.x: {matcher}}}", ask(attributes={"x": value}), X) is expected


@pytest.mark.capability("C27")
@pytest.mark.parametrize("matcher", sorted({matcher for matcher, _, _ in MATCHES if "exists" not in matcher}))
@pytest.mark.parametrize("attributes", [None, {}, {"x": None}])
def test_no_matcher_can_tell_about_a_missing_value(matcher: str, attributes: dict[str, Any] | None) -> None:
    assert answer_of(f"{{resource.x: {matcher}}}", ask(attributes=attributes), X) is None
    assert answer_of(f"{{not: {{resource.x: {matcher}}}}}", ask(attributes=attributes), X) is None


@pytest.mark.parametrize("wanted", ["true", "false"])
def test_existence_cannot_be_told_before_somebody_has_looked(wanted: str) -> None:
    assert answer_of(f"{{resource.x: {{exists: {wanted}}}}}", ask(attributes=None), X) is None


@pytest.mark.parametrize("wanted", ["true", "false"])
@pytest.mark.parametrize("as_of", [None, NOON - 31, NOON + 61, NAN, "yesterday"])
def test_existence_cannot_be_told_from_a_stale_look(wanted: str, as_of: Any) -> None:
    head = "inputs: {resource.x: {from: application, max_age: 30s}}\n"
    assert answer_of(f"{{resource.x: {{exists: {wanted}}}}}", ask(attributes={}, as_of=as_of), head) is None


def test_a_mapping_that_raises_is_a_mapping_that_says_nothing() -> None:
    assert answer_of("{resource.x: red}", ask(attributes=HostileMapping()), X) is None


@pytest.mark.capability("C11")
@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        ("a", "a", True),
        ("a", "b", False),
        (5, 5.0, True),
        (5, "5", None),
        (1, True, None),
        (None, None, None),
        (["a"], ["a"], None),
        (NAN, NAN, None),
        (Decimal("0.1"), 0.1, True),
        (Hostile(), Hostile(), None),
        (Decimal("sNaN"), 1, None),
    ],
)
def test_same_as_is_strict_equality_of_two_inputs(x: Any, y: Any, expected: bool | None) -> None:
    assert answer_of("{resource.x: {same_as: resource.y}}", ask(attributes={"x": x, "y": y}), X) is expected
    assert answer_of("{resource.y: {same_as: resource.x}}", ask(attributes={"x": x, "y": y}), X) is expected


@pytest.mark.capability("C11")
@pytest.mark.parametrize(
    ("tenant", "owner", "expected"), [("acme", "acme", True), ("acme", "rival", False), (None, "acme", None)]
)
def test_a_tenant_is_compared_with_that_of_the_resource(tenant: str | None, owner: str, expected: bool | None) -> None:
    question = ask(tenant=tenant, attributes={"x": owner})
    assert answer_of("{resource.x: {same_as: subject.tenant}}", question, X) is expected


@pytest.mark.parametrize(
    ("x", "y", "at_most", "at_least"),
    [
        (1, 2, True, False),
        (2, 2, True, True),
        (3, 2, False, True),
        ("1", 2, None, None),
        (1, None, None, None),
        (Decimal("sNaN"), 1, None, None),
        (Decimal("0.1"), 0.1, True, True),
        (0.1, Decimal("0.1"), True, True),
    ],
)
def test_two_numbers_are_ordered(x: Any, y: Any, at_most: bool | None, at_least: bool | None) -> None:
    question = ask(attributes={"x": x, "y": y})
    assert answer_of("{resource.x: {at_most: {input: resource.y}}}", question, X) is at_most
    assert answer_of("{resource.x: {at_least: {input: resource.y}}}", question, X) is at_least


@pytest.mark.capability("C6")
@pytest.mark.parametrize(
    ("label", "clearance", "expected"),
    [
        ("public", "public", True),
        ("internal", "restricted", True),
        ("restricted", "internal", False),
        ("restricted", None, None),
        (None, "restricted", None),
        ("Restricted", "restricted", None),
        ("secret", "restricted", None),
        (0, "restricted", None),
        (["public"], "restricted", None),
        ("public", "root", None),
    ],
)
def test_a_label_is_compared_with_the_clearance(label: Any, clearance: Any, expected: bool | None) -> None:
    question = ask(attributes={"x": label}, clearance=clearance)
    assert answer_of("{resource.x: {at_most: {input: subject.clearance}}}", question, LABELLED) is expected
    assert answer_of("{subject.clearance: {at_least: {input: resource.x}}}", question, LABELLED) is expected


@pytest.mark.capability("C6")
@pytest.mark.parametrize(
    ("matcher", "label", "expected"),
    [
        ("{at_most: internal}", "public", True),
        ("{at_most: internal}", "restricted", False),
        ("{at_least: internal}", "restricted", True),
        ("{at_least: internal}", "public", False),
        ("{not: restricted}", "internal", True),
        ("{not: restricted}", "RESTRICTED", None),
        ("{in: [public, internal]}", "internal", True),
        ("{not: {in: [restricted]}}", "top secret", None),
    ],
)
def test_a_label_outside_its_set_satisfies_nothing(matcher: str, label: str, expected: bool | None) -> None:
    assert answer_of(f"{{resource.x: {matcher}}}", ask(attributes={"x": label}), LABELLED) is expected


@pytest.mark.capability("C6")
def test_an_input_takes_the_label_set_of_the_one_it_is_compared_with() -> None:
    question = ask(attributes={"x": "internal", "y": "public"})
    assert answer_of("{resource.y: {at_most: {input: resource.x}}}", question, LABELLED) is True
    assert answer_of("{resource.y: {at_least: {input: resource.x}}}", question, LABELLED) is False


BUILT_INS: list[tuple[str, dict[str, Any], bool | None]] = [
    ("subject.id: ada", {"subject": "ada"}, True),
    ("subject.id: ada", {"subject": "bob"}, False),
    ("subject.issuer: {starts_with: 'https://'}", {"issuer": "https://idp.test"}, True),
    ("subject.kind: agent", {"kind": "agent"}, True),
    ("subject.kind: agent", {"kind": "human"}, False),
    ("subject.kind: agent", {}, None),
    ("subject.subject_kind: human", {"kind": "agent", "subject_kind": "human"}, True),
    ("subject.client: portal", {"client": "portal"}, True),
    ("subject.scopes: {has: a}", {"scopes": frozenset({"a", "b"})}, True),
    ("subject.scopes: {has: a}", {"scopes": frozenset({"ab"})}, False),
    ("subject.scopes: {has: a}", {}, None),
    ("subject.scopes: {has: a}", {"scopes": "a b"}, None),
    ("subject.scopes: {has_all: [a, b]}", {"scopes": frozenset({"a", "b"})}, True),
    ("subject.scopes: {has_all: [a, b]}", {"scopes": frozenset({"a"})}, False),
    ("subject.scopes: {has_all: [a, b]}", {}, None),
    ("subject.roles: {has: a}", {"roles": frozenset({"a"})}, True),
    ("subject.roles: {has: a}", {}, None),
    ("subject.roles: {has_any: [a, b]}", {"roles": frozenset({"b"})}, True),
    ("subject.roles: {has_any: [a, b]}", {"roles": frozenset({"c"})}, False),
    ("subject.roles: {has_any: [a, b]}", {}, None),
    ("subject.roles: {exists: false}", {}, True),
    ("subject.actors: {has: bot}", {"actors": ("bot", "relay")}, True),
    ("subject.actors: {has: bot}", {"actors": ("relay",)}, False),
    ("subject.actors: {has: bot}", {}, None),
    ("subject.actors: {exists: false}", {}, True),
    ("subject.actors: {exists: false}", {"actors": ("bot",)}, False),
    ("subject.tenant: acme", {"tenant": "acme"}, True),
    ("subject.tenant: {not: acme}", {}, None),
    ("subject.clearance: high", {"clearance": "high"}, True),
    ("subject.environment: {same_as: context.environment}", {"environment": "production"}, True),
    ("subject.environment: {same_as: context.environment}", {"environment": "staging"}, False),
    ("subject.environment: {same_as: context.environment}", {}, None),
    ("subject.token_id: {exists: true}", {"token_id": "t1"}, True),
    ("subject.transaction: t9", {"transaction": "t9"}, True),
    ("context.purpose: {in: [support, audit]}", {"purpose": "audit"}, True),
    ("context.purpose: {in: [support, audit]}", {"purpose": "marketing"}, False),
    ("context.purpose: {in: [support, audit]}", {}, None),
    ("context.task: month-end", {"task": "month-end"}, True),
    ("context.task: month-end", {"task": "other"}, False),
    ("context.task: month-end", {}, None),
    ("action.name: act", {}, True),
    ("resource.type: thing", {}, True),
    ("resource.id: {in: ['1', '2']}", {}, True),
    ("resource.id: {in: ['3']}", {}, False),
    ("context.method: GET", {}, True),
    ("context.route: '/things/{id}'", {}, True),
    ("context.client: 10.0.0.1", {"facts": {"client": "10.0.0.1"}}, True),
    ("context.client: 10.0.0.1", {}, None),
    ("context.tls: true", {"facts": {"tls": True}}, True),
    ("context.tls: true", {}, False),
    ("context.protocol: websocket", {"facts": {"protocol": "websocket"}}, True),
]


@pytest.mark.capability("C3", "C4", "C5", "C8")
@pytest.mark.parametrize(("condition", "said", "expected"), BUILT_INS)
def test_a_condition_reads_what_the_question_says(condition: str, said: dict[str, Any], expected: bool | None) -> None:
    assert answer_of(f"{{{condition}}}", ask(**said), "") is expected


def test_a_declared_claim_is_read_from_the_token() -> None:
    head = "inputs: {subject.department: {from: token}}\n"
    assert answer_of("{subject.department: legal}", ask(claims={"department": "legal"}), head) is True
    assert answer_of("{subject.department: legal}", ask(claims={"department": ["legal"]}), head) is None
    assert answer_of("{subject.department: legal}", ask(), head) is None


@pytest.mark.capability("C27")
@pytest.mark.parametrize(
    ("as_of", "expected"),
    [(NOON, True), (NOON - 30, True), (NOON - 30.001, None), (None, None), (NOON + 60, True), (NOON + 61, None)],
)
def test_an_attribute_counts_only_while_it_is_fresh(as_of: float | None, expected: bool | None) -> None:
    head = "inputs: {resource.x: {from: application, max_age: 30s}}\n"
    assert answer_of("{resource.x: red}", ask(attributes={"x": "red"}, as_of=as_of), head) is expected


@pytest.mark.capability("C27")
@pytest.mark.parametrize(
    ("issued_at", "expected"), [(NOON, True), (NOON - 300, True), (NOON - 301, None), (0.0, None), (NOON + 61, None)]
)
def test_a_token_input_counts_only_while_the_token_is_young(issued_at: float, expected: bool | None) -> None:
    head = "inputs: {subject.roles: {from: token, max_age: 5m}, subject.tenant: {from: token, max_age: 5m}}\n"
    question = ask(roles=frozenset({"a"}), tenant="acme", issued_at=issued_at)
    for condition in ("{subject.roles: {has: a}}", "{subject.roles: {has_any: [a]}}", "{subject.tenant: acme}"):
        assert answer_of(condition, question, head) is expected


@pytest.mark.capability("C27")
@pytest.mark.parametrize("matcher", ["has: a", "has_any: [a]", "has_all: [a]"])
def test_a_young_token_without_any_role_does_not_say(matcher: str) -> None:
    head = "inputs: {subject.roles: {from: token, max_age: 5m}}\n"
    assert answer_of(f"{{subject.roles: {{{matcher}}}}}", ask(), head) is None
    assert answer_of("{subject.roles: {exists: true}}", ask(), head) is False


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("{any: [{resource.x: red}, {subject.id: ada}]}", True),
        ("{any: [{resource.x: red}, {subject.id: bob}]}", None),
        ("{all: [{resource.x: red}, {subject.id: ada}]}", None),
        ("{all: [{resource.x: red}, {subject.id: bob}]}", False),
        ("{all: [{resource.x: red}, {subject.id: ada}, {subject.id: bob}]}", False),
        ("{all: [{subject.id: ada}, {resource.x: red}, {subject.issuer: {exists: true}}]}", None),
        ("{not: {any: [{resource.x: red}, {subject.id: bob}]}}", None),
        ("{not: {all: [{resource.x: red}, {subject.id: bob}]}}", True),
        ("{not: {subject.id: bob}, subject.id: ada}", True),
        ("{subject.id: bob, resource.x: red}", False),
        ("{resource.x: red, subject.id: bob}", False),
    ],
)
def test_what_cannot_be_told_follows_kleene(condition: str, expected: bool | None) -> None:
    assert answer_of(condition, ask(attributes={}), X) is expected
