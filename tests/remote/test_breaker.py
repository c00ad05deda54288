"""The breaker: when it opens, when it lets one through, and that a probe is never lost."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from authz_middleware.remote.breaker import Breaker, BreakerState
from authz_middleware.settings.remote.decision_point import BreakerSettings

pytestmark = pytest.mark.capability("C34")

SETTINGS = BreakerSettings(failures=3, pause=5.0)


def opened(now: float = 0.0, jitter: float = 0.0) -> Breaker:
    breaker = Breaker(SETTINGS, random=lambda: jitter)
    for _ in range(SETTINGS.failures):
        breaker.fail(now)
    return breaker


def test_a_closed_breaker_lets_everybody_through() -> None:
    breaker = Breaker(SETTINGS)
    assert all(breaker.admit(0.0) for _ in range(100))


def test_it_opens_after_so_many_failures_in_a_row() -> None:
    breaker = Breaker(SETTINGS)
    breaker.fail(0.0)
    breaker.fail(0.0)
    assert breaker.state is BreakerState.CLOSED
    breaker.fail(0.0)
    assert breaker.state is BreakerState.OPEN
    assert not breaker.admit(0.0)


def test_an_answer_in_between_starts_the_count_anew() -> None:
    breaker = Breaker(SETTINGS)
    for _ in range(10):
        breaker.fail(0.0)
        breaker.fail(0.0)
        breaker.succeed(0.0)
    assert breaker.state is BreakerState.CLOSED


def test_it_stays_open_for_the_pause() -> None:
    breaker = opened()
    assert not breaker.admit(4.999)
    assert breaker.admit(5.0)


def test_the_pause_is_stretched_by_up_to_a_fifth() -> None:
    breaker = opened(jitter=0.5)
    assert not breaker.admit(5.49)
    assert breaker.admit(5.5)


def test_a_half_open_breaker_lets_one_probe_through() -> None:
    breaker = opened()
    assert breaker.admit(5.0)
    assert breaker.state is BreakerState.HALF_OPEN
    assert not any(breaker.admit(5.0) for _ in range(100))


def test_of_many_threads_one_is_the_probe() -> None:
    breaker = opened()
    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(lambda _: breaker.admit(5.0), range(200))) == 1


def test_a_probe_that_is_answered_closes_it() -> None:
    breaker = opened()
    breaker.admit(5.0)
    breaker.succeed(5.1)
    assert breaker.state is BreakerState.CLOSED
    assert breaker.admit(5.1)


def test_after_closing_it_takes_as_many_failures_again() -> None:
    breaker = opened()
    breaker.admit(5.0)
    breaker.succeed(5.1)
    breaker.fail(5.2)
    assert breaker.state is BreakerState.CLOSED


def test_a_failed_probe_leaves_it_open_for_another_pause() -> None:
    breaker = opened()
    breaker.admit(5.0)
    breaker.fail(5.2)
    assert not breaker.admit(10.1)
    assert breaker.admit(10.2)


def test_a_probe_that_was_given_up_frees_its_slot_at_once() -> None:
    breaker = opened()
    breaker.admit(5.0)
    breaker.abandon(5.1)
    assert breaker.admit(5.1)


def test_giving_up_in_a_closed_breaker_changes_nothing() -> None:
    breaker = Breaker(SETTINGS)
    breaker.fail(0.0)
    breaker.fail(0.0)
    breaker.abandon(0.0)
    breaker.fail(0.0)
    assert breaker.state is BreakerState.OPEN


def test_a_probe_that_nobody_reports_on_is_replaced_after_a_pause() -> None:
    breaker = opened()
    breaker.admit(5.0)
    assert not breaker.admit(9.9)
    assert breaker.admit(10.0)


def test_an_answer_that_was_asked_for_before_it_opened_does_not_close_it() -> None:
    breaker = opened()
    breaker.succeed(0.1)
    assert breaker.state is BreakerState.OPEN


def test_a_failure_while_open_does_not_make_the_pause_longer() -> None:
    breaker = opened()
    breaker.fail(4.0)
    assert breaker.admit(5.0)


class OneProbeAtATime(RuleBasedStateMachine):
    """Whatever happens in whatever order: open admits nobody, half-open one, and after a pause somebody."""

    @initialize()
    def start(self) -> None:
        self.now = 0.0
        self.probes = 0
        self.breaker = Breaker(SETTINGS, random=lambda: 0.0)

    @rule(seconds=st.floats(0.0, 4.0))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def ask(self) -> None:
        before = self.breaker.state
        admitted = self.breaker.admit(self.now)
        if before is BreakerState.CLOSED:
            assert admitted
        elif admitted:
            self.last_probe = self.now
            assert self.breaker.state is BreakerState.HALF_OPEN

    @rule(outcome=st.sampled_from(["succeed", "fail", "abandon"]))
    def report(self, outcome: str) -> None:
        getattr(self.breaker, outcome)(self.now)

    @precondition(lambda self: self.breaker.state is not BreakerState.CLOSED)
    @rule()
    def after_a_pause_somebody_is_let_in(self) -> None:
        self.now += SETTINGS.pause
        assert self.breaker.admit(self.now)
        assert not self.breaker.admit(self.now)

    @invariant()
    def it_has_a_state(self) -> None:
        assert self.breaker.state in BreakerState


TestOneProbeAtATime = OneProbeAtATime.TestCase
TestOneProbeAtATime.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
