"""The context of an answer: what is read of it, and that a permit under conditions that cannot be read is none."""

from __future__ import annotations

import json
import unicodedata
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from authz_middleware.advice import NO_ADVICE, Advice, Obligation
from authz_middleware.remote.failure import FailureKind, RemoteAnswer, RemoteFailure
from authz_middleware.remote.messages.advice import MAX_OBLIGATIONS, MAX_REASON, read_advice
from authz_middleware.remote.messages.answer import parse_answer
from authz_middleware.step_up import MAX_AGE, MAX_LENGTH, MAX_VALUES, StepUp
from tests.support.pdp import raw
from tests.support.questions import json_objects, json_values

pytestmark = pytest.mark.promise("P4")

MEMBERS = (
    "reason_user",
    "reason_admin",
    "acr_values",
    "amr_values",
    "max_age",
    "obligations",
    "obligation",
    "Obligations",
)


def answered(context: Any, *, permit: bool) -> RemoteAnswer | RemoteFailure:
    return parse_answer(raw({"decision": permit, "context": context}), "r")


def advice(context: Any, *, permit: bool = False) -> Advice:
    answer = answered(context, permit=permit)
    assert isinstance(answer, RemoteAnswer)
    assert answer.permit is permit
    return answer.advice


# AuthZEN 1.0 section 5.5.2, and the drafts before it.
SPECIFIED: dict[str, tuple[dict[str, Any], Advice]] = {
    "by code": (
        {
            "reason_admin": {"403": "Request failed policy C076E82F"},
            "reason_user": {"403": "Insufficient privileges. Contact your administrator"},
        },
        Advice("Insufficient privileges. Contact your administrator", "Request failed policy C076E82F"),
    ),
    "by language": (
        {
            "id": "0",
            "reason_admin": {"en": "Request failed policy C076E82F"},
            "reason_user": {"es-403": "Privilegios insuficientes", "en-403": "Insufficient privileges"},
        },
        Advice("Insufficient privileges", "Request failed policy C076E82F"),
    ),
    "metadata": (
        {"metadata": {"response_time": 60, "response_time_unit": "ms"}, "environment": {"ip": "10.10.0.1"}},
        NO_ADVICE,
    ),
    "step-up": (
        {"acr_values": "urn:com:example:loa:3", "amr_values": "mfa hwk"},
        Advice(step_up=StepUp(("urn:com:example:loa:3",))),
    ),
}


@pytest.mark.capability("C29")
@pytest.mark.parametrize("name", SPECIFIED)
def test_what_the_standard_shows_is_understood(name: str) -> None:
    context, expected = SPECIFIED[name]
    assert advice(context) == expected


def test_without_a_context_there_is_no_advice() -> None:
    for body in ({"decision": True}, {"decision": True, "context": {}}, {"decision": True, "context": {"other": 1}}):
        answer = parse_answer(raw(body), "r")
        assert isinstance(answer, RemoteAnswer)
        assert answer.advice is NO_ADVICE


REASONS: dict[str, tuple[Any, str | None]] = {
    "text": ("not today", "not today"),
    "english first": ({"de": "nein", "en": "no", "403": "x"}, "no"),
    "a kind of english": ({"de": "nein", "en-GB": "sorry, no"}, "sorry, no"),
    "a language that only begins like english": ({"enm": "nay", "de": "nein"}, "nein"),
    "else the first by name": ({"fr": "non", "de": "nein"}, "nein"),
    "what is no text is passed over": ({"en": 4, "de": ["nein"], "fr": "non"}, "non"),
    "what cannot be seen is passed over": ({"en": "\u200b\n", "fr": "non"}, "non"),
    "line breaks": ("one\r\ntwo\n\n\tthree", "one two three"),
    "controls": ("a\x1b[31mb\x07\x7fc\x85d", "a[31mbc d"),
    "bidirectional override": ("abc\u202egnp.exe\u2066x", "abcgnp.exex"),
    "zero width": ("pass\u200bword\u2060\ufeff", "password"),
    "fillers": ("a\u3164b\u2800c\ufe0fd\U000e0041", "abcd"),
    "separators": ("a\u2028b\u2029c\u00a0d", "a b c d"),
    "another script": ("доступ запрещён 拒否", "доступ запрещён 拒否"),
    "spaces around what cannot be seen": ("a \u200b b \u200b", "a b"),
    "composed": ("cafe\u0301", "café"),
    "nothing": ("", None),
    "spaces": ("   ", None),
    "null": (None, None),
    "number": (403, None),
    "list": (["no"], None),
    "empty object": ({}, None),
    "nested": ({"en": {"403": "no"}}, None),
}


