"""Who chooses that a fallback applies, and how long what it permits lives."""

from __future__ import annotations

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from authz_middleware.decision import Decision, Reason
from authz_middleware.engine import Attempt, Engine
from authz_middleware.policy.document import parse_policy
from authz_middleware.policy.snapshot import Snapshot
from authz_middleware.policy.store import build_snapshot
from authz_middleware.question import Question
from authz_middleware.remote.decision_point import DecisionPoint
from authz_middleware.remote.failure import FailureKind, RemoteAnswer, RemoteFailure
from authz_middleware.settings import Settings
from tests.support.alice import NOW, asks
from tests.support.pdp import ScriptedPoint
from tests.support.surfaces.all import FRAMEWORKS, open_surface
from tests.support.treasury import settings, token

PERMITTED = """
policy: exports
owner: exports@example.com
rules:
  - {rule: go, permit: ["invoice:export", "report:read"], sensitive: true, when: always}
degrade:
  read-only:
    - {rule: read, permit: "report:read", when: always}
"""
STOPPED = PERMITTED.replace("degrade:", "  - {rule: stop, deny: '*', when: always}\ndegrade:")
OUTAGE = RemoteFailure(FailureKind.CONNECT)


def _snapshot(text: str) -> Snapshot:
    return build_snapshot(parse_policy(text, "exports.yaml"))


def _decide(engine: Engine, asked: Question, policy: Snapshot, reply: RemoteAnswer | RemoteFailure) -> Decision:
    step = engine.begin(asked, policy)
    if not isinstance(step, Attempt):
        return step
    with step:
        step.answer(reply)
    return step.decision


@pytest.mark.promise("P5")
def test_a_cached_permit_does_not_come_back_with_an_older_policy(tmp_path: Path) -> None:
    engine = Engine(Settings.of(settings(tmp_path)))
    first, stopped, again = _snapshot(PERMITTED), _snapshot(STOPPED), _snapshot(PERMITTED)
    assert _decide(engine, asks("invoice:export"), first, RemoteAnswer(True)).permit
    assert _decide(engine, asks("invoice:export", now=NOW + 1), stopped, OUTAGE).reason is Reason.RULE_DENY
    after = _decide(engine, asks("invoice:export", now=NOW + 2), again, OUTAGE)
    assert after.reason is Reason.REMOTE_UNAVAILABLE


@pytest.mark.promise("P5")
def test_an_answer_that_was_asked_for_under_an_older_policy_is_not_remembered(tmp_path: Path) -> None:
    engine = Engine(Settings.of(settings(tmp_path)))
    late = engine.begin(asks("invoice:export"), _snapshot(PERMITTED))
    assert isinstance(late, Attempt)
    for text in (STOPPED, PERMITTED):
        again = _snapshot(text)
        _decide(engine, asks("report:read", now=NOW + 1), again, RemoteAnswer(True))
    with late:
        late.answer(RemoteAnswer(True))
    assert late.decision.permit, "the request itself keeps the policy it came in with"
    after = _decide(engine, asks("invoice:export", now=NOW + 2), again, OUTAGE)
    assert after.reason is Reason.REMOTE_UNAVAILABLE


@pytest.mark.promise("P5")
@pytest.mark.parametrize(("seconds", "reason"), [(299, Reason.DEGRADED), (301, Reason.REMOTE_UNAVAILABLE)])
def test_a_degraded_permit_does_not_outlive_the_token(tmp_path: Path, seconds: int, reason: Reason) -> None:
    engine = Engine(Settings.of(settings(tmp_path)))
    assert _decide(engine, asks("report:read", now=NOW + seconds), _snapshot(PERMITTED), OUTAGE).reason is reason


