"""Looks at open websockets once a second: one on which nothing moves must end in time as well."""

from __future__ import annotations

import asyncio
from asyncio import AbstractEventLoop
from typing import Final, Protocol
from weakref import WeakKeyDictionary

INTERVAL_S: Final = 1.0
"""The longest that a silent websocket outlives a revocation, its token or the policy that let it in."""

_BATCH: Final = 200  # looked at in one go, before requests get their turn
_PATIENCE_S: Final = 0.1
"""How long the others wait for a batch: a decision may take its time, and a client that does not read can hold up the
very message that ends it."""


class Watched(Protocol):
    """A connection that may have to end; see `socket_line.SocketLine`."""

    def stands(self) -> bool:
        """Whether nothing has changed that it rests on. Cheap."""
        ...

    async def reaffirm(self) -> None:
        """Decide again, and end it if it must not go on. Never raises, and may take as long as a client likes."""
        ...


class SocketWatch:
    """The open websockets of one event loop. Its task lives as long as one is open."""

    def __init__(self) -> None:
        self._open: set[Watched] = set()
        self._deciding: dict[Watched, asyncio.Task[None]] = {}
        self._task: asyncio.Task[None] | None = None

    def enter(self, connection: Watched) -> None:
        """Watch a connection, until it leaves."""
        self._open.add(connection)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._watch(), name="authz-sockets")

    def leave(self, connection: Watched) -> None:
        """Watch it no longer."""
        self._open.discard(connection)
        deciding = self._deciding.pop(connection, None)
        if deciding is not None:
            deciding.cancel()
        if not self._open and self._task is not None:
            self._task.cancel()
            self._task = None

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(INTERVAL_S)
            watched = list(self._open)
            for start in range(0, len(watched), _BATCH):
                # Together: deciding again may mean to ask the decision point.
                deciding = [
                    self._decide(connection)
                    for connection in watched[start : start + _BATCH]
                    if connection not in self._deciding and not connection.stands()
                ]
                if deciding:
                    await asyncio.wait(deciding, timeout=_PATIENCE_S)
                await asyncio.sleep(0)

    def _decide(self, connection: Watched) -> asyncio.Task[None]:
        """Decide again on a connection, in a task of its own, so that none waits for another."""
        task = asyncio.create_task(connection.reaffirm(), name="authz-socket")
        self._deciding[connection] = task
        task.add_done_callback(lambda _: self._deciding.pop(connection, None))
        return task


_watches: Final[WeakKeyDictionary[AbstractEventLoop, SocketWatch]] = WeakKeyDictionary()


def current_watch() -> SocketWatch:
    """The watch of the running event loop."""
    loop = asyncio.get_running_loop()
    watch = _watches.get(loop)
    if watch is None:
        watch = _watches[loop] = SocketWatch()
    return watch
