"""Holds the snapshot in force, and replaces it only by one that was read, compiled and self-tested without a fault."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from authz_middleware.errors import PolicyError, Problem
from authz_middleware.forking import renew_in_children
from authz_middleware.policy.cases import run_cases
from authz_middleware.policy.compiler import compile_policy
from authz_middleware.policy.document import decode_policy, load_bytes, parse_policy
from authz_middleware.policy.memory import give_back
from authz_middleware.policy.model import Policy
from authz_middleware.policy.snapshot import Snapshot


class SnapshotStore:
    """The snapshot in force. Readers take `current` once a request and keep it; they need no lock."""

    def __init__(
        self, source: Path | None = None, *, check: Callable[[Snapshot], Iterable[Problem]] | None = None
    ) -> None:
        """`source` is the policy file that `reload` reads; nothing is read before `reload` is called. `check` names
        what stands against a snapshot in this application."""
        self.source = source
        self._check = check
        self._current: Snapshot | None = None
        self._activated_at = 0.0
        self._digest: bytes | None = None
        self.renew_after_fork()
        renew_in_children(self)

    def renew_after_fork(self) -> None:
        """A lock that nobody holds: the thread that held it stayed in the parent."""
        self._loading = threading.Lock()

    @property
    def current(self) -> Snapshot | None:
        """The snapshot in force; None before the first one, when every request has to be refused."""
        return self._current

    def activate(self, snapshot: Snapshot) -> None:
        """Put a snapshot in force. One assignment: a reader sees the old one or the new one, never a mixture."""
        self._activated_at = time.monotonic()
        self._current = snapshot

    def put_in_force(self, policy: Policy) -> Snapshot:
        """Compile a policy, run its tests and decide by it from now on.

        Raises PolicyError when it fails its tests, or `check` has something against it. Then nothing has changed.
        """
        snapshot = build_snapshot(policy)
        problems = tuple(self._check(snapshot)) if self._check else ()
        if problems:
            raise PolicyError(problems)
        self.activate(snapshot)
        return snapshot

    @property
    def age(self) -> float | None:
        """For how many seconds the snapshot has been in force; None before the first one."""
        return None if self._current is None else time.monotonic() - self._activated_at

    def reload(self) -> bool:
        """Read the source again; True when a new snapshot came into force, False when the content is the same.

        Raises PolicyError when the file cannot be read, when what it says has a problem or fails its own tests, or when
        `check` has something against it. Then nothing has changed.
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


def build_snapshot(policy: Policy, *, serial: int | None = None) -> Snapshot:
    """Compile a policy and run its own tests. Raises PolicyError; what it returns may be put in force."""
    snapshot = compile_policy(policy, serial=serial)
    failures = run_cases(policy, snapshot)
    if failures:
        raise PolicyError(
            Problem(f"{policy.file}:{failure.line}" if failure.line else policy.file, str(failure))
            for failure in failures
        )
    return snapshot
