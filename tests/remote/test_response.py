"""The reader of HTTP/1.1 responses: what is one, where it ends, and that nothing can be read in two ways."""

from __future__ import annotations

import http.client
import io
import itertools
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from authz_middleware.remote.failure import FailureKind, RemoteFailure
from authz_middleware.remote.transport.protocol import RawAnswer
from authz_middleware.remote.transport.response import MAX_EXCHANGE, MAX_HEAD, ResponseReader
from authz_middleware.strict_json import MAX_BODY
from tests.support.faults import BODIES, CHUNKED, HEADERS, WITHOUT_LENGTH
from tests.support.pdp import PERMIT, response

Told = RawAnswer | RemoteFailure


def read(data: bytes, *cuts: int) -> tuple[Told, bool]:
    """What is told of these bytes, in as many parts, and whether the connection can be used again."""
    reader, told = ResponseReader(), None
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    for begin, end in itertools.pairwise(edges):
        if begin < end:
            told = reader.feed(data[begin:end])
        if told is not None:
            return told, reader.is_reusable
    return reader.end(), reader.is_reusable


def chunked(*chunks: bytes, trailer: bytes = b"") -> bytes:
    parts = b"".join(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n" for chunk in chunks)
    return CHUNKED + parts + b"0\r\n" + trailer + b"\r\n"


WHOLE: dict[str, bytes] = {
    "a length": response(),
    "no body": response(b"", headers=""),
    "chunks": chunked(PERMIT[:3], PERMIT[3:]),
    "chunks and trailers": chunked(PERMIT, trailer=b"A: b\r\nC: d\r\n"),
    "interim first": b"HTTP/1.1 100 Continue\r\n\r\n" + response(),
    "closed": response(headers=HEADERS + "Connection: close\r\n"),
    "no content": b"HTTP/1.1 204 No Content\r\nContent-Length: 17\r\n\r\n",
    "not modified": b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n",
    "another protocol": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
}


@given(st.sampled_from(sorted(WHOLE)), st.lists(st.integers(0, 10_000), max_size=6))
def test_it_makes_no_difference_in_which_parts_a_response_comes(name: str, cuts: list[int]) -> None:
    assert read(WHOLE[name], *cuts) == read(WHOLE[name])
    assert isinstance(read(WHOLE[name])[0], RawAnswer)


@given(st.sampled_from(sorted(WHOLE)), st.integers(0, 10_000))
def test_less_than_a_response_is_none(name: str, cut: int) -> None:
    data = WHOLE[name]
    told, is_reusable = read(data[: cut % len(data)])
    assert isinstance(told, RemoteFailure)
    assert told.kind is FailureKind.CLOSED
    assert not is_reusable


@given(st.sampled_from(sorted(WHOLE)), st.binary(min_size=1, max_size=40), st.integers(0, 10_000))
def test_what_follows_a_response_belongs_to_none(name: str, more: bytes, cut: int) -> None:
    """It never becomes a part of the body, and the connection is not used again where it has come by then."""
    told, _ = read(WHOLE[name] + more, cut)
    assert told == read(WHOLE[name])[0]
    assert read(WHOLE[name] + more)[1] is False


@given(st.binary(max_size=200), st.lists(st.integers(0, 300), max_size=3))
@example(b"HTTP/1.1 200 OK\r\n\r\n", [])
@example(b"", [])
def test_any_bytes_are_told_something_of(data: bytes, cuts: list[int]) -> None:
    for whole in (data, CHUNKED + data, b"HTTP/1.1 200 OK\r\n" + data + b"\r\n\r\n", response() + data):
        told, _ = read(whole, *cuts)
        assert isinstance(told, RawAnswer | RemoteFailure)


_TOKENS = st.text("abcXYZ-_1", min_size=1, max_size=12)
_VALUES = st.text(st.characters(codec="latin-1", exclude_categories=["Cc"]), max_size=20).map(str.strip)


@given(
    st.lists(st.tuples(_TOKENS.map("x-{}".format), _VALUES), max_size=8), st.integers(200, 599), st.binary(max_size=99)
)
def test_a_well_formed_response_is_read_as_the_standard_library_reads_it(
    fields: list[tuple[str, str]], status: int, body: bytes
) -> None:
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields)
    data = f"HTTP/1.1 {status} Some Reason\r\n{lines}Content-Length: {len(body)}\r\n\r\n".encode("latin-1") + body
    told, _ = read(data)
    theirs = http.client.HTTPResponse(_Socket(data), method="POST")  # type: ignore[arg-type]  # all that it uses of one
    theirs.begin()
    assert isinstance(told, RawAnswer)
    assert told.status == theirs.status
    assert told.body == theirs.read()
    assert told.headers == tuple((name.lower(), value.strip()) for name, value in theirs.msg.items())


