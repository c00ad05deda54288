"""The enforcement point of a WSGI application: every wait is a blocking call."""

from __future__ import annotations

import asyncio

from authz_middleware.flow import Effect
from authz_middleware.pep import EnforcementPoint


class BlockingPoint(EnforcementPoint):
    """An enforcement point whose asynchronous questions do their I/O in a worker thread.

    Flask runs each `async def` view on an event loop of its own that ends with the view. Connections that belong to
    a loop would be made and thrown away for every request; those of the blocking transport are kept and shared.
    Where nothing has to be waited for, no thread is used. Resource loaders are plain functions.
    """

    async def _aperform(self, effect: Effect) -> object:
        return await asyncio.to_thread(self._perform, effect)
