"""SPIFFE IDs and the patterns that name sets of them (SPIFFE-ID standard, section 2).

An id has one spelling. Whatever would need to be normalised first (capitals, percent-encoding, `..`, a port) is not
one, so that two parties cannot read the same id differently.
"""

from __future__ import annotations

import re
from typing import Final, Self

import msgspec

MAX_SPIFFE_ID: Final = 2048
TRUST_DOMAIN: Final = re.compile(r"[a-z0-9._-]{1,255}")
_SEGMENT: Final = re.compile(r"(?!\.{1,2}\Z)[A-Za-z0-9._-]+")
_SPIFFE_ID: Final = re.compile(rf"spiffe://({TRUST_DOMAIN.pattern})((?:/[A-Za-z0-9._-]+)*)")


class SpiffeId(msgspec.Struct, frozen=True, gc=False):
    """A SPIFFE ID; `segments` are those of its path, of which the id of a trust domain itself has none."""

    trust_domain: str
    segments: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a SPIFFE ID. Raises ValueError for a text that is not one, to the letter."""
        parts = _SPIFFE_ID.fullmatch(text) if len(text) <= MAX_SPIFFE_ID else None
        if parts is None:
            raise ValueError("not a SPIFFE ID")
        segments = tuple(parts[2].split("/")[1:])
        if not all(map(_SEGMENT.fullmatch, segments)):
            raise ValueError("not a SPIFFE ID")
        return cls(parts[1], segments)

    def __str__(self) -> str:
        return "/".join((f"spiffe://{self.trust_domain}", *self.segments))


class PathPattern(msgspec.Struct, frozen=True, gc=False):
    """A set of paths, segment by segment: `*` is any one segment; with `any_below`, one or more may follow."""

    segments: tuple[str, ...]
    any_below: bool = False

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a pattern: `/ns/billing/sa/*`, `/ns/billing/**`. Raises ValueError for anything else."""
        first, *segments = text.split("/")
        any_below = segments[-1:] == ["**"]
        if any_below:
            segments.pop()
        is_pattern = first == "" and (segments or any_below)
        if not is_pattern or not all(segment == "*" or _SEGMENT.fullmatch(segment) for segment in segments):
            raise ValueError("not a path pattern")
        return cls(tuple(segments), any_below)

    def covers(self, id_: SpiffeId) -> bool:
        """Whether the path of this id is in the set."""
        here, below = id_.segments[: len(self.segments)], id_.segments[len(self.segments) :]
        return (
            len(here) == len(self.segments)
            and bool(below) is self.any_below
            and all(wanted in ("*", segment) for wanted, segment in zip(self.segments, here, strict=True))
        )
