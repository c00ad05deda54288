"""Renders an answer of the enforcement point, most of the time a refusal, as ASGI messages."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from authz_middleware.answer import Answer


async def send_answer(answer: Answer, scope: Scope, send: Send) -> None:
    """Send an answer: as a response, or to a websocket handshake as a response where the server can, else as a
    close before accept."""
    if scope["type"] == "http":
        prefix = "http.response"
    elif "websocket.http.response" in scope.get("extensions", {}):
        prefix = "websocket.http.response"
    else:
        await send_close(answer, send)
        return
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers]
    headers.append((b"content-length", b"%d" % len(answer.body)))
    await send({"type": f"{prefix}.start", "status": answer.status, "headers": headers})
    await send({"type": f"{prefix}.body", "body": answer.body})


async def send_close(answer: Answer, send: Send) -> None:
    """End a websocket with the code of a refusal."""
    await send({"type": "websocket.close", "code": answer.websocket_code, "reason": ""})


async def refuse_method(methods: set[str], scope: Scope, receive: Receive, send: Send) -> None:
    """Answer 405 as a route does."""
    headers = {"Allow": ", ".join(sorted(methods))}
    if "app" in scope:
        raise HTTPException(status_code=405, headers=headers)
    await PlainTextResponse("Method Not Allowed", status_code=405, headers=headers)(scope, receive, send)
