"""Annotations: data on the handler that survives what frameworks and decorators do to it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any
from unittest.mock import MagicMock

import pytest

from authz_middleware.errors import AnnotationError, SettingsError
from authz_middleware.permission import (
    Permission,
    PublicAccess,
    Requirement,
    annotations_of,
    endpoint_name,
    public,
    requires,
)
from authz_middleware.settings import Settings
from authz_middleware.step_up import StepUp


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
        lambda: requires("a:b", acr=""),
        lambda: requires("a:b", acr=[]),
        lambda: requires("a:b", acr=5),  # type: ignore[arg-type]
        lambda: requires("a:b", acr=[5]),  # type: ignore[list-item]
        lambda: requires("a:b", acr={5, "a"}),  # type: ignore[arg-type]
        lambda: requires("a:b", acr="phr mfa"),
        lambda: requires("a:b", acr=["phr", "phr"]),
        lambda: requires("a:b", acr='phr"'),
        lambda: requires("a:b", max_age="5"),
        lambda: requires("a:b", max_age="0s"),
        lambda: requires("a:b", max_age=300),  # type: ignore[arg-type]
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


def step_ups(*annotations: Callable[[Any], Any]) -> list[StepUp | None]:
    layers = [annotate(lambda: None) for annotate in annotations]
    return [permission.step_up for permission in Requirement.of(annotations_of(*layers)).permissions]


@pytest.mark.capability("C25")
@pytest.mark.parametrize(
    ("members", "asked"),
    [
        ({}, None),
        ({"acr": "phr"}, StepUp(("phr",))),
        ({"acr": ["phr", "mfa"]}, StepUp(("phr", "mfa"))),
        ({"acr": ("mfa", "phr"), "max_age": "5m"}, StepUp(("mfa", "phr"), 300)),
        ({"acr": {"b", "c", "a"}}, StepUp(("a", "b", "c"))),
        ({"max_age": "8h"}, StepUp((), 28_800)),
    ],
)
def test_an_annotation_says_how_a_person_must_have_authenticated(members: dict[str, Any], asked: StepUp | None) -> None:
    assert step_ups(requires("a:b", **members)) == [asked]


@pytest.mark.capability("C25")
def test_what_all_layers_ask_of_the_authentication_is_asked_at_once() -> None:
    outer, inner = requires("a:use", acr=["a", "b"], max_age="5m"), requires("a:read", acr=["b", "c"])
    both = StepUp(("b",), 300)
    assert step_ups(outer, inner) == [both, both]
    assert step_ups(outer, requires("a:list"), inner) == [both, None, both]


def test_layers_that_no_authentication_can_satisfy_at_once_are_refused() -> None:
    layers = [requires("a:use", acr="a"), requires("a:read", acr=["b", "c"])]
    with pytest.raises(AnnotationError, match="a:read and a:use ask for acr a and acr b or c; a token has only one"):
        step_ups(*layers)


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


@pytest.mark.capability("C25")
def test_the_table_by_name_takes_what_the_decorator_takes() -> None:
    written = {
        "action": "admin:use",
        "resource": "site/{name}",
        "sensitive": True,
        "task": ["T-1"],
        "purpose": ["support"],
        "kinds": ["human"],
        "accountable": True,
        "acr": ["phr", "mfa"],
        "max_age": "5m",
        "owner": "web",
    }
    accepted = set(inspect.signature(requires).parameters)
    assert accepted == set(written)
    settings = Settings.from_mapping(
        {
            "app": {"name": "a", "environment": "test"},
            "policy": {"source": "p.yaml", "allow_unsigned": True},
            "decision_log": {"sink": "stdout"},
            "handlers": {"admin": written},
        }
    )
    decorated = requires(**written)(lambda: None)  # type: ignore[arg-type]
    assert settings.annotations_for("admin") == annotations_of(decorated)


@pytest.mark.parametrize("wrong", [{"max_age": "soon"}, {"acr": ["a b"]}])
def test_a_mistake_in_the_table_by_name_is_a_problem_of_its_entry(wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_mapping({"handlers": {"admin": {"action": "admin:use", **wrong}}})
    assert [problem for problem in caught.value.problems if problem.where == "handlers.admin"]
