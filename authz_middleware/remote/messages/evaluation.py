"""The question in the form of the OpenID AuthZEN Authorization API 1.0, section 5 and 6, and back again.

`question_of` is the strict inverse of `evaluation_request`: deciding on what was read back gives the same
decision. What matters only to this application travels not at all: the constraints a route puts on the caller
(task, purpose, kinds, accountability) are checked before anybody is asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from authz_middleware.facts import RequestFacts
from authz_middleware.identity.principal import KINDS, Actor, Principal
from authz_middleware.permission import ACTION_NAME, Permission
from authz_middleware.question import Question
from authz_middleware.remote.messages.members import Members
from authz_middleware.remote.messages.values import (
    MessageError,
    plain_number,
    plain_object,
    plain_text,
    time_of,
    time_text,
)
from authz_middleware.resource import Resource, is_clear_id

__all__ = ["UNKNOWN", "MessageError", "evaluation_request", "question_of"]

UNKNOWN: Final = "unknown"
"""The subject type where the token does not say what kind of party its subject is."""

NOT_TOLD: Final[Any] = None
"""Where a request does not tell a fact that an application always knows of itself. A policy must see it as missing,
which makes a deny rule apply; an empty text or a False would look like an answer."""


def evaluation_request(question: Question) -> dict[str, Any]:
    """The Access Evaluation request of a question. Members that say nothing are left out; none is null.

    Raises MessageError, naming the member, when something in the question has no exact form in JSON, or when
    an id is not a clear one. The question then cannot be asked, and a question that was not asked is refused.
    """
    resource = question.resource
    asked: dict[str, Any] = {
        "subject": _entity("subject", question.principal.kind or UNKNOWN, question.principal.subject),
        "action": {"name": question.action},
        "resource": _entity("resource", resource.type, resource.id),
        "context": _context(question),
    }
    asked["subject"]["properties"] = _subject_properties(question.principal)
    if resource.attributes is not None:  # an empty object tells that somebody has looked
        asked["resource"]["properties"] = plain_object(resource.attributes, "resource.properties")
    return asked


def question_of(request: Mapping[str, Any], *, now: float | None = None) -> Question:
    """The question of an Access Evaluation request. `now` is the clock for a request that tells no time.

    A subject type that is not one of our kinds is a kind that is not known. Facts that the request does not tell
    are missing, not empty. Raises MessageError, naming the
    member, for a member that is unknown, ill-typed or missing.
    """
    members = Members(request, "")
    subject, action = members.object("subject"), members.object("action")
    resource, context = members.object("resource"), members.optional_object("context")
    members.done()
    principal = _principal(subject, context)
    permission = _permission(action)
    time, as_of = context.optional_text("time"), context.optional_text("resource_as_of")
    if time is None and now is None:
        raise MessageError("context.time", "is required")
    question = Question(
        principal=principal,
        permission=permission,
        resource=_resource(resource, None if as_of is None else time_of(as_of, "context.resource_as_of")),
        environment=context.optional_text("environment") or NOT_TOLD,
        facts=_facts(context),
        now=time_of(time, "context.time") if time is not None else now or 0.0,
    )
    context.done()
    return question


def _entity(where: str, type_: str, id_: str) -> dict[str, Any]:
    for name, value in (("type", type_), ("id", id_)):
        if not is_clear_id(value):
            raise MessageError(f"{where}.{name}", "must be 1 to 1024 characters, none of them invisible or a control")
    return {"type": type_, "id": id_}


def _subject_properties(principal: Principal) -> dict[str, Any]:
    properties = _texts(
        "subject.properties",
        issuer=principal.issuer or None,
        subject_kind=principal.subject_kind,
        client=principal.client,
        tenant=principal.tenant,
        clearance=principal.clearance,
        environment=principal.environment,
        token_id=principal.token_id,
        transaction=principal.transaction,
        acr=principal.acr,
    )
    for name, names in (("scopes", principal.scopes), ("roles", principal.roles)):
        if names:
            properties[name] = sorted(plain_text(each, f"subject.properties.{name}") for each in names)
    if principal.actors:
        properties["actors"] = [_texts("actor", id=a.id, kind=a.kind, issuer=a.issuer) for a in principal.actors]
    if principal.issued_at:
        properties["issued_at"] = plain_number(principal.issued_at, "subject.properties.issued_at")
    if principal.expires_at:
        properties["expires_at"] = plain_number(principal.expires_at, "subject.properties.expires_at")
    if principal.authenticated_at is not None:
        properties["auth_time"] = plain_number(principal.authenticated_at, "subject.properties.auth_time")
    if principal.claims:
        properties["claims"] = plain_object(principal.claims, "subject.properties.claims")
    return properties


def _context(question: Question) -> dict[str, Any]:
    facts, as_of = question.facts, question.resource.as_of
    context = _texts(
        "context",
        time=time_text(question.now, "context.time"),
        environment=question.environment or None,
        purpose=question.principal.purpose,
        task=question.principal.task,
        method=facts.method or None,
        route=facts.route or None,
        endpoint=facts.endpoint or None,
        protocol=facts.protocol,
        client=facts.client,
        resource_as_of=None if as_of is None else time_text(as_of, "context.resource_as_of"),
    )
    if facts.tls is not NOT_TOLD:
        context["tls"] = facts.tls
    return context


def _texts(where: str, **members: str | None) -> dict[str, Any]:
    """The members that are told."""
    return {
        name: value if value.isascii() else plain_text(value, f"{where}.{name}")
        for name, value in members.items()
        if value is not None
    }


def _principal(subject: Members, context: Members) -> Principal:
    type_, id_ = subject.clear_id("type"), subject.clear_id("id")
    properties = subject.optional_object("properties")
    subject.done()
    principal = Principal(
        issuer=properties.optional_text("issuer") or NOT_TOLD,
        subject=id_,
        kind=next((kind for kind in KINDS if kind == type_), None),
        subject_kind=properties.optional_choice("subject_kind", KINDS),
        actors=tuple(_actor(actor) for actor in properties.objects("actors")),
        client=properties.optional_text("client"),
        scopes=frozenset(properties.texts("scopes")),
        roles=frozenset(properties.texts("roles")),
        tenant=properties.optional_text("tenant"),
        task=context.optional_text("task"),
        purpose=context.optional_text("purpose"),
        environment=properties.optional_text("environment"),
        clearance=properties.optional_text("clearance"),
        token_id=properties.optional_text("token_id"),
        transaction=properties.optional_text("transaction"),
        issued_at=properties.number("issued_at"),
        expires_at=properties.number("expires_at"),
        authenticated_at=properties.optional_number("auth_time"),
        acr=properties.optional_text("acr"),
        claims=properties.values("claims") or {},
    )
    properties.done()
    return principal


def _actor(actor: Members) -> Actor:
    read = Actor(actor.text("id"), actor.choice("kind", KINDS), actor.optional_text("issuer"))
    actor.done()
    return read


def _permission(action: Members) -> Permission:
    name = action.text("name")
    if not ACTION_NAME.fullmatch(name):
        raise MessageError("action.name", "must be words of letters, digits, '_', '.', '-' joined by ':'")
    action.done()
    return Permission(action=name)


def _resource(resource: Members, as_of: float | None) -> Resource:
    read = Resource(resource.clear_id("type"), resource.clear_id("id"), resource.values("properties"), as_of)
    resource.done()
    return read


def _facts(context: Members) -> RequestFacts:
    return RequestFacts(
        method=context.optional_text("method") or NOT_TOLD,
        route=context.optional_text("route") or NOT_TOLD,
        endpoint=context.optional_text("endpoint") or NOT_TOLD,
        protocol=context.optional_choice("protocol", ("http", "websocket")) or NOT_TOLD,
        client=context.optional_text("client"),
        tls=context.flag("tls", NOT_TOLD),
    )
