"""Applications that ask a real Cerbos about sensitive actions: what it says holds, and what was chosen when it is away.

It ends (SIGTERM) or stops answering (SIGSTOP) under load, and comes back.
"""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from tests.support.cerbos import CerbosServer
from tests.support.load import Call, Load, Sample, load_on
from tests.support.surfaces.all import FRAMEWORKS, open_surface
from tests.support.surfaces.surface import Surface
from tests.support.treasury import records, settings, token

POLICIES: Final = {
    "invoice.yaml": """
apiVersion: api.cerbos.dev/v1
resourcePolicy:
  resource: invoice
  version: default
  rules:
    - actions: ["invoice:approve"]
      effect: EFFECT_ALLOW
      roles: [manager]
      condition:
        match:
          all:
            of:
              - expr: R.id == "1"
              - expr: P.attr.tenant == "acme"
              - expr: P.attr.context.purpose == "support"
""",
    "route.yaml": """
apiVersion: api.cerbos.dev/v1
resourcePolicy:
  resource: route
  version: default
  rules:
    - actions: ["invoice:export", "report:read", "report:run"]
      effect: EFFECT_ALLOW
      roles: [manager]
      condition:
        match:
          expr: '!P.id.startsWith("leaver")'
""",
}
DEADLINE: Final = 1.0
NOISE: Final = 3.0
"""Seconds that a busy machine may add."""
PAUSE: Final = 0.3
CALLERS: Final = 5


def policies(work: Path) -> Path:
    folder = work / "policies"
    folder.mkdir()
    for name, text in POLICIES.items():
        (folder / name).write_text(text)
    return folder


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "tls"])
def cerbos(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CerbosServer]:
    work = tmp_path_factory.mktemp("cerbos")
    with CerbosServer(work, policies(work), tls=request.param) as server:
        yield server


def asking(folder: Path, server: CerbosServer) -> dict[str, Any]:
    """The treasury's settings with this server as the decision point."""
    chosen = settings(folder, remote=server.url)
    breaker = {"failures": 3, "pause": f"{PAUSE * 1000:.0f}ms"}
    chosen["remote"] |= {"dialect": "cerbos", "deadline": f"{DEADLINE:.0f}s", "breaker": breaker}
    if server.ca_file is not None:
        chosen["remote"]["ca_file"] = str(server.ca_file)
    return chosen


def call(name: str, request: str, **claims: Any) -> Call:
    method, path = request.split()
    return Call(name, method, path, {"Authorization": f"Bearer {token(**claims)}"})


# ---- in every framework, while it answers


@pytest.mark.capability("C29")
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_what_cerbos_says_holds(framework: str, tmp_path: Path, cerbos: CerbosServer) -> None:
    asked = [
        (200, call("its policy permits", "POST /invoices/1/approve", roles=["manager"])),
        (403, call("it has no rule for this one", "POST /invoices/2/approve", roles=["manager"])),
        (403, call("the tenant is another", "POST /invoices/1/approve", roles=["manager"], tenant="globex")),
        (403, call("the purpose is another", "POST /invoices/1/approve", roles=["manager"], purpose="audit")),
        (200, call("another resource", "POST /export", roles=["manager"])),
        (403, call("permitted here, but not there", "POST /export", roles=["clerk"])),
        (403, call("it knows better", "POST /export", roles=["manager"], sub="leaver-1")),
    ]
    with open_surface(framework, asking(tmp_path, cerbos)) as surface:
        for status, each in asked:
            assert surface.request(each.method, each.path, each.headers).status == status, each.name
        assert surface.ran == ["approve", "export"]
    written = [
        (record["result"], record["authz"]["reason"], record["authz"]["decided_by"]) for record in records(tmp_path)
    ]
    permitted, denied = (True, "permitted", "remote"), (False, "remote.deny", "remote")
    assert written == [permitted, denied, denied, denied, permitted, denied, denied]


# ---- it goes away under load

Outcome = tuple[int, bool]


class Expected(msgspec.Struct, frozen=True):
    """What must come of a call while Cerbos answers, and what while it does not."""

    mode: str
    up: Outcome
    away: Outcome


