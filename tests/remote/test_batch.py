"""Many questions at once: as many answers as questions, each by itself, and nothing merged that is not the same."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz_middleware.permission import Permission
from authz_middleware.question import Question
from authz_middleware.remote.batching import OVERRUN
from authz_middleware.remote.decision_point import DecisionPoint
from authz_middleware.remote.failure import FailureKind, RemoteAnswer, RemoteFailure
from authz_middleware.remote.messages.batch import MAX_BYTES, batch_body, parse_batch, partition
from authz_middleware.remote.messages.evaluation import evaluation_request
from authz_middleware.remote.query import RemoteQuery
from authz_middleware.remote.transport.protocol import RawAnswer
from authz_middleware.resource import Resource
from authz_middleware.settings.remote.decision_point import RemoteSettings
from authz_middleware.settings.remote.endpoints import EndpointSettings
from tests.support.cerbos import CerbosServer
from tests.support.pdp import PERMIT, Exchange, ScriptedPoint, ScriptedServer, raw, response
from tests.support.questions import question

SCHEMA = json.loads((Path(__file__).parents[1] / "vectors" / "authzen" / "evaluation-request.schema.json").read_text())
EVALUATION, EVALUATIONS = "/access/v1/evaluation", "/access/v1/evaluations"
URL = "https://pdp.test"
SETTINGS = RemoteSettings(url=URL, deadline=2.0)
Reply = RemoteAnswer | RemoteFailure
Entity = Mapping[str, Any]


def about(id_: str, action: str = "invoice:read", **changes: Any) -> Question:
    permission = Permission(action=action)
    return question(**{"resource": Resource("invoice", id_, {"amount": 1.0}), "permission": permission, **changes})


def put(asked: Question, dialect: str = "authzen") -> RemoteQuery:
    return RemoteQuery.of(asked, "r1", dialect=dialect)


def numbered(count: int) -> list[RemoteQuery]:
    return [put(about(f"i-{number}")) for number in range(count)]


class JudgingPoint:
    """A transport, in both colours, to a decision point that decides each item by a rule. Like Cerbos it takes items
    of one batch that agree in subject id and resource for one question, and answers by the properties of the first."""

    def __init__(self, permits: Callable[[Entity], bool], *, takes: float = 0.0) -> None:
        self._permits = permits
        self._takes = takes
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.request_ids: list[str] = []

    def post(self, url: str, headers: Mapping[str, str], body: bytes, deadline: float) -> RawAnswer | RemoteFailure:
        asked = json.loads(body)
        self.requests.append((url.removeprefix(URL), asked))
        self.request_ids.append(headers["X-Request-ID"])
        if self._takes > deadline:
            time.sleep(max(deadline, 0.0))
            return RemoteFailure(FailureKind.DEADLINE, "read")
        time.sleep(self._takes)
        if "evaluations" not in asked:
            return raw({"decision": self._permits(asked)})
        first: dict[tuple[str, str], Entity] = {}
        decisions = []
        for item in asked["evaluations"]:
            merged = first.setdefault((item["subject"]["id"], item["resource"]["id"]), item)
            decisions.append({"decision": self._permits({**merged, "action": item["action"]})})
        return raw({"evaluations": decisions})

    def close(self) -> None:
        pass

    @property
    def paths(self) -> list[str]:
        return [path for path, _ in self.requests]


class AsyncColour:
    """The other colour of a transport that does not take long."""

    def __init__(self, transport: JudgingPoint | ScriptedPoint) -> None:
        self._transport = transport

    async def post(
        self, url: str, headers: Mapping[str, str], body: bytes, deadline: float
    ) -> RawAnswer | RemoteFailure:
        return self._transport.post(url, headers, body, deadline)

    async def aclose(self) -> None:
        pass


AskAll = Callable[..., list[Reply]]


@pytest.fixture(params=["sync", "async"])
def ask_all(request: pytest.FixtureRequest) -> AskAll:
    def ask(
        transport: JudgingPoint | ScriptedPoint, queries: Sequence[RemoteQuery], settings: RemoteSettings = SETTINGS
    ) -> list[Reply]:
        point = DecisionPoint(settings, transport=transport, async_transport=AsyncColour(transport))
        return point.ask_all(queries) if request.param == "sync" else asyncio.run(point.ask_all_async(queries))

    return ask


def by_amount(item: Entity) -> bool:
    return bool(item["resource"]["properties"]["amount"] <= 500)


# what is put into one request


def entities(subject: Entity, resource: Entity, context: Entity = {}) -> bytes:  # noqa: B006 - never changed
    return msgspec.json.encode(
        {"subject": subject, "action": {"name": "read"}, "resource": resource, "context": context}
    )


SUBJECT, RESOURCE = {"type": "human", "id": "alice"}, {"type": "invoice", "id": "17"}
SAME_IDS: dict[str, bytes] = {
    "subject type": entities({**SUBJECT, "type": "agent"}, RESOURCE),
    "subject properties": entities({**SUBJECT, "properties": {"roles": ["manager"]}}, RESOURCE),
    "resource type": entities(SUBJECT, {**RESOURCE, "type": "report"}),
    "resource properties": entities(SUBJECT, {**RESOURCE, "properties": {"amount": 1}}),
    "empty properties": entities(SUBJECT, {**RESOURCE, "properties": {}}),
    "context": entities(SUBJECT, RESOURCE, {"purpose": "support"}),
}


@pytest.mark.capability("C29")
@pytest.mark.parametrize("what", SAME_IDS)
def test_items_with_the_same_ids_that_differ_otherwise_are_never_in_one_request(what: str) -> None:
    plain = entities(SUBJECT, RESOURCE)
    assert partition([plain, SAME_IDS[what], plain], 50) == [[0, 2], [1]]


def test_items_that_differ_in_the_action_only_or_in_an_id_are_in_one_request() -> None:
    bodies = [put(about("17", action)).body for action in ("invoice:read", "invoice:refund")]
    bodies += [put(about("18")).body, put(about("17", subject="bob")).body]
    assert partition(bodies, 50) == [[0, 1, 2, 3]]


small = st.sampled_from(["a", "b", "c"])
items = st.builds(
    lambda subject, resource, kind, amount, action: msgspec.json.encode(
        {
            "subject": {"type": kind, "id": subject},
            "action": {"name": action},
            "resource": {"type": "t", "id": resource, "properties": {"amount": amount}},
        }
    ),
    small,
    small,
    small,
    st.integers(0, 2),
    small,
)


@pytest.mark.capability("C29")
@given(st.lists(items, max_size=40), st.integers(1, 7))
def test_every_item_is_put_once_and_no_request_can_be_merged_wrongly(bodies: list[bytes], most: int) -> None:
    batches = partition(bodies, most)
    assert sorted(number for batch in batches for number in batch) == list(range(len(bodies)))
    for batch in batches:
        assert 1 <= len(batch) <= most
        settings: dict[tuple[str, str], object] = {}
        for number in batch:
            item = json.loads(bodies[number])
            rest = (item["subject"], item["resource"])
            assert settings.setdefault((item["subject"]["id"], item["resource"]["id"]), rest) == rest


def test_a_request_is_no_longer_than_decision_points_take() -> None:
    long = [entities({**SUBJECT, "id": f"s{number}"}, {**RESOURCE, "note": "x" * 20_000}) for number in range(7)]
    assert partition(long, 50) == [[0, 1, 2], [3, 4, 5], [6]]
    assert partition([entities(SUBJECT, {**RESOURCE, "note": "x" * (2 * MAX_BYTES)})], 50) == [[0]]


def test_ten_thousand_items_are_parted_in_a_moment() -> None:
    ordinary = [put(about(f"i-{number}")).body for number in range(100)]
    bodies = [body.replace(b'"i-', b'"i-%d-' % round_) for round_ in range(50) for body in ordinary]
    bodies += [entities(SUBJECT, {**RESOURCE, "properties": {"n": number}}) for number in range(5_000)]
    began = time.perf_counter()
    batches = partition(bodies, 50)
    assert time.perf_counter() - began < 2.0  # looking through all requests for each item takes a hundred times as long
    assert sum(map(len, batches)) == 10_000


@pytest.mark.parametrize("body", [b"{}", b"[]", b"", b'{"subject":{"id":1},"resource":{"id":"a"},"action":{}}'])
def test_what_is_no_question_is_not_put_into_a_request(body: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        partition([body], 50)


@pytest.mark.capability("C28")
def test_a_batch_has_the_standard_s_members_and_executes_all() -> None:
    batch = json.loads(batch_body([put(about("17")).body, put(about("18")).body], {}))
    assert set(batch) == {"evaluations", "options"}
    assert batch["options"] == {"evaluations_semantic": "execute_all"}
    for item, id_ in zip(batch["evaluations"], ("17", "18"), strict=True):
        jsonschema.validate(item, SCHEMA)
        assert item == json.loads(msgspec.json.encode(evaluation_request(about(id_))))


# what is said to each


def parsed(body: object, count: int, **headers: Any) -> list[Reply]:
    return parse_batch(raw(body, **headers), "r", [lambda context: context] * count)


@pytest.mark.capability("C29")
@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (PERMIT, "body.evaluations"),
        ({}, "body.evaluations"),
        ({"evaluations": None}, "body.evaluations"),
        ({"evaluations": {"0": {"decision": True}}}, "body.evaluations"),
        ({"evaluations": []}, "body.evaluations_count"),
        ({"evaluations": [{"decision": True}]}, "body.evaluations_count"),
        ({"evaluations": [{"decision": True}] * 3}, "body.evaluations_count"),
        ({"decision": True, "evaluations": [{"decision": True}]}, "body.evaluations_count"),
        (b'{"evaluations":[{"decision":true}],"evaluations":[]}', "body.duplicate_member"),
        (b'{"evaluations":[{"decision":true,"decision":false},{"decision":true}]}', "body.duplicate_member"),
    ],
)
def test_a_response_with_another_number_of_answers_answers_nothing(body: object, detail: str) -> None:
    assert parsed(body, 2) == [RemoteFailure(FailureKind.MALFORMED, detail)] * 2


def test_what_is_wrong_with_a_response_is_wrong_with_all_of_it() -> None:
    permits = {"evaluations": [{"decision": True}] * 2}
    assert parsed(permits, 2, status=403) == [RemoteFailure(FailureKind.STATUS_4XX, "status.403")] * 2
    other = (("content-type", "application/json"), ("x-request-id", "other"))
    assert parsed(permits, 2, headers=other) == [RemoteFailure(FailureKind.MISMATCHED, "header.request_id")] * 2


@pytest.mark.capability("C29")
@pytest.mark.promise("P4")
@pytest.mark.parametrize(
    ("item", "detail"),
    [
        (True, "body.evaluations"),
        (None, "body.evaluations"),
        ([{"decision": True}], "body.evaluations"),
        ({}, "body.decision"),
        ({"decision": "true"}, "body.decision"),
        ({"decision": 1}, "body.decision"),
        ({"decision": None}, "body.decision"),
        ({"decision": True, "context": []}, "body.context"),
        ({"decision": True, "context": {"obligations": "unreadable"}}, "body.obligations"),
    ],
)
def test_one_malformed_item_is_a_fault_of_its_own(item: object, detail: str) -> None:
    told = parsed({"evaluations": [{"decision": True}, item, {"decision": False}]}, 3)
    assert told == [RemoteAnswer(True), RemoteFailure(FailureKind.MALFORMED, detail), RemoteAnswer(False)]


@pytest.mark.promise("P4")
@pytest.mark.parametrize(
    ("decision", "error", "kind"),
    [
        (False, {"status": 404, "message": "Resource not found"}, FailureKind.STATUS_4XX),
        (False, {"status": 400}, FailureKind.STATUS_4XX),
        (False, {"status": 500}, FailureKind.STATUS_5XX),
        (False, {"status": 429}, FailureKind.THROTTLED),
        (False, {"status": "500"}, FailureKind.STATUS_4XX),
        (False, {"status": True}, FailureKind.STATUS_4XX),
        (False, {"status": 200}, FailureKind.STATUS_4XX),
        (False, "broken", FailureKind.STATUS_4XX),
        (False, None, FailureKind.STATUS_4XX),
        (True, {"status": 500}, FailureKind.MALFORMED),
        ("x", {"status": 500}, FailureKind.MALFORMED),
    ],
)
def test_an_item_that_could_not_be_decided_is_no_deny(decision: object, error: object, kind: FailureKind) -> None:
    """AuthZEN 1.0, section 7.2.1: its false is the closed default. It is not news: the point itself did answer."""
    told = parsed({"evaluations": [{"decision": decision, "context": {"error": error}}, {"decision": True}]}, 2)
    assert told == [RemoteFailure(kind, "item.error", is_news=False), RemoteAnswer(True)]


# all of it


@pytest.mark.capability("C28")
def test_each_question_has_its_own_answer_in_order(ask_all: AskAll) -> None:
    point = JudgingPoint(lambda item: int(item["resource"]["id"][2:]) % 3 == 0)
    told = ask_all(point, numbered(7))
    assert told == [RemoteAnswer(number % 3 == 0) for number in range(7)]
    assert point.paths == [EVALUATIONS]


@pytest.mark.promise("P4")
def test_no_answer_is_that_to_another_s_properties(ask_all: AskAll) -> None:
    """Although the decision point merges what it takes for the same."""
    asked = [about("17", resource=Resource("invoice", "17", {"amount": amount})) for amount in (1.0, 900.0, 2.0)]
    point = JudgingPoint(by_amount)
    assert ask_all(point, [put(each) for each in asked]) == [RemoteAnswer(each) for each in (True, False, True)]
    assert len(point.requests) == 3


def test_the_same_question_is_put_once_and_answered_each_time(ask_all: AskAll) -> None:
    point = JudgingPoint(by_amount)
    query, again = put(about("17")), put(about("17", now=about("17").now + 0.001))
    assert ask_all(point, [query, put(about("18")), again]) == [RemoteAnswer(True)] * 3
    ((_, asked),) = point.requests
    assert [item["resource"]["id"] for item in asked["evaluations"]] == ["17", "18"]


def test_one_question_is_put_by_itself(ask_all: AskAll) -> None:
    point = JudgingPoint(by_amount)
    query = put(about("17"))
    assert ask_all(point, [query]) == [RemoteAnswer(True)]
    assert (point.paths, point.request_ids) == ([EVALUATION], [query.request_id])


def test_no_question_is_not_put(ask_all: AskAll) -> None:
    point = JudgingPoint(by_amount)
    assert ask_all(point, []) == []
    assert not point.requests


def test_a_request_has_at_most_so_many_questions_and_an_id_of_its_own(ask_all: AskAll) -> None:
    point = JudgingPoint(by_amount)
    settings = RemoteSettings(url=URL, deadline=2.0, endpoints=EndpointSettings(max_batch=4))
    assert ask_all(point, numbered(9), settings) == [RemoteAnswer(True)] * 9
    assert [len(asked.get("evaluations", [asked])) for _, asked in point.requests] == [4, 4, 1]
    assert len(set(point.request_ids)) == 3


def test_a_point_without_the_batch_api_is_asked_one_by_one(ask_all: AskAll) -> None:
    point = JudgingPoint(by_amount)
    settings = RemoteSettings(url=URL, deadline=2.0, endpoints=EndpointSettings(max_batch=1))
    queries = numbered(3)
    assert ask_all(point, queries, settings) == [RemoteAnswer(True)] * 3
    assert point.paths == [EVALUATION] * 3
    assert point.request_ids == [query.request_id for query in queries]


@pytest.mark.capability("C28")
def test_all_requests_together_have_one_deadline_the_shortest(ask_all: AskAll) -> None:
    scripted = ScriptedPoint([raw({"evaluations": [{"decision": True}]})])
    queries = [*numbered(2), RemoteQuery.of(about("x"), "r1", deadline=0.5)]
    settings = RemoteSettings(url=URL, deadline=2.0, endpoints=EndpointSettings(max_batch=1))
    ask_all(scripted, queries, settings)
    left = [posted.deadline for posted in scripted.posted]
    assert 0.5 >= left[0] > left[1] > left[2] > 0


@pytest.mark.promise("P4", "P5")
def test_a_long_list_does_not_choose_the_fallback(ask_all: AskAll) -> None:
    """The point answers, and would deny; that there is no time left for the rest is the asker's doing."""
    point = JudgingPoint(lambda _: False, takes=0.1)
    settings = RemoteSettings(url=URL, deadline=0.35, endpoints=EndpointSettings(max_batch=1))
    told = ask_all(point, numbered(12), settings)
    answered = [reply for reply in told if isinstance(reply, RemoteAnswer)]
    assert 1 <= len(answered) <= 3
    assert told[len(answered) :] == [OVERRUN] * (12 - len(answered))
    assert not OVERRUN.is_outage


