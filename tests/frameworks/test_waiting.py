"""Requests that wait for a decision point that does not answer: each gets the chosen outcome, and nothing is left."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from authz_middleware import Reason, Settings, requires
from authz_middleware.authorization import Authorization
from authz_middleware.facts import RequestFacts
from authz_middleware.identity.connection.credentials import Credentials
from authz_middleware.pep import EnforcementPoint
from authz_middleware.permission import Requirement, annotations_of
from tests.support.tokens import bearer
from tests.support.treasury import records, settings, token

FACTS = RequestFacts(method="POST", route="/approve", endpoint="app:approve")
APPROVE = Requirement.of(annotations_of(requires("invoice:approve")(lambda: None)))
CALLERS = 200


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=CALLERS) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def started(folder: Path, url: str, deadline: str) -> EnforcementPoint:
    chosen = settings(folder, remote=url)
    chosen["remote"]["deadline"] = deadline
    point = EnforcementPoint(Settings.from_mapping(chosen))
    point.start()
    return point


def manager(number: int = 0) -> Credentials:
    return bearer(token(roles=["manager"], sub=f"manager-{number}"))


def outcomes(requests: list[Authorization]) -> set[tuple[Any, ...]]:
    return {(r.decision.permit, r.decision.reason, r.refusal.status if r.refusal else None) for r in requests}


ONE_OUTCOME = {(False, Reason.REMOTE_UNAVAILABLE, 503)}


async def test_cancellation_while_asking_leaves_exactly_one_record_and_goes_on(tmp_path: Path, silent: str) -> None:
    point = started(tmp_path, silent, "5s")
    task = asyncio.create_task(point.aenforce(FACTS, manager(), APPROVE))
    await asyncio.sleep(0.3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await point.aclose()
    assert [record["authz"]["reason"] for record in records(tmp_path)] == ["cancelled"]


@pytest.mark.capability("C34")
async def test_many_waiting_on_an_event_loop_all_end_alike_by_the_deadline(tmp_path: Path, silent: str) -> None:
    point = started(tmp_path, silent, "300ms")
    tasks_before = len(asyncio.all_tasks())
    begin = time.monotonic()
    requests = await asyncio.gather(*(point.aenforce(FACTS, manager(n), APPROVE) for n in range(CALLERS)))
    assert time.monotonic() - begin < 5  # one after the other it would be a minute
    assert outcomes(requests) == ONE_OUTCOME
    await point.aclose()
    assert len(asyncio.all_tasks()) == tasks_before
    assert len(records(tmp_path)) == CALLERS


@pytest.mark.capability("C34")
def test_many_waiting_in_threads_all_end_alike_by_the_deadline(tmp_path: Path, silent: str) -> None:
    point = started(tmp_path, silent, "300ms")
    before = set(threading.enumerate())
    begin = time.monotonic()
    with ThreadPoolExecutor(CALLERS) as pool:
        requests = list(pool.map(lambda n: point.enforce(FACTS, manager(n), APPROVE), range(CALLERS)))
    assert time.monotonic() - begin < 10
    assert outcomes(requests) == ONE_OUTCOME
    assert [thread.name for thread in set(threading.enumerate()) - before if thread.name != "authz-records"] == []
    point.close()
    assert len(records(tmp_path)) == CALLERS
