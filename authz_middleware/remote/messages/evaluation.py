"""The question in the form of the OpenID AuthZEN Authorization API 1.0, section 5 and 6, and back again.

`question_of` is the strict inverse of `evaluation_request`: deciding on what was read back gives the same
decision. What matters only to this application travels not at all: the constraints a route puts on the caller
(task, purpose, kinds, accountability) are checked before anybody is asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from authz_middleware.facts import RequestFacts
from authz_middleware.identity.principal import KINDS, Actor, Kind, Principal
from authz_middleware.permission import ACTION_NAME, Permission
from authz_middleware.question import Question
from authz_middleware.remote.messages.members import (
    Table,
    clear_id,
    flag,
    items_of,
    number,
    object_of,
    one_of,
    read,
    text,
    time,
    values,
)
from authz_middleware.remote.messages.parts import UNKNOWN, caller_part, joined, moment_part, object_part, scene_part
from authz_middleware.remote.messages.values import MessageError
from authz_middleware.resource import Resource

__all__ = ["UNKNOWN", "MessageError", "evaluation_request", "question_of"]

NOT_TOLD: Final[Any] = None
"""Where a request does not tell a fact that an application always knows of itself. A policy must see it as missing,
which makes a deny rule apply; an empty text or a False would look like an answer."""

NOTHING: Final[Mapping[str, Any]] = {}


def evaluation_request(question: Question) -> dict[str, Any]:
    """The Access Evaluation request of a question. Members that say nothing are left out; none is null.

    Raises MessageError, naming the member, when something in the question has no exact form in JSON, or when
    an id is not a clear one. The question then cannot be asked, and a question that was not asked is refused.
    """
    facts, resource = question.facts, question.resource
    return joined(
        moment_part(question.now, resource.as_of),
        scene_part(
            question.action,
            question.environment,
            facts.method,
            facts.route,
            facts.endpoint,
            facts.protocol,
            facts.tls,
        ),
        caller_part(question.principal),
        object_part(resource, facts),
    )


def question_of(request: Mapping[str, Any], *, now: float | None = None) -> Question:
    """The question of an Access Evaluation request. `now` is the clock for a request that tells no time.

    A subject type that is not one of our kinds is a kind that is not known. Facts that the request does not tell
    are missing, not empty. Raises MessageError, naming the member, for a member that is unknown, ill-typed or missing.
    """
    try:
        asked = read(request, _REQUEST, ("subject", "action", "resource"))
    except MessageError as error:
        raise MessageError(error.where.removeprefix(".") or "the request", error.what) from None
    subject, resource, context = asked["subject"], asked["resource"], asked.get("context", NOTHING)
    moment = context.get("time", now)
    if moment is None:
        raise MessageError("context.time", "is required")
    return Question(
        principal=_principal(subject, context),
        permission=Permission(action=asked["action"]["name"]),
        resource=Resource(resource["type"], resource["id"], resource.get("properties"), context.get("resource_as_of")),
        facts=_facts(context),
        environment=context.get("environment") or NOT_TOLD,
        now=moment,
    )


def _principal(subject: Mapping[str, Any], context: Mapping[str, Any]) -> Principal:
    kind, properties = _KIND_OF.get(subject["type"]), subject.get("properties", NOTHING)
    told = {_FIELDS[name]: value for name, value in properties.items()}
    told["issuer"] = told.get("issuer") or NOT_TOLD
    purpose, task = context.get("purpose"), context.get("task")
    return Principal(subject=subject["id"], kind=kind, purpose=purpose, task=task, **told)


def _facts(context: Mapping[str, Any]) -> RequestFacts:
    return RequestFacts(
        method=context.get("method") or NOT_TOLD,
        route=context.get("route") or NOT_TOLD,
        endpoint=context.get("endpoint") or NOT_TOLD,
        protocol=context.get("protocol", NOT_TOLD),
        client=context.get("client"),
        tls=context.get("tls", NOT_TOLD),
    )


def _action_name(value: Any) -> str:
    name = text(value)
    if not ACTION_NAME.fullmatch(name):
        raise MessageError("", "must be words of letters, digits, '_', '.', '-' joined by ':'")
    return name


def _names(value: Any) -> frozenset[str]:
    return frozenset(_read_texts(value))


def _actors(value: Any) -> tuple[Actor, ...]:
    return tuple(Actor(**actor) for actor in _read_actors(value))


_read_texts: Final = items_of(text)
_read_actors: Final = items_of(object_of({"id": text, "kind": one_of(*KINDS), "issuer": text}, "id", "kind"))
_KIND_OF: Final[Mapping[str, Kind]] = {kind: kind for kind in KINDS}

_PROPERTIES: Final[Table] = {
    "issuer": text,
    "subject_kind": one_of(*KINDS),
    "actors": _actors,
    "client": text,
    "scopes": _names,
    "roles": _names,
    "tenant": text,
    "environment": text,
    "clearance": text,
    "token_id": text,
    "transaction": text,
    "issued_at": number,
    "expires_at": number,
    "auth_time": number,
    "acr": text,
    "claims": values,
}
_FIELDS: Final = {**{name: name for name in _PROPERTIES}, "auth_time": "authenticated_at"}
"""The field of the principal that a property becomes."""

_CONTEXT: Final[Table] = {
    "time": time,
    "resource_as_of": time,
    "environment": text,
    "purpose": text,
    "task": text,
    "method": text,
    "route": text,
    "endpoint": text,
    "protocol": one_of("http", "websocket"),
    "client": text,
    "tls": flag,
}
_REQUEST: Final[Table] = {
    "subject": object_of({"type": clear_id, "id": clear_id, "properties": object_of(_PROPERTIES)}, "type", "id"),
    "action": object_of({"name": _action_name}, "name"),
    "resource": object_of({"type": clear_id, "id": clear_id, "properties": values}, "type", "id"),
    "context": object_of(_CONTEXT),
}
