"""Points in time, and daily windows by the clocks of a zone.

A window is asked about an instant, never about a wall-clock text, so changes of daylight-saving time need no rule of
their own: an hour that happens twice is inside twice, one that is skipped never comes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY: Final = 86_400
CLOCK_PATTERN: Final = r"(?:[01][0-9]|2[0-3]):[0-5][0-9](?::[0-5][0-9])?|24:00(?::00)?"

_CLOCK: Final = re.compile(CLOCK_PATTERN)


def parse_clock(text: str) -> int | None:
    """Seconds since midnight from `HH:MM` or `HH:MM:SS` (up to `24:00`), or None when it is not one."""
    if not _CLOCK.fullmatch(text):
        return None
    hours, minutes, *seconds = (int(part) for part in text.split(":"))
    return hours * 3600 + minutes * 60 + (seconds[0] if seconds else 0)


def parse_instant(text: str) -> float | None:
    """Seconds since the epoch from an RFC 3339 date-time with its offset, or None when it is not one."""
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        return None
    # fromisoformat reads more of ISO 8601 than RFC 3339 has; a date alone or a time without offset is refused.
    return instant.timestamp() if instant.tzinfo is not None and "T" in text.upper() else None


def find_zone(name: str) -> ZoneInfo | None:
    """The zone of this IANA name, or None. Reads the zone's file now, so that no decision has to."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None


def daily_window(start: int, end: int, days: frozenset[int], zone: ZoneInfo) -> Callable[[float], bool]:
    """A function that tells whether an instant lies in `[start, end)` of one of these days.

    `start` and `end` are seconds since midnight, `days` are 0 (Monday) to 6. With `end <= start` the window crosses
    midnight, and its early part belongs to the day before: Friday 22:00 to 06:00 includes Saturday at 05:59.
    """

    def within_day(now: float) -> bool:
        local = datetime.fromtimestamp(now, zone)
        return start <= _second_of_day(local) < end and local.weekday() in days

    def across_midnight(now: float) -> bool:
        local = datetime.fromtimestamp(now, zone)
        second = _second_of_day(local)
        if second >= start:
            return local.weekday() in days
        return second < end and (local.weekday() - 1) % 7 in days

    return within_day if start < end else across_midnight


def _second_of_day(local: datetime) -> int:
    return local.hour * 3600 + local.minute * 60 + local.second
