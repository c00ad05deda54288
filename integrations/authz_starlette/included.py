"""What FastAPI knows about a route that was included from another router, and keeps out of `app.routes`.

It dispatches to route objects that it builds on the way, or to the original ones with a context in the scope; the
prefix, and the object that a person has annotated, are found through that context only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from starlette.routing import BaseRoute, Router
from starlette.types import Scope


def included_router(route: BaseRoute) -> Router | None:
    """The router that this route includes, or None for any other route."""
    router = route.__dict__.get("original_router")
    return router if isinstance(router, Router) else None


def context_of(route: BaseRoute, scope: Scope) -> Any:
    """The context in which this route was included, or None where it was not."""
    fastapi = scope.get("fastapi")
    context = fastapi.get("effective_route_context") if fastapi else None
    if context is None or not (context.original_route is route or context.starlette_route is route):
        return None
    return context


def template_of(route: BaseRoute, context: Any) -> str:
    """The template of the route with the prefix it was included under."""
    for holder in (getattr(context, "starlette_route", None), context, route):
        template = getattr(holder, "path_format", None) or getattr(holder, "path", None)
        if template:
            return str(template)
    return ""


def layers_of(context: Any, route: BaseRoute, layers: tuple[object, ...]) -> tuple[object, ...]:
    """The layers above an included route, with those that FastAPI does not pass on its way to it: the original of a
    route that it has built anew, and the routers that include a `router.frontend`."""
    original = context.original_route
    if original is route and "routes" not in route.__dict__:
        return layers
    return (*layers, *_routers_above(original, layers), original)


def _routers_above(route: BaseRoute, layers: Iterable[object]) -> Iterator[Router]:
    for layer in layers:
        if isinstance(layer, Router):
            for child in filter(None, map(included_router, layer.routes)):
                below = tuple(_routers_above(route, (child,)))
                if below or any(low is route for low in getattr(child, "_low_priority_routes", ())):
                    yield child
                    yield from below
