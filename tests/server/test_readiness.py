"""Readiness as time goes by: records that wait, records that are lost, and when it is tried again."""

from __future__ import annotations

import pytest

from authz_middleware.record.recorder import Counters
from authz_middleware.server.policy import ServedPolicy
from authz_middleware.server.readiness import HOLD_S, STUCK_S, Readiness
from tests.support.decision_point_app import served

POLICY = "policy: p\nowner: o@example.com\nrules: []\n"


class Log:
    """The counters of a recorder, as a test has them."""

    def __init__(self) -> None:
        self.counters = Counters(0, 0, 0, 0)

    def are(self, submitted: int, written: int, dropped: int = 0, failed: int = 0) -> None:
        self.counters = Counters(submitted, written, dropped, failed)


class Watch:
    def __init__(self) -> None:
        self.now = 1000.0
        self.log = Log()
        self._readiness = Readiness(served(POLICY), self.log, lambda: self.now)  # type: ignore[arg-type]  # only counters are read

    def status(self, after: float = 0.0) -> int:
        self.now += after
        return self._readiness.reply().status


@pytest.mark.capability("C48")
def test_without_a_policy_it_is_not_ready() -> None:
    reply = Readiness(ServedPolicy(), None).reply()
    assert (reply.status, dict(reply.headers)) == (503, {b"retry-after": b"1"})


def test_records_that_are_written_in_time_keep_it_ready() -> None:
    watch = Watch()
    assert watch.status() == 200
    watch.log.are(5, 0)
    assert watch.status(3600) == 200
    watch.log.are(9, 5)
    assert watch.status(STUCK_S) == 200
    watch.log.are(9, 9)
    assert watch.status(STUCK_S) == 200


def test_records_that_wait_too_long_do_not() -> None:
    watch = Watch()
    watch.log.are(5, 0)
    assert watch.status() == 200
    assert watch.status(STUCK_S) == 503
    watch.log.are(5, 5)
    assert watch.status() == 200


@pytest.mark.parametrize("lost", [{"dropped": 1}, {"failed": 1}])
def test_a_lost_record_counts_for_a_while(lost: dict[str, int]) -> None:
    watch = Watch()
    watch.log.are(1, 0, **lost)
    assert watch.status() == 503
    assert watch.status(HOLD_S - 0.1) == 503
    assert watch.status(0.1) == 200
