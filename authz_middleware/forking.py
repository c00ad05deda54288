"""What must not be shared with a forked child is made anew in it, before any of its code runs.

A lock that another thread held at the moment of the fork stays locked for good in the child, and a connection
used by both sides hands the answer to one's question to the other.
"""

from __future__ import annotations

import os
from typing import Final, Protocol
from weakref import WeakSet


class Forkable(Protocol):
    """Something that knows how to start afresh in a forked child."""

    def renew_after_fork(self) -> None:
        """Called in the child, before any of its own code."""
        ...


_living: Final[WeakSet[Forkable]] = WeakSet()


def renew_in_children(thing: Forkable) -> None:
    """Have `thing.renew_after_fork()` called in every child that is forked from here on."""
    _living.add(thing)


def _renew_all() -> None:
    for thing in list(_living):
        thing.renew_after_fork()


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_renew_all)
