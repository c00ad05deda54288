"""Serves an ASGI application in this process: one event loop, kept for as long as the surface lives."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import httpx

from tests.support.surfaces.surface import Reply


class AsgiSurface:
    """An ASGI application with its lifespan, called without a socket."""

    def __init__(self, app: Any, ran: list[str], *, lifespan: bool = True) -> None:
        self.ran = ran
        self.app = app
        self._loop = asyncio.new_event_loop()
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        self._client = httpx.AsyncClient(transport=transport, base_url="http://treasury.example")
        self._lifespan = lifespan
        if lifespan:
            self._loop.run_until_complete(self._live())

    def request(self, method: str, path: str, headers: Mapping[str, str]) -> Reply:
        """Send one request."""
        reply = self._loop.run_until_complete(self._client.request(method, path, headers=dict(headers)))
        return Reply(reply.status_code, dict(reply.headers), reply.content)

    def close(self) -> None:
        """Shut the application down."""
        if self._lifespan:
            self._loop.run_until_complete(self._end())
        self._loop.run_until_complete(self._client.aclose())
        self._loop.close()

    async def _live(self) -> None:
        self._inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._outbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
        self._running = asyncio.ensure_future(self.app(scope, self._inbox.get, self._outbox.put))
        await self._inbox.put({"type": "lifespan.startup"})
        started = await self._outbox.get()
        assert started["type"] == "lifespan.startup.complete", started

    async def _end(self) -> None:
        await self._inbox.put({"type": "lifespan.shutdown"})
        await self._outbox.get()
        await self._running