@pytest.mark.capability("C29")
@pytest.mark.parametrize("permit", [True, False])
@pytest.mark.parametrize("name", REASONS)
def test_a_reason_is_one_line_that_can_be_seen_or_none(name: str, permit: bool) -> None:
    value, expected = REASONS[name]
    assert advice({"reason_user": value}, permit=permit).reason_user == expected
    assert advice({"reason_admin": value}, permit=permit).reason_admin == expected


def test_a_reason_is_cut_where_it_is_too_long() -> None:
    exact, over = "a" * MAX_REASON, "é" * (MAX_REASON + 1)
    assert advice({"reason_user": exact}).reason_user == exact
    assert advice({"reason_user": over}).reason_user == "é" * (MAX_REASON - 1) + "…"
    assert advice({"reason_user": "\u200b" * 9_000 + "late"}).reason_user is None


STEP_UPS: dict[str, tuple[dict[str, Any], StepUp | None]] = {
    "list": ({"acr_values": ["phr", "mfa"]}, StepUp(("phr", "mfa"))),
    "text": ({"acr_values": "phr mfa"}, StepUp(("phr", "mfa"))),
    "spaces": ({"acr_values": "  phr   mfa "}, StepUp(("phr", "mfa"))),
    "twice": ({"acr_values": ["phr", "mfa", "phr"]}, StepUp(("phr", "mfa"))),
    "age": ({"max_age": 300}, StepUp((), 300)),
    "both": ({"acr_values": "phr", "max_age": 1}, StepUp(("phr",), 1)),
    "none asked": ({"acr_values": []}, None),
    "no text": ({"acr_values": " "}, None),
    "none asked, and an age": ({"acr_values": "", "max_age": MAX_AGE}, StepUp((), MAX_AGE)),
}


@pytest.mark.capability("C25")
@pytest.mark.parametrize("permit", [True, False])
@pytest.mark.parametrize("name", STEP_UPS)
def test_a_step_up_is_read(name: str, permit: bool) -> None:
    context, expected = STEP_UPS[name]
    assert advice(context, permit=permit).step_up == expected


