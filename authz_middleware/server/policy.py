"""The policy that a decision point answers by: the snapshot in force, and what can be searched among under it."""

from __future__ import annotations

import msgspec

from authz_middleware.policy.model import Policy
from authz_middleware.policy.snapshot import Snapshot
from authz_middleware.policy.store import SnapshotStore
from authz_middleware.server.vocabulary import Vocabulary, vocabulary_of


class InForce(msgspec.Struct, frozen=True):
    """One policy, whole. A request takes one and keeps it from start to end."""

    snapshot: Snapshot
    vocabulary: Vocabulary


class ServedPolicy(SnapshotStore):
    """A snapshot store that keeps what a search needs beside the snapshot: an application has no use for that."""

    _in_force: InForce | None = None

    @property
    def in_force(self) -> InForce | None:
        """The policy in force; None before the first one, when nothing is decided."""
        return self._in_force

    def put_in_force(self, policy: Policy) -> Snapshot:
        """Decide by a policy from now on, and search among what it names. Raises PolicyError."""
        vocabulary = vocabulary_of(policy.rules)
        snapshot = super().put_in_force(policy)
        # One assignment: a reader sees the old one or the new one, never a mixture.
        self._in_force = InForce(snapshot, vocabulary)
        return snapshot
