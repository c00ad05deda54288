"""The Access Evaluations (batch) request of AuthZEN 1.0, section 7: defaults, semantics, and where it stops."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from authz_middleware.remote.messages.evaluation import MessageError
from authz_middleware.server.decider import MALFORMED, Outcome, Sitting, reply_of
from authz_middleware.server.exchange import Reply, encode, error_body

ENTITIES: Final = ("subject", "action", "resource", "context")
EXECUTE_ALL: Final = "execute_all"
MAX_WORK: Final = 1024 * 1024
"""Bytes of defaults that one batch may have read: they are read for each of its items."""

# Which decision ends a batch early; with None all are made.
SEMANTICS: Final[Mapping[str, bool | None]] = {
    EXECUTE_ALL: None,
    "deny_on_first_deny": False,
    "permit_on_first_permit": True,
}


def evaluate_all(request: Mapping[str, Any], sitting: Sitting, *, most: int) -> Reply:
    """The answer to a batch; a request that holds none is a single evaluation after all.

    An item that is not a question is denied with an error in its context, as the specification has it, and does
    not spoil the others. Raises MessageError when the batch itself is malformed, has more than `most` items, or means
    more work than one request may ask for.
    """
    items = request.get("evaluations", [])
    if not isinstance(items, list):
        raise MessageError("evaluations", "must be a list")
    if len(items) > most:
        raise MessageError("evaluations", f"must have at most {most} items")
    for name in request:
        if name not in (*ENTITIES, "evaluations", "options") and not sitting.is_lenient:
            raise MessageError(name[:64], "is not a known member")
    last = SEMANTICS[_semantic(request.get("options", {}), lenient=sitting.is_lenient)]
    defaults = {name: request[name] for name in ENTITIES if name in request}
    if len(items) * len(encode(defaults)) > MAX_WORK:
        raise MessageError("evaluations", f"times the size of their defaults must be at most {MAX_WORK} bytes")
    if not items:
        return reply_of(sitting.decide(defaults))
    bodies: list[bytes] = []
    for index, item in enumerate(items):
        outcome = _evaluate_item(item, defaults, index, sitting)
        bodies.append(outcome.body)
        if last is not None and outcome.permit is last:
            break
    return Reply(200, b'{"evaluations":[' + b",".join(bodies) + b"]}")


def _evaluate_item(item: object, defaults: Mapping[str, Any], index: int, sitting: Sitting) -> Outcome:
    try:
        if not isinstance(item, Mapping):
            raise MessageError("item", "must be an object")  # noqa: TRY301 - reported like any other mistake in it
        return sitting.decide({**defaults, **item})
    except MessageError as error:
        sitting.record(None, MALFORMED)
        return Outcome(False, encode({"decision": False, "context": error_body(400, f"evaluations[{index}].{error}")}))


def _semantic(options: object, *, lenient: bool) -> str:
    if not isinstance(options, Mapping):
        raise MessageError("options", "must be an object")
    for name in options:
        if name != "evaluations_semantic" and not lenient:
            raise MessageError(f"options.{name[:64]}", "is not a known member")
    semantic = options.get("evaluations_semantic", EXECUTE_ALL)
    if not isinstance(semantic, str) or semantic not in SEMANTICS:
        raise MessageError("options.evaluations_semantic", f"must be one of {', '.join(SEMANTICS)}")
    return semantic
