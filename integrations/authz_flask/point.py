"""The enforcement point of a WSGI application: every wait is a blocking call."""

from __future__ import annotations

import asyncio
from typing import TypeVar

from authz_middleware.authorization import Authorization
from authz_middleware.flow import Effect
from authz_middleware.pep import EnforcementPoint
from authz_middleware.remote.decision_point import DecisionPoint
from authz_middleware.remote.failure import RemoteFailure
from authz_middleware.remote.messages.search import SearchQuery
from authz_middleware.search import Found, Search

E = TypeVar("E")


class BlockingPoint(EnforcementPoint):
    """An enforcement point whose asynchronous questions do their I/O in a worker thread.

    Flask runs each `async def` view on an event loop of its own that ends with the view. Connections that belong to
    a loop would be made and thrown away for every request; those of the blocking transport are kept and shared.
    Where nothing has to be waited for, no thread is used. Resource loaders are plain functions.
    """

    async def _aperform(self, effect: Effect) -> object:
        return await asyncio.to_thread(self._perform, effect)

    def search(self, authorization: Authorization) -> Search:
        """What may be searched for on behalf of this caller."""
        return Search(authorization, None if self._point is None else _BlockingSeeker(self._point))


class _BlockingSeeker:
    """Searches in a worker thread where they are awaited."""

    def __init__(self, point: DecisionPoint) -> None:
        self.search = point.search

    async def search_async(self, query: SearchQuery[E]) -> Found[E] | RemoteFailure:
        """Search, without blocking the event loop."""
        return await asyncio.to_thread(self.search, query)
