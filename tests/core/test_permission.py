"""Annotations: data on the handler that survives what frameworks and decorators do to it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any
from unittest.mock import MagicMock

import pytest

from authz_middleware.errors import AnnotationError
from authz_middleware.permission import (
    Permission,
    PublicAccess,
    Requirement,
    annotations_of,
    endpoint_name,
    public,
    requires,
)


def actions(*layers: object) -> list[str]:
    return [a.action for a in annotations_of(*layers) if isinstance(a, Permission)]


def test_the_handler_is_returned_unchanged() -> None:
    def handler() -> None: ...

    assert requires("invoice:read")(handler) is handler


@requires("class:use")
class View:
    @requires("method:use")
    def get(self) -> None: ...


class Derived(View): ...


@requires("derived:use")
class Stricter(View): ...


@requires("other:use")
class Other: ...


class Mixed(Other, View): ...


class Callable_:  # noqa: N801 - an instance of it is a handler
    def __call__(self) -> None: ...


def kept(handler: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(handler)
    def wrapper(*args: Any) -> Any:
        return handler(*args)

    return wrapper


def lost(handler: Callable[..., Any]) -> Callable[..., Any]:
    def wrapper(*args: Any) -> Any:
        return handler(*args)

    return wrapper


def annotated() -> Callable[..., Any]:
    @requires("invoice:read")
    def handler() -> None: ...

    return handler


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ((annotated(),), ["invoice:read"]),
        ((functools.partial(annotated(), 1),), ["invoice:read"]),
        ((functools.partial(functools.partial(kept(annotated()))),), ["invoice:read"]),
        ((kept(annotated()),), ["invoice:read"]),
        ((requires("invoice:list")(kept(annotated())),), ["invoice:read", "invoice:list"]),
        ((requires("invoice:list")(functools.partial(annotated())),), ["invoice:list", "invoice:read"]),
        ((View,), ["class:use"]),
        ((Derived,), ["class:use"]),
        ((Stricter,), ["class:use", "derived:use"]),
        ((Mixed,), ["class:use", "other:use"]),
        ((Stricter(),), ["class:use", "derived:use"]),
        ((requires("object:use")(Stricter()),), ["class:use", "derived:use", "object:use"]),
        ((View, View.get), ["class:use", "method:use"]),
        ((View().get,), ["method:use"]),
        ((requires("object:use")(Callable_()),), ["object:use"]),
        ((lost(annotated()),), []),
        ((lambda: None,), []),
        ((MagicMock(),), []),
        ((None,), []),
        ((Callable_(),), []),
    ],
)
def test_an_annotation_is_found_through_every_wrapper_that_tells_what_it_wraps(
    layers: tuple[object, ...], expected: list[str]
) -> None:
    assert actions(*layers) == expected


def test_annotating_a_derived_class_does_not_change_its_base() -> None:
    assert actions(View) == ["class:use"]


def test_a_wrapper_that_wraps_itself_is_looked_at_once() -> None:
    handler = annotated()
    handler.__wrapped__ = handler  # type: ignore[attr-defined]
    assert actions(handler) == ["invoice:read"]


def test_all_permissions_must_hold_and_one_permission_closes_what_a_public_opens() -> None:
    opening = public(reason="r", owner="o")
    both = Requirement.of(annotations_of(opening(annotated()), View))
    assert [p.action for p in both.permissions] == ["invoice:read", "class:use"]
    assert both.public is None


def test_without_an_annotation_the_requirement_is_empty_and_not_public() -> None:
    assert Requirement.of(()) == Requirement((), None)


def test_public_names_its_reason_and_owner() -> None:
    assert Requirement.of(annotations_of(public(reason="probe", owner="platform")(lost(annotated())))).public == (
        PublicAccess(reason="probe", owner="platform")
    )


@pytest.mark.parametrize(
    "annotate",
    [
        lambda: requires(""),
        lambda: requires("invoice read"),
        lambda: requires("invoice:"),
        lambda: requires("invoice:*"),
        lambda: requires("invoice:read\n"),
        lambda: requires(None),  # type: ignore[arg-type]
        lambda: requires("a:b", sensitive="no"),  # type: ignore[arg-type]
        lambda: requires("a:b", kinds="robot"),  # type: ignore[arg-type]
        lambda: requires("a:b", kinds=[]),
        lambda: requires("a:b", purpose=[]),
        lambda: requires("a:b", task=[""]),
        lambda: requires("a:b", resource="invoice"),
        lambda: requires("a:b", resource="{type}/{id}"),
        lambda: requires("a:b", resource="invoice/{"),
        lambda: requires("a:b", resource="invoice/{}"),
        lambda: requires("a:b", resource="invoice/{id.secret}"),
        lambda: requires("a:b", resource="invoice/{id!r}"),
        lambda: requires("a:b", resource="invoice/{a}{b}"),
        lambda: requires("a:b", resource="invoice/{id:>10}"),
        lambda: public(reason="", owner="x"),
        lambda: public(reason="x", owner="  "),
        lambda: requires("a:b")(object()),
        lambda: requires("a:b")(7),
        lambda: requires("a:b")(dict),
    ],
)
def test_an_annotation_that_cannot_mean_anything_is_refused_where_it_is_written(annotate: Callable[[], Any]) -> None:
    with pytest.raises(AnnotationError):
        annotate()


@pytest.mark.parametrize(
    ("handler", "name"),
    [
        (View.get, "View.get"),
        (View, "View"),
        (View().get, "View.get"),
        (functools.partial(View.get, 1), "View.get"),
        (kept(View.get), "View.get"),
        (Callable_(), "Callable_"),
    ],
)
def test_an_endpoint_is_named_after_the_innermost_handler(handler: object, name: str) -> None:
    assert endpoint_name(handler) == f"{__name__}:{name}"
