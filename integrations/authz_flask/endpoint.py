"""What an endpoint leads to: the view function behind it now, and all that is asked of it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator
from typing import Any, Final

import msgspec
from flask import Flask

from authz_middleware.permission import Requirement, annotations_of, endpoint_name
from authz_middleware.settings import Settings

MAX_REMEMBERED: Final = 10_000


class Endpoint(msgspec.Struct, frozen=True):
    """An endpoint and one method of it: the dotted name of its handler, and all that is asked of it."""

    name: str
    requirement: Requirement


class Endpoints:
    """The endpoints of one application, looked up anew for each request.

    What was found is remembered for as long as the endpoint leads to the same objects below the same blueprints.
    """

    def __init__(self, app: Flask, settings: Settings) -> None:
        self._app = app
        self._settings = settings
        self._known: dict[tuple[str, str], tuple[tuple[object, ...], Endpoint]] = {}

    def find(self, endpoint: str, method: str) -> Endpoint:
        """What is asked of an endpoint: by the application, its blueprints, the view class and its method, the view
        function itself, and the settings under its endpoint name or its dotted name."""
        view = self._app.view_functions.get(endpoint)
        handlers = tuple(_handlers(view, method))
        layers = (self._app, *_blueprints(self._app, endpoint), *handlers)
        known = self._known.get((endpoint, method))
        if known is not None and _same(known[0], layers):
            return known[1]
        # A rule need not have a view: redirects have none.
        name = endpoint if view is None else endpoint_name(next(filter(inspect.isclass, handlers), view))
        annotations = (*annotations_of(*layers), *self._settings.annotations_for(endpoint, name))
        found = Endpoint(name, Requirement.of(annotations))
        # A rule without methods lets a client choose them, and a client must not choose how much is remembered.
        if len(self._known) < MAX_REMEMBERED:
            self._known[endpoint, method] = (layers, found)
        return found


def _blueprints(app: Flask, endpoint: str) -> Iterator[object]:
    """The blueprints around an endpoint, outermost first: `admin` and `admin.users` around `admin.users.index`."""
    dot = endpoint.find(".")
    while dot >= 0:
        blueprint = app.blueprints.get(endpoint[:dot])
        if blueprint is not None:
            yield blueprint
        dot = endpoint.find(".", dot + 1)


def _handlers(view: object, method: str) -> Iterator[object]:
    """The view function, and for a class-based one the class that it will instantiate and what runs of it."""
    if view is None:
        return
    yield view
    cls = _view_class(view)
    if cls is None:
        return
    yield cls
    names = ("dispatch_request", method.lower())
    if method == "HEAD" and not hasattr(cls, "head"):
        names = ("dispatch_request", "get")
    for name in names:
        handler = getattr(cls, name, None)
        if handler is not None:
            yield handler


def _view_class(view: object) -> type | None:
    """The class of `View.as_view`, through decorators and partials. `functools.wraps` leaves copies of the attribute
    on its way out; the innermost one is the one that Flask instantiates from, so it can be swapped."""
    found = None
    seen: set[int] = set()
    inner: Any = view
    while inner is not None and id(inner) not in seen:
        seen.add(id(inner))
        cls = getattr(inner, "view_class", None)
        if inspect.isclass(cls):
            found = cls
        inner = inner.func if isinstance(inner, functools.partial) else getattr(inner, "__wrapped__", None)
    return found


def _same(one: tuple[object, ...], other: tuple[object, ...]) -> bool:
    return len(one) == len(other) and all(a is b for a, b in zip(one, other, strict=True))
