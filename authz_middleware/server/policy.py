"""The policy that a decision point answers by: the snapshot in force, and what can be searched among under it."""

from __future__ import annotations

import hashlib

import msgspec

from authz_middleware.errors import PolicyError, Problem
from authz_middleware.policy.document import decode_policy, load_bytes, parse_policy
from authz_middleware.policy.memory import give_back
from authz_middleware.policy.model import Policy
from authz_middleware.policy.snapshot import Snapshot
from authz_middleware.policy.store import SnapshotStore, build_snapshot
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

    def put_in_force(self, policy: Policy) -> None:
        """Compile a policy, run its tests and decide by it from now on. Raises PolicyError, and nothing has changed."""
        snapshot = build_snapshot(policy)
        self.activate(snapshot)
        # One assignment: a reader sees the old one or the new one, never a mixture.
        self._in_force = InForce(snapshot, vocabulary_of(policy.rules))

    def reload(self) -> bool:
        """Read the file again; True when a new policy came into force, False when the content is the same.

        Raises PolicyError when it cannot be read, or is not a policy without problems. Then nothing has changed.
        """
        if self.source is None:
            raise PolicyError([Problem("policy", "has no file to be read from")])
        with self._loading:
            data = load_bytes(self.source)
            digest = hashlib.sha256(data).digest()
            if digest == self._digest:
                return False
            name = self.source.name
            policy = parse_policy(decode_policy(data, name), name)
            self.put_in_force(policy)
            self._digest = digest
            rules = [*policy.rules]
            del policy
            give_back(rules)
            return True
