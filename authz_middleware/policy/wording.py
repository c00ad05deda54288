"""How problems name what was written and what could have been written instead."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_SHOWN: int = 60


def shown(value: object) -> str:
    """The value as it was written, cut short, without line breaks."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def listed(words: Iterable[str]) -> str:
    """Words as an enumeration."""
    return ", ".join(words) or "none"


def instead_of(word: object, accepted: Iterable[str]) -> str:
    """What is accepted in place of a word, the likeliest first: `did you mean 'has'? accepted: equals, has`."""
    choices = [str(choice) for choice in accepted]
    close = difflib.get_close_matches(str(word), choices, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}accepted: {listed(choices)}"