@pytest.mark.promise("P4", "P5")
def test_a_long_list_of_faults_does_not_choose_the_fallback(ask_all: AskAll) -> None:
    scripted = ScriptedPoint([step for _ in range(6) for step in (0.15, raw(status=403))])
    settings = RemoteSettings(url=URL, deadline=0.4, endpoints=EndpointSettings(max_batch=1))
    told = ask_all(scripted, numbered(6), settings)
    assert told[0] == RemoteFailure(FailureKind.STATUS_4XX, "status.403")
    assert told[-1] == OVERRUN
    assert not any(isinstance(reply, RemoteFailure) and reply.is_outage for reply in told)


def test_a_point_that_never_answers_is_away_for_all_of_them_and_news_once(ask_all: AskAll) -> None:
    point = JudgingPoint(by_amount, takes=9.0)
    settings = RemoteSettings(url=URL, deadline=0.2, endpoints=EndpointSettings(max_batch=2))
    told = ask_all(point, numbered(6), settings)
    assert [reply.kind for reply in told if isinstance(reply, RemoteFailure)] == [FailureKind.DEADLINE] * 6
    assert [reply.is_news for reply in told if isinstance(reply, RemoteFailure)] == [True] + [False] * 5


@pytest.mark.parametrize("kind", [FailureKind.CONNECT, FailureKind.CLOSED])
def test_an_outage_of_a_whole_batch_is_news_once(ask_all: AskAll, kind: FailureKind) -> None:
    told = ask_all(ScriptedPoint([RemoteFailure(kind)]), [*numbered(3), *numbered(3)])
    assert told == [RemoteFailure(kind), *[RemoteFailure(kind, is_news=False)] * 5]


