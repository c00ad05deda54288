"""The breaker: when it opens, when it lets one through, and that a probe is never lost."""

from __future__ import annotations

import logging
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Thread

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from authz_middleware.remote.breaker import Breaker, BreakerReading, BreakerState
from authz_middleware.settings.remote.decision_point import BreakerSettings

pytestmark = pytest.mark.capability("C34")

SETTINGS = BreakerSettings(failures=3, pause=5.0)


def failed(breaker: Breaker, now: float = 0.0, trigger: str = "deadline") -> None:
    """Ask, and have it not answer."""
    ticket = breaker.admit(now)
    assert ticket
    breaker.fail(now, ticket, trigger)


def tell(breaker: Breaker, report: str, now: float, ticket: int) -> None:
    """Report in one of the three ways."""
    if report == "fail":
        breaker.fail(now, ticket, "deadline")
    else:
        getattr(breaker, report)(now, ticket)


def opened(now: float = 0.0, jitter: float = 0.0) -> Breaker:
    breaker = Breaker(SETTINGS, random=lambda: jitter)
    for _ in range(SETTINGS.failures):
        failed(breaker, now)
    return breaker


def probing(now: float = 5.0) -> tuple[Breaker, int]:
    """A half-open breaker, and the ticket of its probe."""
    breaker = opened()
    return breaker, breaker.admit(now)


def test_a_closed_breaker_lets_everybody_through() -> None:
    breaker = Breaker(SETTINGS)
    assert all(breaker.admit(0.0) for _ in range(100))


def test_it_opens_after_so_many_failures_in_a_row() -> None:
    breaker = Breaker(SETTINGS)
    failed(breaker)
    failed(breaker)
    assert breaker.admit(0.0)
    failed(breaker)
    assert breaker.state is BreakerState.OPEN
    assert not breaker.admit(0.0)


def test_an_answer_in_between_starts_the_count_anew() -> None:
    breaker = Breaker(SETTINGS)
    for _ in range(10):
        failed(breaker)
        failed(breaker)
        breaker.succeed(0.0, breaker.admit(0.0))
    assert breaker.state is BreakerState.CLOSED


def test_it_stays_open_for_the_pause() -> None:
    breaker = opened()
    assert not breaker.admit(4.999)
    assert breaker.admit(5.0)


def test_the_pause_is_stretched_by_up_to_a_fifth() -> None:
    breaker = opened(jitter=0.5)
    assert not breaker.admit(5.49)
    assert breaker.admit(5.5)


def test_breakers_that_open_together_do_not_end_their_pauses_together() -> None:
    fleet = [Breaker(SETTINGS) for _ in range(50)]
    for breaker in fleet:
        for _ in range(SETTINGS.failures):
            failed(breaker)
    pauses = {breaker.reading(0.0).asks_again_in for breaker in fleet}
    assert len(pauses) > 25
    assert all(pause is not None and 5.0 <= pause <= 6.0 for pause in pauses)


def test_a_half_open_breaker_lets_one_probe_through() -> None:
    breaker, ticket = probing()
    assert ticket
    assert breaker.state is BreakerState.HALF_OPEN
    assert not any(breaker.admit(5.0) for _ in range(100))


def test_of_many_threads_one_is_the_probe() -> None:
    breaker = opened()
    with ThreadPoolExecutor(16) as pool:
        assert sum(map(bool, pool.map(lambda _: breaker.admit(5.0), range(200)))) == 1


def test_a_probe_that_is_answered_closes_it() -> None:
    breaker, ticket = probing()
    breaker.succeed(5.1, ticket)
    assert breaker.state is BreakerState.CLOSED
    assert breaker.admit(5.1)


def test_after_closing_it_takes_as_many_failures_again() -> None:
    breaker, ticket = probing()
    breaker.succeed(5.1, ticket)
    failed(breaker, 5.2)
    assert breaker.state is BreakerState.CLOSED


def test_a_failed_probe_leaves_it_open_for_another_pause() -> None:
    breaker, ticket = probing()
    breaker.fail(5.2, ticket, "deadline")
    assert not breaker.admit(10.1)
    assert breaker.admit(10.2)


def test_a_probe_that_was_given_up_frees_its_slot_at_once() -> None:
    breaker, ticket = probing()
    breaker.abandon(5.1, ticket)
    assert breaker.admit(5.1)