class _Socket:
    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, *_: Any) -> io.BytesIO:
        return io.BytesIO(self._data)


@pytest.mark.parametrize(
    ("data", "is_reusable"),
    [
        (response(), True),
        (chunked(PERMIT), True),
        (response(headers=HEADERS + "Connection: close\r\n"), False),
        (response(headers=HEADERS + "Connection: keep-alive, CLOSE\r\n"), False),
        (response(headers=HEADERS + "Connection: x\r\nConnection:\tclose\r\n"), False),
        (response().replace(b"/1.1", b"/1.0"), False),
        (response(headers=HEADERS + "Connection: Keep-Alive\r\n").replace(b"/1.1", b"/1.0"), True),
        (WITHOUT_LENGTH + PERMIT, False),
        (WHOLE["another protocol"], False),
        (response(PERMIT + b" ", length=len(PERMIT)), False),
        (chunked(PERMIT) + b"\r\n", False),
    ],
)
def test_a_connection_is_used_again_only_where_both_sides_know_where_the_response_ended(
    data: bytes, is_reusable: bool
) -> None:
    assert read(data)[1] is is_reusable


@pytest.mark.parametrize(
    "line",
    [
        b"X-A : b",
        b" X-A: b",
        b"\tX-A: b",
        b"X-A: b\r\n c",
        b"X\xc4: b",
        b"X A: b",
        b"X-A: b\nX-B: c",
        b"X-A: b\rX-B: c",
        b"X-A: \0",
        b"X-A: \x7f",
        b"X(A): b",
        b": b",
        b"nothing",
    ],
)
def test_what_is_no_header_is_not_made_one(line: bytes) -> None:
    told, _ = read(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n" + line + b"\r\n\r\n")
    assert told == RemoteFailure(FailureKind.MALFORMED, "header")


@pytest.mark.parametrize(
    "line",
    [
        b"HTTP/1.1 200 OK\n",
        b"HTTP/1.1  200 OK\r\n",
        b"HTTP/1.1 2000 OK\r\n",
        b"HTTP/1.1 20 OK\r\n",
        b"HTTP/1.1 \xb2\xb9\xb9 OK\r\n",
        b"HTTP/1.1 -20 OK\r\n",
        b"HTTP/1.2 200 OK\r\n",
        b"HTTP/1.1\t200 OK\r\n",
        b"HTTP/1.1 200OK\r\n",
        b"HTTP/1.1 200 O\0K\r\n",
        b"http/1.1 200 OK\r\n",
        b"\r\nHTTP/1.1 200 OK\r\n",
        b" HTTP/1.1 200 OK\r\n",
        b"\xef\xbb\xbfHTTP/1.1 200 OK\r\n",
    ],
)
def test_what_is_no_status_line_is_not_made_one(line: bytes) -> None:
    told, _ = read(line + b"Content-Length: 0\r\n\r\n")
    assert told == RemoteFailure(FailureKind.MALFORMED, "http")


@pytest.mark.parametrize(
    "data",
    [
        b"X",
        b"HTTP/2",
        b"HTTP/1.1 200 OK\n",
        PERMIT,
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * MAX_HEAD,
        CHUNKED + b"z",
        CHUNKED + b"-",
        CHUNKED + b"1;" + b"x" * 1024,
        CHUNKED + f"{MAX_BODY + 1:x}\r\n".encode(),
        CHUNKED + b"11\r\n" + PERMIT + b"xx",
        CHUNKED + b"0\r\n" + b"A: b\r\n" * (MAX_HEAD // 6 + 1),
        CHUNKED + b"0\r\nnonsense\r\n\r\n",
        WITHOUT_LENGTH + b" " * (MAX_BODY + 1),
        response(length=MAX_BODY + 1)[: -len(PERMIT)],
        b"HTTP/1.1 100 Continue\r\n\r\n" * (MAX_EXCHANGE // 25 + 1),
    ],
)
def test_what_cannot_become_an_answer_is_told_without_waiting_for_more(data: bytes) -> None:
    told = ResponseReader().feed(data)
    assert isinstance(told, RemoteFailure)
    assert told.kind is FailureKind.MALFORMED


def test_the_largest_body_is_read_in_every_form() -> None:
    body = b"x" * MAX_BODY
    for data in (response(body), chunked(*[body[:4096]] * 16), WITHOUT_LENGTH + body):
        told, _ = read(data)
        assert isinstance(told, RawAnswer)
        assert told.body == body


@pytest.mark.parametrize("body", BODIES)
def test_a_body_is_handed_on_as_it_came(body: str) -> None:
    for data in (response(BODIES[body]), chunked(BODIES[body]) if BODIES[body] else response(b"")):
        told, _ = read(data)
        assert isinstance(told, RawAnswer)
        assert told.body == BODIES[body]
