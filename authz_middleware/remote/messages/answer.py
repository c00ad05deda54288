"""Judges a response: an answer of a decision point, or a failure with its kind.

A permit is exactly `"decision": true` in a whole, strict response with status 200 (AuthZEN 1.0, section 6.2). A
deny is a 200 as well; any other status is a failure of the call and says nothing about the decision.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from authz_middleware.remote.failure import FailureKind, RemoteAnswer, RemoteFailure
from authz_middleware.remote.messages.advice import read_advice
from authz_middleware.remote.transport.protocol import RawAnswer
from authz_middleware.strict_json import StrictJSONError, parse_object

ReadContext = Callable[[Mapping[str, Any]], Mapping[str, Any] | RemoteFailure]
"""Makes the context of an answer in some dialect one of the common form; see `RemoteQuery.read_context`."""

ITEM_ERROR: Final = "item.error"

_MEDIA_TYPE: Final = "application/json"
_READ: Final = frozenset({"content-type", "content-encoding", "x-request-id"})


def parse_answer(
    raw: RawAnswer, request_id: str, read_context: ReadContext | None = None
) -> RemoteAnswer | RemoteFailure:
    """The answer in a response to the question with this `X-Request-ID`."""
    body = parse_body(raw, request_id)
    return body if isinstance(body, RemoteFailure) else parse_decision(body, read_context)


def parse_body(raw: RawAnswer, request_id: str) -> dict[str, Any] | RemoteFailure:
    """The JSON object in a response to the request with this `X-Request-ID`, whatever API it is of."""
    failure = status_failure(raw.status) or _header_failure(raw, request_id)
    if failure is not None:
        return failure
    try:
        return parse_object(raw.body)
    except StrictJSONError as error:
        return RemoteFailure(FailureKind.MALFORMED, error.code)


def parse_decision(answer: Mapping[str, Any], read_context: ReadContext | None = None) -> RemoteAnswer | RemoteFailure:
    """The Decision (section 5.5) that an object is."""
    decision, context = answer.get("decision"), answer.get("context", {})
    if isinstance(context, dict) and "error" in context:
        return _undecided(decision, context["error"])
    if decision is not True and decision is not False:
        return RemoteFailure(FailureKind.MALFORMED, "body.decision")
    if not isinstance(context, dict):
        return RemoteFailure(FailureKind.MALFORMED, "body.context")
    told = context if read_context is None else read_context(context)
    if isinstance(told, RemoteFailure):
        return told
    advice = read_advice(told, permit=decision, beside=answer)
    return advice if isinstance(advice, RemoteFailure) else RemoteAnswer(decision, context, advice)


def _undecided(decision: object, error: object) -> RemoteFailure:
    """What could not be decided (section 7.2.1, of the items of a batch): its `false` is the closed default and no deny
    of anybody, and anything else beside an error contradicts it. The decision point itself did answer: it is no news.
    """
    if decision is not False:
        return RemoteFailure(FailureKind.MALFORMED, ITEM_ERROR, is_news=False)
    status = error.get("status") if isinstance(error, Mapping) else None
    told = status_failure(status) if isinstance(status, int) else None
    kind = FailureKind.STATUS_4XX if told is None or not told.is_outage else told.kind
    return RemoteFailure(kind, ITEM_ERROR, is_news=False)


def status_failure(status: int) -> RemoteFailure | None:
    """What an HTTP status says of the call; None for 200."""
    if status == 200:
        return None
    if status == 429:
        return RemoteFailure(FailureKind.THROTTLED, "status.429")
    if 500 <= status <= 599:
        return RemoteFailure(FailureKind.STATUS_5XX, f"status.{status}")
    if 400 <= status <= 499:
        return RemoteFailure(FailureKind.STATUS_4XX, f"status.{status}")
    if 300 <= status <= 399:
        return RemoteFailure(FailureKind.REDIRECT, f"status.{status}")
    return RemoteFailure(FailureKind.MALFORMED, "status.unexpected")


def _header_failure(raw: RawAnswer, request_id: str) -> RemoteFailure | None:
    told = raw.values_of(_READ)
    types = told.get("content-type", ())
    if len(types) != 1 or not (types[0] == _MEDIA_TYPE or _is_json(types[0])):
        return RemoteFailure(FailureKind.MALFORMED, "header.content_type")
    if any(value.lower() not in ("identity", "") for value in told.get("content-encoding", ())):
        return RemoteFailure(FailureKind.MALFORMED, "header.content_encoding")
    if any(value != request_id for value in told.get("x-request-id", ())):
        return RemoteFailure(FailureKind.MISMATCHED, "header.request_id")
    return None


def _is_json(content_type: str) -> bool:
    media_type, _, parameters = content_type.partition(";")
    charset = parameters.strip().lower().replace('"', "")
    return media_type.strip().lower() == _MEDIA_TYPE and charset in ("", "charset=utf-8")