def test_giving_up_in_a_closed_breaker_changes_nothing() -> None:
    breaker = Breaker(SETTINGS)
    failed(breaker)
    failed(breaker)
    breaker.abandon(0.0, breaker.admit(0.0))
    failed(breaker)
    assert breaker.state is BreakerState.OPEN


def test_a_probe_that_nobody_reports_on_is_replaced_after_a_pause() -> None:
    breaker, _ = probing()
    assert not breaker.admit(9.9)
    assert breaker.admit(10.0)


def late(report: str) -> tuple[Breaker, int]:
    """Half-open, after somebody who had asked before it opened reported, after the probe went out."""
    breaker = Breaker(SETTINGS, random=lambda: 0.0)
    early = breaker.admit(0.0)
    for _ in range(SETTINGS.failures):
        failed(breaker)
    probe = breaker.admit(5.0)
    tell(breaker, report, 5.1, early)
    return breaker, probe


@pytest.mark.parametrize("report", ["succeed", "fail", "abandon"])
def test_what_was_asked_before_it_opened_says_nothing_while_it_is_open(report: str) -> None:
    breaker = Breaker(SETTINGS, random=lambda: 0.0)
    early = breaker.admit(0.0)
    for _ in range(SETTINGS.failures):
        failed(breaker)
    tell(breaker, report, 4.0, early)
    assert breaker.state is BreakerState.OPEN
    assert not breaker.admit(4.9)
    assert breaker.admit(5.0)


@pytest.mark.parametrize("report", ["succeed", "fail", "abandon"])
def test_what_was_asked_before_it_opened_lets_no_second_probe_through(report: str) -> None:
    breaker, _ = late(report)
    assert breaker.state is BreakerState.HALF_OPEN
    assert not breaker.admit(5.2)


@pytest.mark.parametrize("report", ["succeed", "fail", "abandon"])
def test_what_was_asked_before_it_opened_does_not_undo_the_success_of_a_probe(report: str) -> None:
    breaker, probe = late(report)
    breaker.succeed(5.2, probe)
    assert breaker.state is BreakerState.CLOSED


def test_failures_of_before_it_opened_do_not_count_after_it_has_closed() -> None:
    breaker = Breaker(SETTINGS, random=lambda: 0.0)
    early = [breaker.admit(0.0) for _ in range(2 * SETTINGS.failures)]
    for ticket in early[: SETTINGS.failures]:
        breaker.fail(0.0, ticket, "deadline")
    breaker.succeed(5.1, breaker.admit(5.0))
    for ticket in early[SETTINGS.failures :]:
        breaker.fail(5.2, ticket, "deadline")
    assert breaker.state is BreakerState.CLOSED
    assert breaker.reading(5.2).failures == 0


def test_a_probe_that_reports_after_it_was_replaced_changes_nothing() -> None:
    breaker, lost = probing()
    breaker.admit(10.0)
    breaker.abandon(10.1, lost)
    assert not breaker.admit(10.1)


@pytest.mark.capability("C48")
def test_its_reading_tells_an_operator_what_it_does_and_for_how_long() -> None:
    breaker = Breaker(SETTINGS, random=lambda: 0.0)
    failed(breaker, 1.0)
    assert breaker.reading(1.0) == BreakerReading(BreakerState.CLOSED, 1)
    failed(breaker, 2.0)
    failed(breaker, 3.0, "connect")
    assert breaker.reading(4.0) == BreakerReading(BreakerState.OPEN, 3, 1.0, 4.0, "connect")
    assert breaker.reading(99.0) == BreakerReading(BreakerState.OPEN, 3, 96.0, 0.0, "connect")
    probe = breaker.admit(100.0)
    assert breaker.reading(101.0) == BreakerReading(BreakerState.HALF_OPEN, 3, 98.0, 4.0, "connect")
    breaker.fail(102.0, probe, "deadline")
    assert breaker.reading(102.0) == BreakerReading(BreakerState.OPEN, 4, 99.0, 5.0, "deadline")
    breaker.succeed(108.0, breaker.admit(107.0))
    assert breaker.reading(109.0) == BreakerReading(BreakerState.CLOSED, 0)