@pytest.mark.parametrize("error", [RuntimeError(), OSError(), ValueError()])
def test_whatever_a_transport_raises_is_a_fault_of_all(ask_all: AskAll, error: Exception) -> None:
    assert ask_all(ScriptedPoint([error]), numbered(3)) == [RemoteFailure(FailureKind.INTERNAL, "client")] * 3


def test_what_cannot_be_put_together_is_a_fault_of_all(ask_all: AskAll) -> None:
    queries = [RemoteQuery((number,), b"{}", f"r{number}") for number in range(2)]
    scripted = ScriptedPoint()
    assert ask_all(scripted, queries) == [RemoteFailure(FailureKind.INTERNAL, "client")] * 2
    assert not scripted.posted


async def test_a_cancelled_batch_is_cancelled() -> None:
    scripted = ScriptedPoint([30.0, raw()])
    point = DecisionPoint(SETTINGS, async_transport=scripted.asynchronous())
    task = asyncio.create_task(point.ask_all_async(numbered(3)))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def decide_items(exchange: Exchange) -> bool:
    items = json.loads(exchange.body)["evaluations"]
    decisions = [{"decision": item["resource"]["id"] != "i-1"} for item in items]
    exchange.send(response(json.dumps({"evaluations": decisions}).encode()))
    return True


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_a_batch_over_a_real_socket(colour: str) -> None:
    async def ask(url: str) -> list[Reply]:
        point = DecisionPoint(RemoteSettings(url=url, deadline=5.0))
        told = await point.ask_all_async(numbered(3))
        await point.aclose()
        return told

    with ScriptedServer(decide_items) as server:
        if colour == "sync":
            point = DecisionPoint(RemoteSettings(url=server.url, deadline=5.0))
            told = point.ask_all(numbered(3))
            point.close()
        else:
            told = asyncio.run(ask(server.url))
    assert told == [RemoteAnswer(True), RemoteAnswer(False), RemoteAnswer(True)]
    assert server.requests[0].head.startswith(b"POST /access/v1/evaluations HTTP/1.1")


