"""One client of a decision point in either colour, for tests that say the same of both."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from authz_middleware.remote.decision_point import DecisionPoint
from authz_middleware.remote.failure import RemoteAnswer, RemoteFailure
from authz_middleware.remote.query import RemoteQuery
from authz_middleware.settings.remote.decision_point import RemoteSettings

QUERY: Final = RemoteQuery(("key",), b'{"subject":{}}', "request-1")
COLOURS: Final = ("sync", "async")
Reply = RemoteAnswer | RemoteFailure


class Asker:
    """A DecisionPoint that is asked by blocking calls, or on an event loop that lives as long as the block."""

    def __init__(self, colour: str, settings: RemoteSettings) -> None:
        self.point = DecisionPoint(settings)
        self._loop = asyncio.Runner() if colour == "async" else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._loop is not None:
            with self._loop:
                self._loop.run(self.point.aclose())
        self.point.close()

    def ask(self, query: RemoteQuery = QUERY) -> Reply:
        if self._loop is None:
            return self.point.ask(query)
        return self._loop.run(self.point.ask_async(query))

    def pause(self, seconds: float) -> None:
        """Let time go by, with the event loop running."""
        if self._loop is None:
            time.sleep(seconds)
        else:
            self._loop.run(asyncio.sleep(seconds))


def ask_once(colour: str, settings: RemoteSettings, query: RemoteQuery = QUERY) -> Reply:
    with Asker(colour, settings) as asker:
        return asker.ask(query)


def seconds_of_best(tries: int, call: Callable[[], object], bound: float) -> float:
    """The shortest of some calls' times, without further tries once one is within the bound."""
    best = float("inf")
    for _ in range(tries):
        began = time.monotonic()
        call()
        best = min(best, time.monotonic() - began)
        if best < bound:
            break
    return best
