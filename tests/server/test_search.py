"""The Search APIs over a real policy: what is found, what cannot be, and page by page."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from authz_middleware.policy.document import parse_policy
from authz_middleware.server import search
from authz_middleware.server.api import Limits
from authz_middleware.server.metadata import EVALUATION, SEARCH_ACTION, SEARCH_RESOURCE, SEARCH_SUBJECT
from authz_middleware.server.policy import ServedPolicy
from authz_middleware.server.vocabulary import vocabulary_of
from tests.support.decision_point_app import client_of, served
from tests.support.records import Memory, recorder

POLICY = """
policy: records
owner: records@example.com
inputs:
  resource.status: {from: application}
rules:
  - rule: readers
    permit: record:read
    when: {subject.id: {in: [alice, bob]}, resource.id: {in: [record-1, record-2]}}
  - rule: writer
    permit: record:write
    sensitive: true
    when:
      any:
        - {subject.id: alice, resource.id: record-1}
        - {subject.id: bob, resource.status: archived}
  - rule: admins
    permit: record:delete
    when: {subject.roles: {has: admin}}
  - rule: drafts
    permit: ["draft:*", draft:publish]
    when: {not: {subject.id: mallory}}
  - rule: never-mallory
    deny: "*"
    when: {subject.id: mallory}
