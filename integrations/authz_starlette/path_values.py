"""Path parameters as the handler gets them. FastAPI converts their text itself, after the router: `07` and `7` are one
number, and a UUID has four spellings. What is decided on must be the value, not the spelling that a client chose."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any

Fields = tuple[tuple[str, Any], ...]


def fields_of(route: object, context: object) -> Fields:
    """The path parameters that FastAPI converts for this route and its dependencies, by name."""
    dependant = getattr(context, "dependant", None) or getattr(route, "dependant", None)
    return tuple(
        (field.validation_alias or field.alias, field)
        for field in _path_fields(dependant)
        if field.field_info.annotation is not str or field.field_info.metadata
    )


def values_of(params: Mapping[str, Any], fields: Fields) -> dict[str, str]:
    """The text of each value. One that two parts of the route read differently has none, and names nothing; one that
    FastAPI will not accept keeps its spelling, and no handler gets it."""
    values = {name: str(value) for name, value in params.items()}
    converted: dict[str, str] = {}
    for name, field in fields:
        if name in params:
            value, errors = field.validate(params[name])
            if not errors:
                text = str(value.value if isinstance(value, Enum) else value)
                converted[name] = text if converted.get(name, text) == text else ""
    return values | converted


def _path_fields(dependant: Any) -> Iterator[Any]:
    if dependant is not None:
        yield from dependant.path_params
        for dependency in dependant.dependencies:
            yield from _path_fields(dependency)
