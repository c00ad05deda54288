"""What a route leads to: whether it is a leaf, the handler behind it, and what is asked of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import FunctionType
from typing import Any, Final

import msgspec
from starlette.applications import Starlette
from starlette.routing import BaseRoute, Host, Mount, Router

from authz_middleware.permission import Requirement, annotations_of, endpoint_name
from authz_middleware.settings import Settings
from authz_starlette.handlers import handlers_of, member_of, target_of, wrapped_applications
from authz_starlette.included import included_router, template_of
from authz_starlette.path_values import Fields, fields_of

Layers = tuple[object, ...]

_MEMORY: Final = "_authz_endpoints"
_MAX_REMEMBERED: Final = 16  # a client chooses the method, and must not choose how much is remembered


class Endpoint(msgspec.Struct, frozen=True):
    """A leaf and one method of it: its name, its route template, and all that is asked of it."""

    name: str
    route: str
    requirement: Requirement
    fields: Fields = ()
    """What FastAPI converts of its path parameters."""


class _Known(msgspec.Struct, frozen=True):
    """An endpoint as it was found, with everything it was found from."""

    route: BaseRoute
    named: object
    app: object
    member: object
    context: object
    settings: Settings
    layers: Layers
    endpoint: Endpoint

    def holds(self, route: BaseRoute, method: str, layers: Layers, settings: Settings, context: object) -> bool:
        """Whether all that is still the same."""
        held = route.__dict__
        return (
            self.route is route  # a copied route carries the memory of its original
            and self.named is held.get("endpoint")
            and self.app is held.get("app")
            and (self.layers is layers or _same(self.layers, layers))
            and self.settings is settings
            and self.context is context
            and (type(self.named) is FunctionType or self.member is member_of(target_of(route), method))
        )


def branch_of(route: BaseRoute) -> Layers | None:
    """The objects whose annotations hold for every route below this one, or None when the route is a leaf.

    A mount is a branch only when what it mounts is itself a router, whose routes are gated in their turn. Any other
    mounted application (static files, WSGI, another framework, middleware around a router) is one leaf.
    """
    if not isinstance(route, (Mount, Host)):
        included = included_router(route)
        return None if included is None else (route, included)
    app: object = route.app
    base = getattr(route, "_base_app", app)  # Mount(middleware=…) wraps it
    if app is not base and all(inner is not base for inner in wrapped_applications(app)):
        return None
    return (route, base) if isinstance(base, Router | Starlette) else None


def application_layers(app: object) -> Layers:
    """The objects whose annotations hold for every route of an application."""
    return (app, app.router) if isinstance(app, Starlette) else (app,) if isinstance(app, Router) else ()


def endpoint_of(route: BaseRoute, method: str, layers: Layers, settings: Settings, context: Any = None) -> Endpoint:
    """What is asked of this leaf: by the layers above it, by itself and by the settings. `context` is FastAPI's.

    Remembered on the route, for as long as it leads to the same objects under the same layers.
    """
    memory: dict[str, _Known] = route.__dict__.get(_MEMORY) or {}
    known = memory.get(method)
    if known is not None and known.holds(route, method, layers, settings, context):
        return known.endpoint
    endpoint = _find(route, method, context, settings, layers)
    if known is not None or len(memory) < _MAX_REMEMBERED:
        route.__dict__[_MEMORY] = memory
        held, member = route.__dict__, member_of(target_of(route), method)
        memory[method] = _Known(
            route, held.get("endpoint"), held.get("app"), member, context, settings, layers, endpoint
        )
    return endpoint


def leaves(routes: Sequence[BaseRoute], layers: Layers) -> Iterator[tuple[BaseRoute, Layers]]:
    """Each leaf that can be found without a request, with the layers above it; for the checks at start-up."""
    for route in routes:
        branch = branch_of(route)
        if branch is None:
            yield route, layers
        elif not any(layer is branch[-1] for layer in layers):  # an application may be mounted in itself
            below = branch[-1]
            yield from leaves(below.routes, (*layers, *branch, *application_layers(below)))  # type: ignore[attr-defined]


def _find(route: BaseRoute, method: str, context: Any, settings: Settings, layers: Layers) -> Endpoint:
    mounts = _mounts_in(layers, route)
    requirements = []
    for target, *carriers in handlers_of(route, context):
        annotations = annotations_of(*layers, route, target, *carriers, member_of(target, method))
        named = settings.annotations_for(_name(route, mounts), endpoint_name(target))
        requirements.append(Requirement.of((*annotations, *named)))
    template = _prefix(mounts) + template_of(route, context)
    return Endpoint(endpoint_name(target_of(route)), template, _all(requirements), fields_of(route, context))


def _all(requirements: Sequence[Requirement]) -> Requirement:
    """What is asked where each of these is asked: closed, if one of them is."""
    if any(not requirement.permissions and requirement.public is None for requirement in requirements):
        return Requirement()
    publics = (requirement.public for requirement in requirements if requirement.public is not None)
    return Requirement.of([*(p for requirement in requirements for p in requirement.permissions), *publics])


def _name(route: BaseRoute, mounts: Sequence[Mount | Host]) -> str | None:
    """The name that `url_for` knows the route by: with the names of the mounts above it."""
    name = getattr(route, "name", None)
    return ":".join([*(mount.name for mount in mounts if mount.name), name]) if isinstance(name, str) else None


def _prefix(mounts: Sequence[Mount | Host]) -> str:
    return "".join(mount.path_format.removesuffix("/{path}") for mount in mounts if isinstance(mount, Mount))


def _mounts_in(layers: Layers, route: BaseRoute) -> list[Mount | Host]:
    """The mounts that lead to a route, but for the originals of those that FastAPI has built anew: there is always
    a router between one mount and the next, and nothing between an original and what stands for it."""
    following = (*layers, route)[1:]
    return [
        layer
        for layer, below in zip(layers, following, strict=True)
        if isinstance(layer, Mount | Host) and not isinstance(below, Mount | Host)
    ]


def _same(one: Layers, other: Layers) -> bool:
    return len(one) == len(other) and all(a is b for a, b in zip(one, other, strict=True))
