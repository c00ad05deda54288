"""Four applications, one policy, one decision point: python -m example_apps.demo [--state FOLDER] [--point POINT]

Starts everything as real processes on loopback, sends the same requests to all four applications, stops and restarts
the decision point, revokes an agent and lifts that again, and prints one table. Ends with 1 when anything is not as it
must be. The decision point is Cerbos where that is installed, else `authz serve`.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import httpx
from rich.console import Console
from rich.text import Text

from example_apps.demo.callers import CALLERS
from example_apps.demo.exchange import Reply, send
from example_apps.demo.issuer import Issuer
from example_apps.demo.points import CHOICES, EXAMPLES, Point, point_of
from example_apps.demo.processes import ROOT, NotStartedError, Server, free_ports, run_program
from example_apps.demo.report import Row, console, differences, outcome_of, read_records, table
from example_apps.demo.situations import (
    ASKED_REMOTELY,
    LIFTED,
    POINT_BACK,
    POINT_STOPPED,
    REVOKED,
    Situation,
    closed_office,
    decided_locally,
)

APPS = {
    "Starlette": ["uvicorn", "example_apps.starlette_app.app:app", "--no-access-log", "--port"],
    "FastAPI": ["uvicorn", "example_apps.fastapi_app.app:app", "--no-access-log", "--port"],
    "Django": [
        "gunicorn",
        "--no-control-socket",
        "--threads",
        "4",
        "example_apps.django_app.wsgi:application",
        "--bind",
    ],
    "Flask": ["gunicorn", "--no-control-socket", "--threads", "4", "example_apps.flask_app.app:app", "--bind"],
}
WITHOUT_WEBSOCKETS = ("Django", "Flask")
BREAKER_PAUSE_S = 1.3
"""The `pause` of the breaker in the applications' settings, and the fifth by which it may be stretched."""


def main() -> int:
    """Run the demo; the exit status."""
    parser = argparse.ArgumentParser(description="Four applications, one policy, one decision point.")
    parser.add_argument(
        "--state", type=Path, default=ROOT / ".demo", help="folder for keys, settings, records and logs"
    )
    parser.add_argument(
        "--point", choices=CHOICES, default="auto", help="what decides about sensitive actions; auto: Cerbos, if there"
    )
    chosen = parser.parse_args()
    state = chosen.state.resolve()
    for each in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, lambda *_: sys.exit(143))
    out = console()
    started = time.monotonic()
    try:
        with ExitStack() as running:
            demo = Demo(state, running, out, chosen.point)
            demo.start()
            rows = demo.run()
    except NotStartedError as error:
        out.print(str(error), markup=False)
        return 1
    except KeyboardInterrupt:
        out.print("stopped")
        return 130
    problems = demo.conclude(rows)
    for problem in problems:
        out.print(Text.assemble(("wrong: ", "red"), problem), soft_wrap=True)
    out.print(f"{'failed' if problems else 'done'} in {time.monotonic() - started:.0f} s")
    return 1 if problems else 0


