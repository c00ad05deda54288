"""`authz serve` beside Cerbos: the same policy, the same questions, the same load generator, one core for each server.

Both are processes that are bound to one core (and Cerbos is told so: GOMAXPROCS=1), `wrk` is bound to another; it keeps
sixteen connections busy, each question about another invoice. The servers take turns, and the best round of each
counts. `authz serve` runs as the extra `[server]` installs it; once more with a record of each decision in a file; and
once more on the event loop of the standard library.

It takes wrk (on Debian the package of that name) and two cores; where one of them is missing, `obstacle` says so and
nothing is measured. Where there is no Cerbos, `rival_obstacle` says so. Run it with `python -m benchmarks.server`.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pytest

from tests.support.cerbos import CerbosServer, cerbos_binary
from tests.support.decision_point import free_port

PATH: Final = "/access/v1/evaluation"
ROUNDS: Final = 3
SECONDS: Final = 2
CONNECTIONS: Final = 16
TARGETS: Final = {"server_throughput_vs_cerbos": 1.0}

POLICY: Final = """
policy: invoices
owner: bench@example.com
inputs:
  resource.amount: {from: application}
  resource.tenant: {from: application}
rules:
  - rule: read
    permit: "invoice:read"
    when: {subject.scopes: {has: invoices.read}}
  - rule: refund
    permit: "invoice:refund"
    when:
      subject.roles: {has_any: [cashier, manager]}
      resource.amount: {at_most: 500}
      resource.tenant: {same_as: subject.tenant}
  - rule: no-agents
    deny: "*"
    when: {subject.kind: agent}
"""

CERBOS_POLICY: Final = """
apiVersion: api.cerbos.dev/v1
resourcePolicy:
  resource: invoice
  version: default
  rules:
    - actions: ["invoice:read"]
      effect: EFFECT_ALLOW
      roles: ["*"]
      condition: {match: {expr: '"invoices.read" in P.attr.scopes'}}
    - actions: ["invoice:refund"]
      effect: EFFECT_ALLOW
      roles: [cashier, manager]
      condition:
        match:
          all:
            of:
              - expr: R.attr.amount <= 500
              - expr: R.attr.tenant == P.attr.tenant
    - actions: ["*"]
      effect: EFFECT_DENY
      roles: ["*"]
      condition: {match: {expr: P.attr.kind == "agent"}}
"""

SCRIPT: Final = """
local number = 0
local headers = { ["Content-Type"] = "application/json" }
local before, after = [==[BEFORE]==], [==[AFTER]==]

function request()
  number = (number + 1) % 1000000
  return wrk.format("POST", "PATH", headers, before .. (1000000 + number) .. after)
end

function done(summary, latency)
  local e = summary.errors
  io.write(string.format(
    '\\n{"requests": %d, "us": %d, "p50_us": %d, "p99_us": %d, "failed": %d}\\n', summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99), e.connect + e.read + e.write + e.status + e.timeout))
