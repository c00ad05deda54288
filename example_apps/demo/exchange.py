"""One request of the demo, sent to one application, and what came back."""

from __future__ import annotations

import secrets
from typing import Any, NamedTuple

import httpx
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from example_apps.demo.situations import Situation


class Reply(NamedTuple):
    """The answer to one request; `trace` finds its decisions in the records."""

    trace: str
    status: int
    degraded: bool
    body: Any


def send(url: str, client: httpx.Client, situation: Situation, token: str | None) -> Reply:
    """Send the request under a fresh trace id (W3C Trace Context)."""
    trace = secrets.token_hex(16)
    headers = {"traceparent": f"00-{trace}-{secrets.token_hex(8)}-01"}
    if token is not None:
        headers["authorization"] = f"Bearer {token}"
    if situation.method == "WS":
        return Reply(trace, *_watch(url.replace("http:", "ws:") + situation.path, headers))
    answer = client.request(situation.method, url + situation.path, headers=headers, json=situation.body)
    body = answer.json() if answer.is_success else None
    return Reply(trace, answer.status_code, answer.headers.get("authz-degraded") == "true", body)


def _watch(url: str, headers: dict[str, str]) -> tuple[int, bool, Any]:
    try:
        with connect(url, additional_headers=headers, proxy=None) as socket:
            return 101, False, socket.recv(timeout=5)
    except InvalidStatus as error:
        return error.response.status_code, False, None
