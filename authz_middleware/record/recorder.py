"""Takes decisions off the request path and sees to it that each leaves one record.

The request thread leaves references on a queue and goes on; one daemon thread a process, started with the first
record, makes lines of them and hands those to the sink. How much a record matters is chosen in the settings:

* `best_effort`: nobody waits; when the queue is full the record is dropped and counted.
* `blocking`: nobody waits while there is room; when the queue is full, at most `max_wait` for the line to be written.
* `required`: the line is written, then the decision may be acted on. Written means handed to the operating system,
  not synced to the disk.
"""

from __future__ import annotations

import asyncio
import atexit
import copy
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError, Future
from typing import Any, Final

import msgspec

from authz_middleware.decision import Decision
from authz_middleware.facts import RequestFacts
from authz_middleware.forking import renew_in_children
from authz_middleware.question import Question
from authz_middleware.record.event import NO_METRICS, Submission
from authz_middleware.record.identifiers import decision_id, new_writer
from authz_middleware.record.lines import Lines
from authz_middleware.record.sinks import Sink, open_sink
from authz_middleware.record.writer import LINGER_S, Writer
from authz_middleware.settings.model import AppSettings, DecisionLogSettings

CLOSE_WAIT_S: Final = 5.0

_CONTAINERS: Final = (dict, list, tuple, set, frozenset)


def _answered(answer: bool) -> Future[bool]:
    future: Future[bool] = Future()
    future.set_result(answer)
    return future


_REFUSED: Final = _answered(False)


class Receipt(msgspec.Struct, frozen=True, gc=False):
    """The id of a decision, and whether its record is taken care of.

    `pending` is None when the decision may be acted on. Otherwise it answers True once the record is written, or
    False when it will not be; hand the receipt to `Recorder.wait` or `Recorder.await_`.
    """

    decision_id: str
    pending: Future[bool] | None = None

    @property
    def refused(self) -> bool:
        """Whether it is already clear that there will be no record."""
        return self.pending is _REFUSED


class Counters(msgspec.Struct, frozen=True):
    """What became of the decisions of this process. `dropped` had no room, or nobody waited for them any more;
    `failed` were not written because the sink could not. Whatever is in neither and not `written` is on its way."""

    submitted: int
    written: int
    dropped: int
    failed: int


