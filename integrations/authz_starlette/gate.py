"""The gate: decides at the one place where the router has chosen the endpoint and nothing of it has run yet.

Starlette's and FastAPI's routers end in `await route.handle(scope, receive, send)`, for functions, classes,
mounts, websockets, static files, routes that were added late, and the route objects FastAPI builds while it
dispatches. So the gate stands on `handle` itself, on `BaseRoute` and on each of its subclasses, present and future.
It is inert unless an `AuthzMiddleware` has put its passage into the scope.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

from starlette.routing import BaseRoute
from starlette.types import Receive, Scope, Send

KEY: Final = "authz.passage"

Handle = Callable[[Any, Scope, Receive, Send], Awaitable[None]]

_gates: Final[dict[Any, Handle]] = {}
"""The gate of each route class that has a `handle` of its own."""
_ours: Final[set[Handle]] = set()


class Passage(Protocol):
    """What a request passes a route with; see `passage.RequestPassage`."""

    async def enter(self, route: BaseRoute, handle: Handle, scope: Scope, receive: Receive, send: Send) -> None:
        """Run `handle` if it is permitted, or answer the refusal."""
        ...


def install() -> None:
    """Put the gate on every route class there is and on every one to come. Idempotent."""
    if BaseRoute not in _gates:
        _gate_subclasses_to_come()
    pending = [BaseRoute]
    while pending:
        cls = pending.pop()
        pending.extend(cls.__subclasses__())
        _gate(cls)


def mend() -> None:
    """Put back a gate that somebody has taken off: instrumentation that is switched off restores the method it
    found, and that may be one from before there was a gate. Cheap enough for every request."""
    for cls, gate in _gates.items():
        if cls.handle is not gate:
            install()
            return


def _gate_subclasses_to_come() -> None:
    announce = BaseRoute.__dict__.get("__init_subclass__")

    def __init_subclass__(cls: type[BaseRoute], /, **kwargs: Any) -> None:  # noqa: N807 - it becomes that hook
        if announce is None:
            super(BaseRoute, cls).__init_subclass__(**kwargs)
        else:
            announce.__get__(None, cls)(**kwargs)
        _gate(cls)

    BaseRoute.__init_subclass__ = classmethod(__init_subclass__)  # type: ignore[assignment]


def _gate(cls: Any) -> None:
    found = cls.__dict__.get("handle")
    if found is None or found is _gates.get(cls):
        return
    gate = found if found in _ours else _gate_on(cls.handle)
    cls.handle = gate
    _gates[cls] = gate
    _entrance.cache_clear()


def _gate_on(original: Handle) -> Handle:
    @functools.wraps(original)
    async def handle(self: BaseRoute, scope: Scope, receive: Receive, send: Send) -> None:
        passage: Passage | None = scope.get(KEY)
        cls: Any = type(self)
        if passage is None or _entrance(cls) is not handle:
            await original(self, scope, receive, send)
        else:
            await passage.enter(self, original, scope, receive, send)

    del handle.__wrapped__  # what can be unwrapped gets unwrapped
    _ours.add(handle)
    return handle


@functools.cache
def _entrance(cls: Any) -> Handle:
    """The gate that decides for routes of this class: the newest one of the most derived class. A gate met below it,
    by `super().handle()` or inside of instrumentation, is the same passage; another route, or the same one dispatched
    again, is a new one."""
    return next(_gates[parent] for parent in cls.__mro__ if parent in _gates)
