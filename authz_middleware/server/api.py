"""The APIs of a decision point, as far as they wait for nothing: which there are, who may ask, and what is answered.

A deny is a 200; an error status says that the question could not be decided, and names the member that was wrong,
never a value or an exception.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

from authz_middleware.remote.messages.evaluation import MessageError
from authz_middleware.server.callers import Callers
from authz_middleware.server.decider import Asker, Decider, Sitting, reply_of
from authz_middleware.server.evaluations import evaluate_all
from authz_middleware.server.exchange import (
    RefusedError,
    Reply,
    Scope,
    check_media_type,
    check_size,
    error_reply,
    read_headers,
    request_id_of,
)
from authz_middleware.server.metadata import (
    EVALUATION,
    EVALUATIONS,
    SEARCH_ACTION,
    SEARCH_RESOURCE,
    SEARCH_SUBJECT,
    path_of,
)
from authz_middleware.server.search import ACTIONS, RESOURCES, SUBJECTS, Search
from authz_middleware.strict_json import StrictJSONError, parse_object

logger = logging.getLogger("authz.server")

Respond = Callable[[Mapping[str, Any], Sitting, int], Reply]
"""Answers a request (read, and so many bytes long) in one sitting. Raises MessageError and RefusedError."""


class Limits(NamedTuple):
    """What one request may ask for: bytes, evaluations of a batch, results of a page."""

    body: int = 256 * 1024
    batch: int = 100
    page: int = 100


class Asked(NamedTuple):
    """A request whose headers have been read."""

    scope: Scope
    headers: dict[bytes, bytes]
    respond: Respond


class Api:
    """The endpoints below `base_url`, and below no path at all: a proxy may or may not take that off."""

    def __init__(self, decider: Decider, callers: Callers, *, base_url: str, limits: Limits) -> None:
        self._decider = decider
        self._callers = callers
        self.limits = limits
        endpoints: dict[str, Respond] = {
            EVALUATION: _evaluate,
            EVALUATIONS: self._evaluate_all,
            SEARCH_SUBJECT: self._searching(SUBJECTS),
            SEARCH_RESOURCE: self._searching(RESOURCES),
            SEARCH_ACTION: self._searching(ACTIONS),
        }
        base = path_of(base_url)
        self.endpoints: Mapping[str, Respond] = endpoints | {base + path: each for path, each in endpoints.items()}

    def caller_of(self, asked: Asked) -> str | Awaitable[str] | None:
        """Who asks. Raises RefusedError for whoever may not, and for what is no question at all."""
        if asked.scope["method"] != "POST":
            raise RefusedError(405, "the method must be POST", [(b"allow", b"POST")])
        check_media_type(asked.headers)
        return self._callers.name_of(asked.scope, asked.headers)

    def decide(self, asked: Asked, caller: str | None, body: bytes) -> Reply | Awaitable[Reply]:
        """The answer to a request; awaited where a record has to be waited for. Raises what `refusal` answers."""
        check_size(body, self.limits.body)
        question = parse_object(body, max_bytes=self.limits.body)
        sitting = self._decider.sitting(Asker(caller, asked.scope))
        reply = asked.respond(question, sitting, len(body))
        return reply if sitting.is_settled else _settled(sitting, reply)

    def answer(self, scope: Scope, body: bytes) -> tuple[Reply | Awaitable[Reply], bytes | None]:
        """The answer to a request that is here as a whole, and its id. Never raises, nor does what is awaited."""
        request_id = None
        try:
            headers = read_headers(scope["headers"])
            request_id = request_id_of(headers)
            asked = Asked(scope, headers, self.endpoints[scope["path"]])
            caller = self.caller_of(asked)
            if caller is None or isinstance(caller, str):
                reply = self.decide(asked, caller, body)
                return (reply if isinstance(reply, Reply) else _guarded(reply)), request_id
            return _guarded(self._decide_for(asked, caller, body)), request_id
        except Exception as error:  # noqa: BLE001 - nothing was decided, and nobody learns why
            return refusal(error), request_id

    async def _decide_for(self, asked: Asked, caller: Awaitable[str], body: bytes) -> Reply:
        reply = self.decide(asked, await caller, body)
        return reply if isinstance(reply, Reply) else await reply

    def _searching(self, search: Search) -> Respond:
        return lambda asked, sitting, size: search.answer(asked, sitting, most=self.limits.page, size=size)

    def _evaluate_all(self, asked: Mapping[str, Any], sitting: Sitting, _: int) -> Reply:
        return evaluate_all(asked, sitting, most=self.limits.batch)


def refusal(error: Exception) -> Reply:
    """The answer where there is none."""
    if isinstance(error, RefusedError):
        return error_reply(error.status, error.message, error.headers)
    if isinstance(error, StrictJSONError):
        return error_reply(400, error.code)
    if isinstance(error, MessageError):
        return error_reply(400, str(error))
    # No traceback: it would print the values that were being decided on.
    logger.error("a request failed: %s", type(error).__qualname__)
    return error_reply(500, "the request could not be decided")


def _evaluate(asked: Mapping[str, Any], sitting: Sitting, _: int) -> Reply:
    return reply_of(sitting.decide(asked))


async def _settled(sitting: Sitting, reply: Reply) -> Reply:
    await sitting.settle()
    return reply


async def _guarded(reply: Awaitable[Reply]) -> Reply:
    try:
        return await reply
    except Exception as error:  # noqa: BLE001 - likewise
        return refusal(error)