class Recorder:
    """The decision log of one application.

    Opens the sink of the settings at once, and raises SettingsError when it cannot be. `clock` gives seconds since
    the epoch for decisions that come without a question. Safe to use from any thread and across `fork`: a child
    starts with an empty queue, its own thread and its own writer name.
    """

    _writer: Writer
    _writer_id: str
    _seq: int
    _finalizer: weakref.finalize[..., Recorder] | None = None

    def __init__(
        self,
        settings: DecisionLogSettings,
        app: AppSettings,
        *,
        sink: Sink | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._app = app
        self._given = sink
        self._clock = clock
        self._closed = False
        self._best_effort = settings.mode == "best_effort"
        self._required = settings.mode == "required"
        self._begin(sink or open_sink(settings.sink))
        _recorders.add(self)
        renew_in_children(self)

    def submit(
        self,
        question: Question | None,
        facts: RequestFacts,
        decision: Decision,
        *,
        action: str | None = None,
        policy_age: float | None = None,
        req_id: int = 0,
        metrics: Mapping[str, int] = NO_METRICS,
    ) -> Receipt:
        """Take one decision for the record. Never waits, never raises.

        Without a question (nobody is known who could ask it) the record shows the facts, and `action` where the
        route names one. `policy_age` is in seconds, `metrics` in nanoseconds.
        """
        now = self._clock() if question is None else question.now
        attributes = None if question is None else _copied(question.resource.attributes)
        writer = self._writer
        pending: Future[bool] | None = None
        with self._lock:
            seq = self._seq = self._seq + 1
            waiting = len(writer.queue)
            if self._required or waiting >= self._settings.queue or self._closed:
                if self._closed or self._best_effort or waiting >= 2 * self._settings.queue:
                    writer.count_dropped()
                    return Receipt(decision_id(self._writer_id, seq), None if self._best_effort else _REFUSED)
                pending = Future()
            writer.queue.append(
                Submission(
                    seq, now, question, facts, decision, action, policy_age, req_id, metrics, attributes, pending
                )
            )
        if writer.idle:
            writer.wake()
        return Receipt(decision_id(self._writer_id, seq), pending)

    def wait(self, receipt: Receipt) -> bool:
        """Whether the record of this receipt is taken care of, after at most `max_wait`. On False the decision must
        not be acted on, and a record not yet begun is taken back."""
        if receipt.pending is None:
            return True
        try:
            return receipt.pending.result(self._settings.max_wait)
        except (TimeoutError, CancelledError):
            return _given_up(receipt.pending)

    async def await_(self, receipt: Receipt) -> bool:
        """`wait` for an event loop. A caller that is cancelled meanwhile leaves the record to be written."""
        if receipt.pending is None:
            return True
        try:
            waiting = asyncio.shield(asyncio.wrap_future(receipt.pending))
            return await asyncio.wait_for(waiting, self._settings.max_wait)
        except TimeoutError:
            return _given_up(receipt.pending)

    def flush(self, timeout: float = CLOSE_WAIT_S) -> bool:
        """Wait until every record submitted so far is written; False when `timeout` seconds were too few."""
        return self._writer.flush(timeout)

    def close(self, timeout: float = CLOSE_WAIT_S) -> None:
        """Write what waits, for at most `timeout` seconds, and take no more. Also done at the end of the process."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._writer.close(timeout)

    @property
    def counters(self) -> Counters:
        """The counts of this process so far."""
        writer = self._writer
        return Counters(submitted=self._seq, written=writer.written, dropped=writer.dropped, failed=writer.failed)

    @property
    def is_failing(self) -> bool:
        """Whether records cannot be written: the sink has just refused some, or takes longer than `max_wait`."""
        return self._writer.is_failing(self._settings.max_wait)

    def _begin(self, sink: Sink) -> None:
        """Start an empty queue under a new writer name: when made, and in a child after `fork`."""
        self._lock = threading.RLock()  # a signal handler that decides something must not lock itself out
        self._seq = 0
        self._writer_id = new_writer()
        linger = 0.0 if self._required else LINGER_S
        self._writer = Writer(sink, Lines(self._app, self._writer_id), linger=linger)
        # A recorder that is simply forgotten takes its thread along; a child leaves its parent's writer alone.
        if self._finalizer is not None:
            self._finalizer.detach()
        self._finalizer = weakref.finalize(self, self._writer.stop, CLOSE_WAIT_S)
        self._finalizer.atexit = False

    def renew_after_fork(self) -> None:
        """Start with an empty queue, a thread and a writer name of this process's own."""
        # The parent may have been in the middle of anything: none of its locks and descriptors are touched here.
        # What it had queued, it writes itself.
        self._begin(self._given or open_sink(self._settings.sink, now=False))


def _copied(attributes: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    if attributes is None:
        return None
    try:
        return {
            name: copy.deepcopy(value) if isinstance(value, _CONTAINERS) else value
            for name, value in attributes.items()
        }
    except Exception:  # noqa: BLE001 - attributes are the application's objects; recording must not fail on them
        return _UNREADABLE


def _given_up(pending: Future[bool]) -> bool:
    """Take a record back; it may have been settled just now, or its writing may have begun."""
    pending.cancel()
    return pending.done() and not pending.cancelled() and pending.result()


_UNREADABLE: Final[Mapping[str, Any]] = {"*": object()}
"""Attributes that could not be copied: a value without a form in JSON, so that the record says they are left out."""

_recorders: Final[weakref.WeakSet[Recorder]] = weakref.WeakSet()


def _close_all() -> None:
    for recorder in list(_recorders):
        recorder.close()


atexit.register(_close_all)
