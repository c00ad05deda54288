"""What carries one question to the decision point: five lines that another client can implement.

A transport never follows a redirect, never reads a proxy from the environment, never repeats a request whose
answer may have begun, and ends by the deadline whatever the other side does. What goes wrong is a
`RemoteFailure`; an exception is a bug (or a cancellation).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

import msgspec

from authz_middleware.remote.failure import RemoteFailure


class RawAnswer(msgspec.Struct, frozen=True, gc=False):
    """A whole HTTP response as it came: nothing in it has been judged. Header names are in lower case."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def values(self, name: str) -> list[str]:
        """Every value of a header, in order."""
        return [value.strip(" \t") for header, value in self.headers if header == name]

    def values_of(self, names: Collection[str]) -> dict[str, list[str]]:
        """Every value of each of these headers that are there, in order."""
        found: dict[str, list[str]] = {}
        for header, value in self.headers:
            if header in names:
                found.setdefault(header, []).append(value.strip(" \t"))
        return found


class Transport(Protocol):
    """Carries a question by blocking calls. `deadline` is the seconds left for all of it."""

    def post(self, url: str, headers: Mapping[str, str], body: bytes, deadline: float) -> RawAnswer | RemoteFailure:
        """Post and read the whole answer."""
        ...

    def close(self) -> None:
        """Let go of every connection."""
        ...


class AsyncTransport(Protocol):
    """Carries a question on an event loop. `deadline` is the seconds left for all of it."""

    async def post(
        self, url: str, headers: Mapping[str, str], body: bytes, deadline: float
    ) -> RawAnswer | RemoteFailure:
        """Post and read the whole answer."""
        ...

    async def aclose(self) -> None:
        """Let go of the connections of the running event loop."""
        ...
