"""The question in AuthZEN form and back: nothing is lost, nothing is added, nothing is guessed."""

from __future__ import annotations

import json
import math
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum, StrEnum
from pathlib import Path
from typing import Any
from uuid import UUID

import jsonschema
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz_middleware.question import Question
from authz_middleware.remote.messages.evaluation import MessageError, evaluation_request, question_of
from authz_middleware.remote.query import RemoteQuery
from authz_middleware.resource import Resource
from authz_middleware.strict_json import parse_object
from tests.support.questions import NOW, question, questions, texts, times

VECTORS = Path(__file__).parents[1] / "vectors" / "authzen"
SCHEMA = jsonschema.Draft202012Validator(json.loads((VECTORS / "evaluation-request.schema.json").read_text()))


def over_the_wire(asked: Question) -> Question:
    return question_of(parse_object(msgspec.json.encode(evaluation_request(asked))))


def with_member(path: str, value: Any) -> dict[str, Any]:
    """A complete request with one member replaced, or added."""
    request: dict[str, Any] = json.loads(json.dumps(evaluation_request(question())))
    *parents, last = path.split("/")
    target: Any = request
    for parent in parents:
        target = target[int(parent)] if isinstance(target, list) else target[parent]
    target[last] = value
    return request


def has_null(value: object) -> bool:
    if isinstance(value, dict):
        return any(has_null(item) for item in value.values())
    return any(has_null(item) for item in value) if isinstance(value, list) else value is None


@pytest.mark.promise("P8")
@pytest.mark.capability("C8", "C29", "C52")
@given(questions)
def test_what_is_read_back_is_what_was_asked(asked: Question) -> None:
    """The same question across the wire, so the same decision."""
    assert over_the_wire(asked) == asked


@pytest.mark.capability("C25", "C29")
@given(st.none() | texts, st.none() | times | st.just(0.0))
def test_how_and_when_a_person_authenticated_is_told_and_read_back(acr: str | None, at: float | None) -> None:
    asked = question(acr=acr, authenticated_at=at)
    properties = evaluation_request(asked)["subject"]["properties"]
    assert (properties.get("acr"), properties.get("auth_time")) == (acr, at)
    assert over_the_wire(asked) == asked


@pytest.mark.capability("C25")
def test_another_authentication_is_another_question() -> None:
    """An answer about the one is no answer about the other."""
    keys = [
        RemoteQuery.of(question(acr=acr, authenticated_at=at), "r1").key
        for acr, at in [("pwd", NOW), ("phr", NOW), ("phr", NOW - 1), ("phr", None), (None, NOW)]
    ]
    assert len(set(keys)) == 5


@pytest.mark.capability("C29")
@given(questions)
def test_every_request_holds_to_the_schema_and_has_no_null(asked: Question) -> None:
    request = evaluation_request(asked)
    SCHEMA.validate(request)
    assert set(request) == {"subject", "action", "resource", "context"}
    assert not has_null(request)


def test_the_form_of_a_request() -> None:
    assert evaluation_request(question()) == {
        "subject": {
            "type": "agent",
            "id": "alice",
            "properties": {
                "issuer": "https://idp.test/",
                "subject_kind": "human",
                "client": "console",
                "scopes": ["a", "b"],
                "roles": ["cashier"],
                "tenant": "acme",
                "clearance": "internal",
                "environment": "production",
                "actors": [{"id": "bot-7", "kind": "agent", "issuer": "https://idp.test/"}],
                "token_id": "jti-1",
                "transaction": "txn-1",
                "issued_at": NOW - 60,
                "expires_at": NOW + 840,
                "claims": {"department": "sales", "levels": [1, 2]},
            },
        },
        "action": {"name": "invoice:refund"},
        "resource": {
            "type": "invoice",
            "id": "17",
            "properties": {"amount": 12.5, "tenant": "acme", "lines": [{"n": 1}]},
        },
        "context": {
            "time": "2026-01-31T09:00:00.250Z",
            "environment": "production",
            "purpose": "support",
            "task": "T-1",
            "method": "POST",
            "route": "/invoices/{invoice_id}/refund",
            "endpoint": "billing.views:refund",
            "protocol": "http",
            "client": "192.0.2.7",
            "tls": True,
            "resource_as_of": "2026-01-31T08:59:59.250Z",
        },
    }


def test_a_kind_that_the_token_does_not_tell_is_unknown() -> None:
    asked = question(kind=None)
    assert evaluation_request(asked)["subject"]["type"] == "unknown"
    assert over_the_wire(asked).principal.kind is None


