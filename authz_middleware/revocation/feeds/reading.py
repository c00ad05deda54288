"""How far behind a feed is: what health checks and metrics read (capability C48)."""

from __future__ import annotations

import msgspec


class FeedReading(msgspec.Struct, frozen=True, gc=False):
    """One feed at one time.

    `lag` is in seconds since the feed was last known to be up to date, None where it never was. `readable` says whether
    decisions rest on it now; where it is not, what happens is the choice `on_unavailable`. `problem` is the stable code
    of the last failure, None after a success.
    """

    name: str
    readable: bool
    lag: float | None
    problem: str | None = None
