"""The decision point's client around its transport: deadline, single flight, credential, fork."""

from __future__ import annotations

import asyncio
import gc
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from authz_middleware.errors import SettingsError
from authz_middleware.remote.decision_point import DecisionPoint
from authz_middleware.remote.failure import FailureKind, RemoteAnswer, RemoteFailure
from authz_middleware.remote.query import RemoteQuery
from authz_middleware.remote.transport.protocol import RawAnswer
from authz_middleware.resource import Resource
from authz_middleware.settings.remote.credential import TokenFile
from authz_middleware.settings.remote.decision_point import RemoteSettings
from tests.support.pdp import DENY, ScriptedPoint, ScriptedServer, answer, raw, take
from tests.support.questions import question

QUERY = RemoteQuery(("key",), b"{}", "request-1")
SETTINGS = RemoteSettings(url="https://pdp.test/base/", deadline=0.3)
MARGIN = 0.15
PERMITTED = RemoteAnswer(True)
Reply = RemoteAnswer | RemoteFailure


def other(number: int) -> RemoteQuery:
    return RemoteQuery((number,), b"{}", f"request-{number}")


@pytest.fixture(params=["sync", "async"])
def ask(request: pytest.FixtureRequest) -> Callable[..., Reply]:
    def ask_scripted(scripted: ScriptedPoint, query: RemoteQuery = QUERY, settings: RemoteSettings = SETTINGS) -> Reply:
        point = DecisionPoint(settings, transport=scripted, async_transport=scripted.asynchronous())
        return point.ask(query) if request.param == "sync" else asyncio.run(point.ask_async(query))

    return ask_scripted


def test_a_question_goes_to_the_evaluation_endpoint_with_the_time_that_is_left(
    ask: Callable[..., Reply],
) -> None:
    scripted = ScriptedPoint()
    assert ask(scripted) == PERMITTED
    (posted,) = scripted.posted
    assert posted.url == "https://pdp.test/base/access/v1/evaluation"
    assert 0.0 < posted.deadline <= SETTINGS.deadline
    assert posted.headers["X-Request-ID"] == "request-1"
    assert "Authorization" not in posted.headers


@pytest.mark.parametrize("error", [RuntimeError("boom"), OSError(), MemoryError(), RecursionError(), ValueError()])
def test_whatever_a_transport_raises_is_a_fault(ask: Callable[..., Reply], error: Exception) -> None:
    told = ask(ScriptedPoint([error]))
    assert told == RemoteFailure(FailureKind.INTERNAL, "client")
    assert isinstance(told, RemoteFailure)
    assert not told.is_outage


def test_cancellation_is_not_swallowed(ask: Callable[..., Reply]) -> None:
    class Stop(BaseException):
        pass

    with pytest.raises(Stop):
        ask(ScriptedPoint([Stop()]))


def test_a_failure_of_the_transport_is_told_as_it_is(ask: Callable[..., Reply]) -> None:
    failure = RemoteFailure(FailureKind.CONNECT, "connect")
    assert ask(ScriptedPoint([failure])) == failure


@pytest.mark.capability("C30")
def test_a_permit_after_the_deadline_is_none(ask: Callable[..., Reply]) -> None:
    """Also of a transport that does not keep the deadline itself."""
    told = ask(ScriptedPoint([SETTINGS.deadline + 0.05, raw()]))
    assert told == RemoteFailure(FailureKind.DEADLINE, "late")


@pytest.mark.parametrize("id_", ["a b", "a\r\nX-Injected: 1", "é", "x" * 129])
def test_a_request_id_that_no_header_can_hold_is_not_sent(ask: Callable[..., Reply], id_: str) -> None:
    scripted = ScriptedPoint()
    told = ask(scripted, RemoteQuery(("key",), b"{}", id_))
    assert told == RemoteFailure(FailureKind.UNASKABLE, "request_id")
    assert not scripted.posted


def test_identical_questions_of_many_threads_are_put_once() -> None:
    scripted = ScriptedPoint([0.1, raw()])
    point = DecisionPoint(SETTINGS, transport=scripted)
    with ThreadPoolExecutor(20) as pool:
        replies = list(pool.map(point.ask, [QUERY] * 20))
    assert replies == [PERMITTED] * 20
    assert len(scripted.posted) == 1


