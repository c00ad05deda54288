"""The response of one request on its way out (PEP 3333).

Status and headers are held until the first byte of the body has to go. Only then are they compared with what was
decided, so that a check that is refused while a body is being made, or a second `start_response` after an error,
still meets a response that can be replaced.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from werkzeug.wsgi import ClosingIterator

from authz_flask.passage import Passage, facts_of, path_of
from authz_middleware.answer import Answer
from authz_middleware.current import current_authorization
from authz_middleware.errors import AuthzError
from authz_middleware.facts import RequestFacts
from authz_middleware.ledger import DEGRADED_HEADER, Outgoing

if TYPE_CHECKING:
    from _typeshed import OptExcInfo
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

Headers = list[tuple[str, str]]


class RefusedMidwayError(AuthzError):
    """Ends a response that has begun, where nothing else can take it back."""


class Departure:
    """Takes the place of the server's `start_response` and, in `carry`, of the body."""

    __slots__ = ("_environ", "_held", "_passage", "_start_response", "_write", "is_under_way", "refusal")

    def __init__(self, passage: Passage, environ: WSGIEnvironment, start_response: StartResponse) -> None:
        self._passage = passage
        self._environ = environ
        self._start_response = start_response
        self._held: tuple[str, Headers] | None = None
        self._write: Callable[[bytes], Any] | None = None
        self.is_under_way = False
        self.refusal: bytes | None = None
        """The body that leaves instead of the application's, once it is clear that one has to."""

    def start(self, status: str, headers: Headers, exc_info: OptExcInfo | None = None, /) -> Callable[[bytes], Any]:
        """The application's `start_response`."""
        try:
            if exc_info is None and self._held is not None:
                raise AssertionError("start_response was called twice without exc_info")
            if exc_info is not None and exc_info[1] is not None and self.is_under_way and self.refusal is None:
                raise exc_info[1].with_traceback(exc_info[2])
        finally:
            exc_info = None  # PEP 3333: it would keep its own frame alive
        self._held = (status, headers)
        return self.write

    def write(self, data: bytes) -> None:
        """What `start_response` returns, for applications that write their body themselves."""
        self.begin()
        if self._write is not None:
            self._write(data)

    def carry(self, body: Iterable[bytes]) -> Iterable[bytes]:
        """The body to hand to the server: the application's own, where nothing of it can run any more (a list, a file
        wrapper that the server wants to recognize), else one that is watched."""
        if self._held is None or isinstance(body, ClosingIterator | Generator):
            return WatchedBody(self, self._passage, body)
        try:
            self.begin()
        except BaseException:
            _close(body)
            raise
        if self.refusal is None:
            return body
        _close(body)
        return (self.refusal,)

    def begin(self) -> None:
        """Let status and headers go, or what has to leave instead of them."""
        if self.is_under_way:
            return
        if self._held is None:
            raise AssertionError("a body was made before start_response was called")
        status, headers = self._held
        outgoing = self._outgoing(status, headers)
        ledger, routing = self._passage.ledger, self._passage.routing
        if routing is not None and routing.code == outgoing.status:
            ledger.routed = True  # also 400 and the redirects of merge_slashes, redirect_to and defaults
        replacement = ledger.replacement(outgoing, self._facts)
        if replacement is not None:
            self._refuse(replacement)
            return
        self._set_off()
        self._write = self._start_response(status, [*headers, DEGRADED_HEADER] if ledger.degraded else headers)

    def restore_refusal(self) -> bytes | None:
        """Begin the refusal that an exception has kept from being sent, and return its body; None where there is
        none, or it is too late for it."""
        refusal = self._passage.ledger.refusal
        if not self.is_under_way and refusal is not None:
            self._refuse(refusal)
        self._passage.is_open = False
        return self.refusal

    def stop_if_refused(self) -> None:
        """Let nothing more leave for a request that was refused midway: the response is never completed, which the
        client sees. Raises RefusedMidwayError."""
        if self.refusal is None and self._passage.ledger.refusal is not None:
            raise RefusedMidwayError("a check was refused after the response had begun")

    def _refuse(self, answer: Answer) -> None:
        self._set_off()
        headers = list(answer.headers)
        if answer.status >= 200 and answer.status not in (204, 304):  # RFC 9110 section 8.6
            headers.append(("content-length", str(len(answer.body))))
        self.refusal = b"" if self._environ["REQUEST_METHOD"] == "HEAD" else answer.body
        self._start_response(_status_line(answer.status), headers)

    def _set_off(self) -> None:
        self.is_under_way = True
        self._passage.is_open = False

    def _outgoing(self, status: str, headers: Headers) -> Outgoing:
        environ = self._environ
        return Outgoing(
            status=int(status[:3]) if status[:3].isdecimal() else 0,
            headers=headers,
            method=environ["REQUEST_METHOD"],
            path=path_of(environ),
            origin=environ.get("HTTP_ORIGIN"),
            requested_method=environ.get("HTTP_ACCESS_CONTROL_REQUEST_METHOD"),
        )

    def _facts(self) -> RequestFacts:
        environ = self._environ
        return facts_of(environ, method=environ["REQUEST_METHOD"], route=path_of(environ), endpoint="")


class WatchedBody:
    """A body of which every piece is made while the request's authorization is the current one, so that streamed
    views can check as well. A refusal that comes before the first byte replaces the response."""

    __slots__ = ("_departure", "_iterator", "_passage", "_source", "_was_begun")

    def __init__(self, departure: Departure, passage: Passage, source: Iterable[bytes]) -> None:
        self._departure = departure
        self._passage = passage
        self._source = source
        self._iterator: Iterator[bytes] | None = None
        self._was_begun = False

    def __iter__(self) -> WatchedBody:
        return self

    def __next__(self) -> bytes:
        if self._was_begun:
            if self._departure.refusal is not None:
                raise StopIteration
            return self._pull()
        return self._begin()

    def close(self) -> None:
        """Close the application's body. The server calls it at the end, however the end came."""
        self._passage.is_open = False
        _close(self._source)

    def _begin(self) -> bytes:
        self._was_begun = True
        is_over = False
        chunk = b""
        try:
            while not chunk and not self._departure.is_under_way:
                chunk = self._pull()
        except StopIteration:
            is_over = True
        except Exception:
            refusal = self._departure.restore_refusal()
            if refusal is None:
                raise
            return refusal
        self._departure.begin()
        if self._departure.refusal is not None:
            return self._departure.refusal
        if is_over:
            raise StopIteration
        return chunk

    def _pull(self) -> bytes:
        taken = self._passage.ledger.taken
        token = current_authorization.set(taken[-1]) if taken else None
        try:
            if self._iterator is None:
                self._iterator = iter(self._source)
            chunk = next(self._iterator)
            if self._departure.is_under_way:
                self._departure.stop_if_refused()
            return chunk
        finally:
            if token is not None:
                current_authorization.reset(token)


def _status_line(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return f"{status} Refused"


def _close(body: Iterable[bytes]) -> None:
    close = getattr(body, "close", None)
    if close is not None:
        close()
