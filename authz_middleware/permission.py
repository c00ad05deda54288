"""What a route asks for: annotations as data on the handler, and the requirement they add up to.

`@requires` and `@public` set one attribute and return the handler unchanged, so they work above or below the
route decorator of any framework. Nothing here decides; a handler without an annotation has an empty
`Requirement`, and an empty requirement is a closed route.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, Final, TypeVar

import msgspec

from authz_middleware.errors import AnnotationError
from authz_middleware.identity.principal import KINDS, Kind
from authz_middleware.resource import ResourceTemplate
from authz_middleware.step_up import ACCEPTED_AGE, StepUp, find_faults, parse_max_age, strictest

T = TypeVar("T")

ATTRIBUTE: Final = "__authz__"
ACTION_NAME: Final = re.compile(r"(?=.{1,256}\Z)[A-Za-z0-9_.-]+(?::[A-Za-z0-9_.-]+)*")


class Permission(msgspec.Struct, frozen=True, kw_only=True):
    """What must be permitted before the handler runs.

    `tasks` and `purposes` are the values of which the token must carry one; `kinds` the kinds of caller that are
    let in (an agent that acts for a person is an agent). None means that the route does not ask. `accountable`
    asks for a token that tells who used a shared identity. `sensitive` asks the decision point as well. `step_up` is
    how the person behind the token must have authenticated.
    """

    action: str
    resource: ResourceTemplate | None = None
    sensitive: bool = False
    tasks: frozenset[str] | None = None
    purposes: frozenset[str] | None = None
    kinds: frozenset[Kind] | None = None
    accountable: bool = False
    step_up: StepUp | None = None
    owner: str | None = None


class PublicAccess(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint that anybody may call, with the reason why and the owner who says so."""

    reason: str
    owner: str


Annotation = Permission | PublicAccess


class Requirement(msgspec.Struct, frozen=True):
    """All that was asked of one endpoint: every permission must hold. `public` counts only where no permission
    is asked for. With neither, the endpoint is closed."""

    permissions: tuple[Permission, ...] = ()
    public: PublicAccess | None = None

    @classmethod
    def of(cls, annotations: Collection[Annotation]) -> Requirement:
        """Add up the annotations found on a router, a class, a method and in the settings; strictest wins.

        Raises AnnotationError where two of them ask for authentications that no token can be of both.
        """
        permissions = tuple(dict.fromkeys(_agreed(a for a in annotations if isinstance(a, Permission))))
        public = next((a for a in annotations if isinstance(a, PublicAccess)), None)
        return cls(permissions, None if permissions else public)


def requires(
    action: str,
    resource: str | None = None,
    *,
    sensitive: bool = False,
    task: str | Collection[str] | None = None,
    purpose: str | Collection[str] | None = None,
    kinds: Kind | Collection[Kind] | None = None,
    accountable: bool = False,
    acr: str | Collection[str] | None = None,
    max_age: str | None = None,
    owner: str | None = None,
) -> Callable[[T], T]:
    """Ask for a permission before the decorated handler runs.

    Works on functions, methods, classes, `functools.partial` objects, routers and mounted applications. Given
    twice, or on a class and on its method, both must hold.

    `acr` names the authentication context classes of which the person's authentication must be one, the preferred
    first; `max_age` ("5m") is how long ago it may have been (RFC 9470).

    Raises AnnotationError, where it is written, for an action, resource, kind or authentication that cannot mean
    anything.
    """
    if not isinstance(action, str) or not ACTION_NAME.fullmatch(action):
        raise AnnotationError(
            f"action {action!r} must be words of letters, digits, '_', '.', '-' joined by ':', such as 'invoice:read'"
        )
    accepted_kinds = _names("kinds", kinds)
    if accepted_kinds is not None and not accepted_kinds <= set(KINDS):
        raise AnnotationError(f"kinds {sorted(accepted_kinds)} must be among {', '.join(KINDS)}")
    if not isinstance(sensitive, bool) or not isinstance(accountable, bool):
        raise AnnotationError(f"{action}: sensitive and accountable are True or False")
    permission = Permission(
        action=action,
        resource=None if resource is None else ResourceTemplate.parse(resource),
        sensitive=sensitive,
        tasks=_names("task", task),
        purposes=_names("purpose", purpose),
        kinds=accepted_kinds,  # type: ignore[arg-type]  # checked against KINDS above
        accountable=accountable,
        step_up=_step_up(action, acr, max_age),
        owner=owner,
    )
    return functools.partial(_annotate, permission)