@pytest.mark.capability("C27")
def test_facts_that_a_request_does_not_tell_are_missing_and_not_empty() -> None:
    asked = question_of(
        {"subject": {"type": "user", "id": "a"}, "action": {"name": "x"}, "resource": {"type": "t", "id": "1"}}, now=NOW
    )
    facts, principal = asked.facts, asked.principal
    assert asked.now == NOW
    assert asked.resource.attributes is None
    assert {facts.method, facts.route, facts.endpoint, facts.protocol, facts.tls, asked.environment} == {None}
    assert {principal.issuer, principal.kind, principal.tenant, principal.purpose} == {None}


class Colour(StrEnum):
    RED = "red"


class Level(Enum):
    HIGH = 3


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        (datetime(2026, 1, 31, 9, tzinfo=UTC), "2026-01-31T09:00:00+00:00"),
        (datetime(2026, 1, 31, 9, tzinfo=timezone(timedelta(hours=1))), "2026-01-31T09:00:00+01:00"),
        (date(2026, 1, 31), "2026-01-31"),
        (UUID("12345678-1234-5678-1234-567812345678"), "12345678-1234-5678-1234-567812345678"),
        (Decimal("500.00"), 500),
        (Decimal("12.34"), 12.34),
        (Decimal("1E+3"), 1000),
        (Colour.RED, "red"),
        (Level.HIGH, 3),
        ((1, 2), [1, 2]),
        (frozenset({"b", "a"}), ["a", "b"]),
        ({"inner": None, "kept": 0}, {"kept": 0}),
        ("", ""),
        ([], []),
    ],
)
def test_values_of_the_application_travel_as_what_they_mean(value: object, sent: object) -> None:
    request = evaluation_request(question(resource=Resource("t", "1", {"value": value})))
    assert request["resource"]["properties"] == {"value": sent}
    assert type(request["resource"]["properties"]["value"]) is type(sent)


def test_an_attribute_that_is_none_is_left_out() -> None:
    request = evaluation_request(question(resource=Resource("t", "1", {"gone": None, "here": 1})))
    assert request["resource"]["properties"] == {"here": 1}


@pytest.mark.capability("C30")
@pytest.mark.parametrize(
    "value",
    [
        object(),
        b"bytes",
        math.nan,
        math.inf,
        2**53,
        -(2**53),
        Decimal("NaN"),
        Decimal("0.10000000000000000001"),
        Decimal(90071992547409930),
        datetime(2026, 1, 31, 9),  # noqa: DTZ001 - that it has no zone is the point
        "half \ud800",
        [None],
        {1: "a"},
        {"\ud800": 1},
        frozenset({1, "a"}),
        1 + 2j,
    ],
    ids=repr,
)
def test_a_value_without_an_exact_form_cannot_be_asked(value: object) -> None:
    with pytest.raises(MessageError, match=r"^resource\.properties"):
        evaluation_request(question(resource=Resource("t", "1", {"value": value})))


def test_a_value_nested_without_end_cannot_be_asked() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(MessageError, match="nested"):
        evaluation_request(question(resource=Resource("t", "1", {"value": endless})))


@pytest.mark.parametrize("id_", ["", "a\nb", "a\u202eb", "\ufffd", "x" * 1025])
def test_an_id_that_is_not_clear_cannot_be_asked(id_: str) -> None:
    with pytest.raises(MessageError, match=r"^resource\.id"):
        evaluation_request(question(resource=Resource("t", id_)))
    with pytest.raises(MessageError, match=r"^subject\.id"):
        evaluation_request(question(subject=id_))


@pytest.mark.parametrize("now", [math.nan, math.inf, 1e15, -1e15])
def test_a_time_outside_of_the_calendar_cannot_be_asked(now: float) -> None:
    with pytest.raises(MessageError, match=r"^context\.time"):
        evaluation_request(question(now=now))


