"""Reads one JSON object member by member; `done()` refuses the members that nobody read.

An attribute that is silently ignored is one that the asker believes was weighed, so there are none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from authz_middleware.remote.messages.values import MessageError, plain_number, plain_object, plain_text
from authz_middleware.resource import is_clear_id

C = TypeVar("C", bound=str)


class Members:
    """One JSON object at `where`. Every reader raises MessageError for a value of another type; an absent
    member reads as None or empty where the reader says so, and null is a value of another type."""

    def __init__(self, value: object, where: str) -> None:
        if not isinstance(value, Mapping):
            raise MessageError(where or "the request", "must be an object")
        self._where = where
        self._left = dict(value)

    def object(self, name: str) -> Members:
        """A required object."""
        self._require(name)
        return Members(self._left.pop(name), self._at(name))

    def optional_object(self, name: str) -> Members:
        """An object; an absent one reads as empty."""
        return Members(self._left.pop(name, {}), self._at(name))

    def objects(self, name: str) -> list[Members]:
        """A list of objects; an absent one reads as empty."""
        return [Members(item, f"{self._at(name)}[{index}]") for index, item in enumerate(self._list(name))]

    def text(self, name: str) -> str:
        """Required text."""
        self._require(name)
        return plain_text(self._left.pop(name), self._at(name))

    def optional_text(self, name: str) -> str | None:
        """Text, or None when absent."""
        return self.text(name) if name in self._left else None

    def clear_id(self, name: str) -> str:
        """Required text that is safe to decide on, to log and to show."""
        text = self.text(name)
        if not is_clear_id(text):
            raise MessageError(self._at(name), "must be 1 to 1024 characters, none of them invisible or a control")
        return text

    def choice(self, name: str, choices: Sequence[C]) -> C:
        """One of a set of words, required."""
        text = self.text(name)
        for choice in choices:
            if choice == text:
                return choice
        raise MessageError(self._at(name), f"must be one of {', '.join(choices)}")

    def optional_choice(self, name: str, choices: Sequence[C]) -> C | None:
        """One of a set of words, or None when absent."""
        return self.choice(name, choices) if name in self._left else None

    def texts(self, name: str) -> list[str]:
        """A list of text; an absent one reads as empty."""
        return [plain_text(item, f"{self._at(name)}[{index}]") for index, item in enumerate(self._list(name))]

    def number(self, name: str) -> float:
        """A number; an absent one reads as 0."""
        value = self._left.pop(name, 0.0)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise MessageError(self._at(name), "must be a number")
        return float(plain_number(value, self._at(name)))

    def optional_number(self, name: str) -> float | None:
        """A number, or None when absent."""
        return self.number(name) if name in self._left else None

    def flag(self, name: str, absent: bool) -> bool:
        """True or False, or `absent`."""
        if name not in self._left:
            return absent
        value = self._left.pop(name)
        if not isinstance(value, bool):
            raise MessageError(self._at(name), "must be true or false")
        return value

    def values(self, name: str) -> dict[str, Any] | None:
        """An object of any JSON values but null, or None when absent."""
        if name not in self._left:
            return None
        value = self._left.pop(name)
        if not isinstance(value, Mapping):
            raise MessageError(self._at(name), "must be an object")
        return plain_object(value, self._at(name), strict=True)

    def done(self) -> None:
        """Refuse the members that nobody read."""
        if self._left:
            # The name comes off the wire: cut it, so that nobody writes a page into an error message.
            name = str(min(self._left, key=str))[:64]
            raise MessageError(self._at(plain_text(name, self._where)), "is not a known member")

    def _require(self, name: str) -> None:
        if name not in self._left:
            raise MessageError(self._at(name), "is required")

    def _list(self, name: str) -> list[Any]:
        value = self._left.pop(name, [])
        if not isinstance(value, list):
            raise MessageError(self._at(name), "must be a list")
        return value

    def _at(self, name: str) -> str:
        return f"{self._where}.{name}" if self._where else name
