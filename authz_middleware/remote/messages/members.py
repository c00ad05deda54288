"""Reads a JSON object by a table that has a reader for each member; a member without one is refused.

An attribute that is silently ignored is one that the asker believes was weighed, so there are none. Every reader raises
MessageError for a value of another type, null included, and names the place as seen from its own value; whoever reads
the object around it puts the name of the member in front.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from authz_middleware.remote.messages.values import MessageError, plain_number, plain_object, plain_text, time_of
from authz_middleware.resource import is_clear_id

Reader = Callable[[Any], Any]
Table = Mapping[str, Reader]

MAX_SHOWN: Final = 64
"""Characters of an unknown member's name: it comes off the wire, and nobody writes a page into an error message."""


def read(value: object, table: Table, required: Sequence[str] = ()) -> dict[str, Any]:
    """What the readers make of the members of an object that are there. Raises MessageError for an unknown one, and
    where a required one is missing."""
    if not isinstance(value, Mapping):
        raise MessageError("", "must be an object")
    members: dict[str, Any] = {}
    for name, item in value.items():
        reader = table.get(name)
        if reader is None:
            raise MessageError(f".{_shown(name)}", "is not a known member")
        try:
            members[name] = reader(item)
        except MessageError as error:
            raise MessageError(f".{name}{error.where}", error.what) from None
    for name in required:
        if name not in members:
            raise MessageError(f".{name}", "is required")
    return members


def object_of(table: Table, *required: str) -> Reader:
    """A reader of an object with these members."""
    return lambda value: read(value, table, required)


def items_of(reader: Reader) -> Reader:
    """A reader of a list of values of one kind."""

    def read_items(value: Any) -> list[Any]:
        if not isinstance(value, list):
            raise MessageError("", "must be a list")
        items = []
        for item in value:
            try:
                items.append(reader(item))
            except MessageError as error:
                raise MessageError(f"[{len(items)}]{error.where}", error.what) from None
        return items

    return read_items


def one_of(*words: str) -> Reader:
    """A reader of one of a set of words."""
    known, what = {word: word for word in words}, f"must be one of {', '.join(words)}"

    def read_word(value: Any) -> str:
        word = known.get(text(value))
        if word is None:
            raise MessageError("", what)
        return word

    return read_word


def text(value: Any) -> str:
    """Text."""
    return value if type(value) is str and value.isascii() else plain_text(value, "")


def clear_id(value: Any) -> str:
    """Text that is safe to decide on, to log and to show."""
    id_ = text(value)
    if not is_clear_id(id_):
        raise MessageError("", "must be 1 to 1024 characters, none of them invisible or a control")
    return id_


def number(value: Any) -> float:
    """A number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise MessageError("", "must be a number")
    return float(plain_number(value, ""))


def flag(value: Any) -> bool:
    """True or False."""
    if not isinstance(value, bool):
        raise MessageError("", "must be true or false")
    return value


def time(value: Any) -> float:
    """A time, in seconds since the epoch."""
    return time_of(text(value), "")


def values(value: Any) -> dict[str, Any]:
    """An object of any JSON values but null."""
    if not isinstance(value, Mapping):
        raise MessageError("", "must be an object")
    return plain_object(value, "", strict=True)


def _shown(name: object) -> str:
    return plain_text(str(name)[:MAX_SHOWN], " has a member name that")
