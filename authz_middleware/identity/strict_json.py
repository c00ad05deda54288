"""JSON as tokens and key sets may hold it: one meaning per text, bounded, or refused.

Two parsers that read one text differently are a way around a check (RFC 8725 section 2.4), so whatever the
grammar leaves open is refused here: duplicate members, NaN and infinities, halves of surrogate pairs.
"""

from __future__ import annotations

import json
import math
from typing import Any, Final, NoReturn

MAX_DEPTH: Final = 32
_MAX_DIGITS: Final = 19


def parse_object(data: bytes) -> dict[str, Any]:
    """The object that these bytes spell in UTF-8.

    Raises ValueError (whose text must not leave this package) for everything else.
    """
    try:
        value = _DECODER.decode(data.decode("utf-8"))
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError("not an object")  # noqa: TRY004 - callers meet one exception for every bad text
    _check(value, MAX_DEPTH)
    return value


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Names are compared after escapes are resolved: "a" and "\u0061" are one member.
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member occurs twice")
    return members


def _integer(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise ValueError("a number is too long")
    return int(digits)


def _number(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError("a number is too large")
    return number


def _refuse_constant(_name: str) -> NoReturn:
    raise ValueError("not a JSON number")


def _check(value: object, depth: int) -> None:
    """Raise ValueError for nesting beyond `depth` and for text that UTF-8 cannot hold (RFC 8259 section 8.2)."""
    if isinstance(value, str):
        if not value.isascii():
            value.encode("utf-8")
    elif isinstance(value, dict | list):
        if depth == 0:
            raise ValueError("nested too deeply")
        if isinstance(value, dict):
            for name in value:
                _check(name, depth)
            value = list(value.values())
        for item in value:
            _check(item, depth - 1)


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_members, parse_int=_integer, parse_float=_number, parse_constant=_refuse_constant
)
