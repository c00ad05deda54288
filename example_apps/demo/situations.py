"""What the demo shows: requests, and what each of the four applications has to answer and to record."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo


class Situation(NamedTuple):
    """One request. `reason` is that of its last decision, `decisions` how many it takes: the route, and each check
    inside the handler. `degraded` tells whether the answer must carry the Authz-Degraded header."""

    title: str
    caller: str
    method: str
    path: str
    status: int
    reason: str
    body: Mapping[str, Any] | None = None
    decisions: int = 1
    degraded: bool = False


OFFICES: Final = {"berlin": "Europe/Berlin", "auckland": "Pacific/Auckland"}
OPEN_FROM, OPEN_UNTIL = 9, 17


def closed_office(now: datetime) -> str:
    """The office of the two that stays closed longest. They are ten to twelve hours apart and open for eight, so
    there is always one that stays closed for another two hours."""
    return max(OFFICES, key=lambda office: _closed_for(now.astimezone(ZoneInfo(OFFICES[office]))))


def _closed_for(local: datetime) -> timedelta:
    if OPEN_FROM <= local.hour < OPEN_UNTIL:
        return timedelta(0)
    opening = local.replace(hour=OPEN_FROM, minute=0, second=0, microsecond=0)
    return opening - local if local.hour < OPEN_FROM else opening + timedelta(days=1) - local


def decided_locally(office: str) -> list[Situation]:
    """Permits and refusals that no other process is asked about; `office` is closed at the moment."""
    return [
        Situation("a person reads an invoice", "treasurer", "GET", "/invoices/inv-1", 200, "permitted"),
        Situation("a service lists invoices", "service", "GET", "/invoices", 200, "permitted"),
        Situation("an AI agent reads for a person", "agent", "GET", "/invoices/inv-1", 200, "permitted"),
        Situation("a person watches the feed", "treasurer", "WS", "/feed", 101, "permitted"),
        Situation("anybody reads the health page", "nobody", "GET", "/health", 200, "public"),
        Situation("no token", "nobody", "GET", "/invoices/inv-1", 401, "credential.missing"),
        Situation("no token, on the feed", "nobody", "WS", "/feed", 401, "credential.missing"),
        Situation("a token for another purpose", "marketing", "GET", "/invoices/inv-1", 403, "purpose.mismatch"),
        Situation("a token of staging", "staging", "GET", "/invoices/inv-1", 403, "environment.mismatch"),
        Situation("a token for another task", "other task", "GET", "/reports/cash", 403, "task.mismatch"),
        Situation(f"payout: {office} is closed", "treasurer", "POST", f"/payouts/{office}", 403, "rule.deny"),
        Situation("an invoice of another company", "treasurer", "GET", "/invoices/inv-9", 403, "rule.deny"),
        Situation("an invoice above the clearance", "treasurer", "GET", "/invoices/inv-3", 403, "rule.deny"),
        Situation("an agent where people must act", "agent", "POST", "/invoices/inv-1/approve", 403, "kind.refused"),
        Situation(
            "a shared identity",
            "shared",
            "POST",
            "/refunds",
            403,
            "actor.required",
            body={"invoice": "inv-1"},
        ),
        Situation("a route without a permission", "treasurer", "GET", "/backup", 403, "permission.missing"),
    ]


ASKED_REMOTELY: Final = [
    Situation("approve 240: permitted", "treasurer", "POST", "/invoices/inv-1/approve", 200, "permitted"),
    Situation("approve 90,000: denied", "treasurer", "POST", "/invoices/inv-2/approve", 403, "remote.deny"),
    Situation(
        "refund 240: permitted", "treasurer", "POST", "/refunds", 201, "permitted", {"invoice": "inv-1"}, decisions=2
    ),
    Situation(
        "refund 90,000: denied", "treasurer", "POST", "/refunds", 403, "remote.deny", {"invoice": "inv-2"}, decisions=2
    ),
    Situation("export an invoice", "treasurer", "GET", "/invoices/inv-1/export", 200, "permitted"),
    Situation("run a report", "treasurer", "POST", "/reports/cash", 200, "permitted"),
]

POINT_STOPPED: Final = [
    Situation("deny: approve 240", "treasurer", "POST", "/invoices/inv-1/approve", 503, "remote.unavailable"),
    Situation("degrade: read a report", "treasurer", "GET", "/reports/cash", 200, "fallback.degraded", degraded=True),
    Situation("degrade: run a report", "treasurer", "POST", "/reports/cash", 503, "remote.unavailable"),
    Situation("cached: export it again", "treasurer", "GET", "/invoices/inv-1/export", 200, "fallback.cached"),
    Situation(
        "cached: not for another token", "second session", "GET", "/invoices/inv-1/export", 503, "remote.unavailable"
    ),
    Situation("read an invoice: not affected", "treasurer", "GET", "/invoices/inv-1", 200, "permitted"),
]

REVOKED: Final = [
    Situation("the agent, with the same token", "agent", "GET", "/invoices/inv-1", 401, "credential.revoked"),
    Situation("the person it acted for", "treasurer", "GET", "/invoices/inv-1", 200, "permitted"),
]

LIFTED: Final = [
    Situation("the agent, with the same token", "agent", "GET", "/invoices/inv-1", 200, "permitted"),
]

POINT_BACK: Final = [
    Situation("approve 240: permitted", "treasurer", "POST", "/invoices/inv-1/approve", 200, "permitted"),
    Situation("approve 90,000: denied", "treasurer", "POST", "/invoices/inv-2/approve", 403, "remote.deny"),
    Situation("run a report", "treasurer", "POST", "/reports/cash", 200, "permitted"),
]