async def test_identical_questions_of_many_tasks_are_put_once() -> None:
    scripted = ScriptedPoint([0.1, raw()])
    point = DecisionPoint(SETTINGS, async_transport=scripted.asynchronous())
    assert await asyncio.gather(*(point.ask_async(QUERY) for _ in range(20))) == [PERMITTED] * 20
    assert len(scripted.posted) == 1


async def test_different_questions_are_put_each() -> None:
    scripted = ScriptedPoint([0.01, raw(), 0.01, raw(), 0.01, raw()])
    point = DecisionPoint(SETTINGS, async_transport=scripted.asynchronous())
    await asyncio.gather(*(point.ask_async(other(number)) for number in range(3)))
    assert len(scripted.posted) == 3


def test_a_question_that_comes_after_the_answer_is_put_again(ask: Callable[..., Reply]) -> None:
    scripted = ScriptedPoint()
    point = DecisionPoint(SETTINGS, transport=scripted)
    assert [point.ask(QUERY), point.ask(QUERY)] == [PERMITTED] * 2
    assert len(scripted.posted) == 2


def test_threads_do_not_take_over_the_failure_of_the_one_they_waited_for() -> None:
    scripted = ScriptedPoint([0.1, RemoteFailure(FailureKind.STATUS_4XX), raw()])
    point = DecisionPoint(SETTINGS, transport=scripted)
    with ThreadPoolExecutor(3) as pool:
        replies = list(pool.map(point.ask, [QUERY] * 3))
    assert replies.count(PERMITTED) == 2
    assert len(scripted.posted) == 3


def test_threads_are_not_left_waiting_when_the_leader_dies() -> None:
    class Dies(BaseException):
        pass

    scripted = ScriptedPoint([0.1, Dies(), raw()])
    point = DecisionPoint(SETTINGS, transport=scripted)
    with ThreadPoolExecutor(2) as pool:
        leader = pool.submit(point.ask, QUERY)
        while not scripted.posted:
            time.sleep(0.001)
        follower = pool.submit(point.ask, QUERY)
        assert isinstance(leader.exception(), Dies)
        assert follower.result() == PERMITTED


async def test_a_cancelled_leader_neither_hangs_nor_answers_its_followers() -> None:
    scripted = ScriptedPoint([30.0, raw(DENY)])
    point = DecisionPoint(SETTINGS, async_transport=scripted.asynchronous())
    leader = asyncio.create_task(point.ask_async(QUERY))
    await asyncio.sleep(0.02)
    followers = [asyncio.create_task(point.ask_async(QUERY)) for _ in range(3)]
    await asyncio.sleep(0.02)
    leader.cancel()
    assert await asyncio.gather(*followers) == [RemoteAnswer(False)] * 3
    assert leader.cancelled()


async def test_a_cancelled_follower_takes_nobody_with_it() -> None:
    scripted = ScriptedPoint([0.1, raw()])
    point = DecisionPoint(SETTINGS, async_transport=scripted.asynchronous())
    leader, follower, another = (asyncio.create_task(point.ask_async(QUERY)) for _ in range(3))
    await asyncio.sleep(0.02)
    follower.cancel()
    assert await asyncio.gather(leader, another) == [PERMITTED] * 2
    assert follower.cancelled()


@pytest.mark.capability("C34")
async def test_a_follower_waits_no_longer_than_its_own_deadline() -> None:
    scripted = ScriptedPoint([5.0, raw()])
    point = DecisionPoint(SETTINGS, async_transport=scripted.asynchronous())
    leader = asyncio.create_task(point.ask_async(QUERY))
    await asyncio.sleep(0)
    started = time.monotonic()
    told = await point.ask_async(QUERY)
    assert time.monotonic() - started < SETTINGS.deadline + MARGIN
    assert told == RemoteFailure(FailureKind.DEADLINE, "shared", is_news=False)
    leader.cancel()


