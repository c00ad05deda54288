"""`make bench`: every figure, measured in one run, as a table and in benchmarks/latest.json."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import local_decision, requests, revocations, tokens

TARGETS = {
    "local_decision_vs_floor": 3.0,
    "rules_100k_vs_10": 1.3,
    "bytes_per_rule_100k": 250.0,
    "starlette_authz_added_us": 8.0,
    **tokens.TARGETS,
    **revocations.TARGETS,
}


def main() -> None:
    """Measure, print, write."""
    figures = {**local_decision.measure(), **tokens.measure(), **revocations.measure(), **requests.measure()}
    table = Table(title="authz_middleware, one run on this machine")
    for heading in ("figure", "measured", "at most"):
        table.add_column(heading, justify="left" if heading == "figure" else "right")
    for name, value in figures.items():
        target = TARGETS.get(name)
        table.add_row(name, f"{value:,.2f}", "" if target is None else f"{target:,.1f}")
    Console().print(table)
    latest = Path(__file__).with_name("latest.json")
    latest.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
