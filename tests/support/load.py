"""Load on a served treasury: several callers, each with its own client, that ask one question after the other.

A synchronous application is called from threads, an asynchronous one from tasks of its own event loop.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import msgspec

from tests.support.surfaces.asgi import AsgiSurface
from tests.support.surfaces.flask_surface import FlaskSurface
from tests.support.surfaces.surface import Reply

PAUSE: Final = 0.01
"""Seconds between two requests of one caller: many at a time, and the machine is not busy with nothing else."""


class Call(msgspec.Struct, frozen=True):
    """One request, under the name by which its outcome is judged."""

    name: str
    method: str
    path: str
    headers: Mapping[str, str]


class Sample(msgspec.Struct, frozen=True):
    """What came of one request; times are readings of the monotonic clock."""

    name: str
    caller: int
    began: float
    ended: float
    status: int
    degraded: bool

    @property
    def outcome(self) -> tuple[int, bool]:
        """Status, and whether the response says that it was decided by narrower rules."""
        return self.status, self.degraded


class Load:
    """What the callers have seen so far. `rounds` is how often the slowest of them has asked everything."""

    def __init__(self, callers: Sequence[Sequence[Call]]) -> None:
        self.callers = callers
        self.samples: list[Sample] = []
        self.stopping = threading.Event()
        self._rounds = [0] * len(callers)

    @property
    def rounds(self) -> int:
        return min(self._rounds)

    def note(self, caller: int, call: Call, began: float, reply: Reply) -> None:
        degraded = reply.headers.get("authz-degraded") == "true"
        self.samples.append(Sample(call.name, caller, began, time.monotonic(), reply.status, degraded))

    def finish_round(self, caller: int) -> None:
        self._rounds[caller] += 1

    def wait(self, condition: Callable[[], bool], seconds: float = 20.0) -> None:
        """Until something has come about under this load."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"did not happen in {seconds} s: {self.samples[-20:]}"
            time.sleep(0.01)


@contextmanager
def load_on(surface: FlaskSurface | AsgiSurface, callers: Sequence[Sequence[Call]]) -> Iterator[Load]:
    """Have these callers ask their calls again and again, until the block ends."""
    load = Load(callers)
    work = _threads if isinstance(surface, FlaskSurface) else _loop
    threads = work(load, surface)
    for thread in threads:
        thread.start()
    try:
        yield load
    finally:
        load.stopping.set()
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive(), "a request hangs"


def _threads(load: Load, surface: Any) -> list[threading.Thread]:
    def ask(caller: int) -> None:
        own = FlaskSurface(surface._client.application, surface._authz, surface.ran)  # a client is for one thread
        while not load.stopping.is_set():
            for call in load.callers[caller]:
                began = time.monotonic()
                load.note(caller, call, began, own.request(call.method, call.path, call.headers))
                time.sleep(PAUSE)
            load.finish_round(caller)

    return [threading.Thread(target=ask, args=(caller,)) for caller in range(len(load.callers))]


def _loop(load: Load, surface: Any) -> list[threading.Thread]:
    async def ask(caller: int) -> None:
        while not load.stopping.is_set():
            for call in load.callers[caller]:
                began = time.monotonic()
                reply = await surface._client.request(call.method, call.path, headers=dict(call.headers))
                load.note(caller, call, began, Reply(reply.status_code, dict(reply.headers), reply.content))
                await asyncio.sleep(PAUSE)
            load.finish_round(caller)

    async def ask_all() -> None:
        await asyncio.gather(*map(ask, range(len(load.callers))))

    return [threading.Thread(target=lambda: surface._loop.run_until_complete(ask_all()))]
