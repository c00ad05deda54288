"""Our own decision point over a real policy: AuthZEN evaluation and evaluations, and all it refuses to read."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings

from authz_middleware.permission import Permission
from authz_middleware.policy.document import parse_policy
from authz_middleware.question import Question
from authz_middleware.record.recorder import Recorder
from authz_middleware.remote.failure import RemoteAnswer
from authz_middleware.remote.messages.answer import parse_answer
from authz_middleware.remote.messages.evaluation import evaluation_request
from authz_middleware.remote.transport.protocol import RawAnswer
from authz_middleware.server.api import Limits
from authz_middleware.server.metadata import EVALUATION, EVALUATIONS
from authz_middleware.server.policy import ServedPolicy
from tests.support.decision_point_app import BASE_URL, served
from tests.support.decision_point_app import client_of as any_client_of
from tests.support.questions import NOW, question, questions
from tests.support.records import Memory, app, log_settings, recorder

VECTORS = Path(__file__).parents[1] / "vectors" / "authzen"
RESPONSE_SCHEMA = json.loads((VECTORS / "evaluation-response.schema.json").read_text())

BILLING = """
policy: billing
owner: payments@example.com
inputs:
  resource.amount: {from: application, max_age: 30s}
  subject.department: {from: token}
rules:
  - rule: read
    permit: invoice:read
    when: {subject.scopes: {has: a}}
  - rule: refund
    permit: invoice:refund
    sensitive: true
    when:
      resource.amount: {at_most: 500}
      subject.department: sales
  - rule: hours
    permit: report:run
    when:
      context.time: {between: ["09:00", "17:00"], zone: UTC}
  - rule: no-deleting
    deny: "*"
    when:
      context.method: DELETE
