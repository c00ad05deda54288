"""One question as it travels: the exact bytes, and the key under which its answer may be shared.

The key is a digest of everything that is sent except the two times, so that whatever is added to the message
is part of the key without anybody remembering to add it; and the policy and the revocations of the moment.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Mapping
from typing import Any, Final
from uuid import uuid4

import msgspec

from authz_middleware.question import Question
from authz_middleware.remote.messages.evaluation import evaluation_request

# When it is asked, and when the application read the attributes: they differ in every request. How long an
# answer may be shared in spite of that is what the time-to-live and `max_stale` bound.
TIMES: Final = ("time", "resource_as_of")


class RemoteQuery(msgspec.Struct, frozen=True):
    """`key` identifies the question for cache and single flight, `body` is the request's body, `request_id` its
    `X-Request-ID`: 1 to 128 visible ASCII characters."""

    key: tuple[Hashable, ...]
    body: bytes
    request_id: str

    @classmethod
    def of(
        cls, question: Question, revision: str | None, epoch: Hashable = None, *, request_id: str | None = None
    ) -> RemoteQuery:
        """The query that asks this question under this policy revision, in this epoch of revocations.

        Raises MessageError when the question holds something that cannot be said in JSON without changing it.
        """
        request = evaluation_request(question)
        return cls(query_key(request, revision, epoch), msgspec.json.encode(request), request_id or uuid4().hex)


def query_key(request: Mapping[str, Any], revision: str | None, epoch: Hashable = None) -> tuple[Hashable, ...]:
    """The key of an evaluation request: policy revision, revocation epoch, and all that is sent but the times."""
    context = {name: value for name, value in request.get("context", {}).items() if name not in TIMES}
    timeless = msgspec.json.encode({**request, "context": context}, order="sorted")
    return (revision, epoch, hashlib.sha256(timeless).digest())
