"""Values where they do not belong, at every place of some settings."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, time
from typing import Any, Final

from hypothesis import strategies as st

from authz_middleware.errors import SettingsError

Place = tuple[str | int, ...]

CANARY: Final = "s3cr3t-canary"
HIDDEN: Final[tuple[Any, ...]] = ({"value": CANARY}, [CANARY, 1], [{"token": CANARY}], {"file": [CANARY]})

_odd = st.sampled_from(
    [
        *("https://[", "https://h:99999", "https://u:p@h", "//h", "https://\u2100", "\0", "a\0b", "\ud800", "a:*"),
        *("9" * 400, "1s", "-1s", "9999999d", "file:", "::1", "1.2.3.4/99", "9999-99-99", "spiffe://", "{", "{a.b}"),
        *(2**63, float("nan"), float("inf"), date(2026, 1, 1), datetime(2026, 1, 1, tzinfo=UTC), time(1, 2)),
        *(None, b"x", (), {1: 2}, {None: None}, {"env": "X"}, {"file": "y"}, {"file": "\0"}, object()),
    ]
)
values = st.recursive(
    _odd | st.text(max_size=12) | st.integers() | st.booleans() | st.floats(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def places(table: Any, here: Place = ()) -> Iterator[Place]:
    """Every place of nested tables and arrays, the whole included."""
    yield here
    pairs = table.items() if isinstance(table, dict) else enumerate(table) if isinstance(table, list) else ()
    for key, value in pairs:
        yield from places(value, (*here, key))


def put(table: Any, place: Place, value: Any) -> Any:
    """The same with another value at one place."""
    if not place:
        return value
    copied = table.copy()
    copied[place[0]] = put(copied[place[0]], place[1:], value)
    return copied


def told(error: SettingsError) -> str:
    """All that a person could be shown of an error."""
    return "\n".join([str(error), repr(error), *map(repr, error.problems)])
