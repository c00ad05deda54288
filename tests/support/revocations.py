"""Principals and revocations that tests are about."""

from __future__ import annotations

from typing import Any, Final

from authz_middleware.identity.principal import Actor, Principal
from authz_middleware.revocation.entry import Revocation, Scope, new_revocation
from authz_middleware.settings.revocations import OnUnavailable, RevocationSettings, UnavailableSettings

NOW: Final = 1_772_452_800.0
ISSUER: Final = "https://issuer.example/"
DAY: Final = 86_400.0


def caller(**fields: Any) -> Principal:
    """A person's token in the hands of an agent, with everything in it that a revocation can name."""
    stated: dict[str, Any] = {
        "issuer": ISSUER,
        "subject": "alice",
        "subject_kind": "human",
        "kind": "agent",
        "actors": (Actor("agent-7"), Actor("agent-1", issuer="https://other.example/")),
        "client": "web-shop",
        "task": "audit-42",
        "transaction": "txn-1",
        "token_id": "jti-1",
        "key_id": "key-1",
        "issued_at": NOW - 10,
        "expires_at": NOW + 290,
    }
    return Principal(**{**stated, **fields})


def revocation(scope: Scope, value: str | None = None, **fields: Any) -> Revocation:
    """A revocation made at NOW."""
    stated: dict[str, Any] = {"reason": "drill", "owner": "security@example.com", "source": "test", "now": NOW}
    return new_revocation(scope, value=value, **{**stated, **fields})


def subject(value: str = "alice", **fields: Any) -> Revocation:
    """A revocation of a subject of ISSUER."""
    return revocation(Scope.SUBJECT, value, **{"issuer": ISSUER, **fields})


def refusing(**stores: Any) -> RevocationSettings:
    """Settings that refuse everything while revocations cannot be read."""
    return RevocationSettings(on_unavailable=UnavailableSettings(OnUnavailable("deny")), **stores)


def relying(max_age: float, **stores: Any) -> RevocationSettings:
    """Settings that decide `report:read` by what was known last, for `max_age` seconds, and refuse everything else."""
    actions = {"report:read": OnUnavailable("last_known", max_age)}
    return RevocationSettings(on_unavailable=UnavailableSettings(OnUnavailable("deny"), actions), **stores)
