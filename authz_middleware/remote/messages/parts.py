"""A question's request in four parts, by how often each changes, and put together again.

Who calls is the same as long as a token is remembered, and where as long as the application runs; so these two are
made once. A request is made of the parts and of nothing else: whatever is added to one of them is sent, and is part
of what tells two questions apart (see `remote.query`).
"""

from __future__ import annotations

import functools
from hashlib import sha256
from typing import Any, Final

import msgspec

from authz_middleware.facts import RequestFacts
from authz_middleware.identity.principal import Principal
from authz_middleware.remote.messages.values import (
    MessageError,
    plain_number,
    plain_object,
    plain_text,
    time_text,
)
from authz_middleware.resource import Resource, is_clear_id

UNKNOWN: Final = "unknown"
"""The subject type where the token does not say what kind of party its subject is."""

Part = dict[str, dict[str, Any]]
"""Members of a request: by section (`subject`, `action`, `resource`, `context`) and name."""

_REMEMBERED: Final = "remote.messages.parts"
_MAX_SCENES: Final = 1024
_MAX_MARK: Final = 256
# From the first second of the year 1 to the last whole one of 9999: every time between them has a text.
_FIRST: Final = -62_135_596_800.0
_LAST: Final = 253_402_300_799.0

_encode: Final = msgspec.json.Encoder(order="sorted").encode


class Told(msgspec.Struct, frozen=True):
    """A part, not to be changed, and the bytes that tell it apart from any other."""

    members: Part
    mark: bytes


def told(part: Part) -> Told:
    """A part with its mark: the part itself, encoded, or where that is long its digest, which no encoded part is like
    as it begins with another character."""
    encoded = _encode(part)
    return Told(part, encoded if len(encoded) <= _MAX_MARK else b"#" + sha256(encoded).digest())


def caller_told(principal: Principal) -> Told:
    """`caller_part`, remembered with the principal itself and so no longer than it. Raises MessageError."""
    remembered = vars(principal)
    known: Told | None = remembered.get(_REMEMBERED)
    if known is None:
        known = remembered[_REMEMBERED] = told(caller_part(principal))
    return known


@functools.lru_cache(_MAX_SCENES)
def scene_told(
    action: str, environment: str, method: str, route: str, endpoint: str, protocol: str, tls: bool | None
) -> Told:
    """`scene_part`, remembered. Raises MessageError."""
    return told(scene_part(action, environment, method, route, endpoint, protocol, tls))


def object_told(resource: Resource, facts: RequestFacts) -> Told:
    """`object_part`. Raises MessageError."""
    return told(object_part(resource, facts))


def joined(*parts: Part) -> Part:
    """The request made of these parts. No two of them have a member in common."""
    request: Part = {}
    for part in parts:
        for section, members in part.items():
            request[section] = {**request[section], **members} if section in request else members
    return request


def caller_part(principal: Principal) -> Part:
    """Who calls, and what for. Raises MessageError."""
    subject = _entity("subject", principal.kind or UNKNOWN, principal.subject)
    subject["properties"] = _subject_properties(principal)
    return {"subject": subject, "context": _texts("context", purpose=principal.purpose, task=principal.task)}


def scene_part(
    action: str, environment: str, method: str, route: str, endpoint: str, protocol: str, tls: bool | None
) -> Part:
    """What is done, and where: all that a route has in common with itself. Raises MessageError."""
    context = _texts(
        "context",
        environment=environment or None,
        method=method or None,
        route=route or None,
        endpoint=endpoint or None,
        protocol=protocol,
    )
    if tls is not None:  # a request that was read back may not tell
        context["tls"] = tls
    return {"action": {"name": action}, "context": context}


def object_part(resource: Resource, facts: RequestFacts) -> Part:
    """What it is done to, and from which address. Raises MessageError."""
    properties, client = resource.attributes, facts.client
    members = _entity("resource", resource.type, resource.id)
    if properties is not None:  # an empty object tells that somebody has looked
        members["properties"] = plain_object(properties, "resource.properties")
    if client is None:
        return {"resource": members}
    return {"resource": members, "context": {"client": plain_text(client, "context.client")}}


def moment_part(now: float, as_of: float | None) -> Part:
    """When it is asked, and when the application read the attributes. Raises MessageError."""
    context = {"time": time_text(now, "context.time")}
    if as_of is not None:
        context["resource_as_of"] = time_text(as_of, "context.resource_as_of")
    return {"context": context}


def check_moment(now: float, as_of: float | None) -> None:
    """Raise MessageError where `moment_part` would: most moments are told by nobody, as the answer is known."""
    if not (_FIRST <= now <= _LAST and (as_of is None or _FIRST <= as_of <= _LAST)):
        moment_part(now, as_of)


def _entity(where: str, type_: str, id_: str) -> dict[str, Any]:
    if is_clear_id(type_) and is_clear_id(id_):
        return {"type": type_, "id": id_}
    name = "id" if is_clear_id(type_) else "type"
    raise MessageError(f"{where}.{name}", "must be 1 to 1024 characters, none of them invisible or a control")


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


def _texts(where: str, **members: str | None) -> dict[str, Any]:
    """The members that are told."""
    return {
        name: value if value.isascii() else plain_text(value, f"{where}.{name}")
        for name, value in members.items()
        if value is not None
    }
