"""Annotations on parts of a URLconf, and the walk over all of it that the checks at start-up need."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, TypeVar, cast, overload

import msgspec
from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.conf import settings as django_settings
from django.urls import URLPattern, URLResolver, get_resolver
from django.urls.resolvers import ResolverMatch

from authz_middleware.errors import AnnotationError
from authz_middleware.permission import ATTRIBUTE, Annotation, annotations_of, endpoint_name

MAX_CARRIERS: Final = 1024

P = TypeVar("P", URLPattern, URLResolver)
AnyPattern = URLPattern | URLResolver
Decorator = Callable[[Any], Any]


class Leaf(msgspec.Struct, frozen=True):
    """One view in the URLconf: its name with namespaces, the patterns that lead to it, outermost first."""

    view: Any
    view_name: str
    patterns: tuple[AnyPattern, ...]

    @property
    def uncarried(self) -> tuple[AnyPattern, ...]:
        """The patterns with annotations that never went through `protect`, so that nothing carries them to the view."""
        return tuple(pattern for pattern in self.patterns if set(annotations_of(pattern)) - _carried_by(pattern))


@overload
def protect(pattern: P, *annotations: Decorator) -> P: ...
@overload
def protect(pattern: Sequence[AnyPattern], *annotations: Decorator) -> list[AnyPattern]: ...


def protect(pattern: AnyPattern | Sequence[AnyPattern], *annotations: Decorator) -> AnyPattern | list[AnyPattern]:
    """Ask for something of every view under a part of the URLconf, also of those that are added to it later.

        path("billing/", include("billing.urls"))
        protect(path("billing/", include("billing.urls")), requires("billing:use"))

    What the views ask for themselves holds as well. Of a list, each pattern is protected. The pattern handed in is
    left as it is; the one that is returned belongs into `urlpatterns`.

    Raises AnnotationError for anything but `path(...)`, `re_path(...)` or a list of them, and without an annotation.
    """
    if not annotations:
        raise AnnotationError("protect() needs an annotation, such as requires('billing:use')")
    if isinstance(pattern, list | tuple):
        return [cast("AnyPattern", protect(each, *annotations)) for each in pattern]
    if not isinstance(pattern, URLPattern | URLResolver):
        raise AnnotationError(f"protect() takes path(...), re_path(...) or a list of them, not {type(pattern)!r}")
    guarded = copy.copy(pattern)
    for annotate in annotations:
        annotate(guarded)
    # On the instance, so that whatever class the pattern has, everyone who resolves through it gets the annotations.
    guarded.__dict__["resolve"] = _Gate(pattern.resolve, annotations_of(guarded))
    return guarded


def leaves() -> Iterator[Leaf]:
    """Every view of the project's URLconf that can be found without a request."""
    if getattr(django_settings, "ROOT_URLCONF", None):
        yield from _leaves(get_resolver().url_patterns, (), ())


class _Gate:
    """Resolves a path as its pattern does, and lets the view that was found carry the pattern's annotations."""

    def __init__(self, resolve: Callable[[Any], ResolverMatch | None], annotations: tuple[Annotation, ...]) -> None:
        self._resolve = resolve
        self.annotations = annotations
        self._carriers: dict[int, tuple[Any, Any]] = {}

    def __call__(self, path: Any) -> ResolverMatch | None:
        match = self._resolve(path)
        if match is not None:
            match.func = self._carrier(match.func)
        return match

    def _carrier(self, view: Any) -> Any:
        known = self._carriers.get(id(view))
        if known is not None and known[0] is view:
            return known[1]
        carrier = _carrying(view, self.annotations)
        if len(self._carriers) >= MAX_CARRIERS:  # views that are made anew for every request
            self._carriers.clear()
        self._carriers[id(view)] = (view, carrier)
        return carrier


def _carrying(view: Any, annotations: tuple[Annotation, ...]) -> Any:
    """A view that does what this one does, is async if it is, has its attributes (`view_class`, `csrf_exempt` …), and
    carries these annotations beside its own."""

    @functools.wraps(view)
    def carrier(request: Any, *args: Any, **kwargs: Any) -> Any:
        return view(request, *args, **kwargs)

    if not hasattr(view, "__name__"):  # a callable object: Django names it after its class
        carrier.__module__, carrier.__name__ = type(view).__module__, type(view).__name__
    if iscoroutinefunction(view):
        markcoroutinefunction(carrier)
    setattr(carrier, ATTRIBUTE, annotations)  # the view's own are found through `__wrapped__`
    return carrier


def _carried_by(pattern: AnyPattern) -> set[Annotation]:
    gate = pattern.__dict__.get("resolve")
    return set(gate.annotations) if isinstance(gate, _Gate) else set()


def _leaves(patterns: Sequence[Any], above: tuple[AnyPattern, ...], within: tuple[URLResolver, ...]) -> Iterator[Leaf]:
    for pattern in patterns:
        if isinstance(pattern, URLResolver):
            yield from _leaves(pattern.url_patterns, (*above, pattern), (*within, pattern))
        elif isinstance(pattern, URLPattern):
            yield Leaf(pattern.callback, _view_name(pattern, within), (*above, pattern))


def _view_name(pattern: URLPattern, within: tuple[URLResolver, ...]) -> str:
    match = ResolverMatch(
        pattern.callback,
        (),
        {},
        pattern.name,
        [resolver.app_name for resolver in within],
        [resolver.namespace for resolver in within],
    )
    return match.view_name or endpoint_name(pattern.callback)
