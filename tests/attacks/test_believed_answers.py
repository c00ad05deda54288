"""Which answers of a decision point are believed, for how long, and what an error on the way to one leaves behind."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from authz_middleware import Reason, ResourceLoaders, Settings, requires
from authz_middleware.alarm import Alarm
from authz_middleware.authorization import Authorization
from authz_middleware.decision import Source
from authz_middleware.facts import RequestFacts
from authz_middleware.pep import EnforcementPoint
from authz_middleware.permission import Requirement, annotations_of
from authz_middleware.remote.decision_point import CLIENT_FAILED, DecisionPoint
from authz_middleware.remote.failure import FailureKind, RemoteAnswer, RemoteFailure
from authz_middleware.remote.messages.answer import parse_answer
from authz_middleware.remote.query import RemoteQuery
from authz_middleware.remote.transport.protocol import RawAnswer
from authz_middleware.revocation.entry import Scope
from authz_middleware.settings.remote.decision_point import RemoteSettings
from authz_middleware.settings.remote.endpoints import DiscoverySettings, EndpointSettings
from authz_middleware.settings.remote.probe import ProbeSettings
from authz_middleware.worker import Worker
from tests.support.asking import COLOURS, QUERY, Reply
from tests.support.discovered_point import DiscoveredPoint
from tests.support.pdp import DENY, PERMIT, ScriptedPoint, raw
from tests.support.tokens import bearer
from tests.support.treasury import ISSUER, records, settings, token

POLICY = """
policy: payments
owner: payments@example.com
inputs:
  resource.amount: {from: application, max_age: 1h}
rules:
  - {rule: list, permit: "payment:list", when: always}
  - {rule: look, permit: "payment:look", when: {resource.amount: {at_most: 500}}}
  - {rule: run, permit: "payment:run", sensitive: true, when: {resource.amount: {at_most: 500}}}
"""
FACTS = RequestFacts(method="GET", route="/payments", endpoint="app:payments")
AWAY = RemoteFailure(FailureKind.CONNECT, "connect")


@pytest.fixture(params=COLOURS)
def colour(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Payments:
    """An enforcement point over payments, each of which is small, with a clock and a decision point of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now = time.time()
        self.wire = ScriptedPoint()
        self.load: Callable[[str], None] = lambda _: None
        chosen = settings(folder)
        (folder / "treasury.yaml").write_text(POLICY)
        chosen["remote"] |= {"permit_ttl": "5s", "breaker": {"failures": 1, "pause": "10m"}}
        chosen["fallback"]["actions"] = {"payment:run": {"mode": "cached", "max_stale": "60s"}}
        chosen["revocations"] = {"store": "memory", "per_process": True, "on_unavailable": {"default": "deny"}}
        loaders = ResourceLoaders()
        loaders.register("payment")(self._load)
        self.pep = EnforcementPoint(
            Settings.from_mapping(chosen),
            loaders=loaders,
            transport=self.wire,
            async_transport=self.wire.asynchronous(),
            clock=lambda: self.now,
        )
        self.pep.start()

    def _load(self, id_: str) -> Mapping[str, Any]:
        self.load(id_)
        return {"amount": 10}

    def request(self, **claims: Any) -> Authorization:
        listing = Requirement.of(annotations_of(requires("payment:list")(lambda: None)))
        return self.pep.enforce(FACTS, bearer(token(**claims)), listing)

    def last_record(self) -> dict[str, Any]:
        self.pep.recorder.flush()
        return dict(records(self.folder)[-1]["authz"])


@pytest.fixture
def payments(tmp_path: Path) -> Iterator[Payments]:
    made = Payments(tmp_path)
    yield made
    made.pep.close()


# ---- the time that the application takes counts


@pytest.mark.promise("P5")
def test_a_remembered_permit_does_not_outlive_its_bound_by_the_time_a_loader_takes(payments: Payments) -> None:
    permitted = payments.request(jti="one")
    assert permitted.permitted("payment:run", "payment/1")

    def take_ten_seconds(_: str) -> None:
        payments.now += 10

    payments.load = take_ten_seconds
    payments.now += 1
    again = payments.pep.enforce(FACTS, bearer(token(jti="one")), permitted.requirement)
    again.principal = permitted.principal
    assert again.permitted("payment:run", "payment/1")
    assert len(payments.wire.posted) == 2, "the answer was 11 s old, of 5 s"


@pytest.mark.promise("P5")
def test_nor_does_one_that_an_outage_brings_back(payments: Payments) -> None:
    payments.wire.script = [raw(), AWAY]
    permitted = payments.request()
    assert permitted.permitted("payment:run", "payment/1")

    def take_a_minute(_: str) -> None:
        payments.now += 60

    payments.load = take_a_minute
    again = payments.request()
    again.principal = permitted.principal
    assert not again.permitted("payment:run", "payment/1")
    assert payments.last_record()["reason"] == Reason.REMOTE_UNAVAILABLE


@pytest.mark.promise("P5")
def test_whoever_is_revoked_while_the_rest_of_a_list_is_decided_gets_none_of_it(payments: Payments) -> None:
    request = payments.request()
    revocations = payments.pep.revocations
    assert revocations is not None

    def revoke(id_: str) -> None:
        if id_ == "2":
            revocations.revoke(Scope.SUBJECT, issuer=ISSUER.url, value="alice", reason="stolen", owner="security")

    payments.load = revoke
    assert request.permitted_each("payment:look", ["payment/1", "payment/2"]) == [False, False]