@pytest.mark.capability("C34")
def test_a_following_thread_waits_no_longer_than_its_own_deadline() -> None:
    scripted = ScriptedPoint([1.0, raw()])
    point = DecisionPoint(SETTINGS, transport=scripted)
    leader = threading.Thread(target=point.ask, args=[QUERY])
    leader.start()
    while not scripted.posted:
        time.sleep(0.001)
    started = time.monotonic()
    told = point.ask(QUERY)
    assert time.monotonic() - started < SETTINGS.deadline + MARGIN
    assert told == RemoteFailure(FailureKind.DEADLINE, "shared", is_news=False)
    leader.join()


@pytest.mark.capability("C34")
def test_two_hundred_callers_of_a_point_that_takes_five_seconds_end_by_the_deadline() -> None:
    async def run(url: str) -> list[tuple[Reply, float]]:
        point = DecisionPoint(RemoteSettings(url=url, deadline=0.3, max_connections=20))

        async def one(number: int) -> tuple[Reply, float]:
            started = time.monotonic()
            return await point.ask_async(other(number)), time.monotonic() - started

        told = await asyncio.gather(*(one(number) for number in range(200)))
        await point.aclose()
        return told

    with ScriptedServer(take(5.0, answer())) as server:
        told = asyncio.run(run(server.url))
    assert {reply.kind for reply, _ in told if isinstance(reply, RemoteFailure)} == {FailureKind.DEADLINE}
    assert not any(isinstance(reply, RemoteAnswer) for reply, _ in told)
    assert sorted(seconds for _, seconds in told)[197] < 0.3 + MARGIN


def refusals_of(colour: str, url: str, count: int, deadline: float) -> list[RemoteFailure]:
    """What callers are told that all want one of two connections at the same time."""
    point = DecisionPoint(RemoteSettings(url=url, deadline=deadline, max_connections=2))
    queries = [other(number) for number in range(count)]
    if colour == "sync":
        with ThreadPoolExecutor(count) as pool:
            replies = list(pool.map(point.ask, queries))
        point.close()
    else:

        async def run() -> list[Reply]:
            replies = await asyncio.gather(*(point.ask_async(query) for query in queries))
            await point.aclose()
            return replies

        replies = asyncio.run(run())
    return [reply for reply in replies if isinstance(reply, RemoteFailure)]


@pytest.mark.capability("C34")
@pytest.mark.promise("P4")
@pytest.mark.parametrize("colour", ["sync", "async"])
def test_all_callers_of_a_point_that_answers_nobody_see_the_same_outage(colour: str) -> None:
    with ScriptedServer(take(5.0, answer())) as server:
        failures = refusals_of(colour, server.url, 8, 0.4)
    assert [failure.kind for failure in failures] == [FailureKind.DEADLINE] * 8
    # Those who only waited for a connection have learnt nothing that the others have not told.
    assert [failure.is_news for failure in failures if failure.detail == "connections"] == [False] * 6


@pytest.mark.capability("C34")
@pytest.mark.promise("P4")
@pytest.mark.parametrize("colour", ["sync", "async"])
def test_who_waits_in_vain_while_others_are_answered_is_refused(colour: str) -> None:
    """Whoever keeps the connections busy must not choose the fallback by it."""
    with ScriptedServer(take(1.0, answer())) as server:
        failures = refusals_of(colour, server.url, 12, 4.0)
    assert failures
    assert {(failure.kind, failure.is_news) for failure in failures} == {(FailureKind.BUSY, False)}


def with_token(path: Path) -> RemoteSettings:
    return RemoteSettings(url="https://pdp.test", credential=TokenFile(path))


