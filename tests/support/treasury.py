"""The treasury used by the table that every framework must answer alike: its policy, its settings, its data."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from authz_middleware import AccessDenied, ResourceLoaders, authz, public, requires
from tests.support.tokens import Issuer

ISSUER: Final = Issuer()
STRANGER: Final = Issuer()
"""An issuer of the same name with another key: a forger."""

POLICY: Final = """
policy: treasury
owner: payments-platform@example.com
inputs:
  resource.tenant: {from: application}
  resource.amount: {from: application, max_age: 30s}
  resource.classification: {from: application, labels: sensitivity}
labels:
  sensitivity: [public, internal, confidential, restricted]
rules:
  - rule: list-invoices
    permit: invoice:list
    when:
      subject.scopes: {has: invoices.read}
  - rule: read-invoices
    permit: invoice:read
    when:
      subject.scopes: {has: invoices.read}
      resource.tenant: {same_as: subject.tenant}
      resource.classification: {at_most: confidential}
  - rule: amend-small-invoices
    permit: invoice:amend
    when:
      subject.roles: {has_any: [clerk, manager]}
      resource.amount: {at_most: 500}
  - rule: approve-invoices
    permit: invoice:approve
    sensitive: true
    when:
      subject.roles: {has: manager}
  - rule: export-invoices
    permit: invoice:export
    when: always
  - rule: run-reports
    permit: report:*
    sensitive: true
    when: always
  - rule: notes
    permit: [note:read, close:run, user:delete, vault:open]
    when: always
  - rule: work-by-day
    permit: till:open
    when:
      context.time: {between: ["08:00", "18:00"], zone: Europe/Berlin}
  - rule: no-suspended-callers
    deny: "*"
    when:
      subject.roles: {has: suspended}
degrade:
  read-only:
    - rule: reports-may-be-read
      permit: report:read
      when: always
"""

INVOICES: Final[dict[str, dict[str, Any]]] = {
    "1": {"tenant": "acme", "amount": 120, "classification": "internal"},
    "2": {"tenant": "globex", "amount": 9000, "classification": "internal"},
    "3": {"tenant": "acme", "amount": 700, "classification": "restricted"},
    "4": {"tenant": "acme", "amount": 10},
}

AT: Final = 1_780_000_000.0
"""2026-05-28T20:26:40Z, a Thursday evening: outside of working hours in Berlin."""


def loaders(*, asynchronous: bool) -> ResourceLoaders:
    """Fresh loaders of the treasury's invoices, in the colour of the application."""
    found = ResourceLoaders()
    if asynchronous:

        async def load(invoice_id: str) -> dict[str, Any] | None:
            return INVOICES.get(invoice_id)

        found.register("invoice")(load)
    else:
        found.register("invoice")(INVOICES.get)
    return found


def settings(folder: Path, *, remote: str | None = "http://127.0.0.1:9", mode: str = "enforce") -> dict[str, Any]:
    """The treasury's settings; the policy and the decision log lie in `folder`."""
    policy = folder / "treasury.yaml"
    policy.write_text(POLICY)
    values: dict[str, Any] = {
        "app": {"name": "treasury", "environment": "production", "mode": mode},
        "issuers": [
            {
                "issuer": ISSUER.url,
                "audience": [ISSUER.audience],
                "jwks": ISSUER.jwks(),
                "algorithms": ["ES256"],
                "claims": {"kind": "kind", "roles": "roles"},
            }
        ],
        "policy": {"source": str(policy), "allow_unsigned": True},
        "fallback": {
            "default": "deny",
            "actions": {
                "invoice:export": {"mode": "cached", "max_stale": "60s"},
                "report:*": {"mode": "degrade", "rules": "read-only"},
            },
        },
        "decision_log": {"mode": "required", "sink": f"file:{folder / 'decisions.jsonl'}"},
        "handlers": {"third_party": {"action": "note:read"}, "static": {"action": "static:read"}},
    }
    if remote is not None:
        values["remote"] = {"url": remote, "deadline": "500ms", "breaker": {"failures": 1000}}
    return values


def token(issuer: Issuer = ISSUER, **claims: Any) -> str:
    """A token of somebody who may do most things in production."""
    given = {
        "env": "production",
        "kind": "human",
        "tenant": "acme",
        "purpose": "support",
        "task": "month-end",
        "roles": ["clerk"],
        **claims,
    }
    return issuer.mint(**given)


def records(folder: Path) -> list[dict[str, Any]]:
    """The decision records written so far."""
    log = folder / "decisions.jsonl"
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def wait_for_records(folder: Path, count: int, within: float = 3.0) -> list[dict[str, Any]]:
    """The records, once there are at least `count` of them or `within` seconds are over."""
    end = time.monotonic() + within
    while len(found := records(folder)) < count and time.monotonic() < end:
        time.sleep(0.01)
    return found


