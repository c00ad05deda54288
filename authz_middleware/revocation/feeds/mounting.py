"""The event receiver as an application that any ASGI or WSGI server, or framework, can mount. No framework is needed.

Mount("/events", app=ASGIEvents(), name="events")                                   Starlette, FastAPI
DispatcherMiddleware(app, {"/events": WSGIEvents(Authz(app).pep.receiver)})         Flask, any WSGI application

Behind the middleware line the receiver is the one of its enforcement point; elsewhere it is handed over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from http import HTTPStatus
from typing import Any, Final

from authz_middleware.answer import Answer
from authz_middleware.revocation.feeds.event_receiver import EventReceiver, Headers, length_required, too_large
from authz_middleware.revocation.feeds.security_event import MAX_DOCUMENT

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
StartResponse = Callable[[str, list[tuple[str, str]]], object]

_CHUNK: Final = 16 * 1024


class ASGIEvents:
    """The receiver as an ASGI 3 application. What blocks runs in a thread, never on the event loop."""

    def __init__(self, receiver: EventReceiver | None = None) -> None:
        self._receiver = receiver

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        elif scope["type"] == "http":
            await self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope["headers"]]
        try:
            body = await _body(receive)
        except ConnectionError:
            return  # nobody is there any more; what was not acknowledged comes again
        if body is None:
            answer = too_large()
        else:
            receiver = self._receiver or scope["authz"].receiver
            answer = await asyncio.to_thread(receiver.receive, scope["method"], headers, body)
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in _headers_of(answer)]
        await send({"type": "http.response.start", "status": answer.status, "headers": raw})
        await send({"type": "http.response.body", "body": answer.body})


async def _live(receive: Receive, send: Send) -> None:
    """The lifespan of an application that has nothing to open; the receiver is started with the rest."""
    while True:
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return


async def _body(receive: Receive) -> bytes | None:
    """The whole body, or None where it is longer than an event may be. Raises ConnectionError when it breaks off."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise ConnectionError
        body += message.get("body", b"")
        if len(body) > MAX_DOCUMENT:
            return None
        if not message.get("more_body", False):
            return bytes(body)


class WSGIEvents:
    """The receiver as a WSGI application (PEP 3333)."""

    def __init__(self, receiver: EventReceiver) -> None:
        self._receiver = receiver

    def __call__(self, environ: Mapping[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        answer = self._answer(environ)
        start_response(f"{answer.status} {HTTPStatus(answer.status).phrase}", list(_headers_of(answer)))
        return [answer.body]

    def _answer(self, environ: Mapping[str, Any]) -> Answer:
        length = environ.get("CONTENT_LENGTH", "")
        if length:
            # A server that passes on what is no number would have us read without end.
            if not (length.isascii() and length.isdigit() and len(length) <= len(str(MAX_DOCUMENT))):
                return too_large()
            most = int(length)
        elif environ.get("wsgi.input_terminated"):
            most = MAX_DOCUMENT + 1  # chunked, and the server ends the stream where the body ends
        elif environ["REQUEST_METHOD"] == "POST":
            return length_required()
        else:
            most = 0
        if most > MAX_DOCUMENT + 1:
            return too_large()
        body = _read(environ["wsgi.input"], most)
        return self._receiver.receive(environ["REQUEST_METHOD"], _headers_in(environ), body)


def _read(stream: Any, most: int) -> bytes:
    """At most so many bytes; a server may hand them over piece by piece."""
    body = bytearray()
    while len(body) < most:
        piece = stream.read(min(_CHUNK, most - len(body)))
        if not piece:
            break
        body += piece
    return bytes(body)


def _headers_in(environ: Mapping[str, Any]) -> Headers:
    headers = [("content-type", environ["CONTENT_TYPE"])] if environ.get("CONTENT_TYPE") else []
    for name in ("authorization", "content-encoding"):
        value = environ.get("HTTP_" + name.upper().replace("-", "_"))
        if value is not None:
            headers.append((name, value))
    return headers


def _headers_of(answer: Answer) -> Iterable[tuple[str, str]]:
    return (*answer.headers, ("content-length", str(len(answer.body))))