@pytest.mark.capability("C43")
def test_a_credential_is_sent_and_read_again_when_its_file_changes(ask: Callable[..., Reply], tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("first\n")
    scripted = ScriptedPoint()
    point = DecisionPoint(with_token(path), transport=scripted)
    point.ask(QUERY)
    point.ask(QUERY)
    replacement = tmp_path / "new"
    replacement.write_text("other\n")
    replacement.rename(path)
    ends = time.monotonic() + 10
    while scripted.posted[-1].headers["Authorization"] != "Bearer other" and time.monotonic() < ends:
        time.sleep(0.05)
        point.ask(QUERY)
    sent = [posted.headers["Authorization"] for posted in scripted.posted]
    assert sent[:2] == ["Bearer first", "Bearer first"]
    assert sent[-1] == "Bearer other"
    point.close()


@pytest.mark.parametrize(
    ("content", "detail"),
    [
        (None, "credential.unavailable"),
        ("", "credential.unavailable"),
        ("a b", "credential.malformed"),
        ("a\r\nX-Injected: 1", "credential.malformed"),
        ("token\x00", "credential.malformed"),
        ("t\u00f6ken", "credential.malformed"),
    ],
)
def test_without_a_usable_credential_nothing_is_sent(
    ask: Callable[..., Reply], tmp_path: Path, content: str | None, detail: str
) -> None:
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content.encode())
    scripted = ScriptedPoint()
    assert ask(scripted, settings=with_token(path)) == RemoteFailure(FailureKind.CONFIG, detail, is_news=False)
    assert not scripted.posted


