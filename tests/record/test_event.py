"""The record's shape: OPA's EventV1 with one extra member."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime
from decimal import Decimal

import jsonschema
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz_middleware import __version__
from authz_middleware.advice import Advice, Obligation
from authz_middleware.decision import Decision, Fallback, FallbackMode, Reason, Source
from authz_middleware.identity.principal import Actor
from authz_middleware.record import inputs as inputs_module
from authz_middleware.record.identifiers import decision_id, new_writer, trace_id
from authz_middleware.record.recorder import Recorder
from authz_middleware.record.schema import json_schema
from authz_middleware.record.times import Times
from authz_middleware.remote.messages.evaluation import evaluation_request
from authz_middleware.remote.messages.values import time_text
from authz_middleware.resource import Resource
from authz_middleware.settings.model import AppSettings, DecisionLogSettings
from authz_middleware.step_up import StepUp
from tests.support.questions import clear_ids
from tests.support.records import DENY, FACTS, NOW, PERMIT, Memory, app, principal, question, recorder

pytestmark = pytest.mark.capability("C41")


def record_of(asked, decision, facts=FACTS, settings=None, **more):
    sink = Memory()
    log = Recorder(DecisionLogSettings(), settings or app(), sink=sink, clock=lambda: NOW)
    log.submit(asked, facts, decision, **more)
    log.close()
    (record,) = sink.records
    return record


def test_a_permit_says_who_what_why_and_by_which_policy() -> None:
    record = record_of(question(), PERMIT, req_id=9, policy_age=12.5, metrics={"timer_authz_decide_ns": 900})
    writer = record["authz"].pop("writer")
    assert record.pop("decision_id") == f"{writer}-000000000001"
    assert record == {
        "labels": {"app": "billing", "environment": "production", "version": __version__},
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
        "bundles": {"billing": {"revision": "ab" * 32}},
        "path": "authz/invoice/read",
        "input": evaluation_request(question()),
        "result": True,
        "requested_by": "192.0.2.7",
        "timestamp": "2026-01-01T00:00:00.250Z",
        "metrics": {"timer_authz_decide_ns": 900},
        "req_id": 9,
        "authz": {
            "schema": 1,
            "outcome": "permit",
            "reason": "permitted",
            "rule": "read-invoices",
            "owner": "payments@example.com",
            "serial": 7,
            "decided_by": "local",
            "policy_age_s": 12.5,
            "mode": "enforce",
            "seq": 1,
        },
    }


def test_a_refusal_names_its_reason_and_the_inputs_it_lacked() -> None:
    decision = Decision(
        permit=False,
        reason=Reason.INPUT_STALE,
        rule="refund-small",
        missing_inputs=("resource.tenant",),
        stale_inputs=("resource.amount",),
    )
    record = record_of(question(), decision)
    assert record["result"] is False
    told = record["authz"]
    assert (told["outcome"], told["reason"]) == ("deny", "input.stale")
    assert told["missing_inputs"] == ["resource.tenant"]
    assert told["stale_inputs"] == ["resource.amount"]


def test_a_fallback_tells_what_failed_which_mode_and_how_old_the_answer_is() -> None:
    decision = Decision(
        permit=True,
        reason=Reason.CACHED,
        source=Source.FALLBACK,
        fallback=Fallback("timeout", FallbackMode.CACHED, 12.0),
    )
    record = record_of(question(), decision)
    assert record["authz"]["decided_by"] == "fallback"
    assert record["authz"]["fallback"] == {"trigger": "timeout", "mode": "cached", "age_s": 12.0}


def test_what_the_decision_point_said_is_told_but_for_the_attributes_of_its_obligations() -> None:
    said = Advice(
        "ask the cashier",
        "policy C076E82F",
        StepUp(("phr",), 300),
        (Obligation("log", {"to": "audit"}), Obligation("urn:example:notify")),
    )
    refused = Decision(
        permit=False, reason=Reason.OBLIGATION_UNFULFILLED, advice=said, unfulfilled="urn:example:notify"
    )
    record = record_of(question(), refused)
    assert record["authz"]["advice"] == {
        "reason_user": "ask the cashier",
        "reason_admin": "policy C076E82F",
        "step_up": {"acr_values": ["phr"], "max_age": 300},
        "obligations": ["log", "urn:example:notify"],
        "unfulfilled": "urn:example:notify",
    }
    assert "masked" not in record


def test_where_it_said_nothing_nothing_is_told_of_it() -> None:
    assert "advice" not in record_of(question(), DENY)["authz"]
    only_a_reason = Decision(permit=False, reason=Reason.REMOTE_DENY, advice=Advice("no"))
    assert record_of(question(), only_a_reason)["authz"]["advice"] == {"reason_user": "no"}


@pytest.mark.promise("P6")
def test_what_looks_like_a_secret_in_what_it_said_is_masked_and_listed() -> None:
    secret = "sk_live_" + "a" * 24
    said = Advice(f"your key {secret}", f"retry with token={secret}", None, (Obligation("log"), Obligation(secret)))
    resource = Resource("invoice", "42", {"password": "x"})
    record = record_of(question(resource=resource), Decision(permit=False, reason=Reason.REMOTE_DENY, advice=said))
    assert record["authz"]["advice"] == {"reason_user": "***", "reason_admin": "***", "obligations": ["log", "***"]}
    assert record["masked"] == [
        "/input/resource/properties/password",
        "/authz/advice/reason_user",
        "/authz/advice/reason_admin",
        "/authz/advice/obligations/1",
    ]


def test_a_request_without_a_known_caller_shows_its_facts_and_no_subject() -> None:
    decision = Decision(permit=False, reason=Reason.CREDENTIAL_INVALID, detail="token.expired")
    record = record_of(None, decision, action="invoice:read")
    assert record["input"] == {
        "action": {"name": "invoice:read"},
        "resource": {"type": "route", "id": "/invoices/{invoice_id}"},
        "context": {
            "method": "GET",
            "route": "/invoices/{invoice_id}",
            "endpoint": "billing.views:read",
            "protocol": "http",
            "client": "192.0.2.7",
            "tls": True,
        },
    }
    assert record["authz"]["detail"] == "token.expired"
    assert record["timestamp"] == "2026-01-01T00:00:00.250Z"


def test_where_no_action_is_known_the_method_stands_for_it() -> None:
    record = record_of(None, Decision(permit=False, reason=Reason.UNDECIDED))
    assert record["path"] == "authz"
    assert record["input"]["action"] == {"name": "GET"}


@pytest.mark.capability("C46")
def test_a_refusal_that_is_only_observed_is_marked_as_a_shadow() -> None:
    observing = AppSettings("billing", "production", mode="observe")
    told = record_of(question(), DENY, settings=observing)["authz"]
    assert (told["mode"], told["shadow"], told["outcome"]) == ("observe", True, "deny")
    assert "shadow" not in record_of(question(), PERMIT, settings=observing)["authz"]
    assert "shadow" not in record_of(question(), DENY)["authz"]


TRACEPARENTS = {
    "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01": "0af7651916cd43dd8448eb211c80319c",
    "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-later": "0af7651916cd43dd8448eb211c80319c",
    "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more": None,
    "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01": None,
    "00-00000000000000000000000000000000-b7ad6b7169203331-01": None,
    "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01": None,
    "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01": None,
    "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\n": None,
    "00-\u0660af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01": None,
    "": None,
    'x", "result": true': None,
}


@pytest.mark.parametrize(("header", "expected"), TRACEPARENTS.items())
def test_the_trace_id_is_taken_from_a_valid_traceparent_only(header: str, expected: str | None) -> None:
    assert trace_id(header) == expected


def test_a_decision_id_is_a_version_8_uuid_that_ends_in_the_sequence_number() -> None:
    writer = new_writer()
    name = uuid.UUID(decision_id(writer, 0xABCDEF))
    assert (name.version, name.variant) == (8, uuid.RFC_4122)
    assert name.int & 0xFFFFFFFFFFFF == 0xABCDEF
    assert str(name) == decision_id(writer, 0xABCDEF)


def test_writers_have_names_of_their_own() -> None:
    assert len({new_writer() for _ in range(1000)}) == 1000


def test_the_published_schema_is_a_schema_and_refuses_a_record_without_its_outcome() -> None:
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    record = record_of(question(), PERMIT)
    jsonschema.validate(record, schema)
    del record["authz"]["outcome"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(record, schema)


def test_the_schema_can_be_published_as_json() -> None:
    assert json.loads(json.dumps(json_schema())) == json_schema()


IDS = clear_ids
VALUES = st.recursive(
    st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False, allow_infinity=False) | IDS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b/c", "d~e"]), inner, max_size=3)
    ),
    max_leaves=5,
)


@given(
    subject=IDS,
    kind=st.sampled_from([None, "human", "workload", "agent"]),
    actors=st.lists(st.builds(Actor, id=IDS), max_size=2).map(tuple),
    claims=st.dictionaries(st.sampled_from(["team", "level"]), VALUES, max_size=2),
    resource=st.builds(
        Resource,
        type=IDS,
        id=IDS,
        attributes=st.none() | st.dictionaries(st.sampled_from(["amount", "tenant", "owner"]), VALUES, max_size=3),
        as_of=st.none() | st.floats(0, 4e9),
    ),
    client=st.none() | st.just("2001:db8::1"),
    now=st.floats(0, 4e9),
)
def test_the_input_is_the_request_that_the_decision_point_would_be_asked(
    subject, kind, actors, claims, resource, client, now
) -> None:
    facts = msgspec.structs.replace(FACTS, client=client)
    who = principal(subject=subject, kind=kind, actors=actors, claims=claims)
    asked = question(who=who, resource=resource, facts=facts, now=now)
    sink = Memory()
    log = recorder(sink)
    log.submit(asked, facts, PERMIT)
    log.submit(asked, facts, PERMIT)  # from the frame that the first one left
    log.close()
    for record in sink.records:
        if "masked" not in record:
            assert record["input"] == evaluation_request(asked)


@given(st.floats(0, 4e9) | st.integers(0, 4_000_000_000).map(float))
def test_remembered_seconds_read_as_if_they_were_not(now: float) -> None:
    times = Times()
    for moment in (now, now + 0.1, float(int(now)), now):
        assert times.text(moment).decode() == time_text(moment, "now")


def test_a_moment_before_the_next_second_reads_as_that_second() -> None:
    now = 1_000_000_000 - 1e-10 * 2000
    assert Times().text(now).decode() == time_text(now, "now")
    assert Times().text(0.9999999999) == b"1970-01-01T00:00:01.000Z"


VARIANTS = [
    question(),
    question(action="invoice:approve"),
    question(who=principal(subject="bob")),
    question(facts=msgspec.structs.replace(FACTS, method="POST")),
    question(facts=msgspec.structs.replace(FACTS, route="/other")),
    question(facts=msgspec.structs.replace(FACTS, endpoint="billing.views:other")),
    question(facts=msgspec.structs.replace(FACTS, protocol="websocket")),
    question(facts=msgspec.structs.replace(FACTS, tls=False)),
    question(facts=msgspec.structs.replace(FACTS, client=None)),
    question(resource=Resource("report", "42")),
    question(now=NOW + 1),
    msgspec.structs.replace(question(), environment="staging"),
]


def test_what_is_remembered_of_one_request_is_not_told_of_another() -> None:
    caller = VARIANTS[0].principal
    asked = [each if i == 2 else msgspec.structs.replace(each, principal=caller) for i, each in enumerate(VARIANTS)]
    sink = Memory()
    log = recorder(sink)
    for each in asked:
        log.submit(each, each.facts, PERMIT)
    log.close()
    assert [record["input"] for record in sink.records] == [evaluation_request(each) for each in asked]


def test_what_is_remembered_of_callers_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs_module, "MAX_FRAMES", 10)
    sink = Memory()
    log = recorder(sink)
    for number in range(30):
        log.submit(question(who=principal(subject=f"caller-{number}")), FACTS, PERMIT)
    assert log.flush()
    assert len(log._writer._lines._inputs._frames) == 10
    log.close()
    assert [r["input"]["subject"]["id"] for r in sink.records] == [f"caller-{number}" for number in range(30)]


@pytest.mark.parametrize("now", [-1.5, -0.25, 1e18, float("nan"), float("inf")])
def test_a_clock_that_tells_no_date_does_not_cost_the_record(now: float) -> None:
    record = record_of(question(now=now), PERMIT)
    assert record["authz"]["seq"] == 1
    assert datetime.fromisoformat(record["timestamp"]) < datetime(2000, 1, 1, tzinfo=UTC)


ODD_ATTRIBUTES = {
    "object": object(),
    "bytes": b"x",
    "nan": float("nan"),
    "huge": 2**70,
    "surrogate": "\ud800",
    "precise": Decimal("0.12345678901234567890123"),
}


@pytest.mark.parametrize(("name", "value"), ODD_ATTRIBUTES.items())
def test_an_attribute_that_has_no_form_in_json_is_left_out_and_listed(name: str, value: object) -> None:
    resource = Resource("invoice", "42", {name: value, "amount": Decimal("12.50")})
    record = record_of(question(resource=resource), PERMIT)
    assert record["erased"] == [f"/input/resource/properties/{name}"]
    assert record["input"]["resource"]["properties"] == {"amount": 12.5}


def test_claims_that_have_no_form_in_json_leave_the_caller_named() -> None:
    record = record_of(question(who=principal(claims={"odd": object()})), PERMIT)
    assert record["erased"] == ["/input/subject/properties"]
    assert record["input"]["subject"] == {"type": "human", "id": "alice@example.com"}
    assert record["input"]["context"]["time"] == "2026-01-01T00:00:00.250Z"


def test_an_input_that_nothing_can_be_made_of_is_erased_and_the_decision_still_recorded() -> None:
    class Hostile(dict):
        def items(self):
            raise RuntimeError("no")

    record = record_of(question(who=principal(claims=Hostile(team="x"))), DENY)
    assert record["erased"] == ["/input"]
    assert record["input"] == {}
    assert record["authz"]["reason"] == "rule.none"


def test_an_id_that_is_no_text_is_shown_as_text() -> None:
    record = record_of(question(resource=Resource("invoice", 42)), DENY)  # type: ignore[arg-type]
    assert record["input"]["resource"] == {"type": "invoice", "id": "42"}


@pytest.mark.capability("C42")
def test_the_record_holds_the_attributes_as_they_were_when_decided() -> None:
    attributes = {"amount": 10, "lines": [{"sku": "a"}]}
    sink = Memory()
    log = recorder(sink)
    log._writer._linger = 0.2
    log.submit(question(resource=Resource("invoice", "42", attributes)), FACTS, PERMIT)
    attributes["amount"] = 999
    attributes["lines"][0]["sku"] = "z"
    log.close()
    assert sink.records[0]["input"]["resource"]["properties"] == {"amount": 10, "lines": [{"sku": "a"}]}


def test_attributes_that_cannot_be_copied_are_left_out() -> None:
    class Hostile(dict):
        def __deepcopy__(self, memo):
            raise RuntimeError("no")

    record = record_of(question(resource=Resource("invoice", "42", {"x": Hostile()})), PERMIT)
    assert record["erased"] == ["/input/resource/properties/*"]
