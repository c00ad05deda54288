"""One HTTP exchange as a decision point reads and answers it: strict headers, a bounded body, JSON back.

Nothing here knows what is being asked. An error names the header or the member that was wrong, never a value.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Final

import msgspec

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

MAX_MESSAGE: Final = 256
REQUEST_ID: Final = b"x-request-id"
CLOSE: Final = (b"connection", b"close")

_JSON: Final = b"application/json"
_CLEAR_ID: Final = re.compile(rb"[\x21-\x7e]{1,128}")
_READ: Final = frozenset({b"authorization", b"content-encoding", b"content-type", b"host", b"upgrade", REQUEST_ID})
EVERY_ANSWER: Final[Headers] = [(b"content-type", _JSON), (b"cache-control", b"no-store")]
_encode: Final = msgspec.json.Encoder().encode


class RefusedError(Exception):
    """A request that is answered with an error status. `message` is shown to the caller."""

    def __init__(self, status: int, message: str, headers: Headers | None = None) -> None:
        self.status = status
        self.message = message
        self.headers = headers or []
        super().__init__(message)


class GoneError(Exception):
    """The caller went away before it had asked anything."""


class Reply(msgspec.Struct, frozen=True, gc=False):
    """What is answered: JSON, with headers beside those that every answer has."""

    status: int
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()


def read_headers(headers: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """The headers that mean something here, by lower-case name. Raises RefusedError where one of them is given twice:
    two readers would take two different ones."""
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in _READ:
            if name in found:
                raise RefusedError(400, f"{name.decode()} must be given once")
            found[name] = value
    return found


def request_id_of(headers: MutableMapping[bytes, bytes]) -> bytes | None:
    """The X-Request-ID to answer with (AuthZEN 1.0, section 10.1.3). Raises RefusedError."""
    request_id = headers.get(REQUEST_ID)
    if request_id is not None and not _CLEAR_ID.fullmatch(request_id):
        raise RefusedError(400, "X-Request-ID must be one value of 1 to 128 visible ASCII characters")
    return request_id


def check_media_type(headers: MutableMapping[bytes, bytes]) -> None:
    """Refuse what is not plain JSON in plain HTTP. Raises RefusedError."""
    if b"upgrade" in headers:  # then its body may be taken for that other protocol, and is not here
        raise RefusedError(400, "the request must not ask for an Upgrade to another protocol")
    # Also what keeps a page in a browser from asking: it cannot send this type to another origin unasked.
    type_ = headers.get(b"content-type", b"")
    if type_ != _JSON and type_.partition(b";")[0].strip().lower() != _JSON:
        raise RefusedError(400, "Content-Type must be application/json")
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise RefusedError(400, "Content-Encoding must be identity")


def check_size(body: bytes | bytearray, most: int) -> None:
    """Refuse a body of more bytes. Raises RefusedError, and the connection is not used again: there is more to come."""
    if len(body) > most:
        raise RefusedError(413, f"the body is larger than {most} bytes", [CLOSE])


async def read_body(receive: Receive, most: int) -> bytes:
    """The whole body of at most so many bytes. Raises RefusedError for a longer one, of which no more is read, and
    GoneError."""
    parts = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise GoneError
        parts += message.get("body", b"")
        check_size(parts, most)
        if not message.get("more_body"):
            return bytes(parts)


async def send_reply(send: Send, reply: Reply, request_id: bytes | None) -> None:
    """Send an answer, with the id of the request where it had one."""
    headers = [*EVERY_ANSWER, (b"content-length", b"%d" % len(reply.body)), *reply.headers]
    if request_id is not None:
        headers.append((REQUEST_ID, request_id))
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body})


def encode(value: object) -> bytes:
    """JSON."""
    return _encode(value)


def error_body(status: int, message: str) -> dict[str, Any]:
    """The form of an error, of a whole request and of an item alike."""
    return {"error": {"status": status, "message": message[:MAX_MESSAGE]}}


def error_reply(status: int, message: str, headers: Headers | None = None) -> Reply:
    """An error for a whole request."""
    return Reply(status, _encode(error_body(status, message)), tuple(headers or ()))
