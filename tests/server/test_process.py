"""The decision point as processes of its own: what it binds, reload under load, workers, records, and how it stops."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Self

import httpx
import pytest

from authz_middleware.permission import Permission
from authz_middleware.question import Question
from authz_middleware.remote.decision_point import DecisionPoint
from authz_middleware.remote.failure import FailureKind, RemoteAnswer, RemoteFailure
from authz_middleware.remote.query import RemoteQuery
from authz_middleware.server.metadata import EVALUATION, EVALUATIONS
from authz_middleware.settings.remote.decision_point import RemoteSettings
from tests.support.decision_point import DecisionPointProcess
from tests.support.questions import question
from tests.support.records import read_records
from tests.support.refunds import POLICY, REFUND, until


class Load:
    """Callers that ask all the time, over connections that they keep, until told to stop; every answer is kept."""

    def __init__(self, port: int, callers: int = 4) -> None:
        self.answers: list[tuple[int, Any]] = []
        self.failures: list[BaseException] = []
        self._port = port
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(callers)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop asking, and wait for the last answers."""
        self._stopped.set()
        for thread in self._threads:
            thread.join(20)

    def _ask(self) -> None:
        connection = HTTPConnection("127.0.0.1", self._port, timeout=20)
        body = json.dumps(REFUND)
        try:
            while not self._stopped.is_set():
                connection.request("POST", EVALUATION, body, {"Content-Type": "application/json"})
                answer = connection.getresponse()
                self.answers.append((answer.status, json.loads(answer.read()).get("decision")))
                time.sleep(0.002)
        except BaseException as error:  # the test asks for it
            self.failures.append(error)
        finally:
            connection.close()


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    with DecisionPointProcess(tmp_path, POLICY) as process:
        yield process.url


def put(asked: Question) -> RemoteQuery:
    return RemoteQuery.of(asked, "revision")


@pytest.mark.capability("C12", "C29")
def test_a_question_is_answered_by_another_process_in_both_colours(url: str) -> None:
    point = DecisionPoint(RemoteSettings(url=url, deadline=5.0))
    asked = [question(), question(roles=frozenset()), question(permission=Permission(action="invoice:approve"))]

    async def ask_all() -> list[RemoteAnswer | RemoteFailure]:
        return [await point.ask_async(put(each)) for each in asked]

    expected = [(True, "permitted"), (False, "input.missing"), (False, "rule.none")]

    def told(replies: list[RemoteAnswer | RemoteFailure]) -> list[tuple[bool, Any]]:
        return [(reply.permit, reply.context["reason"]) for reply in replies if isinstance(reply, RemoteAnswer)]

    assert told([point.ask(put(each)) for each in asked]) == expected
    assert told(asyncio.run(ask_all())) == expected
    point.close()


def test_a_request_it_cannot_read_is_a_fault_and_no_deny(url: str) -> None:
    point = DecisionPoint(RemoteSettings(url=url, deadline=5.0))
    told = point.ask(RemoteQuery(("k",), b'{"subject":{}}', "r"))
    point.close()
    assert told == RemoteFailure(FailureKind.STATUS_4XX, "status.400")


@pytest.mark.capability("C29")
def test_a_page_whose_own_name_means_this_machine_is_not_answered(url: str) -> None:
    """DNS rebinding: nobody is authenticated on loopback, and a browser sends the name that it was given."""
    port = url.rpartition(":")[2]
    for host, status in (
        ("evil.test", 421),
        (f"evil.test:{port}", 421),
        (f"localhost:{port}", 200),
        (f"127.0.0.1:{port}", 200),
    ):
        assert httpx.post(f"{url}{EVALUATION}", json=REFUND, headers={"Host": host}).status_code == status


@pytest.mark.capability("C48")
@pytest.mark.promise("P7")
def test_a_new_policy_comes_into_force_without_a_request_being_dropped(tmp_path: Path) -> None:
    settings = "[server]\nport = PORT\n"
    with DecisionPointProcess(tmp_path, POLICY, settings=settings) as process, Load(process.port) as load:
        until(lambda: len(load.answers) > 50)
        for policy, decision in (("cashier", True), ("nobody", False), ("cashier", True)):
            process.policy.write_text(POLICY.replace("cashier", policy))
            until(lambda decision=decision: load.answers[-1][1] is decision)  # type: ignore[misc]  # mypy and lambdas
        process.policy.write_text("policy: [")
        asked = len(load.answers)
        time.sleep(0.5)
        until(lambda: len(load.answers) > asked + 50)
        assert set(load.answers[asked:]) == {(200, True)}
        load.stop()
        output = process.stop()
    assert load.failures == []
    assert {status for status, _ in load.answers} == {200}
    assert "the last good one stays in force" in output


