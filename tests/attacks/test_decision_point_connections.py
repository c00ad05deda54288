"""What one connection to `authz serve` can hold, send beside its requests, or have decided for nobody."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from uvicorn.server import ServerState

from authz_middleware.server.metadata import EVALUATION, EVALUATIONS
from authz_middleware.server.process import WorkerConfig
from authz_middleware.server.protocol import DecisionPointProtocol
from authz_middleware.server.settings import ServerSettings
from tests.support.decision_point import DecisionPointProcess
from tests.support.records import read_records
from tests.support.refunds import POLICY, REFUND

ARRIVAL_S = 1.0
BODY = json.dumps(REFUND).encode()
SETTINGS = f"""
[server]
port = PORT
arrival = "{ARRIVAL_S:.0f}s"
max_body = 2048
[decision_log]
sink = "file:decisions.jsonl"
"""


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    folder = tmp_path_factory.mktemp("connections")
    with DecisionPointProcess(folder, POLICY, settings=SETTINGS) as process:
        yield process.port


def head(port: int, *headers: str, path: str = EVALUATION) -> bytes:
    lines = [f"POST {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", "Content-Type: application/json", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def asking(port: int, *headers: str) -> bytes:
    return head(port, f"Content-Length: {len(BODY)}", *headers) + BODY


def in_chunks(port: int, *headers: str, trailers: bytes = b"") -> bytes:
    body = b"%x\r\n%s\r\n0\r\n" % (len(BODY), BODY)
    return head(port, "Transfer-Encoding: chunked", *headers) + body + trailers + b"\r\n"


def connect(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), 20)
    connection.settimeout(20)
    return connection


def read_to_end(connection: socket.socket) -> bytes:
    """All that comes until the server ends the connection; TimeoutError when it does not."""
    got = b""
    try:
        while piece := connection.recv(65_536):
            got += piece
    except ConnectionResetError:
        pass
    return got


def test_an_empty_line_after_an_answer_does_not_keep_a_connection_for_good(port: int) -> None:
    with connect(port) as connection:
        connection.sendall(asking(port))
        assert b'"decision":true' in connection.recv(65_536)
        connection.sendall(b"\r\n")
        assert read_to_end(connection) == b""


def test_a_request_after_an_empty_line_is_answered(port: int) -> None:
    with connect(port) as connection:
        for _ in range(3):
            connection.sendall(b"\r\n" + asking(port))
            assert b'"decision":true' in connection.recv(65_536)
            connection.sendall(b"\r\n")
            time.sleep(ARRIVAL_S * 0.2)


async def test_a_caller_that_takes_no_answer_is_left(tmp_path: Path) -> None:
    """All that it asks is here as a whole, so that nothing is waited for but the caller."""
    (tmp_path / "policy.yaml").write_text(POLICY)
    values = {"policy": {"source": "policy.yaml", "allow_unsigned": True}, "server": {"arrival": "500ms"}}
    config = WorkerConfig(ServerSettings.from_mapping(values, tmp_path))
    config.load()
    state = ServerState()
    body = json.dumps({**REFUND, "evaluations": [{}] * 100}).encode()
    asked = head(8181, f"Content-Length: {len(body)}", path=EVALUATIONS) + body
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        listening.bind(("127.0.0.1", 0))
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: DecisionPointProtocol(config, state, {}), sock=listening)
        with connect(listening.getsockname()[1]) as connection:
            connection.setblocking(False)
            await loop.sock_sendall(connection, asked)
            assert await loop.sock_recv(connection, 10)
            end = loop.time() + 30
            with contextlib.suppress(ConnectionError):
                while state.connections and loop.time() < end:
                    await asyncio.wait_for(loop.sock_sendall(connection, asked), 30)
                    await asyncio.sleep(0.002)
            await asyncio.sleep(0.1)
            assert not state.connections
        server.close()
        await server.wait_closed()


@pytest.mark.parametrize("path", [EVALUATION, "/healthz"])
@pytest.mark.parametrize("protocol", ["h2c", "websocket"])
def test_a_connection_that_asks_for_another_protocol_ends_with_its_answer(port: int, path: str, protocol: str) -> None:
    """The parser reads nothing after such a head: what comes would be for a protocol that is not spoken here."""
    asked = head(port, "Connection: Upgrade", f"Upgrade: {protocol}", f"Content-Length: {len(BODY)}", path=path) + BODY
    with connect(port) as connection:
        connection.sendall(asked + asking(port))
        got = read_to_end(connection)
    assert got.count(b"HTTP/1.1 4") == 1
    assert b"connection: close" in got
    if path == EVALUATION:
        assert b"Upgrade" in got.partition(b"\r\n\r\n")[2]


TRAILERS = {
    "request id": (b"X-Request-ID: from-behind\r\n", b"from-behind"),
    "another host": (b"Host: evil.test\r\n", b"host"),
    "coding": (b"Content-Encoding: gzip\r\n", b"Content-Encoding"),
}


@pytest.mark.parametrize("name", TRAILERS)
@pytest.mark.parametrize("pieces", [1, 2], ids=["at once", "in two pieces"])
def test_what_comes_after_a_body_is_no_header(port: int, name: str, pieces: int) -> None:
    trailers, trace = TRAILERS[name]
    asked = in_chunks(port, "Connection: close", trailers=trailers)
    with connect(port) as connection:
        connection.sendall(asked[: -len(trailers) - 2] if pieces == 2 else asked)
        if pieces == 2:
            time.sleep(0.1)
            connection.sendall(asked[-len(trailers) - 2 :])
        got = read_to_end(connection)
    assert got.startswith(b"HTTP/1.1 200 ")
    assert trace not in got


def test_a_media_type_behind_the_body_is_none(port: int) -> None:
    asked = in_chunks(port, "Connection: close", trailers=b"Content-Type: application/json\r\n")
    with connect(port) as connection:
        connection.sendall(asked.replace(b"Content-Type: application/json\r\n", b"", 1))
        assert read_to_end(connection).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("piece", [b"a" * 1000, b"X-a: b\r\n" * 100], ids=["one", "many"])
def test_trailers_without_end_end_their_connection(port: int, piece: bytes) -> None:
    sent, asked = 0, in_chunks(port)
    with connect(port) as connection:
        connection.sendall(asked[:-2] + b"X-long: ")
        try:
            while sent < 5_000_000:
                connection.sendall(piece * 20)
                sent += len(piece) * 20
        except ConnectionError:
            return
    pytest.fail("it took all of it")


@pytest.mark.promise("P6")
def test_nothing_is_decided_after_the_last_answer_of_a_connection(tmp_path: Path) -> None:
    too_long = b'{"a":"' + b"x" * 3000 + b'"}'
    with DecisionPointProcess(tmp_path, POLICY, settings=SETTINGS) as process, connect(process.port) as connection:
        asked = head(process.port, f"Content-Length: {len(too_long)}") + too_long
        after = asking(process.port)
        connection.sendall(after + asked + after.replace(b"evaluation ", b"evaluation?a ") + after * 3)
        got = read_to_end(connection)
        output = process.stop()
    assert [each[:3] for each in got.split(b"HTTP/1.1 ")[1:]] == [b"200", b"413"]
    assert "failed" not in output
    assert len(read_records(tmp_path / "decisions.jsonl")) == 1
