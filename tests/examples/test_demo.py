"""The demo as a person runs it: one process that starts five others, and a table that must be right."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema
import pytest

from authz_middleware.record.schema import json_schema
from example_apps.demo.processes import ROOT, NotStartedError, Server, free_ports
from example_apps.demo.report import Outcome, differences
from example_apps.demo.situations import Situation

APPS = ("starlette", "fastapi", "django", "flask")
COMMAND = [sys.executable, "-m", "example_apps.demo", "--state"]


class Run(NamedTuple):
    state: Path
    status: int
    output: str
    seconds: float

    def records(self, app: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.state / f"{app}.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Run:
    state = tmp_path_factory.mktemp("demo")
    started = time.monotonic()
    done = subprocess.run(
        [*COMMAND, str(state)],
        check=False,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )
    return Run(state, done.returncode, done.stdout, time.monotonic() - started)


@pytest.mark.capability("C2", "C3", "C4", "C5", "C6", "C11", "C12", "C21", "C22", "C30", "C31", "C32", "C47", "C51")
def test_every_situation_ends_as_it_must(demo: Run) -> None:
    assert demo.status == 0, demo.output
    assert "wrong:" not in demo.output


def test_it_takes_less_than_a_minute(demo: Run) -> None:
    assert demo.seconds < 60, demo.output


def test_the_output_in_a_pipe_is_plain(demo: Run) -> None:
    assert "\x1b" not in demo.output


def test_no_line_of_the_table_is_cut_or_wrapped(demo: Run) -> None:
    assert "…" not in demo.output
    assert re.search(
        r"^ an agent where people must act +403 +403 +403 +403 kind\.refused +middleware", demo.output, re.MULTILINE
    )


@pytest.mark.capability("C8", "C41", "C52")
def test_the_four_applications_decide_alike(demo: Run) -> None:
    taken = {app: [_told(record) for record in demo.records(app) if _is_http(record)] for app in APPS}
    assert len(taken["starlette"]) > 30
    for app in APPS:
        assert taken[app] == taken["starlette"], app


@pytest.mark.capability("C41")
def test_every_decision_left_one_record_and_every_record_fits_the_schema(demo: Run) -> None:
    validator = jsonschema.Draft202012Validator(json_schema())
    total = 0
    for app in APPS:
        for number, record in enumerate(demo.records(app), start=1):
            validator.validate(record)
            assert record["authz"]["seq"] == number
            total += 1
    assert f"{total} decisions, {total} records" in demo.output


@pytest.mark.capability("C41")
def test_no_token_is_in_the_output_the_logs_or_the_records(demo: Run) -> None:
    files = (path for path in demo.state.iterdir() if path.name != "jwks.json")
    written = demo.output.encode() + b"".join(path.read_bytes() for path in files)
    assert not re.search(rb"eyJ[A-Za-z0-9_-]{6,}", written)


def test_no_process_is_left_behind(demo: Run) -> None:
    pids = _pids(demo.state)
    assert len(pids) == 6  # the decision point is started twice
    assert not any(_runs(pid) for pid in pids)


def test_every_process_is_stopped_when_the_demo_is_interrupted(tmp_path: Path) -> None:
    process = subprocess.Popen([*COMMAND, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    deadline = time.monotonic() + 30
    while len(_pids(tmp_path)) < 5 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 130, output.decode()
    assert len(_pids(tmp_path)) >= 5
    assert not any(_runs(pid) for pid in _pids(tmp_path))


def test_the_log_of_a_process_that_does_not_start_is_shown(tmp_path: Path) -> None:
    server = Server("broken", ["http.server", "--no-such-option"], free_ports(1)[0], tmp_path)
    server.start()
    try:
        with pytest.raises(NotStartedError, match="--no-such-option"):
            server.wait()
    finally:
        server.stop()


SITUATION = Situation("a title", "nobody", "GET", "/", 200, "permitted")
RIGHT = Outcome(200, False, None, ("permitted",), "rule-1", "local")


def test_an_outcome_as_expected_in_all_applications_is_no_difference() -> None:
    assert differences(SITUATION, {"One": RIGHT, "Other": RIGHT}) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"status": 403},
        {"degraded": True},
        {"reasons": ("rule.none",)},
        {"reasons": ()},
        {"reasons": ("permitted", "permitted")},
        {"body": {"other": "JSON"}},
        {"rule": "rule-2"},
        {"by": "remote"},
    ],
    ids=str,
)
def test_an_application_that_differs_is_named(wrong: dict[str, Any]) -> None:
    (*_, last) = differences(SITUATION, {"One": RIGHT, "Other": RIGHT._replace(**wrong)})
    assert last.startswith("a title: Other")


def _is_http(record: dict[str, Any]) -> bool:
    """Two of the four frameworks have no websockets."""
    return record["input"]["context"]["protocol"] == "http"


def _told(record: dict[str, Any]) -> tuple[Any, ...]:
    """What a decision says, without what differs from one run or framework to the next."""
    told, asked = record["authz"], record["input"]
    fallback = told.get("fallback", {}).get("mode")
    subject, resource = asked.get("subject", {}), asked["resource"]
    shown = (resource["type"], resource["id"]) if resource["type"] != "route" else ()
    return (
        record["path"],
        told["outcome"],
        told["reason"],
        told.get("rule"),
        told["decided_by"],
        fallback,
        subject.get("type"),
        subject.get("id"),
        shown,
        resource.get("properties"),
    )


def _pids(state: Path) -> list[int]:
    listed = state / "pids"
    return [int(line.split()[0]) for line in listed.read_text().splitlines()] if listed.exists() else []


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
