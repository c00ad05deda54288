"""Processes that ask the decision point: forked ones, greenlets, several event loops, and the end of an interpreter."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent
from typing import Any, Final

import pytest

from authz_middleware import Settings, requires
from authz_middleware.facts import RequestFacts
from authz_middleware.pep import EnforcementPoint
from authz_middleware.permission import Requirement, annotations_of
from tests.support.asking_site import APPROVE
from tests.support.pdp import DENY, Exchange, ScriptedServer, answer, hang, take
from tests.support.tokens import bearer
from tests.support.treasury import records, settings, token

ROOT: Final = Path(__file__).parents[2]
FACTS: Final = RequestFacts(method="POST", route="/approve", endpoint="app:approve")
ASKED: Final = Requirement.of(annotations_of(requires("invoice:approve")(lambda: None)))


def manager(subject: str = "anna") -> str:
    return token(roles=["manager"], sub=subject)


def asking(folder: Path, url: str, deadline: str = "5s") -> dict[str, Any]:
    chosen = settings(folder, remote=url)
    chosen["remote"]["deadline"] = deadline
    return chosen


# ---- gunicorn


@contextmanager
def gunicorn(folder: Path, url: str, *options: str, deadline: str = "5s") -> Iterator[str]:
    """The treasury behind gunicorn, on loopback."""
    told = {"settings": asking(folder, url, deadline), "token": manager()}
    (folder / "settings.json").write_text(json.dumps(told))
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listener, (folder / "log").open("wb") as log:
        command = [sys.executable, "-m", "gunicorn", "--bind", f"fd://{listener.fileno()}", "--timeout", "30", *options]
        process = subprocess.Popen(
            [*command, "--log-level", "warning", "tests.support.asking_site:open_site()"],
            pass_fds=[listener.fileno()],
            env={**os.environ, "TREASURY": str(folder)},
            cwd=ROOT,
            stdout=log,
            stderr=log,
        )
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            process.terminate()
            assert process.wait(20) == 0, (folder / "log").read_text()


def approve(url: str, shown: str) -> int:
    headers = {"Authorization": f"Bearer {shown}"}
    request = urllib.request.Request(f"{url}{APPROVE}", method="POST", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as error:
        with error:
            return int(error.code)


def by_subject(exchange: Exchange) -> bool:
    """Permits the even ones, after a moment in which the others ask as well."""
    subject = json.loads(exchange.body)["subject"]["id"]
    exchange.stopping.wait(0.01)
    return answer()(exchange) if subject == "anna" or int(subject) % 2 == 0 else answer(DENY)(exchange)


@pytest.mark.capability("C28")
@pytest.mark.promise("P4")
def test_workers_forked_after_the_first_question_get_their_own_answers(tmp_path: Path) -> None:
    tokens = [manager(str(number)) for number in range(40)]
    with (
        ScriptedServer(by_subject) as server,
        gunicorn(tmp_path, server.url, "--preload", "--workers", "2", "--threads", "8") as url,
        ThreadPoolExecutor(16) as pool,
    ):
        end = time.monotonic() + 20
        while len(writers(tmp_path)) < 3:  # the parent, and both workers
            assert time.monotonic() < end, "one worker answers everything"
            assert list(pool.map(lambda shown: approve(url, shown), tokens)) == [200, 403] * 20
    first, *others = (exchange.connection for exchange in server.requests)
    assert first not in others


def writers(folder: Path) -> set[str]:
    """The processes that have written records."""
    return {record["authz"]["writer"] for record in records(folder)}


GREENLETS: Final = ("--worker-class", "gevent", "--workers", "1")


@pytest.mark.capability("C34")
def test_greenlets_ask_side_by_side(tmp_path: Path) -> None:
    callers, thinks = 20, 0.5
    tokens = [manager(str(number)) for number in range(callers)]
    with (
        ScriptedServer(answer(), take(thinks, answer())) as server,
        gunicorn(tmp_path, server.url, *GREENLETS) as url,
        ThreadPoolExecutor(callers) as pool,
    ):
        began = time.monotonic()
        assert list(pool.map(lambda shown: approve(url, shown), tokens)) == [200] * callers
        took = time.monotonic() - began
    assert took < callers * thinks / 2  # one after the other it would be twice as long, and more
    assert "Traceback" not in (tmp_path / "log").read_text()


@pytest.mark.capability("C34")
def test_greenlets_that_wait_in_vain_all_end_by_the_deadline(tmp_path: Path) -> None:
    callers = 20
    tokens = [manager(str(number)) for number in range(callers)]
    with (
        ScriptedServer(answer(), hang) as server,
        gunicorn(tmp_path, server.url, *GREENLETS, deadline="1s") as url,
        ThreadPoolExecutor(callers) as pool,
    ):
        began = time.monotonic()
        assert list(pool.map(lambda shown: approve(url, shown), tokens)) == [503] * callers
        took = time.monotonic() - began
    assert took < callers * 1.0 / 2
    assert len(records(tmp_path)) == callers + 1


# ---- event loops


def test_several_event_loops_ask_through_one_enforcement_point(tmp_path: Path) -> None:
    with ScriptedServer(by_subject) as server:
        point = EnforcementPoint(Settings.from_mapping(asking(tmp_path, server.url)))
        point.start()

        async def ask(number: int) -> bool:
            credentials = bearer(token(roles=["manager"], sub=str(number)))
            return (await point.aenforce(FACTS, credentials, ASKED)).decision.permit

        async def ask_many(loop: int) -> list[bool]:
            return list(await asyncio.gather(*(ask(10 * loop + number) for number in range(10))))

        with ThreadPoolExecutor(4) as pool:
            told = list(pool.map(lambda loop: asyncio.run(ask_many(loop)), range(8)))
        point.close()
    assert told == [[True, False] * 5] * 8


# ---- the end of the interpreter

PRELUDE: Final = """
    import asyncio, json, sys, threading, time
    from authz_middleware import Settings, requires
    from authz_middleware.facts import RequestFacts
    from authz_middleware.pep import EnforcementPoint
    from authz_middleware.permission import Requirement, annotations_of
    from tests.support.tokens import bearer

    told = json.loads(sys.argv[1])
    point = EnforcementPoint(Settings.from_mapping(told["settings"]))
    point.start()
    facts = RequestFacts(method="POST", route="/approve", endpoint="app:approve")
    credentials = bearer(told["token"])
    asked = Requirement.of(annotations_of(requires("invoice:approve")(lambda: None)))
