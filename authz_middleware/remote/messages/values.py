"""What a value of the application becomes in JSON, without changing what it means.

A PDP may be written in any language, so the rules are those of I-JSON (RFC 7493): no null, no number that a
64-bit float cannot hold, no text that is not Unicode. What cannot be said exactly is not said approximately.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any, Final
from uuid import UUID

from authz_middleware.errors import AuthzError

MAX_DEPTH: Final = 16
MAX_WHOLE: Final = 2**53 - 1
_LEAST_WHOLE: Final = -MAX_WHOLE
_RFC3339: Final = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)", re.ASCII)


class MessageError(AuthzError):
    """A question that cannot be put in AuthZEN form, or a request that is not one. `where` is the member."""

    def __init__(self, where: str, what: str) -> None:
        self.where = where
        self.what = what
        super().__init__(f"{where} {what}")


def plain_object(values: Mapping[str, Any], where: str, *, strict: bool = False) -> dict[str, Any]:
    """A mapping as a JSON object. A member that is None is left out: it says nothing, and AuthZEN has no null.

    Aware datetimes become RFC 3339 text, dates ISO text, UUIDs text, enums their value, Decimals numbers where
    a 64-bit float says the same, tuples and sets lists. With `strict` the values must be JSON already, and a
    null is refused. Raises MessageError that names the member.
    """
    try:
        return _object(values, strict, 0)
    except MessageError as error:
        raise MessageError(where + error.where, error.what) from None


def plain_text(value: object, where: str) -> str:
    """Text that UTF-8 can carry. Raises MessageError."""
    if not isinstance(value, str):
        raise MessageError(where, "must be text")
    text = str.__str__(value)
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise MessageError(where, "must be Unicode text without lone surrogates") from None
    return text


def plain_number(value: float, where: str) -> float:
    """A number that a 64-bit float holds exactly, or a flag. Raises MessageError."""
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        if abs(value) > MAX_WHOLE:
            raise MessageError(where, "is a whole number beyond ±(2^53 - 1) that not every decision point can hold")
        return int(value)
    if not math.isfinite(value):
        raise MessageError(where, "is not a finite number")
    return float(value)


def time_text(now: float, where: str) -> str:
    """Seconds since the epoch as RFC 3339 in UTC, with as many digits (3 to 9) as give the same float again.

    Raises MessageError outside of the years 1 to 9999.
    """
    try:
        seconds = math.floor(now)
        nanoseconds = round((now - seconds) * 1e9)
        if nanoseconds == 1_000_000_000:
            seconds, nanoseconds = seconds + 1, 0
        whole = _second_text(seconds)
    except (ValueError, OverflowError, OSError):
        raise MessageError(where, "is not a time between the years 1 and 9999") from None
    return f"{whole}.{f'{nanoseconds:09d}'.rstrip('0').ljust(3, '0')}Z"


@functools.lru_cache(64)
def _second_text(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None).isoformat()


def time_of(text: str, where: str) -> float:
    """Seconds since the epoch from RFC 3339 text, with its offset. Raises MessageError."""
    match = _RFC3339.fullmatch(text)
    try:
        if match is None:
            raise ValueError  # noqa: TRY301 - the same report as for the thirteenth month
        whole = _whole_second(match[1], match[3])
    except (ValueError, OverflowError):
        raise MessageError(where, "must be an RFC 3339 time with an offset, such as 2026-01-31T09:00:00.000Z") from None
    return whole + int((match[2] or "0").ljust(9, "0")) / 1e9


# What is asked about now was mostly asked within one of the last seconds, and read within one of them.
@functools.lru_cache(64)
def _whole_second(text: str, offset: str) -> float:
    return datetime.fromisoformat(text + offset.replace("Z", "+00:00")).timestamp()


def _object(values: Mapping[Any, Any], strict: bool, depth: int) -> dict[str, Any]:
    """Every function from here on names the place of a problem as seen from its own value."""
    members: dict[str, Any] = {}
    for name, value in values.items():
        if type(name) is str and name.isascii() and _is_plain(value):
            members[name] = value
            continue
        plain_text(name, " has a member name that")
        if value is not None:
            members[str.__str__(name)] = _inner(value, f".{name}", strict, depth)
        elif strict:
            raise MessageError(f".{name}", "must not be null; leave the member out")
    return members


def _array(values: Sequence[Any], strict: bool, depth: int) -> list[Any]:
    if all(map(_is_plain, values)):
        return list(values)
    return [_inner(value, f"[{index}]", strict, depth) for index, value in enumerate(values)]


def _is_plain(value: Any) -> bool:
    """Whether a value is, at a glance, what it will be in JSON. Nearly all are, and this runs for every one."""
    kind = type(value)
    if kind is str:
        return value.isascii()  # type: ignore[no-any-return]  # narrowed by its exact type
    if kind is int:
        return _LEAST_WHOLE <= value <= MAX_WHOLE  # type: ignore[no-any-return]  # likewise
    if kind is float:
        return value - value == 0.0  # type: ignore[no-any-return]  # likewise; true of all that are finite
    return kind is bool


def _inner(value: Any, step: str, strict: bool, depth: int) -> Any:
    try:
        return _plain(value, strict, depth + 1)
    except MessageError as error:
        raise MessageError(step + error.where, error.what) from None


def _plain(value: Any, strict: bool, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise MessageError("", f"is nested more than {MAX_DEPTH} deep")
    kind = type(value)
    if kind is dict:
        return _object(value, strict, depth)
    if kind is list:
        return _array(value, strict, depth)
    if isinstance(value, Enum) and not strict:
        return _plain(value.value, strict, depth)
    if isinstance(value, str):
        return plain_text(value, "")
    if isinstance(value, bool | int | float):
        return plain_number(value, "")
    return _contained(value, strict, depth)


def _contained(value: Any, strict: bool, depth: int) -> Any:
    if isinstance(value, Mapping):
        return _object(value, strict, depth)
    if isinstance(value, list | tuple):
        return _array(value, strict, depth)
    if not strict:
        return _converted(value, depth)
    raise MessageError("", "must not be null" if value is None else "must be JSON")


def _converted(value: Any, depth: int) -> Any:
    if isinstance(value, datetime):
        if value.utcoffset() is None:
            raise MessageError("", "is a datetime without a time zone")
        return value.isoformat()
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, Decimal):
        return _decimal(value)
    if isinstance(value, set | frozenset):
        try:
            return sorted(_inner(item, "[]", False, depth) for item in value)
        except TypeError:
            raise MessageError("", "is a set of values that have no order between them") from None
    raise MessageError("", f"is a {type(value).__name__}, which has no form in JSON; give text or a number")


def _decimal(value: Decimal) -> float:
    """A number that prints as the same decimal, so that a limit compares as it was written."""
    if not value.is_finite():
        raise MessageError("", "is not a finite number")
    number = int(value) if value == value.to_integral_value() else float(value)
    if Decimal(repr(number)) != value:
        raise MessageError("", "has more digits than a number in JSON can carry; give text")
    return plain_number(number, "")
