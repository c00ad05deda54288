"""Follows a policy file: loads it again when it has changed, and says so once when that fails."""

from __future__ import annotations

import logging
import threading
from typing import Final

from authz_middleware.errors import PolicyError
from authz_middleware.forking import renew_in_children
from authz_middleware.policy.store import SnapshotStore

logger = logging.getLogger("authz")
_MAX_LOGGED: Final = 5

_Stamp = tuple[int, int, int, int]


class PolicyWatcher:
    """Looks every `refresh` seconds, from a thread of its own, whether the store's file has changed.

    A file that cannot be used leaves the snapshot in force as it is; each distinct failure is logged once, until a
    load succeeds again.
    """

    def __init__(self, store: SnapshotStore, refresh: float) -> None:
        self._store = store
        self._refresh = refresh
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._stamp: _Stamp | None = None
        self._reported: str | None = None
        renew_in_children(self)

    @property
    def problem(self) -> str | None:
        """Why the file as it is now is not in force; None when it is."""
        return self._reported

    def start(self) -> None:
        """Start following; without effect while it already does. A forked child follows with a thread of its own."""
        if self._thread is not None and self._thread.is_alive():
            return
        self._stopped.clear()
        self._thread = threading.Thread(target=self._run, name="authz-policy", daemon=True)
        self._thread.start()

    def renew_after_fork(self) -> None:
        """Follow with a thread of this process, if the parent did."""
        followed = self._thread is not None
        self._thread, self._stopped = None, threading.Event()
        if followed:
            self.start()

    def stop(self) -> None:
        """Stop following, and wait until a load that is under way is done."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def look(self) -> bool:
        """Look once, now; True when a new snapshot came into force. Never raises."""
        stamp = self._read_stamp()
        if stamp is not None and stamp == self._stamp:
            return False
        try:
            changed = self._store.reload()
        except PolicyError as error:
            self._report("; ".join(str(problem) for problem in error.problems[:_MAX_LOGGED]), len(error.problems))
            changed = False
        except Exception as error:  # noqa: BLE001 - the thread must outlive any fault; its text stays out of the log
            self._report(f"unexpected {type(error).__name__}", 1)
            changed = False
        else:
            self._reported = None
        # Read before the load: a change in between is seen the next time.
        self._stamp = stamp
        return changed

    def _run(self) -> None:
        while not self._stopped.wait(self._refresh):
            self.look()

    def _read_stamp(self) -> _Stamp | None:
        if self._store.source is None:
            return None
        try:
            status = self._store.source.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino

    def _report(self, failure: str, count: int) -> None:
        if failure != self._reported:
            self._reported = failure
            logger.error("policy not loaded, the last good one stays in force; %d problem(s): %s", count, failure)
