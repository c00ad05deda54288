"""What is held of a credential, and where it comes from."""

from __future__ import annotations

from math import inf
from typing import Protocol

from authz_middleware.remote.failure import RemoteFailure


class Held:
    """A header's value and its times: all in seconds of the monotonic clock, except `expires_at` (since the epoch,
    because a machine may sleep). Its `repr` does not show it."""

    __slots__ = ("expires_at", "header", "renew_at", "until", "wait_from")

    def __init__(
        self, header: str, *, renew_at: float, wait_from: float = inf, until: float = inf, expires_at: float = inf
    ) -> None:
        self.header = header
        self.renew_at = renew_at
        """From here on a newer one is looked for."""
        self.wait_from = wait_from
        """From here on nobody uses it without having looked for a newer one."""
        self.until = until
        self.expires_at = expires_at

    def __repr__(self) -> str:
        return "<Held>"


class Source(Protocol):
    """Where a credential comes from. Used by one thread at a time."""

    name: str
    """For the log: no secret."""
    grace: float
    """For how many seconds after the first failure the last good one is still used, its own end permitting."""
    idle: float
    """For how many seconds it is kept fresh without anybody needing it."""

    def obtain(self) -> Held | RemoteFailure:
        """Read or fetch it. Blocks, for a bounded time."""
        ...

    def pause(self, failures: int) -> float:
        """How many seconds to leave it alone after so many failures in a row."""
        ...
