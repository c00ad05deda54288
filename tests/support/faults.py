"""What a decision point can get wrong on the wire, each with the kind of failure it is, whichever colour asks."""

from __future__ import annotations

import gzip
import zlib
from http import HTTPStatus
from typing import Final

from authz_middleware.remote.failure import FailureKind
from tests.support.pdp import (
    PERMIT,
    Behaviour,
    Exchange,
    answer,
    drip,
    hang,
    hang_up,
    reply,
    reset,
    response,
    take,
    then_half_close,
    then_reset,
)

HEADERS: Final = "Content-Type: application/json\r\n"
CHUNKED: Final = f"HTTP/1.1 200 OK\r\n{HEADERS}Transfer-Encoding: chunked\r\n\r\n".encode()
HEAD: Final = response()[: -len(PERMIT)]
WITHOUT_LENGTH: Final = f"HTTP/1.1 200 OK\r\n{HEADERS}\r\n".encode()
CHUNK: Final = f"{len(PERMIT):x}\r\n".encode() + PERMIT + b"\r\n"
END: Final = b"0\r\n\r\n"


def chunked(*parts: bytes, keep: bool = False) -> Behaviour:
    return reply(CHUNKED + b"".join(parts), keep=keep)


def _in_turn(*parts: bytes, pause: float = 0.03) -> Behaviour:
    """Parts of one response, each in a packet of its own; then nothing."""

    def behave(exchange: Exchange) -> bool:
        for part in parts:
            exchange.send(part)
            exchange.stopping.wait(pause)
        return hang(exchange)

    return behave


def _first(data: bytes, then: Behaviour) -> Behaviour:
    def behave(exchange: Exchange) -> bool:
        exchange.send(data)
        return then(exchange)

    return behave


def _flood(part: bytes, pause: float = 0.0) -> Behaviour:
    """The same again and again, for as long as somebody listens."""

    def behave(exchange: Exchange) -> bool:
        while not exchange.stopping.wait(pause):
            exchange.send(part)
        return False

    return behave


def _encoded(body: bytes, coding: str) -> Behaviour:
    return answer(body, headers=f"{HEADERS}Content-Encoding: {coding}\r\n")


def _coded(*codings: str, body: bytes = CHUNK + END) -> Behaviour:
    fields = "".join(f"Transfer-Encoding: {coding}\r\n" for coding in codings)
    return reply(f"HTTP/1.1 200 OK\r\n{HEADERS}{fields}\r\n".encode() + body, keep=False)


def _long(*lengths: str, body: bytes = PERMIT) -> Behaviour:
    fields = "".join(f"Content-Length: {length}\r\n" for length in lengths)
    return reply(f"HTTP/1.1 200 OK\r\n{HEADERS}{fields}\r\n".encode() + body, keep=False)


