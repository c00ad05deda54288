"""The decision point at a Unix socket: a sidecar that no network reaches."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from blockbuster import blockbuster_ctx

from authz_middleware.remote.failure import FailureKind, RemoteAnswer, RemoteFailure
from authz_middleware.settings.remote.decision_point import RemoteSettings
from tests.support.asking import COLOURS, Asker, Reply, ask_once, seconds_of_best
from tests.support.pdp import ScriptedServer, certificate, drip, hang, response

DEADLINE = 0.3
MARGIN = 0.05
PERMITTED = RemoteAnswer(True)
CONNECT = RemoteFailure(FailureKind.CONNECT, "connect")


@pytest.fixture(params=COLOURS)
def colour(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "pdp.sock"


def at(path: Path, url: str = "http://pdp.internal:8181", **more: object) -> RemoteSettings:
    return RemoteSettings(url=url, unix_socket=path, **{"deadline": 5.0, **more})  # type: ignore[arg-type]


def test_the_host_is_spoken_of_and_not_called(colour: str, path: Path) -> None:
    with ScriptedServer() as network, ScriptedServer(unix=path) as local:
        assert ask_once(colour, at(path, f"{network.url}/base")) == PERMITTED
        (request,) = local.requests
        assert network.connections == 0
    assert request.head.startswith(b"POST /base/access/v1/evaluation HTTP/1.1\r\n")
    assert request.header("host") == f"127.0.0.1:{network.port}"


@pytest.mark.promise("P9")
def test_no_event_loop_is_blocked(path: Path) -> None:
    with ScriptedServer(unix=path), Asker("async", at(path)) as asker, blockbuster_ctx(["authz_middleware"]):
        assert [asker.ask(), asker.ask()] == [PERMITTED] * 2


@pytest.mark.capability("C30")
def test_nobody_there_is_an_outage(colour: str, path: Path) -> None:
    """No file, a file that nobody listens at any more, a file that is no socket."""
    assert ask_once(colour, at(path)) == CONNECT
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(path))
    assert ask_once(colour, at(path)) == CONNECT
    path.unlink()
    path.write_text("no socket")
    assert ask_once(colour, at(path)) == CONNECT


@contextmanager
def full_queue(path: Path) -> Iterator[tuple[socket.socket, ExitStack]]:
    """A listener that takes no call, and those who wait: as many as can."""
    with socket.socket(socket.AF_UNIX) as listener, ExitStack() as waiting:
        listener.bind(str(path))
        listener.listen(0)
        for _ in range(64):
            connecting = waiting.enter_context(socket.socket(socket.AF_UNIX))
            connecting.setblocking(False)
            try:
                connecting.connect(str(path))
            except BlockingIOError:
                break
        else:
            raise AssertionError("the queue does not fill on this system")
        yield listener, waiting


@pytest.mark.capability("C34")
def test_nobody_who_takes_the_call_ends_by_the_deadline(colour: str, path: Path) -> None:
    told: list[Reply] = []
    with full_queue(path), Asker(colour, at(path, deadline=DEADLINE)) as asker:
        took = seconds_of_best(3, lambda: told.append(asker.ask()), DEADLINE + MARGIN)
    assert {reply.kind for reply in told if isinstance(reply, RemoteFailure)} == {FailureKind.DEADLINE}
    assert took < DEADLINE + MARGIN


def test_a_place_in_the_queue_is_waited_for(colour: str, path: Path) -> None:
    """The system does not wait for one at a Unix socket, as it does in a network."""

    def serve(listener: socket.socket, waiting: ExitStack) -> None:
        time.sleep(0.2)  # by now the question waits for a place
        waiting.close()
        listener.settimeout(5)
        for _ in range(64):
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(5)
                if connection.recv(65536):
                    connection.sendall(response())
                    return

    with full_queue(path) as (listener, waiting), Asker(colour, at(path)) as asker:
        serving = threading.Thread(target=serve, args=(listener, waiting))
        serving.start()
        told = asker.ask()
        serving.join()
    assert told == PERMITTED


@pytest.mark.capability("C34")
@pytest.mark.parametrize("behave", [hang, drip(response())], ids=["silent", "dripping"])
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
def test_the_deadline_holds(colour: str, path: Path, tmp_path: Path, behave: object, secure: bool) -> None:
    trusted, context = certificate(tmp_path, "pdp.test")
    told: list[Reply] = []
    with ScriptedServer(behave, unix=path, tls=context if secure else None) as server:  # type: ignore[arg-type]
        settings = at(path, server.url, deadline=DEADLINE, ca_file=trusted if secure else None)
        with Asker(colour, settings) as asker:
            took = seconds_of_best(3, lambda: told.append(asker.ask()), DEADLINE + MARGIN)
    assert {reply.kind for reply in told if isinstance(reply, RemoteFailure)} == {FailureKind.DEADLINE}
    assert took < DEADLINE + MARGIN


def test_tls_asks_who_is_there(colour: str, path: Path, tmp_path: Path) -> None:
    """By the host of the URL, as in a network."""
    trusted, context = certificate(tmp_path, "pdp.test")
    with ScriptedServer(unix=path, tls=context) as server:
        assert ask_once(colour, at(path, "https://pdp.test", ca_file=trusted)) == PERMITTED
        told = ask_once(colour, at(path, "https://other.test", ca_file=trusted))
        assert told == RemoteFailure(FailureKind.CONFIG, "tls.certificate")
        told = ask_once(colour, at(path, "https://pdp.test"))
        assert told == RemoteFailure(FailureKind.CONFIG, "tls.certificate")
        assert len(server.requests) == 1


def test_a_point_that_comes_back_is_found_again(colour: str, path: Path) -> None:
    with Asker(colour, at(path)) as asker:
        with ScriptedServer(unix=path):
            assert asker.ask() == PERMITTED
        path.unlink()
        assert asker.ask() == CONNECT
        with ScriptedServer(unix=path):
            assert asker.ask() == PERMITTED
