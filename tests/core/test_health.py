"""Health: what an operator is told, what takes an instance out of the balance, and what must not."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest
from blockbuster import blockbuster_ctx

from authz_middleware import Settings, requires
from authz_middleware.facts import RequestFacts
from authz_middleware.health import DecisionPointHealth, Health, PolicyHealth, RecordHealth, health_of
from authz_middleware.pep import EnforcementPoint
from authz_middleware.permission import Requirement, annotations_of
from authz_middleware.record import writer
from authz_middleware.remote.breaker import BreakerReading, BreakerState
from tests.support.pdp import refused_port
from tests.support.status_lists import DocumentServer, eventually, revocation_list, status_list_token
from tests.support.tokens import Issuer, bearer
from tests.support.treasury import ISSUER, loaders, settings, token

pytestmark = pytest.mark.capability("C48")

FACTS = RequestFacts(method="POST", route="/x", endpoint="app:x")
SIGNER = Issuer("https://soc.example/", kid="soc", alg="EdDSA")

Build = Callable[..., EnforcementPoint]


def asked(action: str) -> Requirement:
    return Requirement.of(annotations_of(requires(action)(lambda: None)))


LIST, APPROVE = asked("invoice:list"), asked("invoice:approve")


@pytest.fixture
def build(tmp_path: Path) -> Iterator[Build]:
    """A started enforcement point of the treasury; `changes` replace tables of its settings."""
    made = []

    def point(clock: Callable[[], float] = time.time, **changes: Any) -> EnforcementPoint:
        chosen = Settings.from_mapping({**settings(tmp_path), **changes}, tmp_path)
        made.append(EnforcementPoint(chosen, loaders=loaders(asynchronous=False), clock=clock))
        made[-1].start()
        return made[-1]

    yield point
    for each in made:
        each.close()


def in_memory(**changes: Any) -> dict[str, Any]:
    return {"store": "memory", "per_process": True, "on_unavailable": {"default": "deny"}, **changes}


def in_file(mode: str | dict[str, str] = "deny", **changes: Any) -> dict[str, Any]:
    return {"store": "file:revoked.db", "on_unavailable": {"default": mode}, **changes}


def signed_list(path: Path) -> list[dict[str, Any]]:
    keys = {"algorithms": ["EdDSA"], "jwks": SIGNER.jwks()}
    return [{"name": "soc", "issuer": SIGNER.url, "path": str(path), "max_age": "60s", **keys}]


def only(health: Health) -> str:
    (problem,) = health.problems
    return problem


def test_all_is_well(build: Build) -> None:
    pep = build(revocations=in_memory())
    snapshot = pep.policy.current
    assert snapshot is not None
    health = health_of(pep)
    assert (health.ready, health.problems) == (True, ())
    assert health.policy is not None
    assert health.policy == PolicyHealth("treasury", snapshot.revision, None, health.policy.age_s)
    closed = BreakerReading(BreakerState.CLOSED, 0)
    assert health.decision_point == DecisionPointHealth("http://127.0.0.1:9", closed)
    assert health.revocations is not None
    assert (health.revocations.lag_s, health.revocations.problem) == (0.0, None)
    assert health.records == RecordHealth(0, 0, 0, failing=False)


def test_what_the_settings_do_not_have_is_no_part_of_it(tmp_path: Path) -> None:
    pep = EnforcementPoint(Settings.from_mapping(settings(tmp_path, remote=None)), loaders=loaders(asynchronous=False))
    health = health_of(pep)
    pep.close()
    assert (health.decision_point, health.revocations) == (None, None)


def test_without_a_policy_it_is_not_ready(tmp_path: Path) -> None:
    pep = EnforcementPoint(Settings.from_mapping(settings(tmp_path)), loaders=loaders(asynchronous=False))
    health = health_of(pep)
    pep.close()
    assert (health.ready, health.policy) == (False, None)
    assert only(health) == "no policy is in force: every request is refused"


def test_the_age_of_the_policy_is_that_of_the_one_in_force(build: Build) -> None:
    pep = build()
    source = pep.settings.policy.source
    time.sleep(0.3)
    first = health_of(pep).policy
    source.write_text(source.read_text().replace("permit: invoice:list", "permit: invoice:browse"))
    assert pep.policy.reload()
    second = health_of(pep).policy
    assert first is not None
    assert second is not None
    assert first.age_s >= 0.3 > second.age_s
    assert first.revision != second.revision


def test_a_policy_file_that_cannot_be_loaded_is_shown_and_does_not_end_readiness(build: Build, tmp_path: Path) -> None:
    pep = build(policy={"source": str(tmp_path / "treasury.yaml"), "allow_unsigned": True, "refresh": "100ms"})
    good = pep.settings.policy.source.read_text()
    pep.settings.policy.source.write_text("rules: 7")
    assert eventually(lambda: bool(health_of(pep).problems))
    health = health_of(pep)
    assert health.ready
    assert only(health).startswith("the policy file is not in force, the last good one is: ")
    pep.settings.policy.source.write_text(good)
    assert eventually(lambda: not health_of(pep).problems)


# ---- the decision point


def test_a_decision_point_that_is_left_alone_is_shown_and_does_not_end_readiness(build: Build) -> None:
    url = f"http://127.0.0.1:{refused_port()}"
    pep = build(remote={"url": url, "deadline": "500ms", "breaker": {"failures": 2, "pause": "60s"}})
    for _ in range(3):
        pep.enforce(FACTS, bearer(token(roles=["manager"])), APPROVE)
    health = health_of(pep)
    assert health.ready
    assert only(health).startswith(f"the decision point {url} has not answered for 0 s")
    assert "it is asked again in" in only(health)
    assert health.decision_point is not None
    breaker = health.decision_point.breaker
    assert (breaker.state, breaker.failures) == (BreakerState.OPEN, 2)
    assert breaker.asks_again_in is not None
    assert 0 < breaker.asks_again_in <= 72


# ---- revocations


def test_revocations_that_cannot_be_read_end_readiness_until_they_can(build: Build, tmp_path: Path) -> None:
    pep = build(revocations=in_file())
    assert health_of(pep).ready
    file = tmp_path / "revoked.db"
    file.rename(tmp_path / "away.db")
    health = health_of(pep)
    assert not health.ready
    assert only(health) == "what is revoked cannot be read (store.missing): requests are refused"
    assert health.revocations is not None
    assert health.revocations.problem == "store.missing"
    (tmp_path / "away.db").rename(file)
    assert eventually(lambda: health_of(pep).ready)


def test_where_last_known_was_chosen_readiness_lasts_as_long_as_that(build: Build, tmp_path: Path) -> None:
    late = [0.0]
    pep = build(lambda: time.time() + late[0], revocations=in_file({"mode": "last_known", "max_age": "60s"}))
    (tmp_path / "revoked.db").rename(tmp_path / "away.db")
    late[0] = 30.0
    health = health_of(pep)
    assert health.ready
    assert only(health) == (
        "what is revoked cannot be read (store.missing): what was known 30 s ago decides, until it is 60 s old"
    )
    late[0] = 61.0
    health = health_of(pep)
    assert not health.ready
    assert health.revocations is not None
    assert health.revocations.lag_s == pytest.approx(61, abs=5)


@pytest.mark.parametrize(("mode", "back"), [({"mode": "last_known", "max_age": "60s"}, 30.0), ("deny", 0.5)])
def test_what_was_known_at_a_time_to_come_is_not_relied_on(
    build: Build, tmp_path: Path, mode: Any, back: float
) -> None:
    late = [0.0]
    now = time.time()
    pep = build(lambda: now + late[0], revocations=in_file(mode))
    (tmp_path / "revoked.db").rename(tmp_path / "away.db")
    late[0] = -back
    assert not health_of(pep).ready


def test_a_list_that_lags_behind_its_limit_ends_readiness(build: Build, tmp_path: Path) -> None:
    path = tmp_path / "list.jws"
    path.write_bytes(revocation_list(SIGNER, 1))
    late = [0.0]
    pep = build(lambda: time.time() + late[0], revocations=in_memory(lists=signed_list(path)))
    health = health_of(pep)
    assert health.ready
    assert health.revocations is not None
    assert [(feed.name, feed.readable) for feed in health.revocations.feeds] == [("soc", True)]
    path.write_bytes(b"no list")
    late[0] = 61.0
    health = health_of(pep)
    assert not health.ready
    assert only(health).endswith("requests are refused")


def status_lists(server: DocumentServer, *uris: str) -> list[dict[str, Any]]:
    host, port = server.place
    return [{"issuer": ISSUER.url, "hosts": [f"{host}:{port}"], "uris": [server.url(uri) for uri in uris]}]


def test_a_status_list_of_the_settings_that_cannot_be_had_ends_readiness(build: Build) -> None:
    with DocumentServer() as server:
        pep = build(revocations=in_memory(status_lists=status_lists(server, "/list")))
        health = health_of(pep)
        assert not health.ready
        assert only(health) == f"the feed {server.url()} cannot be used (status_list.unreachable): requests are refused"
        server.documents["/list"] = status_list_token(ISSUER, server.url())
        assert eventually(lambda: health_of(pep).ready)


def test_a_status_list_that_only_a_token_names_does_not_end_readiness(build: Build) -> None:
    with DocumentServer() as server:
        server.documents["/list"] = status_list_token(ISSUER, server.url())
        pep = build(revocations=in_memory(status_lists=status_lists(server, "/list")))
        named = {"status_list": {"idx": 0, "uri": server.url("/nowhere")}}
        assert pep.enforce(FACTS, bearer(token(status=named)), LIST).refusal is not None
        health = health_of(pep)
        assert health.ready
        assert server.url("/nowhere") in only(health)


def test_a_transmitter_whose_events_cannot_be_verified_does_not_end_readiness(build: Build, tmp_path: Path) -> None:
    transmitter = {
        "issuer": "https://soc.example/",
        "audience": ["https://treasury.example/"],
        "about": [ISSUER.url],
        "algorithms": ["EdDSA"],
        "jwks_file": str(tmp_path / "absent.jwks"),
    }
    health = health_of(build(revocations=in_memory(transmitters=[transmitter])))
    assert health.ready
    assert only(health) == "the feed https://soc.example/ cannot be used (keys.unavailable)"


# ---- records


@pytest.mark.parametrize(
    ("mode", "ready", "said"),
    [("blocking", False, "requests are refused"), ("best_effort", True, "records are dropped")],
)
def test_a_decision_log_without_room_ends_readiness_where_records_matter(
    build: Build, mode: str, ready: bool, said: str
) -> None:
    full = {"mode": mode, "sink": "file:/dev/full", "queue": 3, "max_wait": "10ms"}
    pep = build(decision_log=full)
    for _ in range(5):
        pep.enforce(FACTS, bearer(token()), LIST)
    assert eventually(lambda: health_of(pep).ready is ready and said in health_of(pep).problems[0])
    pep.recorder.close(0.0)


@pytest.mark.parametrize(("mode", "ready"), [("required", False), ("blocking", False), ("best_effort", True)])
def test_a_decision_log_that_takes_nothing_ends_readiness_where_records_matter(
    build: Build, mode: str, ready: bool
) -> None:
    pep = build(decision_log={"mode": mode, "sink": "file:/dev/full", "max_wait": "2s"})
    pep.enforce(FACTS, bearer(token()), LIST)
    assert eventually(lambda: "the decision log takes no records" in " ".join(health_of(pep).problems))
    assert health_of(pep).ready is ready
    pep.recorder.close(0.0)


def test_a_refused_record_is_forgotten_after_a_while_so_that_another_is_tried(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "FORGET_S", 0.2)
    pep = build(decision_log={"mode": "required", "sink": "file:/dev/full", "max_wait": "2s"})
    pep.enforce(FACTS, bearer(token()), LIST)
    assert eventually(lambda: health_of(pep).ready)


def test_a_decision_log_that_hangs_ends_readiness(build: Build, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDWR)
    os.set_blocking(reader, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(reader, b"x" * 4096)  # until the pipe is full, and whoever writes to it waits
    pep = build(decision_log={"mode": "required", "sink": f"file:{pipe}", "max_wait": "50ms"})
    assert pep.enforce(FACTS, bearer(token()), LIST).refusal is not None
    assert eventually(lambda: not health_of(pep).ready)
    os.read(reader, 1 << 20)
    assert eventually(lambda: health_of(pep).ready)
    os.close(reader)


def test_lost_records_are_told(build: Build) -> None:
    pep = build(decision_log={"mode": "best_effort", "sink": "file:/dev/full", "queue": 3})
    for _ in range(9):
        pep.enforce(FACTS, bearer(token()), LIST)
    health = health_of(pep)
    assert health.records is not None
    assert health.records.dropped > 0
    assert f"{health.records.dropped} records of this process were lost" in health.problems
    pep.recorder.close(0.0)


# ---- itself


async def test_it_blocks_no_event_loop(build: Build, tmp_path: Path) -> None:
    path = tmp_path / "list.jws"
    path.write_bytes(revocation_list(SIGNER, 1))
    pep = build(revocations=in_memory(lists=signed_list(path)))
    with blockbuster_ctx(["authz_middleware"]):
        assert health_of(pep).ready


def test_what_cannot_be_told_is_not_ready(build: Build) -> None:
    pep = build()

    def broken() -> float:
        raise RuntimeError("secret words")

    pep.clock = broken
    health = health_of(pep)
    assert not health.ready
    assert only(health) == "its state cannot be told (RuntimeError)"


def test_what_ends_readiness_comes_first(build: Build, tmp_path: Path) -> None:
    log = {"mode": "best_effort", "sink": "file:/dev/full", "queue": 3}
    pep = build(decision_log=log, revocations=in_file())
    for _ in range(9):
        pep.enforce(FACTS, bearer(token()), LIST)
    (tmp_path / "revoked.db").unlink()
    health = health_of(pep)
    pep.recorder.close(0.0)
    assert len(health.problems) > 1
    assert health.problems[0].startswith("what is revoked cannot be read")


def test_it_is_plain_data(build: Build) -> None:
    health = health_of(build(revocations=in_memory()))
    assert msgspec.json.decode(msgspec.json.encode(health), type=Health) == health


def test_it_may_be_asked_while_decisions_are_made(build: Build) -> None:
    pep = build(revocations=in_file())
    credentials = bearer(token())
    with ThreadPoolExecutor(4) as pool:
        decided = [pool.submit(pep.enforce, FACTS, credentials, LIST) for _ in range(200)]
        seen = [health_of(pep).ready for _ in range(200)]
    assert all(seen)
    assert all(each.result().decision.permit for each in decided)
