"""What a connection may cost: requests and heads that never come to an end; and HTTP of all kinds."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from uvicorn.server import ServerState

from authz_middleware.server.metadata import EVALUATION
from authz_middleware.server.process import WorkerConfig
from authz_middleware.server.protocol import MAX_HEAD, DecisionPointProtocol
from authz_middleware.server.settings import ServerSettings
from tests.support.decision_point import DecisionPointProcess
from tests.support.refunds import POLICY, REFUND

ARRIVAL_S = 1.0
BODY = json.dumps(REFUND).encode()


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    settings = f'[server]\nport = PORT\narrival = "{ARRIVAL_S:.0f}s"\n'
    with DecisionPointProcess(tmp_path_factory.mktemp("protocol"), POLICY, settings=settings) as process:
        yield process.port


def asking(port: int, *headers: str, length: bool = True) -> bytes:
    lines = [f"POST {EVALUATION} HTTP/1.1", f"Host: 127.0.0.1:{port}", "Content-Type: application/json", *headers]
    if length:
        lines.append(f"Content-Length: {len(BODY)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def read_until(connection: socket.socket, text: bytes, seconds: float = 20.0) -> bytes:
    connection.settimeout(seconds)
    got = b""
    while text not in got:
        piece = connection.recv(65_536)
        if not piece:
            break
        got += piece
    return got


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), 20)


def ended_after(connection: socket.socket) -> float:
    """Seconds until the server ends a connection."""
    began = time.monotonic()
    connection.settimeout(ARRIVAL_S * 20)
    try:
        while connection.recv(4096):
            pass
    except ConnectionResetError:
        pass
    return time.monotonic() - began


@pytest.mark.parametrize(
    "beginning",
    [b"", b"POST /acc", b"POST /access/v1/evaluation HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n{"],
    ids=["nothing", "half a line", "half a body"],
)
@pytest.mark.parametrize("before", [False, True], ids=["at first", "after another"])
def test_a_request_that_does_not_come_to_an_end_ends_its_connection(port: int, beginning: bytes, before: bool) -> None:
    with connect(port) as connection:
        if before:
            beginning = asking(port) + BODY + (beginning or b"\r\nP")
        connection.sendall(beginning)
        assert ARRIVAL_S * 0.5 < ended_after(connection) < ARRIVAL_S * 15


def test_dripping_does_not_buy_more_time(port: int) -> None:
    with connect(port) as connection:
        connection.settimeout(0.05)
        began = time.monotonic()
        head = asking(port, *(f"X-{n}: 1" for n in range(500)))
        for byte in head:
            try:
                connection.sendall(bytes([byte]))
                assert connection.recv(1) == b""
                break
            except TimeoutError:
                assert time.monotonic() - began < ARRIVAL_S * 15
            except ConnectionError:
                break


@pytest.mark.parametrize("piece", [b"a" * 1000, b"X-a: b\r\n"], ids=["one header", "many headers"])
def test_a_head_without_end_ends_its_connection(port: int, piece: bytes) -> None:
    sent = 0
    with connect(port) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nX-long: ")
        try:
            while sent < 50 * MAX_HEAD:
                connection.sendall(piece)
                sent += len(piece)
        except (ConnectionResetError, BrokenPipeError):
            return
    pytest.fail("it took all of it")


def test_requests_one_after_the_other_and_at_once_are_all_answered(port: int) -> None:
    with connect(port) as connection:
        for _ in range(3):
            connection.sendall(asking(port) + BODY)
            assert b'"decision":true' in read_until(connection, b"}}")
        connection.sendall((asking(port) + BODY) * 3)
        got = b""
        while got.count(b'"decision":true') < 3:
            got += read_until(connection, b"}}")
        time.sleep(0.1)
        connection.sendall(asking(port, "Connection: close") + BODY)
        assert b"connection: close" in read_until(connection, b"}}")


@pytest.fixture(scope="module")
def recording_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Of a decision point whose every answer has to be waited for."""
    settings = '[server]\nport = PORT\n[decision_log]\nsink = "file:decisions.jsonl"\nmode = "required"\n'
    with DecisionPointProcess(tmp_path_factory.mktemp("recording"), POLICY, settings=settings) as process:
        yield process.port


