"""The JSON Schema of a decision record, for whoever receives, stores or checks records."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from authz_middleware.record.event import Event

_ENTITY: Final = {
    "type": "object",
    "properties": {"type": {"type": "string"}, "id": {"type": "string"}, "properties": {"type": "object"}},
    "required": ["type", "id"],
}

INPUT: Final[dict[str, Any]] = {
    "description": "The AuthZEN request. Without a subject nobody had been authenticated. Empty when it is erased.",
    "type": "object",
    "properties": {
        "subject": _ENTITY,
        "action": {
            "type": "object",
            "properties": {"name": {"type": "string"}, "properties": {"type": "object"}},
            "required": ["name"],
        },
        "resource": _ENTITY,
        "context": {"type": "object"},
    },
}


def json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of one decision record. Members not named in it may appear in later versions."""
    schema = msgspec.json.schema(Event)
    event = schema["$defs"]["Event"]
    event["properties"]["input"] = INPUT
    described = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Decision record", **schema}
    return dict(msgspec.json.decode(msgspec.json.encode(described)))
