"""Searches: what the decision point is asked, what counts as found, and where the paging ends."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from authz_middleware.remote.decision_point import DecisionPoint
from authz_middleware.remote.failure import FailureKind, RemoteFailure
from authz_middleware.remote.messages.evaluation import MessageError, evaluation_request
from authz_middleware.remote.messages.search import (
    MAX_TOKEN,
    Found,
    SearchQuery,
    Subject,
    action_search,
    resource_search,
    subject_search,
)
from authz_middleware.remote.searching import MAX_PAGES
from authz_middleware.remote.transport.protocol import RawAnswer
from authz_middleware.resource import Resource
from authz_middleware.settings.remote.decision_point import RemoteSettings
from tests.support.pdp import Exchange, ScriptedPoint, ScriptedServer, raw, response
from tests.support.questions import question

URL = "https://pdp.test"
SETTINGS = RemoteSettings(url=URL, deadline=2.0)
ASKED = question()
Answer = Found[Any] | RemoteFailure


class PagingPoint:
    """A transport to a decision point that gives its results page by page."""

    def __init__(self, results: list[Mapping[str, Any]], page: int) -> None:
        self._results = results
        self._page = page
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.request_ids: list[str] = []

    def post(self, url: str, headers: Mapping[str, str], body: bytes, deadline: float) -> RawAnswer | RemoteFailure:
        asked = json.loads(body)
        self.requests.append((url.removeprefix(URL), asked))
        self.request_ids.append(headers["X-Request-ID"])
        begin = int(asked.get("page", {}).get("token", 0))
        end = begin + self._page
        token = str(end) if end < len(self._results) else ""
        return raw({"page": {"next_token": token}, "results": self._results[begin:end]})

    def close(self) -> None:
        pass


class AsyncColour:
    """The other colour of a transport that does not take long."""

    def __init__(self, transport: PagingPoint | ScriptedPoint) -> None:
        self._transport = transport

    async def post(
        self, url: str, headers: Mapping[str, str], body: bytes, deadline: float
    ) -> RawAnswer | RemoteFailure:
        return self._transport.post(url, headers, body, deadline)

    async def aclose(self) -> None:
        pass


Search = Callable[..., Answer]


@pytest.fixture(params=["sync", "async"])
def search(request: pytest.FixtureRequest) -> Search:
    def find(transport: PagingPoint | ScriptedPoint, query: SearchQuery[Any]) -> Answer:
        point = DecisionPoint(SETTINGS, transport=transport, async_transport=AsyncColour(transport))
        return point.search(query) if request.param == "sync" else asyncio.run(point.search_async(query))

    return find


def invoices(*ids: str) -> list[Mapping[str, Any]]:
    return [{"type": "invoice", "id": id_} for id_ in ids]


def results(*entities: object, **others: object) -> ScriptedPoint:
    return ScriptedPoint([raw({"results": list(entities), **others})])


# what is asked


@pytest.mark.capability("C28")
def test_a_search_for_resources_names_their_type_and_all_the_rest(search: Search) -> None:
    point = PagingPoint(invoices("1", "2"), 10)
    assert search(point, resource_search(ASKED, "invoice")) == Found(
        (Resource("invoice", "1"), Resource("invoice", "2")), is_complete=True
    )
    ((path, asked),) = point.requests
    expected = evaluation_request(ASKED)
    assert path == "/access/v1/search/resource"
    assert asked.pop("page") == {"limit": 200}
    assert asked.pop("resource") == {"type": "invoice"}
    assert asked.pop("context") == {k: v for k, v in expected["context"].items() if k != "resource_as_of"}
    assert asked == {"subject": expected["subject"], "action": expected["action"]}


@pytest.mark.capability("C28")
def test_a_search_for_subjects_names_their_type_and_nothing_of_the_caller(search: Search) -> None:
    point = PagingPoint([{"type": "human", "id": "alice"}, {"type": "human", "id": "bob"}], 10)
    assert search(point, subject_search(ASKED, "human")) == Found(
        (Subject("human", "alice"), Subject("human", "bob")), is_complete=True
    )
    ((path, asked),) = point.requests
    expected = evaluation_request(ASKED)
    assert path == "/access/v1/search/subject"
    assert asked.pop("page") == {"limit": 200}
    assert asked.pop("subject") == {"type": "human"}
    assert set(asked.pop("context")) == {"time", "environment", "resource_as_of"}
    assert asked == {"action": expected["action"], "resource": expected["resource"]}


@pytest.mark.capability("C28")
def test_a_search_for_actions_has_no_action(search: Search) -> None:
    point = PagingPoint([{"name": "invoice:read"}, {"name": "can_write"}], 10)
    assert search(point, action_search(ASKED)) == Found(("invoice:read", "can_write"), is_complete=True)
    ((path, asked),) = point.requests
    expected = evaluation_request(ASKED)
    assert path == "/access/v1/search/action"
    assert asked.pop("page") == {"limit": 200}
    assert asked == {name: expected[name] for name in ("subject", "resource", "context")}


@pytest.mark.parametrize("limit", [0, -1, 10_001, True, 1.5, "9"])
def test_a_limit_is_a_number_in_bounds(limit: Any) -> None:
    with pytest.raises(MessageError, match="limit"):
        action_search(ASKED, limit=limit)


@pytest.mark.parametrize("build", [resource_search, subject_search])
@pytest.mark.parametrize("type_", ["", "a\u200bb", " a", "a\n"])
def test_the_type_that_is_searched_for_is_a_clear_one(build: Callable[..., object], type_: str) -> None:
    with pytest.raises(MessageError, match="type"):
        build(ASKED, type_)


# what is found


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ({}, "search.results"),
        ({"results": None}, "search.results"),
        ({"results": {"type": "invoice", "id": "1"}}, "search.results"),
        ({"results": [None]}, "search.entity"),
        ({"results": ["1"]}, "search.entity"),
        ({"results": [{"id": "1"}]}, "search.entity"),
        ({"results": [{"type": "invoice"}]}, "search.entity"),
        ({"results": [{"type": "invoice", "id": 1}]}, "search.entity"),
        ({"results": [{"type": "invoice", "id": ""}]}, "search.entity"),
        ({"results": [{"type": "invoice", "id": "a\u202eb"}]}, "search.entity"),
        ({"results": [{"type": "invoice", "id": "a\nb"}]}, "search.entity"),
        ({"results": [{"type": "report", "id": "1"}]}, "search.entity"),
        ({"results": [*invoices("1"), {"type": "Invoice", "id": "2"}]}, "search.entity"),
        ({"results": [], "page": None}, "search.page"),
        ({"results": [], "page": []}, "search.page"),
        ({"results": [], "page": {"next_token": None}}, "search.page"),
        ({"results": [], "page": {"next_token": 1}}, "search.page"),
        ({"results": [], "page": {"next_token": "x" * (MAX_TOKEN + 1)}}, "search.page"),
        (b'{"results":[],"results":[]}', "body.duplicate_member"),
        (b"[]", "body.not_an_object"),
    ],
)
def test_a_response_that_is_not_strictly_one_finds_nothing(search: Search, body: object, detail: str) -> None:
    told = search(ScriptedPoint([raw(body)]), resource_search(ASKED, "invoice"))
    assert told == RemoteFailure(FailureKind.MALFORMED, detail)


@pytest.mark.parametrize("entity", [{}, {"name": ""}, {"name": "a b"}, {"name": 1}, {"name": "a\n"}, {"id": "a"}])
def test_an_action_has_a_name_that_can_be_asked_about(search: Search, entity: object) -> None:
    assert search(results(entity), action_search(ASKED)) == RemoteFailure(FailureKind.MALFORMED, "search.entity")


def test_members_that_are_not_known_are_passed_over_and_properties_are_nobody_s_attributes(search: Search) -> None:
    found = results(
        {"type": "invoice", "id": "1", "properties": {"amount": 1}, "later": 1}, context={"ms": 4}, page={"count": 1}
    )
    assert search(found, resource_search(ASKED, "invoice")) == Found((Resource("invoice", "1"),), is_complete=True)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500, 503])
def test_a_failed_search_is_the_failure_that_a_question_would_be(search: Search, status: int) -> None:
    told = search(ScriptedPoint([raw(status=status)]), resource_search(ASKED, "invoice"))
    assert isinstance(told, RemoteFailure)
    assert told.is_outage is (status in (429, 500, 503))


@pytest.mark.parametrize("error", [RuntimeError(), OSError()])
def test_whatever_a_transport_raises_is_a_fault(search: Search, error: Exception) -> None:
    told = search(ScriptedPoint([error]), resource_search(ASKED, "invoice"))
    assert told == RemoteFailure(FailureKind.INTERNAL, "client")


# page after page


def test_pages_are_followed_with_all_the_rest_the_same(search: Search) -> None:
    ids = [f"i-{number}" for number in range(7)]
    point = PagingPoint(invoices(*ids), 3)
    found = search(point, resource_search(ASKED, "invoice"))
    assert found == Found(tuple(Resource("invoice", id_) for id_ in ids), is_complete=True)
    assert [asked["page"].pop("token", None) for _, asked in point.requests] == [None, "3", "6"]
    assert all(asked == point.requests[0] for asked in point.requests)
    assert len(set(point.request_ids)) == 3


def test_what_is_found_twice_is_found_once(search: Search) -> None:
    point = PagingPoint(invoices("1", "2", "2", "3", "1"), 2)
    assert search(point, resource_search(ASKED, "invoice")) == Found(
        tuple(Resource("invoice", id_) for id_ in "123"), is_complete=True
    )


@pytest.mark.parametrize(("limit", "pages", "complete"), [(3, 1, False), (4, 2, False), (6, 2, True), (7, 2, True)])
def test_no_more_is_found_than_was_asked_for(search: Search, limit: int, pages: int, complete: bool) -> None:
    point = PagingPoint(invoices(*"123456"), 3)
    found = search(point, resource_search(ASKED, "invoice", limit=limit))
    assert found == Found(tuple(Resource("invoice", id_) for id_ in "123456"[:limit]), is_complete=complete)
    assert len(point.requests) == pages
    assert {asked["page"]["limit"] for _, asked in point.requests} == {limit}


def test_a_point_that_gives_more_than_a_page_is_cut_to_the_limit(search: Search) -> None:
    found = search(results(*invoices(*"12345")), resource_search(ASKED, "invoice", limit=2))
    assert found == Found((Resource("invoice", "1"), Resource("invoice", "2")), is_complete=False)


def test_a_token_that_comes_again_ends_in_a_fault(search: Search) -> None:
    script = [
        raw({"results": invoices(str(number)), "page": {"next_token": token}}) for number, token in enumerate("aba")
    ]
    scripted = ScriptedPoint([*script])
    told = search(scripted, resource_search(ASKED, "invoice"))
    assert told == RemoteFailure(FailureKind.MALFORMED, "search.token_repeated")
    assert len(scripted.posted) == 3


def test_pages_without_end_end_in_a_fault(search: Search) -> None:
    script = [raw({"results": [], "page": {"next_token": f"t{number}"}}) for number in range(MAX_PAGES + 5)]
    scripted = ScriptedPoint([*script])
    told = search(scripted, resource_search(ASKED, "invoice"))
    assert told == RemoteFailure(FailureKind.MALFORMED, "search.too_many_pages")
    assert len(scripted.posted) == MAX_PAGES


def test_a_later_page_that_fails_fails_the_search(search: Search) -> None:
    scripted = ScriptedPoint([raw({"results": invoices("1"), "page": {"next_token": "a"}}), raw(status=503)])
    told = search(scripted, resource_search(ASKED, "invoice"))
    assert told == RemoteFailure(FailureKind.STATUS_5XX, "status.503")


def endless(exchange: Exchange) -> bool:
    exchange.stopping.wait(0.05)
    token = f"t{len(exchange.body)}-{time.monotonic_ns()}"
    exchange.send(response(json.dumps({"results": [], "page": {"next_token": token}}).encode()))
    return True


@pytest.mark.capability("C28")
@pytest.mark.parametrize("colour", ["sync", "async"])
def test_all_pages_together_have_one_deadline(colour: str) -> None:
    query = resource_search(ASKED, "invoice", deadline=0.4)

    async def find(url: str) -> Answer:
        point = DecisionPoint(RemoteSettings(url=url, deadline=30.0))
        told = await point.search_async(query)
        await point.aclose()
        return told

    with ScriptedServer(endless) as server:
        began = time.monotonic()
        if colour == "sync":
            point = DecisionPoint(RemoteSettings(url=server.url, deadline=30.0))
            told: Answer = point.search(query)
            point.close()
        else:
            told = asyncio.run(find(server.url))
        took = time.monotonic() - began
    assert isinstance(told, RemoteFailure)
    assert told.kind is FailureKind.DEADLINE
    assert took < 2.0  # a hundred pages take five seconds