@pytest.mark.parametrize("which", ["port", "recording_port"])
def test_answers_leave_in_the_order_of_their_requests(which: str, request: pytest.FixtureRequest) -> None:
    port = request.getfixturevalue(which)
    health = b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Request-ID: 3\r\n\r\n"
    asked = [asking(port, f"X-Request-ID: {n}") + BODY for n in range(3)]
    with connect(port) as connection:
        connection.sendall(b"".join([*asked, health, asking(port, "X-Request-ID: 4") + BODY[:20]]))
        time.sleep(0.1)
        connection.sendall(BODY[20:] + asking(port, "X-Request-ID: 5", "Connection: close") + BODY)
        got = b""
        while piece := connection.recv(65_536):
            got += piece
    ids = [line.rpartition(b" ")[2] for line in got.split(b"\r\n") if line.startswith(b"x-request-id")]
    assert ids == [b"0", b"1", b"2", b"3", b"4", b"5"]
    assert got.count(b'"decision":true') == 5


@pytest.mark.parametrize("which", ["port", "recording_port"])
def test_a_caller_that_goes_away_harms_no_other(which: str, request: pytest.FixtureRequest) -> None:
    port = request.getfixturevalue(which)
    for _ in range(20):
        with connect(port) as gone:
            gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            gone.sendall((asking(port) + BODY) * 5)
    with connect(port) as connection:
        connection.sendall(asking(port) + BODY)
        assert b'"decision":true' in read_until(connection, b"}}")


def test_a_caller_that_does_not_read_does_not_fill_the_memory(port: int) -> None:
    """It asks as fast as it can and takes no answer: the server stops reading, or ends the connection."""
    sent = 0
    with connect(port) as connection:
        connection.settimeout(3)
        asked = (asking(port) + BODY) * 200
        try:
            while sent < 100_000_000:
                sent += connection.send(asked)
        except (TimeoutError, ConnectionError):
            return
    pytest.fail("it was read without end")


def test_http_1_0_is_answered_and_ended(port: int) -> None:
    with connect(port) as connection:
        connection.sendall(asking(port).replace(b"HTTP/1.1", b"HTTP/1.0") + BODY)
        got = b""
        while piece := connection.recv(65_536):
            got += piece
    assert b'"decision":true' in got


def test_a_body_in_chunks_is_read(port: int) -> None:
    with connect(port) as connection:
        connection.sendall(asking(port, "Transfer-Encoding: chunked", length=False))
        for piece in (BODY[:40], BODY[40:]):
            connection.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
            time.sleep(0.05)
        connection.sendall(b"0\r\n\r\n")
        assert b'"decision":true' in read_until(connection, b"}}")


def test_a_caller_that_waits_for_leave_to_send_gets_it(port: int) -> None:
    with connect(port) as connection:
        connection.sendall(asking(port, "Expect: 100-continue"))
        assert b"100 Continue" in read_until(connection, b"\r\n\r\n")
        connection.sendall(BODY)
        assert b'"decision":true' in read_until(connection, b"}}")


@pytest.mark.parametrize(
    "headers",
    [
        ("Content-Length: 5",),
        ("Transfer-Encoding: chunked",),
        ("Content-Type: text/plain",),
        ("X-Request-ID: a", "X-Request-ID: b"),
        ("Host: evil.test",),
    ],
)
def test_what_two_readers_could_read_in_two_ways_is_not_read(port: int, headers: tuple[str, ...]) -> None:
    with connect(port) as connection:
        connection.sendall(asking(port, *headers) + BODY)
        got = read_until(connection, b"}}")
    assert got.startswith(b"HTTP/1.1 400 ")
    assert b"decision" not in got


async def test_answers_that_nobody_reads_do_not_pile_up(tmp_path: Path) -> None:
    """One long answer after the other, each to a request that comes in one piece."""
    (tmp_path / "policy.yaml").write_text(POLICY)
    policy = {"source": "policy.yaml", "allow_unsigned": True}
    config = WorkerConfig(ServerSettings.from_mapping({"policy": policy}, tmp_path))
    config.load()
    made: list[DecisionPointProtocol] = []

    def make() -> DecisionPointProtocol:
        made.append(DecisionPointProtocol(config, ServerState(), {}))
        return made[-1]

    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        listening.bind(("127.0.0.1", 0))
        server = await asyncio.get_running_loop().create_server(make, sock=listening)
        body = json.dumps({**REFUND, "evaluations": [{}] * 100}).encode()
        head = (
            asking(8181)
            .replace(b"evaluation ", b"evaluations ")
            .replace(b": %d\r\n" % len(BODY), b": %d\r\n" % len(body))
        )
        with connect(listening.getsockname()[1]) as connection:
            connection.setblocking(False)
            for _ in range(500):
                with contextlib.suppress(BlockingIOError):
                    connection.send(head + body)
                await asyncio.sleep(0.001)
            answered = made[0].server_state.total_requests
            assert answered > 5, "it did not even begin"
            assert made[0].transport.get_write_buffer_size() < 300_000
        server.close()
        await server.wait_closed()
        await asyncio.gather(*made[0].tasks, return_exceptions=True)
