"""A policy in force: compiled, versioned, unchanging. A request takes one and keeps it from start to end."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from authz_middleware.policy.rule_set import RuleSet, RuleTable, Version


class Snapshot(RuleSet):
    """A compiled policy: its own rules, and the named, narrower rule sets that a `degrade` fallback decides by.

    `sensitive_actions` are the action patterns of its sensitive permit rules.
    """

    __slots__ = ("rule_sets", "sensitive_actions")

    rule_sets: Mapping[str, RuleSet]
    sensitive_actions: frozenset[str]

    def __init__(
        self,
        version: Version,
        table: RuleTable,
        rule_sets: Mapping[str, RuleSet],
        sensitive_actions: frozenset[str],
    ) -> None:
        super().__init__(version, table)
        self._fix(rule_sets=MappingProxyType(dict(rule_sets)), sensitive_actions=sensitive_actions)

    @property
    def name(self) -> str:
        """The name of the policy."""
        return self._version.policy

    @property
    def owner(self) -> str:
        """Who answers for the policy."""
        return self._version.owner

    @property
    def revision(self) -> str:
        """The SHA-256, in hex, of what the policy says."""
        return self._version.revision

    @property
    def serial(self) -> int | None:
        """The number under which the policy was issued, if it was."""
        return self._version.serial

    def __repr__(self) -> str:
        return f"<Snapshot {self.name} {self.revision[:12]} serial={self.serial}>"