OK, DEGRADED, FORBIDDEN, UNDECIDED = (200, False), (200, True), (403, False), (503, False)
EXPECTED: Final = {
    "approve": Expected("deny", OK, UNDECIDED),
    "approve another": Expected("deny", FORBIDDEN, UNDECIDED),
    "read report": Expected("degrade", OK, DEGRADED),
    "run report": Expected("degrade", OK, UNDECIDED),
    "export": Expected("cached", OK, OK),
    "export as leaver": Expected("cached", FORBIDDEN, UNDECIDED),
    "list": Expected("local", OK, OK),
    "approve as clerk": Expected("local", FORBIDDEN, FORBIDDEN),
}


def calls(number: int) -> list[Call]:
    """Those of one caller, beginning with another each; every caller is somebody of their own."""
    manager = {"roles": ["manager"], "sub": f"manager-{number}"}
    made = [
        call("approve", "POST /invoices/1/approve", **manager),
        call("approve another", "POST /invoices/2/approve", **manager),
        call("read report", "GET /reports", **manager),
        call("run report", "POST /reports/run", **manager),
        call("export", "POST /export", **manager),
        call("export as leaver", "POST /export", **{**manager, "sub": f"leaver-{number}"}),
        call("list", "GET /invoices", **manager),
        call("approve as clerk", "POST /invoices/1/approve", roles=["clerk"], sub=f"clerk-{number}"),
    ]
    return made[number:] + made[:number]


class Outage(msgspec.Struct):
    """An outage that is over: when it was, what the callers saw, and what was recorded. Times are readings of the
    monotonic clock: until `leaving` all was well, from `away` to `returning` nobody answered, from `back` on all was
    well again."""

    signal: str
    leaving: float
    away: float
    returning: float
    back: float
    samples: list[Sample]
    ran: Counter[str]
    records: list[Any]

    def phase(self, sample: Sample) -> str:
        """Where a request lies; one on a border may have met either side of it."""
        if sample.ended < self.leaving:
            return "before"
        if sample.began > self.away and sample.ended < self.returning:
            return "away"
        return "after" if sample.began > self.back else "border"

    def of(self, mode: str) -> list[Sample]:
        return [sample for sample in self.samples if EXPECTED[sample.name].mode == mode]


def leave(server: CerbosServer, signal: str) -> None:
    if signal == "SIGTERM":
        server.stop()
    else:
        server.freeze()


def come_back(server: CerbosServer, signal: str) -> None:
    if signal == "SIGTERM":
        server.start()
    else:
        server.thaw()


def is_well(load: Load) -> bool:
    """Whether the last approval of every caller was made by Cerbos."""
    last = {sample.caller: sample.outcome for sample in load.samples if sample.name == "approve"}
    return set(last.values()) == {OK}


def away_long_enough(load: Load, since: float) -> bool:
    """Whether every caller has asked everything while it was away, and a probe has met with silence."""
    seen = {(sample.caller, sample.name) for sample in list(load.samples) if sample.began > since}
    return len(seen) == CALLERS * len(EXPECTED) and time.monotonic() - since > DEADLINE + 2 * PAUSE


@pytest.fixture(
    scope="module",
    params=list(itertools.product(["flask", "starlette"], ["SIGTERM", "SIGSTOP"])),
    ids="-".join,
)
def outage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Outage:
    framework, signal = request.param
    work = tmp_path_factory.mktemp("outage")
    with_tls = (framework == "flask") is (signal == "SIGSTOP")  # both with and without it in both colours
    with (
        CerbosServer(work, policies(work), tls=with_tls) as server,
        open_surface(framework, asking(work, server)) as surface,
    ):
        return suffer(surface, server, signal, work)


