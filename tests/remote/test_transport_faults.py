"""Every fault of a decision point on a real socket, through both real transports, each ending by the deadline."""

from __future__ import annotations

import asyncio
import gzip
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

import authz_middleware.remote.transport.aiohttp_transport  # noqa: F401 - so that no test waits for the import of aiohttp
from authz_middleware.remote.decision_point import DecisionPoint
from authz_middleware.remote.failure import FailureKind, RemoteAnswer, RemoteFailure
from authz_middleware.remote.query import RemoteQuery
from authz_middleware.settings.remote.decision_point import RemoteSettings
from tests.support.pdp import (
    PERMIT,
    Behaviour,
    Exchange,
    ScriptedServer,
    answer,
    drip,
    hang,
    hang_up,
    refused_port,
    reply,
    reset,
    response,
    take,
)

DEADLINE = 0.3
MARGIN = 0.15
QUERY = RemoteQuery(("key",), b'{"subject":{}}', "request-1")
Reply = RemoteAnswer | RemoteFailure


@pytest.fixture(params=["sync", "async"])
def colour(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def ask(
    colour: str,
    url: str,
    *queries: RemoteQuery,
    pause: float = 0.0,
    blocking: bool = True,
    deadline: float = DEADLINE,
) -> list[Reply]:
    """The replies to each question in turn, put by one client. Between two questions an event loop is either
    blocked, so that it has not noticed what happened to its idle connections, or running."""
    point = DecisionPoint(RemoteSettings(url=url, deadline=deadline))
    queries = queries or (QUERY,)
    if colour == "sync":
        replies = []
        for query in queries:
            replies.append(point.ask(query))
            time.sleep(pause)
        point.close()
        return replies

    async def run() -> list[Reply]:
        replies = []
        for query in queries:
            replies.append(await point.ask_async(query))
            if blocking:
                time.sleep(pause)  # noqa: ASYNC251 - on purpose, see above
            else:
                await asyncio.sleep(pause)
        await point.aclose()
        point.close()
        return replies

    return asyncio.run(run())


HEADERS = "Content-Type: application/json\r\n"
CHUNKED = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
OUTAGES: dict[str, tuple[Behaviour, FailureKind]] = {
    "black hole": (hang, FailureKind.DEADLINE),
    "answer after the deadline": (take(DEADLINE + 0.1, answer()), FailureKind.DEADLINE),
    "dripped head": (drip(response()), FailureKind.DEADLINE),
    "dripped body": (
        lambda e: (e.send(response(length=len(PERMIT))[: -len(PERMIT)]), drip(PERMIT)(e))[1],
        FailureKind.DEADLINE,
    ),
    "head without a body": (reply(response()[: -len(PERMIT)]), FailureKind.DEADLINE),
    "interim answers without end": (
        lambda e: [e.send(b"HTTP/1.1 100 Continue\r\n\r\n") or e.stopping.wait(0.01) for _ in range(100)] == [],
        FailureKind.DEADLINE,
    ),
    "closed without a byte": (hang_up, FailureKind.CLOSED),
    "reset without a byte": (reset, FailureKind.CLOSED),
    "closed in the head": (reply(b"HTTP/1.1 200 OK\r\nContent-Ty", keep=False), FailureKind.CLOSED),
    "closed in the body": (reply(response(length=len(PERMIT) + 10), keep=False), FailureKind.CLOSED),
    "closed in a chunk": (reply(CHUNKED.encode() + b"20\r\n" + PERMIT, keep=False), FailureKind.CLOSED),
    "500": (answer(status="500 Oops"), FailureKind.STATUS_5XX),
    "502": (answer(status="502 Bad Gateway"), FailureKind.STATUS_5XX),
    "503": (answer(status="503 Service Unavailable"), FailureKind.STATUS_5XX),
    "429": (answer(status="429 Too Many Requests"), FailureKind.THROTTLED),
}
FAULTS: dict[str, tuple[Behaviour, FailureKind]] = {
    "400": (answer(status="400 Bad Request"), FailureKind.STATUS_4XX),
    "401": (answer(status="401 Unauthorized"), FailureKind.STATUS_4XX),
    "403": (answer(status="403 Forbidden"), FailureKind.STATUS_4XX),
    "404": (answer(status="404 Not Found"), FailureKind.STATUS_4XX),
    "201": (answer(status="201 Created"), FailureKind.MALFORMED),
    "206": (answer(status="206 Partial Content"), FailureKind.MALFORMED),
    "redirect": (
        answer(status="307 Moved", headers=HEADERS + "Location: http://127.0.0.1:1/\r\n"),
        FailureKind.REDIRECT,
    ),
    "redirect to a file": (
        answer(status="302 Found", headers=HEADERS + "Location: file:///etc/passwd\r\n"),
        FailureKind.REDIRECT,
    ),
    "HTTP/0.9": (reply(PERMIT, keep=False), FailureKind.MALFORMED),
    "garbage": (reply(b"\x16\x03\x01\x00garbage\r\n\r\n", keep=False), FailureKind.MALFORMED),
    "no content type": (answer(headers=""), FailureKind.MALFORMED),
    "text": (answer(headers="Content-Type: text/html\r\n"), FailureKind.MALFORMED),
    "gzip": (answer(headers=HEADERS + "Content-Encoding: gzip\r\n"), FailureKind.MALFORMED),
    "two lengths": (answer(headers=HEADERS + "Content-Length: 3\r\n"), FailureKind.MALFORMED),
    "two lengths, equal": (answer(headers=HEADERS + f"Content-Length: {len(PERMIT)}\r\n"), FailureKind.MALFORMED),
    "length and chunks": (
        reply(CHUNKED.replace("\r\n\r\n", "\r\nContent-Length: 17\r\n\r\n").encode() + b"0\r\n\r\n", keep=False),
        FailureKind.MALFORMED,
    ),
    "negative length": (
        reply(b"HTTP/1.1 200 OK\r\n" + HEADERS.encode() + b"Content-Length: -1\r\n\r\n" + PERMIT, keep=False),
        FailureKind.MALFORMED,
    ),
    "unknown transfer coding": (
        reply(CHUNKED.replace("chunked", "gzip").encode() + PERMIT, keep=False),
        FailureKind.MALFORMED,
    ),
    "bad chunk size": (reply(CHUNKED.encode() + b"zz\r\n" + PERMIT + b"\r\n0\r\n\r\n"), FailureKind.MALFORMED),
    "bad chunk size, later": (
        lambda e: (e.send(CHUNKED.encode()), e.stopping.wait(0.05), e.send(b"zz\r\n" + PERMIT + b"\r\n"), hang(e))[-1],
        FailureKind.MALFORMED,
    ),
    "oversize, declared only": (reply(response(length=10**9)), FailureKind.MALFORMED),
    "oversize": (answer(b" " * 65536 + PERMIT), FailureKind.MALFORMED),
    "endless": (
        reply(CHUNKED.encode() + (b"4000\r\n" + b" " * 0x4000 + b"\r\n") * 8, keep=False),
        FailureKind.MALFORMED,
    ),
    "header flood": (
        answer(headers=HEADERS + "".join(f"X-{i}: {'x' * 4000}\r\n" for i in range(400))),
        FailureKind.MALFORMED,
    ),
    "another request's answer": (answer(headers=HEADERS + "X-Request-ID: other\r\n"), FailureKind.MISMATCHED),
    "decision as text": (answer(b'{"decision":"true"}'), FailureKind.MALFORMED),
    "decision as a number": (answer(b'{"decision":1}'), FailureKind.MALFORMED),
    "decision in a list": (answer(b'{"decision":[true]}'), FailureKind.MALFORMED),
    "decision twice": (answer(b'{"decision":false,"decision":true}'), FailureKind.MALFORMED),
    "empty body": (answer(b""), FailureKind.MALFORMED),
    "half a body": (answer(PERMIT[:-1]), FailureKind.MALFORMED),
}


@pytest.mark.capability("C29", "C30", "C34")
@pytest.mark.parametrize("fault", OUTAGES)
def test_an_outage_is_told_by_its_kind_and_by_the_deadline(colour: str, fault: str) -> None:
    behave, kind = OUTAGES[fault]
    with ScriptedServer(behave) as server:
        started = time.monotonic()
        (told,) = ask(colour, server.url)
        took = time.monotonic() - started
    assert isinstance(told, RemoteFailure)
    assert (told.kind, told.is_outage) == (kind, True)
    assert took < DEADLINE + MARGIN
    assert len(server.requests) == 1


@pytest.mark.capability("C29", "C30")
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_neither_a_permit_nor_an_outage(colour: str, fault: str) -> None:
    behave, kind = FAULTS[fault]
    with ScriptedServer(behave) as server:
        started = time.monotonic()
        (told,) = ask(colour, server.url, deadline=2.0)
        took = time.monotonic() - started
    assert isinstance(told, RemoteFailure)
    assert (told.kind, told.is_outage) == (kind, False)
    assert took < 2.0
    assert len(server.requests) == 1


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
    point = DecisionPoint(RemoteSettings(url="http://pdp.test", deadline=DEADLINE))
    started = time.monotonic()
    took = 0.0

    async def run() -> Reply:
        nonlocal took
        reply = await point.ask_async(QUERY)
        took = time.monotonic() - started
        released.set()  # the loop waits for its resolver thread before it closes
        return reply

    if colour == "async":
        told = asyncio.run(run())
    else:
        told, _ = (point.ask(RemoteQuery((number,), b"{}", "r")) for number in range(2))
        took = (time.monotonic() - started) / 2
        released.set()
    assert isinstance(told, RemoteFailure)
    assert told.kind is FailureKind.DEADLINE
    assert took < DEADLINE + MARGIN
    assert len(lookups) == 1, "questions to one name share the thread that looks it up"


def test_a_name_is_resolved_to_an_address_that_answers(colour: str) -> None:
    with ScriptedServer() as server:
        assert ask(colour, server.url.replace("127.0.0.1", "localhost"), deadline=5.0) == [RemoteAnswer(True)]


@pytest.mark.parametrize(("body", "permit"), [(PERMIT, True), (b'{"decision":false}', False)])
def test_a_decision_arrives_with_its_context(colour: str, body: bytes, permit: bool) -> None:
    with ScriptedServer(answer(body[:-1] + b',"context":{"reason":"r"}}')) as server:
        assert ask(colour, server.url) == [RemoteAnswer(permit, {"reason": "r"})]


def test_a_chunked_answer_is_an_answer(colour: str) -> None:
    chunks = b"1\r\n" + PERMIT[:1] + b"\r\n" + f"{len(PERMIT) - 1:x}\r\n".encode() + PERMIT[1:] + b"\r\n0\r\n\r\n"
    with ScriptedServer(reply(CHUNKED.encode() + chunks)) as server:
        assert ask(colour, server.url, QUERY, QUERY) == [RemoteAnswer(True), RemoteAnswer(True)]
    assert server.connections == 1


def test_a_connection_is_kept_alive(colour: str) -> None:
    with ScriptedServer() as server:
        assert ask(colour, server.url, QUERY, QUERY, QUERY) == [RemoteAnswer(True)] * 3
    assert server.connections == 1


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


def _once_then_hang_up(exchange: Exchange) -> bool:
    """Answer as if the connection were kept, then close it a moment later."""
    exchange.send(response())
    exchange.stopping.wait(0.05)
    return False


def test_a_connection_that_was_closed_while_idle_is_replaced(colour: str) -> None:
    with ScriptedServer(_once_then_hang_up, answer()) as server:
        assert ask(colour, server.url, QUERY, QUERY, pause=0.15) == [RemoteAnswer(True)] * 2
    assert server.connections == 2


@pytest.mark.parametrize("end", [hang_up, reset])
def test_a_kept_connection_that_ends_without_a_byte_is_asked_again_once(colour: str, end: Behaviour) -> None:
    """The other side had decided to close it before the question reached it."""
    with ScriptedServer(answer(), end, answer()) as server:
        assert ask(colour, server.url, QUERY, QUERY) == [RemoteAnswer(True)] * 2
    assert (server.connections, len(server.requests)) == (2, 3)


def test_the_second_connection_is_the_last(colour: str) -> None:
    with ScriptedServer(answer(), hang_up) as server:
        _, told = ask(colour, server.url, QUERY, QUERY)
    assert isinstance(told, RemoteFailure)
    assert told.kind is FailureKind.CLOSED
    assert (server.connections, len(server.requests)) == (2, 3)


def test_an_answer_that_has_begun_is_never_asked_for_again(colour: str) -> None:
    with ScriptedServer(answer(), reply(b"HTTP/1.1 200", keep=False), answer()) as server:
        _, told = ask(colour, server.url, QUERY, QUERY)
    assert isinstance(told, RemoteFailure)
    assert told.kind is FailureKind.CLOSED
    assert len(server.requests) == 2


UNASKED = response(PERMIT)


def _then_unasked(together: bytes, later: bytes) -> Behaviour:
    """Deny, and send more than that: some of it in the same packet, some of it a moment later."""

    def behave(exchange: Exchange) -> bool:
        exchange.send(response(b'{"decision":false}') + together)
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
    colour: str, together: bytes, later: bytes, blocking: bool
) -> None:
    with ScriptedServer(_then_unasked(together, later), answer(b'{"decision":false}')) as server:
        assert ask(colour, server.url, QUERY, QUERY, pause=0.15, blocking=blocking) == [RemoteAnswer(False)] * 2
    assert server.connections == 2


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
        ask(colour, server.url, QUERY, QUERY)
    assert [request.header("cookie") for request in server.requests] == [None, None]


