"""The inputs a condition can read: their names, where they come from, and how each is read from a question.

A reader answers the value, or None for "missing": nobody said, or nobody looked. A token that names no scope, no role
or no actor does not say either, so of these an empty set counts as missing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from types import MappingProxyType
from typing import Any, Final

import msgspec

from authz_middleware.identity.principal import KINDS
from authz_middleware.policy.model import InputDeclaration, InputSource
from authz_middleware.question import Question

Reader = Callable[[Question], Any]

CLOCK_SKEW: Final = 60.0
"""Seconds by which a time stamp may lie in the future before it is taken for unknown."""


class InputType(Enum):
    """What the values of an input are, as far as it is known before any question is asked."""

    TEXT = "text"
    NAMES = "a set of names"
    FLAG = "true or false"
    TIME = "a time"
    UNKNOWN = "whatever the token or the application says"


class BuiltIn(msgspec.Struct, frozen=True):
    """An input that every question has a place for. `choices` are its only values, where these are known."""

    source: InputSource
    type: InputType
    read: Reader
    choices: tuple[str, ...] = ()


class Input(msgspec.Struct, frozen=True):
    """An input as one policy declares it, ready to be read.

    `read` answers the value whatever its age, `is_fresh` whether its age is within bounds; None where any age will do.
    """

    name: str
    source: InputSource
    type: InputType
    read: Reader
    is_fresh: Callable[[Question], bool] | None = None
    ranks: Mapping[str, int] | None = None
    """The rank of each label, for an input whose values are the labels of an ordered set."""

    @property
    def is_attribute(self) -> bool:
        """Whether somebody may have to fetch it: an attribute that the application knows about the resource."""
        return self.source == "application"

    def value_reader(self) -> Reader:
        """A reader that also answers None for a value that is stale or, for labels, not of the set."""
        read, is_fresh, ranks = self.read, self.is_fresh, self.ranks
        if is_fresh is None and ranks is None:
            return read

        def read_valid(question: Question) -> Any:
            if is_fresh is not None and not is_fresh(question):
                return None
            value = read(question)
            # A label nobody ordered could be above all others: it must not satisfy even a `not`.
            return value if ranks is None or (isinstance(value, str) and value in ranks) else None

        return read_valid

    def is_missing(self, question: Question) -> bool:
        """Whether the question lacks this input; one that cannot be read is lacking."""
        try:
            value = self.read(question)
        except Exception:  # noqa: BLE001 - attributes are objects of the application and may raise anything
            return True
        return value is None or (self.type is InputType.NAMES and not value)

    def is_stale(self, question: Question) -> bool:
        """Whether the input is there and too old, or of unknown age."""
        if self.is_fresh is None or self.is_missing(question):
            return False
        try:
            return not self.is_fresh(question)
        except Exception:  # noqa: BLE001 - `as_of` is given by the application
            return True


def _actors(question: Question) -> frozenset[str]:
    return frozenset(actor.id for actor in question.principal.actors)


def _token(read: Reader, type_: InputType = InputType.TEXT, choices: tuple[str, ...] = ()) -> BuiltIn:
    return BuiltIn("token", type_, read, choices)


def _request(read: Reader, type_: InputType = InputType.TEXT, choices: tuple[str, ...] = ()) -> BuiltIn:
    return BuiltIn("request", type_, read, choices)


# Functions, not `operator.attrgetter`: the interpreter specialises their look-ups, which is half again as fast.
BUILT_IN: Final[Mapping[str, BuiltIn]] = MappingProxyType(
    {
        "subject.id": _token(lambda question: question.principal.subject),
        "subject.issuer": _token(lambda question: question.principal.issuer),
        "subject.kind": _token(lambda question: question.principal.kind, choices=KINDS),
        "subject.subject_kind": _token(lambda question: question.principal.subject_kind, choices=KINDS),
        "subject.client": _token(lambda question: question.principal.client),
        "subject.scopes": _token(lambda question: question.principal.scopes, InputType.NAMES),
        "subject.roles": _token(lambda question: question.principal.roles, InputType.NAMES),
        "subject.actors": _token(_actors, InputType.NAMES),
        "subject.tenant": _token(lambda question: question.principal.tenant),
        "subject.clearance": _token(lambda question: question.principal.clearance),
        "subject.acr": _token(lambda question: question.principal.acr),
        "subject.environment": _token(lambda question: question.principal.environment),
        "subject.token_id": _token(lambda question: question.principal.token_id),
        "subject.transaction": _token(lambda question: question.principal.transaction),
        "context.purpose": _token(lambda question: question.principal.purpose),
        "context.task": _token(lambda question: question.principal.task),
        "action.name": _request(lambda question: question.permission.action),
        "resource.type": _request(lambda question: question.resource.type),
        "resource.id": _request(lambda question: question.resource.id),
        "context.time": _request(lambda question: question.now, InputType.TIME),
        "context.environment": _request(lambda question: question.environment),
        "context.method": _request(lambda question: question.facts.method),
        "context.route": _request(lambda question: question.facts.route),
        "context.client": _request(lambda question: question.facts.client),
        "context.tls": _request(lambda question: question.facts.tls, InputType.FLAG),
        "context.protocol": _request(lambda question: question.facts.protocol, choices=("http", "websocket")),
    }
)


def source_of(name: str) -> InputSource | None:
    """Where an input of this name would come from; None for a name that is no input and cannot be declared as one."""
    built_in = BUILT_IN.get(name)
    if built_in is not None:
        return built_in.source
    part, _, field = name.partition(".")
    if not field:
        return None
    return "token" if part == "subject" else "application" if part == "resource" else None


def find_input(name: str, declaration: InputDeclaration | None, labels: Mapping[str, tuple[str, ...]]) -> Input | None:
    """The input of this name, or None when it is neither built in nor declared.

    The declaration, where there is one, has been checked: its source fits the name and its label set is known.
    """
    built_in, source = BUILT_IN.get(name), source_of(name)
    if source is None or (built_in is None and declaration is None):
        return None
    if built_in is None:
        field = name.partition(".")[2]
        built_in = BuiltIn(source, InputType.UNKNOWN, _claim(field) if source == "token" else _attribute(field))
    ranks = is_fresh = None
    if declaration is not None and declaration.labels is not None:
        ranks = {label: rank for rank, label in enumerate(labels[declaration.labels])}
    if declaration is not None and declaration.max_age is not None:
        is_fresh = (_token_age if source == "token" else _attribute_age)(declaration.max_age)
    return Input(name, source, built_in.type, built_in.read, is_fresh, ranks)


def _claim(name: str) -> Reader:
    return lambda question: question.principal.claims.get(name)


def _attribute(name: str) -> Reader:
    def read(question: Question) -> Any:
        attributes = question.resource.attributes
        return None if attributes is None else attributes.get(name)

    return read


def _token_age(max_age: float) -> Callable[[Question], bool]:
    return lambda question: -CLOCK_SKEW <= question.now - question.principal.issued_at <= max_age


def _attribute_age(max_age: float) -> Callable[[Question], bool]:
    def is_fresh(question: Question) -> bool:
        as_of = question.resource.as_of
        return as_of is not None and -CLOCK_SKEW <= question.now - as_of <= max_age

    return is_fresh
