"""The table `[remote.probe]`: two requests whose answers are known beforehand.

A decision point that looks elsewhere for attributes ignores them without a word, and its permits are then decided by
less than was said. One request that must be permitted and one that must be denied find that out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from authz_middleware.remote.messages.values import MessageError, plain_object
from authz_middleware.settings.section import Section

_ABSENT: Final = object()
_EXAMPLE: Final = '{ subject = { type = "…", id = "…" }, action = { name = "…" }, resource = { type = "…", id = "…" } }'


class ProbeSettings(msgspec.Struct, frozen=True):
    """The two requests as they are sent, and the members that they differ in (`context.purpose`)."""

    permit: bytes
    deny: bytes
    differences: tuple[str, ...]


def read_probe(remote: Section) -> ProbeSettings | None:
    """The table, or None where there is none."""
    section = remote.optional_table("probe")
    if section is None:
        return None
    requests = [_request(section, outcome) for outcome in ("permit", "deny")]
    section.done()
    permit, deny = requests
    if permit is None or deny is None:
        return None
    differences = tuple(_differences(permit, deny, ""))
    if not differences:
        section.problem("", "has the same request twice: one of the two must be permitted and the other denied")
    return ProbeSettings(msgspec.json.encode(permit), msgspec.json.encode(deny), differences)


def _request(probe: Section, outcome: str) -> dict[str, Any] | None:
    """One Access Evaluation request (AuthZEN 1.0, section 6.1), as it is written; None where it is none."""
    section = probe.optional_table(outcome)
    if section is None:
        probe.problem(outcome, f"is required: the request that must get a {outcome}, such as {_EXAMPLE}")
        return None
    request: dict[str, Any] = {
        "subject": _entity(section.table("subject"), "type", "id"),
        "action": _entity(section.table("action"), "name"),
        "resource": _entity(section.table("resource"), "type", "id"),
    }
    if "context" in section:
        request["context"] = _object(section, "context")
    section.done()
    return None if None in request.values() else _plain(section, request)


def _entity(section: Section, *names: str) -> dict[str, Any] | None:
    entity = {name: section.text(name) for name in names}
    if "properties" in section:
        entity["properties"] = _object(section, "properties")
    section.done()
    return None if None in entity.values() else entity


def _object(section: Section, key: str) -> Mapping[str, Any] | None:
    """Members of any name, whose values are checked with the whole."""
    value = section.raw(key)
    if not isinstance(value, Mapping):
        section.problem(key, "must be a table")
        return None
    return value


def _plain(section: Section, request: dict[str, Any]) -> dict[str, Any] | None:
    try:
        return plain_object(request, "", strict=True)
    except MessageError as error:
        section.problem(error.where.removeprefix("."), error.what)
        return None


def _differences(one: object, other: object, where: str) -> Iterator[str]:
    """The innermost members that only one of the two has, or that differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        for name in sorted(one.keys() | other.keys()):
            inner = f"{where}.{name}" if where else name
            yield from _differences(one.get(name, _ABSENT), other.get(name, _ABSENT), inner)
    elif one is _ABSENT or other is _ABSENT or msgspec.json.encode(one) != msgspec.json.encode(other):
        yield where
