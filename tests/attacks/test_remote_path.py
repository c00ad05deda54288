"""The way to the decision point and back: what can be done to it by whoever stands at one of its ends."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from authz_middleware.remote.decision_point import CLIENT_FAILED, DecisionPoint
from authz_middleware.remote.failure import FailureKind, RemoteFailure
from authz_middleware.remote.query import RemoteQuery
from authz_middleware.remote.transport import asyncio_transport, client_tls, http_transport
from authz_middleware.remote.transport.asyncio_transport import AsyncioTransport, _protocol_over
from authz_middleware.remote.transport.client_tls import ClientTLS
from authz_middleware.remote.transport.http_transport import HttpTransport
from authz_middleware.remote.transport.protocol import RawAnswer
from authz_middleware.remote.transport.response import NOT_HTTP, ResponseReader
from authz_middleware.settings.remote.decision_point import RemoteSettings
from authz_middleware.settings.remote.tls import TlsSettings
from tests.support.asking import COLOURS, Asker, ask_once
from tests.support.pdp import Exchange, Greeting, ScriptedPoint, ScriptedServer, answer, certificate, reply, response

MEGABYTES = b"x" * 9_000_000
"""More than the systems at both ends hold on to while nobody reads."""


@pytest.fixture(params=COLOURS)
def colour(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def posted(colour: str, url: str, body: bytes = b"{}", tls: ClientTLS | None = None) -> RawAnswer | RemoteFailure:
    """One question over a transport of its own."""
    if colour == "sync":
        transport = HttpTransport(tls=tls)
        told = transport.post(url, {}, body, 5.0)
        transport.close()
        return told

    async def run() -> RawAnswer | RemoteFailure:
        on_loop = AsyncioTransport(tls=tls)
        told = await on_loop.post(url, {}, body, 5.0)
        await on_loop.aclose()
        return told

    return asyncio.run(run())


# ---- a connection belongs to one question at a time, and to nobody for ever


class Held:
    """Answers when it is told to, and then waits for the other side to close the connection."""

    def __init__(self) -> None:
        self.asked, self.go, self.answered = threading.Event(), threading.Event(), threading.Event()
        self.closed = threading.Event()

    def __call__(self, exchange: Exchange) -> bool:
        self.asked.set()
        self.go.wait(10)
        exchange.send(response())
        self.answered.set()
        if not exchange.connection.recv(1):
            self.closed.set()
        return False

    def answer(self, seconds: float) -> None:
        """Have it answer, and look at nothing for so long."""
        self.go.set()
        self.answered.wait(10)
        time.sleep(seconds)


@pytest.mark.promise("P9")
@pytest.mark.parametrize("end", ["cancelled", "deadline"])
def test_a_question_that_ends_in_the_moment_of_its_answer_leaves_no_connection_behind(end: str) -> None:
    held = Held()

    async def attack(url: str) -> bool:
        transport = AsyncioTransport()
        asking = asyncio.ensure_future(transport.post(url, {}, b"{}", 0.4 if end == "deadline" else 10.0))
        await asyncio.to_thread(held.asked.wait, 10)
        held.answer(0.5 if end == "deadline" else 0.05)  # it is there now, and the loop has not looked
        if end == "cancelled":
            asyncio.get_running_loop().call_later(0, asking.cancel)
        await asyncio.wait([asking])
        return await asyncio.to_thread(held.closed.wait, 3)

    with ScriptedServer(held) as server:
        assert asyncio.run(attack(server.url))


def test_a_connection_that_was_idle_for_long_is_not_asked(colour: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is between may have forgotten it without a word, and the question would wait for its deadline."""
    for module in (http_transport, asyncio_transport):
        monkeypatch.setattr(module, "IDLE_S", 0.1)
    with ScriptedServer() as server, Asker(colour, RemoteSettings(url=server.url, deadline=5.0)) as asker:
        asker.ask()
        asker.pause(0.2)
        asker.ask()
    assert server.connections == 2


@pytest.mark.promise("P4")
@pytest.mark.parametrize("head", ["204 No Content", "304 Not Modified"])
def test_what_follows_a_status_without_a_body_is_nobodys_answer(colour: str, head: str) -> None:
    stray = response(b'{"decision":true}')

    def say_late(exchange: Exchange) -> bool:
        exchange.send(f"HTTP/1.1 {head}\r\nContent-Length: {len(stray)}\r\n\r\n".encode())
        exchange.stopping.wait(0.1)
        exchange.send(stray)
        return True

    with (
        ScriptedServer(say_late, answer(b'{"decision":false}')) as server,
        Asker(colour, RemoteSettings(url=server.url, deadline=5.0)) as asker,
    ):
        asker.ask()
        asker.ask()
    assert server.connections == 2


@pytest.mark.promise("P4")
@pytest.mark.parametrize("connection", ["", "Connection: keep-alive\r\n"])
def test_chunks_in_the_old_protocol_can_be_read_in_two_ways_and_are_not_read(connection: str) -> None:
    """RFC 9112 section 6.1: whoever speaks HTTP/1.0 does not know them, and reads on to the end."""
    head = f"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n{connection}\r\n"
    told = ResponseReader().feed(head.encode() + b'11\r\n{"decision":true}\r\n0\r\n\r\n')
    assert told == RemoteFailure(FailureKind.MALFORMED, "header.transfer_encoding")


