"""Cerbos speaks AuthZEN and looks elsewhere: verified with Cerbos 0.55.

Of a request it reads `subject.id`, `subject.properties` (a policy's `P.attr`), `action.name`, `resource.type`,
`resource.id` and `resource.properties` (`R.attr`). Roles are those of the property `cerbos.roles`; where that is empty
or absent, the subject's type becomes its only role. `cerbos.scope` and `cerbos.policyVersion` choose the policy. Of the
context it reads three members that begin with `cerbos.`, and ignores the others without a word.

So all that a policy may want goes where it looks, and nothing that an application or a token names can be taken for one
of those members. What policies put out comes back in the context of the answer as one member, `cerbos.response`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

import msgspec

from authz_middleware.remote.failure import FailureKind, RemoteFailure
from authz_middleware.remote.messages.parts import Part
from authz_middleware.remote.messages.values import MessageError

OWN: Final = "cerbos."
NO_ROLE: Final = "authz.none"
"""The role of whoever has none. Without one, the type would be the role, and a policy's "agent" may be a profession."""

BATCH_CONTEXT: Final[Mapping[str, Any]] = {f"{OWN}includeMeta": True}
"""What the answers hold the outputs of policies for. In a batch it counts at the top level only."""

UNREADABLE: Final[Mapping[str, Any]] = {"obligations": "unreadable"}
"""A context that no permit can have: what a policy puts out may be an obligation."""

_MISMATCHED: Final = RemoteFailure(FailureKind.MISMATCHED, "body.request_id")
_CONDITIONS: Final = frozenset({"acr_values", "amr_values", "max_age"})


class _Output(msgspec.Struct):
    action: str = ""
    val: Any = None
    error: str | None = None


class _Entity(msgspec.Struct):
    kind: str = ""
    id: str = ""


class _Result(msgspec.Struct):
    resource: _Entity
    actions: Mapping[str, Any] = {}
    outputs: list[_Output] = []


class _Response(msgspec.Struct, rename="camel"):
    request_id: str = ""
    results: list[_Result] = []


def check(part: Part) -> None:
    """Raise MessageError for an attribute of the resource that Cerbos would obey: it may choose the policy."""
    for name in part["resource"].get("properties", ()):
        if name.startswith(OWN):
            raise MessageError(f"resource.properties.{name}", f"begins with {OWN!r}, which Cerbos keeps for itself")


def place(request: Part, request_id: str) -> Part:
    """The request with everything where Cerbos looks for it."""
    subject = request["subject"]
    properties = subject["properties"]
    told = {
        **properties,
        "kind": subject["type"],  # a policy cannot read the type itself
        "context": request["context"],
        f"{OWN}roles": [role for role in properties.get("roles", ()) if role] or [NO_ROLE],
    }
    return {
        **request,
        "subject": {**subject, "properties": told},
        "context": {f"{OWN}requestId": request_id, **BATCH_CONTEXT},
    }


def read_context(
    context: Mapping[str, Any], request: Part, request_ids: Collection[str]
) -> Mapping[str, Any] | RemoteFailure:
    """What the policies put out about this request, as a context of the common form; a failure for an answer to
    something else than these ids.

    Obligations add up; of several reasons the first is told, and a bare text is one for the record. Where something was
    not computed, contradicts itself or is not told at all, the context is one that no permit can have.
    """
    try:
        response = msgspec.convert(context.get(f"{OWN}response"), _Response)
    except msgspec.ValidationError:
        return UNREADABLE
    if response.request_id not in request_ids:
        return _MISMATCHED
    action, about = request["action"]["name"], _Entity(request["resource"]["type"], request["resource"]["id"])
    results = [each for each in response.results if each.resource == about and action in each.actions]
    if len(results) != 1:
        return UNREADABLE
    return _merged(output for output in results[0].outputs if output.action == action)


def _merged(outputs: Iterator[_Output]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for output in outputs:
        value = {"reason_admin": output.val} if isinstance(output.val, str) else output.val
        if output.error is not None or (isinstance(value, dict) and not _add(merged, value)):
            merged |= UNREADABLE
            break
    return merged


def _add(merged: dict[str, Any], value: Mapping[str, Any]) -> bool:
    """Add the members of an output to those of the outputs before it; False where they cannot both be met."""
    for name, member in value.items():
        known = merged.setdefault(name, member)
        if name == "obligations" and known is not member:
            if not isinstance(known, list) or not isinstance(member, list):
                return False
            merged[name] = known + member
        elif name in _CONDITIONS and known != member:
            return False
    return True
