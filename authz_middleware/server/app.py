"""The decision point as an ASGI application: the AuthZEN 1.0 APIs over one policy, its metadata and its health.

Plain ASGI, because a framework around a request would cost more than the request.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, Protocol

from authz_middleware.errors import describe
from authz_middleware.record.recorder import Recorder
from authz_middleware.server.api import Api, Asked, Limits, refusal
from authz_middleware.server.callers import Anyone, Callers
from authz_middleware.server.decider import Decider
from authz_middleware.server.exchange import (
    GoneError,
    Receive,
    RefusedError,
    Reply,
    Scope,
    Send,
    encode,
    read_body,
    read_headers,
    request_id_of,
    send_reply,
)
from authz_middleware.server.metadata import metadata, metadata_path
from authz_middleware.server.policy import ServedPolicy
from authz_middleware.server.readiness import Readiness

HEALTH: Final = "/healthz"
READY: Final = "/readyz"
DEFAULT_LIMITS: Final = Limits()

_ALIVE: Final = Reply(200, encode({"status": "ok"}))


class Lifecycle(Protocol):
    """What has to be started before the first request, and stopped after the last one."""

    async def start(self) -> None:
        """Start it."""
        ...

    async def stop(self) -> None:
        """Stop it."""
        ...


class DecisionPointApp:
    """The application. `base_url` is the identifier of this decision point, for its metadata.

    Without `callers` anyone may ask, without `recorder` no decision is recorded. `clock` gives seconds since the epoch,
    for requests that tell no time. With `lenient`, unknown members of a request are no mistake.
    """

    def __init__(
        self,
        policy: ServedPolicy,
        *,
        base_url: str,
        callers: Callers | None = None,
        recorder: Recorder | None = None,
        readiness: Readiness | None = None,
        lifecycle: Lifecycle | None = None,
        limits: Limits = DEFAULT_LIMITS,
        lenient: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        decider = Decider(policy, recorder, clock, lenient=lenient)
        self.api = Api(decider, callers or Anyone(), base_url=base_url, limits=limits)
        self._lifecycle = lifecycle
        described = Reply(200, metadata(base_url))
        self._documents: dict[str, Callable[[], Reply]] = {
            metadata_path(base_url): lambda: described,
            HEALTH: lambda: _ALIVE,
            READY: (readiness or Readiness(policy, None)).reply,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or run for as long as the server does."""
        if scope["type"] != "http":
            await self._live(scope, receive, send)
            return
        request_id = None
        try:
            headers = read_headers(scope["headers"])
            request_id = request_id_of(headers)
            respond = self.api.endpoints.get(scope["path"])
            reply = (
                self._document(scope)
                if respond is None
                else await self._answer(Asked(scope, headers, respond), receive)
            )
        except GoneError:
            return
        except Exception as error:  # noqa: BLE001 - nothing was decided, and nobody learns why
            reply = refusal(error)
        await send_reply(send, reply, request_id)

    async def _answer(self, asked: Asked, receive: Receive) -> Reply:
        """Whoever may not ask is told so before the body is read."""
        caller = self.api.caller_of(asked)
        name = caller if caller is None or isinstance(caller, str) else await caller
        reply = self.api.decide(asked, name, await read_body(receive, self.api.limits.body))
        return reply if isinstance(reply, Reply) else await reply

    def _document(self, scope: Scope) -> Reply:
        document = self._documents.get(scope["path"])
        if document is None:
            raise RefusedError(404, "there is nothing here")
        if scope["method"] not in ("GET", "HEAD"):
            raise RefusedError(405, "the method must be GET", [(b"allow", b"GET, HEAD")])
        return document()

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            return  # a server closes a websocket that nobody accepts
        while True:
            message = await receive()
            is_start = message["type"] == "lifespan.startup"
            try:
                if self._lifecycle is not None:
                    await (self._lifecycle.start() if is_start else self._lifecycle.stop())
            except Exception as error:  # noqa: BLE001 - the server is told, and says so
                await send({"type": f"{message['type']}.failed", "message": describe(error)})
                return
            await send({"type": f"{message['type']}.complete"})
            if not is_start:
                return
