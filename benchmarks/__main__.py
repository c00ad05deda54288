"""`make bench`: every figure, measured in one run, as a table and in benchmarks/latest.json."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import decision_point, local_decision, requests, revocations, server, tokens, unasked

AT_MOST = {
    "local_decision_vs_floor": 3.0,
    "rules_100k_vs_10": 1.3,
    "bytes_per_rule_100k": 250.0,
    "starlette_authz_added_us": 8.0,
    **tokens.TARGETS,
    **revocations.TARGETS,
    **unasked.TARGETS,
}
AT_LEAST = {**decision_point.TARGETS, **server.TARGETS}


def main() -> None:
    """Measure, print, write."""
    figures: dict[str, float] = {}
    for part in (local_decision, tokens, revocations, requests, unasked, decision_point, server):
        figures |= part.measure()
    table = Table(title="authz_middleware, one run on this machine")
    for heading in ("figure", "measured", "target"):
        table.add_column(heading, justify="left" if heading == "figure" else "right")
    for name, value in figures.items():
        table.add_row(name, f"{value:,.2f}", target_of(name))
    for why in filter(None, (server.obstacle(), server.rival_obstacle())):
        table.add_row("server_…", "not measured", why)
    Console().print(table)
    latest = Path(__file__).with_name("latest.json")
    latest.write_text(json.dumps(figures, indent=2) + "\n")


def target_of(name: str) -> str:
    if name in AT_LEAST:
        return f"≥ {AT_LEAST[name]:,.2f}"
    return f"≤ {AT_MOST[name]:,.1f}" if name in AT_MOST else ""


if __name__ == "__main__":
    main()
