"""Our own decision point within the test's process, over a policy that is given as text."""

from __future__ import annotations

from typing import Any

import httpx

from authz_middleware.policy.document import parse_policy
from authz_middleware.server.app import DecisionPointApp
from authz_middleware.server.policy import ServedPolicy

BASE_URL = "https://pdp.test/authz"


def served(text: str) -> ServedPolicy:
    """This policy, in force."""
    policy = ServedPolicy()
    policy.put_in_force(parse_policy(text, "policy.yaml"))
    return policy


def client_of(policy: ServedPolicy, **options: Any) -> httpx.AsyncClient:
    """A client of a decision point that answers by this policy."""
    app = DecisionPointApp(policy, **{"base_url": BASE_URL, **options})
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://whatever.test")
