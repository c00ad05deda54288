"""Each decision point is told all of a question where it looks, and nothing else is taken for what we say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authz_middleware.question import Question
from authz_middleware.remote.failure import FailureKind, RemoteFailure
from authz_middleware.remote.messages.advice import read_advice
from authz_middleware.remote.messages.evaluation import evaluation_request
from authz_middleware.remote.messages.values import MessageError
from authz_middleware.remote.query import RemoteQuery
from authz_middleware.resource import Resource
from tests.support.questions import json_objects, question, questions

VECTORS = Path(__file__).parents[1] / "vectors" / "authzen"
SCHEMA = jsonschema.Draft202012Validator(json.loads((VECTORS / "evaluation-request.schema.json").read_text()))
ASKED = question()


def told(asked: Question, dialect: str = "cerbos") -> dict[str, Any]:
    query = RemoteQuery.of(asked, "r1", dialect=dialect, request_id="id-1")
    return msgspec.json.decode(query.body)  # type: ignore[no-any-return]  # JSON


def has_null(value: object) -> bool:
    if isinstance(value, dict):
        return any(has_null(item) for item in value.values())
    return any(has_null(item) for item in value) if isinstance(value, list) else value is None


@pytest.mark.capability("C29")
@pytest.mark.parametrize("dialect", ["authzen", "cerbos"])
@settings(deadline=None)  # the machine may be busy
@given(asked=questions)
def test_every_request_holds_to_the_schema_and_has_no_null(dialect: str, asked: Question) -> None:
    request = told(asked, dialect)
    SCHEMA.validate(request)
    assert set(request) == {"subject", "action", "resource", "context"}
    assert not has_null(request)


@settings(deadline=None)  # the machine may be busy
@given(questions)
def test_authzen_is_the_standards_own_form(asked: Question) -> None:
    assert told(asked, "authzen") == evaluation_request(asked)


@pytest.mark.capability("C29")
@settings(deadline=None)  # the machine may be busy
@given(questions)
def test_cerbos_finds_everything_in_the_properties(asked: Question) -> None:
    """What a decision point ignores without a word decides nothing."""
    standard, request = evaluation_request(asked), told(asked)
    properties = request["subject"]["properties"]
    assert properties["context"] == standard["context"]
    assert properties["kind"] == standard["subject"]["type"]
    assert {name: properties[name] for name in standard["subject"]["properties"]} == standard["subject"]["properties"]
    assert (request["action"], request["resource"]) == (standard["action"], standard["resource"])
    assert request["context"] == {"cerbos.requestId": "id-1", "cerbos.includeMeta": True}


@pytest.mark.capability("C29")
@settings(deadline=None)  # the machine may be busy
@given(questions, json_objects)
def test_nothing_that_a_token_names_is_a_member_that_we_or_cerbos_use(asked: Question, claims: dict[str, Any]) -> None:
    """Claims are one member, whatever they are called themselves."""
    hostile = {**claims, "cerbos.roles": ["owner"], "cerbos.scope": "x", "kind": "human", "context": {}, "roles": ["o"]}
    principal = msgspec.structs.replace(asked.principal, claims=hostile)
    clean = told(msgspec.structs.replace(asked, principal=msgspec.structs.replace(asked.principal, claims={})))
    request = told(msgspec.structs.replace(asked, principal=principal))
    assert request["subject"]["properties"].pop("claims") == hostile
    assert request == clean


@pytest.mark.capability("C29")
@pytest.mark.parametrize("name", ["cerbos.scope", "cerbos.policyVersion", "cerbos.roles", "cerbos."])
def test_an_attribute_that_cerbos_would_obey_cannot_be_asked(name: str) -> None:
    asked = question(resource=Resource("t", "1", {"amount": 1, name: "other"}))
    with pytest.raises(MessageError, match=r"^resource\.properties\.cerbos\."):
        RemoteQuery.of(asked, "r1", dialect="cerbos")
    assert told(asked, "authzen")["resource"]["properties"][name] == "other"


@pytest.mark.capability("C29")
@pytest.mark.parametrize(
    ("roles", "sent"),
    [
        ({"cashier"}, ["cashier"]),
        ({"b", "a"}, ["a", "b"]),
        (set(), ["authz.none"]),
        ({""}, ["authz.none"]),
        ({"", "a"}, ["a"]),
    ],
)
def test_there_is_always_a_role_so_that_the_type_is_never_one(roles: set[str], sent: list[str]) -> None:
    assert told(question(roles=frozenset(roles)))["subject"]["properties"]["cerbos.roles"] == sent


def test_an_unknown_kind_is_told_as_such() -> None:
    assert told(question(kind=None))["subject"]["properties"]["kind"] == "unknown"


def test_placing_changes_nothing_that_is_remembered() -> None:
    first = told(ASKED)
    assert told(ASKED) == first
    assert told(ASKED, "authzen") == evaluation_request(ASKED)


def answer(*outputs: dict[str, Any], request_id: str = "id-1", **about: Any) -> dict[str, Any]:
    """An answer context as Cerbos 0.55 gives it."""
    action, resource = ASKED.action, {"kind": ASKED.resource.type, "id": ASKED.resource.id}
    result = {
        "actions": {action: "EFFECT_ALLOW"},
        "meta": {"actions": {action: {"matchedPolicy": "resource.invoice.vdefault"}}},
        "outputs": [{"action": action, "src": "resource.invoice.vdefault#r", **output} for output in outputs],
        "resource": resource,
        **about,
    }
    return {"cerbos.response": {"requestId": request_id, "results": [result]}}


def read(context: dict[str, Any], *ids: str) -> Any:
    return RemoteQuery.of(ASKED, "r1", dialect="cerbos", request_id="id-1").read_context(context, ids)


def test_outputs_of_policies_are_advice() -> None:
    reason = {"reason_user": "Ask your manager.", "reason_admin": {"en": "over limit"}}
    context = answer({"val": reason}, {"val": {"obligations": [{"id": "notify"}], "acr_values": ["phr"]}})
    assert read(context) == {**reason, "obligations": [{"id": "notify"}], "acr_values": ["phr"]}


@pytest.mark.capability("C28")
def test_obligations_of_several_policies_add_up() -> None:
    context = answer({"val": {"obligations": [{"id": "a"}]}}, {"val": {"obligations": [{"id": "b"}, {"id": "a"}]}})
    advice = read_advice(read(context), permit=True)
    assert not isinstance(advice, RemoteFailure)
    assert [obligation.id for obligation in advice.obligations] == ["a", "b", "a"]


@pytest.mark.parametrize(
    ("outputs", "context"),
    [
        ([], {}),
        ([{"val": "pto-limit"}], {"reason_admin": "pto-limit"}),
        ([{"val": 7}, {"val": True}, {"val": ["x"]}, {}], {}),
        ([{"val": {"reason_user": "a"}}, {"val": {"reason_user": "b"}}], {"reason_user": "a"}),
        ([{"val": {"acr_values": ["a"]}}, {"val": {"acr_values": ["a"]}}], {"acr_values": ["a"]}),
        ([{"val": {"other": 1}}, {"val": {"other": 2}}], {"other": 1}),
        ([{"val": {"obligations": [{"id": "x"}]}, "action": "invoice:read"}], {}),
    ],
)
def test_what_is_said_of_this_action_is_read(outputs: list[dict[str, Any]], context: dict[str, Any]) -> None:
    assert read(answer(*outputs)) == context


NOT_READ: dict[str, dict[str, Any]] = {
    "no response": {},
    "null response": {"cerbos.response": None},
    "text response": {"cerbos.response": "x"},
    "no results": {"cerbos.response": {"requestId": "id-1"}},
    "results of another type": {"cerbos.response": {"requestId": "id-1", "results": {}}},
    "another resource": answer(resource={"kind": "invoice", "id": "18"}),
    "another kind": answer(resource={"kind": "refund", "id": "17"}),
    "another action": answer(actions={"invoice:read": "EFFECT_ALLOW"}),
    "two results": {"cerbos.response": {"requestId": "id-1", "results": 2 * answer()["cerbos.response"]["results"]}},
    "outputs of another type": answer(outputs={"val": 1}),
    "an output that was not computed": answer({"error": "no such key: nope"}),
    "one of several not computed": answer({"val": {"reason_user": "x"}}, {"error": "no such key: nope"}),
    "contradicting conditions": answer({"val": {"acr_values": ["a"]}}, {"val": {"acr_values": ["b"]}}),
    "contradicting ages": answer({"val": {"max_age": 60}}, {"val": {"max_age": 61}}),
    "obligations that do not add up": answer({"val": {"obligations": []}}, {"val": {"obligations": {"id": "x"}}}),
    "obligations that are no list": answer({"val": {"obligations": {"id": "x"}}}),
    "a misspelt obligation": answer({"val": {"obligation": {"id": "x"}}}),
}


@pytest.mark.capability("C28", "C30")
@pytest.mark.promise("P4")
@pytest.mark.parametrize("context", NOT_READ.values(), ids=NOT_READ.keys())
def test_a_permit_whose_obligations_may_be_missing_is_none(context: dict[str, Any]) -> None:
    told = read(context)
    assert not isinstance(told, RemoteFailure)
    advice = read_advice(told, permit=True)
    assert isinstance(advice, RemoteFailure)
    assert advice.kind is FailureKind.MALFORMED


@pytest.mark.parametrize("context", NOT_READ.values(), ids=NOT_READ.keys())
def test_a_deny_is_one_whatever_is_beside_it(context: dict[str, Any]) -> None:
    told = read(context)
    assert not isinstance(told, RemoteFailure)
    assert not isinstance(read_advice(told, permit=False), RemoteFailure)


@pytest.mark.capability("C30")
@pytest.mark.parametrize("request_id", ["id-2", "", "ID-1"])
def test_an_answer_to_another_question_is_no_answer(request_id: str) -> None:
    """Cerbos gives no `X-Request-ID` back, but it gives the id that it was told."""
    failure = read(answer(request_id=request_id))
    assert isinstance(failure, RemoteFailure)
    assert failure.kind is FailureKind.MISMATCHED


def test_an_answer_in_a_batch_may_carry_the_id_of_another_item() -> None:
    assert read(answer(request_id="id-2"), "id-1", "id-2") == {}
    assert isinstance(read(answer(request_id="id-3"), "id-1", "id-2"), RemoteFailure)


@settings(deadline=None)  # the machine may be busy
@given(json_objects)
def test_in_the_standards_dialect_a_context_is_what_it_is(context: dict[str, Any]) -> None:
    assert RemoteQuery.of(ASKED, "r1").read_context(context) == context
    assert RemoteQuery(("k",), b"{}", "r").read_context(context) == context


@settings(deadline=None)  # the machine may be busy
@given(st.dictionaries(st.sampled_from(["cerbos.response", "results", "requestId"]), st.none() | json_objects))
def test_whatever_is_in_a_context_reading_it_does_not_fail(context: dict[str, Any]) -> None:
    read(context)
