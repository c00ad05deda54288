"""Patterns of actions in the settings: `invoice:read`, `invoice:*`, `*`."""

from __future__ import annotations

from authz_middleware.permission import ACTION_NAME
from authz_middleware.settings.section import Section


def check_action_pattern(section: Section, key: str, pattern: str) -> None:
    """Report a pattern that covers no action, or more than it seems to."""
    if pattern != "*" and not ACTION_NAME.fullmatch(pattern.removesuffix(":*")):
        section.problem(key, f"has {pattern!r}; accepted: an action (invoice:read), all below one (invoice:*), or *")
