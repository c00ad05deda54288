"""The one thread of a process that turns submissions into lines and gives them to the sink."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from authz_middleware.record.event import Submission
from authz_middleware.record.lines import Lines
from authz_middleware.record.sinks import Sink, SinkError

logger = logging.getLogger("authz")

CHUNK: Final = 64
"""Lines made and written in one go. Small, so that the requests get the interpreter back in between."""

LINGER_S: Final = 0.01
"""How long a woken writer lets records gather. Waking a thread costs more than a record does."""

FIRST_BACKOFF_S: Final = 0.05
LAST_BACKOFF_S: Final = 5.0
COMPLAINT_EVERY_S: Final = 60.0

FORGET_S: Final = 2 * LAST_BACKOFF_S
"""How long a failed write tells something of the sink. Whoever takes no more requests because of it, and so has nothing
to write, would otherwise never learn that the sink is well again."""


class Writer:
    """Drains `queue`. Whoever appends to it calls `wake` when `idle` is set; the thread starts with the first call.

    A record somebody waits for fails with the write that fails, since that decision is being refused; a record that
    was accepted is written again until the sink takes it or the writer is closed.
    """

    def __init__(self, sink: Sink, lines: Lines, *, linger: float = LINGER_S) -> None:
        self.queue: deque[Submission] = deque()
        self.idle = True
        self.written = 0
        self.dropped = 0
        self.failed = 0
        self._failed_at: float | None = None
        self._writing_since: float | None = None
        self._sink = sink
        self._lines = lines
        self._linger = linger
        self._lost_told = 0
        self._wakened = threading.Event()
        self._stopping = threading.Event()
        self._stop_at = 0.0
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._complained_at: float | None = None

    def wake(self) -> None:
        """Let the thread look at the queue. Where none can be started (the interpreter is going down), records
        wait for `close`."""
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    self._start()
        self._wakened.set()

    def count_dropped(self) -> None:
        """Count a record that finds no room."""
        with self._lock:
            self.dropped += 1

    def is_failing(self, patience: float) -> bool:
        """Whether the sink has just not taken records, or has been taking one for longer than `patience` seconds."""
        now, failed_at, writing_since = time.monotonic(), self._failed_at, self._writing_since
        if writing_since is not None and now - writing_since > patience:
            return True
        return failed_at is not None and now - failed_at < FORGET_S

    def flush(self, timeout: float) -> bool:
        """Wait until all submitted so far is written or given up. False when `timeout` seconds were too few."""
        self.wake()
        return _until(lambda: not self.queue and self.idle, timeout)

    def close(self, timeout: float) -> None:
        """Write what waits, for at most `timeout` seconds, and close the sink."""
        thread = self.stop(timeout)
        if thread is not None:
            thread.join(timeout + 1.0)
            if thread.is_alive():
                logger.error("the decision log did not finish in time; %d records are not written", len(self.queue))

    def stop(self, timeout: float) -> threading.Thread | None:
        """Begin to close, and leave the rest to the thread that is answered. None where there was none, and all is
        done."""
        self._stop_at = time.monotonic() + timeout
        self._stopping.set()
        with self._lock:
            thread, self._thread = self._thread, self._thread or threading.current_thread()
        if thread is None:
            self._run()
        self._wakened.set()
        return thread

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name="authz-records", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            return
        self._thread = thread

    def _run(self) -> None:
        while True:
            self.idle = True
            if not self.queue and not self._stopping.is_set():
                self._wakened.wait()
            self.idle = False
            self._wakened.clear()
            if self._linger:
                self._stopping.wait(self._linger)
            while self.queue:
                self._write(self._take())
            if self._stopping.is_set():
                break
        self._close_sink()
        self.idle = True

    def _take(self) -> list[Submission]:
        taken: list[Submission] = []
        while self.queue and len(taken) < CHUNK:
            submission = self.queue.popleft()
            if submission.pending is None or submission.pending.set_running_or_notify_cancel():
                taken.append(submission)
            else:
                self.count_dropped()
        return taken

    def _write(self, submissions: list[Submission]) -> None:
        backoff = FIRST_BACKOFF_S
        while submissions:
            written, reason = self._try(submissions)
            submissions = submissions[written:]
            if not submissions:
                return
            self._complain(reason, len(submissions))
            submissions = self._accepted(submissions)
            if self._stopping.is_set() and time.monotonic() >= self._stop_at:
                self.failed += len(submissions)
                return
            self._pause(backoff)
            backoff = min(backoff * 2, LAST_BACKOFF_S)

    def _try(self, submissions: list[Submission]) -> tuple[int, str]:
        """How many of these the sink took, and why not all of them."""
        written, reason = 0, ""
        lost = self.dropped + self.failed
        lines = self._lines.of(submissions, lost - self._lost_told)
        try:
            self._writing_since = time.monotonic()
            self._sink.write(lines)
            written = len(lines)
        except SinkError as error:
            written, reason = error.written, error.reason
        except Exception as error:  # noqa: BLE001 - whatever a sink raises, the thread goes on
            reason = type(error).__name__
        self._failed_at = None if written == len(lines) else time.monotonic()
        self._writing_since = None
        if written:
            self._lines.wrote(lines[written - 1])
            self._lost_told = lost
            self.written += written
            for submission in submissions[:written]:
                if submission.pending is not None:
                    submission.pending.set_result(True)
        return written, reason

    def _accepted(self, submissions: list[Submission]) -> list[Submission]:
        """Those nobody waits for; whoever waits for one of the others learns that it failed."""
        accepted = []
        for submission in submissions:
            if submission.pending is None:
                accepted.append(submission)
            else:
                self.failed += 1
                submission.pending.set_result(False)
        return accepted

    def _pause(self, seconds: float) -> None:
        if self._stopping.is_set():
            time.sleep(FIRST_BACKOFF_S)
        else:
            self._stopping.wait(seconds)

    def _complain(self, reason: str, waiting: int) -> None:
        now = time.monotonic()
        if self._complained_at is None or now - self._complained_at >= COMPLAINT_EVERY_S:
            self._complained_at = now
            logger.error(
                "decision records cannot be written (%s): %d waiting, %d dropped, %d failed so far",
                reason,
                waiting + len(self.queue),
                self.dropped,
                self.failed,
            )

    def _close_sink(self) -> None:
        try:
            self._sink.close()
        except Exception as error:  # noqa: BLE001 - nothing is left to write
            logger.warning("the decision log did not close cleanly (%s)", type(error).__name__)


def _until(condition: Callable[[], bool], timeout: float) -> bool:
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.001)
    return True
