"""The recorder: off the request path, in order, each decision once, and what happens when it cannot be."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import json
import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authz_middleware.decision import Decision, Reason
from authz_middleware.errors import SettingsError
from authz_middleware.record import writer as writer_module
from authz_middleware.record.recorder import Receipt, Recorder
from authz_middleware.record.sinks import SinkError
from tests.support.records import FACTS, PERMIT, Memory, app, log_settings, question, read_records, recorder

pytestmark = pytest.mark.capability("C41")

ASKED = question()


class Gate(Memory):
    """A sink that hangs until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.entered = threading.Event()
        self.open = threading.Event()

    def write(self, lines: Sequence[bytes]) -> None:
        self.entered.set()
        assert self.open.wait(10)
        super().write(lines)


class Broken(Memory):
    """A sink that fails while `down` is set, after taking `takes` lines."""

    def __init__(self, *, takes: int = 0, error: Exception | None = None) -> None:
        super().__init__()
        self.down = True
        self.takes = takes
        self.error = error
        self.attempts = 0

    def write(self, lines: Sequence[bytes]) -> None:
        self.attempts += 1
        if not self.down:
            super().write(lines)
            return
        if self.error is not None:
            raise self.error
        super().write(lines[: self.takes])
        raise SinkError(min(self.takes, len(lines)), "ENOSPC")


def submit(log: Recorder, count: int = 1) -> list[Receipt]:
    return [log.submit(ASKED, FACTS, PERMIT) for _ in range(count)]


def eventually(condition: Callable[[], object], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.002)


@pytest.fixture(autouse=True)
def _short_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "FIRST_BACKOFF_S", 0.005)
    monkeypatch.setattr(writer_module, "LAST_BACKOFF_S", 0.01)


# ---- the ordinary case


def test_each_decision_leaves_one_record_under_the_id_it_was_given_at_once(tmp_path: Path) -> None:
    log = Recorder(log_settings(f"file:{tmp_path / 'log'}"), app())
    receipts = submit(log, 200)
    log.close()
    records = read_records(tmp_path / "log")
    assert [record["decision_id"] for record in records] == [receipt.decision_id for receipt in receipts]
    assert all(receipt.pending is None for receipt in receipts)
    assert (log.counters.submitted, log.counters.written) == (200, 200)


def test_the_request_thread_writes_nothing_itself() -> None:
    threads: set[str] = set()

    class Noting(Memory):
        def write(self, lines: Sequence[bytes]) -> None:
            threads.add(threading.current_thread().name)
            super().write(lines)

    log = recorder(Noting())
    submit(log, 3)
    assert log.flush()
    assert threads == {"authz-records"}
    log.close()


def test_no_thread_runs_before_the_first_record() -> None:
    before = threading.active_count()
    log = recorder(Memory())
    assert threading.active_count() == before
    log.close()


