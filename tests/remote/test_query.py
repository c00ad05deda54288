"""What makes two questions the same question, and what must not."""

from __future__ import annotations

import gc
import math
import timeit
import weakref
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authz_middleware.facts import RequestFacts
from authz_middleware.identity.principal import Actor, Principal
from authz_middleware.permission import Permission
from authz_middleware.question import Question
from authz_middleware.remote.messages.evaluation import evaluation_request
from authz_middleware.remote.messages.parts import scene_told
from authz_middleware.remote.messages.values import MessageError
from authz_middleware.remote.query import RemoteQuery
from authz_middleware.resource import Resource
from tests.support.questions import NOW, json_objects, question, questions, texts, times

RESOURCE = question().resource
PARTS = ("principal", "resource", "facts")


def key(revision: str = "r1", **changes: Any) -> object:
    return RemoteQuery.of(question(**changes), revision).key


@pytest.mark.capability("C32")
@pytest.mark.parametrize(
    "change",
    [
        {"issuer": "https://other.test/"},
        {"subject": "bob"},
        {"kind": "human"},
        {"subject_kind": None},
        {"actors": ()},
        {"actors": (Actor("bot-8"),)},
        {"client": "other"},
        {"scopes": frozenset({"a"})},
        {"roles": frozenset()},
        {"tenant": "umbrella"},
        {"task": "T-2"},
        {"purpose": None},
        {"environment": "staging"},
        {"clearance": None},
        {"token_id": "jti-2"},
        {"transaction": "txn-2"},
        {"claims": {"department": "legal", "levels": [1, 2]}},
        {"permission": Permission(action="invoice:approve")},
        {"resource": Resource("refund", RESOURCE.id, RESOURCE.attributes)},
        {"resource": Resource(RESOURCE.type, "18", RESOURCE.attributes)},
        {"resource": Resource(RESOURCE.type, RESOURCE.id, {"amount": 13})},
        {"facts": msgspec.structs.replace(question().facts, client="192.0.2.8")},
        {"revision": "r2"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_whatever_an_answer_may_depend_on_is_part_of_the_key(change: dict[str, Any]) -> None:
    assert key(**change) != key()


def test_values_of_different_types_are_different() -> None:
    """1 == True == 1.0 in Python, but not to a decision point."""
    keys = {key(resource=Resource("t", "1", {"value": value})) for value in (1, True, 1.0, "1")}
    assert len(keys) == 4


def test_the_moment_of_asking_is_not_part_of_the_key() -> None:
    later = Resource(RESOURCE.type, RESOURCE.id, RESOURCE.attributes, NOW + 5)
    assert key(now=NOW + 5, resource=later) == key()


def test_the_order_of_sets_and_attributes_does_not_matter() -> None:
    attributes = dict(reversed(list((RESOURCE.attributes or {}).items())))
    assert key(resource=Resource(RESOURCE.type, RESOURCE.id, attributes)) == key()


def test_another_epoch_of_revocations_is_another_key() -> None:
    keys = {RemoteQuery.of(question(), "r1", epoch).key for epoch in (None, 0, 1, ("file", 1))}
    assert len(keys) == 4


def test_the_dialect_is_part_of_the_key() -> None:
    keys = {RemoteQuery.of(question(), "r1", dialect=dialect).key for dialect in ("authzen", "cerbos")}
    assert len(keys) == 2


def timeless(query: RemoteQuery) -> object:
    """All that is sent, but the two times and the id of the asking."""
    told = msgspec.json.decode(query.body)
    context = told["context"] if query.key[2] == "authzen" else told["subject"]["properties"]["context"]
    for name in ("time", "resource_as_of"):
        context.pop(name, None)
    told["context"].pop("cerbos.requestId", None)
    return msgspec.json.encode(told, order="sorted")  # as text, so that 1, 1.0 and true are three values


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Question, Question]:
    """Two questions that differ in some fields, of all that there are; often only in one, sometimes in none."""
    one, other = draw(questions), draw(questions)
    fields = [f"{part}.{name}" for part in PARTS for name in getattr(one, part).__struct_fields__]
    fields += [name for name in one.__struct_fields__ if name not in PARTS]
    changed = draw(st.sets(st.sampled_from(fields), max_size=3))
    parts: dict[str, Any] = {}
    for part in PARTS:
        struct = getattr(one, part)
        names = [name for name in struct.__struct_fields__ if f"{part}.{name}" in changed]
        parts[part] = msgspec.structs.replace(struct, **{name: getattr(getattr(other, part), name) for name in names})
    parts |= {name: getattr(other, name) for name in changed if "." not in name}
    return one, msgspec.structs.replace(one, **parts)


@pytest.mark.capability("C32")
@pytest.mark.promise("P5")
@pytest.mark.parametrize("dialect", ["authzen", "cerbos"])
@settings(deadline=None)  # the machine may be busy
@given(pair=pairs())
def test_questions_have_one_key_exactly_when_the_same_is_sent(dialect: str, pair: tuple[Question, Question]) -> None:
    one, other = (RemoteQuery.of(asked, "r1", dialect=dialect) for asked in pair)
    assert (one.key == other.key) is (timeless(one) == timeless(other))


@pytest.mark.capability("C32")
@pytest.mark.promise("P5")
@settings(deadline=None)  # the machine may be busy
@given(
    st.lists(json_objects, min_size=2, max_size=2),
    st.sampled_from([(1, True), (1, 1.0), (0, False), (0.0, -0.0), ("1", 1), ([], {}), ("", None)]),
    texts,
)
def test_attributes_that_only_look_alike_have_different_keys(
    objects: list[dict[str, Any]], alike: tuple[Any, Any], name: str
) -> None:
    for one, other in [objects, [{**objects[0], name: each} for each in alike]]:
        queries = [RemoteQuery.of(question(resource=Resource("t", "1", each)), "r1") for each in (one, other)]
        assert (queries[0].key == queries[1].key) is (timeless(queries[0]) == timeless(queries[1]))


@pytest.mark.parametrize("length", [10, 250, 260, 10_000])
def test_long_values_are_told_apart_as_short_ones_are(length: int) -> None:
    values = ["x" * length, "x" * (length - 1) + "y", "x" * (length + 1)]
    assert len({key(resource=Resource("t", "1", {"note": value})) for value in values}) == 3
    assert len({key(claims={"note": value}) for value in values}) == 3
    assert key(resource=Resource("t", "1", {"note": values[0]})) == key(
        resource=Resource("t", "1", {"note": values[0]})
    )


def test_a_key_does_not_hold_long_attributes() -> None:
    """The cache keeps thousands of keys."""
    asked = question(resource=Resource("t", "1", {"note": "x" * 50_000}), claims={"note": "x" * 50_000})
    assert sum(len(each) for each in RemoteQuery.of(asked, "r1").key if isinstance(each, bytes)) < 1024


@settings(deadline=None)  # the machine may be busy
@given(questions)
def test_the_body_is_the_request(asked: Question) -> None:
    told = msgspec.json.decode(RemoteQuery.of(asked, "r1").body)
    assert msgspec.json.encode(told, order="sorted") == msgspec.json.encode(evaluation_request(asked), order="sorted")


def test_the_request_can_be_had_of_bytes_as_well() -> None:
    query = RemoteQuery.of(question(), "r1")
    assert RemoteQuery(("k",), query.body).request == query.request == evaluation_request(question())


def test_what_is_remembered_of_a_caller_does_not_show() -> None:
    """Two principals that say the same are the same, and are told and copied as before."""
    asked, fresh = question(), question().principal
    RemoteQuery.of(asked, "r1")
    assert asked.principal == fresh
    assert repr(asked.principal) == repr(fresh)
    assert msgspec.json.encode(asked.principal) == msgspec.json.encode(fresh)


def test_a_changed_copy_of_a_caller_is_another_caller() -> None:
    asked = question()
    before = RemoteQuery.of(asked, "r1")
    changed = msgspec.structs.replace(asked.principal, roles=frozenset({"owner"}))
    after = RemoteQuery.of(msgspec.structs.replace(asked, principal=changed), "r1")
    assert after.key != before.key
    assert after.request["subject"]["properties"]["roles"] == ["owner"]


def test_nothing_of_a_caller_outlives_it() -> None:
    class Watched(dict[str, Any]):
        pass

    def ask() -> weakref.ref[Watched]:
        principal = Principal(issuer="i", subject="s", claims=Watched(department="sales"))
        RemoteQuery.of(msgspec.structs.replace(question(), principal=principal), "r1")
        return weakref.ref(principal.claims)  # type: ignore[arg-type]  # it is a Watched

    claims = ask()
    gc.collect()
    assert claims() is None


def test_what_is_remembered_is_bounded() -> None:
    for number in range(1200):
        RemoteQuery.of(question(facts=RequestFacts(method="GET", route=f"/{number}", endpoint="e")), "r1")
    assert scene_told.cache_info().currsize <= 1024


@pytest.mark.parametrize(
    "change",
    [
        {"now": math.nan},
        {"now": math.inf},
        {"now": 253_402_300_800.0},
        {"now": -62_135_596_801.0},
        {"resource": Resource("t", "1", None, math.nan)},
        {"resource": Resource("t", "1", {"a": object()})},
        {"resource": Resource("t", "\n")},
        {"subject": ""},
        {"claims": {"a": math.nan}},
        {"tenant": "\ud800"},
        {"environment": "\ud800"},
        {"facts": RequestFacts(method="GET", route="\ud800", endpoint="e")},
        {"facts": RequestFacts(method="GET", route="r", endpoint="e", client="\ud800")},
    ],
    ids=str,
)
@pytest.mark.parametrize("dialect", ["authzen", "cerbos"])
def test_what_cannot_be_said_is_known_before_anybody_is_asked(change: dict[str, Any], dialect: str) -> None:
    for _ in range(2):  # what was refused once is not remembered as said
        with pytest.raises(MessageError):
            RemoteQuery.of(question(**change), "r1", dialect=dialect)


@settings(deadline=None)  # the machine may be busy
@given(times | st.floats(-62_135_596_800.0, 253_402_300_799.0), st.none() | times)
def test_what_could_be_said_is_said(now: float, as_of: float | None) -> None:
    assert RemoteQuery.of(question(now=now, resource=Resource("t", "1", None, as_of)), "r1").body


def test_the_request_is_what_was_asked_even_if_attributes_change_meanwhile() -> None:
    """What the key was made of is what is sent."""
    attributes: dict[str, Any] = {"amount": 1, "lines": [{"n": 1}], "tags": ["a"]}
    query = RemoteQuery.of(question(resource=Resource("t", "1", attributes)), "r1")
    attributes["amount"] = 2
    attributes["lines"][0]["n"] = 2
    attributes["tags"].append("b")
    told = msgspec.json.decode(query.body)["resource"]["properties"]
    assert told == {"amount": 1, "lines": [{"n": 1}], "tags": ["a"]}


def test_asking_twice_sends_the_same_bytes() -> None:
    query = RemoteQuery.of(question(), "r1", dialect="cerbos")
    assert (query.request_id, query.body) == (query.request_id, query.body)
    assert query.request_id.encode() in query.body


@pytest.mark.capability("C32")
def test_a_key_costs_a_fraction_of_its_message() -> None:
    """A hit in the cache must not cost what an exchange costs: the message is not made."""
    asked = question(resource=Resource("invoice", "17", {"amount": 12.5, "tenant": "acme"}))

    def key_only() -> object:
        return RemoteQuery.of(asked, "r1").key

    def message() -> Mapping[str, Any] | bytes:
        return msgspec.json.encode(evaluation_request(asked))

    ratios = []
    for _ in range(3):
        ratios.append(min(timeit.repeat(key_only, number=500)) / min(timeit.repeat(message, number=500)))
        if ratios[-1] < 0.5:
            return
    pytest.fail(f"a key costs {min(ratios):.2f} of its message")


def test_each_query_has_an_id_of_its_own() -> None:
    ids = {RemoteQuery.of(question(), "r1").request_id for _ in range(100)}
    assert len(ids) == 100
