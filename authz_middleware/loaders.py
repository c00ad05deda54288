"""How the application tells what it knows about a resource.

A loader is registered for a resource type; it is called only when a rule that may still match reads an
attribute, and at most once a request for each resource.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from authz_middleware.errors import AuthzError
from authz_middleware.remote.messages.values import plain_object
from authz_middleware.resource import Resource

Attributes = Mapping[str, Any]
Loader = Callable[[str], Attributes | None] | Callable[[str], Awaitable[Attributes | None]]
L = TypeVar("L", bound=Callable[[str], Any])


class LoaderError(AuthzError):
    """A loader is registered twice, is asynchronous in a synchronous application, or answered no mapping."""


class ResourceLoaders:
    """The loaders of an application, by resource type."""

    def __init__(self) -> None:
        self._loaders: dict[str, Callable[[str], Any]] = {}

    def register(self, type_: str) -> Callable[[L], L]:
        """Register a loader: a function, sync or async, from a resource id to its attributes, or to None where
        there is no such resource.

        Raises LoaderError when the type already has one.
        """

        def remember(loader: L) -> L:
            if type_ in self._loaders:
                raise LoaderError(f"resource type {type_!r} already has a loader: {self._loaders[type_]!r}")
            self._loaders[type_] = loader
            return loader

        return remember

    def load(self, resource: Resource, now: float) -> Resource:
        """The resource with its attributes, as of `now`. Raises what the loader raises, and LoaderError."""
        loader = self._loaders.get(resource.type)
        if loader is None:
            return _with(resource, {}, now)
        if inspect.iscoroutinefunction(loader):
            raise LoaderError(f"the loader of {resource.type!r} is async; this application needs a plain function")
        return _with(resource, loader(resource.id), now)

    async def aload(self, resource: Resource, now: float) -> Resource:
        """Like `load`; a plain function runs in a worker thread, never on the event loop."""
        loader = self._loaders.get(resource.type)
        if loader is None:
            return _with(resource, {}, now)
        if inspect.iscoroutinefunction(loader):
            return _with(resource, await loader(resource.id), now)
        return _with(resource, await asyncio.to_thread(_call, loader, resource.id), now)


def _call(loader: Callable[[str], Any], id_: str) -> Any:
    try:
        return loader(id_)
    except StopIteration:  # cannot be carried to an event loop: whoever waits for it there waits for ever
        raise LoaderError(f"the loader {loader!r} raised StopIteration") from None


def _with(resource: Resource, attributes: object, now: float) -> Resource:
    if attributes is None:
        attributes = {}
    if not isinstance(attributes, Mapping):
        raise LoaderError(f"the loader of {resource.type!r} must answer a mapping or None, not {type(attributes)!r}")
    return described(Resource(resource.type, resource.id, attributes, now))


def described(resource: Resource) -> Resource:
    """The resource with its attributes as they are in JSON, so that a rule compares here what it would compare in a
    decision point: a UUID is text, an enum its value, a Decimal a number.

    Raises MessageError, naming the attribute, for one that has no form in JSON.
    """
    if resource.attributes is None:
        return resource
    plain = plain_object(resource.attributes, f"resource {resource.type!r}, attribute")
    return Resource(resource.type, resource.id, plain, resource.as_of)
