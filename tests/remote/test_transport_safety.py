"""Nothing is left behind: by a question that is given up, by a thread, an event loop, a process that ends or forks."""

from __future__ import annotations

import asyncio
import gc
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from authz_middleware.remote.failure import FailureKind, RemoteFailure
from authz_middleware.remote.transport.asyncio_transport import AsyncioTransport
from authz_middleware.remote.transport.client_tls import ClientTLS
from authz_middleware.remote.transport.http_transport import HttpTransport
from authz_middleware.remote.transport.protocol import RawAnswer
from authz_middleware.settings.remote.tls import TlsSettings
from tests.support.pdp import (
    DENY,
    PERMIT,
    Behaviour,
    Exchange,
    ScriptedServer,
    answer,
    black_hole,
    certificate,
    hang,
    response,
    stall,
)

Answered = RawAnswer | RemoteFailure
LATE = response(PERMIT)


def _then_late(before: bytes) -> Behaviour:
    """Some bytes, and the rest of a permit when nobody waits for it any more."""

    def behave(exchange: Exchange) -> bool:
        exchange.send(before)
        exchange.stopping.wait(0.4)
        exchange.send(LATE[len(before) :])
        return True

    return behave


STAGES: dict[str, Behaviour] = {
    "before the answer": _then_late(b""),
    "in the head": _then_late(LATE[:30]),
    "between head and body": _then_late(LATE[: -len(PERMIT)]),
    "in the body": _then_late(LATE[:-1]),
}


class _GivenUpError(BaseException):
    """As gevent and signal handlers end what runs: in the middle of anything."""


@contextmanager
def given_up_after(seconds: float) -> Iterator[None]:
    def give_up(*_: object) -> None:
        raise _GivenUpError

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


async def cancelled_after(seconds: float, transport: AsyncioTransport, url: str) -> None:
    asking = asyncio.create_task(transport.post(url, {}, b"{}", 20.0))
    await asyncio.sleep(seconds)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking


def bodies(answers: list[Answered]) -> list[bytes | str]:
    return [told.body if isinstance(told, RawAnswer) else told.detail for told in answers]


@pytest.mark.parametrize("kept", [False, True], ids=["new connection", "kept connection"])
@pytest.mark.parametrize("stage", STAGES)
def test_a_blocking_question_that_is_given_up_leaves_nothing_to_the_next(stage: str, kept: bool) -> None:
    before = [answer()] if kept else []
    with ScriptedServer(*before, STAGES[stage], answer(DENY)) as server:
        transport = HttpTransport(max_connections=1)
        for _ in before:
            transport.post(server.url, {}, b"{}", 5.0)
        with given_up_after(0.15), pytest.raises(_GivenUpError):
            transport.post(server.url, {}, b"{}", 20.0)
        assert not any(transport._idle.values())
        time.sleep(0.4)
        assert bodies([transport.post(server.url, {}, b"{}", 5.0)]) == [DENY]
        assert server.connections == 2
        transport.close()


@pytest.mark.parametrize("kept", [False, True], ids=["new connection", "kept connection"])
@pytest.mark.parametrize("stage", STAGES)
def test_a_cancelled_question_leaves_nothing_to_the_next(stage: str, kept: bool) -> None:
    before = [answer()] if kept else []

    async def run(url: str) -> list[Answered]:
        transport = AsyncioTransport(max_connections=1)
        for _ in before:
            await transport.post(url, {}, b"{}", 5.0)
        await cancelled_after(0.15, transport, url)
        await asyncio.sleep(0.4)
        told = [await transport.post(url, {}, b"{}", 5.0)]
        assert asyncio.all_tasks() == {asyncio.current_task()}
        await transport.aclose()
        return told

    with ScriptedServer(*before, STAGES[stage], answer(DENY)) as server:
        assert bodies(asyncio.run(run(server.url))) == [DENY]
        gc.collect()  # what was left open warns here, and a warning is an error
        assert server.connections == 2