def test_records_of_one_writer_are_in_the_order_of_its_decisions_whatever_the_threads() -> None:
    sink = Memory()
    log = recorder(sink, queue=100_000)
    threads = [threading.Thread(target=submit, args=(log, 300)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close()
    assert [record["authz"]["seq"] for record in sink.records] == list(range(1, 2401))
    assert {record["authz"]["writer"] for record in sink.records} == {log._writer_id}


def test_each_line_names_the_digest_of_the_line_before() -> None:
    sink = Memory()
    log = recorder(sink)
    for _ in range(3):
        submit(log, 70)
        assert log.flush()
    log.close()
    digests = [None, *(hashlib.sha256(line[:-1]).hexdigest() for line in sink.lines)]
    assert [record["authz"].get("prev") for record in sink.records] == digests[:-1]


def test_decisions_that_come_together_are_written_together() -> None:
    sink = Broken()
    sink.down = False
    log = recorder(sink, queue=100_000)
    submit(log, 640)
    log.close()
    assert sink.attempts <= 20


def test_closing_writes_what_waits_closes_the_sink_and_can_be_done_twice() -> None:
    sink = Memory()
    log = recorder(sink)
    log._writer._linger = 5.0
    submit(log, 3)
    log.close()
    log.close()
    assert len(sink.records) == 3
    assert sink.closed


def test_a_recorder_that_was_never_used_closes_its_sink() -> None:
    sink = Memory()
    recorder(sink).close()
    assert sink.closed


def test_a_recorder_that_is_forgotten_writes_what_waits_and_ends_its_thread() -> None:
    used, unused = Memory(), Memory()
    log, other = recorder(used), recorder(unused)
    submit(log, 3)
    thread = log._writer._thread
    assert thread is not None
    del log, other
    gc.collect()
    thread.join(5)
    assert not thread.is_alive()
    assert len(used.records) == 3
    assert used.closed
    assert unused.closed


def test_a_log_that_cannot_be_opened_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="ENOENT"):
        Recorder(log_settings(f"file:{tmp_path / 'absent' / 'log'}"), app())


def test_a_decision_that_cannot_be_told_whole_is_recorded_by_its_outcome() -> None:
    sink = Memory()
    log = recorder(sink)
    log.submit(ASKED, FACTS, Decision(permit=False, reason=Reason.ERROR, detail="\ud800", owner="x"))
    submit(log)
    log.close()
    first, second = sink.records
    assert (first["result"], first["authz"]["reason"], first["authz"]["seq"]) == (False, "error", 1)
    assert first["erased"] == ["/input", "/authz"]
    assert second["input"]["resource"]["id"] == "42"


def test_threads_that_decide_first_at_the_same_time_start_one_writer() -> None:
    sink = Gate()
    log = recorder(sink)
    threads = [threading.Thread(target=submit, args=(log, 1)) for _ in range(16)]
    with log._writer._lock:  # all of them find no thread, and queue up to start one
        for thread in threads:
            thread.start()
        eventually(lambda: len(log._writer.queue) == 16)
    for thread in threads:
        thread.join()
    assert sum(thread.name == "authz-records" for thread in threading.enumerate()) == 1
    sink.open.set()
    log.close()


def test_flushing_gives_up_on_a_sink_that_hangs() -> None:
    sink = Gate()
    log = recorder(sink)
    submit(log)
    assert log.flush(timeout=0.05) is False
    sink.open.set()
    assert log.flush() is True
    log.close()


# ---- best effort


def test_best_effort_drops_when_full_and_says_so_in_the_next_record() -> None:
    sink = Gate()
    log = recorder(sink, "best_effort", queue=5)
    submit(log)
    assert sink.entered.wait(5)
    receipts = submit(log, 9)
    assert all(receipt.pending is None for receipt in receipts)
    assert log.counters.dropped == 4
    sink.open.set()
    assert log.flush()
    submit(log)
    log.close()
    assert [record["authz"].get("dropped") for record in sink.records] == [None, 4, None, None, None, None, None]
    assert [record["authz"]["seq"] for record in sink.records] == [1, 2, 3, 4, 5, 6, 11]


def test_best_effort_waits_for_nothing_even_when_closed() -> None:
    log = recorder(Memory(), "best_effort")
    log.close()
    (receipt,) = submit(log)
    assert receipt.pending is None
    assert log.counters.dropped == 1


# ---- blocking


def test_blocking_waits_for_nothing_while_there_is_room() -> None:
    sink = Gate()
    log = recorder(sink, "blocking", queue=5)
    submit(log)
    assert sink.entered.wait(5)
    assert [receipt.pending for receipt in submit(log, 5)] == [None] * 5
    sink.open.set()
    log.close()


def test_blocking_with_a_full_queue_answers_once_there_was_room() -> None:
    sink = Gate()
    log = recorder(sink, "blocking", queue=2, max_wait=5.0)
    submit(log)
    assert sink.entered.wait(5)
    submit(log, 2)
    (late,) = submit(log)
    assert late.pending is not None
    assert not late.pending.done()
    sink.open.set()
    assert log.wait(late) is True
    log.close()
    assert len(sink.records) == 4


def test_blocking_without_room_in_time_is_a_refusal_and_the_record_is_taken_back() -> None:
    sink = Gate()
    log = recorder(sink, "blocking", queue=2, max_wait=0.05)
    submit(log)
    assert sink.entered.wait(5)
    submit(log, 2)
    (late,) = submit(log)
    assert log.wait(late) is False
    sink.open.set()
    log.close()
    assert [record["authz"]["seq"] for record in sink.records] == [1, 2, 3]
    assert log.counters.dropped == 1


def test_those_who_wait_for_room_are_bounded_and_the_rest_refused_at_once() -> None:
    sink = Gate()
    log = recorder(sink, "blocking", queue=2, max_wait=5.0)
    submit(log)
    assert sink.entered.wait(5)
    receipts = submit(log, 6)
    assert [receipt.refused for receipt in receipts] == [False] * 4 + [True] * 2
    started = time.monotonic()
    assert log.wait(receipts[-1]) is False
    assert time.monotonic() - started < 1.0
    sink.open.set()
    log.close()


def test_accepted_records_outlive_a_failing_sink_and_none_is_written_twice() -> None:
    sink = Broken(takes=3)
    log = recorder(sink)
    submit(log, 10)
    eventually(lambda: sink.attempts >= 2)
    sink.down = False
    log.close()
    assert [record["authz"]["seq"] for record in sink.records] == list(range(1, 11))
    digests = [None, *(hashlib.sha256(line[:-1]).hexdigest() for line in sink.lines)]
    assert [record["authz"].get("prev") for record in sink.records] == digests[:-1]


@pytest.mark.parametrize("error", [OSError(28, "x"), RuntimeError("x"), SinkError(0, "ENOSPC")])
def test_whatever_a_sink_raises_the_writer_goes_on(error: Exception) -> None:
    sink = Broken(error=error)
    log = recorder(sink)
    submit(log, 2)
    eventually(lambda: sink.attempts)
    sink.down = False
    log.close()
    assert len(sink.records) == 2


def test_a_sink_that_stays_down_does_not_hold_up_the_end_of_the_process() -> None:
    log = recorder(Broken())
    submit(log, 5)
    started = time.monotonic()
    log.close(timeout=0.1)
    assert time.monotonic() - started < 1.0
    assert log.counters.failed == 5


def test_a_sink_that_hangs_does_not_hold_up_the_end_of_the_process(caplog: pytest.LogCaptureFixture) -> None:
    sink = Gate()
    log = recorder(sink)
    submit(log, 2)
    assert sink.entered.wait(5)
    started = time.monotonic()
    log.close(timeout=0.0)
    assert time.monotonic() - started < 3.0
    assert "did not finish in time" in caplog.text
    sink.open.set()


def test_a_sink_that_does_not_close_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    class Stuck(Memory):
        def close(self) -> None:
            raise RuntimeError("hunter2")

    log = recorder(Stuck())
    log.close()
    assert "RuntimeError" in caplog.text
    assert "hunter2" not in caplog.text


def test_a_failing_sink_is_reported_once_a_minute_without_the_contents(caplog: pytest.LogCaptureFixture) -> None:
    sink = Broken(error=RuntimeError("alice@example.com hunter2"))
    log = recorder(sink)
    with caplog.at_level(logging.ERROR, logger="authz"):
        submit(log, 3)
        eventually(lambda: sink.attempts >= 4)
    complaints = [record.getMessage() for record in caplog.records]
    assert complaints == ["decision records cannot be written (RuntimeError): 3 waiting, 0 dropped, 0 failed so far"]
    sink.down = False
    log.close()


def test_after_a_minute_the_report_comes_again(caplog: pytest.LogCaptureFixture) -> None:
    sink = Broken()
    log = recorder(sink)
    submit(log)
    eventually(lambda: caplog.records)
    assert log._writer._complained_at is not None
    log._writer._complained_at -= writer_module.COMPLAINT_EVERY_S
    eventually(lambda: len(caplog.records) == 2)
    sink.down = False
    log.close()


# ---- required


def test_required_answers_after_the_line_is_written(tmp_path: Path) -> None:
    log = Recorder(log_settings(f"file:{tmp_path / 'log'}", "required"), app())
    for count in range(1, 6):
        (receipt,) = submit(log)
        assert log.wait(receipt) is True
        assert len(read_records(tmp_path / "log")) == count
    log.close()


def test_required_with_a_failing_sink_is_a_refusal_and_the_record_is_not_written_later() -> None:
    sink = Broken()
    log = recorder(sink, "required")
    (receipt,) = submit(log)
    assert log.wait(receipt) is False
    sink.down = False
    (second,) = submit(log)
    assert log.wait(second) is True
    log.close()
    assert [(r["authz"]["seq"], r["authz"]["dropped"]) for r in sink.records] == [(2, 1)]
    assert log.counters.failed == 1


def test_required_with_a_sink_that_hangs_is_a_refusal_in_time() -> None:
    sink = Gate()
    log = recorder(sink, "required", max_wait=0.05)
    (receipt,) = submit(log)
    started = time.monotonic()
    assert log.wait(receipt) is False
    assert time.monotonic() - started < 1.0
    sink.open.set()
    log.close()


@pytest.mark.parametrize("mode", ["blocking", "required"])
def test_a_closed_recorder_refuses(mode: str) -> None:
    log = recorder(Memory(), mode)  # type: ignore[arg-type]
    log.close()
    (receipt,) = submit(log)
    assert receipt.refused
    assert log.wait(receipt) is False


def test_where_no_thread_can_be_started_required_refuses_and_closing_still_writes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sink = Memory()
    log = recorder(sink, max_wait=0.05)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", _cannot_start)
        submit(log, 2)
    log.close()
    assert len(sink.records) == 2


def _cannot_start(_: threading.Thread) -> None:
    raise RuntimeError("can't create new thread at interpreter shutdown")


# ---- on an event loop


async def test_on_an_event_loop_nothing_is_awaited_where_nothing_is_pending() -> None:
    log = recorder(Memory())
    assert await log.await_(submit(log)[0]) is True
    await asyncio.to_thread(log.close)


async def test_required_is_awaited_without_blocking_the_event_loop() -> None:
    sink = Gate()
    log = recorder(sink, "required", max_wait=5.0)
    waiting = asyncio.ensure_future(log.await_(submit(log)[0]))
    for _ in range(5):
        await asyncio.sleep(0.01)
    assert not waiting.done()
    sink.open.set()
    assert await waiting is True
    await asyncio.to_thread(log.close)


async def test_on_an_event_loop_too_a_record_that_takes_too_long_is_a_refusal() -> None:
    sink = Gate()
    log = recorder(sink, "required", max_wait=0.05)
    first, second = submit(log, 2)
    assert await asyncio.gather(log.await_(first), log.await_(second)) == [False, False]
    sink.open.set()
    await asyncio.to_thread(log.close)


async def test_a_request_that_is_cancelled_while_waiting_leaves_its_record() -> None:
    sink = Gate()
    log = recorder(sink, "required", max_wait=5.0)
    (first,) = submit(log)
    await asyncio.to_thread(sink.entered.wait, 5)
    waiting = asyncio.ensure_future(log.await_(submit(log)[0]))
    await asyncio.sleep(0.02)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    sink.open.set()
    assert await log.await_(first) is True
    await asyncio.to_thread(log.close)
    assert len(sink.records) == 2


# ---- every order of submissions, failures and limits


@settings(max_examples=25, deadline=None)
@given(
    mode=st.sampled_from(["best_effort", "blocking", "required"]),
    queue=st.integers(1, 4),
    bursts=st.lists(st.tuples(st.integers(1, 6), st.booleans(), st.integers(0, 3)), min_size=1, max_size=5),
)
def test_no_decision_is_recorded_twice_and_none_is_lost_unaccounted(mode, queue, bursts) -> None:
    sink = Broken()
    log = recorder(sink, mode, queue=queue, max_wait=0.05)
    granted: list[str] = []
    refused: list[str] = []
    for count, down, takes in bursts:
        sink.takes, sink.down = takes, down
        for receipt in submit(log, count):
            (granted if log.wait(receipt) else refused).append(receipt.decision_id)
    sink.down = False
    log.close()
    names = [record["decision_id"] for record in sink.records]
    assert len(names) == len(set(names))
    if mode != "best_effort":
        assert set(granted) <= set(names)
    counters = log.counters
    assert counters.submitted == len(granted) + len(refused)
    assert counters.written == len(names)
    assert counters.submitted == counters.written + counters.dropped + counters.failed
    told = sum(record["authz"].get("dropped", 0) for record in sink.records)
    assert told <= counters.dropped + counters.failed
    assert [json.loads(line)["authz"]["seq"] for line in sink.lines] == sorted(
        record["authz"]["seq"] for record in sink.records
    )
