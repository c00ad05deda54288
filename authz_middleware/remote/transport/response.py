"""Reads one HTTP/1.1 response out of bytes as they come (RFC 9112). Does no I/O.

Stricter than HTTP clients are: what could be read in two ways is refused and never repaired, and everything has a
bound, interim responses, trailers and chunk extensions included.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import Final

from authz_middleware.remote.failure import FailureKind, RemoteFailure
from authz_middleware.remote.transport.framing import FRAMING, framing_failure
from authz_middleware.remote.transport.protocol import RawAnswer
from authz_middleware.strict_json import MAX_BODY

MAX_HEAD: Final = 32 * 1024
MAX_EXCHANGE: Final = 4 * MAX_BODY
"""The most bytes that are received for one answer, whatever they are."""

_MAX_CHUNK_LINE: Final = 1024

TOO_LARGE: Final = RemoteFailure(FailureKind.MALFORMED, "body.too_large")
TOO_MUCH: Final = RemoteFailure(FailureKind.MALFORMED, "http.too_large")
NOT_HTTP: Final = RemoteFailure(FailureKind.MALFORMED, "http")
BAD_CHUNK: Final = RemoteFailure(FailureKind.MALFORMED, "body.chunk")
CLOSED: Final = RemoteFailure(FailureKind.CLOSED, "closed")

_START: Final = b"HTTP/1."
_STATUS: Final = re.compile(r"HTTP/1\.([01]) (\d{3})(?: [^\x00-\x08\x0a-\x1f\x7f]*)?\r\n", re.ASCII)
# Neither a line that goes on with the next nor a blank before the colon (RFC 9112 sections 5.1 and 5.2).
_FIELD: Final = re.compile(r"^([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)\r\n", re.MULTILINE)
_CHUNK: Final = re.compile(rb"([0-9A-Fa-f]{1,8})(?:[ \t]*;[^\x00-\x08\x0a-\x1f\x7f]*)?")
_HEX: Final = b"0123456789abcdefABCDEF"
_BODILESS: Final = (101, 204, 304)

_Fields = tuple[tuple[str, str], ...]


class ResponseReader:
    """One response. `is_reusable`: once it is whole, whether the connection can carry another exchange."""

    __slots__ = ("_body", "_buffer", "_head", "_is_chunked", "_is_kept", "_length", "_received", "is_reusable")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._received = 0
        self._head: RawAnswer | None = None
        self._is_kept = self._is_chunked = False
        self._length: int | None = None
        self._body = bytearray()
        self.is_reusable = False

    def feed(self, data: bytes) -> RawAnswer | RemoteFailure | None:
        """The response, or what is wrong with it, as soon as that can be told of the bytes so far."""
        self._received += len(data)
        if self._received > MAX_EXCHANGE:
            return TOO_MUCH
        self._buffer += data
        while self._head is None:
            length = self._buffer.find(b"\r\n\r\n")
            if length < 0 or length > MAX_HEAD:
                return self._failure_of_start()
            failure = self._take_head(length + 4)
            if failure is not None:
                return failure
        return self._take_chunks(self._head) if self._is_chunked else self._take_body(self._head)

    def end(self) -> RawAnswer | RemoteFailure:
        """The same, when there will be no more bytes."""
        if self._head is None:
            return RemoteFailure(FailureKind.CLOSED, "head.truncated") if self._received else CLOSED
        if self._is_chunked or self._length is not None:
            return RemoteFailure(FailureKind.CLOSED, "body.truncated")
        return RawAnswer(self._head.status, self._head.headers, bytes(self._buffer))

    def _failure_of_start(self) -> RemoteFailure | None:
        """What is wrong with a head that is not whole yet; nobody should have to wait for that until the deadline."""
        if len(self._buffer) > MAX_HEAD:
            return RemoteFailure(FailureKind.MALFORMED, "header.too_large")
        is_http = self._buffer.startswith(_START[: len(self._buffer)])
        line, newline, _ = self._buffer.partition(b"\n")
        return None if is_http and (not newline or line.endswith(b"\r")) else NOT_HTTP

    def _take_head(self, length: int) -> RemoteFailure | None:
        text = self._buffer[: length - 2].decode("latin-1")
        del self._buffer[:length]
        status = _STATUS.match(text)
        fields = None if status is None else _fields_of(text[status.end() :])
        if status is None or fields is None:
            return RemoteFailure(FailureKind.MALFORMED, "header") if status is not None else NOT_HTTP
        code = int(status[2])
        if 100 <= code <= 199 and code != 101:
            return None  # an interim response (RFC 9110 section 15.2): the next one may be the answer
        head = RawAnswer(code, fields, b"")
        told = head.values_of(FRAMING)
        failure = framing_failure(told, knows_codings=status[1] == "1")
        if failure is None:
            self._head = head
            # Who sends a status without a body may send the body all the same, and a moment later.
            self._is_kept = code not in _BODILESS and _is_kept(told.get("connection"), status[1])
            self._is_chunked = "transfer-encoding" in told and code not in _BODILESS
            self._length = 0 if code in _BODILESS else next(map(int, told.get("content-length", ())), None)
        return failure

    def _take_body(self, head: RawAnswer) -> RawAnswer | RemoteFailure | None:
        length = self._length
        if length is None:  # then the end of the stream is the end of the body
            return TOO_LARGE if len(self._buffer) > MAX_BODY else None
        if len(self._buffer) < length:
            return None
        self.is_reusable = self._is_kept and len(self._buffer) == length
        return RawAnswer(head.status, head.headers, bytes(self._buffer[:length]))

    def _take_chunks(self, head: RawAnswer) -> RawAnswer | RemoteFailure | None:
        buffer = self._buffer
        while True:
            line = buffer.find(b"\r\n")
            if line < 0:
                begun = len(buffer) <= _MAX_CHUNK_LINE and (not buffer or buffer[0] in _HEX)
                return None if begun else BAD_CHUNK
            chunk = _CHUNK.fullmatch(buffer, 0, line) if line <= _MAX_CHUNK_LINE else None
            if chunk is None:
                return BAD_CHUNK
            size = int(chunk[1], 16)
            if not size:
                return self._take_trailers(head, line + 2)
            if len(self._body) + size > MAX_BODY:
                return TOO_LARGE
            begins, ends = line + 2, line + 2 + size
            if len(buffer) < ends + 2:
                return None
            if buffer[ends : ends + 2] != b"\r\n":
                return BAD_CHUNK
            self._body += buffer[begins:ends]
            del buffer[: ends + 2]

    def _take_trailers(self, head: RawAnswer, begin: int) -> RawAnswer | RemoteFailure | None:
        """Nothing in the trailer section counts (RFC 9110 section 6.5.1), but it must be one."""
        end = self._buffer.find(b"\r\n\r\n", begin - 2)
        if end < 0 or end - begin > MAX_HEAD:
            return TOO_MUCH if len(self._buffer) - begin > MAX_HEAD else None
        if _fields_of(self._buffer[begin : end + 2].decode("latin-1")) is None:
            return BAD_CHUNK
        self.is_reusable = self._is_kept and len(self._buffer) == end + 4
        return RawAnswer(head.status, head.headers, bytes(self._body))


def heard_early(answer: RawAnswer | RemoteFailure) -> RawAnswer | RemoteFailure:
    """What was answered before the question was told to its end: perhaps why nobody listens, such as that it is too
    long, but nothing that can be the answer."""
    return NOT_HTTP if isinstance(answer, RawAnswer) and answer.status == HTTPStatus.OK else answer


def _fields_of(text: str) -> _Fields | None:
    """The header fields, names in lower case; None where a line is not one."""
    found = _FIELD.findall(text)
    return tuple([(name.lower(), value) for name, value in found]) if len(found) == text.count("\n") else None


def _is_kept(told: Sequence[str] | None, minor: str) -> bool:
    """Whether the connection outlives this response (RFC 9112 section 9.3)."""
    if told is None:
        return minor == "1"
    options = ",".join(told).lower().replace(" ", "").replace("\t", "").split(",")
    return "close" not in options and (minor == "1" or "keep-alive" in options)
