"""What one unauthenticated client of `authz serve` can make it do."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from authz_middleware.policy.document import parse_policy
from authz_middleware.policy.store import build_snapshot
from authz_middleware.remote.messages.evaluation import evaluation_request, question_of
from authz_middleware.resource import Resource
from authz_middleware.server.app import DecisionPointApp
from authz_middleware.server.policy import ServedPolicy
from tests.support.alice import asks

POLICY = """
policy: served
owner: served@example.com
inputs:
  resource.owner: {from: application}
  resource.tags: {from: application}
rules:
  - {rule: all-of-a, permit: "a:*", when: always}
  - {rule: bobs, permit: "b:read", when: {subject.id: {in: [bob]}}}
  - {rule: unowned, permit: "claim:take", when: {resource.owner: {exists: false}}}
  - {rule: tagged, permit: "b:tag", when: {subject.id: {in: [SUBJECTS]}, resource.tags: {has: secret}}}
""".replace("SUBJECTS", ", ".join(f"s{n:04d}" for n in range(900)))

QUESTION: dict[str, Any] = {
    "subject": {"type": "human", "id": "alice"},
    "action": {"name": "b:read"},
    "resource": {"type": "thing", "id": "1"},
}

Post = Any


@pytest.fixture
async def post(tmp_path: Path) -> Any:
    path = tmp_path / "served.yaml"
    path.write_text(POLICY)
    policy = ServedPolicy(path)
    policy.reload()
    transport = httpx.ASGITransport(DecisionPointApp(policy, base_url="http://pdp.example"))
    async with httpx.AsyncClient(transport=transport, base_url="http://pdp.example") as client:

        async def send(path: str, body: Any) -> httpx.Response:
            content = body if isinstance(body, str) else json.dumps(body)
            return await client.post(path, content=content, headers={"content-type": "application/json"})

        yield send


async def test_deciding_on_a_long_action_takes_no_more_than_its_length(post: Post) -> None:
    before = time.perf_counter()
    await post("/access/v1/evaluation", {**QUESTION, "action": {"name": "a:" * 60_000 + "a"}})
    assert time.perf_counter() - before < 0.2, "one request stopped the event loop"


async def test_a_batch_does_not_read_its_defaults_anew_for_each_item(post: Post) -> None:
    actors = [{"id": "a", "kind": "agent"}] * 8000
    body = {**QUESTION, "subject": {"type": "human", "id": "alice", "properties": {"actors": actors}}}
    before = time.perf_counter()
    assert (await post("/access/v1/evaluation", body)).status_code == 200
    once = time.perf_counter() - before
    before = time.perf_counter()
    await post("/access/v1/evaluations", {**body, "evaluations": [{}] * 100})
    assert time.perf_counter() - before < 10 * once + 0.1


async def test_a_batch_of_large_items_is_read_item_by_item(post: Post) -> None:
    """Only what is repeated for each item is counted for each."""
    item = {"resource": {"type": "thing", "id": "1", "properties": {"text": "x" * 2000}}}
    told = await post("/access/v1/evaluations", {**QUESTION, "evaluations": [item] * 100})
    assert len(told.json()["evaluations"]) == 100


async def test_defaults_that_are_read_too_often_are_refused(post: Post) -> None:
    asked = {**QUESTION, "context": {"note": "x" * 20_000}}
    assert (await post("/access/v1/evaluations", {**asked, "evaluations": [{}] * 50})).status_code == 200
    told = await post("/access/v1/evaluations", {**asked, "evaluations": [{}] * 60})
    assert told.status_code == 400
    assert "defaults" in told.json()["error"]["message"]


async def test_a_search_looks_through_long_attributes_for_few_candidates(post: Post) -> None:
    """Hundreds of candidates, each of which has tens of thousands of tags looked through, take a minute."""
    tags: list[Any] = [[]] * 60_000
    asked = {"subject": {"type": "human"}, "action": {"name": "b:tag"}, "resource": {"type": "thing", "id": "1"}}
    asked["resource"]["properties"] = {"tags": tags}  # type: ignore[assignment]  # mypy joins them to texts
    before = time.perf_counter()
    single = await post("/access/v1/evaluation", {**asked, "subject": {"type": "human", "id": "s0001"}})
    once = time.perf_counter() - before
    before = time.perf_counter()
    page = await post("/access/v1/search/subject", asked)
    assert time.perf_counter() - before < 20 * once + 0.5
    assert (single.status_code, page.status_code) == (200, 200)
    assert page.json()["page"]["next_token"], "it goes on where it ended"


async def test_a_search_of_a_common_size_looks_among_all_candidates_at_once(post: Post) -> None:
    asked = {"subject": {"type": "human"}, "action": {"name": "b:tag"}, "resource": {"type": "thing", "id": "1"}}
    assert (await post("/access/v1/search/subject", asked)).json() == {"results": []}


@pytest.mark.promise("P8")
def test_a_resource_without_attributes_is_decided_alike_here_and_in_the_decision_point() -> None:
    snapshot = build_snapshot(parse_policy(POLICY, "served.yaml"))
    asked = asks("claim:take", resource=Resource("claim", "1", {}))
    read_back = question_of(evaluation_request(asked))
    assert snapshot.evaluate(read_back).permit is snapshot.evaluate(asked).permit


@pytest.mark.promise("P4")
@pytest.mark.parametrize(
    "body",
    [
        "[]",
        "{",
        '{"subject":null}',
        json.dumps({**QUESTION, "action": {"name": "a:*"}}),
        json.dumps({**QUESTION, "action": {"name": "a:read\n"}}),
        json.dumps({**QUESTION, "action": {"name": ""}}),
        json.dumps({**QUESTION, "action": {"name": "a:read", "properties": {}}}),
        json.dumps({**QUESTION, "resource": {"type": "thing", "id": "1\u200b"}}),
        json.dumps({**QUESTION, "subject": {"type": "human", "id": "alice", "properties": {"roles": "admin"}}}),
        json.dumps({**QUESTION, "subject": {"type": "human", "id": "alice", "properties": {"id": "bob"}}}),
        json.dumps({**QUESTION, "context": {"time": "2026-13-01T00:00:00Z"}}),
        json.dumps({**QUESTION, "context": {"tls": 1}}),
        json.dumps(QUESTION).replace('"alice"', '"alice","id":"bob"'),
        json.dumps(QUESTION).replace('"1"', "NaN"),
        "[" * 20_000,
        '{"a":' * 60 + "1" + "}" * 60,
        json.dumps(QUESTION).replace('"thing"', '"\\ud800"'),
    ],
)
async def test_what_is_not_a_question_is_not_answered_with_a_permit(post: Post, body: str) -> None:
    reply = await post("/access/v1/evaluation", body)
    assert reply.status_code == 400
    assert b"alice" not in reply.content


async def test_a_claim_is_never_read_as_the_subject_itself(post: Post) -> None:
    claims = {"id": "bob", "subject.id": "bob", "scopes": ["all"]}
    asked = {**QUESTION, "subject": {"type": "human", "id": "alice", "properties": {"claims": claims}}}
    assert (await post("/access/v1/evaluation", asked)).json()["decision"] is False
