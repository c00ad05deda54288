"""Requests with members that we have no word for, as AuthZEN's certification scenario puts them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from authz_middleware.remote.messages import evaluation
from authz_middleware.server import lenience
from authz_middleware.server.metadata import (
    EVALUATION,
    EVALUATIONS,
    SEARCH_ACTION,
    SEARCH_RESOURCE,
    SEARCH_SUBJECT,
)
from tests.support.decision_point_app import client_of, served

# Decision rules 1 to 6; the properties of an action (rules 7 and 8) are nothing that a policy of ours can read.
FIXTURE = """
policy: certification
owner: o@example.com
inputs:
  subject.role: {from: token}
  resource.status: {from: application}
rules:
  - rule: readers
    permit: read
    when: {subject.id: {in: [alice, bob]}, resource.id: {in: [record-1, record-2]}}
  - rule: alice-writes
    permit: write
    when: {subject.id: alice, resource.id: record-1}
  - rule: admins-write
    permit: write
    when: {subject.role: admin, resource.status: archived, subject.id: bob}
"""
ALICE = {"type": "user", "id": "alice"}
BOB = {"type": "user", "id": "bob"}
ADMIN = {**BOB, "properties": {"role": "admin"}}
RECORD = {"type": "record", "id": "record-1"}
ARCHIVED = {"type": "record", "id": "record-2", "properties": {"status": "archived"}}
READ, WRITE = {"name": "read"}, {"name": "write"}
CONTEXT = {"time": "2025-06-27T18:03-07:00", "ip": "192.168.1.1"}


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(served(FIXTURE), lenient=True) as client:
        yield client


def asks(subject: Any, action: Any, resource: Any, **more: Any) -> dict[str, Any]:
    return {"subject": subject, "action": action, "resource": resource, **more}


DECISIONS: dict[str, tuple[dict[str, Any], bool]] = {
    "permit": (asks(ALICE, READ, RECORD), True),
    "deny": (asks(BOB, WRITE, RECORD), False),
    "context": (asks(ALICE, READ, RECORD, context=CONTEXT), True),
    "resource properties": (asks(ALICE, WRITE, ARCHIVED), False),
    "subject properties": (asks(ADMIN, WRITE, ARCHIVED), True),
    "more properties": (
        asks(
            {**ALICE, "properties": {"department": "Sales", "role": "manager"}},
            {**READ, "properties": {"method": "GET"}},
            {**RECORD, "properties": {"status": "active", "owner": "bob"}},
        ),
        True,
    ),
    "unknown fields": (asks(ALICE, READ, RECORD, foo="bar", futureField={"nested": True}), True),
}


@pytest.mark.capability("C29")
@pytest.mark.parametrize("name", DECISIONS)
async def test_a_request_of_the_certification_scenario_is_decided_as_expected(
    client: httpx.AsyncClient, name: str
) -> None:
    asked, decision = DECISIONS[name]
    answer = await client.post(EVALUATION, json=asked)
    assert (answer.status_code, answer.json()["decision"]) == (200, decision)


BATCHES: dict[str, tuple[dict[str, Any], list[bool]]] = {
    "decisions": (
        {"subject": BOB, "resource": RECORD, "evaluations": [{"action": READ}, {"action": WRITE}]},
        [True, False],
    ),
    "properties": (
        {"action": WRITE, "resource": ARCHIVED, "evaluations": [{"subject": ALICE}, {"subject": ADMIN}]},
        [False, True],
    ),
    "context": (
        {
            "subject": ALICE,
            "action": READ,
            "context": CONTEXT,
            "evaluations": [{"resource": RECORD}, {"resource": ARCHIVED, "context": {**CONTEXT, "source": "override"}}],
        },
        [True, True],
    ),
    "a missing part": (
        {
            "subject": ALICE,
            "action": READ,
            "options": {"evaluations_semantic": "execute_all", "another": 1},
            "evaluations": [{"resource": RECORD}, {}],
        },
        [True, False],
    ),
}


@pytest.mark.parametrize("name", BATCHES)
async def test_a_batch_of_the_certification_scenario_is_decided_as_expected(
    client: httpx.AsyncClient, name: str
) -> None:
    asked, decisions = BATCHES[name]
    answer = await client.post(EVALUATIONS, json=asked)
    assert [item["decision"] for item in answer.json()["evaluations"]] == decisions


SEARCHES: dict[str, tuple[str, dict[str, Any], set[str]]] = {
    "subjects": (SEARCH_SUBJECT, asks({"type": "user"}, READ, RECORD), {"alice", "bob"}),
    "subjects in context": (SEARCH_SUBJECT, asks({"type": "user"}, READ, RECORD, context=CONTEXT), {"alice", "bob"}),
    "subjects with an id": (SEARCH_SUBJECT, asks(ALICE, READ, RECORD), {"alice", "bob"}),
    "resources": (SEARCH_RESOURCE, asks(ALICE, READ, {"type": "record"}), {"record-1", "record-2"}),
    "resources with an id": (SEARCH_RESOURCE, asks(ALICE, READ, RECORD), {"record-1", "record-2"}),
    "actions": (SEARCH_ACTION, {"subject": ALICE, "resource": RECORD}, {"read", "write"}),
    "actions with more": (
        SEARCH_ACTION,
        {"subject": ALICE, "resource": RECORD, "x": 1, "page": {"sort": 1}},
        {"read", "write"},
    ),
    "actions with properties": (SEARCH_ACTION, {"subject": ADMIN, "resource": ARCHIVED}, {"read", "write"}),
}


@pytest.mark.parametrize("name", SEARCHES)
async def test_a_search_of_the_certification_scenario_finds_what_it_should(
    client: httpx.AsyncClient, name: str
) -> None:
    path, asked, expected = SEARCHES[name]
    results = (await client.post(path, json=asked)).json()["results"]
    assert {result.get("id", result.get("name")) for result in results} == expected


@pytest.mark.parametrize(
    "asked",
    [
        {"action": READ, "resource": RECORD},
        asks("alice", READ, RECORD),
        asks({"id": "alice"}, READ, RECORD),
        asks(ALICE, {}, RECORD),
        asks(ALICE, {"name": 123}, RECORD),
        asks(ALICE, READ, None),
        asks(ALICE, READ, RECORD, context="x"),
        asks(ALICE, READ, RECORD, context={"time": "tomorrow"}),
        asks(ALICE, READ, RECORD, context={"tls": "yes"}),
        asks({**ALICE, "properties": {"roles": "admin"}}, READ, RECORD),
        asks({**ALICE, "properties": {"claims": "x", "role": "admin"}}, READ, RECORD),
        asks({**ALICE, "properties": []}, READ, RECORD),
    ],
)
async def test_what_is_known_must_still_be_well_formed(client: httpx.AsyncClient, asked: dict[str, Any]) -> None:
    assert (await client.post(EVALUATION, json=asked)).status_code == 400


async def test_without_lenience_nothing_is_ignored() -> None:
    async with client_of(served(FIXTURE)) as client:
        for name in ("context", "subject properties", "more properties", "unknown fields"):
            assert (await client.post(EVALUATION, json=DECISIONS[name][0])).status_code == 400


async def test_a_property_never_takes_the_place_of_a_claim(client: httpx.AsyncClient) -> None:
    subject = {**BOB, "properties": {"role": "admin", "claims": {"role": "guest"}}}
    assert (await client.post(EVALUATION, json=asks(subject, WRITE, ARCHIVED))).json()["decision"] is False


def test_the_words_are_those_of_the_reader() -> None:
    assert set(evaluation._PROPERTIES) == lenience.PROPERTIES
    assert set(evaluation._CONTEXT) == lenience.CONTEXT