# a decision point that merges


POLICY = """
apiVersion: api.cerbos.dev/v1
resourcePolicy:
  resource: invoice
  version: default
  rules:
    - actions: ["invoice:refund"]
      effect: EFFECT_ALLOW
      roles: ["*"]
      condition: {match: {expr: R.attr.amount <= 500.0}}
      output:
        when: {conditionNotMet: '{"reason_user": "too much for " + P.id}'}
"""


@pytest.fixture(scope="module")
def cerbos(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CerbosServer]:
    work = tmp_path_factory.mktemp("cerbos")
    (work / "policies").mkdir()
    (work / "policies" / "invoice.yaml").write_text(POLICY)
    with CerbosServer(work, work / "policies") as server:
        yield server


def refund(id_: str, amount: float) -> RemoteQuery:
    return put(about(id_, "invoice:refund", resource=Resource("invoice", id_, {"amount": amount})), "cerbos")


@pytest.mark.capability("C28", "C29")
@pytest.mark.promise("P4")
def test_cerbos_answers_each_question_by_its_own_properties(cerbos: CerbosServer) -> None:
    point = DecisionPoint(RemoteSettings(url=cerbos.url, dialect="cerbos", deadline=10.0))
    small, large = refund("17", 1.0), refund("17", 900.0)
    # What it makes of the two in one request, and why they must not be:
    together = RemoteQuery(("both",), batch_body([small.body, large.body], small.batch_context), "r")
    transport = point._exchange._transport
    answer = transport.post(cerbos.url + EVALUATIONS, {"Content-Type": "application/json"}, together.body, 10.0)
    assert isinstance(answer, RawAnswer)
    assert [each["decision"] for each in json.loads(answer.body)["evaluations"]] == [True, True]
    told = point.ask_all([small, large])
    point.close()
    assert [reply.permit for reply in told if isinstance(reply, RemoteAnswer)] == [True, False]


@pytest.mark.capability("C28")
def test_a_long_list_of_cerbos_comes_back_whole_with_what_its_policies_put_out(cerbos: CerbosServer) -> None:
    point = DecisionPoint(RemoteSettings(url=cerbos.url, dialect="cerbos", deadline=10.0))
    queries = [refund(f"a-rather-long-identifier-of-an-invoice-{number}", 900.0 * (number % 2)) for number in range(60)]
    told = point.ask_all(queries)
    point.close()
    assert [reply.permit for reply in told if isinstance(reply, RemoteAnswer)] == [not n % 2 for n in range(60)]
    reasons = {reply.advice.reason_user for reply in told if isinstance(reply, RemoteAnswer) and not reply.permit}
    assert reasons == {"too much for alice"}
