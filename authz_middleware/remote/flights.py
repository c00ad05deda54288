"""Puts identical questions that are under way at the same time only once.

The first to ask leads, the others wait for its answer, each no longer than its own deadline. Only an answer of
the decision point is shared: when the leader fails, or is cancelled, its followers ask for themselves.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from threading import Event, Lock

from authz_middleware.remote.cache import Key
from authz_middleware.remote.failure import FailureKind, RemoteAnswer, RemoteFailure

Reply = RemoteAnswer | RemoteFailure


class Flights:
    """The questions that threads have under way. `end` is a reading of the monotonic clock."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lock = Lock()
        self._under_way: dict[Key, _Flight] = {}

    def join(self, key: Key, end: float, ask: Callable[[], Reply]) -> Reply:
        """The answer to `ask()`, or to the same question that another thread has just put."""
        mine = _Flight()
        with self._lock:
            flight = self._under_way.setdefault(key, mine)
            landed = None if flight is mine else flight.awaited()
        if landed is None:
            return self._lead(key, mine, ask)
        if not landed.wait(max(0.0, end - self._monotonic())):
            return RemoteFailure(FailureKind.DEADLINE, "shared", is_news=False)
        return flight.answer or ask()

    def _lead(self, key: Key, flight: _Flight, ask: Callable[[], Reply]) -> Reply:
        try:
            reply = ask()
            if isinstance(reply, RemoteAnswer):
                flight.answer = reply
            return reply
        finally:
            with self._lock:
                del self._under_way[key]
            if flight.landed is not None:  # nobody can join any more, so that this is whether somebody has
                flight.landed.set()


class AsyncFlights:
    """The questions that tasks have under way, on each event loop its own."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._under_way: dict[tuple[asyncio.AbstractEventLoop, Key], asyncio.Future[RemoteAnswer | None]] = {}

    async def join(self, key: Key, end: float, ask: Callable[[], Awaitable[Reply]]) -> Reply:
        """The answer to `ask()`, or to the same question that another task has just put."""
        loop = asyncio.get_running_loop()
        flight = self._under_way.get((loop, key))
        if flight is None:
            return await self._lead(loop, key, ask)
        # Unlike wait_for, wait leaves the future alone when this follower is cancelled.
        done, _ = await asyncio.wait([flight], timeout=max(0.0, end - self._monotonic()))
        if not done:
            return RemoteFailure(FailureKind.DEADLINE, "shared", is_news=False)
        return flight.result() or await ask()

    async def _lead(self, loop: asyncio.AbstractEventLoop, key: Key, ask: Callable[[], Awaitable[Reply]]) -> Reply:
        flight = self._under_way[loop, key] = loop.create_future()
        answer = None
        try:
            reply = await ask()
            if isinstance(reply, RemoteAnswer):
                answer = reply
            return reply
        finally:
            del self._under_way[loop, key]
            flight.set_result(answer)


class _Flight:
    """A question under way. Most have no followers, and an event takes longer to make than all the rest here."""

    __slots__ = ("answer", "landed")

    def __init__(self) -> None:
        self.answer: RemoteAnswer | None = None
        self.landed: Event | None = None

    def awaited(self) -> Event:
        """What a follower waits for. Called by one thread at a time."""
        if self.landed is None:
            self.landed = Event()
        return self.landed
