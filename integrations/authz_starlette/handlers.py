"""The callables behind a route: what it names as its endpoint, and what it has bound to be run."""

from __future__ import annotations

import functools
import inspect
from types import FunctionType
from typing import Any, Final

from starlette.routing import BaseRoute

_MAX_WRAPPERS: Final = 32


def target_of(route: BaseRoute) -> object:
    """What a route leads to: its endpoint, else the application it holds, else the route itself."""
    for name in ("endpoint", "app"):
        target = getattr(route, name, None)
        if target is not None:
            return target
    return route


def handlers_of(route: BaseRoute, context: Any) -> tuple[tuple[object, ...], ...]:
    """The target of a route, and what runs in its place where that is another callable; each with whatever else may
    carry its annotations. All of them have to be permitted.

    Starlette and FastAPI bind the handler when they make the route: where `route.endpoint` or `route.app` was changed
    later, the handler that is named and the one that runs are two.
    """
    target = target_of(route)
    if getattr(route, "endpoint", None) is None:
        return ((target, *wrapped_applications(target)),)
    bound = getattr(getattr(context or route, "dependant", None), "call", None) or _bound_by(route)
    return ((target,),) if bound is None or bound is target else ((target,), (bound,))


def member_of(target: object, method: str) -> object | None:
    """The member of a class-based handler that answers this method, as its class has it now."""
    if type(target) is FunctionType:
        return None
    while isinstance(target, functools.partial):
        target = target.func
    cls = target if inspect.isclass(target) else type(target)
    return getattr(cls, "get" if method == "HEAD" and not hasattr(cls, "head") else method.lower(), None)


def wrapped_applications(app: object) -> tuple[object, ...]:
    """The applications inside of a middleware, by the attribute that most middleware keeps them in."""
    found: list[object] = []
    while len(found) < _MAX_WRAPPERS and (app := getattr(app, "app", None)) is not None:
        found.append(app)
    return tuple(found)


def _bound_by(route: BaseRoute) -> object | None:
    """The handler in the closure that Starlette's `request_response` and `websocket_session` make."""
    innermost = (route, *wrapped_applications(route))[-1]
    if not isinstance(innermost, FunctionType) or innermost.__module__ != "starlette.routing":
        return None
    handler = innermost.__closure__[0].cell_contents if innermost.__closure__ else None
    # A synchronous handler is bound as partial(run_in_threadpool, handler).
    if isinstance(handler, functools.partial) and handler.args:
        return handler.args[0]  # type: ignore[no-any-return]
    return handler