class Demo:
    """The running demo, with the chosen decision point. `running` stops every process when it is left."""

    def __init__(self, state: Path, running: ExitStack, out: Console, chosen: str) -> None:
        _clear(state)
        self._state = state
        self._running = running
        self._out = out
        self._ready: dict[str, Reply] = {}
        point = point_of(chosen, state)
        self._point_told = point.told
        self.point = point.server
        self.apps = {
            name: Server(
                name.lower(),
                [*command, str(port) if command[-1] == "--port" else f"127.0.0.1:{port}"],
                port,
                state,
                {"AUTHZ_SETTINGS": str(_write_settings(name.lower(), state, point))},
            )
            for (name, command), port in zip(APPS.items(), free_ports(len(APPS)), strict=True)
        }
        issuer = Issuer()
        issuer.publish(state / "jwks.json")
        self._tokens = {who: None if claims is None else issuer.mint(claims) for who, claims in CALLERS.items()}
        self._client = httpx.Client(timeout=20, trust_env=False)

    def start(self) -> None:
        """Start the decision point and the applications, and wait until each answers."""
        self._out.print(f"the decision point is {self._point_told}", markup=False, soft_wrap=True)
        self._out.print("starting it and four applications ...")
        for server in (self.point, *self.apps.values()):
            self._running.callback(server.stop)
            server.start()
        for server in (self.point, *self.apps.values()):
            server.wait()
        self._running.enter_context(self._client)  # closed first: servers wait for connections that are kept alive
        health = Situation("health", "nobody", "GET", "/health", 200, "public")
        for name, app in self.apps.items():
            try:
                self._ready[name] = send(app.url, self._client, health, None)
            except httpx.HTTPError:
                raise app.not_started("did not answer its health page") from None

    def run(self) -> list[Row]:
        """Send every request; the decision point is stopped and started again on the way."""
        office = closed_office(datetime.now(UTC))
        rows = self._ask("decided in the application", decided_locally(office))
        rows += self._ask("asked of the decision point", ASKED_REMOTELY)
        self._out.print("stopping the decision point ...")
        self.point.stop()
        rows += self._ask("the decision point is stopped", POINT_STOPPED)
        self._out.print("starting the decision point again ...")
        self.point.start()
        self.point.wait()
        time.sleep(BREAKER_PAUSE_S)
        rows += self._ask("the decision point is back", POINT_BACK)
        owner = ["--reason", "acts on its own", "--owner", "security@example.com"]
        revocation = self._command("revoke", "actor", "assistant-7", *owner)
        rows += self._ask("the agent is revoked", REVOKED)
        self._command("revocations", "lift", revocation)
        return rows + self._ask("the revocation is lifted", LIFTED)

    def conclude(self, rows: list[Row]) -> list[str]:
        """Print the table once all records are written, and answer what is wrong."""
        records = {name: read_records(self._state / f"{name.lower()}.jsonl") for name in APPS}
        self._out.print(table(rows, list(APPS), records))
        self._out.print(
            "\nreason: as recorded, the same in all four. decided by: a rule of the policy, or the middleware itself\n"
            "where no rule is asked; for sensitive actions the decision point, or the fallback chosen for it.\n"
        )
        problems = []
        for row in rows:
            outcomes = {name: outcome_of(reply, records[name]) for name, reply in row.replies.items()}
            problems += differences(row.situation, outcomes)
        expected = len(self._ready) + sum(row.situation.decisions * len(row.replies) for row in rows)
        written = sum(len(group) for each in records.values() for group in each.values())
        self._out.print(f"{expected} decisions, {written} records, in {self._state}")
        if written != expected:
            problems.append(f"{expected} decisions left {written} records; there must be one each")
        return problems

    def _command(self, *arguments: str) -> str:
        """Run `authz` as an operator would, on the store that the applications share; the revocation's id, if any."""
        self._out.print(f"authz {' '.join(arguments[:3])} ...", markup=False)
        try:
            printed = run_program(["authz", *arguments, "--settings", str(self._state / "starlette.toml")])
        except subprocess.CalledProcessError as error:
            raise NotStartedError(f"authz {arguments[0]} failed:\n{error.output}") from None
        return next((line.split()[1] for line in printed.splitlines() if line.split()[:1] == ["id"]), "")

    def _ask(self, section: str, situations: Iterable[Situation]) -> list[Row]:
        return [Row(section, situation, self._replies(situation)) for situation in situations]

    def _replies(self, situation: Situation) -> Mapping[str, Reply]:
        return {
            name: send(app.url, self._client, situation, self._tokens[situation.caller])
            for name, app in self.apps.items()
            if situation.method != "WS" or name not in WITHOUT_WEBSOCKETS
        }


def _clear(state: Path) -> None:
    """Make the folder, without what an earlier demo left in it; anything else in it stays."""
    state.mkdir(parents=True, exist_ok=True)
    for name in ["point", *(app.lower() for app in APPS)]:
        for suffix in (".jsonl", ".log", ".toml", ".yaml"):
            (state / f"{name}{suffix}").unlink(missing_ok=True)
    for suffix in ("", "-shm", "-wal"):
        (state / f"revocations.db{suffix}").unlink(missing_ok=True)
    (state / "pids").unlink(missing_ok=True)


def _write_settings(name: str, state: Path, point: Point) -> Path:
    """The application's own settings, but for the decision point and where keys and records lie."""
    text = (EXAMPLES / f"{name}_app" / "authz.toml").read_text(encoding="utf-8")
    for written, used in (
        ("../../.demo", str(state)),
        ("../treasury.yaml", str(EXAMPLES / "treasury.yaml")),
        ('url = "http://127.0.0.1:8181"', f'url = "{point.server.url}"\ndialect = "{point.dialect}"'),
    ):
        if written not in text:
            raise NotStartedError(f"{name}_app/authz.toml does not say {written!r}")
        text = text.replace(written, used)
    path = state / f"{name}.toml"
    path.write_text(text, encoding="utf-8")
    return path


if __name__ == "__main__":
    sys.exit(main())
