"""One question as it travels: the exact bytes, and the key under which its answer may be shared.

A message is made of its parts (`remote.messages.parts`) and of nothing else. The key is made of the same parts, all but
the moment; so whatever is added to the message is part of the key without anybody remembering to add it. How long an
answer may be shared in spite of another moment is what the time-to-live and `max_stale` bound. The bytes themselves
are made when they are asked for: an answer from the cache needs none.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Hashable, Mapping
from typing import Any

import msgspec

from authz_middleware.question import Question
from authz_middleware.remote.failure import RemoteFailure
from authz_middleware.remote.messages.dialects import PLACEMENTS, Placement
from authz_middleware.remote.messages.parts import (
    Part,
    Told,
    caller_told,
    check_moment,
    joined,
    moment_part,
    object_told,
    scene_told,
)


class Message(msgspec.Struct, frozen=True):
    """A question in parts, ready to be said."""

    caller: Told
    scene: Told
    object: Told
    now: float
    as_of: float | None
    placement: Placement

    @property
    def request(self) -> Part:
        """The request in the standard's own form. Not to be changed: parts of it are shared."""
        moment = moment_part(self.now, self.as_of)
        return joined(moment, self.scene.members, self.caller.members, self.object.members)

    def encode(self, request_id: str) -> bytes:
        """The body of the request."""
        place = self.placement.place
        return msgspec.json.encode(self.request if place is None else place(self.request, request_id))


class RemoteQuery(msgspec.Struct, eq=False):
    """`key` identifies the question for cache and single flight, `body` is the request's body, `request_id` its
    `X-Request-ID`: 1 to 128 visible ASCII characters. `deadline` is in seconds; None leaves it to the decision point.
    """

    key: tuple[Hashable, ...]
    said: bytes | Message
    id: str = ""
    deadline: float | None = None
    encoded: bytes | None = None

    @classmethod
    def of(
        cls,
        question: Question,
        revision: str | None,
        epoch: Hashable = None,
        dialect: str = "authzen",
        deadline: float | None = None,
        *,
        request_id: str | None = None,
    ) -> RemoteQuery:
        """The query that asks this question under this policy revision, in this epoch of revocations.

        Raises MessageError when the question holds something that cannot be said in JSON without changing it, or not to
        a decision point of this dialect.
        """
        facts, resource, placement = question.facts, question.resource, PLACEMENTS[dialect]
        check_moment(question.now, resource.as_of)
        caller = caller_told(question.principal)
        scene = scene_told(
            question.permission.action,
            question.environment,
            facts.method,
            facts.route,
            facts.endpoint,
            facts.protocol,
            facts.tls,
        )
        thing = object_told(resource, facts)
        if placement.check is not None:
            placement.check(thing.members)
        return cls(
            (revision, epoch, dialect, caller.mark, scene.mark, thing.mark),
            Message(caller, scene, thing, question.now, resource.as_of, placement),
            request_id or "",
            deadline,
        )

    @property
    def request_id(self) -> str:
        """The id of this one asking."""
        if not self.id:
            self.id = os.urandom(16).hex()
        return self.id

    @property
    def body(self) -> bytes:
        """The request, encoded."""
        if self.encoded is None:
            said = self.said
            self.encoded = said.encode(self.request_id) if isinstance(said, Message) else said
        return self.encoded

    @property
    def request(self) -> Part:
        """The request in the standard's own form, whatever the dialect. Not to be changed: parts of it are shared."""
        said = self.said
        return said.request if isinstance(said, Message) else msgspec.json.decode(said, type=Part)

    @property
    def batch_context(self) -> Mapping[str, Any]:
        """What belongs into the context at the top level of a batch with this question in it."""
        return self.said.placement.batch_context if isinstance(self.said, Message) else {}

    def read_context(
        self, context: Mapping[str, Any], request_ids: Collection[str] = ()
    ) -> Mapping[str, Any] | RemoteFailure:
        """The context of an answer, in the form that `read_advice` reads; a failure where the answer is to another
        question. `request_ids` are those of the questions that were put together with this one."""
        said = self.said
        if not isinstance(said, Message) or said.placement.read_context is None:
            return context
        return said.placement.read_context(context, said.request, request_ids or (self.request_id,))
