"""The settings as frozen, typed values. Every duration is in seconds, every limit says its unit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec

from authz_middleware.decision import FallbackMode
from authz_middleware.settings.secret import Secret

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


class BreakerSettings(msgspec.Struct, frozen=True):
    """After `failures` failures in a row the decision point is left alone for `pause` seconds."""

    failures: int = 5
    pause: float = 5.0


class RemoteSettings(msgspec.Struct, frozen=True):
    """The decision point. `deadline` is the whole time, in seconds, that one question may take."""

    url: str
    deadline: float = 0.2
    credential: Secret | None = None
    ca_file: Path | None = None
    max_connections: int = 64
    permit_ttl: float = 0.0
    deny_ttl: float = 0.0
    cache_size: int = 10_000
    breaker: BreakerSettings = BreakerSettings()


class FallbackChoice(msgspec.Struct, frozen=True):
    """What happens to one kind of action when the decision point does not answer."""

    mode: FallbackMode
    max_stale: float = 0.0
    rules: str | None = None


class FallbackSettings(msgspec.Struct, frozen=True):
    """The chosen fallbacks, by action pattern; there is no built-in default."""

    default: FallbackChoice | None = None
    actions: Mapping[str, FallbackChoice] = {}

    def choice_for(self, action: str) -> FallbackChoice | None:
        """The choice of the longest pattern that covers this action (or action pattern), else the default."""
        exact = self.actions.get(action)
        if exact is not None:
            return exact
        fitting = [pattern for pattern in self.actions if covers(pattern, action)]
        return self.actions[max(fitting, key=len)] if fitting else self.default


class DecisionLogSettings(msgspec.Struct, frozen=True):
    """Where records go and what happens when they cannot be written: `best_effort` drops and counts,
    `blocking` waits for room and then refuses, `required` waits until the record is written."""

    mode: RecordMode = "blocking"
    sink: str = "stdout"
    queue: int = 10_000
    max_wait: float = 1.0
