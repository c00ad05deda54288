"""The decision point as an ASGI application: AuthZEN 1.0 evaluation and evaluations over one policy.

It authenticates nobody yet: who can reach it can ask it anything. A deny is a 200; an error status says that the
question could not be decided, and names the member that was wrong, never a value or an exception.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from authz_middleware.decision import Decision
from authz_middleware.policy.snapshot import Snapshot
from authz_middleware.policy.store import SnapshotStore
from authz_middleware.question import Question
from authz_middleware.remote.messages.evaluation import MessageError, question_of
from authz_middleware.server.evaluations import Result, error_body, evaluate_all
from authz_middleware.strict_json import StrictJSONError, parse_object

logger = logging.getLogger("authz.server")

EVALUATION: Final = "/access/v1/evaluation"
EVALUATIONS: Final = "/access/v1/evaluations"
METADATA: Final = "/.well-known/authzen-configuration"
HEALTH: Final = "/healthz"

_REQUEST_ID: Final = re.compile(r"[\x21-\x7e]{1,128}")

Record = Callable[[Question, Decision], object]
"""Told of every decision that is made here, before it is answered. When it raises, nothing is answered."""

Evaluate = Callable[[Mapping[str, Any]], Result]
Respond = Callable[[Mapping[str, Any], Evaluate, int], Result]


class _RefusedError(Exception):
    """A request that is answered with an error status."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        self.message = message
        super().__init__(message)


def create_app(
    store: SnapshotStore,
    *,
    base_url: str,
    record: Record | None = None,
    clock: Callable[[], float] = time.time,
    max_body: int = 256 * 1024,
    max_batch: int = 100,
) -> Starlette:
    """The application that answers by whatever snapshot `store` holds when a request comes in.

    `base_url` is the identifier of this decision point, for its metadata; the Host header of a request is never
    believed. `clock` gives seconds since the epoch, for requests that tell no time. `max_body` is in bytes.
    """
    server = _Server(store, record, clock, max_body, max_batch)
    metadata = _json(
        {
            "policy_decision_point": base_url,
            "access_evaluation_endpoint": base_url.rstrip("/") + EVALUATION,
            "access_evaluations_endpoint": base_url.rstrip("/") + EVALUATIONS,
        }
    )

    async def describe(_: Request) -> Response:
        return Response(metadata, media_type="application/json")

    app = Starlette(
        routes=[
            Route(EVALUATION, server.evaluation, methods=["POST"]),
            Route(EVALUATIONS, server.evaluations, methods=["POST"]),
            Route(METADATA, describe),
            Route(HEALTH, server.health),
        ]
    )
    # A PEP follows no redirect; a path with a slash too many is simply not there.
    app.router.redirect_slashes = False
    return app


class _Server:
    def __init__(
        self,
        store: SnapshotStore,
        record: Record | None,
        clock: Callable[[], float],
        max_body: int,
        max_batch: int,
    ) -> None:
        self._store = store
        self._record = record
        self._clock = clock
        self._max_body = max_body
        self._max_batch = max_batch

    async def evaluation(self, request: Request) -> Response:
        """`POST /access/v1/evaluation`."""
        return await self._answer(request, lambda asked, evaluate, _: evaluate(asked))

    async def evaluations(self, request: Request) -> Response:
        """`POST /access/v1/evaluations`; without items it is an evaluation."""
        return await self._answer(request, self._evaluate_batch)

    async def health(self, _: Request) -> Response:
        """200 while there is a policy to decide by."""
        ready = self._store.current is not None
        return _response(200 if ready else 503, {"status": "ok" if ready else "no policy"}, {})

    def _evaluate_batch(self, asked: Mapping[str, Any], evaluate: Evaluate, size: int) -> Result:
        batch = evaluate_all(asked, evaluate, most=self._max_batch, size=size)
        if batch is None:
            single = {name: value for name, value in asked.items() if name not in ("evaluations", "options")}
            return evaluate(single)
        return batch

    async def _answer(self, request: Request, respond: Respond) -> Response:
        headers: dict[str, str] = {}
        try:
            headers = _echoed(request)
            _check_media_type(request)
            body = await self._body(request)
            asked = parse_object(body, max_bytes=self._max_body)
            return _response(200, respond(asked, self._evaluator(), len(body)), headers)
        except _RefusedError as refused:
            return _response(refused.status, error_body(refused.status, refused.message), headers)
        except StrictJSONError as error:
            return _response(400, error_body(400, error.code), headers)
        except MessageError as error:
            return _response(400, error_body(400, str(error)), headers)
        except Exception as error:  # noqa: BLE001 - nothing was decided, and nobody learns why
            # No traceback: it would print the values that were being decided on.
            logger.error("an evaluation failed: %s", type(error).__qualname__)  # noqa: TRY400 - no traceback, as said above
            return _response(500, error_body(500, "the request could not be decided"), headers)

    def _evaluator(self) -> Evaluate:
        """How one question of a request is decided; all of them by the same snapshot and the same clock."""
        snapshot, now = self._store.current, self._clock()
        if snapshot is None:
            raise _RefusedError(503, "there is no policy to decide by")
        return lambda asked: self._evaluate(snapshot, question_of(asked, now=now))

    def _evaluate(self, snapshot: Snapshot, question: Question) -> Result:
        decision = snapshot.evaluate(question)
        if self._record is not None:
            self._record(question, decision)
        return {"decision": decision.permit is True, "context": {"reason": decision.reason.value}}

    async def _body(self, request: Request) -> bytes:
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > self._max_body:
                raise _RefusedError(413, f"the body is larger than {self._max_body} bytes")
        return bytes(body)


def _echoed(request: Request) -> dict[str, str]:
    """The X-Request-ID to answer with (AuthZEN 1.0, section 10.1.2)."""
    ids = request.headers.getlist("x-request-id")
    if not ids:
        return {}
    if len(ids) > 1 or not _REQUEST_ID.fullmatch(ids[0]):
        raise _RefusedError(400, "X-Request-ID must be one value of 1 to 128 visible ASCII characters")
    return {"X-Request-ID": ids[0]}


def _check_media_type(request: Request) -> None:
    # Also what keeps a page in a browser from asking: it cannot send this type to another origin unasked.
    types = request.headers.getlist("content-type")
    if len(types) != 1 or types[0].partition(";")[0].strip().lower() != "application/json":
        raise _RefusedError(400, "Content-Type must be application/json")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise _RefusedError(400, "Content-Encoding must be identity")


def _response(status: int, body: Mapping[str, Any], headers: Mapping[str, str]) -> Response:
    return Response(_json(body), status, {**headers, "Cache-Control": "no-store"}, media_type="application/json")


def _json(value: Mapping[str, Any]) -> bytes:
    return msgspec.json.encode(value)
