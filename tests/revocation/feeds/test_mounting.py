"""The event receiver behind real servers, mounted in real applications: bodies in any guise, and nothing that waits."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest

from authz_middleware.identity.keys.key_set import InlineKeys
from authz_middleware.revocation.entry import Revocation
from authz_middleware.revocation.feeds.event_receiver import EventReceiver
from authz_middleware.revocation.feeds.mounting import ASGIEvents, WSGIEvents
from authz_middleware.revocation.feeds.transmitter import Transmitter
from authz_middleware.revocation.memory import MemoryStore
from authz_middleware.revocation.sqlite import SqliteStore
from authz_middleware.settings.revocation_feeds import KeySource, TransmitterSettings
from tests.support.security_events import (
    AUDIENCE,
    CONTENT_TYPE,
    TOKEN_ISSUER,
    TRANSMITTER,
    push,
    security_event,
)

pytestmark = [pytest.mark.capability("C16", "C18"), pytest.mark.promise("P9")]

ROOT = Path(__file__).parents[3]
COMMANDS = {
    "uvicorn": ["uvicorn", "--fd", "{fd}", "--log-level", "warning", "tests.revocation.feeds.site:asgi"],
    "gunicorn": ["gunicorn", "--bind", "fd://{fd}", "--workers", "1", "tests.revocation.feeds.site:wsgi"],
}


def receiver(store: MemoryStore | None = None) -> EventReceiver:
    settings = TransmitterSettings(TRANSMITTER.url, (AUDIENCE,), (TOKEN_ISSUER,), KeySource(("RS256",)))
    keys = InlineKeys(TRANSMITTER.jwks(), ("RS256",), name="test")
    return EventReceiver([Transmitter(settings, keys)], store or MemoryStore())


class Site:
    """A server in a process of its own; `url` is where it takes events."""

    def __init__(self, folder: Path, command: list[str]) -> None:
        (folder / "jwks.json").write_text(json.dumps(TRANSMITTER.jwks()))
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.address = listener.getsockname()
            fd = listener.fileno()
            self._process = subprocess.Popen(
                [sys.executable, "-m", *(part.format(fd=fd) for part in command)],
                pass_fds=[fd],
                env={**os.environ, "AUTHZ_TEST_FOLDER": str(folder)},
                cwd=ROOT,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        self.url = f"http://127.0.0.1:{self.address[1]}/events"
        self.store = SqliteStore(folder / "revocations.db")

    def subjects(self) -> list[str | None]:
        self.store.start()
        return [entry.value for entry in self.store.entries()]

    def stop(self) -> None:
        self.store.close()
        self._process.terminate()
        self._process.wait(timeout=20)


@pytest.fixture(scope="module", params=sorted(COMMANDS))
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    running = Site(tmp_path_factory.mktemp("site"), COMMANDS[request.param])
    try:
        yield running
    finally:
        running.stop()


def about(subject: str) -> dict[str, str]:
    return {"format": "iss_sub", "iss": TOKEN_ISSUER, "sub": subject}


def test_a_pushed_event_is_kept_for_every_process_of_the_host(site: Site) -> None:
    assert push(site.url + "/", security_event(subject=about("alice"))) == (202, b"")
    assert "alice" in site.subjects()


def test_a_body_in_pieces_is_read_whole(site: Site) -> None:
    assert push(site.url + "/", security_event(subject=about("chunky")), chunked=True) == (202, b"")
    assert "chunky" in site.subjects()


def test_a_refusal_is_answered_in_json(site: Site) -> None:
    status, body = push(site.url + "/", security_event(iss="https://other.example/"))
    assert (status, json.loads(body)["err"]) == (400, "invalid_issuer")


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_too_long_is_not_taken(site: Site, chunked: bool) -> None:
    try:
        status, _ = push(site.url + "/", b"x" * 300_000, chunked=chunked)
    except ConnectionError:
        return  # hung up on in the middle of it
    assert status == 413


def test_other_methods_are_refused(site: Site) -> None:
    assert push(site.url + "/", b"", method="GET")[0] == 405


@pytest.mark.parametrize("announced", ["10", "100000", "-1", "1e3", "99999999999999999999"])
def test_a_length_that_lies_brings_nobody_through(site: Site, announced: str) -> None:
    body = security_event(subject=about("liar"))
    head = f"POST /events/ HTTP/1.1\r\nHost: x\r\nContent-Type: {CONTENT_TYPE}\r\nContent-Length: {announced}\r\n"
    with socket.create_connection(site.address, timeout=10) as connection:
        connection.sendall(head.encode() + b"Connection: close\r\n\r\n" + body)
        connection.shutdown(socket.SHUT_WR)
        try:
            answer = connection.recv(65536)
        except ConnectionError:
            answer = b""
    assert b" 202 " not in answer.partition(b"\r\n")[0]
    assert "liar" not in site.subjects()


# one server that knows no chunked bodies


@pytest.fixture
def plain() -> Iterator[tuple[str, MemoryStore]]:
    class Quiet(WSGIRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name in the base
            pass

    store = MemoryStore()
    app: Any = WSGIEvents(receiver(store))
    with make_server("127.0.0.1", 0, app, handler_class=Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/", store
        server.shutdown()
        thread.join()


def test_the_standard_library_can_serve_it(plain: tuple[str, MemoryStore]) -> None:
    url, store = plain
    assert push(url, security_event()) == (202, b"")
    assert [entry.value for entry in store.entries()] == ["alice"]


def test_a_server_that_does_not_tell_where_the_body_ends_is_not_read_from(plain: tuple[str, MemoryStore]) -> None:
    url, store = plain
    with suppress(ConnectionError):  # hung up on before the answer was read, as the rest of the body is not wanted
        status, body = push(url, security_event(), chunked=True)
        assert (status, json.loads(body)["err"]) == (411, "invalid_request")
    assert store.entries() == ()


def call(environ: Mapping[str, Any]) -> tuple[str, dict[str, str], bytes]:
    heard: list[Any] = []
    body = b"".join(WSGIEvents(receiver())(environ, lambda status, headers: heard.extend((status, dict(headers)))))
    return heard[0], heard[1], body


class Endless:
    """A body without end, handed over byte by byte; `given` counts them."""

    def __init__(self) -> None:
        self.given = 0

    def read(self, size: int = -1) -> bytes:
        assert size >= 0, "asked for everything"
        self.given += min(size, 1000)
        return b"x" * min(size, 1000)


@pytest.mark.parametrize(
    ("length", "status"),
    [("", 413), ("65536", 400), ("65537", 413), ("99999", 413), ("9" * 30, 413), ("-5", 413), ("+5", 413), ("٣", 413)],
)
def test_a_wsgi_body_is_bounded_while_it_is_read(length: str, status: int) -> None:
    stream = Endless()
    environ = {
        "REQUEST_METHOD": "POST",
        "CONTENT_TYPE": CONTENT_TYPE,
        "CONTENT_LENGTH": length,
        "wsgi.input_terminated": True,
        "wsgi.input": stream,
    }
    answer, headers, body = call(environ)
    assert answer.startswith(str(status))
    assert stream.given <= 65_537
    assert headers["content-length"] == str(len(body))


# an event loop


async def run_asgi(app: ASGIEvents, messages: Iterable[Mapping[str, Any]], **scope: Any) -> list[dict[str, Any]]:
    sent: list[dict[str, Any]] = []
    left = iter(messages)

    async def receive() -> Mapping[str, Any]:
        return next(left)

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    headers = [(b"content-type", CONTENT_TYPE.encode())]
    await app({"type": "http", "method": "POST", "headers": headers, **scope}, receive, send)
    return sent


def body_message(body: bytes, more: bool = False) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


async def test_a_store_that_takes_its_time_does_not_hold_the_event_loop() -> None:
    release = threading.Event()

    class SlowStore(MemoryStore):
        def add(self, entries: Iterable[Revocation]) -> None:
            assert release.wait(5)
            super().add(entries)

    store = SlowStore()
    task = asyncio.create_task(run_asgi(ASGIEvents(receiver(store)), [body_message(security_event())]))
    for _ in range(10):
        await asyncio.sleep(0.005)
    assert not task.done()
    release.set()
    sent = await task
    assert sent[0]["status"] == 202
    assert len(store.entries()) == 1


async def test_an_asgi_body_is_bounded_while_it_is_read() -> None:
    given = 0

    def endless() -> Iterator[dict[str, Any]]:
        nonlocal given
        while True:
            given += 1000
            yield body_message(b"x" * 1000, more=True)

    sent = await run_asgi(ASGIEvents(receiver()), endless())
    assert sent[0]["status"] == 413
    assert given <= 66_000


async def test_a_client_that_leaves_in_the_middle_leaves_nothing_behind() -> None:
    store = MemoryStore()
    messages = [body_message(security_event(), more=True), {"type": "http.disconnect"}]
    assert await run_asgi(ASGIEvents(receiver(store)), messages) == []
    assert store.entries() == ()


async def test_two_authorization_headers_are_seen_as_two() -> None:
    """ASGI keeps them apart; header names may come in any case from a careless server."""
    seen: list[Any] = []

    class Looking(EventReceiver):
        def receive(self, method: str, headers: Any, body: bytes) -> Any:
            seen.extend(headers)
            return super().receive(method, headers, body)

    pairs = [(b"Authorization", b"Bearer a"), (b"authorization", b"Bearer b")]
    await run_asgi(ASGIEvents(Looking([], MemoryStore())), [body_message(b"")], headers=pairs)
    assert seen == [("authorization", "Bearer a"), ("authorization", "Bearer b")]


async def test_a_websocket_is_refused() -> None:
    sent = await run_asgi(ASGIEvents(receiver()), [], type="websocket")
    assert [message["type"] for message in sent] == ["websocket.close"]


async def test_it_lives_as_long_as_a_server_that_serves_nothing_else() -> None:
    messages = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    sent = await run_asgi(ASGIEvents(receiver()), messages, type="lifespan")
    assert [message["type"] for message in sent] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