# ---- what is given up half-way


@pytest.mark.promise("P6")
def test_a_list_that_is_given_up_while_it_is_loaded_keeps_nobody_from_asking(payments: Payments) -> None:
    """The first of its questions was the one by which the decision point is tried again."""
    payments.wire.script = [AWAY, raw()]
    moment = [time.monotonic()]
    payments.pep.engine._monotonic = lambda: moment[0]
    loading, leave = threading.Event(), threading.Event()

    def wait_for_the_second(id_: str) -> None:
        if id_ == "2":
            loading.set()
            leave.wait(10)

    payments.load = wait_for_the_second

    async def attack() -> bool:
        request = payments.request()
        assert not await request.apermitted("payment:run", "payment/0")
        moment[0] += 3600
        listing = asyncio.ensure_future(request.apermitted_each("payment:run", ["payment/1", "payment/2"]))
        await asyncio.to_thread(loading.wait, 10)
        listing.cancel()
        await asyncio.wait([listing])
        leave.set()
        return await request.apermitted("payment:run", "payment/3")

    assert asyncio.run(attack())
    assert payments.last_record()["decided_by"] == Source.REMOTE


# ---- an error is neither a permit nor a deny


@pytest.mark.promise("P4")
@pytest.mark.parametrize(
    ("decision", "error", "kind"),
    [
        (True, {"status": 500, "message": "x"}, FailureKind.MALFORMED),
        (True, None, FailureKind.MALFORMED),
        (False, {"status": 500}, FailureKind.STATUS_5XX),
        (False, {"status": 404}, FailureKind.STATUS_4XX),
        (False, None, FailureKind.STATUS_4XX),
    ],
)
def test_a_decision_beside_an_error_is_none(decision: bool, error: object, kind: FailureKind) -> None:
    told = parse_answer(raw({"decision": decision, "context": {"error": error}}), "id")
    assert isinstance(told, RemoteFailure)
    assert told.kind is kind


def test_an_error_of_ours_is_told_to_the_log_without_its_text(colour: str, caplog: pytest.LogCaptureFixture) -> None:
    wire = ScriptedPoint([RuntimeError("Bearer s3cret")])
    point = DecisionPoint(RemoteSettings(url="https://pdp.test"), transport=wire, async_transport=wire.asynchronous())
    with caplog.at_level(logging.ERROR, "authz"):
        assert (point.ask(QUERY) if colour == "sync" else asyncio.run(point.ask_async(QUERY))) == CLIENT_FAILED
    assert "RuntimeError at " in caplog.text
    assert "s3cret" not in caplog.text


# ---- whoever has shown nothing is not believed


class DeafElsewhere:
    """A transport, in both colours, to a decision point that weighs what it is told, but only at its first address."""

    def post(self, url: str, headers: Mapping[str, str], body: bytes, deadline: float) -> RawAnswer:
        return raw(DENY if "deny" in json.loads(body) and url.endswith("/one") else PERMIT)

    def close(self) -> None:
        pass


class AsyncDeafElsewhere:
    async def post(self, url: str, headers: Mapping[str, str], body: bytes, deadline: float) -> RawAnswer:
        return DeafElsewhere().post(url, headers, body, deadline)

    async def aclose(self) -> None:
        pass


@pytest.mark.promise("P4")
def test_a_place_that_metadata_names_later_is_probed_before_it_is_believed(colour: str) -> None:
    def ask() -> Reply:
        query = RemoteQuery(("key",), b"{}", "request-1")
        return point.ask(query) if colour == "sync" else asyncio.run(point.ask_async(query))

    with DiscoveredPoint() as server:
        chosen = RemoteSettings(
            url=server.identifier,
            endpoints=EndpointSettings(discovery=DiscoverySettings()),
            probe=ProbeSettings(b'{"permit":1}', b'{"deny":1}', ("context.purpose",)),
        )
        point = DecisionPoint(chosen, transport=DeafElsewhere(), async_transport=AsyncDeafElsewhere())
        point.start()
        assert ask() == RemoteAnswer(True)
        server.metadata["access_evaluation_endpoint"] = f"{server.origin}/ask/two"
        point._endpoints.start()
        assert ask() == RemoteFailure(FailureKind.CONFIG, "probe.deny")
        point.close()


# ---- a process that forks or can start no thread


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_an_alarm_that_rang_while_the_process_forked_rings_in_the_child() -> None:
    alarm = Alarm("something is wrong")
    with alarm._lock:
        child = os.fork()
        if not child:
            alarm.ring()
            os._exit(0)
    end = time.monotonic() + 10
    while not (ended := os.waitpid(child, os.WNOHANG))[0] and time.monotonic() < end:
        time.sleep(0.01)
    if not ended[0]:
        os.kill(child, 9)
        os.waitpid(child, 0)
    assert ended == (child, 0)


def test_a_worker_that_could_not_be_started_for_want_of_threads_is_started_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worked, start, failed = threading.Event(), threading.Thread.start, list[bool]()

    def step() -> float:
        worked.set()
        return 60.0

    def fail_first(thread: threading.Thread) -> None:
        if not failed:
            failed.append(True)
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", fail_first)
    worker = Worker(step, name="authz-test")
    with pytest.raises(RuntimeError):
        worker.start()
    worker.start()
    assert worked.wait(5)
    worker.close()
