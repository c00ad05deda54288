"""A credential that is renewed ahead of its end: by one thread, for everybody, and never used past it."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from math import inf

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from authz_middleware.remote.credentials.held import Held
from authz_middleware.remote.credentials.renewal import LATE, REFUSED_S, RenewedCredential
from authz_middleware.remote.failure import FailureKind, RemoteFailure

AWAY = RemoteFailure(FailureKind.CONNECT, "credential.connect", is_news=False)

pytestmark = pytest.mark.capability("C43")


class Clock:
    """A monotonic clock that stands still until it is put forward."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Scripted:
    """A source that says what the test wants at the moment: seconds of validity, a failure, or an exception."""

    name = "scripted"

    def __init__(self, clock: Callable[[], float], *, grace: float = inf, idle: float = 3600.0) -> None:
        self.clock = clock
        self.grace = grace
        self.idle = idle
        self.times: dict[str, float] | RemoteFailure | BaseException = {"renew": 10.0, "until": 20.0}
        self.looks = 0
        self.takes = 0.0
        self.paused = 5.0
        self.running = 0
        self.most = 0
        self.given: dict[str, Held] = {}

    def obtain(self) -> Held | RemoteFailure:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            if self.takes:
                time.sleep(self.takes)
            self.looks += 1
            told = self.times
            if isinstance(told, BaseException):
                raise told
            if isinstance(told, RemoteFailure):
                return told
            now = self.clock()
            held = Held(
                f"Bearer {self.looks}",
                renew_at=now + told["renew"],
                wait_from=now + told.get("wait", inf),
                until=now + told.get("until", inf),
                expires_at=now + told.get("expires", inf),
            )
            self.given[held.header] = held
            return held
        finally:
            self.running -= 1

    def pause(self, failures: int) -> float:
        return self.paused


@pytest.fixture
def clock() -> Clock:
    return Clock()


made: list[RenewedCredential] = []


@pytest.fixture(autouse=True)
def closing() -> Iterator[None]:
    yield
    while made:
        made.pop().close()


def renewed(source: Scripted) -> RenewedCredential:
    credential = RenewedCredential(source, monotonic=source.clock, clock=source.clock)
    made.append(credential)
    return credential


@pytest.fixture(params=["sync", "async"])
def have(request: pytest.FixtureRequest) -> Callable[..., str | RemoteFailure]:
    def ask(credential: RenewedCredential, left: float = 5.0) -> str | RemoteFailure:
        return credential.header(left) if request.param == "sync" else asyncio.run(credential.aheader(left))

    return ask


def until(holds: Callable[[], bool]) -> None:
    ends = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < ends, "did not come about"
        time.sleep(0.002)


def test_nothing_is_obtained_before_somebody_needs_it(clock: Clock) -> None:
    source = Scripted(clock)
    renewed(source)
    time.sleep(0.02)
    assert source.looks == 0


def test_what_is_remembered_is_had_without_the_source(clock: Clock, have: Callable[..., str]) -> None:
    source = Scripted(clock)
    credential = renewed(source)
    assert credential.remembered() is None
    assert have(credential) == "Bearer 1"
    assert [credential.remembered() for _ in range(5)] == ["Bearer 1"] * 5
    assert source.looks == 1


def test_it_is_renewed_ahead_of_its_end_while_the_old_one_serves(clock: Clock) -> None:
    source = Scripted(clock)
    credential = renewed(source)
    credential.header(5.0)
    source.takes = 0.1
    clock.now += 11
    began = time.monotonic()
    assert credential.header(5.0) == "Bearer 1"
    assert time.monotonic() - began < 0.1
    until(lambda: credential.remembered() == "Bearer 2")


def test_it_is_renewed_although_nobody_asks_at_that_moment() -> None:
    source = Scripted(time.monotonic)
    source.times = {"renew": 0.05, "until": 20.0}
    credential = renewed(source)
    credential.header(5.0)
    until(lambda: source.looks >= 3)


