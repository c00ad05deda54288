"""A request that is here as a whole is answered as it is through the ASGI application, whichever way it takes."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from authz_middleware.server.api import Limits
from authz_middleware.server.app import DecisionPointApp
from authz_middleware.server.exchange import Reply
from authz_middleware.server.metadata import EVALUATION, EVALUATIONS, SEARCH_ACTION
from tests.support.decision_point_app import BASE_URL, served
from tests.support.records import Memory, recorder
from tests.support.refunds import POLICY, REFUND

JSON = {"Content-Type": "application/json"}
REQUESTS: dict[str, tuple[str, dict[str, str], bytes]] = {
    "permit": (EVALUATION, JSON, json.dumps(REFUND).encode()),
    "deny": (EVALUATION, JSON, json.dumps({**REFUND, "action": {"name": "invoice:other"}}).encode()),
    "with an id": (EVALUATION, {**JSON, "X-Request-ID": "r-1"}, json.dumps(REFUND).encode()),
    "with a bad id": (EVALUATION, {**JSON, "X-Request-ID": "r 1"}, json.dumps(REFUND).encode()),
    "below its path": ("/authz" + EVALUATION, JSON, json.dumps(REFUND).encode()),
    "batch": (EVALUATIONS, JSON, json.dumps({**REFUND, "evaluations": [{}, {"x": 1}, 7]}).encode()),
    "search": (SEARCH_ACTION, JSON, json.dumps({n: v for n, v in REFUND.items() if n != "action"}).encode()),
    "no question": (EVALUATION, JSON, b"{}"),
    "no JSON": (EVALUATION, JSON, b"["),
    "twice": (EVALUATION, JSON, b'{"subject":{},"subject":{}}'),
    "empty": (EVALUATION, JSON, b""),
    "too long": (EVALUATION, JSON, b" " * 2000),
    "plain text": (EVALUATION, {"Content-Type": "text/plain"}, json.dumps(REFUND).encode()),
    "compressed": (EVALUATION, {**JSON, "Content-Encoding": "gzip"}, json.dumps(REFUND).encode()),
}


async def reply_of(app: DecisionPointApp, path: str, headers: dict[str, str], body: bytes) -> tuple[Reply, Any]:
    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": "POST", "path": path, "headers": raw, "client": ("127.0.0.1", 1)}
    reply, request_id = app.api.answer(scope, body)
    return (reply if isinstance(reply, Reply) else await reply), request_id


@pytest.mark.parametrize("mode", [None, "best_effort", "required"])
@pytest.mark.parametrize("name", REQUESTS)
async def test_both_ways_give_the_same_answer(name: str, mode: Any) -> None:
    path, headers, body = REQUESTS[name]
    log = None if mode is None else recorder(Memory(), mode)
    app = DecisionPointApp(served(POLICY), base_url=BASE_URL, recorder=log, limits=Limits(body=1000))
    reply, request_id = await reply_of(app, path, headers, body)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x.test") as client:
        answer = await client.post(path, content=body, headers=headers)
    assert (answer.status_code, answer.content) == (reply.status, reply.body)
    assert answer.headers.get("x-request-id", "").encode() == (request_id or b"")
    assert {name.decode(): value.decode() for name, value in reply.headers}.items() <= answer.headers.items()
    if log is not None:
        log.close()


async def test_an_unforeseen_fault_is_an_answer_too(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def name_of(self, scope: Any, headers: Any) -> str:
            raise RuntimeError("a secret")

    app = DecisionPointApp(served(POLICY), base_url=BASE_URL, callers=Broken())
    reply, _ = await reply_of(app, *REQUESTS["permit"])
    assert reply.status == 500
    assert b'decision"' not in reply.body
    assert "secret" not in caplog.text + reply.body.decode()