BAD_MEMBERS: list[tuple[str, Any, str]] = [
    ("extra", 1, "extra"),
    ("subject", None, "subject"),
    ("subject", [], "subject"),
    ("subject/type", 1, "subject.type"),
    ("subject/type", "", "subject.type"),
    ("subject/id", None, "subject.id"),
    ("subject/id", "a\x00", "subject.id"),
    ("subject/extra", 1, "subject.extra"),
    ("subject/properties", None, "subject.properties"),
    ("subject/properties/extra", 1, "subject.properties.extra"),
    ("subject/properties/issuer", 1, "subject.properties.issuer"),
    # A property that is called as a field of the principal, and none of the message.
    ("subject/properties/subject", "root", "subject.properties.subject"),
    ("subject/properties/kind", "human", "subject.properties.kind"),
    ("subject/properties/purpose", "support", "subject.properties.purpose"),
    ("subject/properties/authenticated_at", 1.0, "subject.properties.authenticated_at"),
    ("subject/properties/subject_kind", "robot", "subject.properties.subject_kind"),
    ("subject/properties/scopes", "a b", "subject.properties.scopes"),
    ("subject/properties/scopes", ["a", 1], "subject.properties.scopes[1]"),
    ("subject/properties/scopes", None, "subject.properties.scopes"),
    ("subject/properties/actors", [{"id": "a"}], "subject.properties.actors[0].kind"),
    ("subject/properties/actors", [{"id": "a", "kind": "agent", "x": 1}], "subject.properties.actors[0].x"),
    ("subject/properties/actors", ["a"], "subject.properties.actors[0]"),
    ("subject/properties/issued_at", "now", "subject.properties.issued_at"),
    ("subject/properties/issued_at", True, "subject.properties.issued_at"),
    ("subject/properties/auth_time", "now", "subject.properties.auth_time"),
    ("subject/properties/auth_time", True, "subject.properties.auth_time"),
    ("subject/properties/auth_time", None, "subject.properties.auth_time"),
    ("subject/properties/acr", 5, "subject.properties.acr"),
    ("subject/properties/acr", ["phr"], "subject.properties.acr"),
    ("subject/properties/expires_at", 2**60, "subject.properties.expires_at"),
    ("subject/properties/claims", {"a": None}, "subject.properties.claims.a"),
    ("subject/properties/claims", [], "subject.properties.claims"),
    ("action/name", "", "action.name"),
    ("action/name", "invoice:*", "action.name"),
    ("action/name", "a b", "action.name"),
    ("action/properties", {}, "action.properties"),
    ("resource/type", None, "resource.type"),
    ("resource/id", 17, "resource.id"),
    ("resource/properties", None, "resource.properties"),
    ("resource/properties/amount", None, "resource.properties.amount"),
    ("resource/properties/amount", 2**53, "resource.properties.amount"),
    ("resource/properties/amount", [None], "resource.properties.amount[0]"),
    ("context", None, "context"),
    ("context/extra", 1, "context.extra"),
    ("context/time", "2026-01-31T09:00:00", "context.time"),
    ("context/time", "2026-13-31T09:00:00Z", "context.time"),
    ("context/time", "2026-01-31 09:00:00Z", "context.time"),
    ("context/time", "2026-01-31T09:00:00Z\n", "context.time"),
    ("context/time", 1769850000, "context.time"),
    ("context/resource_as_of", "yesterday", "context.resource_as_of"),
    ("context/tls", "true", "context.tls"),
    ("context/tls", 1, "context.tls"),
    ("context/protocol", "ftp", "context.protocol"),
    ("context/purpose", ["support"], "context.purpose"),
    ("context/environment", "\ud800", "context.environment"),
]


@pytest.mark.parametrize(("path", "value", "where"), BAD_MEMBERS)
def test_a_member_that_is_unknown_or_ill_typed_is_named(path: str, value: Any, where: str) -> None:
    with pytest.raises(MessageError) as caught:
        question_of(with_member(path, value))
    assert caught.value.where == where


@pytest.mark.parametrize("name", ["subject", "action", "resource"])
def test_a_member_that_is_absent_is_named(name: str) -> None:
    request = evaluation_request(question())
    del request[name]
    with pytest.raises(MessageError) as caught:
        question_of(request)
    assert caught.value.where == name


def test_a_request_without_time_needs_a_clock() -> None:
    request = evaluation_request(question())
    del request["context"]["time"]
    with pytest.raises(MessageError) as caught:
        question_of(request)
    assert caught.value.where == "context.time"
    assert question_of(request, now=5.0).now == 5.0


def test_the_time_of_a_request_goes_before_the_clock() -> None:
    assert question_of(evaluation_request(question()), now=5.0).now == NOW


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2026-01-31T09:00:00Z", 1_769_850_000.0),
        ("2026-01-31T10:00:00+01:00", 1_769_850_000.0),
        ("2026-01-31T09:00:00.5Z", 1_769_850_000.5),
        ("1969-12-31T23:59:59.25Z", -0.75),
    ],
)
def test_a_time_is_read_with_its_offset_and_fraction(text: str, seconds: float) -> None:
    assert question_of(with_member("context/time", text)).now == seconds
