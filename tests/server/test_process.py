"""The decision point as a process: what it binds, and a question put to it over a real connection."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from authz_middleware.errors import PolicyError
from authz_middleware.permission import Permission
from authz_middleware.question import Question
from authz_middleware.remote.decision_point import DecisionPoint
from authz_middleware.remote.failure import FailureKind, RemoteAnswer, RemoteFailure
from authz_middleware.remote.query import RemoteQuery
from authz_middleware.server.process import ServeError, base_url_of, is_loopback, serve
from authz_middleware.settings.remote.decision_point import RemoteSettings
from tests.support.pdp import refused_port
from tests.support.questions import question

POLICY = """
policy: billing
owner: payments@example.com
rules:
  - rule: refund
    permit: invoice:refund
    sensitive: true
    when: {subject.roles: {has: cashier}}
"""


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "pdp.internal", "", "127.0.0.1.evil.test"])
def test_an_address_that_others_can_reach_is_refused(host: str, tmp_path: Path) -> None:
    with pytest.raises(ServeError, match="authenticates nobody"):
        serve(tmp_path / "never-read.yaml", host=host)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_these_addresses_are_this_machine_only(host: str) -> None:
    assert is_loopback(host)


def test_it_does_not_start_without_a_policy_that_holds(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text("policy: [")
    for source in (path, tmp_path / "absent.yaml"):
        with pytest.raises(PolicyError):
            serve(source)


def test_a_base_url_puts_an_ipv6_address_in_brackets() -> None:
    assert base_url_of("::1", 8181) == "http://[::1]:8181"
    assert base_url_of("127.0.0.1", 8181) == "http://127.0.0.1:8181"


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY)
    port = refused_port()
    script = "import sys, pathlib; from authz_middleware.server.process import serve; "
    script += "serve(pathlib.Path(sys.argv[1]), port=int(sys.argv[2]))"
    process = subprocess.Popen([sys.executable, "-c", script, str(path), str(port)])
    try:
        for _ in range(500):
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.02)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


def put(asked: Question) -> RemoteQuery:
    return RemoteQuery.of(asked, "revision")


@pytest.mark.capability("C12", "C29")
def test_a_question_is_answered_by_another_process_in_both_colours(url: str) -> None:
    point = DecisionPoint(RemoteSettings(url=url, deadline=5.0))
    asked = [question(), question(roles=frozenset()), question(permission=Permission(action="invoice:approve"))]

    async def ask_all() -> list[RemoteAnswer | RemoteFailure]:
        return [await point.ask_async(put(each)) for each in asked]

    expected = [
        RemoteAnswer(True, {"reason": "permitted"}),
        RemoteAnswer(False, {"reason": "input.missing"}),
        RemoteAnswer(False, {"reason": "rule.none"}),
    ]
    assert [point.ask(put(each)) for each in asked] == expected
    assert asyncio.run(ask_all()) == expected
    point.close()


def test_a_request_it_cannot_read_is_a_fault_and_no_deny(url: str) -> None:
    point = DecisionPoint(RemoteSettings(url=url, deadline=5.0))
    told = point.ask(RemoteQuery(("k",), b'{"subject":{}}', "r"))
    point.close()
    assert told == RemoteFailure(FailureKind.STATUS_4XX, "status.400")