def suffer(surface: Surface, server: CerbosServer, signal: str, folder: Path) -> Outage:
    with load_on(surface, [calls(number) for number in range(CALLERS)]) as load:  # type: ignore[arg-type]  # these two
        load.wait(lambda: load.rounds >= 3)
        leaving = time.monotonic()
        leave(server, signal)
        away = time.monotonic()
        load.wait(lambda: away_long_enough(load, away))
        returning = time.monotonic()
        come_back(server, signal)
        load.wait(lambda: is_well(load))
        back, rounds = time.monotonic(), load.rounds
        load.wait(lambda: load.rounds >= rounds + 2)
    written = records(folder)
    return Outage(signal, leaving, away, returning, back, load.samples, Counter(surface.ran), written)


@pytest.mark.capability("C30", "C31", "C32", "C34")
@pytest.mark.parametrize("mode", ["deny", "degrade", "cached", "local"])
def test_every_answer_is_the_one_that_was_chosen_for_its_phase(outage: Outage, mode: str) -> None:
    wrong = []
    for sample in outage.of(mode):
        expected, phase = EXPECTED[sample.name], outage.phase(sample)
        allowed = {"away": {expected.away}, "border": {expected.up, expected.away}}.get(phase, {expected.up})
        if sample.ended - sample.began >= DEADLINE:
            allowed = allowed | {expected.away}  # on a machine that stood still, the point was late
        if sample.outcome not in allowed:
            wrong.append((phase, sample))
    assert wrong == []
    assert {outage.phase(sample) for sample in outage.of(mode)} >= {"before", "away", "after"}


@pytest.mark.capability("C34")
def test_nobody_waits_beyond_the_deadline(outage: Outage) -> None:
    assert max(sample.ended - sample.began for sample in outage.samples) < DEADLINE + NOISE


@pytest.mark.capability("C34")
def test_while_it_is_away_most_do_not_wait_at_all(outage: Outage) -> None:
    took = sorted(each.ended - each.began for each in outage.samples if outage.phase(each) == "away")
    assert took[len(took) // 2] < DEADLINE / 2


@pytest.mark.promise("P1")
def test_what_ran_is_what_was_answered_with_200(outage: Outage) -> None:
    handlers = {
        "approve": ["approve", "approve another", "approve as clerk"],
        "read_report": ["read report"],
        "run_report": ["run report"],
        "export": ["export", "export as leaver"],
        "list_invoices": ["list"],
    }
    fine = Counter(sample.name for sample in outage.samples if sample.status == 200)
    assert outage.ran == Counter({ran: sum(fine[name] for name in names) for ran, names in handlers.items()})
    assert fine["approve another"] == fine["approve as clerk"] == fine["export as leaver"] == 0


@pytest.mark.capability("C41")
@pytest.mark.promise("P6")
def test_each_answer_has_one_record(outage: Outage) -> None:
    assert len(outage.records) == len(outage.samples)
    assert sum(record["result"] for record in outage.records) == sum(each.status == 200 for each in outage.samples)


@pytest.mark.capability("C30", "C31", "C32")
def test_the_records_say_what_went_wrong_and_what_was_chosen_for_it(outage: Outage) -> None:
    fallen = [record for record in outage.records if "fallback" in record["authz"]]
    triggers = {record["authz"]["fallback"]["trigger"] for record in fallen}
    gone = {"connect", "closed", "status_5xx"} if outage.signal == "SIGTERM" else {"deadline"}
    assert "breaker_open" in triggers
    assert triggers & gone
    assert triggers <= gone | {"breaker_open", "deadline"}
    said = {
        (record["input"]["action"]["name"], record["authz"]["fallback"]["mode"], record["result"]) for record in fallen
    }
    assert said == {
        ("invoice:approve", "deny", False),
        ("report:read", "degrade", True),
        ("report:run", "degrade", False),
        ("invoice:export", "cached", True),
        ("invoice:export", "cached", False),
    }


@pytest.mark.capability("C32")
@pytest.mark.promise("P5")
def test_only_whom_cerbos_had_permitted_was_let_in_by_the_cache(outage: Outage) -> None:
    cached = [
        record
        for record in outage.records
        if record["authz"].get("fallback", {}).get("mode") == "cached" and record["result"]
    ]
    assert cached
    assert all(record["input"]["subject"]["id"].startswith("manager-") for record in cached)
    assert all(0 <= record["authz"]["fallback"]["age_s"] < 60 for record in cached)
