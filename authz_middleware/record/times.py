"""Times as text, many to the second."""

from __future__ import annotations

from typing import Final

from authz_middleware.remote.messages.values import MessageError, time_text

EPOCH: Final = b"1970-01-01T00:00:00.000Z"
"""Stands where a clock gave no time that has a date."""

_YEAR_9999: Final = 253_370_764_800.0


class Times:
    """Writes times as `time_text` does, and remembers the text of the last second, and the last text: a record tells
    most times twice. For one thread."""

    def __init__(self) -> None:
        self._second = 0
        self._text = "1970-01-01T00:00:00"
        self._last = 0.0
        self._written = EPOCH

    def text(self, now: float) -> bytes:
        """Seconds since the epoch as RFC 3339 in UTC, with 3 to 9 digits of the fraction."""
        if now == self._last:
            return self._written
        if not 0 <= now < _YEAR_9999:
            return _unusual(now)
        second = int(now)
        nanoseconds = round((now - second) * 1e9)
        if nanoseconds == 1_000_000_000:
            return _unusual(now)
        if second != self._second:
            self._second, self._text = second, time_text(second, "time")[:19]
        digits = f"{nanoseconds:09d}"
        fraction = digits if digits[-1] != "0" else digits.rstrip("0").ljust(3, "0")
        self._last, self._written = now, f"{self._text}.{fraction}Z".encode()
        return self._written


def _unusual(now: float) -> bytes:
    try:
        return time_text(now, "time").encode()
    except MessageError:
        return EPOCH
