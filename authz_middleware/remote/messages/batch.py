"""Many questions in one request, and what is said to each (AuthZEN 1.0, section 7).

One widely used decision point takes items that agree in subject id and resource id for one question about several
actions, and answers all of them by the properties of the first. So no request carries two items that agree in these ids
and not in all the rest of subject, resource and context: whoever merges them merges what is the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from authz_middleware.remote.failure import FailureKind, RemoteAnswer, RemoteFailure
from authz_middleware.remote.messages.answer import ReadContext, parse_body, parse_decision
from authz_middleware.remote.transport.protocol import RawAnswer

MAX_BYTES: Final = 64 * 1024
"""Of the items of one request, unless one of them alone is longer."""

_OPTIONS: Final = {"evaluations_semantic": "execute_all"}

Reply = RemoteAnswer | RemoteFailure
_Ids = tuple[str, str]
_Setting = tuple[bytes, bytes, bytes]


class _Item(msgspec.Struct):
    """The members of an evaluation request, as the bytes they are written in. Raw bytes that are equal mean the same;
    the converse need not hold, and only costs another request."""

    subject: msgspec.Raw
    resource: msgspec.Raw
    context: msgspec.Raw = msgspec.Raw(b"")


class _Entity(msgspec.Struct):
    id: str


_ITEM: Final = msgspec.json.Decoder(_Item)
_ENTITY: Final = msgspec.json.Decoder(_Entity)


def partition(bodies: Sequence[bytes], most: int) -> list[list[int]]:
    """The requests that these evaluation requests are put in, each as the numbers of its at most `most` items.

    Raises ValueError for a body that is no evaluation request.
    """
    layers: list[list[int]] = []
    settings: dict[_Ids, dict[_Setting, int]] = {}
    for number, body in enumerate(bodies):
        ids, setting = _identity(body)
        under_these_ids = settings.setdefault(ids, {})
        layer = under_these_ids.setdefault(setting, len(under_these_ids))
        if layer == len(layers):
            layers.append([])
        layers[layer].append(number)
    return [batch for layer in layers for batch in _cut(layer, bodies, most)]


def _cut(layer: Sequence[int], bodies: Sequence[bytes], most: int) -> Iterator[list[int]]:
    batch: list[int] = []
    size = 0
    for number in layer:
        if batch and (len(batch) == most or size + len(bodies[number]) > MAX_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(number)
        size += len(bodies[number])
    if batch:
        yield batch


def batch_body(bodies: Sequence[bytes], context: Mapping[str, Any]) -> bytes:
    """The Access Evaluations request of these evaluation requests. All of them are decided, whatever comes first.

    `context` is for the decision point as such: each item has a context of its own, which stands in its place.
    """
    batch: dict[str, Any] = {"evaluations": [msgspec.Raw(body) for body in bodies], "options": _OPTIONS}
    return msgspec.json.encode({"context": context, **batch} if context else batch)


def parse_batch(raw: RawAnswer, request_id: str, contexts: Sequence[ReadContext]) -> list[Reply]:
    """The reply to each item, in order; there are as many as `contexts`, which read what is said beside each decision.
    What is wrong with the response is wrong with all of them."""
    count = len(contexts)
    body = parse_body(raw, request_id)
    if isinstance(body, RemoteFailure):
        return [body] * count
    items = body.get("evaluations")
    if not isinstance(items, list) or len(items) != count:
        detail = "body.evaluations_count" if isinstance(items, list) else "body.evaluations"
        return [RemoteFailure(FailureKind.MALFORMED, detail)] * count
    return [_reply(item, read_context) for item, read_context in zip(items, contexts, strict=True)]


def _identity(body: bytes) -> tuple[_Ids, _Setting]:
    item = _ITEM.decode(body)
    ids = _ENTITY.decode(item.subject).id, _ENTITY.decode(item.resource).id
    return ids, (bytes(item.subject), bytes(item.resource), bytes(item.context))


def _reply(item: object, read_context: ReadContext) -> Reply:
    if not isinstance(item, Mapping):
        return RemoteFailure(FailureKind.MALFORMED, "body.evaluations")
    return parse_decision(item, read_context)