def test_a_question_that_is_given_up_while_it_connects_leaves_its_place_to_the_next(tmp_path: Path) -> None:
    """In a black hole, and in a handshake that stalls."""
    trusted, context = certificate(tmp_path)
    with ScriptedServer() as server, black_hole() as port, ScriptedServer(tls=context, greet=stall) as stalling:
        tls = ClientTLS(TlsSettings(trusted))
        places = [f"http://127.0.0.1:{port}", stalling.url]
        transport = HttpTransport(max_connections=1, tls=tls)
        for url in places:
            with given_up_after(0.15), pytest.raises(_GivenUpError):
                transport.post(url, {}, b"{}", 20.0)
        assert bodies([transport.post(server.url, {}, b"{}", 5.0)]) == [PERMIT]
        transport.close()

        async def run() -> list[Answered]:
            transport = AsyncioTransport(max_connections=1, tls=tls)
            for url in places:
                await cancelled_after(0.15, transport, url)
            told = [await transport.post(server.url, {}, b"{}", 5.0)]
            await transport.aclose()
            return told

        assert bodies(asyncio.run(run())) == [PERMIT]
        gc.collect()


def test_a_question_that_is_given_up_while_it_waits_takes_no_place() -> None:
    def once_hang(exchange: Exchange) -> bool:
        exchange.stopping.wait(0.4)
        return answer()(exchange)

    async def run(url: str) -> list[Answered]:
        transport = AsyncioTransport(max_connections=1)
        leading = asyncio.create_task(transport.post(url, {}, b"{}", 5.0))
        await asyncio.sleep(0.05)
        for _ in range(3):
            await cancelled_after(0.02, transport, url)
        told = [await leading, await transport.post(url, {}, b"{}", 5.0)]
        await transport.aclose()
        return told

    with ScriptedServer(once_hang, answer(DENY)) as server:
        assert bodies(asyncio.run(run(server.url))) == [PERMIT, DENY]
        assert len(server.requests) == 2


def test_one_transport_serves_many_threads_and_event_loops_at_the_same_time() -> None:
    def echo(exchange: Exchange) -> bool:
        exchange.send(response(exchange.body))
        return True

    with ScriptedServer(echo) as server, ThreadPoolExecutor(8) as pool:
        blocking, looping = HttpTransport(max_connections=4), AsyncioTransport(max_connections=4)

        def ask(number: int) -> list[Answered]:
            return [blocking.post(server.url, {}, b"%d" % (number * 100 + n), 20.0) for n in range(20)]

        async def gather(number: int) -> list[Answered]:
            posts = (looping.post(server.url, {}, b"%d" % (number * 100 + n), 20.0) for n in range(20))
            return await asyncio.gather(*posts)

        calls: list[Callable[[int], list[Answered]]] = [ask, lambda number: asyncio.run(gather(number))] * 4
        told = list(pool.map(lambda call, number: bodies(call(number)), calls, range(8)))
        blocking.close()
        assert told == [[b"%d" % (number * 100 + n) for n in range(20)] for number in range(8)]
        assert not looping._pools
        gc.collect()


def test_a_closed_transport_keeps_no_connection() -> None:
    """Closing it while a question is out: the answer still comes, over a connection that is not kept."""
    with ScriptedServer(lambda exchange: exchange.stopping.wait(0.2) or answer()(exchange)) as server:
        transport = HttpTransport()
        with ThreadPoolExecutor(1) as pool:
            asking = pool.submit(transport.post, server.url, {}, b"{}", 5.0)
            time.sleep(0.1)
            transport.close()
            assert bodies([asking.result()]) == [PERMIT]
        assert not any(transport._idle.values())


def test_a_transport_closed_on_an_event_loop_keeps_no_connection() -> None:
    async def run(url: str) -> Answered:
        transport = AsyncioTransport()
        asking = asyncio.create_task(transport.post(url, {}, b"{}", 5.0))
        await asyncio.sleep(0.1)
        (pool,) = transport._pools.values()
        await transport.aclose()
        told = await asking
        assert not any(pool._idle.values())
        return told

    with ScriptedServer(lambda exchange: exchange.stopping.wait(0.2) or answer()(exchange)) as server:
        assert bodies([asyncio.run(run(server.url))]) == [PERMIT]
        gc.collect()


@pytest.mark.parametrize("text", ["a\r\nX-Injected: 1", "a\nb", "a\0", "a\x7f", "\u00e9"])
def test_a_header_that_would_begin_another_is_not_sent(text: str) -> None:
    with ScriptedServer() as server:
        transport = HttpTransport()
        for headers in ({"X-A": text}, {text: "a"}):
            told = transport.post(server.url, headers, b"{}", 5.0)
            assert told == RemoteFailure(FailureKind.UNASKABLE, "header")
        assert transport.post(f"{server.url}/{text}", {}, b"{}", 5.0) == RemoteFailure(FailureKind.UNASKABLE, "header")
        assert server.connections == 0


