"""Who calls: people, services and agents, as the claims of their tokens. None is a caller without a token."""

from __future__ import annotations

from typing import Any

Claims = dict[str, Any]

TREASURER: Claims = {
    "sub": "alice",
    "kind": "human",
    "client_id": "treasury-web",
    "tenant": "acme",
    "env": "production",
    "roles": ["treasurer"],
    "scope": "invoices.read invoices.approve refunds.create",
    "purpose": "payments",
    "task": "monthly-close",
    "clearance": "confidential",
}
SERVICE: Claims = {**TREASURER, "sub": "ledger-sync", "client_id": "ledger-sync", "kind": "workload"}

CALLERS: dict[str, Claims | None] = {
    "treasurer": TREASURER,
    "service": SERVICE,
    # An AI agent that acts for the treasurer, as a token exchange (RFC 8693) states it.
    "agent": {**TREASURER, "act": {"sub": "assistant-7", "kind": "agent"}},
    "marketing": {**TREASURER, "purpose": "marketing"},
    "staging": {**TREASURER, "env": "staging"},
    "other task": {**TREASURER, "task": "onboarding"},
    # One identity that many use, in a token that does not tell which of them: no actor, client, or id.
    "shared": {**TREASURER, "sub": "finance-shared", "client_id": None, "jti": None},
    "second session": TREASURER,
    "nobody": None,
}
