"""Names for decisions: unique across processes without coordination, and known before anything is written."""

from __future__ import annotations

import re
import secrets
from typing import Final

_TRACEPARENT: Final = re.compile(r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(?:-.*)?")
_NO_TRACE: Final = "0" * 32
_NO_SPAN: Final = "0" * 16


def new_writer() -> str:
    """A random name for one process's stretch of records: the first four groups of a version 8 UUID (RFC 9562
    section 5.8), 74 random bits. It is not a secret and proves nothing."""
    bits = secrets.randbits(74)
    group_1, group_2, custom_b, custom_c = bits >> 42, bits >> 26 & 0xFFFF, bits >> 14 & 0xFFF, bits & 0x3FFF
    return f"{group_1:08x}-{group_2:04x}-8{custom_b:03x}-{0x8000 | custom_c:04x}"


def decision_id(writer: str, seq: int) -> str:
    """The version 8 UUID of a writer's decision number `seq`, which fills the last 48 bits."""
    return f"{writer}-{seq:012x}"


def trace_id(traceparent: str | None) -> str | None:
    """The trace id of a W3C `traceparent` header, or None for a header that Trace Context tells us to ignore."""
    match = _TRACEPARENT.fullmatch(traceparent) if traceparent else None
    if match is None or match[1] == _NO_TRACE or match[2] == _NO_SPAN:
        return None
    if traceparent is not None and traceparent.startswith("00") and len(traceparent) != 55:
        return None
    return match[1]