def told(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [(record.levelname, record.getMessage()) for record in caplog.records]


@pytest.mark.capability("C48")
def test_an_outage_is_logged_once_when_it_begins_and_once_when_it_ends(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "authz")
    breaker = Breaker(SETTINGS, name="the point", random=lambda: 0.5)
    for _ in range(SETTINGS.failures):
        failed(breaker, 1.0, "connect")
    for moment in (10.0, 20.0, 30.0):  # probes that fail
        failed(breaker, moment)
    breaker.succeed(41.0, breaker.admit(40.0))
    breaker.succeed(42.0, breaker.admit(42.0))
    assert told(caplog) == [
        ("WARNING", "the point failed 3 times in a row (connect the last time) and is left alone for 5.5 s at a time"),
        ("INFO", "the point answers again, after 40.0 s"),
    ]


def test_it_logs_without_holding_its_lock(caplog: pytest.LogCaptureFixture) -> None:
    breaker = Breaker(SETTINGS)
    seen: list[bool] = []

    class Looks(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(breaker._lock.locked())

    handler, logger = Looks(), logging.getLogger("authz")
    logger.addHandler(handler)
    try:
        with caplog.at_level("INFO", "authz"):
            for _ in range(SETTINGS.failures):
                failed(breaker)
            breaker.succeed(10.0, breaker.admit(10.0))
    finally:
        logger.removeHandler(handler)
    assert seen == [False, False]


def test_who_comes_while_it_is_just_closing_is_not_taken_for_a_probe() -> None:
    breaker, _ = probing()
    with ThreadPoolExecutor(1) as pool:
        with breaker._lock:
            late = pool.submit(breaker.admit, 20.0)
            time.sleep(0.05)  # it waits for the lock
            breaker._become(BreakerState.CLOSED)
        assert late.result(5)
    assert breaker.state is BreakerState.CLOSED


def test_a_closed_breaker_takes_no_lock_for_a_question_that_is_answered() -> None:
    breaker = Breaker(SETTINGS)
    asking = Thread(target=lambda: breaker.succeed(0.0, breaker.admit(0.0)), daemon=True)
    with breaker._lock:
        asking.start()
        asking.join(5)
        assert not asking.is_alive()


class OneProbeAtATime(RuleBasedStateMachine):
    """Whatever happens in whatever order: open admits nobody, half-open one, and after a pause somebody."""

    @initialize()
    def start(self) -> None:
        self.now = 0.0
        self.breaker = Breaker(SETTINGS, random=lambda: 0.0)
        self.tickets: list[int] = []
        self.probe: tuple[int, float] | None = None
        """The ticket of the probe that is under way, and when it went out."""

    @rule(seconds=st.integers(0, 4))
    def wait(self, seconds: int) -> None:
        self.now += seconds

    @rule()
    def ask(self) -> None:
        before = self.breaker.state
        ticket = self.breaker.admit(self.now)
        if before is BreakerState.CLOSED:
            assert ticket
        elif ticket:
            assert self.breaker.state is BreakerState.HALF_OPEN
            assert self.probe is None or self.now >= self.probe[1] + SETTINGS.pause
            self.probe = ticket, self.now
        if ticket:
            self.tickets.append(ticket)

    @precondition(lambda self: self.tickets)
    @rule(outcome=st.sampled_from(["succeed", "fail", "abandon"]), which=st.integers(0, 100))
    def report(self, outcome: str, which: int) -> None:
        ticket = self.tickets.pop(which % len(self.tickets))
        before = self.breaker.state
        tell(self.breaker, outcome, self.now, ticket)
        if self.probe is not None and ticket == self.probe[0]:
            self.probe = None
        elif before is not BreakerState.CLOSED:
            assert self.breaker.state is before

    @precondition(lambda self: self.breaker.state is not BreakerState.CLOSED)
    @rule()
    def after_a_pause_somebody_is_let_in(self) -> None:
        self.now += SETTINGS.pause
        ticket = self.breaker.admit(self.now)
        assert ticket
        assert not self.breaker.admit(self.now)
        self.probe = ticket, self.now
        self.tickets.append(ticket)

    @invariant()
    def its_reading_agrees_with_its_state(self) -> None:
        reading = self.breaker.reading(self.now)
        assert reading.state is self.breaker.state
        assert (reading.asks_again_in is None) is (reading.state is BreakerState.CLOSED)
        assert reading.asks_again_in is None or 0.0 <= reading.asks_again_in <= SETTINGS.pause


TestOneProbeAtATime = OneProbeAtATime.TestCase
TestOneProbeAtATime.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
