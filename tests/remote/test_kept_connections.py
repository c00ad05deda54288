"""Connections that are kept alive: whose answer comes over them, when they are used again, and how many there are."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from authz_middleware.remote.decision_point import DecisionPoint
from authz_middleware.remote.failure import FailureKind, RemoteAnswer, RemoteFailure
from authz_middleware.remote.query import RemoteQuery
from authz_middleware.remote.transport import asyncio_transport, http_transport
from authz_middleware.remote.transport.asyncio_transport import AsyncioTransport
from authz_middleware.remote.transport.http_transport import HttpTransport
from authz_middleware.remote.transport.protocol import RawAnswer
from authz_middleware.settings.remote.decision_point import RemoteSettings
from tests.support.asking import COLOURS, Asker, Reply
from tests.support.faults import CHUNK, CHUNKED, HEADERS, WITHOUT_LENGTH
from tests.support.pdp import (
    DENY,
    PERMIT,
    Behaviour,
    Exchange,
    ScriptedServer,
    answer,
    certificate,
    hang,
    hang_up,
    reply,
    reset,
    response,
    then_half_close,
    then_reset,
)

DEADLINE = 0.3
MARGIN = 0.15
DENIED = RemoteAnswer(False)
PERMITTED = RemoteAnswer(True)


@pytest.fixture(params=COLOURS)
def colour(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["network", "TLS", "unix socket", "TLS at a unix socket"])
def way(request: pytest.FixtureRequest) -> str:
    """How the decision point is reached."""
    return str(request.param)


Talk = Callable[..., tuple[list[Reply], ScriptedServer]]


@pytest.fixture
def talk(colour: str, way: str, tmp_path: Path) -> Talk:
    """Puts some questions, one after the other, to a decision point that behaves like this."""

    def run(
        *behaviours: Behaviour, times: int = 2, pause: float = 0.0, blocking: bool = True, deadline: float = 5.0
    ) -> tuple[list[Reply], ScriptedServer]:
        ca_file, context = certificate(tmp_path, "pdp.test" if "unix" in way else "127.0.0.1")
        unix = tmp_path / "pdp.sock" if "unix" in way else None
        replies = []
        with ScriptedServer(*behaviours, tls=context if "TLS" in way else None, unix=unix) as server:
            settings = RemoteSettings(
                url=server.url, deadline=deadline, unix_socket=unix, ca_file=ca_file if "TLS" in way else None
            )
            with Asker(colour, settings) as asker:
                for number in range(times):
                    if number:
                        # An event loop that is blocked has not noticed what happened to its idle connections.
                        (time.sleep if blocking else asker.pause)(pause)
                    replies.append(asker.ask())
        return replies, server

    return run


def test_a_connection_is_kept_alive(talk: Talk) -> None:
    replies, server = talk(times=3)
    assert replies == [PERMITTED] * 3
    assert server.connections == 1


def _once_then_hang_up(exchange: Exchange) -> bool:
    """Answer as if the connection were kept, then close it a moment later."""
    exchange.send(response())
    exchange.stopping.wait(0.05)
    return False


def test_a_connection_that_was_closed_while_idle_is_replaced(talk: Talk) -> None:
    replies, server = talk(_once_then_hang_up, answer(), pause=0.15)
    assert replies == [PERMITTED] * 2
    assert (server.connections, len(server.requests)) == (2, 2)


@pytest.mark.parametrize("end", [hang_up, reset])
def test_a_kept_connection_that_ends_without_a_byte_is_asked_again_once(talk: Talk, end: Behaviour) -> None:
    """The other side had decided to close it before the question reached it."""
    replies, server = talk(answer(), end, answer())
    assert replies == [PERMITTED] * 2
    assert (server.connections, len(server.requests)) == (2, 3)


@pytest.mark.parametrize("end", [hang_up, reset])
def test_the_second_connection_is_the_last(talk: Talk, end: Behaviour) -> None:
    (_, told), server = talk(answer(), end)
    assert isinstance(told, RemoteFailure)
    assert told.kind is FailureKind.CLOSED
    assert (server.connections, len(server.requests)) == (2, 3)


def test_a_kept_connection_that_is_silent_is_not_asked_again(talk: Talk) -> None:
    (_, told), server = talk(answer(), hang, deadline=1.0)
    assert told == RemoteFailure(FailureKind.DEADLINE, "read")
    assert (server.connections, len(server.requests)) == (1, 2)


@pytest.mark.parametrize("transport", [HttpTransport, AsyncioTransport])
def test_of_two_stale_connections_only_one_is_tried(transport: type[HttpTransport | AsyncioTransport]) -> None:
    """What is asked once more is asked on a new connection: the other one that was kept may be as stale."""

    def answer_slowly(exchange: Exchange) -> bool:
        exchange.stopping.wait(0.2)
        return answer()(exchange)

    with ScriptedServer(answer_slowly, answer_slowly, hang_up, answer(DENY)) as server:
        carry = transport()
        if isinstance(carry, HttpTransport):
            with ThreadPoolExecutor(2) as pool:
                list(pool.map(lambda _: carry.post(server.url, {}, b"{}", 5.0), range(2)))
            told = carry.post(server.url, {}, b"{}", 5.0)
            carry.close()
        else:

            async def run() -> RawAnswer | RemoteFailure:
                await asyncio.gather(*(carry.post(server.url, {}, b"{}", 5.0) for _ in range(2)))
                told = await carry.post(server.url, {}, b"{}", 5.0)
                await carry.aclose()
                return told

            told = asyncio.run(run())
        assert server.connections == 3
    assert isinstance(told, RawAnswer)
    assert told.body == DENY


@pytest.mark.parametrize("end", [hang_up, reset])
def test_a_new_connection_is_not_asked_again(talk: Talk, end: Behaviour) -> None:
    (told,), server = talk(end, answer(), times=1)
    assert isinstance(told, RemoteFailure)
    assert told.kind is FailureKind.CLOSED
    assert (server.connections, len(server.requests)) == (1, 1)


@pytest.mark.parametrize("begun", [b"H", b"HTTP/1.1 200", b"HTTP/1.1 100 Continue\r\n\r\n"])
@pytest.mark.parametrize("end", [lambda data: reply(data, keep=False), then_reset], ids=["closed", "reset"])
def test_an_answer_that_has_begun_is_never_asked_for_again(
    talk: Talk, begun: bytes, end: Callable[[bytes], Behaviour]
) -> None:
    (_, told), server = talk(answer(), end(begun), answer())
    assert isinstance(told, RemoteFailure)
    assert told.kind is FailureKind.CLOSED
    assert len(server.requests) == 2


UNASKED = response(PERMIT)


def _then_unasked(together: bytes, later: bytes) -> Behaviour:
    """Deny, and send more than that: some of it in the same packet, some of it a moment later."""

    def behave(exchange: Exchange) -> bool:
        exchange.send(response(DENY) + together)
        if later:
            exchange.stopping.wait(0.05)
            exchange.send(later)
        return True

    return behave


@pytest.mark.capability("C29")
@pytest.mark.parametrize("blocking", [True, False], ids=["loop blocked", "loop running"])
@pytest.mark.parametrize(
    ("together", "later"),
    [(UNASKED, b""), (UNASKED[:40], UNASKED[40:]), (b"", UNASKED), (b"", UNASKED[:40]), (b"", b"\r\n")],
    ids=["at once", "in two parts", "later", "the beginning, later", "a line, later"],
)
def test_an_answer_nobody_asked_for_is_not_taken_for_the_next(
    talk: Talk, together: bytes, later: bytes, blocking: bool
) -> None:
    replies, server = talk(_then_unasked(together, later), answer(DENY), pause=0.15, blocking=blocking)
    assert replies == [DENIED] * 2
    assert server.connections == 2


@pytest.mark.capability("C29")
def test_an_answer_that_comes_too_late_is_not_taken_for_the_next(talk: Talk) -> None:
    def permit_late(exchange: Exchange) -> bool:
        exchange.stopping.wait(1.1)
        exchange.send(response(PERMIT))
        return True

    (first, second), server = talk(permit_late, answer(DENY), pause=0.2, deadline=1.0)
    assert isinstance(first, RemoteFailure)
    assert first.kind is FailureKind.DEADLINE
    assert second == DENIED
    assert server.connections == 2


def _http_1_0(*fields: str) -> Behaviour:
    return reply(
        response(headers="".join(f"{field}\r\n" for field in (HEADERS.strip(), *fields))).replace(b"/1.1", b"/1.0")
    )


TRAILER = b"0\r\nX-Request-ID: other\r\nContent-Type: text/html\r\n\r\n"
ODDITIES: dict[str, tuple[Behaviour, int]] = {
    "chunks": (reply(CHUNKED + b"1\r\n" + PERMIT[:1] + b"\r\n10\r\n" + PERMIT[1:] + b"\r\n0\r\n\r\n"), 1),
    "chunk extensions": (reply(CHUNKED + b'11;a=b;c="d"\r\n' + PERMIT + b"\r\n0;last\r\n\r\n"), 1),
    "trailers that contradict the head": (reply(CHUNKED + CHUNK + TRAILER), 1),
    "interim answers": (
        reply(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nA: b\r\n\r\n" + response()),
        1,
    ),
    "an interim answer with a permit's headers": (
        reply(b"HTTP/1.1 102 Processing\r\nContent-Length: 17\r\nX-Request-ID: other\r\n\r\n" + response()),
        1,
    ),
    "no reason": (answer(status="200"), 1),
    "capitals": (reply(response().replace(b"Content-", b"CONTENT-")), 1),
    "a character set": (answer(headers='Content-Type: Application/JSON; Charset="UTF-8"\r\n'), 1),
    "encoding: identity": (answer(headers=f"{HEADERS}Content-Encoding: identity\r\n"), 1),
    "keep-alive": (answer(headers=f"{HEADERS}Connection: keep-alive\r\nKeep-Alive: timeout=5\r\n"), 1),
    "said to close, and kept open": (answer(headers=f"{HEADERS}Connection: close\r\n"), 2),
    "said to close among other things": (answer(headers=f"{HEADERS}Connection: x, Close\r\n"), 2),
    "said to keep, and closed": (
        reply(response(headers=f"{HEADERS}Connection: keep-alive\r\n"), keep=False),
        2,
    ),
    "half-closed after the answer": (then_half_close(response()), 2),
    "reset after the answer": (then_reset(response()), 2),
    "HTTP/1.0": (_http_1_0(), 2),
    "HTTP/1.0, kept": (_http_1_0("Connection: keep-alive"), 1),
    "the end is the end of the stream": (reply(WITHOUT_LENGTH + PERMIT, keep=False), 2),
}


@pytest.mark.parametrize("oddity", ODDITIES)
def test_an_answer_may_look_odd(talk: Talk, oddity: str) -> None:
    behave, connections = ODDITIES[oddity]
    replies, server = talk(behave, pause=0.1)
    assert replies == [PERMITTED] * 2
    assert server.connections == connections


def _detail(reply: Reply) -> str:
    return reply.detail if isinstance(reply, RemoteFailure) else "answered"


def test_connections_are_bounded_and_waiting_for_one_is_too() -> None:
    with ScriptedServer(hang) as server:

        async def run() -> list[Reply]:
            point = DecisionPoint(RemoteSettings(url=server.url, deadline=DEADLINE, max_connections=1))
            queries = [RemoteQuery((number,), b"{}", "r") for number in range(5)]
            replies = await asyncio.gather(*(point.ask_async(query) for query in queries))
            await point.aclose()
            return replies

        started = time.monotonic()
        replies = asyncio.run(run())
        took = time.monotonic() - started
    assert sorted(map(_detail, replies)) == ["connections"] * 4 + ["read"]
    assert took < DEADLINE + MARGIN
    assert server.connections == 1


def test_threads_share_a_bounded_number_of_connections() -> None:
    with ScriptedServer(hang) as server, ThreadPoolExecutor(5) as pool:
        point = DecisionPoint(RemoteSettings(url=server.url, deadline=DEADLINE, max_connections=1))
        started = time.monotonic()
        replies = list(pool.map(point.ask, [RemoteQuery((number,), b"{}", "r") for number in range(5)]))
        took = time.monotonic() - started
        point.close()
    assert sorted(map(_detail, replies)) == ["connections"] * 4 + ["read"]
    assert took < DEADLINE + MARGIN


def test_threads_that_share_few_connections_are_all_answered_their_own() -> None:
    """A connection is never used by two at a time."""

    def echo(exchange: Exchange) -> bool:
        number = int(exchange.body)
        exchange.send(response(DENY if number % 2 else PERMIT))
        return True

    with ScriptedServer(echo) as server, ThreadPoolExecutor(16) as pool:
        point = DecisionPoint(RemoteSettings(url=server.url, deadline=20.0, max_connections=3))
        queries = [RemoteQuery((number,), str(number).encode(), f"r{number}") for number in range(200)]
        replies = list(pool.map(point.ask, queries))
        point.close()
    assert replies == [RemoteAnswer(number % 2 == 0) for number in range(200)]
    assert server.connections <= 3


def test_what_an_event_loop_needs_no_more_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asyncio_transport, "IDLE_S", 0.1)

    async def run(url: str) -> list[int]:
        transport = AsyncioTransport()
        await asyncio.gather(*(transport.post(url, {}, b"{}", 5.0) for _ in range(4)))
        await asyncio.sleep(0.15)
        for _ in range(4):
            await transport.post(url, {}, b"{}", 5.0)
        (pool,) = transport._pools.values()
        kept = [len(connections) for connections in pool._idle.values()]
        await transport.aclose()
        return kept

    with ScriptedServer() as server:
        assert asyncio.run(run(server.url)) == [1]


def test_a_connection_whose_request_was_answered_before_it_was_sent_is_not_used_again() -> None:
    """The rest of it would be read as the next."""

    def answer_early(connection: socket.socket, stopping: threading.Event) -> bool:
        connection.recv(100)
        connection.sendall(response(status="413 Content Too Large"))
        return stopping.wait(10) and False

    async def run(url: str) -> list[RawAnswer | RemoteFailure]:
        transport = AsyncioTransport()
        told = [await transport.post(url, {}, b" " * 20_000_000, 5.0) for _ in range(2)]
        await transport.aclose()
        return told

    with ScriptedServer(greet=answer_early) as server:
        assert [type(told) for told in asyncio.run(run(server.url))] == [RawAnswer] * 2
        assert server.connections == 2


def test_what_nobody_needs_any_more_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_transport, "IDLE_S", 0.1)
    with ScriptedServer() as server, ThreadPoolExecutor(4) as pool:
        transport = HttpTransport()
        list(pool.map(lambda _: transport.post(server.url, {}, b"{}", 5.0), range(4)))
        time.sleep(0.15)
        for _ in range(4):
            transport.post(server.url, {}, b"{}", 5.0)
        assert [len(wires) for wires in transport._idle.values()] == [1]
        transport.close()
