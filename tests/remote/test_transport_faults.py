"""Every fault of a decision point on a real socket, through both real transports, each ending by the deadline."""

from __future__ import annotations

import asyncio
import gzip
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from authz_middleware.remote.decision_point import DecisionPoint
from authz_middleware.remote.failure import FailureKind, RemoteAnswer, RemoteFailure
from authz_middleware.remote.query import RemoteQuery
from authz_middleware.settings.remote.credential import TokenFile
from authz_middleware.settings.remote.decision_point import RemoteSettings
from tests.support.asking import COLOURS, QUERY, Asker, Reply, ask_once, seconds_of_best
from tests.support.faults import BODIES, HEADERS, STATUSES, faults, kind_of, outages
from tests.support.pdp import (
    PERMIT,
    Exchange,
    ScriptedServer,
    answer,
    black_hole,
    hang,
    refused_port,
    reply,
    reset_at_once,
    response,
)

DEADLINE = 0.3
MARGIN = 0.05


@pytest.fixture(params=COLOURS)
def colour(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def ask(colour: str, url: str, *queries: RemoteQuery, deadline: float = DEADLINE) -> list[Reply]:
    """The replies to each question in turn, put by one client."""
    with Asker(colour, RemoteSettings(url=url, deadline=deadline)) as asker:
        return [asker.ask(query) for query in queries or (QUERY,)]


OUTAGES = outages(DEADLINE)
FAULTS = faults()


@pytest.mark.capability("C29", "C30", "C34")
@pytest.mark.parametrize("fault", OUTAGES)
def test_an_outage_is_told_by_its_kind_and_by_the_deadline(colour: str, fault: str) -> None:
    behave, kind = OUTAGES[fault]
    told: list[Reply] = []
    with ScriptedServer(behave) as server, Asker(colour, RemoteSettings(url=server.url, deadline=DEADLINE)) as asker:
        took = seconds_of_best(3, lambda: told.append(asker.ask()), DEADLINE + MARGIN)
        assert len(server.requests) == len(told)
    assert {(reply.kind, reply.is_outage) for reply in told if isinstance(reply, RemoteFailure)} == {(kind, True)}
    assert not any(isinstance(reply, RemoteAnswer) for reply in told)
    assert took < DEADLINE + MARGIN


@pytest.mark.capability("C29", "C30")
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_neither_a_permit_nor_an_outage(colour: str, fault: str) -> None:
    behave, kind = FAULTS[fault]
    with ScriptedServer(behave) as server:
        started = time.monotonic()
        (told,) = ask(colour, server.url, deadline=5.0)
        took = time.monotonic() - started
        assert len(server.requests) == 1
    assert isinstance(told, RemoteFailure)
    assert (told.kind, told.is_outage) == (kind, False)
    assert took < 5.0, "it was told by the deadline and not by what is wrong"


@pytest.mark.capability("C29")
@pytest.mark.parametrize("status", STATUSES)
def test_no_status_but_200_is_a_permit(colour: str, status: int) -> None:
    with ScriptedServer(reply(response(status=f"{status:03} Whatever"), keep=False)) as server:
        told = ask(colour, server.url, QUERY, QUERY, deadline=5.0)
        assert len(server.requests) == 2
    kinds = {reply.kind if isinstance(reply, RemoteFailure) else None for reply in told}
    assert kinds == {kind_of(status)}


@pytest.mark.capability("C29")
@pytest.mark.parametrize("body", BODIES)
def test_no_other_body_is_a_permit(colour: str, body: str) -> None:
    with ScriptedServer(answer(BODIES[body])) as server:
        (told,) = ask(colour, server.url, deadline=5.0)
    assert isinstance(told, RemoteFailure)
    assert (told.kind, told.is_outage) == (FailureKind.MALFORMED, False)


@pytest.mark.capability("C34")
def test_nobody_who_takes_the_call_ends_by_the_deadline(colour: str) -> None:
    """A port whose queue is full answers no attempt to connect."""
    told: list[Reply] = []
    with black_hole() as port:
        settings = RemoteSettings(url=f"http://127.0.0.1:{port}", deadline=DEADLINE)
        with Asker(colour, settings) as asker:
            took = seconds_of_best(3, lambda: told.append(asker.ask()), DEADLINE + MARGIN)
    assert {reply.kind for reply in told if isinstance(reply, RemoteFailure)} == {FailureKind.DEADLINE}
    assert took < DEADLINE + MARGIN


@pytest.mark.capability("C30")
def test_a_connection_that_is_reset_before_it_is_asked_is_an_outage(colour: str) -> None:
    with ScriptedServer(greet=reset_at_once) as server:
        (told,) = ask(colour, server.url, deadline=5.0)
    assert isinstance(told, RemoteFailure)
    assert told.kind in (FailureKind.CLOSED, FailureKind.CONNECT)
    assert server.connections == 1


@pytest.mark.capability("C34")
@pytest.mark.parametrize("jump", [86_400.0, -86_400.0], ids=["forward", "back"])
def test_a_clock_that_jumps_moves_no_deadline(colour: str, jump: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wall clock is set while the question is out."""
    clock = time.time

    def set_the_clock(exchange: Exchange) -> bool:
        monkeypatch.setattr(time, "time", lambda: clock() + jump)
        return (answer() if len(server.requests) == 1 else hang)(exchange)

    with ScriptedServer(set_the_clock) as server:
        started = time.monotonic()
        first, second = ask(colour, server.url, QUERY, QUERY)
        took = time.monotonic() - started
    assert first == RemoteAnswer(True)
    assert isinstance(second, RemoteFailure)
    assert second.kind is FailureKind.DEADLINE
    assert DEADLINE * 0.9 < took < 2 * DEADLINE + 1.0


@pytest.mark.capability("C30")
def test_nobody_listening_is_an_outage(colour: str) -> None:
    (told,) = ask(colour, f"http://127.0.0.1:{refused_port()}")
    assert told == RemoteFailure(FailureKind.CONNECT, "connect")


@pytest.mark.capability("C30")
def test_a_name_that_does_not_resolve_is_an_outage(colour: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    assert ask(colour, "http://pdp.test", deadline=5.0) == [RemoteFailure(FailureKind.CONNECT, "connect")]


@pytest.mark.capability("C34")
def test_a_resolver_that_hangs_ends_by_the_deadline(colour: str, monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()
    lookups = []

    def hang(*arguments: object, **_: object) -> list[object]:
        lookups.append(arguments)
        released.wait(5)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    point = DecisionPoint(RemoteSettings(url=f"http://{colour}.pdp.test", deadline=DEADLINE))
    queries = [RemoteQuery((number,), b"{}", "r") for number in range(8)]

    async def gather() -> list[Reply]:
        return await asyncio.gather(*map(point.ask_async, queries))

    started = time.monotonic()
    if colour == "async":
        told = asyncio.run(gather())  # its end waits for no thread of the resolver's
    else:
        with ThreadPoolExecutor(len(queries)) as pool:
            told = list(pool.map(point.ask, queries))
    took = time.monotonic() - started
    released.set()
    assert {reply.kind for reply in told if isinstance(reply, RemoteFailure)} == {FailureKind.DEADLINE}
    assert took < DEADLINE + 0.3, "somebody waits for a thread that hangs"
    assert len(lookups) == 1, "questions to one name share the thread that looks it up"


@pytest.mark.capability("C34")
def test_a_black_hole_among_the_addresses_of_a_name_leaves_time_for_the_others(
    colour: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with black_hole() as port, ScriptedServer() as server:
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", each)) for each in (port, server.port)]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        assert ask(colour, "http://two.pdp.test", deadline=2.0) == [RemoteAnswer(True)]


def test_a_name_is_resolved_to_an_address_that_answers(colour: str) -> None:
    with ScriptedServer() as server:
        assert ask(colour, server.url.replace("127.0.0.1", "localhost"), deadline=5.0) == [RemoteAnswer(True)]


@pytest.mark.parametrize(("body", "permit"), [(PERMIT, True), (b'{"decision":false}', False)])
def test_a_decision_arrives_with_its_context(colour: str, body: bytes, permit: bool) -> None:
    with ScriptedServer(answer(body[:-1] + b',"context":{"reason":"r"}}')) as server:
        assert ask(colour, server.url) == [RemoteAnswer(permit, {"reason": "r"})]


def test_the_question_arrives_as_it_was_put(colour: str) -> None:
    with ScriptedServer() as server:
        ask(colour, server.url + "/base/")
    (request,) = server.requests
    assert request.head.startswith(b"POST /base/access/v1/evaluation HTTP/1.1\r\n")
    assert request.body == QUERY.body
    assert request.header("host") == f"127.0.0.1:{server.port}"
    assert request.header("x-request-id") == QUERY.request_id
    assert request.header("content-type") == "application/json"
    assert request.header("accept-encoding") == "identity"
    assert request.header("authorization") is None


@pytest.mark.capability("C29")
def test_a_compressed_answer_is_not_expanded(colour: str) -> None:
    bomb = gzip.compress(PERMIT + b" " * 10_000_000)
    with ScriptedServer(answer(bomb, headers=HEADERS + "Content-Encoding: gzip\r\n")) as server:
        assert ask(colour, server.url, deadline=2.0) == [
            RemoteFailure(FailureKind.MALFORMED, "header.content_encoding")
        ]


def test_no_proxy_of_the_environment_is_used(colour: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with ScriptedServer(answer(b'{"decision":false}')) as server, ScriptedServer(answer()) as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        assert ask(colour, server.url) == [RemoteAnswer(False)]
    assert proxy.connections == 0


def test_no_cookie_is_kept(colour: str) -> None:
    with ScriptedServer(answer(headers=HEADERS + "Set-Cookie: a=b\r\n")) as server:
        ask(colour, server.url, QUERY, QUERY, deadline=5.0)
    assert [request.header("cookie") for request in server.requests] == [None, None]


@pytest.mark.capability("C43")
@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_nobody_else_is_shown_question_or_credential(colour: str, code: int, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("t0ken")
    with ScriptedServer() as elsewhere:
        headers = f"{HEADERS}Location: {elsewhere.url}/access/v1/evaluation\r\n"
        with ScriptedServer(answer(status=f"{code} Moved", headers=headers)) as server:
            settings = RemoteSettings(url=server.url, deadline=5.0, credential=TokenFile(token))
            told = ask_once(colour, settings)
            assert server.requests[0].header("authorization") == "Bearer t0ken"
        assert elsewhere.connections == 0
    assert told == RemoteFailure(FailureKind.REDIRECT, f"status.{code}")