def test_nobody_keeps_fresh_what_nobody_has_needed_for_long() -> None:
    source = Scripted(time.monotonic, idle=0.1)
    source.times = {"renew": 0.03, "until": 0.2}
    credential = renewed(source)
    credential.header(5.0)
    until(lambda: credential._keeper is None)
    looks = source.looks
    time.sleep(0.25)
    assert source.looks == looks
    assert credential.header(5.0) == f"Bearer {looks + 1}"


def test_a_failing_renewal_loses_no_call_while_the_old_one_is_good(
    clock: Clock, have: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    source = Scripted(clock)
    credential = renewed(source)
    have(credential)
    source.times = AWAY
    for _ in range(9):
        clock.now += 2
        assert have(credential) == "Bearer 1"
    until(lambda: "credential.connect" in caplog.text)
    clock.now += 3
    assert have(credential) == AWAY


@pytest.mark.parametrize("end", ["until", "expires"])
def test_it_is_never_used_past_its_end(clock: Clock, have: Callable[..., str], end: str) -> None:
    source = Scripted(clock)
    source.times = {"renew": 10.0, end: 20.0}
    credential = renewed(source)
    have(credential)
    source.times = AWAY
    clock.now += 20
    assert credential.remembered() is None
    assert have(credential) == AWAY


def test_a_machine_that_slept_does_not_use_what_has_expired_meanwhile(clock: Clock) -> None:
    source, wall = Scripted(clock), Clock()
    source.times = {"renew": 10.0, "until": 20.0, "expires": 20.0}
    credential = RenewedCredential(source, monotonic=clock, clock=wall)
    made.append(credential)
    credential.header(5.0)
    wall.now += 3600
    assert credential.header(5.0) != "Bearer 1"


def test_what_nobody_has_looked_after_is_looked_for_before_it_is_used(clock: Clock, have: Callable[..., str]) -> None:
    source = Scripted(clock)
    source.times = {"renew": 1.0, "wait": 5.0}
    credential = renewed(source)
    have(credential)
    clock.now += 6
    assert have(credential) == "Bearer 2"


def test_where_looking_for_a_newer_one_takes_too_long_the_old_one_serves(
    clock: Clock, have: Callable[..., str]
) -> None:
    source = Scripted(clock)
    source.times = {"renew": 1.0, "wait": 5.0}
    credential = renewed(source)
    have(credential)
    clock.now += 6
    source.takes = 2.0
    began = time.monotonic()
    assert have(credential, 1.0) == "Bearer 1"
    assert time.monotonic() - began < 0.9  # there is time left to ask with it


def test_the_last_good_one_serves_for_its_time_of_grace_only(clock: Clock, have: Callable[..., str]) -> None:
    source = Scripted(clock, grace=60.0)
    source.times = {"renew": 1.0, "wait": 5.0}
    credential = renewed(source)
    have(credential)
    source.times = AWAY
    clock.now += 3600  # however long nobody looked: the time begins with the first failure
    assert have(credential) == "Bearer 1"
    for _ in range(5):
        clock.now += 11
        assert have(credential) == "Bearer 1"
        until(lambda: credential._look is None)
    clock.now += 6
    assert have(credential) == AWAY
    source.times = {"renew": 1.0, "wait": 5.0}
    clock.now += 6
    assert have(credential) == f"Bearer {source.looks}"


def test_a_source_that_fails_is_left_alone_for_a_while(clock: Clock, have: Callable[..., str]) -> None:
    source = Scripted(clock)
    source.times = AWAY
    credential = renewed(source)
    assert [have(credential) for _ in range(20)] == [AWAY] * 20
    assert source.looks == 1
    clock.now += 5
    have(credential)
    assert source.looks == 2


def test_whoever_waits_waits_no_longer_than_its_own_time(clock: Clock, have: Callable[..., str]) -> None:
    source = Scripted(clock)
    source.takes = 1.0
    credential = renewed(source)
    began = time.monotonic()
    assert have(credential, 0.1) == LATE
    assert time.monotonic() - began < 0.9
    assert have(credential, 5.0) == "Bearer 1"
    assert source.looks == 1


def test_many_threads_and_event_loops_have_it_obtained_once(clock: Clock) -> None:
    source = Scripted(clock)
    source.takes = 0.2
    credential = renewed(source)

    async def several() -> list[str | RemoteFailure]:
        return await asyncio.gather(*(credential.aheader(5.0) for _ in range(10)))

    with ThreadPoolExecutor(8) as pool:
        loops = [pool.submit(asyncio.run, several()) for _ in range(3)]
        threads = [pool.submit(credential.header, 5.0) for _ in range(5)]
        told = [*(one for loop in loops for one in loop.result()), *(thread.result() for thread in threads)]
    assert told == ["Bearer 1"] * 35
    assert (source.looks, source.most) == (1, 1)


async def test_a_cancelled_caller_takes_nobody_with_it(clock: Clock) -> None:
    source = Scripted(clock)
    source.takes = 0.2
    credential = renewed(source)
    first, second = (asyncio.create_task(credential.aheader(5.0)) for _ in range(2))
    await asyncio.sleep(0.05)
    first.cancel()
    assert await second == "Bearer 1"
    assert first.cancelled()


def test_an_event_loop_that_ends_early_leaves_no_trace(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    source = Scripted(clock)
    source.takes = 0.2
    credential = renewed(source)
    assert asyncio.run(credential.aheader(0.01)) == LATE
    until(lambda: credential.remembered() == "Bearer 1")
    gc.collect()
    assert not caplog.records


@pytest.mark.promise("P3")
def test_a_source_that_raises_is_a_failure_whose_text_nobody_reads(
    clock: Clock, have: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    source = Scripted(clock)
    source.times = ValueError("s3cret-canary")
    credential = renewed(source)
    told = have(credential)
    assert told == RemoteFailure(FailureKind.INTERNAL, "credential.error", is_news=False)
    assert "ValueError" in caplog.text
    assert "s3cret-canary" not in caplog.text


@pytest.mark.promise("P3")
def test_a_thread_that_dies_leaves_nobody_waiting(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    others = set(threading.enumerate())
    source = Scripted(clock)
    source.times = KeyboardInterrupt()
    credential = renewed(source)
    began = time.monotonic()
    assert isinstance(credential.header(5.0), RemoteFailure)
    assert time.monotonic() - began < 4
    for thread in set(threading.enumerate()) - others:
        thread.join(5)  # what it died of is told in this test, and in no later one
    source.times = {"renew": 10.0}
    assert credential.header(5.0) == "Bearer 2"


def test_without_another_thread_it_is_a_failure(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "authz-credential":  # those of a server that another test has left are not meant
            raise RuntimeError("can't start new thread")
        start(thread)

    credential = renewed(Scripted(clock))
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        assert credential.remembered() is None
        told = credential.header(5.0)
    assert told == RemoteFailure(FailureKind.INTERNAL, "credential.thread", is_news=False)
    clock.now += 10
    assert credential.header(5.0) == "Bearer 1"


def test_no_failure_of_it_counts_as_news_of_the_decision_point(clock: Clock, have: Callable[..., str]) -> None:
    source = Scripted(clock)
    source.times = RemoteFailure(FailureKind.CONNECT, "credential.connect")
    told = have(renewed(source))
    assert isinstance(told, RemoteFailure)
    assert not told.is_news
    assert told.is_outage


def test_one_that_was_refused_is_replaced_but_not_again_and_again(clock: Clock) -> None:
    source = Scripted(clock)
    source.times = {"renew": 1e6}
    credential = renewed(source)
    credential.header(5.0)
    credential.refused("Bearer 1")
    until(lambda: credential.remembered() == "Bearer 2")
    credential.refused("Bearer 1")  # asked with the old one: that is known
    for _ in range(20):
        credential.refused("Bearer 2")
    time.sleep(0.02)
    assert source.looks == 2
    clock.now += REFUSED_S
    credential.refused("Bearer 2")
    until(lambda: credential.remembered() == "Bearer 3")


def test_closing_ends_the_thread_and_what_comes_late_is_still_served(clock: Clock) -> None:
    credential = renewed(Scripted(clock))
    credential.close()
    credential.header(5.0)
    until(lambda: credential._keeper is None)
    credential.close()
    asyncio.run(credential.aclose())
    assert credential.header(5.0) == "Bearer 1"
    assert credential._keeper is None


FORKING = """
import os, sys, time
from authz_middleware.remote.credentials.held import Held
from authz_middleware.remote.credentials.renewal import RenewedCredential

class Source:
    name, grace, idle = "here", 1e9, 1e9
    def obtain(self):
        now = time.monotonic()
        return Held(f"Bearer {os.getpid()}", renew_at=now + 0.05)
    def pause(self, failures):
        return 1.0

credential = RenewedCredential(Source())
mine = credential.header(5.0)
credential._lock.acquire()  # by another thread, at the worst moment
pid = os.fork()
if not pid:
    assert credential.header(5.0) == mine
    ends = time.monotonic() + 10
    while credential.header(5.0) != f"Bearer {os.getpid()}":
        assert time.monotonic() < ends
        time.sleep(0.01)
    credential.close()
    os._exit(0)
for _ in range(2000):
    done, status = os.waitpid(pid, os.WNOHANG)
    if done:
        sys.exit(status)
    time.sleep(0.01)
os.kill(pid, 9)
sys.exit(1)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_renews_by_a_thread_of_its_own() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", FORKING], capture_output=True, text=True, timeout=40, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_interpreter_ends_while_it_waits_or_looks() -> None:
    script = """
import time
from authz_middleware.remote.credentials.held import Held
from authz_middleware.remote.credentials.renewal import RenewedCredential
class Source:
    name, grace, idle = "here", 1e9, 1e9
    looks = 0
    def obtain(self):
        self.looks += 1
        if self.looks > 1: time.sleep(60)
        return Held("Bearer x", renew_at=time.monotonic() + 0.05)
    def pause(self, failures): return 1.0
waits, looks = RenewedCredential(Source()), RenewedCredential(Source())
print(waits.header(5.0), looks.header(5.0))
time.sleep(0.2)
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, timeout=20, check=False
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "Bearer x Bearer x", "")


def test_the_log_is_told_once_a_minute_of_a_failure_and_never_of_a_success(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "authz")
    source = Scripted(clock)
    credential = renewed(source)
    credential.header(5.0)
    assert not caplog.records
    source.times = AWAY
    for _ in range(5):
        clock.now += 30
        credential.header(5.0)
    assert len(caplog.records) == 1


STEPS = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.5, 3.0, 9.0, 25.0, 100.0]),
        st.one_of(
            st.just(AWAY),
            st.fixed_dictionaries(
                {"renew": st.sampled_from([1.0, 10.0])},
                optional={
                    "wait": st.sampled_from([1.0, 5.0]),
                    "until": st.sampled_from([2.0, 20.0]),
                    "expires": st.sampled_from([2.0, 20.0]),
                },
            ),
        ),
    ),
    min_size=1,
    max_size=12,
)


@hypothesis_settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(STEPS, st.sampled_from([4.0, 60.0]))
def test_whatever_happens_what_is_shown_is_within_its_bounds(
    steps: list[tuple[float, dict[str, float] | RemoteFailure]], grace: float
) -> None:
    clock = Clock()
    source = Scripted(clock, grace=grace)
    source.paused = 0.5
    credential = RenewedCredential(source, monotonic=clock, clock=clock)
    failing_since: float | None = None
    try:
        for seconds, times in steps:
            clock.now += seconds
            source.times = times
            looks = source.looks
            told = credential.header(5.0)
            until(lambda: credential._look is None)
            if source.looks > looks:
                failing_since = (failing_since or clock.now) if isinstance(times, RemoteFailure) else None
            if isinstance(told, RemoteFailure):
                assert told == AWAY
                continue
            held = source.given[told]
            assert clock.now < min(held.until, held.expires_at)
            assert failing_since is None or clock.now < failing_since + grace
    finally:
        credential.close()