# ---- who makes a question long does not choose the fallback


def _refuse_early(data: bytes) -> Greeting:
    """Answer when the head is there, and close with all the rest unread."""

    def greet(connection: socket.socket, stopping: threading.Event) -> bool:
        connection.recv(500)
        connection.sendall(data)
        stopping.wait(0.1)
        return False

    return greet


@pytest.mark.promise("P4", "P5")
def test_a_refusal_that_comes_before_the_question_is_sent_is_no_outage(colour: str) -> None:
    with ScriptedServer(greet=_refuse_early(response(b"{}", status="413 Content Too Large"))) as server:
        told = posted(colour, server.url, MEGABYTES)
    assert isinstance(told, RawAnswer)
    assert told.status == 413


@pytest.mark.promise("P4")
def test_a_permit_that_comes_before_the_question_is_sent_is_none(colour: str) -> None:
    with ScriptedServer(greet=_refuse_early(response())) as server:
        assert posted(colour, server.url, MEGABYTES) == NOT_HTTP


@pytest.mark.promise("P4", "P5")
def test_a_question_that_is_too_long_is_not_put_and_reaches_no_fallback(colour: str) -> None:
    wire = ScriptedPoint()
    point = DecisionPoint(RemoteSettings(url="https://pdp.test"), transport=wire, async_transport=wire.asynchronous())
    query = RemoteQuery(("key",), MEGABYTES, "request-1")
    told = point.ask(query) if colour == "sync" else asyncio.run(point.ask_async(query))
    assert told == RemoteFailure(FailureKind.UNASKABLE, "body.too_large")
    assert not wire.posted


# ---- what is there, and is no decision point, is not away


@pytest.mark.promise("P4", "P5")
def test_whoever_speaks_first_is_a_fault(colour: str) -> None:
    """A mail server, say: the address is wrong, and nothing is away."""

    def greet(connection: socket.socket, stopping: threading.Event) -> bool:
        connection.sendall(b"220 mail.test ESMTP\r\n")
        stopping.wait(1)
        return False

    with ScriptedServer(greet=greet) as server:
        assert [posted(colour, server.url) for _ in range(5)] == [NOT_HTTP] * 5


@pytest.mark.promise("P4", "P5")
def test_so_it_is_where_it_was_heard_before_the_question() -> None:
    async def run() -> RawAnswer | RemoteFailure:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs:
            theirs.sendall(b"220 mail.test ESMTP\r\n")
            connection = await _protocol_over(ours, "pdp.test", None)
            await asyncio.sleep(0.05)
            return await connection.exchange(b"POST / HTTP/1.1\r\n\r\n")

    assert asyncio.run(run()) == NOT_HTTP


def test_an_answer_that_ends_without_a_goodbye_of_tls_is_the_same_on_every_event_loop(tmp_path: Path) -> None:
    uvloop = pytest.importorskip("uvloop", reason="not on this system")
    ca_file, context = certificate(tmp_path)
    whole = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{"decision":true}'
    told = []
    with ScriptedServer(reply(whole, keep=False), tls=context) as server:
        for factory in (asyncio.new_event_loop, uvloop.new_event_loop):
            transport = AsyncioTransport(tls=ClientTLS(TlsSettings(ca_file=ca_file)))
            with asyncio.Runner(loop_factory=factory) as runner:
                told.append(runner.run(transport.post(server.url, {}, b"{}", 5.0)))
    assert isinstance(told[0], RawAnswer)
    assert told[0] == told[1]


# ---- a process that can start no thread for a moment


def _no_threads_once(monkeypatch: pytest.MonkeyPatch) -> None:
    start, failed = threading.Thread.start, list[str]()

    def fail_first(thread: threading.Thread) -> None:
        if thread.name.startswith("authz-") and not failed:
            failed.append(thread.name)
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", fail_first)


def test_a_name_that_could_not_be_looked_up_for_want_of_threads_is_looked_up_later(
    colour: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ScriptedServer() as server:
        settings = RemoteSettings(url=server.url.replace("127.0.0.1", "localhost"), deadline=2.0)
        _no_threads_once(monkeypatch)
        first, second = ask_once(colour, settings), ask_once(colour, settings)
    assert first == CLIENT_FAILED, "nothing is away: who brings us there must not choose the fallback"
    assert not isinstance(second, RemoteFailure)


def test_certificates_that_could_not_be_looked_at_for_want_of_threads_are_looked_at_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    ca_file, _ = certificate(tmp_path)
    tls = ClientTLS(TlsSettings(ca_file=ca_file), monotonic=lambda: now[0])
    first = tls.context()
    certificate(tmp_path)  # another one, in the same file
    _no_threads_once(monkeypatch)

    def is_replaced() -> bool:
        now[0] += client_tls.CHECK_S + 0.1
        return tls.context() is not first

    assert not is_replaced()
    assert _within(5.0, is_replaced)


def _within(seconds: float, check: Callable[[], bool]) -> bool:
    end = time.monotonic() + seconds
    while not (found := check()) and time.monotonic() < end:
        time.sleep(0.01)
    return found