def workers_of(process: DecisionPointProcess) -> list[int]:
    """The processes that hold the listening socket, the supervisor's resource tracker excepted."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


SEVERAL = """
[server]
port = PORT
workers = 2
drain = "5s"
[decision_log]
sink = "file:decisions.jsonl"
mode = "required"
"""


@pytest.mark.capability("C29", "C48")
@pytest.mark.promise("P6")
def test_several_workers_share_the_port_and_the_decision_log(tmp_path: Path) -> None:
    with DecisionPointProcess(tmp_path, POLICY, settings=SEVERAL) as process:
        until(lambda: len(workers_of(process)) == 2)

        def writers() -> set[str]:
            # New connections, so that the kernel hands them to any worker.
            for _ in range(20):
                assert httpx.post(f"{process.url}{EVALUATION}", json=REFUND).status_code == 200
            return {record["authz"]["writer"] for record in read_records(tmp_path / "decisions.jsonl")}

        until(lambda: len(writers()) == 2)
        os.kill(workers_of(process)[0], signal.SIGKILL)
        until(lambda: len(workers_of(process)) == 2)
        until(lambda: len(writers()) == 3)
    records = read_records(tmp_path / "decisions.jsonl")
    assert {record["requested_by"] for record in records} == {"127.0.0.1"}


@pytest.mark.parametrize("workers", [1, 2])
def test_what_is_under_way_is_answered_before_it_stops(tmp_path: Path, workers: int) -> None:
    with DecisionPointProcess(tmp_path, POLICY, settings=f"[server]\nport = PORT\nworkers = {workers}\n") as process:
        body = json.dumps(REFUND).encode()
        head = f"POST {EVALUATION} HTTP/1.1\r\nHost: 127.0.0.1:{process.port}\r\nContent-Type: application/json\r\n"
        with socket.create_connection(("127.0.0.1", process.port)) as connection:
            question = f"{head}Content-Length: {len(body)}\r\n\r\n".encode()
            connection.sendall(question + body)
            assert connection.recv(4096).startswith(b"HTTP/1.1 200 ")  # a worker has taken the connection
            connection.sendall(question + body[:10])
            time.sleep(1.0)  # it has read the head
            process.tell_to_stop()
            time.sleep(0.5)
            connection.sendall(body[10:])
            answer = b""
            while piece := connection.recv(4096):
                answer += piece
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b'{"decision":true' in answer
        assert b"connection: close" in answer
        assert "Traceback" not in process.stop()


@pytest.mark.promise("P6")
def test_every_answer_that_was_given_has_its_record_when_it_is_stopped_under_load(tmp_path: Path) -> None:
    settings = '[server]\nport = PORT\n[decision_log]\nsink = "file:decisions.jsonl"\n'
    with DecisionPointProcess(tmp_path, POLICY, settings=settings) as process, Load(process.port) as load:
        until(lambda: len(load.answers) > 200)
        process.stop()
    records = read_records(tmp_path / "decisions.jsonl")
    assert len(load.answers) <= len(records) <= len(load.answers) + 4


def test_the_command_line_records_where_it_is_told_to(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    with DecisionPointProcess(tmp_path, POLICY, options=("--decision-log", f"file:{log}")) as process:
        httpx.post(f"{process.url}{EVALUATIONS}", json={**REFUND, "evaluations": [{}, {}, {"action": {"name": "x"}}]})
    assert [record["result"] for record in read_records(log)] == [True, True, False]


@pytest.mark.capability("C48")
def test_it_is_not_ready_while_decisions_cannot_be_recorded(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    folder.mkdir()
    settings = f'[server]\nport = PORT\n[decision_log]\nsink = "file:{folder}/log.jsonl"\nmode = "required"\n'
    with DecisionPointProcess(tmp_path, POLICY, settings=settings) as process:
        assert httpx.get(f"{process.url}/readyz").status_code == 200
        (folder / "log.jsonl").unlink()
        folder.rmdir()
        until(lambda: httpx.post(f"{process.url}{EVALUATION}", json=REFUND).status_code == 503)
        assert httpx.get(f"{process.url}/readyz").json() == {"status": "decisions cannot be recorded"}
        assert httpx.get(f"{process.url}/healthz").status_code == 200
        folder.mkdir()
        until(lambda: httpx.get(f"{process.url}/readyz").status_code == 200)
        until(lambda: httpx.post(f"{process.url}{EVALUATION}", json=REFUND).status_code == 200)