"""

ALICE = {"type": "human", "id": "alice"}
RECORD = {"type": "record", "id": "record-1"}
READ = {"name": "record:read"}


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(served(POLICY)) as client:
        yield client


async def found(client: httpx.AsyncClient, path: str, asked: dict[str, Any]) -> list[Any]:
    answer = await client.post(path, json=asked)
    assert answer.status_code == 200, answer.text
    results: list[Any] = answer.json()["results"]
    return results


async def test_the_subjects_that_the_policy_names_and_permits(client: httpx.AsyncClient) -> None:
    asked = {"subject": {"type": "human"}, "action": READ, "resource": RECORD}
    assert await found(client, SEARCH_SUBJECT, asked) == [
        {"type": "human", "id": "alice"},
        {"type": "human", "id": "bob"},
    ]


async def test_an_id_in_what_is_looked_for_is_ignored(client: httpx.AsyncClient) -> None:
    for id_ in ("alice", None, 7):
        asked = {"subject": {"type": "human", "id": id_}, "action": READ, "resource": RECORD}
        assert len(await found(client, SEARCH_SUBJECT, asked)) == 2


async def test_the_type_of_a_result_is_the_one_that_was_asked_for(client: httpx.AsyncClient) -> None:
    asked = {"subject": {"type": "user"}, "action": READ, "resource": RECORD}
    assert {result["type"] for result in await found(client, SEARCH_SUBJECT, asked)} == {"user"}


async def test_the_resources_that_the_policy_names_and_permits(client: httpx.AsyncClient) -> None:
    asked = {"subject": ALICE, "action": READ, "resource": {"type": "record"}}
    assert await found(client, SEARCH_RESOURCE, asked) == [
        {"type": "record", "id": "record-1"},
        {"type": "record", "id": "record-2"},
    ]


async def test_the_actions_that_the_policy_names_and_permits_sensitive_ones_too(client: httpx.AsyncClient) -> None:
    assert await found(client, SEARCH_ACTION, {"subject": ALICE, "resource": RECORD}) == [
        {"name": "draft:publish"},
        {"name": "record:read"},
        {"name": "record:write"},
    ]


async def test_the_rest_of_the_request_is_weighed(client: httpx.AsyncClient) -> None:
    admin = {**ALICE, "properties": {"roles": ["admin"]}}
    assert {"name": "record:delete"} in await found(client, SEARCH_ACTION, {"subject": admin, "resource": RECORD})
    archived = {"type": "record", "id": "other", "properties": {"status": "archived"}}
    asked = {"subject": {"type": "human"}, "action": {"name": "record:write"}, "resource": archived}
    assert await found(client, SEARCH_SUBJECT, asked) == [{"type": "human", "id": "bob"}]


async def test_what_only_attributes_tell_is_not_found(client: httpx.AsyncClient) -> None:
    """`admins` names no subject: whoever has the role, the policy does not know."""
    asked = {
        "subject": {"type": "human"},
        "action": {"name": "record:delete"},
        "resource": RECORD,
    }
    assert await found(client, SEARCH_SUBJECT, asked) == []


async def test_a_denied_candidate_is_not_a_result(client: httpx.AsyncClient) -> None:
    asked = {"subject": {"type": "human"}, "action": {"name": "draft:publish"}, "resource": RECORD}
    assert {"type": "human", "id": "mallory"} not in await found(client, SEARCH_SUBJECT, asked)


def test_a_vocabulary_is_what_rules_name_in_full() -> None:
    vocabulary = vocabulary_of(parse_policy(POLICY, "records.yaml").rules)
    assert vocabulary.subjects == ("alice", "bob", "mallory")
    assert vocabulary.resources == ("record-1", "record-2")
    assert vocabulary.actions == ("draft:publish", "record:delete", "record:read", "record:write")


def test_an_id_that_could_not_be_asked_about_is_no_candidate() -> None:
    text = 'policy: p\nowner: o@example.com\nrules: [{rule: r, permit: "a:b", when: {resource.id: {in: [" x", ok]}}}]'
    assert vocabulary_of(parse_policy(text, "p.yaml").rules).resources == ("ok",)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    subject=st.sampled_from(["alice", "bob", "mallory", "eve"]),
    resource=st.sampled_from(["record-1", "record-2", "other"]),
    action=st.sampled_from(["record:read", "record:write", "record:delete", "draft:publish", "draft:x"]),
    roles=st.sampled_from([[], ["admin"]]),
)
async def test_every_result_is_permitted_and_every_named_candidate_that_is_permitted_is_a_result(
    subject: str, resource: str, action: str, roles: list[str]
) -> None:
    whole = {
        "subject": {"type": "human", "id": subject, "properties": {"roles": roles}},
        "action": {"name": action},
        "resource": {"type": "record", "id": resource},
    }
    async with client_of(served(POLICY)) as client:
        permitted = (await client.post(EVALUATION, json=whole)).json()["decision"]
        subjects = await found(client, SEARCH_SUBJECT, whole)
        resources = await found(client, SEARCH_RESOURCE, whole)
        actions = await found(client, SEARCH_ACTION, {n: v for n, v in whole.items() if n != "action"})
    assert ({"type": "human", "id": subject} in subjects) is (permitted and subject != "eve")
    assert ({"type": "record", "id": resource} in resources) is (permitted and resource != "other")
    assert ({"name": action} in actions) is (permitted and action != "draft:x")


@pytest.mark.parametrize(
    ("path", "asked", "message"),
    [
        (SEARCH_SUBJECT, {}, "subject is required"),
        (SEARCH_SUBJECT, {"subject": {}, "action": READ, "resource": RECORD}, "subject.type is required"),
        (SEARCH_SUBJECT, {"subject": "x", "action": READ, "resource": RECORD}, "subject must be an object"),
        (SEARCH_SUBJECT, {"subject": {"type": "human"}, "resource": RECORD}, "action is required"),
        (SEARCH_RESOURCE, {"subject": ALICE, "action": READ}, "resource is required"),
        (SEARCH_RESOURCE, {"subject": {"type": "h"}, "action": READ, "resource": RECORD}, "subject.id is required"),
        (SEARCH_ACTION, {"subject": ALICE, "resource": RECORD, "action": READ}, "action is not a known member"),
        (SEARCH_ACTION, {"subject": ALICE, "resource": RECORD, "evaluations": []}, "evaluations is not a known member"),
    ],
)
async def test_what_is_no_search_is_400(
    client: httpx.AsyncClient, path: str, asked: dict[str, Any], message: str
) -> None:
    answer = await client.post(path, json=asked)
    assert answer.status_code == 400
    assert answer.json() == {"error": {"status": 400, "message": message}}


# ---- pages

MANY = "policy: many\nowner: o@example.com\nrules:\n" + "\n".join(
    f"  - {{rule: r{n}, permit: 'a:read', when: {{resource.id: doc-{n:03d}}}}}" for n in range(25)
)
DOCUMENTS = {"subject": ALICE, "action": {"name": "a:read"}, "resource": {"type": "doc"}}


async def page(client: httpx.AsyncClient, asked: dict[str, Any] = DOCUMENTS, **page: Any) -> httpx.Response:
    return await client.post(SEARCH_RESOURCE, json={**asked, "page": page})


async def walk(client: httpx.AsyncClient, limit: int) -> list[str]:
    ids: list[str] = []
    token = ""
    while True:
        answer = (await page(client, limit=limit, **({"token": token} if token else {}))).json()
        assert len(answer["results"]) == answer["page"]["count"] <= limit
        ids += [result["id"] for result in answer["results"]]
        token = answer["page"]["next_token"]
        if not token:
            return ids


@pytest.fixture
async def many() -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(served(MANY), limits=Limits(page=10)) as client:
        yield client


@pytest.mark.parametrize("limit", [1, 7, 10, 25, 1000])
async def test_pages_give_every_result_once_and_in_order(many: httpx.AsyncClient, limit: int) -> None:
    assert await walk(many, limit) == [f"doc-{n:03d}" for n in range(25)]


async def test_a_page_is_never_longer_than_the_server_allows(many: httpx.AsyncClient) -> None:
    for asked in (DOCUMENTS, {**DOCUMENTS, "page": {"limit": 10**9}}):
        answer = (await many.post(SEARCH_RESOURCE, json=asked)).json()
        assert len(answer["results"]) == 10
        assert answer["page"]["next_token"]


async def test_whoever_asks_for_no_page_and_gets_all_gets_no_page(client: httpx.AsyncClient) -> None:
    answer = await client.post(SEARCH_ACTION, json={"subject": ALICE, "resource": RECORD})
    assert list(answer.json()) == ["results"]


async def test_a_page_of_nothing_goes_no_further(many: httpx.AsyncClient) -> None:
    answer = (await page(many, limit=0)).json()
    assert answer["results"] == []
    assert answer["page"]["next_token"]


async def test_work_is_bounded_and_goes_on_with_the_next_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 25 candidates only the last is permitted, and four are decided on for one page."""
    monkeypatch.setattr(search, "MAX_EVALUATED", 4)
    text = MANY.replace("doc-024}", "doc-024, subject.id: alice}").replace("permit: 'a:read'", "permit: 'a:other'", 24)
    async with client_of(served(text)) as client:
        answer = (await page(client)).json()
        assert (answer["results"], answer["page"]["count"]) == ([], 0)
        assert await walk(client, 10) == ["doc-024"]


