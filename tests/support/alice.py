"""Alice and her questions, with as little said as a test of the engine needs."""

from __future__ import annotations

from typing import Any

from authz_middleware.facts import RequestFacts
from authz_middleware.identity.principal import Principal
from authz_middleware.permission import Permission
from authz_middleware.question import Question
from authz_middleware.resource import Resource

NOW = 1_780_000_000.0


def alice(**members: Any) -> Principal:
    """Alice of production, with a token that is valid for five minutes from NOW."""
    given = {
        "issuer": "https://issuer.example/",
        "subject": "alice",
        "environment": "production",
        "issued_at": NOW,
        "expires_at": NOW + 300,
        **members,
    }
    return Principal(**given)


def asks(
    action: str = "invoice:read",
    *,
    now: float = NOW,
    resource: Resource | None = None,
    who: dict[str, Any] | None = None,
    **permission: Any,
) -> Question:
    """A question of Alice's about an invoice; `permission` are members of the route's permission."""
    return Question(
        principal=alice(**(who or {})),
        permission=Permission(action=action, **permission),
        resource=resource or Resource("invoice", "1"),
        facts=RequestFacts(method="GET", route="/invoices/{id}", endpoint="app:read"),
        environment="production",
        now=now,
    )