def outages(deadline: float) -> dict[str, tuple[Behaviour, FailureKind]]:
    """The decision point is away, or as good as that, for somebody who waits for so many seconds."""
    late, closed = FailureKind.DEADLINE, FailureKind.CLOSED
    return {
        "black hole": (hang, late),
        "answer after the deadline": (take(deadline + 0.1, answer()), late),
        "half an answer after the deadline": (_in_turn(HEAD, PERMIT, pause=deadline + 0.1), late),
        "dripped head": (drip(response()), late),
        "dripped body": (_first(HEAD, drip(PERMIT)), late),
        "dripped chunks": (_first(CHUNKED, drip(b"1\r\n{\r\n" * 30)), late),
        "dripped trailers": (_first(CHUNKED + CHUNK + b"0\r\n", drip(b"A: b\r\n" * 30)), late),
        "head without a body": (reply(HEAD), late),
        "chunk without its end": (_in_turn(CHUNKED + CHUNK[:-2]), late),
        "chunks without the last": (_in_turn(CHUNKED + CHUNK), late),
        "trailers without an end": (_in_turn(CHUNKED + CHUNK + b"0\r\nA: b\r\n"), late),
        "body without an end": (_in_turn(WITHOUT_LENGTH + PERMIT), late),
        "interim answers now and then": (_flood(b"HTTP/1.1 100 Continue\r\n\r\n", 0.01), late),
        "early hints only": (_in_turn(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"), late),
        "closed without a byte": (hang_up, closed),
        "half-closed without a byte": (then_half_close(b""), closed),
        "reset without a byte": (reset, closed),
        "closed in the head": (reply(b"HTTP/1.1 200 OK\r\nContent-Ty", keep=False), closed),
        "half-closed in the head": (then_half_close(b"HTTP/1.1 200 OK\r\nContent-Ty"), closed),
        "reset in the head": (then_reset(b"HTTP/1.1 200 OK\r\nContent-Ty"), closed),
        "closed between head and body": (reply(HEAD, keep=False), closed),
        "closed in the body": (reply(response(length=len(PERMIT) + 10), keep=False), closed),
        "half-closed in the body": (then_half_close(response(length=len(PERMIT) + 10)), closed),
        "reset in the body": (then_reset(response(length=len(PERMIT) + 10)), closed),
        "reset in a body without an end": (then_reset(WITHOUT_LENGTH + PERMIT), closed),
        "closed in a chunk": (chunked(b"20\r\n", PERMIT), closed),
        "half-closed in a chunk": (then_half_close(CHUNKED + b"20\r\n" + PERMIT), closed),
        "reset in a chunk": (then_reset(CHUNKED + b"20\r\n" + PERMIT), closed),
        "closed before the last chunk": (chunked(CHUNK), closed),
        "closed in a trailer": (chunked(CHUNK, b"0\r\nA: b\r\n"), closed),
        "closed after interim answers": (reply(b"HTTP/1.1 100 Continue\r\n\r\n" * 3, keep=False), closed),
    }


_BAD_CHUNKS: Final = {
    "zz": b"zz\r\n" + PERMIT + b"\r\n",
    "a sign": b"+11\r\n" + PERMIT + b"\r\n",
    "a minus": b"-11\r\n" + PERMIT + b"\r\n",
    "0x": b"0x11\r\n" + PERMIT + b"\r\n",
    "an underscore": b"1_1\r\n" + PERMIT + b"\r\n",
    "nothing": b"\r\n" + PERMIT + b"\r\n",
    "more digits than there are bytes": b"1" * 40 + b"\r\n" + PERMIT + b"\r\n",
    "a whole 64 bits": b"ffffffffffffffff\r\n" + PERMIT + b"\r\n",
    "too short": b"10\r\n" + PERMIT + b"\r\n",
    "too long": b"12\r\n" + PERMIT + b"\r\n\r\n",
    "other bytes after the data": b"11\r\n" + PERMIT + b"xx",
}


def faults() -> dict[str, tuple[Behaviour, FailureKind]]:
    """Something answers, but not as a decision point does."""
    bad = FailureKind.MALFORMED
    bomb = PERMIT + b" " * 10_000_000
    elsewhere = {
        "to the same host": "/access/v1/other",
        "to another host": "http://127.0.0.2:1/",
        "to a file": "file:///etc/passwd",
        "to nowhere": "",
    }
    return {
        **{
            f"redirect {where}, {code}": (
                answer(status=f"{code} Moved", headers=f"{HEADERS}Location: {location}\r\n"),
                FailureKind.REDIRECT,
            )
            for where, location in elsewhere.items()
            for code in (301, 302, 303, 307, 308)
        },
        "HTTP/0.9": (reply(PERMIT, keep=False), bad),
        "HTTP/0.9 with a line": (reply(PERMIT + b"\r\n", keep=False), bad),
        "HTTP/2": (reply(b"HTTP/2 200\r\n" + response()[17:], keep=False), bad),
        "HTTP/2 frames": (reply(b"\x00\x00\x12\x04\x00\x00\x00\x00\x00" + bytes(18), keep=False), bad),
        "HTTP/1.10": (reply(response().replace(b"HTTP/1.1", b"HTTP/1.10"), keep=False), bad),
        "another protocol's version": (reply(response().replace(b"HTTP/1.1", b"ICAP/1.0"), keep=False), bad),
        "garbage": (reply(b"\x16\x03\x01\x00garbage\r\n\r\n", keep=False), bad),
        "a request": (reply(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", keep=False), bad),
        "a status of two digits": (reply(response(status="20 OK"), keep=False), bad),
        "a status of four digits": (reply(response(status="2000 OK"), keep=False), bad),
        "a status with a sign": (reply(response(status="+200 OK"), keep=False), bad),
        "a header without a colon": (answer(headers=f"{HEADERS}Nonsense\r\n"), bad),
        "a header without a name": (answer(headers=f"{HEADERS}: value\r\n"), bad),
        "a zero byte in a header": (answer(headers=f"{HEADERS}X-A: a\0b\r\n"), bad),
        "no content type": (answer(headers=""), bad),
        "text": (answer(headers="Content-Type: text/html\r\n"), bad),
        "two content types": (answer(headers=f"{HEADERS}Content-Type: text/html\r\n"), bad),
        "another character set": (answer(headers="Content-Type: application/json; charset=utf-16\r\n"), bad),
        **{
            f"unasked encoding: {coding}": (_encoded(PERMIT, coding), bad)
            for coding in ("gzip", "x-gzip", "deflate", "br", "zstd", "compress", "identity, gzip", "gzip, identity")
        },
        "unasked encoding, after identity": (_encoded(PERMIT, "identity\r\nContent-Encoding: gzip"), bad),
        "gzip bomb": (_encoded(gzip.compress(bomb), "gzip"), bad),
        "deflate bomb": (_encoded(zlib.compress(bomb), "deflate"), bad),
        "gzip bomb that says nothing of it": (answer(gzip.compress(bomb)), bad),
        "two lengths": (_long(str(len(PERMIT)), "3"), bad),
        "two lengths, equal": (_long(str(len(PERMIT)), str(len(PERMIT))), bad),
        "two lengths in one": (_long(f"{len(PERMIT)}, {len(PERMIT)}"), bad),
        "negative length": (_long("-1"), bad),
        "length with a sign": (_long("+17"), bad),
        "length in hexadecimal": (_long("0x11"), bad),
        "length with an underscore": (_long("1_7"), bad),
        "length with a point": (_long("17.0"), bad),
        "no length in the length": (_long(""), bad),
        "length beyond all numbers": (_long("9" * 5000), bad),
        "length and chunks": (reply(CHUNKED[:-2] + b"Content-Length: 17\r\n\r\n" + CHUNK + END, keep=False), bad),
        "chunks and length": (
            reply(response(headers=f"{HEADERS}Transfer-Encoding: chunked\r\n") + CHUNK + END, keep=False),
            bad,
        ),
        **{
            f"transfer coding: {'; '.join(codings)}": (_coded(*codings), bad)
            for codings in (
                ("gzip",),
                ("identity",),
                ("gzip, chunked",),
                ("chunked, gzip",),
                ("chunked, chunked",),
                ("chunked", "chunked"),
                ("identity", "chunked"),
                ("xchunked",),
                ("chunked;q=1",),
                ("\x0bchunked",),
            )
        },
        **{f"chunk size: {name}": (chunked(data, END), bad) for name, data in _BAD_CHUNKS.items()},
        "bad chunk size, later": (_in_turn(CHUNKED, b"zz\r\n" + PERMIT + b"\r\n"), bad),
        "chunk extensions without end": (_flood(b"1;a=" + b"b" * 4000), bad),
        "a chunk extension of a megabyte": (chunked(b"11;" + b"b" * 1_000_000 + b"\r\n" + PERMIT + b"\r\n", END), bad),
        "trailers without end": (_first(CHUNKED + CHUNK + b"0\r\n", _flood(b"A: b\r\n" * 500)), bad),
        "oversize, declared only": (reply(response(length=10**9)), bad),
        "oversize": (answer(b" " * 65536 + PERMIT), bad),
        "oversize, in chunks": (chunked((b"4000\r\n" + b" " * 0x4000 + b"\r\n") * 8), bad),
        "oversize, in one chunk": (_in_turn(CHUNKED + b"fffff\r\n" + b" " * 20_000), bad),
        "oversize, without an end": (_first(WITHOUT_LENGTH, _flood(b" " * 20_000)), bad),
        "many headers": (answer(headers=HEADERS + "".join(f"X-{i}: {'x' * 4000}\r\n" for i in range(400))), bad),
        "many small headers": (answer(headers=HEADERS + "".join(f"X-{i}: x\r\n" for i in range(20_000))), bad),
        "a giant header": (answer(headers=f"{HEADERS}X: {'x' * 1_000_000}\r\n"), bad),
        "headers without end": (_first(b"HTTP/1.1 200 OK\r\n", _flood(b"X: x\r\n" * 500)), bad),
        "a status line without end": (_first(b"HTTP/1.1 200 ", _flood(b"O" * 4000)), bad),
        "interim answers without end": (_flood(b"HTTP/1.1 100 Continue\r\n\r\n" * 500), bad),
        "early hints without end": (_flood(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 500), bad),
        "another protocol": (
            answer(status="101 Switching Protocols", headers=f"{HEADERS}Connection: upgrade\r\nUpgrade: x\r\n"),
            bad,
        ),
        "another request's answer": (
            answer(headers=f"{HEADERS}X-Request-ID: other\r\n"),
            FailureKind.MISMATCHED,
        ),
    }


BODIES: Final[dict[str, bytes]] = {
    "nothing": b"",
    "blanks": b"  \r\n",
    "half an object": PERMIT[:-1],
    "an object and a half": PERMIT + b"{",
    "two objects": PERMIT + PERMIT,
    "two lines": b'{"decision":false}\n' + PERMIT,
    "a list": b"[" + PERMIT + b"]",
    "a string": b'"true"',
    "true": b"true",
    "null": b"null",
    "a number": b"1",
    "no decision": b"{}",
    "another name": b'{"Decision":true}',
    "permit instead": b'{"permit":true}',
    "decision within": b'{"result":{"decision":true}}',
    "decision in a list": b'{"decision":[true]}',
    "decision as an object": b'{"decision":{"permit":true}}',
    "decision as text": b'{"decision":"true"}',
    "decision as a word": b'{"decision":"Permit"}',
    "decision as a number": b'{"decision":1}',
    "decision as null": b'{"decision":null}',
    "decision, capital": b'{"decision":True}',
    "decision twice": b'{"decision":false,"decision":true}',
    "decision twice, once escaped": b'{"decision":false,"\\u0064ecision":true}',
    "a name twice, deep": b'{"decision":true,"context":{"a":{"b":1,"b":2}}}',
    "context as a list": b'{"decision":true,"context":[]}',
    "not a number": b'{"decision":true,"context":{"a":NaN}}',
    "infinity": b'{"decision":true,"context":{"a":-Infinity}}',
    "a number out of range": b'{"decision":true,"context":{"a":1e999}}',
    "too deep": b'{"decision":true,"context":' + b'{"a":' * 40 + b"1" + b"}" * 41,
    "bottomless": b'{"decision":true,"context":{"a":' + b"[" * 30_000,
    "not UTF-8": b'{"decision":true,"context":{"a":"\xff"}}',
    "overlong UTF-8": b'{"decision":true,"context":{"a":"\xc0\xaf"}}',
    "half a surrogate": b'{"decision":true,"context":{"a":"\\ud800"}}',
    "UTF-16": '{"decision":true}'.encode("utf-16"),
    "a byte order mark": b"\xef\xbb\xbf" + PERMIT,
    "a comment": b'{"decision":true /* yes */}',
    "a comma too many": b'{"decision":true,}',
    "single quotes": b"{'decision':true}",
    "a zero byte": PERMIT + b"\0",
    "a line break in a string": b'{"decision":true,"context":{"a":"\n"}}',
    "a script": b"<script>true</script>",
    "a form": b"decision=true",
    "a guard against scripts": b")]}',\n" + PERMIT,
}


def kind_of(status: int) -> FailureKind:
    """The failure that a response with this status is, whatever its body says; it must not be 200."""
    if status == 429:
        return FailureKind.THROTTLED
    kinds = {3: FailureKind.REDIRECT, 4: FailureKind.STATUS_4XX, 5: FailureKind.STATUS_5XX}
    return kinds.get(status // 100, FailureKind.MALFORMED)


STATUSES: Final = sorted(
    {
        *map(int, HTTPStatus),
        99,
        104,
        199,
        209,
        299,
        306,
        399,
        419,
        420,
        430,
        499,
        509,
        512,
        520,
        527,
        599,
        600,
        700,
        999,
    }
    - {200}
)
"""Those of the registry, and some that are not in it."""
