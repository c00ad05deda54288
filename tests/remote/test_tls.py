"""The decision point over TLS: who it must be, and that a wrong certificate is no outage."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from pathlib import Path

import pytest

from authz_middleware.remote.failure import FailureKind, RemoteAnswer, RemoteFailure
from authz_middleware.remote.transport.asyncio_transport import AsyncioTransport
from authz_middleware.remote.transport.http_transport import HttpTransport
from authz_middleware.settings.remote.decision_point import RemoteSettings
from tests.support.asking import COLOURS, Asker, Reply, seconds_of_best
from tests.support.pdp import (
    Greeting,
    ScriptedServer,
    certificate,
    drip,
    reset_at_once,
    response,
    say_first,
    stall,
)


def _drip(data: bytes) -> Greeting:
    def greet(connection: socket.socket, stopping: threading.Event) -> bool:
        connection.recv(1)
        for byte in data:
            connection.sendall(bytes([byte]))
            if stopping.wait(0.03):
                break
        return False

    return greet


@pytest.fixture(params=COLOURS)
def colour(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def ask(colour: str, settings: RemoteSettings, times: int = 1) -> list[Reply]:
    with Asker(colour, settings) as asker:
        return [asker.ask() for _ in range(times)]


def test_a_point_with_a_trusted_certificate_is_asked_over_one_connection(colour: str, tmp_path: Path) -> None:
    trusted, context = certificate(tmp_path)
    with ScriptedServer(tls=context) as server:
        settings = RemoteSettings(url=server.url, deadline=5.0, ca_file=trusted)
        assert ask(colour, settings, 3) == [RemoteAnswer(True)] * 3
        assert len(server.requests) == 3


@pytest.mark.capability("C30")
@pytest.mark.parametrize(
    ("address", "days", "trusted"),
    [("127.0.0.1", 1, False), ("127.0.0.2", 1, True), ("127.0.0.1", -1, True)],
    ids=["unknown authority", "another host", "expired"],
)
def test_a_wrong_certificate_is_a_fault_and_sees_no_question(
    colour: str, tmp_path: Path, address: str, days: int, trusted: bool
) -> None:
    file, context = certificate(tmp_path, address, days)
    with ScriptedServer(tls=context) as server:
        settings = RemoteSettings(url=server.url, deadline=5.0, ca_file=file if trusted else None)
        (told,) = ask(colour, settings)
    assert told == RemoteFailure(FailureKind.CONFIG, "tls.certificate")
    assert isinstance(told, RemoteFailure)
    assert not told.is_outage
    assert not server.requests


def test_plain_http_where_tls_is_expected_is_an_outage(colour: str) -> None:
    with ScriptedServer() as server:
        settings = RemoteSettings(url=server.url.replace("http:", "https:"), deadline=0.5)
        (told,) = ask(colour, settings)
    assert isinstance(told, RemoteFailure)
    assert told.kind in (FailureKind.CONNECT, FailureKind.DEADLINE)


WAIT = 0.4
ALERT = b"\x15\x03\x03\x00\x02\x02"
HANDSHAKES: dict[str, tuple[Greeting, FailureKind]] = {
    "nothing": (stall, FailureKind.DEADLINE),
    "one byte after the other": (_drip(b"\x16\x03\x03\x40\x00\x02" + bytes(100)), FailureKind.DEADLINE),
    "reset": (reset_at_once, FailureKind.CONNECT),
    "closed": (say_first(b""), FailureKind.CONNECT),
    "a permit without TLS": (say_first(response()), FailureKind.CONNECT),
    "garbage": (say_first(b"\x16\x03\x03\x00\x04abcd"), FailureKind.CONNECT),
    "an error of its own": (say_first(ALERT + bytes([80])), FailureKind.CONNECT),
    "no algorithm in common": (say_first(ALERT + bytes([40])), FailureKind.CONFIG),
    "a refused certificate": (say_first(ALERT + bytes([48])), FailureKind.CONFIG),
}


@pytest.mark.capability("C30", "C34")
@pytest.mark.parametrize("handshake", HANDSHAKES)
def test_a_handshake_that_fails_is_told_by_the_deadline(colour: str, handshake: str, tmp_path: Path) -> None:
    greet, kind = HANDSHAKES[handshake]
    trusted, context = certificate(tmp_path)
    told: list[Reply] = []
    with ScriptedServer(tls=context, greet=greet) as server:
        settings = RemoteSettings(url=server.url, deadline=WAIT, ca_file=trusted)
        with Asker(colour, settings) as asker:
            took = seconds_of_best(3, lambda: told.append(asker.ask()), WAIT + 0.05)
    assert {reply.kind for reply in told if isinstance(reply, RemoteFailure)} == {kind}
    assert not any(isinstance(reply, RemoteAnswer) for reply in told)
    assert took < WAIT + 0.05


def test_the_deadline_holds_inside_of_tls(colour: str, tmp_path: Path) -> None:
    trusted, context = certificate(tmp_path)
    with ScriptedServer(drip(response()), tls=context) as server:
        started = time.monotonic()
        (told,) = ask(colour, RemoteSettings(url=server.url, deadline=0.4, ca_file=trusted))
        took = time.monotonic() - started
    assert isinstance(told, RemoteFailure)
    assert told.kind is FailureKind.DEADLINE
    assert took < 0.8


def test_without_a_context_no_https_url_is_asked(colour: str) -> None:
    if colour == "sync":
        told = HttpTransport().post("https://127.0.0.1:1/", {}, b"", 1.0)
    else:
        told = asyncio.run(AsyncioTransport().post("https://127.0.0.1:1/", {}, b"", 1.0))
    assert told == RemoteFailure(FailureKind.CONFIG, "tls.missing")
