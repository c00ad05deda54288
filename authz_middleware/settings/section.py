"""Reads one table of the settings, key by key, and collects every problem instead of stopping at the first."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

from authz_middleware.duration import parse_duration
from authz_middleware.errors import Problem
from authz_middleware.settings.secret import Secret

C = TypeVar("C", bound=str)

_REQUIRED: Final[Any] = object()


class Section:
    """One table. Each reader takes a key; `done()` reports the keys that nobody took."""

    def __init__(self, values: object, path: str, problems: list[Problem], base: Path) -> None:
        self.path = path
        self.base = base
        self._problems = problems
        self._taken: list[str] = []
        self._values: dict[str, Any] = {}
        if isinstance(values, Mapping):
            self._values = {str(key): value for key, value in values.items()}
        else:
            # What stands where `{ env = … }` is expected may be the secret itself.
            self.problem("", f"must be a table, not of type {type(values).__name__}")

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def keys(self) -> tuple[str, ...]:
        """The keys that are written in this table."""
        return tuple(self._values)

    def problem(self, key: str, what: str) -> None:
        """Report that the value of `key` (or, for an empty key, this table) cannot be used."""
        self._problems.append(Problem(self._at(key) or "settings", what))

    def text(self, key: str, default: Any = _REQUIRED) -> Any:
        """A non-empty string."""
        accepted = "a non-empty string"
        return self._read(key, default, accepted, lambda value: isinstance(value, str) and bool(value.strip()))

    def flag(self, key: str, default: bool) -> bool:
        """`true` or `false`, nothing that merely counts as one."""
        return bool(self._read(key, default, "true or false", lambda value: isinstance(value, bool)))

    def whole(self, key: str, default: int, *, least: int, most: int) -> int:
        """A whole number within bounds."""
        return int(
            self._read(
                key,
                default,
                f"a whole number from {least} to {most}",
                lambda value: type(value) is int and least <= value <= most,
            )
        )

    def duration(self, key: str, default: Any = _REQUIRED, *, least: str = "0s", most: str = "365d") -> Any:
        """Seconds, written as a string with a unit and held within bounds."""
        accepted = f'a duration from {least} to {most}, such as "200ms", "30s", "15m", "8h" or "1d"'
        low, high = parse_duration(least) or 0.0, parse_duration(most) or 0.0

        def fits(value: object) -> bool:
            seconds = parse_duration(value)
            return seconds is not None and low <= seconds <= high

        return parse_duration(self._read(key, default, accepted, fits))

    def choice(self, key: str, choices: Collection[C], default: Any = _REQUIRED) -> Any:
        """One of a set of words."""
        accepted = "one of " + ", ".join(f'"{choice}"' for choice in choices)
        return self._read(key, default, accepted, lambda value: isinstance(value, str) and value in tuple(choices))

    def texts(self, key: str, default: Any = _REQUIRED) -> tuple[str, ...]:
        """A non-empty list of non-empty strings; each once."""

        def fits(value: object) -> bool:
            return isinstance(value, list | tuple) and bool(value) and all(isinstance(x, str) and x for x in value)

        return tuple(dict.fromkeys(self._read(key, default, "a non-empty list of strings", fits) or ()))

    def file(self, key: str, default: Any = _REQUIRED) -> Any:
        """A path, taken relative to the file the settings came from."""
        value = self.text(key, default)
        if not isinstance(value, str):
            return value
        if not _is_path(value):
            self.problem(key, "must be a path, without a zero byte and in characters that file names can have")
            return None if default is _REQUIRED else default
        return self.base / value

    def secret(self, key: str) -> Secret | None:
        """A reference to a secret; a literal value is refused so that it never lives in a settings file."""
        accepted = '{ env = "NAME" } or { file = "path" }; a secret is never written here itself'
        value = self._take(key, None, accepted)
        if value is None:
            return None
        secret = Secret.reference(value, self.base)
        if secret is None:
            # The value may be the secret itself: say where it is, never what it is.
            self.problem(key, f"must be {accepted}")
        return secret

    def raw(self, key: str) -> Any:
        """The value as it stands, or None; the caller checks it."""
        return self._take(key, None, "")

    def table(self, key: str) -> Section:
        """A nested table; an absent one reads as empty."""
        return Section(self._take(key, {}, "a table"), self._at(key), self._problems, self.base)

    def optional_table(self, key: str) -> Section | None:
        """A nested table, or None when the settings do not have it."""
        if key not in self:
            self._taken.append(key)  # it would be known
            return None
        return self.table(key)

    def tables(self, key: str) -> Iterator[tuple[str, Section]]:
        """Each entry of a table of tables, by name."""
        entries = self.table(key)
        for name in entries.keys():  # noqa: SIM118 - a Section is not a mapping
            yield name, entries.table(name)

    def array(self, key: str) -> list[Section]:
        """Each table of an array of tables."""
        value = self._take(key, [], "an array of tables")
        if not isinstance(value, list | tuple):
            self.problem(key, f"must be an array of tables, not {_shown(value)}")
            return []
        return [Section(item, f"{self._at(key)}[{i}]", self._problems, self.base) for i, item in enumerate(value)]

    def done(self) -> None:
        """Report every key that no reader took."""
        for key in self._values:
            if key not in self._taken:
                accepted = ", ".join(sorted(set(self._taken))) or "none"
                self.problem(key, f"is not a known key; accepted here: {accepted}")

    def _at(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path and key else self.path or key

    def _take(self, key: str, default: Any, accepted: str) -> Any:
        self._taken.append(key)
        if key in self._values:
            return self._values[key]
        if default is _REQUIRED:
            self.problem(key, f"is required: {accepted}")
            return None
        return default

    def _read(self, key: str, default: Any, accepted: str, fits: Callable[[Any], bool]) -> Any:
        """The value when it is written and fits, else the default; None where there is none."""
        value = self._take(key, default, accepted)
        if key not in self._values or fits(value):
            return value
        self.problem(key, f"must be {accepted}, not {_shown(value)}")
        return None if default is _REQUIRED else default


def _is_path(text: str) -> bool:
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False


def _shown(value: object) -> str:
    """A value for people, at most 60 characters of it. A secret that was put where none belongs stands in a table
    or a list (`token_file = { value = "…" }`), so nothing within one is shown."""
    is_long = isinstance(value, int) and value.bit_length() > 128  # Python refuses to write thousands of digits
    if is_long or not isinstance(value, str | int | float):
        return f"of type {type(value).__name__}"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