async def test_a_token_may_come_without_the_limit_it_was_made_for(many: httpx.AsyncClient) -> None:
    token = (await page(many, limit=3)).json()["page"]["next_token"]
    answer = (await page(many, token=token)).json()
    assert [result["id"] for result in answer["results"]] == ["doc-003", "doc-004", "doc-005"]


def changed(token: str, at: int) -> str:
    raw = bytearray(base64.urlsafe_b64decode(token))
    raw[at] ^= 1
    return base64.urlsafe_b64encode(raw).decode()


@pytest.mark.parametrize(
    "bad",
    ["x", "é", 7, None, "A" * 32, "A" * 5000,
     lambda token: changed(token, 0), lambda token: token[:-4], lambda token: token + "AAAA"],
    ids=["short", "not ASCII", "number", "null", "another", "long", "changed", "cut", "longer"],
)  # fmt: skip
async def test_a_token_that_is_none_is_400(many: httpx.AsyncClient, bad: Any) -> None:
    token = (await page(many, limit=3)).json()["page"]["next_token"]
    assert (await page(many, token=bad(token) if callable(bad) else bad)).status_code == 400


@pytest.mark.parametrize(
    "other",
    [
        {**DOCUMENTS, "subject": {"type": "human", "id": "bob"}},
        {**DOCUMENTS, "action": {"name": "a:write"}},
        {**DOCUMENTS, "resource": {"type": "doc", "properties": {"status": "x"}}},
        {**DOCUMENTS, "context": {"method": "GET"}},
    ],
)
async def test_a_token_is_for_the_request_it_was_made_for(many: httpx.AsyncClient, other: dict[str, Any]) -> None:
    token = (await page(many, limit=3)).json()["page"]["next_token"]
    assert (await page(many, other, token=token)).status_code == 400
    assert (await page(many, token=token, limit=4)).status_code == 400
    assert (await page(many, token=token, limit=3)).status_code == 200


async def test_a_token_of_one_search_is_none_of_another(many: httpx.AsyncClient) -> None:
    asked = {**DOCUMENTS, "resource": {"type": "doc", "id": "doc-001"}}
    token = (await page(many, asked, limit=3)).json()["page"]["next_token"]
    for path, status in ((SEARCH_RESOURCE, 200), (SEARCH_SUBJECT, 400)):
        assert (await many.post(path, json={**asked, "page": {"token": token}})).status_code == status


async def test_a_token_ends_with_the_policy_it_was_made_under() -> None:
    policy = served(MANY)
    async with client_of(policy, limits=Limits(page=10)) as client:
        token = (await page(client)).json()["page"]["next_token"]
        policy.put_in_force(parse_policy(MANY.replace("owner: o@", "owner: p@"), "many.yaml"))
        answer = await page(client, token=token)
    assert answer.status_code == 400
    assert "begin anew" in answer.text


@pytest.mark.parametrize(
    "bad", [[], "x", {"limit": -1}, {"limit": 1.5}, {"limit": True}, {"limit": "3"}, {"limit": None}, {"sort": "id"}]
)
async def test_a_page_that_is_none_is_400(many: httpx.AsyncClient, bad: Any) -> None:
    answer = await many.post(SEARCH_RESOURCE, json={**DOCUMENTS, "page": bad})
    assert answer.status_code == 400


@pytest.mark.promise("P6")
async def test_a_search_leaves_one_record() -> None:
    sink = Memory()
    log = recorder(sink)
    async with client_of(served(POLICY), recorder=log) as client:
        await found(client, SEARCH_SUBJECT, {"subject": {"type": "human"}, "action": READ, "resource": RECORD})
        await found(client, SEARCH_ACTION, {"subject": ALICE, "resource": RECORD})
    log.close()
    assert [(record["path"], record["authz"]["detail"]) for record in sink.records] == [
        ("authz/record/read", "search.subject"),
        ("authz", "search.action"),
    ]
    assert "records" in sink.records[0]["bundles"]


async def test_without_a_policy_nothing_is_found() -> None:
    async with client_of(ServedPolicy()) as client:
        answer = await client.post(SEARCH_ACTION, json={"subject": ALICE, "resource": RECORD})
    assert answer.status_code == 503
