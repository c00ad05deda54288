"""The JSON Schema (draft 2020-12) of a policy document, for editors.

It knows the shape of a document. What only the whole tells (that an input is declared, that a label belongs to its set,
that a zone exists) is for `document.parse_policy` to say.
"""

from __future__ import annotations

from typing import Any, Final

from authz_middleware import duration
from authz_middleware.decision import Reason
from authz_middleware.permission import ACTION_NAME
from authz_middleware.policy.check import ACTION_PATTERN, DECLARABLE_PATTERN, MAX_NAME
from authz_middleware.policy.check_tests import SUBJECT_TIMES
from authz_middleware.policy.conditions import ALWAYS
from authz_middleware.policy.inputs import BUILT_IN
from authz_middleware.policy.model import EFFECTS, INPUT_SOURCES
from authz_middleware.policy.times import CLOCK_PATTERN, DAYS
from authz_middleware.step_up import ACR_PATTERN, MAX_VALUES

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

_Schema = dict[str, Any]


def json_schema() -> _Schema:
    """The schema, anew each time: the caller may change it."""
    return {
        "$schema": DIALECT,
        "$id": "urn:authz-middleware:policy",
        "title": "Policy of authz-middleware",
        **_object(
            {
                "policy": _ref("name"),
                "owner": _ref("name"),
                "inputs": {
                    "type": "object",
                    "propertyNames": {"anyOf": [{"enum": list(BUILT_IN)}, {"pattern": _whole(DECLARABLE_PATTERN)}]},
                    "additionalProperties": _ref("input"),
                },
                "labels": {"type": "object", "additionalProperties": _ref("labels")},
                "rules": {"type": "array", "items": _ref("rule")},
                "degrade": {"type": "object", "additionalProperties": {"type": "array", "items": _ref("narrowRule")}},
                "tests": {"type": "array", "items": _ref("test")},
            },
            required=["policy", "owner"],
        ),
        "$defs": {
            **_scalar_definitions(),
            **_rule_definitions(),
            **_condition_definitions(),
            "input": _input(),
            "test": _test(),
        },
    }


def _object(properties: _Schema, required: list[str] | None = None) -> _Schema:
    shape: _Schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**shape, "required": required} if required else shape


def _ref(name: str) -> _Schema:
    return {"$ref": f"#/$defs/{name}"}


def _whole(pattern: str) -> str:
    """The pattern for the whole of a text: JSON Schema looks for a match anywhere."""
    return f"^(?:{pattern})$"


def _list_of(item: _Schema) -> _Schema:
    return {"type": "array", "items": item, "minItems": 1, "uniqueItems": True}


def _scalar_definitions() -> _Schema:
    return {
        "name": {"type": "string", "minLength": 1, "maxLength": MAX_NAME, "pattern": r"^\S(?:.*\S)?$"},
        "action": {"type": "string", "pattern": _whole(ACTION_PATTERN)},
        "duration": {"type": "string", "pattern": _whole(duration.PATTERN), "examples": ["30s", "15m", "8h"]},
        "clock": {"type": "string", "pattern": _whole(CLOCK_PATTERN), "examples": ["08:00"]},
        "instant": {"type": "string", "format": "date-time"},
        "text": {"type": "string", "minLength": 1},
        "scalar": {"type": ["string", "number", "boolean"]},
        "scalars": {
            "anyOf": [
                {"type": "array", "minItems": 1, "items": {"type": type_}} for type_ in ("string", "number", "boolean")
            ]
        },
        "labels": {**_list_of(_ref("name")), "minItems": 2, "description": "lowest first"},
        "acr": {"type": "string", "pattern": _whole(ACR_PATTERN), "examples": ["phr", "urn:example:mfa"]},
    }


def _rule(*, may_be_sensitive: bool) -> _Schema:
    actions = {"anyOf": [_ref("action"), _list_of(_ref("action"))]}
    properties = {
        "rule": _ref("name"),
        "permit": actions,
        "deny": actions,
        "authentication": _authentication(),
        "when": _ref("when"),
        "owner": _ref("name"),
    }
    if may_be_sensitive:
        properties["sensitive"] = {"type": "boolean"}
    return {
        **_object(properties, required=["rule"]),
        "oneOf": [
            {"required": ["permit", "when"]},
            {"required": ["deny"], "properties": {"sensitive": {"const": False}, "authentication": False}},
        ],
        "not": {"required": ["permit", "deny"]},
    }


def _rule_definitions() -> _Schema:
    return {"rule": _rule(may_be_sensitive=True), "narrowRule": _rule(may_be_sensitive=False)}


def _authentication() -> _Schema:
    acr = {"anyOf": [_ref("acr"), {**_list_of(_ref("acr")), "maxItems": MAX_VALUES}]}
    return {**_object({"acr": acr, "max_age": _ref("duration")}), "minProperties": 1}


def _nests(part: _Schema) -> _Schema:
    several = {"type": "array", "minItems": 1, "items": part}
    return {"all": several, "any": several, "not": part}


def _condition_definitions() -> _Schema:
    bound = {"anyOf": [{"type": ["number", "string"]}, _object({"input": _ref("text")}, required=["input"])]}
    window = {
        "between": {"type": "array", "items": _ref("clock"), "minItems": 2, "maxItems": 2},
        "zone": {"type": "string", "minLength": 1, "examples": ["Europe/Berlin", "UTC"]},
        "days": {"type": "array", "items": {"enum": list(DAYS)}, "uniqueItems": True},
    }
    matcher = {
        "equals": _ref("scalar"),
        "in": _ref("scalars"),
        "has": _ref("scalar"),
        "has_any": _ref("scalars"),
        "has_all": _ref("scalars"),
        "at_most": bound,
        "at_least": bound,
        "same_as": _ref("text"),
        "starts_with": _ref("text"),
        "exists": {"type": "boolean"},
        **window,
        "outside": _object(window, required=["between", "zone"]),
        **_nests(_ref("matcher")),
    }
    declarable = {_whole(DECLARABLE_PATTERN): _ref("matcher")}
    conditions = {
        **_object({**{name: _ref("matcher") for name in BUILT_IN}, **_nests(_ref("when"))}),
        "patternProperties": declarable,
        "minProperties": 1,
    }
    return {
        "when": {"anyOf": [{"const": ALWAYS}, conditions]},
        "matcher": {
            "anyOf": [
                _ref("scalar"),
                {
                    **_object(matcher),
                    "minProperties": 1,
                    "dependentRequired": {"between": ["zone"], "zone": ["between"], "days": ["between"]},
                },
            ]
        },
    }


def _input() -> _Schema:
    properties = {"from": {"enum": list(INPUT_SOURCES)}, "max_age": _ref("duration"), "labels": _ref("name")}
    return _object(properties, required=["from"])


def _test() -> _Schema:
    named = {"type": "object"}
    resource = {"type": _ref("text"), "id": _ref("text"), "properties": named, "as_of": _ref("instant")}
    properties = {
        "name": _ref("text"),
        "at": _ref("instant"),
        "subject": {**named, "properties": dict.fromkeys(SUBJECT_TIMES, _ref("instant"))},
        "action": {"type": "string", "pattern": _whole(ACTION_NAME.pattern)},
        "resource": _object(resource),
        "context": named,
        "expect": {"enum": list(EFFECTS)},
        "rule": _ref("name"),
        "reason": {"enum": [reason.value for reason in Reason]},
    }
    return _object(properties, required=["name", "at", "action", "expect"])