"""
ENDS: Final = {
    "sync": "assert point.enforce(facts, credentials, asked).decision.permit",
    "sync, in a thread": """
        thread = threading.Thread(target=point.enforce, args=(facts, credentials, asked))
        thread.start()
        thread.join()
    """,
    "async": "assert asyncio.run(point.aenforce(facts, credentials, asked)).decision.permit",
    "async, on a loop that nobody closes": """
        loop = asyncio.new_event_loop()
        assert loop.run_until_complete(point.aenforce(facts, credentials, asked)).decision.permit
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
    """,
}


def end(script: str, told: dict[str, Any]) -> tuple[int, str, float]:
    """The status of an interpreter that runs this, what it complains of, and how long it takes beside the script."""
    code = dedent(PRELUDE) + dedent(script) + "\nprint(time.monotonic(), flush=True)\n"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, json.dumps(told)],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        check=False,
    )
    return done.returncode, done.stderr, time.monotonic() - float(done.stdout or "nan")


@pytest.mark.parametrize("colour", ENDS)
def test_an_interpreter_with_open_connections_ends_at_once_and_says_nothing(tmp_path: Path, colour: str) -> None:
    with ScriptedServer() as server:
        told = {"settings": asking(tmp_path, server.url), "token": manager()}
        status, complaints, took = end(ENDS[colour], told)
    assert (status, complaints) == (0, "")
    assert took < 3
    assert [record["result"] for record in records(tmp_path)] == [True]


def test_an_interpreter_ends_though_a_thread_still_asks(tmp_path: Path) -> None:
    script = """
        threading.Thread(target=point.enforce, args=(facts, credentials, asked), daemon=True).start()
        time.sleep(0.5)
    """
    with ScriptedServer(hang) as server:
        status, complaints, took = end(script, {"settings": asking(tmp_path, server.url, "30s"), "token": manager()})
        assert len(server.requests) == 1
    assert (status, complaints) == (0, "")
    assert took < 10
