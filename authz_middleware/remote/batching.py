"""Asks several questions of the decision point in as few requests as that can be done in safely."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Final
from uuid import uuid4

import msgspec

from authz_middleware.remote.cache import Key
from authz_middleware.remote.endpoints import Endpoints
from authz_middleware.remote.exchange import Conversation, Request
from authz_middleware.remote.failure import FailureKind, RemoteAnswer, RemoteFailure
from authz_middleware.remote.messages.answer import parse_answer
from authz_middleware.remote.messages.batch import batch_body, parse_batch, partition
from authz_middleware.remote.query import RemoteQuery

Reply = RemoteAnswer | RemoteFailure

MOST_WITH_CONTEXT: Final = 8
"""Questions a request where the decision point tells more than decisions: Cerbos then says beside each decision what it
said of all of them, which would be more than an answer may be long."""
OVERRUN: Final = RemoteFailure(FailureKind.BUSY, "batch.deadline", is_news=False)
"""The decision point answers, but we asked for more than it can do in the time. Whoever can have a long list asked for
must not choose the fallback by it."""


def put_all(queries: Sequence[RemoteQuery], endpoints: Endpoints, most: int) -> Conversation[list[Reply]]:
    """Put at most `most` questions a request, the same one once, and give the reply to each, in order.

    Where the decision point has no Access Evaluations API each is put by itself. However many requests and questions
    an outage meets, it is news once.
    """
    distinct: dict[Key, RemoteQuery] = {}
    for query in queries:
        distinct.setdefault(query.key, query)
    asked = list(distinct.values())
    replies: dict[Key, Reply] = {}
    has_answered = False
    for batch in _batches(asked, endpoints, most):
        together = [asked[number] for number in batch]
        told = yield from _put(together, endpoints)
        if has_answered:
            told = [OVERRUN if _is_late(reply) else reply for reply in told]
        has_answered = has_answered or not all(_is_outage(reply) for reply in told)
        replies.update(zip([query.key for query in together], told, strict=True))
    return _told_once([replies[query.key] for query in queries])


def _batches(asked: Sequence[RemoteQuery], endpoints: Endpoints, most: int) -> list[list[int]]:
    if isinstance(endpoints.url("evaluations"), RemoteFailure):
        return [[number] for number in range(len(asked))]
    if any(query.batch_context for query in asked):
        most = min(most, MOST_WITH_CONTEXT)
    return partition([query.body for query in asked], most)


def _put(together: Sequence[RemoteQuery], endpoints: Endpoints) -> Conversation[Sequence[Reply]]:
    """One request, and the reply to each question in it."""
    if len(together) == 1:
        return [(yield from _put_alone(together[0], endpoints))]
    url = endpoints.url("evaluations")
    if isinstance(url, RemoteFailure):
        return [url] * len(together)
    body = batch_body([query.body for query in together], together[0].batch_context)
    request = Request(url, body, uuid4().hex)
    raw = yield request
    if isinstance(raw, RemoteFailure):
        return [raw] * len(together)
    ids = [query.request_id for query in together]
    contexts = [functools.partial(query.read_context, request_ids=ids) for query in together]
    return parse_batch(raw, request.request_id, contexts)


def _put_alone(query: RemoteQuery, endpoints: Endpoints) -> Conversation[Reply]:
    url = endpoints.url("evaluation")
    if isinstance(url, RemoteFailure):
        return url
    raw = yield Request(url, query.body, query.request_id)
    return raw if isinstance(raw, RemoteFailure) else parse_answer(raw, query.request_id, query.read_context)


def _is_late(reply: Reply) -> bool:
    return isinstance(reply, RemoteFailure) and reply.kind is FailureKind.DEADLINE


def _is_outage(reply: Reply) -> bool:
    return isinstance(reply, RemoteFailure) and reply.is_outage


def _told_once(replies: Sequence[Reply]) -> list[Reply]:
    """The replies, of which only the first outage is news."""
    told: list[Reply] = []
    has_news = False
    for reply in replies:
        if isinstance(reply, RemoteFailure) and reply.is_outage and reply.is_news:
            if has_news:
                reply = msgspec.structs.replace(reply, is_news=False)  # noqa: PLW2901 - the same, but for that
            has_news = True
        told.append(reply)
    return told
