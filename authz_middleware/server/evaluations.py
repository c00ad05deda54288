"""The Access Evaluations (batch) request of AuthZEN 1.0, section 7: defaults, semantics, and where it stops."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from authz_middleware.remote.messages.evaluation import MessageError

ENTITIES: Final = ("subject", "action", "resource", "context")
EXECUTE_ALL: Final = "execute_all"
MAX_MESSAGE: Final = 256
MAX_WORK: Final = 4 * 1024 * 1024

# Which decision ends a batch early; with None all are made.
SEMANTICS: Final[Mapping[str, bool | None]] = {
    EXECUTE_ALL: None,
    "deny_on_first_deny": False,
    "permit_on_first_permit": True,
}

Result = dict[str, Any]


def evaluate_all(
    request: Mapping[str, Any], evaluate: Callable[[Mapping[str, Any]], Result], *, most: int, size: int = 0
) -> Result | None:
    """The answer to a batch, or None when the request holds no batch and is a single evaluation after all.

    An item that is not a question is denied with an error in its context, as the specification has it, and does
    not spoil the others. `size` is that of the request in bytes. Raises MessageError when the batch itself is
    malformed, has more than `most` items, or means more work than one request may ask for: its defaults are read for
    each item.
    """
    items = request.get("evaluations", [])
    if not isinstance(items, list):
        raise MessageError("evaluations", "must be a list")
    if len(items) > most:
        raise MessageError("evaluations", f"must have at most {most} items")
    if len(items) * size > MAX_WORK:
        raise MessageError("evaluations", f"times the size of the request must be at most {MAX_WORK} bytes")
    for name in request:
        if name not in (*ENTITIES, "evaluations", "options"):
            raise MessageError(name[:64], "is not a known member")
    last = SEMANTICS[_semantic(request.get("options", {}))]
    if not items:
        return None
    defaults = {name: request[name] for name in ENTITIES if name in request}
    results: list[Result] = []
    for index, item in enumerate(items):
        result = _evaluate_item(item, defaults, index, evaluate)
        results.append(result)
        if last is not None and result["decision"] is last:
            break
    return {"evaluations": results}


def error_body(status: int, message: str) -> dict[str, Any]:
    """The form of an error, of a whole request and of an item alike."""
    return {"error": {"status": status, "message": message[:MAX_MESSAGE]}}


def _evaluate_item(
    item: object, defaults: Mapping[str, Any], index: int, evaluate: Callable[[Mapping[str, Any]], Result]
) -> Result:
    try:
        if not isinstance(item, Mapping):
            raise MessageError("item", "must be an object")  # noqa: TRY301 - reported like any other mistake in it
        return evaluate({**defaults, **item})
    except MessageError as error:
        return {"decision": False, "context": error_body(400, f"evaluations[{index}].{error}")}


def _semantic(options: object) -> str:
    if not isinstance(options, Mapping):
        raise MessageError("options", "must be an object")
    for name in options:
        if name != "evaluations_semantic":
            raise MessageError(f"options.{name[:64]}", "is not a known member")
    semantic = options.get("evaluations_semantic", EXECUTE_ALL)
    if not isinstance(semantic, str) or semantic not in SEMANTICS:
        raise MessageError("options.evaluations_semantic", f"must be one of {', '.join(SEMANTICS)}")
    return semantic
