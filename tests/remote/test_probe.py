"""No answer of a decision point is believed before it has shown that it weighs what it is told."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import pytest
from blockbuster import blockbuster_ctx

from authz_middleware.errors import SettingsError
from authz_middleware.remote.decision_point import DecisionPoint
from authz_middleware.remote.failure import FailureKind, RemoteAnswer, RemoteFailure
from authz_middleware.remote.flights import Reply
from authz_middleware.remote.query import RemoteQuery
from authz_middleware.settings.remote.credential import TokenFile
from authz_middleware.settings.remote.decision_point import RemoteSettings
from authz_middleware.settings.remote.probe import ProbeSettings
from tests.support.pdp import (
    DENY,
    PERMIT,
    Behaviour,
    Exchange,
    ScriptedServer,
    answer,
    drip,
    hang,
    reset,
    response,
    take,
)

PROBE = ProbeSettings(b'{"probe":"permit"}', b'{"probe":"deny"}', ("context.purpose", "action.name"))
QUESTION = b'{"subject":{"type":"user","id":"a"},"action":{"name":"read"},"resource":{"type":"record","id":"1"}}'
PERMITTED = RemoteAnswer(True)
WRONG = RemoteFailure(FailureKind.CONFIG, "probe.deny")
Rule = Callable[[object], Behaviour]
R = TypeVar("R")


def honest(probe: object) -> Behaviour:
    """Permits everything but the probe that must be denied."""
    return answer(DENY if probe == "deny" else PERMIT)


def deaf(_: object) -> Behaviour:
    """Permits everything: it does not read what it is told."""
    return answer(PERMIT)


def closed(_: object) -> Behaviour:
    return answer(DENY)


def away(_: object) -> Behaviour:
    return answer(b"{}", status="503 Service Unavailable")


class Point:
    """A real decision point that decides by a rule, which may be replaced, and its client in one colour. `skipped` is
    how many seconds its clock is ahead."""

    def __init__(self, colour: str, server: ScriptedServer, **settings: Any) -> None:
        self.server = server
        self.rule: Rule = honest
        self.skipped = 0.0
        self._numbers = iter(range(10_000))
        self._runner = asyncio.Runner() if colour == "async" else None
        self.client = DecisionPoint(
            RemoteSettings(**{"url": server.url, "deadline": 1.0, "probe": PROBE, **settings}),
            monotonic=lambda: time.monotonic() + self.skipped,
        )

    def behave(self, exchange: Exchange) -> bool:
        return self.rule(json.loads(exchange.body).get("probe"))(exchange)

    @property
    def asked(self) -> list[str]:
        """What has reached the decision point, in order."""
        return [json.loads(request.body).get("probe", "question") for request in self.server.requests]

    def query(self, deadline: float | None = None) -> RemoteQuery:
        number = next(self._numbers)
        return RemoteQuery(("question", number), QUESTION, f"question-{number}", deadline)

    def ask(self, deadline: float | None = None) -> Reply:
        query = self.query(deadline)
        return self._run(lambda: self.client.ask(query), lambda: self.client.ask_async(query))

    def ask_all(self, count: int) -> list[Reply]:
        queries = [self.query() for _ in range(count)]
        return self._run(lambda: self.client.ask_all(queries), lambda: self.client.ask_all_async(queries))

    def ask_at_once(self, count: int) -> list[Reply]:
        """Different questions, each of a caller of its own."""
        queries = [self.query() for _ in range(count)]

        def in_threads() -> list[Reply]:
            with ThreadPoolExecutor(count) as pool:
                return list(pool.map(self.client.ask, queries))

        async def in_tasks() -> list[Reply]:
            return list(await asyncio.gather(*map(self.client.ask_async, queries)))

        return self._run(in_threads, in_tasks)

    def _run(self, blocking: Callable[[], R], awaited: Callable[[], Coroutine[Any, Any, R]]) -> R:
        return blocking() if self._runner is None else self._runner.run(awaited())

    def close(self) -> None:
        if self._runner is not None:
            self._runner.run(self.client.aclose())
            self._runner.close()
        self.client.close()


@pytest.fixture(params=["sync", "async"])
def make(request: pytest.FixtureRequest) -> Iterator[Callable[..., Point]]:
    """Makes points, and closes them at the end."""
    points: list[Point] = []

    def behave(exchange: Exchange) -> bool:
        return points[-1].behave(exchange)

    with ScriptedServer(behave) as server:

        def made(rule: Rule = honest, **settings: Any) -> Point:
            points.append(Point(request.param, server, **settings))
            points[-1].rule = rule
            return points[-1]

        yield made
        for point in points:
            point.close()


@pytest.mark.capability("C29")
def test_at_start_both_probes_are_put_and_no_more_afterwards(make: Callable[..., Point]) -> None:
    point = make()
    point.client.start()
    assert point.asked == ["permit", "deny"]
    assert [point.ask(), point.ask()] == [PERMITTED, PERMITTED]
    assert point.asked == ["permit", "deny", "question", "question"]


def test_a_probe_is_sent_as_it_is_written_and_like_any_question(make: Callable[..., Point], tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t0ken")
    point = make(credential=TokenFile(tmp_path / "token"), dialect="cerbos")
    point.client.start()
    permit, deny = point.server.requests
    assert (permit.body, deny.body) == (PROBE.permit, PROBE.deny)
    assert permit.header("authorization") == deny.header("authorization") == "Bearer t0ken"
    assert permit.header("x-request-id") != deny.header("x-request-id")
    assert permit.head.startswith(b"POST /access/v1/evaluation ")


@pytest.mark.capability("C29")
@pytest.mark.promise("P4")
@pytest.mark.parametrize(("rule", "outcome"), [(deaf, "deny"), (closed, "permit")])
def test_a_decision_point_that_answers_wrongly_keeps_the_application_from_starting(
    make: Callable[..., Point], rule: Rule, outcome: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        make(rule).client.start()
    (problem,) = caught.value.problems
    assert problem.where == f"remote.probe.{outcome}"
    assert "context.purpose, action.name" in problem.what
    assert "remote.dialect" in problem.what


@pytest.mark.capability("C30")
@pytest.mark.parametrize(
    ("behaviour", "detail"),
    [
        (answer(b"{}", status="401 Unauthorized"), "status.401"),
        (answer(b"{}", status="404 Not Found"), "status.404"),
        (answer(b"", status="302 Found", headers="Location: /\r\n"), "status.302"),
        (answer(b'{"decision":"true"}'), "body.decision"),
        (answer(b"<html>"), "body"),
    ],
)
def test_what_is_no_decision_point_keeps_the_application_from_starting(
    make: Callable[..., Point], behaviour: Behaviour, detail: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        make(lambda _: behaviour).client.start()
    (problem,) = caught.value.problems
    assert problem.where == "remote.probe"
    assert detail in problem.what


@pytest.mark.capability("C30", "C34")
@pytest.mark.parametrize(
    "behaviour", [answer(b"{}", status="503 Service Unavailable"), reset, hang, drip(response(), pause=0.2)]
)
def test_a_decision_point_that_is_away_is_told_of_and_keeps_nobody_from_starting(
    make: Callable[..., Point], behaviour: Behaviour, caplog: pytest.LogCaptureFixture
) -> None:
    point = make(lambda _: behaviour, deadline=0.2)
    with caplog.at_level(logging.WARNING, "authz"):
        point.client.start()
    (line,) = [record.getMessage() for record in caplog.records if "probe" in record.getMessage()]
    assert point.server.url in line
    reply = point.ask()
    assert isinstance(reply, RemoteFailure)
    assert reply.is_outage
    assert "question" not in point.asked


@pytest.mark.capability("C30")
@pytest.mark.promise("P4")
def test_the_first_question_after_an_outage_probes_before_it_is_put(make: Callable[..., Point]) -> None:
    point = make(away)
    point.client.start()
    point.rule = honest
    begun = len(point.asked)
    assert [point.ask(), point.ask()] == [PERMITTED, PERMITTED]
    assert point.asked[begun:] == ["permit", "deny", "question", "question"]


@pytest.mark.promise("P4")
def test_without_a_start_the_first_question_probes(make: Callable[..., Point]) -> None:
    """Whoever forgets to call it, believes nobody for that."""
    point = make()
    assert point.ask() == PERMITTED
    assert point.asked == ["permit", "deny", "question"]


@pytest.mark.capability("C29", "C30")
@pytest.mark.promise("P4")
@pytest.mark.parametrize("start", [True, False])
def test_nothing_is_permitted_by_a_decision_point_that_turns_out_deaf(make: Callable[..., Point], start: bool) -> None:
    point = make(away)
    if start:
        point.client.start()
    point.rule = deaf
    assert point.ask() == WRONG
    replies = [point.ask(), *point.ask_all(2)]
    assert {(reply.kind, reply.detail) for reply in replies if isinstance(reply, RemoteFailure)} == {
        (FailureKind.CONFIG, "probe.deny")
    }
    assert len(replies) == 3
    assert "question" not in point.asked


@pytest.mark.promise("P4")
def test_several_questions_at_once_are_not_put_to_an_unproven_point_either(make: Callable[..., Point]) -> None:
    point = make(deaf)
    assert all(isinstance(reply, RemoteFailure) for reply in point.ask_all(3))
    assert "question" not in point.asked


def test_several_questions_at_once_are_put_after_the_probe(make: Callable[..., Point]) -> None:
    point = make()
    point.ask_all(3)
    assert point.asked[:3] == ["permit", "deny", "question"]


def test_a_wrong_answer_is_asked_for_again_after_a_minute_and_not_before(make: Callable[..., Point]) -> None:
    point = make(deaf)
    assert point.ask() == WRONG
    point.rule = honest
    for skipped in (0.0, 55.0):
        point.skipped = skipped
        reply = point.ask()
        assert isinstance(reply, RemoteFailure)
        assert (reply.detail, reply.is_news) == ("probe.deny", False)  # the breaker need not hear of it again
    assert point.asked == ["permit", "deny"]
    point.skipped = 61.0
    assert point.ask() == PERMITTED
    assert point.asked == ["permit", "deny", "permit", "deny", "question"]


def test_a_wrong_answer_rings_once_a_minute_and_names_what_is_ignored(
    make: Callable[..., Point], caplog: pytest.LogCaptureFixture
) -> None:
    point = make(deaf)
    for _ in range(3):
        point.ask()
    lines = [line for line in caplog.messages if "remote.probe.deny" in line]
    assert len(lines) == 1
    assert "context.purpose, action.name" in lines[0]


def test_an_outage_is_tried_again_with_the_next_question(make: Callable[..., Point]) -> None:
    point = make(away)
    assert [reply.kind for reply in (point.ask(), point.ask()) if isinstance(reply, RemoteFailure)] == [
        FailureKind.STATUS_5XX
    ] * 2
    assert point.asked == ["permit", "permit"]


@pytest.mark.capability("C34")
def test_an_outage_is_news_once_to_questions_that_were_put_together(make: Callable[..., Point]) -> None:
    replies = make(away).ask_all(3)
    assert [reply.is_news for reply in replies if isinstance(reply, RemoteFailure)] == [True, False, False]


@pytest.mark.capability("C34")
@pytest.mark.parametrize("several", [False, True])
def test_a_probe_that_hangs_is_over_within_the_deadline_of_the_question(
    make: Callable[..., Point], several: bool
) -> None:
    point = make(lambda _: hang, deadline=0.3)
    took = []
    for _ in range(3):
        began = time.monotonic()
        replies = point.ask_all(2) if several else [point.ask()]
        took.append(time.monotonic() - began)
        assert {reply.kind for reply in replies if isinstance(reply, RemoteFailure)} == {FailureKind.DEADLINE}
    assert min(took) < 0.45


@pytest.mark.capability("C34")
def test_a_slow_decision_point_is_proven_one_probe_after_the_other(make: Callable[..., Point]) -> None:
    """There is time for one answer in each deadline, so there is one for the question in the end."""
    point = make(lambda probe: take(0.25, honest(probe)), deadline=0.4)
    replies: list[Reply] = []
    while PERMITTED not in replies:
        assert len(replies) < 10
        replies.append(point.ask())
    assert all(reply == PERMITTED or (isinstance(reply, RemoteFailure) and reply.is_outage) for reply in replies)


@pytest.mark.capability("C34")
def test_many_questions_at_once_probe_once(make: Callable[..., Point]) -> None:
    point = make(lambda probe: take(0.1, honest(probe)), deadline=5.0)
    assert point.ask_at_once(20) == [PERMITTED] * 20
    assert sorted(point.asked) == ["deny", "permit", *["question"] * 20]


@pytest.mark.promise("P4")
def test_many_questions_at_once_are_refused_by_one_wrong_answer(make: Callable[..., Point]) -> None:
    point = make(lambda probe: take(0.1, deaf(probe)), deadline=5.0)
    replies = point.ask_at_once(20)
    assert {reply.detail for reply in replies if isinstance(reply, RemoteFailure)} == {"probe.deny"}
    assert len(replies) == 20
    assert point.asked == ["permit", "deny"]


@pytest.mark.capability("C34")
@pytest.mark.parametrize("make", ["async"], indirect=True)
def test_a_cancelled_question_leaves_the_probe_to_the_next(make: Callable[..., Point]) -> None:
    point = make(lambda probe: take(0.2, honest(probe)), deadline=5.0)

    async def go() -> Reply:
        first = asyncio.create_task(point.client.ask_async(point.query()))
        await asyncio.sleep(0.05)
        second = asyncio.create_task(point.client.ask_async(point.query()))
        await asyncio.sleep(0.05)
        first.cancel()
        return await second

    assert point._run(lambda: PERMITTED, go) == PERMITTED


@pytest.mark.promise("P9")
@pytest.mark.parametrize("make", ["async"], indirect=True)
def test_nothing_blocks_the_event_loop(make: Callable[..., Point]) -> None:
    point = make()

    async def go() -> list[Reply]:
        with blockbuster_ctx(["authz_middleware"]):
            return [await point.client.ask_async(point.query()), *await point.client.ask_all_async([point.query()])]

    assert point._run(lambda: [PERMITTED] * 2, go) == [PERMITTED] * 2


@pytest.mark.parametrize("make", ["async"], indirect=True)
def test_threads_and_event_loops_share_what_is_proven(make: Callable[..., Point]) -> None:
    point = make()
    thread = threading.Thread(target=lambda: point.client.ask(point.query()))
    thread.start()
    thread.join()
    assert point.ask() == PERMITTED
    assert point.asked == ["permit", "deny", "question", "question"]


def test_without_a_probe_nothing_is_asked_beforehand(make: Callable[..., Point]) -> None:
    point = make(probe=None)
    point.client.start()
    assert point.ask() == PERMITTED
    assert point.asked == ["question"]
