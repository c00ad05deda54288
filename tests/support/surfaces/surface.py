"""One way to send a request to the treasury, whatever framework serves it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import msgspec


class Reply(msgspec.Struct):
    """What came back. Header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Surface(Protocol):
    """A served treasury. `ran` holds the names of the handlers that ran, in order."""

    ran: list[str]

    def request(self, method: str, path: str, headers: Mapping[str, str]) -> Reply:
        """Send one request and wait for its reply."""
        ...

    def close(self) -> None:
        """Stop serving."""
        ...
