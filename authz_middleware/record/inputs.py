"""The `input` of a record: the AuthZEN request of a decision, masked and encoded.

Most of a request is the same from one call of a caller on a route to the next. That part is built once (a "frame")
and kept; a record then costs its resource, its time and its client's address.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from authz_middleware.identity.principal import Principal
from authz_middleware.question import Question
from authz_middleware.record.event import Submission, shown_request
from authz_middleware.record.masking import MASK, is_secret_value, mask, pointer_token
from authz_middleware.record.times import Times
from authz_middleware.remote.messages.evaluation import UNKNOWN, evaluation_request
from authz_middleware.remote.messages.values import MessageError, plain_object
from authz_middleware.resource import Resource

MAX_FRAMES: Final = 2048
MAX_FRAME: Final = 4096
"""Bytes; a longer one is made anew each time. A decision point's callers say themselves how much they tell."""

_PLACEHOLDER: Final = Resource("route", "r")
_encode: Final = msgspec.json.Encoder().encode


class Input(msgspec.Struct, frozen=True, gc=False):
    """Encoded JSON, and JSON pointers into the event to what is left out of it or masked in it."""

    json: bytes
    erased: tuple[str, ...] = ()
    masked: tuple[str, ...] = ()


class _Frame(msgspec.Struct, frozen=True):
    """The parts of a request that do not change: `{"subject":…,"action":…` and the members of `context`. The
    principal is held so that its identity, the key of the frame, stays its own."""

    principal: Principal
    head: bytes
    context: bytes
    erased: tuple[str, ...]
    masked: tuple[str, ...]


class Inputs:
    """Makes inputs; for one thread. Never fails: what has no exact form in JSON is left out and listed."""

    def __init__(self, times: Times) -> None:
        self._times = times
        self._frames: dict[tuple[object, ...], _Frame] = {}

    def of(self, submission: Submission) -> Input:
        """The input of one decision."""
        question = submission.question
        if question is None:
            shown, masked = mask(_clean(shown_request(submission)), "/input")
            return Input(_encode(shown), (), masked)
        frame = self._frame(question)
        resource, erased, masked = _resource(question.resource, submission.attributes)
        varying = [b'"time":"', self._times.text(question.now), b'"']
        if question.resource.as_of is not None:
            varying += b',"resource_as_of":"', self._times.text(question.resource.as_of), b'"'
        if question.facts.client is not None:
            varying += b',"client":', _encode(_clean(question.facts.client))
        json = b"".join((frame.head, b',"resource":', resource, b',"context":{', *varying, frame.context, b"}}"))
        return Input(json, frame.erased + erased, frame.masked + masked)

    def _frame(self, question: Question) -> _Frame:
        principal, facts = question.principal, question.facts
        key = (
            id(principal),
            question.permission.action,
            facts.endpoint,
            facts.route,
            facts.method,
            facts.protocol,
            facts.tls,
            question.environment,
        )
        frame = self._frames.get(key)
        if frame is None:
            frame = _frame_of(question)
            if len(frame.head) + len(frame.context) <= MAX_FRAME:
                if len(self._frames) >= MAX_FRAMES:
                    del self._frames[next(iter(self._frames))]
                self._frames[key] = frame
        return frame


def _frame_of(question: Question) -> _Frame:
    bare = msgspec.structs.replace(
        question,
        resource=_PLACEHOLDER,
        facts=msgspec.structs.replace(question.facts, client=None, path_params={}, traceparent=None),
    )
    erased: tuple[str, ...] = ()
    try:
        request = evaluation_request(bare)
    except MessageError:
        request, erased = _told_request(bare), ("/input/subject/properties",)
    del request["resource"], request["context"]["time"]
    request, masked = mask(request, "/input")
    context = request.pop("context")
    told = _encode(context)[1:-1]  # of an AuthZEN request of another application, perhaps nothing
    return _Frame(question.principal, _encode(request)[:-1], b"," + told if told else b"", erased, masked)


def _told_request(question: Question) -> dict[str, Any]:
    """The request, where the claims have no exact form in JSON: who, what and where, without the claims."""
    principal, facts = question.principal, question.facts
    return {
        "subject": {"type": principal.kind or UNKNOWN, "id": _clean(principal.subject)},
        "action": {"name": _clean(question.action)},
        "resource": {},
        "context": {
            "time": "",
            "environment": _clean(question.environment),
            "method": _clean(facts.method),
            "route": _clean(facts.route),
            "endpoint": _clean(facts.endpoint),
            "protocol": facts.protocol,
            "tls": facts.tls,
        },
    }


def _resource(
    resource: Resource, attributes: Mapping[str, Any] | None
) -> tuple[bytes, tuple[str, ...], tuple[str, ...]]:
    type_, id_ = _clean(str(resource.type)), _clean(str(resource.id))
    if attributes is None:
        if is_secret_value(id_):
            return _encode({"type": type_, "id": MASK}), (), ("/input/resource/id",)
        return _encode({"type": type_, "id": id_}), (), ()
    properties: dict[str, Any] = {}
    erased: list[str] = []
    for name, value in attributes.items():
        try:
            properties |= plain_object({name: value}, "resource.properties")
        except MessageError:
            erased.append(f"/input/resource/properties/{pointer_token(_clean(str(name)))}")
    told, masked = mask({"type": type_, "id": id_, "properties": properties}, "/input/resource")
    return _encode(told), tuple(erased), masked


def _clean(value: Any) -> Any:
    """Text that UTF-8 can carry: half a surrogate pair is shown as its escape. Mappings member by member."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, Mapping):
        return {name: _clean(item) for name, item in value.items()}
    return value
