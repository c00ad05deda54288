"""Requests of callers that know more words than we do: AuthZEN 1.0, section 10.1.1, has receivers ignore what they do
not know.

Properties of the subject that we have no word for are claims, which a policy may declare as inputs
(`subject.department`); what else is unknown is left out. What is known must still be well-formed. A policy reads what
it has declared, and what is missing passes nothing but a condition that asks for its absence (`exists: false`): an
attribute that is told at another place than below `properties` counts as absent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

PROPERTIES: Final = frozenset(
    {
        *("issuer", "subject_kind", "actors", "client", "scopes", "roles", "tenant", "environment", "clearance"),
        *("token_id", "transaction", "issued_at", "expires_at", "auth_time", "acr", "claims"),
    }
)
CONTEXT: Final = frozenset(
    {
        *("time", "resource_as_of", "environment", "purpose", "task", "method", "route", "endpoint", "protocol"),
        *("client", "tls"),
    }
)
_MEMBERS: Final[Mapping[str, frozenset[str]]] = {
    "subject": frozenset({"type", "id", "properties"}),
    "action": frozenset({"name"}),
    "resource": frozenset({"type", "id", "properties"}),
    "context": CONTEXT,
}
# The specification's own examples leave the seconds out, which RFC 3339 does not allow.
_MINUTE: Final = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d)(Z|[+-]\d\d:\d\d)", re.ASCII)


def known_part(asked: Mapping[str, Any]) -> dict[str, Any]:
    """The part of an evaluation request that we have words for. What is no object is left for the reader to refuse."""
    known: dict[str, Any] = {}
    for entity, members in _MEMBERS.items():
        if entity in asked:
            value = asked[entity]
            known[entity] = _only(value, members) if isinstance(value, Mapping) else value
    subject, context = known.get("subject"), known.get("context")
    if isinstance(subject, dict) and isinstance(subject.get("properties"), Mapping):
        subject["properties"] = _with_claims(subject["properties"])
    if isinstance(context, dict) and isinstance(context.get("time"), str):
        context["time"] = _MINUTE.sub(r"\1:00\2", context["time"])
    return known


def _only(value: Mapping[str, Any], members: frozenset[str]) -> dict[str, Any]:
    return {name: item for name, item in value.items() if name in members}


def _with_claims(properties: Mapping[str, Any]) -> dict[str, Any]:
    known = _only(properties, PROPERTIES)
    others = {name: item for name, item in properties.items() if name not in PROPERTIES and item is not None}
    claims = known.get("claims", {})
    if others and isinstance(claims, Mapping):
        known["claims"] = {**others, **claims}
    return known
