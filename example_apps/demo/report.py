"""The table of the demo, and whether it is as it must be."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from example_apps.demo.exchange import Reply
from example_apps.demo.situations import Situation

PIPE_WIDTH = 104

Records = Mapping[str, Sequence[Mapping[str, Any]]]


class Row(NamedTuple):
    """One situation, with the reply of each application that has the route."""

    section: str
    situation: Situation
    replies: Mapping[str, Reply]


class Outcome(NamedTuple):
    """What one application answered and recorded in one situation. `rule` and `by` are of the last decision."""

    status: int
    degraded: bool
    body: Any
    reasons: tuple[str, ...]
    rule: str | None
    by: str


def read_records(path: Path) -> Records:
    """The decision records in a file, by trace id, in the order in which they were written."""
    records: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for line in path.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        records[record.get("trace_id", "")].append(record)
    return records


def outcome_of(reply: Reply, records: Records) -> Outcome:
    """A reply together with the decisions that were recorded of it."""
    decisions = [record["authz"] for record in records.get(reply.trace, ())]
    last: Mapping[str, Any] = decisions[-1] if decisions else {"decided_by": "no record"}
    fallback = last.get("fallback")
    return Outcome(
        status=reply.status,
        degraded=reply.degraded,
        body=reply.body,
        reasons=tuple(decision["reason"] for decision in decisions),
        rule=last.get("rule"),
        by=f"fallback {fallback['mode']}" if fallback else last["decided_by"],
    )


def differences(situation: Situation, outcomes: Mapping[str, Outcome]) -> list[str]:
    """What is not as it must be: against what the situation expects, and between the applications."""
    found = []
    for name, outcome in outcomes.items():
        last = outcome.reasons[-1] if outcome.reasons else "no record"
        got = (outcome.status, last, len(outcome.reasons), outcome.degraded)
        expected = (situation.status, situation.reason, situation.decisions, situation.degraded)
        found += [
            f"{situation.title}: {name}: {label} is {one!r}, expected {other!r}"
            for label, one, other in zip(
                ("status", "reason", "number of records", "degraded"), got, expected, strict=True
            )
            if one != other
        ]
    (first, reference), *others = outcomes.items()
    found += [
        f"{situation.title}: {name} answers {outcome!r}, {first} {reference!r}"
        for name, outcome in others
        if outcome != reference
    ]
    return found


def table(rows: Iterable[Row], names: Sequence[str], records: Mapping[str, Records]) -> Table:
    """The table as it is printed: a status for each application, and the decision, which is the same in all."""
    drawn = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold underline")
    drawn.add_column("situation", no_wrap=True)
    for name in names:
        drawn.add_column(name, justify="right", no_wrap=True, min_width=len(name))
    drawn.add_column("reason", no_wrap=True, min_width=20)
    drawn.add_column("decided by", no_wrap=True)
    section = None
    for row in rows:
        if row.section != section:
            section = row.section
            drawn.add_row("")
            drawn.add_row(Text(section, style="bold"))
        outcomes = {name: outcome_of(reply, records[name]) for name, reply in row.replies.items()}
        first = next(iter(outcomes.values()))
        cells = [_cell(outcomes.get(name), first) for name in names]
        reason = first.reasons[-1] if first.reasons else "no record"
        drawn.add_row(f" {row.situation.title}", *cells, reason, _decider(first))
    return drawn


def console() -> Console:
    """A console that is coloured on a terminal, and plain and wide enough for the table in a pipe."""
    made = Console(highlight=False)
    return made if made.is_terminal else Console(highlight=False, width=max(PIPE_WIDTH, made.width))


def _decider(outcome: Outcome) -> str:
    if outcome.by == "local":
        return outcome.rule or "middleware"
    return {"remote": "decision point"}.get(outcome.by, outcome.by)


def _cell(outcome: Outcome | None, reference: Outcome) -> Text:
    if outcome is None:
        return Text("-", style="dim")
    if outcome != reference:
        return Text(f"{outcome.status} differs", style="bold red")
    return Text(
        str(outcome.status), style="green" if outcome.status < 300 else "yellow" if outcome.status == 503 else "red"
    )