def test_connections_are_bounded_and_waiting_for_one_is_too() -> None:
    with ScriptedServer(hang) as server:

        async def run() -> list[Reply]:
            point = DecisionPoint(RemoteSettings(url=server.url, deadline=DEADLINE, max_connections=1))
            queries = [RemoteQuery((number,), b"{}", "r") for number in range(5)]
            replies = await asyncio.gather(*(point.ask_async(query) for query in queries))
            await point.aclose()
            return replies

        started = time.monotonic()
        kinds = [reply.kind for reply in asyncio.run(run()) if isinstance(reply, RemoteFailure)]
        took = time.monotonic() - started
    assert sorted(kinds) == sorted([FailureKind.DEADLINE] + [FailureKind.BUSY] * 4)
    assert took < DEADLINE + MARGIN
    assert server.connections == 1


def test_threads_share_a_bounded_number_of_connections() -> None:
    with ScriptedServer(hang) as server, ThreadPoolExecutor(5) as pool:
        point = DecisionPoint(RemoteSettings(url=server.url, deadline=DEADLINE, max_connections=1))
        started = time.monotonic()
        replies = list(pool.map(point.ask, [RemoteQuery((number,), b"{}", "r") for number in range(5)]))
        took = time.monotonic() - started
        point.close()
    kinds = [reply.kind for reply in replies if isinstance(reply, RemoteFailure)]
    assert sorted(kinds) == sorted([FailureKind.DEADLINE] + [FailureKind.BUSY] * 4)
    assert took < DEADLINE + MARGIN
