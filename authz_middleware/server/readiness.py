"""Whether a decision point can do its work: decide by a policy, and keep the records of its decisions."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from authz_middleware.record.recorder import Recorder
from authz_middleware.server.exchange import Reply, encode
from authz_middleware.server.policy import ServedPolicy

STUCK_S: Final = 2.0
"""How long records may wait without a single one being written."""
HOLD_S: Final = 5.0
"""For how long a record that was lost counts against the sink: then it is tried again."""

_READY: Final = Reply(200, encode({"status": "ready"}))


class Readiness:
    """Answers `/readyz`. `monotonic` gives seconds."""

    def __init__(
        self, policy: ServedPolicy, recorder: Recorder | None, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._policy = policy
        self._recorder = recorder
        self._monotonic = monotonic
        self._written = 0
        self._lost = 0
        self._waiting_since: float | None = None
        self._lost_at: float | None = None

    def reply(self) -> Reply:
        """200, or 503 and what is missing."""
        if self._policy.in_force is None:
            return _unready("no policy is in force")
        if self._recorder is not None and not self._records(self._recorder):
            return _unready("decisions cannot be recorded")
        return _READY

    def _records(self, recorder: Recorder) -> bool:
        now, counters = self._monotonic(), recorder.counters
        lost = counters.dropped + counters.failed
        if lost > self._lost:
            self._lost, self._lost_at = lost, now
        if counters.submitted == counters.written + lost:
            self._waiting_since = None
        elif self._waiting_since is None or counters.written > self._written:
            self._waiting_since = now
        self._written = counters.written
        is_lossy = self._lost_at is not None and now - self._lost_at < HOLD_S
        return not is_lossy and (self._waiting_since is None or now - self._waiting_since < STUCK_S)


def _unready(why: str) -> Reply:
    return Reply(503, encode({"status": why}), ((b"retry-after", b"1"),))