UNREADABLE_STEP_UPS: dict[str, dict[str, Any]] = {
    "acr of nothing": {"acr_values": None},
    "acr of a number": {"acr_values": 3},
    "acr of an object": {"acr_values": {"phr": True}},
    "acr of true": {"acr_values": True},
    "acr with a number": {"acr_values": ["phr", 3]},
    "acr with nothing": {"acr_values": ["phr", None]},
    "acr with an empty text": {"acr_values": ["phr", ""]},
    "acr with a list": {"acr_values": [["phr"]]},
    "acr with a space": {"acr_values": ["phr mfa"]},
    "acr with a quote": {"acr_values": ['phr"']},
    "acr with a quote in a text": {"acr_values": 'phr", realm="x'},
    "acr with a backslash": {"acr_values": "phr\\"},
    "acr with a line break": {"acr_values": ["phr\r\nSet-Cookie: a=b"]},
    "acr with a line break in a text": {"acr_values": "phr\r\nSet-Cookie:a=b"},
    "acr with a tab": {"acr_values": "phr\tmfa"},
    "acr with nul": {"acr_values": "phr\x00"},
    "acr with another space": {"acr_values": "phr\u00a0mfa"},
    "acr in another script": {"acr_values": "\u0440hr"},
    "acr that is too long": {"acr_values": ["a" * (MAX_LENGTH + 1)]},
    "too many acr": {"acr_values": [f"acr-{n}" for n in range(MAX_VALUES + 1)]},
    "age of nothing": {"max_age": None},
    "age of zero": {"max_age": 0},
    "negative age": {"max_age": -5},
    "age with a fraction": {"max_age": 300.0},
    "age of text": {"max_age": "300"},
    "age of true": {"max_age": True},
    "age that is too long": {"max_age": MAX_AGE + 1},
    "age of a list": {"max_age": [300]},
    "one of both": {"acr_values": "phr", "max_age": "5m"},
}
UNREADABLE_OBLIGATIONS: dict[str, dict[str, Any]] = {
    "obligations of nothing": {"obligations": None},
    "obligations of an object": {"obligations": {"id": "log"}},
    "obligations of text": {"obligations": "log"},
    "obligations of true": {"obligations": True},
    "obligations of an empty object": {"obligations": {}},
    "obligation of text": {"obligations": ["log"]},
    "obligation of nothing": {"obligations": [None]},
    "obligation of a list": {"obligations": [["id", "log"]]},
    "obligation without an id": {"obligations": [{"level": "full"}]},
    "obligation with an id of nothing": {"obligations": [{"id": None}]},
    "obligation with a number for an id": {"obligations": [{"id": 7}]},
    "obligation with an id of another case": {"obligations": [{"ID": "log"}]},
    "obligation with an empty id": {"obligations": [{"id": ""}]},
    "obligation with a space in its id": {"obligations": [{"id": "log access"}]},
    "obligation with a line break in its id": {"obligations": [{"id": "log\n"}]},
    "obligation with an invisible id": {"obligations": [{"id": "log\u200b"}]},
    "obligation with an id that is too long": {"obligations": [{"id": "a" * 129}]},
    "obligation with a list of attributes": {"obligations": [{"id": "log", "attributes": []}]},
    "obligation with attributes of nothing": {"obligations": [{"id": "log", "attributes": None}]},
    "obligation that says one thing twice": {"obligations": [{"id": "log", "n": 1, "attributes": {"n": 2}}]},
    "one obligation of several": {"obligations": [{"id": "log"}, {}]},
    "too many obligations": {"obligations": [{"id": "log"}] * (MAX_OBLIGATIONS + 1)},
    "singular": {"obligation": {"id": "log"}},
    "capital": {"Obligations": [{"id": "log"}]},
    "singular beside the right one": {"obligations": [], "OBLIGATION": {"id": "log"}},
}
AMR: dict[str, dict[str, Any]] = {
    "amr": {"amr_values": "mfa"},
    "amr beside acr": {"acr_values": "phr", "amr_values": ["hwk"]},
    "amr of nothing": {"amr_values": None},
}
"""Fine on a deny, where it is one more thing that nobody here can tell the client. Of a permit, nobody can tell whether
it is met."""


@pytest.mark.capability("C25")
@pytest.mark.parametrize("name", UNREADABLE_STEP_UPS | AMR)
def test_a_permit_for_an_authentication_that_cannot_be_told_is_none(name: str) -> None:
    answer = answered((UNREADABLE_STEP_UPS | AMR)[name], permit=True)
    assert answer == RemoteFailure(FailureKind.MALFORMED, "body.step_up")


@pytest.mark.capability("C29")
@pytest.mark.parametrize("name", UNREADABLE_OBLIGATIONS)
def test_a_permit_under_obligations_that_cannot_be_read_is_none(name: str) -> None:
    answer = answered(UNREADABLE_OBLIGATIONS[name], permit=True)
    assert answer == RemoteFailure(FailureKind.MALFORMED, "body.obligations")


@pytest.mark.capability("C29")
@pytest.mark.parametrize("name", ["obligations", "obligation", "Obligations"])
def test_obligations_beside_the_context_are_not_passed_over(name: str) -> None:
    said: dict[str, Any] = {name: [{"id": "log"}], "context": {"obligations": []}}
    permitted = parse_answer(raw({"decision": True, **said}), "r")
    assert permitted == RemoteFailure(FailureKind.MALFORMED, "body.obligations")
    assert parse_answer(raw({"decision": False, **said}), "r") == RemoteAnswer(False, {"obligations": []})
    assert isinstance(parse_answer(raw({"decision": True, "duties": [{"id": "log"}]}), "r"), RemoteAnswer)


