"""A small policy for a decision point in another process, a question that it permits, and patience."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

POLICY: Final = """
policy: billing
owner: payments@example.com
rules:
  - rule: refund
    permit: invoice:refund
    sensitive: true
    when: {subject.roles: {has: cashier}}
"""
REFUND: Final[dict[str, Any]] = {
    "subject": {"type": "human", "id": "alice", "properties": {"roles": ["cashier"]}},
    "action": {"name": "invoice:refund"},
    "resource": {"type": "invoice", "id": "17"},
    "context": {"method": "POST"},
}


def until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait for something that another process does."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)
