"""`authz policy …`: is this policy one, does it decide as its author expects, and what may be written in it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from authz_middleware.cli.output import complain, err, fail, out, tell
from authz_middleware.errors import PolicyError, Problem
from authz_middleware.policy.cases import CaseFailure, run_cases
from authz_middleware.policy.compiler import compile_policy
from authz_middleware.policy.document import read_policy
from authz_middleware.policy.model import Policy
from authz_middleware.policy.schema import json_schema
from authz_middleware.policy.snapshot import Snapshot

app = typer.Typer(help="Policies.", no_args_is_help=True)


@app.command()
def check(files: Annotated[list[Path], typer.Argument(help="Policy files.", show_default=False)]) -> None:
    """Check that policies can be used; every problem with its file and line."""
    usable = True
    for path in files:
        try:
            policy, snapshot = _read(path)
        except PolicyError as error:
            usable = False
            for problem in error.problems:
                complain(problem, path)
        else:
            tell(str(path), "bold green", _summary(policy, snapshot))
    if not usable:
        raise typer.Exit(1)


@app.command()
def test(file: Annotated[Path, typer.Argument(help="Policy file.", show_default=False)]) -> None:
    """Run the test cases that a policy brings with it."""
    try:
        policy, snapshot = _read(file)
    except PolicyError as error:
        fail(error, file)
    failures = run_cases(policy, snapshot)
    failed = {failure.line for failure in failures}
    for case in policy.tests:
        passed = case.line not in failed
        tell("pass" if passed else "FAIL", "green" if passed else "bold red", case.name)
    for failure in failures:
        complain(Problem(f"{file.name}:{failure.line}", str(failure)), file)
    if not policy.tests:
        tell(str(file), "yellow", "has no tests; write some under 'tests:'", err)
    out.print(_count(len(policy.tests), failures), style="bold red" if failures else "bold green")
    if failures:
        raise typer.Exit(1)


@app.command()
def schema() -> None:
    """Print the JSON Schema of a policy, for an editor."""
    typer.echo(msgspec.json.format(msgspec.json.encode(json_schema())).decode())


def _read(path: Path) -> tuple[Policy, Snapshot]:
    policy = read_policy(path)
    return policy, compile_policy(policy)


def _summary(policy: Policy, snapshot: Snapshot) -> str:
    return (
        f"policy {policy.name!r} of {policy.owner}, {_number(len(policy.rules), 'rule')}, "
        f"{_number(len(policy.tests), 'test')}, revision {snapshot.revision[:12]}"
    )


def _count(tests: int, failures: tuple[CaseFailure, ...]) -> str:
    wrong = len({failure.line for failure in failures})
    return f"{_number(tests, 'test')}, {tests - wrong} passed, {wrong} failed"


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
