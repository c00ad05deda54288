"""Log lines that somebody should act on, at most one a minute of a kind: a client that causes them must not be able
to flood the log."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from authz_middleware.forking import renew_in_children

logger = logging.getLogger("authz")

EVERY_S: Final = 60.0


class Alarm:
    """One alarm. `monotonic` gives seconds."""

    def __init__(self, message: str, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._message = message
        self._monotonic = monotonic
        self.renew_after_fork()
        renew_in_children(self)
        self._rung_at: dict[str, float] = {}
        self._silent: dict[str, int] = {}

    def renew_after_fork(self) -> None:
        """A lock that nobody holds."""
        self._lock = threading.Lock()

    def ring(self, *arguments: object, kind: str = "") -> None:
        """Log the message, or count it where one of its kind was logged less than a minute ago. Whatever a client can
        choose among the arguments is shown by `repr` (`%r`), so that it cannot forge a line; a kind is never its own.
        """
        now = self._monotonic()
        with self._lock:
            rung_at = self._rung_at.get(kind)
            if rung_at is not None and now - rung_at < EVERY_S:
                self._silent[kind] = self._silent.get(kind, 0) + 1
                return
            self._rung_at[kind] = now
            silent = self._silent.pop(kind, 0)
        logger.error(f"{self._message} (%d more since the last such line)", *arguments, silent)  # noqa: G004 - a constant
