"""Judges a response: an answer of a decision point, or a failure with its kind.

A permit is exactly `"decision": true` in a whole, strict response with status 200 (AuthZEN 1.0, section 6.2). A
deny is a 200 as well; any other status is a failure of the call and says nothing about the decision.
"""

from __future__ import annotations

from typing import Final

from authz_middleware.remote.failure import FailureKind, RemoteAnswer, RemoteFailure
from authz_middleware.remote.transport.protocol import RawAnswer
from authz_middleware.strict_json import StrictJSONError, parse_object

_MEDIA_TYPE: Final = "application/json"


def parse_answer(raw: RawAnswer, request_id: str) -> RemoteAnswer | RemoteFailure:
    """The answer in a response to the question with this `X-Request-ID`."""
    return _status_failure(raw.status) or _header_failure(raw, request_id) or _read(raw.body)


def _status_failure(status: int) -> RemoteFailure | None:
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
    types = raw.values("content-type")
    if len(types) != 1 or not _is_json(types[0]):
        return RemoteFailure(FailureKind.MALFORMED, "header.content_type")
    if any(value.lower() not in ("identity", "") for value in raw.values("content-encoding")):
        return RemoteFailure(FailureKind.MALFORMED, "header.content_encoding")
    if any(value != request_id for value in raw.values("x-request-id")):
        return RemoteFailure(FailureKind.MISMATCHED, "header.request_id")
    return None


def _is_json(content_type: str) -> bool:
    media_type, _, parameters = content_type.partition(";")
    charset = parameters.strip().lower().replace('"', "")
    return media_type.strip().lower() == _MEDIA_TYPE and charset in ("", "charset=utf-8")


def _read(body: bytes) -> RemoteAnswer | RemoteFailure:
    try:
        answer = parse_object(body)
    except StrictJSONError as error:
        return RemoteFailure(FailureKind.MALFORMED, error.code)
    decision, context = answer.get("decision"), answer.get("context", {})
    if decision is not True and decision is not False:
        return RemoteFailure(FailureKind.MALFORMED, "body.decision")
    if not isinstance(context, dict):
        return RemoteFailure(FailureKind.MALFORMED, "body.context")
    return RemoteAnswer(decision, context)