EXITING = """
import asyncio, sys, threading, time
from authz_middleware.remote.decision_point import DecisionPoint
from authz_middleware.remote.query import RemoteQuery
from authz_middleware.settings.remote.decision_point import RemoteSettings

point = DecisionPoint(RemoteSettings(url=sys.argv[1], deadline=30.0))
query = RemoteQuery(("k",), b"{}", "r")
assert point.ask(query).permit is True
assert asyncio.run(point.ask_async(query)).permit is True
if sys.argv[2] == "busy":
    slow = RemoteQuery(("slow",), b"slow", "r")
    threading.Thread(target=point.ask, args=(slow,), daemon=True).start()
    threading.Thread(target=lambda: asyncio.run(point.ask_async(slow)), daemon=True).start()
    time.sleep(0.3)
print("done")
"""


@pytest.mark.parametrize("state", ["idle", "busy"])
def test_a_process_ends_at_once_and_in_silence_whatever_is_out(state: str) -> None:
    """With kept connections, and with questions that nobody will answer in threads that nobody waits for."""
    with ScriptedServer(lambda exchange: (hang if exchange.body == b"slow" else answer())(exchange)) as server:
        started = time.monotonic()
        command = [sys.executable, "-W", "error", "-c", EXITING, server.url, state]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        took = time.monotonic() - started
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")
    assert took < 15.0


FORKING = """
import asyncio, os, sys
from pathlib import Path
from authz_middleware.remote.transport.asyncio_transport import AsyncioTransport
from authz_middleware.remote.transport.client_tls import ClientTLS
from authz_middleware.remote.transport.http_transport import HttpTransport
from authz_middleware.settings.remote.tls import TlsSettings

url, ca_file, unix = sys.argv[1:]
tls = ClientTLS(TlsSettings(Path(ca_file))) if ca_file else None
options = {"tls": tls, "unix_socket": Path(unix) if unix else None}
blocking, looping = HttpTransport(**options), AsyncioTransport(**options)

def ask(body):
    told = blocking.post(url, {}, body, 10.0)
    assert told.body == body, told

async def ask_async(body):
    told = await looping.post(url, {}, body, 10.0)
    assert told.body == body, told

async def main():
    ask(b"parent")
    await ask_async(b"parent")
    pids = []
    for number in range(2):
        pid = os.fork()
        if not pid:
            asyncio.events._set_running_loop(None)
            for n in range(20):
                ask(b"child %d" % number)
                asyncio.run(ask_async(b"child %d" % number))
            os._exit(0)
        pids.append(pid)
    for n in range(20):
        ask(b"parent")
        await ask_async(b"parent")
    for pid in pids:
        assert os.waitpid(pid, 0)[1] == 0
    ask(b"parent")
    await ask_async(b"parent")
    await looping.aclose()

asyncio.run(main())
blocking.close()
"""


@pytest.mark.parametrize("way", ["network", "TLS", "unix socket"])
def test_parent_and_children_that_ask_at_the_same_time_hear_their_own_answers(tmp_path: Path, way: str) -> None:
    """Forked in the middle of everything, with connections of both colours kept alive."""
    ca_file, context = certificate(tmp_path)
    unix = tmp_path / "pdp.sock" if way == "unix socket" else None

    def echo(exchange: Exchange) -> bool:
        exchange.send(response(exchange.body))
        return True

    with ScriptedServer(echo, tls=context if way == "TLS" else None, unix=unix) as server:
        arguments = [server.url, str(ca_file) if way == "TLS" else "", "" if unix is None else str(unix)]
        done = subprocess.run(
            [sys.executable, "-c", FORKING, *arguments], capture_output=True, text=True, timeout=120, check=False
        )
    assert (done.returncode, done.stderr) == (0, "")


def test_no_thread_is_left_behind(tmp_path: Path) -> None:
    trusted, context = certificate(tmp_path)
    with ScriptedServer(tls=context) as server:
        before = set(threading.enumerate())
        transport = HttpTransport(tls=ClientTLS(TlsSettings(trusted)))
        for _ in range(3):
            transport.post(server.url, {}, b"{}", 5.0)
        transport.close()
        left = {thread.name for thread in set(threading.enumerate()) - before if thread.name.startswith("authz")}
    assert not left