@pytest.mark.capability("C25", "C29")
@pytest.mark.parametrize("name", UNREADABLE_STEP_UPS | UNREADABLE_OBLIGATIONS)
def test_of_a_deny_what_cannot_be_read_is_left_out(name: str) -> None:
    context = (UNREADABLE_STEP_UPS | UNREADABLE_OBLIGATIONS)[name]
    assert advice({**context, "reason_user": "no"}) == Advice("no")


@pytest.mark.capability("C25")
def test_unreadable_obligations_take_nothing_from_the_step_up_of_a_deny() -> None:
    assert advice({"acr_values": "phr", "obligations": "log"}) == Advice(step_up=StepUp(("phr",)))


@pytest.mark.capability("C29")
def test_obligations_come_in_their_order_with_whatever_is_said_of_them() -> None:
    told = [
        {"id": "log-access", "level": "full", "to": ["audit", {"x": 1}]},
        {"id": "urn:example:notify", "attributes": {"id": "inner", "mail": "owner@example.com"}, "when": "now"},
        {"id": "log-access"},
    ]
    for permit in (True, False):
        assert advice({"obligations": told}, permit=permit).obligations == (
            Obligation("log-access", {"level": "full", "to": ["audit", {"x": 1}]}),
            Obligation("urn:example:notify", {"id": "inner", "mail": "owner@example.com", "when": "now"}),
            Obligation("log-access", {}),
        )


@pytest.mark.capability("C29")
def test_as_many_obligations_as_there_may_be_are_read() -> None:
    read = advice({"obligations": [{"id": "a" * 128}] * MAX_OBLIGATIONS}, permit=True)
    assert len(read.obligations) == MAX_OBLIGATIONS
    assert advice({"obligations": []}, permit=True).obligations == ()


contexts = json_objects | st.dictionaries(
    st.sampled_from(MEMBERS),
    json_values
    | st.none()
    | st.text(max_size=40)
    | st.lists(st.text(max_size=6) | json_objects | st.fixed_dictionaries({"id": st.text(max_size=4)}), max_size=3)
    | st.integers(-2, 10),
    max_size=4,
)


@pytest.mark.capability("C25", "C29")
@settings(deadline=None)
@given(contexts, st.booleans())
@example({"obligations": [{"id": "log"}]}, True)
def test_no_context_makes_reading_it_raise_or_a_deny_a_permit(context: dict[str, Any], permit: bool) -> None:
    answer = answered(context, permit=permit)
    if isinstance(answer, RemoteFailure):
        assert permit
        return
    assert answer.permit is permit
    said = answer.advice
    for text in (said.reason_user, said.reason_admin):
        assert text is None or (0 < len(text) <= MAX_REASON and text == text.strip())
        assert not any(unicodedata.category(each) in {"Cc", "Cf", "Cs", "Zl", "Zp"} for each in text or "")
    if said.step_up is not None:
        json.dumps(said.step_up.acr_values).encode("ascii")
        assert not any(each in value for value in said.step_up.acr_values for each in ' "\\\r\n\x00')
    if permit and "obligations" in context:
        assert [obligation.id for obligation in said.obligations] == [each["id"] for each in context["obligations"]]


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(MEMBERS), st.none() | json_values, min_size=1, max_size=3))
def test_what_is_not_exactly_a_deny_is_judged_like_a_permit(context: dict[str, Any]) -> None:
    assert read_advice(context, permit=1) == read_advice(context, permit=True)  # type: ignore[arg-type]


@pytest.mark.promise("P6")
def test_an_answer_does_not_show_its_context() -> None:
    told = RemoteAnswer(permit=True, context={"note": "s3cret-canary"})
    assert "s3cret-canary" not in repr(told)
    assert "permit=True" in repr(told)
