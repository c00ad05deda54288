"""Promise P5: what is served from the cache never outlives any of its bounds."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from authz_middleware.remote.cache import DecisionCache
from authz_middleware.remote.failure import RemoteAnswer

pytestmark = [pytest.mark.capability("C32"), pytest.mark.promise("P5")]

PERMIT, DENY = RemoteAnswer(True), RemoteAnswer(False)
KEY = ("revision-1", "question")
NOW = 1000.0
LATER = 10_000.0


@pytest.fixture
def cache() -> DecisionCache:
    return DecisionCache(10)


def permit_of(cache: DecisionCache, now: float, bound: float = 60.0) -> bool | None:
    known = cache.stale(KEY, now, bound)
    return None if known is None else known.permit


def test_an_answer_is_remembered_with_its_age(cache: DecisionCache) -> None:
    cache.remember(KEY, PERMIT, NOW, LATER)
    known = cache.stale(KEY, NOW + 7, 60.0)
    assert known is not None
    assert (known.permit, known.age(NOW + 7)) == (True, 7.0)


@pytest.mark.parametrize(("after", "served"), [(0.0, True), (59.999, True), (60.0, None), (61.0, None)])
def test_an_answer_is_served_until_its_bound(cache: DecisionCache, after: float, served: bool | None) -> None:
    cache.remember(KEY, PERMIT, NOW, LATER)
    assert permit_of(cache, NOW + after) is served


@pytest.mark.parametrize(("after", "served"), [(29.9, True), (30.0, None), (31.0, None)])
def test_an_answer_is_never_served_past_the_token(cache: DecisionCache, after: float, served: bool | None) -> None:
    cache.remember(KEY, PERMIT, NOW, NOW + 30)
    assert permit_of(cache, NOW + after) is served
    known = cache.fresh(KEY, NOW + after, 60.0, 60.0)
    assert ((known is not None and known.permit) or None) is served


def test_an_answer_for_a_token_without_expiry_is_never_served(cache: DecisionCache) -> None:
    cache.remember(KEY, PERMIT, NOW, 0.0)
    assert permit_of(cache, NOW) is None


def test_a_clock_that_was_set_back_serves_nothing(cache: DecisionCache) -> None:
    cache.remember(KEY, PERMIT, NOW, LATER)
    assert permit_of(cache, NOW - 0.001) is None


def test_a_newer_deny_replaces_a_permit(cache: DecisionCache) -> None:
    cache.remember(KEY, PERMIT, NOW, LATER)
    cache.remember(KEY, DENY, NOW + 1, LATER)
    assert permit_of(cache, NOW + 2) is False


@pytest.mark.parametrize("late", [0.0, -1.0])
def test_a_permit_that_arrives_late_does_not_replace_a_deny(cache: DecisionCache, late: float) -> None:
    cache.remember(KEY, DENY, NOW, LATER)
    cache.remember(KEY, PERMIT, NOW + late, LATER)
    assert permit_of(cache, NOW + 1) is False


def test_a_deny_replaces_a_permit_even_after_the_clock_was_set_back(cache: DecisionCache) -> None:
    cache.remember(KEY, PERMIT, NOW, LATER)
    cache.remember(KEY, DENY, NOW - 50, LATER)
    assert permit_of(cache, NOW + 1) is False


def test_a_newer_permit_replaces_a_deny(cache: DecisionCache) -> None:
    cache.remember(KEY, DENY, NOW, LATER)
    cache.remember(KEY, PERMIT, NOW + 1, LATER)
    assert permit_of(cache, NOW + 2) is True


def test_permits_and_denies_are_fresh_for_times_of_their_own(cache: DecisionCache) -> None:
    other = ("revision-1", "other")
    cache.remember(KEY, PERMIT, NOW, LATER)
    cache.remember(other, DENY, NOW, LATER)
    assert cache.fresh(KEY, NOW + 1, permit_ttl=2.0, deny_ttl=0.0)
    assert not cache.fresh(other, NOW + 1, permit_ttl=2.0, deny_ttl=0.0)
    assert not cache.fresh(KEY, NOW + 1, permit_ttl=0.0, deny_ttl=2.0)
    assert cache.fresh(other, NOW + 1, permit_ttl=0.0, deny_ttl=2.0)


def test_without_a_time_to_live_nothing_is_fresh(cache: DecisionCache) -> None:
    cache.remember(KEY, PERMIT, NOW, LATER)
    assert cache.fresh(KEY, NOW, 0.0, 0.0) is None


def test_another_key_is_another_question(cache: DecisionCache) -> None:
    cache.remember(KEY, PERMIT, NOW, LATER)
    assert cache.stale(("revision-2", "question"), NOW, 60.0) is None


def test_everything_can_be_forgotten(cache: DecisionCache) -> None:
    cache.remember(KEY, PERMIT, NOW, LATER)
    cache.forget_all()
    assert permit_of(cache, NOW) is None


def test_it_holds_no_more_than_its_size() -> None:
    cache = DecisionCache(3)
    for number in range(10):
        cache.remember((number,), PERMIT, NOW, LATER)
    assert len(cache) == 3


class Bounds(RuleBasedStateMachine):
    """The cache against a list of everything the decision point ever said. A permit may be served only when the
    very last answer to that question under that revision was a permit, within every bound at once."""

    @initialize()
    def start(self) -> None:
        self.cache = DecisionCache(64)
        self.now = NOW
        self.revision = 0
        self.said: dict[tuple[int, int], list[tuple[bool, float, float]]] = {}

    @rule(question=st.integers(0, 2), permit=st.booleans(), lifetime=st.floats(0.0, 50.0), delay=st.floats(0.0, 5.0))
    def answer(self, question: int, permit: bool, lifetime: float, delay: float) -> None:
        put = self.now
        self.now += delay
        self.cache.remember((self.revision, question), RemoteAnswer(permit), put, put + lifetime)
        self.said.setdefault((self.revision, question), []).append((permit, put, put + lifetime))

    @rule(seconds=st.floats(-20.0, 30.0))
    def move_the_clock(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def activate_another_policy(self) -> None:
        self.revision += 1

    @rule()
    def forget(self) -> None:
        self.cache.forget_all()
        self.said.clear()

    @rule(question=st.integers(0, 2), bound=st.floats(0.0, 40.0), fresh=st.booleans())
    def read(self, question: int, bound: float, fresh: bool) -> None:
        key = (self.revision, question)
        known = self.cache.fresh(key, self.now, bound, bound) if fresh else self.cache.stale(key, self.now, bound)
        if known is None or not known.permit:
            return
        said = self.said[key]
        last_permit, *_ = said[-1]
        assert last_permit, "the last answer was a deny"
        assert (True, known.decided_at, known.expires_at) in said
        assert 0.0 <= self.now - known.decided_at < bound
        assert self.now < known.expires_at

    @invariant()
    def no_permit_is_served_without_a_bound(self) -> None:
        for question in range(3):
            known = self.cache.stale((self.revision, question), self.now, 0.0)
            assert known is None


TestBounds = Bounds.TestCase
TestBounds.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