@pytest.mark.promise("P5")
@pytest.mark.parametrize(
    ("steps", "reason"),
    [
        ([(0, True)], Reason.CACHED),
        ([(0, True), (1, False)], Reason.REMOTE_UNAVAILABLE),
        ([(0, False), (1, True)], Reason.CACHED),
        ([(1, False), (0, True)], Reason.REMOTE_UNAVAILABLE),
        ([(30, True)], Reason.REMOTE_UNAVAILABLE),
    ],
    ids=["permit", "deny after it", "permit after a deny", "deny overtaken", "clock set back"],
)
def test_a_cached_permit_is_the_last_word_of_the_decision_point(
    tmp_path: Path, steps: list[tuple[int, bool]], reason: Reason
) -> None:
    engine, policy = Engine(Settings.of(settings(tmp_path))), _snapshot(PERMITTED)
    for at, permit in steps:
        _decide(engine, asks("invoice:export", now=NOW + at), policy, RemoteAnswer(permit))
    assert _decide(engine, asks("invoice:export", now=NOW + 20), policy, OUTAGE).reason is reason


@pytest.mark.promise("P4", "P5")
def test_a_client_that_uses_up_the_connections_does_not_choose_the_fallback(tmp_path: Path) -> None:
    class Slow(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            time.sleep(0.3)
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", "18")
            self.end_headers()
            self.wfile.write(b'{"decision":false}')

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Slow)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    values = settings(tmp_path, remote=f"http://127.0.0.1:{server.server_port}")
    values["remote"] |= {"max_connections": 1, "deadline": "1s"}
    chosen = Settings.of(values)
    assert chosen.remote is not None
    engine, policy, point = Engine(chosen), _snapshot(PERMITTED), DecisionPoint(chosen.remote)
    decisions: list[Decision] = []

    def ask(number: int) -> None:
        step = engine.begin(asks("report:read", who={"subject": f"alice-{number}"}), policy)
        assert isinstance(step, Attempt)
        with step:
            step.answer(point.ask(step.query))
        decisions.append(step.decision)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    point.close()
    server.shutdown()
    server.server_close()
    assert [d.reason for d in decisions if d.permit] == [], "the decision point denies all of them"


@pytest.mark.promise("P8")
@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("first", ["report", "note"])
def test_a_request_is_degraded_when_one_of_its_permissions_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, framework: str, first: str
) -> None:
    from authz_middleware import requires
    from tests.support import treasury

    def both(handler: Any) -> Any:
        inner, outer = ("note:read", "report:read") if first == "report" else ("report:read", "note:read")
        return requires(outer)(requires(inner)(handler))

    endpoint = treasury.Endpoint("GET", "/both", "both", both)
    for module in ("starlette", "fastapi", "flask", "django"):
        monkeypatch.setattr(f"tests.support.surfaces.{module}_surface.ENDPOINTS", (endpoint,))
    with open_surface(framework, settings(tmp_path)) as surface:
        reply = surface.request("GET", "/both", {"Authorization": f"Bearer {token()}"})
    assert reply.status == 200
    assert reply.headers.get("authz-degraded") == "true"


@pytest.mark.promise("P4")
def test_one_exchange_without_an_answer_is_one_failure_however_many_waited_for_it(tmp_path: Path) -> None:
    values = settings(tmp_path)
    values["remote"] |= {"deadline": "200ms", "breaker": {"failures": 3}}
    chosen = Settings.of(values)
    assert chosen.remote is not None
    wire = ScriptedPoint([RemoteFailure(FailureKind.DEADLINE, "read")])
    engine, policy = Engine(chosen), _snapshot(PERMITTED)
    point = DecisionPoint(chosen.remote, transport=SlowOnce(wire))
    barrier = threading.Barrier(4)

    def ask() -> None:
        step = engine.begin(asks("invoice:export"), policy)
        assert isinstance(step, Attempt)
        barrier.wait()
        with step:
            step.answer(point.ask(step.query))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert engine.breaker is not None
    assert (len(wire.posted), engine.breaker.state.value) == (1, "closed")


class SlowOnce:
    """A transport that holds its caller for longer than the deadline of everybody who waits for the same answer."""

    def __init__(self, wire: ScriptedPoint) -> None:
        self._wire = wire

    def post(self, url: str, headers: Any, body: bytes, deadline: float) -> Any:
        time.sleep(deadline + 0.1)
        return self._wire.post(url, headers, body, deadline)

    def close(self) -> None:
        pass
