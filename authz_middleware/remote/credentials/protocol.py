"""What authenticates us to the decision point (RFC 6750 section 2.1)."""

from __future__ import annotations

from typing import Protocol

from authz_middleware.remote.failure import RemoteFailure


class Credential(Protocol):
    """The value of the `Authorization` header, and how it is had.

    `remembered` never does I/O, so anybody may call it. The others may read a file or ask an authorization server, and
    take at most `left` seconds; a credential that cannot be had is a failure of the call, never an exception.
    """

    def remembered(self) -> str | None:
        """The header's value that is usable right now; None when it has to be had with `header` or `aheader` first."""
        ...

    def header(self, left: float) -> str | RemoteFailure:
        """The header's value, in at most `left` seconds. Blocks."""
        ...

    async def aheader(self, left: float) -> str | RemoteFailure:
        """The same, without ever blocking the event loop."""
        ...

    def refused(self, header: str) -> None:
        """The decision point did not accept this value (401): have another one, for the next call."""
        ...

    def close(self) -> None:
        """Let go of files, threads and connections. Idempotent."""
        ...

    async def aclose(self) -> None:
        """The same, from an event loop."""
        ...