end
"""


def obstacle() -> str | None:
    """Why nothing can be measured here, if so."""
    if shutil.which("wrk") is None:
        return "wrk is not installed (on Debian: apt-get install wrk)"
    if not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2:
        return "it takes two cores, one for the server and one for the load"
    return None


@cache
def rival_obstacle() -> str | None:
    """Why there is nobody to compare with, if so."""
    try:
        cerbos_binary()
    except pytest.skip.Exception as skipped:
        return f"no Cerbos: {skipped.msg}"
    return None


class Contestant:
    """A server, how it is asked, and what it has done so far."""

    def __init__(self, url: str, pid: int, question: dict[str, Any], folder: Path) -> None:
        self.url = url
        self._pid = pid
        self._script = folder / f"{urlsplit(url).port}.lua"
        before, after = json.dumps(question, separators=(",", ":")).split("0000000")
        script = SCRIPT.replace("BEFORE", before).replace("AFTER", after).replace("PATH", PATH)
        self._script.write_text(script)
        self.per_s = self.best_p50_ms = self.best_p99_ms = self.cpu_ms_per_1000 = 0.0
        assert self.decides(question) is True
        assert self.decides({**question, "resource": {**question["resource"], "properties": OTHER_TENANT}}) is False

    def decides(self, question: dict[str, Any]) -> bool:
        address = urlsplit(self.url)
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=5)
        connection.request("POST", PATH, json.dumps(question), {"Content-Type": "application/json"})
        decision: bool = json.loads(connection.getresponse().read())["decision"]
        connection.close()
        return decision

    def load(self, core: int, seconds: int) -> None:
        """One round, bound to a core."""
        command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "-s", str(self._script), self.url]
        before = cpu_s(self._pid)
        with bound_to(core):
            done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=seconds + 30)
        cpu = cpu_s(self._pid) - before
        seen = json.loads(done.stdout.splitlines()[-1])
        assert seen["failed"] == 0, seen
        per_s = seen["requests"] * 1e6 / seen["us"]
        if per_s > self.per_s:
            self.per_s, self.cpu_ms_per_1000 = per_s, cpu * 1e6 / seen["requests"]
            self.best_p50_ms, self.best_p99_ms = seen["p50_us"] / 1e3, seen["p99_us"] / 1e3


OTHER_TENANT: Final = {"amount": 120, "tenant": "another"}


def question(**subject: Any) -> dict[str, Any]:
    """May a cashier pay back this invoice? The zeros in its id are replaced with a number."""
    return {
        "subject": {"type": "human", "id": "alice", "properties": {"tenant": "acme", "scopes": ["x"], **subject}},
        "action": {"name": "invoice:refund"},
        "resource": {"type": "invoice", "id": "0000000", "properties": {"amount": 120, "tenant": "acme"}},
    }


def measure() -> dict[str, float]:
    """The figures, by the names under which they are published; none where there is an obstacle."""
    if obstacle() is not None:
        return {}
    server_core, load_core = sorted(os.sched_getaffinity(0))[-2:]
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        with bound_to(server_core):
            contestants = start_all(Path(name), stack)
        for one in contestants.values():
            one.load(load_core, 1)
        for _ in range(ROUNDS):
            for one in contestants.values():
                one.load(load_core, SECONDS)
    figures: dict[str, float] = {}
    for label, one in contestants.items():
        figures[f"server_{label}_per_s"] = one.per_s
        figures[f"server_{label}_p99_ms"] = one.best_p99_ms
        figures[f"server_{label}_cpu_ms_per_1000"] = one.cpu_ms_per_1000
    if "cerbos" in contestants:
        figures["server_throughput_vs_cerbos"] = figures["server_authz_per_s"] / figures["server_cerbos_per_s"]
    return figures


def start_all(folder: Path, stack: contextlib.ExitStack) -> dict[str, Contestant]:
    ours = question(roles=["cashier"])
    variants: dict[str, tuple[bool, list[str]]] = {
        "authz": (True, []),
        "authz_recorded": (True, ["--decision-log", f"file:{folder / 'decisions.jsonl'}"]),
        "authz_asyncio": (False, []),
    }
    contestants = {}
    for label, (uvloop, options) in variants.items():
        url, pid = stack.enter_context(authz_serve(folder, options, uvloop=uvloop))
        contestants[label] = Contestant(url, pid, ours, folder)
    if rival_obstacle() is None:
        url, pid = stack.enter_context(cerbos(folder))
        theirs = question(**{"cerbos.roles": ["cashier"], "kind": "human"})
        contestants["cerbos"] = Contestant(url, pid, theirs, folder)
    return contestants


@contextlib.contextmanager
def authz_serve(folder: Path, options: list[str], *, uvloop: bool) -> Iterator[tuple[str, int]]:
    """One worker of our own decision point: its URL and process."""
    policy, port = folder / "invoices.yaml", free_port()
    policy.write_text(POLICY)
    without = "" if uvloop else "sys.modules['uvloop'] = None; "
    program = f"import sys; {without}from authz_middleware.cli import main; main()"
    command = [sys.executable, "-c", program, "serve", "--policy", str(policy), "--port", str(port), *options]
    url = f"http://127.0.0.1:{port}"
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            wait_for(port, process)
            yield url, process.pid
        finally:
            process.terminate()


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 20
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
        with contextlib.suppress(OSError), contextlib.closing(connection):
            connection.request("GET", "/healthz")
            if connection.getresponse().status == 200:
                return
        if process.poll() is not None or time.monotonic() > end:
            raise RuntimeError("authz serve did not start")
        time.sleep(0.05)


@contextlib.contextmanager
def cerbos(folder: Path) -> Iterator[tuple[str, int]]:
    """Cerbos, with as many threads for its own work as it has cores: one."""
    policies = folder / "cerbos"
    policies.mkdir()
    (policies / "invoice.yaml").write_text(CERBOS_POLICY)
    with one_go_thread(), CerbosServer(folder, policies) as server:
        yield server.url, server._running().pid


@contextlib.contextmanager
def one_go_thread() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GOMAXPROCS", "1")
        yield


@contextlib.contextmanager
def bound_to(core: int) -> Iterator[None]:
    """Processes that are started meanwhile run on this core alone, for as long as they live."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def cpu_s(pid: int) -> float:
    """Processor time of a process so far, all its threads included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    for why in filter(None, (obstacle(), rival_obstacle())):
        print(f"not measured: {why}")
    for name, value in measure().items():
        bound = f"   target >= {TARGETS[name]:g}" if name in TARGETS else ""
        print(f"{name:34} {value:10.2f}{bound}")


if __name__ == "__main__":
    main()
