"""The settings as frozen, typed values. Every duration is in seconds, every limit says its unit."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

Mode = Literal["enforce", "observe"]
RecordMode = Literal["best_effort", "blocking", "required"]


def covers(pattern: str, name: str) -> bool:
    """Whether a pattern (`invoice:read`, `invoice:*`, `*`) covers a name or a narrower pattern."""
    return pattern == name or (pattern.endswith("*") and name.startswith(pattern[:-1]))


class AppSettings(msgspec.Struct, frozen=True):
    """The application: its name, the environment that tokens must not cross, and whether refusals refuse."""

    name: str
    environment: str
    mode: Mode = "enforce"
    sensitive: tuple[str, ...] = ()
    """Action patterns that ask the decision point whatever the policy and the annotation say."""


class PolicySettings(msgspec.Struct, frozen=True):
    """Where the policy comes from, and how often (seconds) a change of it is looked for; None: never."""

    source: Path
    allow_unsigned: bool = False
    refresh: float | None = None


class DecisionLogSettings(msgspec.Struct, frozen=True):
    """Where records go and what happens when they cannot be written: `best_effort` drops and counts,
    `blocking` waits for room and then refuses, `required` waits until the record is written."""

    mode: RecordMode = "blocking"
    sink: str = "stdout"
    queue: int = 10_000
    max_wait: float = 1.0
