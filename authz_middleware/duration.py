"""Durations as people write them, in settings and in policies: a number with a unit."""

from __future__ import annotations

import re
from typing import Final

PATTERN: Final = r"[0-9]{1,9}(?:\.[0-9]{1,9})?(?:ms|s|m|h|d)"

_DURATION: Final = re.compile(PATTERN)
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def parse_duration(text: object) -> float | None:
    """Seconds from a text with a unit (`200ms`, `30s`, `15m`, `8h`, `1d`), or None when it is not one."""
    if not isinstance(text, str) or not _DURATION.fullmatch(text):
        return None
    digits = text.rstrip("msdh")
    return float(digits) * _UNITS[text[len(digits) :]]