def public(*, reason: str, owner: str) -> Callable[[T], T]:
    """Open the decorated handler to everybody, authenticated or not.

    Raises AnnotationError without a reason or an owner: an opening nobody answers for is refused.
    """
    if not isinstance(reason, str) or not reason.strip() or not isinstance(owner, str) or not owner.strip():
        raise AnnotationError("@public needs a reason and an owner, such as reason='liveness probe', owner='platform'")
    return functools.partial(_annotate, PublicAccess(reason=reason, owner=owner))


def annotations_of(*layers: object) -> tuple[Annotation, ...]:
    """The annotations on each layer (router, class, method …), outermost first, each once.

    Looks through `functools.partial`, bound methods and `__wrapped__`, so that a decorator that uses
    `functools.wraps` keeps the annotation. One that does not loses it, and the route is closed.
    """
    found: dict[Annotation, None] = {}
    for layer in layers:
        for inner in _unwrap(layer):
            found.update(dict.fromkeys(_attached(inner)))
    return tuple(found)


def endpoint_name(handler: object) -> str:
    """The dotted name of a handler, `package.module:Class.method`; of an instance, that of its class."""
    innermost = [None, *_unwrap(handler)][-1]
    named = innermost if hasattr(innermost, "__qualname__") else type(innermost)
    return f"{getattr(named, '__module__', '?')}:{getattr(named, '__qualname__', '?')}"


def _annotate(annotation: Annotation, handler: T) -> T:
    own = vars(handler).get(ATTRIBUTE, ()) if isinstance(handler, type) else getattr(handler, ATTRIBUTE, ())
    try:
        setattr(handler, ATTRIBUTE, (*own, annotation) if isinstance(own, tuple) else (annotation,))
    except (AttributeError, TypeError):
        raise AnnotationError(
            f"{handler!r} cannot carry an annotation; name it in the settings under [handlers] instead"
        ) from None
    return handler


def _attached(handler: object) -> Iterator[Annotation]:
    """What is attached to an object and to every class it comes from: attribute lookup would stop at the first."""
    cls = handler if isinstance(handler, type) else type(handler)
    holders = [vars(base).get(ATTRIBUTE, ()) for base in reversed(cls.__mro__)]
    if handler is not cls:
        holders.append(getattr(handler, ATTRIBUTE, ()))
    for attached in holders:
        # An object that answers to any attribute name (a mock, a proxy) must not count as annotated.
        yield from attached if isinstance(attached, tuple) else ()


def _unwrap(handler: object) -> Iterator[object]:
    seen: set[int] = set()
    current: Any = handler
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        is_partial = isinstance(current, functools.partial)
        current = current.func if is_partial else getattr(current, "__wrapped__", None)


def _step_up(action: str, acr: str | Collection[str] | None, max_age: str | None) -> StepUp | None:
    if acr is None and max_age is None:
        return None
    age = parse_max_age(max_age)
    if max_age is not None and age is None:
        raise AnnotationError(f"{action}: max_age must be {ACCEPTED_AGE}, not {max_age!r}")
    if acr is None:
        return StepUp((), age)
    if not isinstance(acr, str | Collection) or not acr:
        raise AnnotationError(f"{action}: acr must be a name or a non-empty collection of names, not {acr!r}")
    # A set has no order of preference; sorted, it at least tells every client the same.
    values = (acr,) if isinstance(acr, str) else sorted(acr, key=str) if isinstance(acr, set | frozenset) else acr
    step_up = StepUp(tuple(values), age)
    for fault in find_faults(step_up):
        raise AnnotationError(f"{action}: {fault}")
    return step_up


def _agreed(permissions: Iterable[Permission]) -> Iterator[Permission]:
    """The permissions; those that ask for an authentication ask for what all do, so that a client is told once."""
    found = tuple(permissions)
    asked = [permission.step_up for permission in found if permission.step_up is not None]
    together = strictest(asked)
    if together is None:
        raise AnnotationError(
            f"{' and '.join(sorted({permission.action for permission in found}))} ask for acr "
            f"{' and acr '.join(' or '.join(each.acr_values) for each in asked if each.acr_values)}; a token has only "
            "one: name those that suit all"
        )
    return (p if p.step_up is None else msgspec.structs.replace(p, step_up=together) for p in found)


def _names(label: str, value: str | Collection[str] | None) -> frozenset[str] | None:
    if value is None:
        return None
    names = frozenset([value] if isinstance(value, str) else value)
    if not names or not all(isinstance(name, str) and name for name in names):
        raise AnnotationError(f"{label} must be a name or a non-empty collection of names, not {value!r}")
    return names