def test_no_repr_shows_the_credential(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("s3cret")
    point = DecisionPoint(with_token(path), transport=ScriptedPoint())
    point.ask(QUERY)
    assert point._exchange._credential is not None
    assert "s3cret" not in repr(point) + repr(point._exchange) + repr(point._exchange._credential)
    point.close()


def test_certificates_that_cannot_be_read_stop_the_start(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    path.write_text("no certificate")
    for file in (path, tmp_path / "absent"):
        with pytest.raises(SettingsError, match=r"remote\.ca_file"):
            DecisionPoint(RemoteSettings(url="https://pdp.test", ca_file=file))


def test_closing_closes_each_colour() -> None:
    scripted = ScriptedPoint()
    point = DecisionPoint(SETTINGS, transport=scripted, async_transport=scripted.asynchronous())
    point.close()
    asyncio.run(point.aclose())
    assert scripted.closed == 2


def test_closing_what_was_never_used_is_fine() -> None:
    point = DecisionPoint(SETTINGS)
    asyncio.run(point.aclose())
    point.close()


def test_each_event_loop_has_a_session_of_its_own_that_ends_with_it() -> None:
    """Without `aclose`: a loop that a framework makes for one call is not ours to close."""
    with ScriptedServer() as server:
        point = DecisionPoint(RemoteSettings(url=server.url, deadline=2.0))
        for _ in range(3):
            assert asyncio.run(point.ask_async(QUERY)) == PERMITTED
            gc.collect()  # an unclosed session or connection would warn here, and a warning is an error
        assert server.connections == 3
        assert point._exchange._async_transport is not None
        assert not point._exchange._async_transport._pools  # type: ignore[attr-defined]


def run_script(script: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


FORKING = """
import asyncio, os, sys
from authz_middleware.remote.decision_point import DecisionPoint
from authz_middleware.remote.query import RemoteQuery
from authz_middleware.settings.remote.decision_point import RemoteSettings

point = DecisionPoint(RemoteSettings(url=sys.argv[1], deadline=5.0))
query = RemoteQuery(("k",), b"{}", "r")

def ask():
    assert point.ask(query).permit is True

async def ask_async():
    assert (await point.ask_async(query)).permit is True

def children():
    for _ in range(2):
        pid = os.fork()
        if not pid:
            ask()
            asyncio.run(ask_async())
            point.close()
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0

ask()
asyncio.run(ask_async())
children()
ask()
asyncio.run(ask_async())
point.close()
"""


def test_a_forked_child_uses_no_connection_of_its_parent() -> None:
    with ScriptedServer() as server:
        run_script(FORKING, server.url)
    # The parent: one kept for blocking code, one for each of its two loops; each child: one of each colour.
    assert server.connections == 3 + 2 * 2
    assert len(server.requests) == 4 + 2 * 2


LOCKED = """
import os, sys, threading, time
from authz_middleware.remote.breaker import Breaker
from authz_middleware.remote.cache import DecisionCache
from authz_middleware.remote.decision_point import DecisionPoint
from authz_middleware.remote.failure import RemoteAnswer
from authz_middleware.settings.remote.decision_point import BreakerSettings, RemoteSettings

cache, breaker, point = DecisionCache(4), Breaker(BreakerSettings()), DecisionPoint(RemoteSettings(url="http://127.0.0.1:1"))
locks = [cache._lock, breaker._lock, point._flights._lock, point._exchange._transport._lock]
for lock in locks:
    lock.acquire()
pid = os.fork()
if not pid:
    cache.remember(("k",), RemoteAnswer(True), 1.0, 2.0)
    breaker.fail(1.0, breaker.admit(1.0), "connect")
    point._flights.join(("k",), 1.0, lambda: RemoteAnswer(True))
    point.close()
    os._exit(0)
for _ in range(200):
    done, status = os.waitpid(pid, os.WNOHANG)
    if done:
        sys.exit(status)
    time.sleep(0.01)
os.kill(pid, 9)
os.waitpid(pid, 0)
sys.exit(1)
"""


def test_a_lock_held_while_forking_does_not_stop_the_child() -> None:
    run_script(LOCKED)


@pytest.mark.capability("C28", "C29")
@pytest.mark.parametrize("together", [False, True])
def test_what_is_said_beside_a_decision_is_read_in_the_dialect_of_the_question(together: bool) -> None:
    queries = [
        RemoteQuery.of(question(resource=Resource("invoice", id_)), "r1", dialect="cerbos") for id_ in ("17", "18")
    ]
    told = {
        "requestId": queries[0].request_id,
        "results": [
            {
                "resource": {"kind": "invoice", "id": "17"},
                "actions": {"invoice:refund": "EFFECT_DENY"},
                "outputs": [{"action": "invoice:refund", "val": {"reason_user": "too much"}}],
            }
        ],
    }
    one = {"decision": False, "context": {"cerbos.response": told}}
    other_s = {"decision": True, "context": {"cerbos.response": {**told, "requestId": "other"}}}
    mismatched = RemoteFailure(FailureKind.MISMATCHED, "body.request_id")
    if together:
        scripted = ScriptedPoint([raw({"evaluations": [one, other_s]})])
        reply, failure = DecisionPoint(SETTINGS, transport=scripted).ask_all(queries)
        assert json.loads(scripted.posted[0].body)["context"] == {"cerbos.includeMeta": True}
    else:
        point = DecisionPoint(SETTINGS, transport=ScriptedPoint([raw(one), raw(other_s)]))
        reply, failure = point.ask(queries[0]), point.ask(queries[1])
    assert isinstance(reply, RemoteAnswer)
    assert reply.advice.reason_user == "too much"
    assert failure == mismatched


@pytest.mark.capability("C28")
@pytest.mark.parametrize(("own", "least", "most"), [(None, 0.2, 0.3), (5.0, 4.0, 5.0), (0.05, 0.0, 0.05)])
def test_a_question_may_have_a_deadline_of_its_own(
    ask: Callable[..., Reply], own: float | None, least: float, most: float
) -> None:
    scripted = ScriptedPoint()
    ask(scripted, RemoteQuery(("key",), b"{}", "request-1", own))
    assert least < scripted.posted[0].deadline <= most


def test_a_fault_rings_once_a_minute_and_kind_and_an_outage_never(caplog: pytest.LogCaptureFixture) -> None:
    now = [1000.0]
    secret = raw({"decision": "s3cret"})
    script = [secret, secret, raw(status=403), RemoteFailure(FailureKind.CONNECT), raw(status=503), secret, raw()]
    point = DecisionPoint(SETTINGS, transport=ScriptedPoint([*script]), monotonic=lambda: now[0])
    for number in range(len(script)):
        if number == 5:
            now[0] += 61.0
        point.ask(other(number))
    assert [record.getMessage() for record in caplog.records] == [
        "a question to the decision point https://pdp.test/base/ ended in a fault: "
        f"{what} ({silent} more since the last such line)"
        for what, silent in [
            ("malformed body.decision", 0),
            ("status_4xx status.403", 0),
            ("malformed body.decision", 1),
        ]
    ]


def test_an_answer_of_a_transport_is_judged() -> None:
    for bad in (raw({"decision": "true"}), RawAnswer(200, (), b'{"decision":true}')):
        told = DecisionPoint(SETTINGS, transport=ScriptedPoint([bad])).ask(QUERY)
        assert isinstance(told, RemoteFailure)
        assert told.kind is FailureKind.MALFORMED
