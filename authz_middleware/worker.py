"""A thread beside the requests that keeps something up to date: a feed of revocations, a decision point's metadata."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final

from authz_middleware.forking import renew_in_children

logger = logging.getLogger("authz")

_AFTER_A_FAULT: Final = 5.0


class Worker:
    """Calls `step` again and again, in a daemon thread of its own; `step` answers in how many seconds it is next due.

    Nothing is started before `start`, and a forked child starts anew, so that a server may fork at any time.
    """

    def __init__(self, step: Callable[[], float], *, name: str) -> None:
        self._step = step
        self._name = name
        self._closed = False
        self.renew_after_fork()
        renew_in_children(self)

    def renew_after_fork(self) -> None:
        """No thread, and a lock that nobody holds: the state after a fork, where only the forking thread lives on."""
        self._guard = threading.Lock()
        self._wanted = threading.Event()
        self._thread: threading.Thread | None = None
        self.is_needed = not self._closed
        """Whether no thread runs in this process although one should."""

    def start(self) -> None:
        """See to it that the thread runs in this process. Never waits."""
        with self._guard:
            if self._closed or self._thread is not None:
                return
            thread = threading.Thread(target=self._work, args=(self._wanted,), name=self._name, daemon=True)
            thread.start()  # raises where there can be no more of them; whoever needs it next tries again
            self._thread = thread
            self.is_needed = False

    def wake(self) -> None:
        """Have `step` called without waiting until it is due."""
        self._wanted.set()

    def close(self) -> None:
        """Call `step` no more, and wait for a moment until a call that is under way is done."""
        with self._guard:
            self._closed = True
            self.is_needed = False
            self._wanted.set()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout=1.0)

    def _work(self, wanted: threading.Event) -> None:
        while not self._closed:
            wanted.clear()
            pause = self._call()
            wanted.wait(pause)

    def _call(self) -> float:
        try:
            return max(0.0, self._step())
        except Exception as error:  # noqa: BLE001 - the thread must outlive what nobody foresaw; its text may quote
            logger.error("%s: failed unexpectedly (%s)", self._name, type(error).__name__)  # noqa: TRY400 - no traceback
            return _AFTER_A_FAULT
