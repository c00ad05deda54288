"""Promise P4: only a well-formed answer whose `decision` is exactly `true` is a permit."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from authz_middleware.remote.failure import FailureKind, RemoteAnswer, RemoteFailure
from authz_middleware.remote.messages.answer import parse_answer
from authz_middleware.strict_json import MAX_BODY, MAX_DEPTH, StrictJSONError, parse_object
from tests.support.pdp import DENY, JSON, PERMIT, raw
from tests.support.questions import json_objects, json_values

pytestmark = pytest.mark.promise("P4")

MALFORMED_BODIES: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "body.not_json"),
    "white space": (b"  \n", "body.not_json"),
    "null": (b"null", "body.not_an_object"),
    "true": (b"true", "body.not_an_object"),
    "list": (b"[true]", "body.not_an_object"),
    "list of the answer": (b'[{"decision":true}]', "body.not_an_object"),
    "text": (b'"true"', "body.not_an_object"),
    "empty object": (b"{}", "body.decision"),
    "text true": (b'{"decision":"true"}', "body.decision"),
    "text permit": (b'{"decision":"Permit"}', "body.decision"),
    "one": (b'{"decision":1}', "body.decision"),
    "one point nothing": (b'{"decision":1.0}', "body.decision"),
    "zero": (b'{"decision":0}', "body.decision"),
    "no decision": (b'{"decision":null}', "body.decision"),
    "decision in a list": (b'{"decision":[true]}', "body.decision"),
    "decision in an object": (b'{"decision":{"decision":true}}', "body.decision"),
    "other case": (b'{"Decision":true}', "body.decision"),
    "space in the name": (b'{"decision ":true}', "body.decision"),
    "zero width in the name": ('{"decis\u200bion":true}'.encode(), "body.decision"),
    "decision deeper": (b'{"result":{"decision":true}}', "body.decision"),
    "a batch": (b'{"evaluations":[{"decision":true}]}', "body.decision"),
    "python": (b'{"decision":True}', "body.not_json"),
    "single quotes": (b"{'decision':true}", "body.not_json"),
    "trailing comma": (b'{"decision":true,}', "body.not_json"),
    "comment": (b'{"decision":true/**/}', "body.not_json"),
    "cut": (b'{"decision":true', "body.not_json"),
    "two documents": (PERMIT + PERMIT, "body.not_json"),
    "two lines": (PERMIT + b"\n" + DENY, "body.not_json"),
    "trailing garbage": (PERMIT + b"\x00", "body.not_json"),
    "byte order mark": (b"\xef\xbb\xbf" + PERMIT, "body.not_json"),
    "anti-hijacking prefix": (b")]}'\n" + PERMIT, "body.not_json"),
    "control character": (b'{"decision":true,"a":"\x01"}', "body.not_json"),
    "twice": (b'{"decision":true,"decision":true}', "body.duplicate_member"),
    "twice, by an escape": (b'{"decision":false,"\\u0064ecision":true}', "body.duplicate_member"),
    "twice, deeper": (b'{"decision":true,"context":{"a":1,"a":2}}', "body.duplicate_member"),
    "nan": (b'{"decision":true,"a":NaN}', "body.not_finite"),
    "infinity": (b'{"decision":true,"a":-Infinity}', "body.not_finite"),
    "a number too large": (b'{"decision":true,"a":1e999}', "body.not_finite"),
    "digits without end": (b'{"decision":true,"a":' + b"9" * 5000 + b"}", "body.number_too_long"),
    "latin-1": (b'{"decision":true,"a":"\xe9"}', "body.not_utf8"),
    "overlong utf-8": (b'{"decision":true,"a":"\xc0\xaf"}', "body.not_utf8"),
    "utf-16": (PERMIT.decode().encode("utf-16"), "body.not_utf8"),
    "utf-16 without a mark": (PERMIT.decode().encode("utf-16-le"), "body.not_json"),
    "encoded surrogate": (b'{"decision":true,"a":"\xed\xa0\x80"}', "body.not_utf8"),
    "escaped surrogate": (b'{"decision":true,"a":"\\ud800"}', "body.lone_surrogate"),
    "escaped surrogate, in a name": (b'{"decision":true,"\\udfff":1}', "body.lone_surrogate"),
    "gzip": (b"\x1f\x8b\x08\x00", "body.not_utf8"),
    "too deep": (b'{"decision":true,"a":' + b"[" * 32 + b"]" * 32 + b"}", "body.too_deep"),
    "far too deep": (b'{"decision":true,"a":' + b"[" * 30000 + b"]" * 30000 + b"}", "body.too_deep"),
    "too large": (PERMIT + b" " * MAX_BODY, "body.too_large"),
    "context of text": (b'{"decision":true,"context":"x"}', "body.context"),
    "context of nothing": (b'{"decision":true,"context":null}', "body.context"),
}


@pytest.mark.capability("C29")
@pytest.mark.parametrize("name", MALFORMED_BODIES)
def test_a_malformed_body_is_a_fault(name: str) -> None:
    body, detail = MALFORMED_BODIES[name]
    assert parse_answer(raw(body), "r") == RemoteFailure(FailureKind.MALFORMED, detail)


@pytest.mark.capability("C29")
@given(st.one_of(json_objects, json_values, st.dictionaries(st.just("decision"), json_values)))
@example({"decision": True})
@example({"decision": 1})
def test_of_all_json_only_true_is_a_permit(value: Any) -> None:
    reply = parse_answer(raw(value), "r")
    permit = isinstance(reply, RemoteAnswer) and reply.permit
    assert permit == (isinstance(value, dict) and value.get("decision") is True and "context" not in value)


@pytest.mark.capability("C29")
@given(
    st.binary(max_size=64)
    | st.binary(max_size=8).map(lambda tail: PERMIT + tail)
    | st.text(max_size=64).map(str.encode)
)
def test_no_bytes_make_it_raise_or_permit_by_chance(body: bytes) -> None:
    reply = parse_answer(raw(body), "r")
    if isinstance(reply, RemoteAnswer) and reply.permit:
        assert json.loads(body)["decision"] is True


@pytest.mark.capability("C29")
@given(st.integers(100, 599), st.sampled_from([PERMIT, DENY]))
def test_of_all_statuses_only_200_is_an_answer(status: int, body: bytes) -> None:
    reply = parse_answer(raw(body, status), "r")
    assert isinstance(reply, RemoteAnswer) == (status == 200)
    if isinstance(reply, RemoteFailure):
        assert reply.is_outage == (status == 429 or status >= 500)


@pytest.mark.parametrize(
    ("headers", "detail"),
    [
        ((), "header.content_type"),
        ((("content-type", "text/html"),), "header.content_type"),
        ((("content-type", "application/json+x"),), "header.content_type"),
        ((("content-type", "application/problem+json"),), "header.content_type"),
        ((("content-type", "application/json; charset=utf-16"),), "header.content_type"),
        ((("content-type", "application/json; a=b"),), "header.content_type"),
        ((*JSON, ("content-type", "text/html")), "header.content_type"),
        ((*JSON, ("content-encoding", "gzip")), "header.content_encoding"),
        ((*JSON, ("content-encoding", "identity"), ("content-encoding", "br")), "header.content_encoding"),
    ],
)
def test_a_header_that_changes_what_the_body_means_is_a_fault(
    headers: tuple[tuple[str, str], ...], detail: str
) -> None:
    assert parse_answer(raw(headers=headers), "r") == RemoteFailure(FailureKind.MALFORMED, detail)


@pytest.mark.parametrize(
    "content_type", ["application/json", "Application/JSON", 'application/json; charset="UTF-8"', "application/json;"]
)
def test_json_may_be_spelt_in_these_ways(content_type: str) -> None:
    assert parse_answer(raw(headers=(("content-type", content_type),)), "r") == RemoteAnswer(True)


@pytest.mark.parametrize("ids", [("other",), ("r", "other"), ("R",), ("",), ("r, r",)])
def test_an_answer_to_another_request_is_a_fault(ids: tuple[str, ...]) -> None:
    headers = (*JSON, *(("x-request-id", id_) for id_ in ids))
    assert parse_answer(raw(headers=headers), "r") == RemoteFailure(FailureKind.MISMATCHED, "header.request_id")


def test_an_answer_to_this_request_may_say_so() -> None:
    assert parse_answer(raw(headers=(*JSON, ("x-request-id", "r"))), "r") == RemoteAnswer(True)


def test_members_that_the_standard_may_add_later_are_no_fault() -> None:
    assert parse_answer(raw(b'{"decision":false,"later":1}'), "r") == RemoteAnswer(False)


def test_the_deepest_body_that_is_read() -> None:
    deepest = b'{"a":' * (MAX_DEPTH - 1) + b"{}" + b"}" * (MAX_DEPTH - 1)
    assert parse_object(deepest)
    with pytest.raises(StrictJSONError, match=r"body\.too_deep"):
        parse_object(b'{"a":' + deepest + b"}")


def test_a_pair_of_escapes_that_is_one_character_is_text() -> None:
    assert parse_object(b'{"a":"\\ud83d\\ude00"}') == {"a": "\U0001f600"}


def test_a_failure_repeats_nothing_of_what_came() -> None:
    reply = parse_answer(raw(b'{"decision":"secret"}'), "r")
    assert "secret" not in repr(reply)


@pytest.mark.parametrize("kind", FailureKind)
def test_each_kind_of_failure_is_an_outage_or_a_fault_on_purpose(kind: FailureKind) -> None:
    outages = {"connect", "deadline", "closed", "status_5xx", "throttled", "breaker_open"}
    assert RemoteFailure(kind).is_outage == (kind.value in outages)