"""


def billing() -> ServedPolicy:
    return served(BILLING)


def client_of(policy: ServedPolicy, **options: Any) -> httpx.AsyncClient:
    return any_client_of(policy, **{"clock": lambda: NOW, **options})


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(billing()) as client:
        yield client


READ: dict[str, Any] = {
    "subject": {"type": "human", "id": "alice", "properties": {"scopes": ["a"]}},
    "action": {"name": "invoice:read"},
    "resource": {"type": "invoice", "id": "17"},
    "context": {"method": "GET"},
}


@pytest.mark.capability("C29")
@pytest.mark.parametrize(("scopes", "decision", "reason"), [(["a"], True, "permitted"), (["b"], False, "rule.none")])
async def test_permit_and_deny_are_both_200(
    client: httpx.AsyncClient, scopes: list[str], decision: bool, reason: str
) -> None:
    asked = {**READ, "subject": {"type": "human", "id": "alice", "properties": {"scopes": scopes}}}
    answer = await client.post(EVALUATION, json=asked)
    assert answer.status_code == 200
    assert answer.json() == {"decision": decision, "context": {"reason": reason}}
    assert answer.headers["cache-control"] == "no-store"
    jsonschema.validate(answer.json(), RESPONSE_SCHEMA)


@pytest.mark.capability("C8", "C52")
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(questions)
async def test_it_decides_as_the_application_would_have(asked: Question) -> None:
    """Promise P8: the same policy, question and clock, on both sides of the wire."""
    store = billing()
    assert store.current is not None
    async with client_of(store, clock=lambda: 0.0) as client:
        answer = await client.post(EVALUATION, json=evaluation_request(asked), headers={"X-Request-ID": "r"})
    local = store.current.evaluate(asked)
    assert answer.json() == {"decision": local.permit, "context": {"reason": local.reason.value}}
    headers = tuple((name.lower(), value) for name, value in answer.headers.items())
    assert parse_answer(RawAnswer(200, headers, answer.content), "r") == RemoteAnswer(
        local.permit, {"reason": local.reason.value}
    )


@pytest.mark.capability("C27")
async def test_the_age_of_attributes_travels_with_them(client: httpx.AsyncClient) -> None:
    fresh = question(permission=Permission(action="invoice:refund"))
    stale = question(permission=Permission(action="invoice:refund"), now=NOW + 60)
    decisions = [(await client.post(EVALUATION, json=evaluation_request(asked))).json() for asked in (fresh, stale)]
    assert decisions == [
        {"decision": True, "context": {"reason": "permitted"}},
        {"decision": False, "context": {"reason": "input.stale"}},
    ]


@pytest.mark.capability("C27")
async def test_a_fact_that_is_not_told_makes_a_deny_rule_apply(client: httpx.AsyncClient) -> None:
    answer = await client.post(EVALUATION, json={name: value for name, value in READ.items() if name != "context"})
    assert answer.json() == {"decision": False, "context": {"reason": "input.missing"}}


@pytest.mark.capability("C7")
async def test_a_request_that_tells_no_time_is_decided_by_the_clock() -> None:
    asked = {**READ, "action": {"name": "report:run"}}
    for clock, decision in ((NOW, True), (NOW - 3600, False)):
        async with client_of(billing(), clock=lambda clock=clock: clock) as client:
            assert (await client.post(EVALUATION, json=asked)).json()["decision"] is decision


BAD_REQUESTS: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "body.not_json"),
    "list": (b"[]", "body.not_an_object"),
    "duplicate member": (b'{"subject":{},"\\u0073ubject":{}}', "body.duplicate_member"),
    "nan": (b'{"subject":NaN}', "body.not_finite"),
    "latin-1": (b'{"subject":"\xe9"}', "body.not_utf8"),
    "too deep": (b'{"a":' + b"[" * 40 + b"]" * 40 + b"}", "body.too_deep"),
    "empty": (b"{}", "subject is required"),
    "null": (b'{"subject":null,"action":{"name":"x"},"resource":{"type":"t","id":"1"}}', "subject must be an object"),
    "unknown": (json.dumps({**READ, "extra": 1}).encode(), "extra is not a known member"),
    "a batch": (json.dumps({**READ, "evaluations": []}).encode(), "evaluations is not a known member"),
}


@pytest.mark.parametrize("name", BAD_REQUESTS)
async def test_a_malformed_request_is_400_and_no_decision(client: httpx.AsyncClient, name: str) -> None:
    body, message = BAD_REQUESTS[name]
    answer = await client.post(EVALUATION, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert answer.json() == {"error": {"status": 400, "message": message}}


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "application/json", "Content-Encoding": "gzip"},
    ],
)
@pytest.mark.parametrize("path", [EVALUATION, EVALUATIONS])
async def test_only_plain_json_is_read(client: httpx.AsyncClient, headers: dict[str, str], path: str) -> None:
    answer = await client.post(path, content=json.dumps(READ), headers=headers)
    assert answer.status_code == 400
    assert "decision" not in answer.text


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_beyond_the_limit_is_not_read(chunked: bool) -> None:
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        for _ in range(1000):
            read += 1
            yield b" " * 1000

    async with client_of(billing(), limits=Limits(body=5000)) as client:
        content = endless() if chunked else b" " * 5001
        answer = await client.post(EVALUATION, content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == 413
    assert read <= 6


async def test_the_request_id_comes_back(client: httpx.AsyncClient) -> None:
    for path, body in ((EVALUATION, READ), (EVALUATION, {}), (EVALUATIONS, READ)):
        answer = await client.post(path, json=body, headers={"X-Request-ID": "id-1"})
        assert answer.headers.get_list("x-request-id") == ["id-1"]
    assert "x-request-id" not in (await client.post(EVALUATION, json=READ)).headers


@pytest.mark.parametrize("ids", [[b"a b"], [b"x" * 129], [b"a", b"a"], [b"\xe9"], [b"a\tb"]])
async def test_a_request_id_that_cannot_be_given_back_is_refused(client: httpx.AsyncClient, ids: list[bytes]) -> None:
    answer = await client.post(EVALUATION, json=READ, headers=[(b"X-Request-ID", id_) for id_ in ids])
    assert answer.status_code == 400
    assert "x-request-id" not in answer.headers


async def test_there_is_nothing_else(client: httpx.AsyncClient) -> None:
    assert (await client.get(EVALUATION)).status_code == 405
    assert (await client.post(EVALUATION + "/", json=READ)).status_code == 404
    assert (await client.get("/docs")).status_code == 404


@pytest.mark.capability("C29")
async def test_its_metadata_is_what_it_was_told_and_not_what_the_caller_says(client: httpx.AsyncClient) -> None:
    answer = await client.get("/.well-known/authzen-configuration/authz", headers={"Host": "evil.test"})
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {
        "policy_decision_point": BASE_URL,
        "access_evaluation_endpoint": f"{BASE_URL}/access/v1/evaluation",
        "access_evaluations_endpoint": f"{BASE_URL}/access/v1/evaluations",
        "search_subject_endpoint": f"{BASE_URL}/access/v1/search/subject",
        "search_resource_endpoint": f"{BASE_URL}/access/v1/search/resource",
        "search_action_endpoint": f"{BASE_URL}/access/v1/search/action",
    }


async def test_the_metadata_of_another_identifier_is_not_there(client: httpx.AsyncClient) -> None:
    assert (await client.get("/.well-known/authzen-configuration")).status_code == 404


async def test_its_endpoints_are_below_the_path_of_its_base_url(client: httpx.AsyncClient) -> None:
    assert (await client.post("/authz" + EVALUATION, json=READ)).json()["decision"] is True
    assert (await client.post("/other" + EVALUATION, json=READ)).status_code == 404


@pytest.mark.capability("C48")
async def test_it_lives_without_a_policy_and_is_not_ready() -> None:
    for policy, status in ((billing(), 200), (ServedPolicy(), 503)):
        async with client_of(policy) as client:
            assert (await client.get("/healthz")).status_code == 200
            assert (await client.get("/readyz")).status_code == status


async def test_without_a_policy_nothing_is_decided() -> None:
    async with client_of(ServedPolicy()) as client:
        answer = await client.post(EVALUATION, json=READ)
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
    assert "decision" not in answer.json()


@pytest.mark.promise("P6")
async def test_every_decision_leaves_one_record_of_what_was_asked_and_by_whom() -> None:
    sink = Memory()
    log = recorder(sink)
    async with client_of(billing(), recorder=log) as client:
        await client.post(EVALUATION, json=READ)
        await client.post(EVALUATIONS, json={**READ, "evaluations": [{}, {"action": {"name": "invoice:pay"}}, "no"]})
        await client.post(EVALUATION, json={})
    log.close()
    told = [(record["path"], record["result"], record["authz"]["reason"]) for record in sink.records]
    assert told == [
        ("authz/invoice/read", True, "permitted"),
        ("authz/invoice/read", True, "permitted"),
        ("authz/invoice/pay", False, "rule.none"),
        ("authz", False, "error"),
    ]
    assert sink.records[3]["authz"]["detail"] == "question.malformed"
    assert {record["requested_by"] for record in sink.records} == {"127.0.0.1"}
    assert sink.records[0]["input"]["subject"]["id"] == "alice"
    assert sink.records[0]["authz"]["rule"] == "read"


async def test_what_the_caller_asked_about_is_in_the_batch_early_end_too() -> None:
    sink = Memory()
    log = recorder(sink)
    async with client_of(billing(), recorder=log) as client:
        await decisions(client, batch("b", "a", "a", options={"evaluations_semantic": "permit_on_first_permit"}))
    log.close()
    assert [record["result"] for record in sink.records] == [False, True]


class Broken:
    """A sink that takes nothing."""

    def write(self, lines: Any) -> None:
        raise OSError("a secret")

    def close(self) -> None:
        """Nothing."""


def full() -> Recorder:
    """A recorder that must not lose a record, has room for one, and cannot write."""
    return Recorder(log_settings("stdout", "blocking", queue=1, max_wait=0.05), app(), sink=Broken())


@pytest.mark.promise("P6")
@pytest.mark.parametrize("path", [EVALUATION, EVALUATIONS])
@pytest.mark.parametrize("log", [lambda: recorder(Broken(), "required", max_wait=0.2), full], ids=["required", "full"])
async def test_without_a_record_there_is_no_answer(path: str, log: Any, caplog: pytest.LogCaptureFixture) -> None:
    made = log()
    async with client_of(billing(), recorder=made) as client:
        asked = {**READ, "evaluations": [{}, {}]} if path == EVALUATIONS else READ
        answers = [await client.post(path, json=asked) for _ in range(5)]
    assert answers[-1].status_code == 503
    assert "decision" not in answers[-1].json()
    assert "secret" not in answers[-1].text + caplog.text
    made.close(0)


async def test_a_record_that_may_be_lost_holds_no_answer_up() -> None:
    log = recorder(Broken(), "best_effort", queue=1)
    async with client_of(billing(), recorder=log) as client:
        assert [(await client.post(EVALUATION, json=READ)).status_code for _ in range(5)] == [200] * 5
    log.close(0)


def batch(*scopes: str, **extra: Any) -> dict[str, Any]:
    """One item a scope; only the scope `a` is permitted."""
    items = [{"subject": {"type": "human", "id": "x", "properties": {"scopes": [scope]}}} for scope in scopes]
    return {**READ, "evaluations": items, **extra}


async def decisions(client: httpx.AsyncClient, asked: dict[str, Any]) -> list[bool]:
    answer = await client.post(EVALUATIONS, json=asked)
    assert answer.status_code == 200, answer.text
    return [item["decision"] for item in answer.json()["evaluations"]]


@pytest.mark.parametrize(
    ("semantic", "scopes", "made"),
    [
        (None, "aba", [True, False, True]),
        ("execute_all", "bab", [False, True, False]),
        ("deny_on_first_deny", "aab", [True, True, False]),
        ("deny_on_first_deny", "aba", [True, False]),
        ("deny_on_first_deny", "aaa", [True, True, True]),
        ("permit_on_first_permit", "bab", [False, True]),
        ("permit_on_first_permit", "bbb", [False, False, False]),
    ],
)
async def test_a_batch_ends_where_its_semantic_says(
    client: httpx.AsyncClient, semantic: str | None, scopes: str, made: list[bool]
) -> None:
    options = {} if semantic is None else {"options": {"evaluations_semantic": semantic}}
    assert await decisions(client, batch(*scopes, **options)) == made


async def test_an_item_replaces_a_default_whole(client: httpx.AsyncClient) -> None:
    asked = {**READ, "evaluations": [{}, {"subject": {"type": "human", "id": "alice"}}]}
    assert await decisions(client, asked) == [True, False]


async def test_a_batch_without_items_is_an_evaluation(client: httpx.AsyncClient) -> None:
    for asked in (READ, {**READ, "evaluations": []}, {**READ, "options": {}}):
        answer = await client.post(EVALUATIONS, json=asked)
        assert answer.json() == {"decision": True, "context": {"reason": "permitted"}}


async def test_a_bad_item_is_denied_and_spoils_no_other(client: httpx.AsyncClient) -> None:
    asked = {**READ, "evaluations": [{}, {"extra": 1}, "item", {"resource": None}, {}]}
    answer = (await client.post(EVALUATIONS, json=asked)).json()["evaluations"]
    assert [item["decision"] for item in answer] == [True, False, False, False, True]
    assert [item["context"]["error"]["message"] for item in answer[1:4]] == [
        "evaluations[1].extra is not a known member",
        "evaluations[2].item must be an object",
        "evaluations[3].resource must be an object",
    ]


@pytest.mark.parametrize(
    "asked",
    [
        {**READ, "evaluations": {}},
        {**READ, "evaluations": [{}] * 101},
        {**READ, "evaluations": [{}], "extra": 1},
        {**READ, "evaluations": [{}], "options": []},
        {**READ, "evaluations": [{}], "options": {"evaluations_semantic": "permit_all"}},
        {**READ, "evaluations": [{}], "options": {"evaluations_semantic": ["execute_all"]}},
        {**READ, "evaluations": [{}], "options": {"other": 1}},
        {**READ, "options": {"evaluations_semantic": "permit_all"}},
    ],
    ids=["no list", "too many", "unknown member", "options", "semantic", "semantic list", "option", "no items"],
)
async def test_a_bad_batch_is_400(client: httpx.AsyncClient, asked: dict[str, Any]) -> None:
    answer = await client.post(EVALUATIONS, json=asked)
    assert answer.status_code == 400
    assert "decision" not in answer.text


async def test_a_batch_sees_one_policy_from_start_to_end() -> None:
    """Promise P7: the policy is changed while the first item is decided."""
    policy = billing()
    closed = parse_policy("policy: closed\nowner: o@example.com\nrules: []\n", "closed.yaml")

    class Changing(Recorder):
        def submit(self, *args: Any, **options: Any) -> Any:
            policy.put_in_force(closed)
            return super().submit(*args, **options)

    log = Changing(log_settings("stdout"), app(), sink=Memory())
    async with client_of(policy, recorder=log) as client:
        assert await decisions(client, batch("a", "a")) == [True, True]
        assert await decisions(client, batch("a", "a")) == [False, False]
    log.close()
