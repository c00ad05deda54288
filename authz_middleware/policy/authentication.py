"""Reads the `authentication:` of a rule: how the person behind the token must have authenticated."""

from __future__ import annotations

from typing import Final

from authz_middleware.policy.nodes import Node
from authz_middleware.policy.reading import Reading
from authz_middleware.policy.wording import shown
from authz_middleware.step_up import ACCEPTED_AGE, StepUp, parse_max_age

KEYS: Final = ("acr", "max_age")


def read_authentication(node: Node | None, reading: Reading, label: str) -> StepUp | None:
    """What a rule asks of the authentication, as far as it could be read; None when it asks for nothing."""
    if node is None:
        return None
    label = f"{label}: 'authentication'"
    entries = reading.fields(node, label, (), KEYS)
    if not entries and node.value != {}:
        return None
    found = StepUp(_acr(entries.get("acr"), reading, label), _max_age(entries.get("max_age"), reading, label))
    # What is written and could not be read has been reported; that nothing is asked is a mistake of its own.
    return None if entries and found == StepUp() else found


def _acr(node: Node | None, reading: Reading, label: str) -> tuple[str, ...]:
    if node is None:
        return ()
    if isinstance(node.value, list):
        if not node.value:
            reading.problem(node.line, f"{label}: 'acr' must not be an empty list")
        return reading.texts(node, f"{label}: 'acr'")
    value = reading.text(node, f"{label}: 'acr'")
    return () if value is None else (value,)


def _max_age(node: Node | None, reading: Reading, label: str) -> int | None:
    age = None if node is None else parse_max_age(node.value)
    if node is not None and age is None:
        reading.problem(node.line, f"{label}: 'max_age' must be {ACCEPTED_AGE}, not {shown(node.plain)}")
    return age
