"""What is asked of a view: by the URLconf around it, by its function, class and method, and by the settings."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from authz_middleware.permission import Requirement, annotations_of, endpoint_name
from authz_middleware.settings import Settings

MAX_REMEMBERED: Final = 4096


class Endpoint(msgspec.Struct, frozen=True):
    """One method of one view: its dotted name, and all that is asked of it."""

    name: str
    requirement: Requirement


class Target(msgspec.Struct, frozen=True):
    """What a request runs: the view that Django resolved, the class behind it, and the function for the method.

    `handler` is None for a method that the class does not have: then only what is asked of the whole class holds.
    """

    view: Any
    cls: type | None
    handler: Any

    @classmethod
    def of(cls, view: Any, method: str) -> Target:
        """The target of a request with this method."""
        carrier, view_class = _class_behind(view)
        if view_class is None:
            return cls(view, None, None)
        return cls(view, view_class, _handler(carrier, view_class, method.lower()))

    @property
    def name(self) -> str:
        """The dotted name of the class or function that a person has written."""
        hidden = _under_api_view(self.handler)
        return endpoint_name(hidden or self.cls or self.view)

    def requirement(self, settings: Settings, view_name: str, *layers: object) -> Requirement:
        """All that is asked of this target. `layers` are further objects that carry annotations, outermost first;
        `view_name` is the name in the URLconf, with its namespaces (`admin:index`)."""
        # The whole line of ancestors: of two annotated mixins the attribute of the class shows only one.
        classes = () if self.cls is None else self.cls.__mro__[::-1]
        return Requirement.of(
            (
                *annotations_of(*layers, self.view, *classes, self.handler, _under_api_view(self.handler)),
                *settings.annotations_for(view_name, self.name),
            )
        )


class Endpoints:
    """The endpoints of an application, each read off its view once."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._known: dict[tuple[int, int, str], tuple[Target, Endpoint]] = {}

    def of(self, view: Any, method: str, view_name: str) -> Endpoint:
        """What is asked of a view that Django has resolved, for this method."""
        target = Target.of(view, method)
        # The target is kept beside its endpoint, so that no other object can come to have these ids.
        key = (id(view), id(target.handler), view_name)
        known = self._known.get(key)
        if known is not None:
            return known[1]
        endpoint = Endpoint(target.name, target.requirement(self._settings, view_name))
        if len(self._known) >= MAX_REMEMBERED:  # a URLconf that makes its views anew for every request
            self._known.clear()
        self._known[key] = (target, endpoint)
        return endpoint


def methods_of(view: Any) -> tuple[str, ...]:
    """The methods with a handler of their own; a view function answers them all and counts as one GET."""
    carrier, view_class = _class_behind(view)
    if view_class is None:
        return ("GET",)
    names = [name for name in getattr(view_class, "http_method_names", ()) if name not in ("options", "head")]
    return tuple(name.upper() for name in names if _handler(carrier, view_class, name) is not None) or ("GET",)


def _class_behind(view: Any) -> tuple[Any, type | None]:
    """The view object that carries a class, as Django's `as_view` (`view_class`) and REST framework's (`cls`) leave
    it there, and that class. Looks through partials and decorators."""
    for layer in _inwards(view):
        for name in ("view_class", "cls"):
            found = getattr(layer, name, None)
            if isinstance(found, type):
                return layer, found
    return view, None


def _inwards(view: Any) -> Iterator[Any]:
    seen: list[Any] = []
    while view is not None and not any(view is earlier for earlier in seen):
        seen.append(view)
        yield view
        view = view.func if isinstance(view, functools.partial) else getattr(view, "__wrapped__", None)


def _handler(carrier: Any, view_class: type, name: str) -> Any:
    """What the class's `dispatch` runs for a method; HEAD is answered by `get` where there is no `head`."""
    actions = getattr(carrier, "actions", None)  # of a REST framework view set: method to name
    actions = actions if isinstance(actions, Mapping) else {}
    handler = _attribute(view_class, actions.get(name, name))
    if handler is None and name == "head":
        return _attribute(view_class, actions.get("get", "get"))
    return handler


def _attribute(cls: type, name: str) -> Any:
    # Statically: a client chooses the method, and must not choose which properties of a class are computed.
    return next((parent.__dict__[name] for parent in cls.__mro__ if name in parent.__dict__), None)


def _under_api_view(handler: Any) -> Any:
    """The function under REST framework's `@api_view`, which keeps it in a closure and hides what it carries."""
    if not inspect.isfunction(handler) or handler.__module__ != "rest_framework.decorators":
        return None
    return inspect.getclosurevars(handler).nonlocals.get("func")