WHICH: Final = ("invoice/1", "invoice/2", "invoice/3")


def _unannotated(handler: Any) -> Any:
    return handler


class Endpoint(msgspec.Struct, frozen=True):
    """One endpoint of the treasury. `act` says what its handler does: nothing special, check another permission,
    check it and swallow the refusal, ask whether it would hold for one resource or for each of three, search, fail."""

    method: str
    path: str
    name: str
    annotate: Callable[[Any], Any]
    act: Literal["plain", "amend", "swallow", "may_amend", "which", "search", "broken"] = "plain"


ENDPOINTS: Final = (
    Endpoint("GET", "/health", "health", public(reason="liveness probe", owner="platform")),
    Endpoint("GET", "/invoices", "list_invoices", requires("invoice:list")),
    Endpoint("GET", "/invoices/{invoice_id}", "read_invoice", requires("invoice:read", "invoice/{invoice_id}")),
    Endpoint("POST", "/invoices/{invoice_id}/approve", "approve", requires("invoice:approve", "invoice/{invoice_id}")),
    Endpoint("POST", "/export", "export", requires("invoice:export", sensitive=True)),
    Endpoint("GET", "/reports", "read_report", requires("report:read")),
    Endpoint("POST", "/reports/run", "run_report", requires("report:run")),
    Endpoint("GET", "/notes", "notes", requires("note:read", purpose=["support", "audit"])),
    Endpoint("POST", "/close", "close_books", requires("close:run", task="month-end")),
    Endpoint("DELETE", "/users/{user}", "delete_user", requires("user:delete", kinds="human")),
    Endpoint("GET", "/vault", "open_vault", requires("vault:open", accountable=True)),
    Endpoint("GET", "/till", "open_till", requires("till:open")),
    Endpoint("GET", "/undeclared", "undeclared", _unannotated),
    Endpoint("GET", "/third-party", "third_party", _unannotated),
    Endpoint("GET", "/amend/{invoice_id}", "amend", requires("invoice:list"), "amend"),
    Endpoint("GET", "/swallow/{invoice_id}", "swallow", requires("invoice:list"), "swallow"),
    Endpoint("GET", "/may-amend/{invoice_id}", "may_amend", requires("invoice:list"), "may_amend"),
    Endpoint("GET", "/which", "which", requires("invoice:list"), "which"),
    Endpoint("GET", "/search", "search", requires("invoice:list"), "search"),
    Endpoint("GET", "/broken", "broken", requires("invoice:list"), "broken"),
)


class Handlers:
    """What the handlers of one surface do; `ran` holds the names of those that ran, in order."""

    def __init__(self) -> None:
        self.ran: list[str] = []

    def handle(self, endpoint: Endpoint, invoice_id: str) -> dict[str, str]:
        """The work of a synchronous handler; the answer is its JSON."""
        name = endpoint.name
        if endpoint.act == "amend":
            authz.check("invoice:amend", resource=f"invoice/{invoice_id}")
        elif endpoint.act == "swallow":
            try:
                authz.check("invoice:amend", resource=f"invoice/{invoice_id}")
            except AccessDenied:
                name = "swallowed"
        elif endpoint.act == "may_amend":
            name = f"may_amend:{authz.permitted('invoice:amend', resource=f'invoice/{invoice_id}')}"
        elif endpoint.act == "which":
            name = f"which:{authz.permitted_each('invoice:approve', WHICH)}"
        elif endpoint.act == "search":
            name = f"found:{[found.id for found in authz.search.resources('invoice:approve', 'invoice').entities]}"
        return self._done(endpoint, name)

    async def ahandle(self, endpoint: Endpoint, invoice_id: str) -> dict[str, str]:
        """The work of an asynchronous handler."""
        name = endpoint.name
        if endpoint.act == "amend":
            await authz.acheck("invoice:amend", resource=f"invoice/{invoice_id}")
        elif endpoint.act == "swallow":
            try:
                await authz.acheck("invoice:amend", resource=f"invoice/{invoice_id}")
            except AccessDenied:
                name = "swallowed"
        elif endpoint.act == "may_amend":
            name = f"may_amend:{await authz.apermitted('invoice:amend', resource=f'invoice/{invoice_id}')}"
        elif endpoint.act == "which":
            name = f"which:{await authz.apermitted_each('invoice:approve', WHICH)}"
        elif endpoint.act == "search":
            found = await authz.search.aresources("invoice:approve", "invoice")
            name = f"found:{[each.id for each in found.entities]}"
        return self._done(endpoint, name)

    def _done(self, endpoint: Endpoint, name: str) -> dict[str, str]:
        self.ran.append(name)
        if endpoint.act == "broken":
            raise RuntimeError("broken")
        return {"ran": name}
