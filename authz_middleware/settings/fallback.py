"""The table `[fallback]`: what happens to a sensitive action when the decision point does not answer."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from authz_middleware.decision import FallbackMode
from authz_middleware.settings.action_patterns import check_action_pattern
from authz_middleware.settings.model import covers
from authz_middleware.settings.section import Section


class FallbackChoice(msgspec.Struct, frozen=True):
    """What happens to one kind of action when the decision point does not answer.

    `max_stale` is in seconds. `on_faults` says that it happens as well when something answers, but not as a decision
    point does; without it that refuses.
    """

    mode: FallbackMode
    max_stale: float = 0.0
    rules: str | None = None
    on_faults: bool = False


class FallbackSettings(msgspec.Struct, frozen=True):
    """The chosen fallbacks, by action pattern; there is no built-in default."""

    default: FallbackChoice | None = None
    actions: Mapping[str, FallbackChoice] = {}
    degraded_header: bool = True
    """Whether a response that narrower rules permitted says so: `Authz-Degraded: true`."""

    def choice_for(self, action: str) -> FallbackChoice | None:
        """The choice of the longest pattern that covers this action (or action pattern), else the default."""
        exact = self.actions.get(action)
        if exact is not None:
            return exact
        fitting = [pattern for pattern in self.actions if covers(pattern, action)]
        return self.actions[max(fitting, key=len)] if fitting else self.default


def read_fallback(root: Section) -> FallbackSettings:
    """The table, empty where there is none."""
    section = root.table("fallback")
    default = section.choice("default", [mode.value for mode in FallbackMode], None)
    if default in (FallbackMode.DEGRADE, FallbackMode.CACHED):
        section.problem("default", 'must be "deny": the others have bounds and are chosen action by action')
    for pattern, entry in section.tables("actions"):
        check_action_pattern(entry, "", pattern)
    settings = FallbackSettings(
        default=None if default is None else FallbackChoice(FallbackMode(default)),
        actions={name: _choice(entry) for name, entry in section.tables("actions")},
        degraded_header=section.flag("degraded_header", True),
    )
    section.done()
    return settings


def _choice(section: Section) -> FallbackChoice:
    mode = section.choice("mode", [mode.value for mode in FallbackMode])
    max_stale, rules, on_faults = 0.0, None, False
    if mode == FallbackMode.CACHED:
        max_stale = section.duration("max_stale", least="1ms", most="1d")
    elif mode == FallbackMode.DEGRADE:
        rules = section.text("rules")
    if mode != FallbackMode.DENY:
        on_faults = section.flag("on_faults", False)
    section.done()
    return FallbackChoice(FallbackMode(mode or FallbackMode.DENY), max_stale, rules, on_faults)
