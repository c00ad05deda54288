"""The transport for blocking code: `http.client` over a small pool of kept-alive connections.

Bounded in time (the whole exchange, resolving and connecting included), in connections, and in bytes. Safe to
use from many threads and across `fork()`.
"""

from __future__ import annotations

import http.client
import ssl
import time
from collections.abc import Callable, Mapping
from threading import BoundedSemaphore, Lock
from typing import Final
from urllib.parse import SplitResult, urlsplit

from authz_middleware.forking import renew_in_children
from authz_middleware.remote.failure import FailureKind, RemoteFailure
from authz_middleware.remote.transport.framing import framing_failure
from authz_middleware.remote.transport.protocol import RawAnswer
from authz_middleware.remote.transport.wire import Wire, connect
from authz_middleware.strict_json import MAX_BODY

BUSY: Final = RemoteFailure(FailureKind.BUSY, "connections", is_news=False)
WAIT_SHARE: Final = 0.5
"""The part of the deadline that may go by waiting for a connection to be free; the rest is for the question."""

_Place = tuple[str, str, int]


class HttpTransport:
    """Carries questions by blocking calls, over at most `max_connections` connections at a time.

    `tls` is what https connections are made with; without one an https URL is refused.
    """

    _idle: dict[_Place, list[Wire]]

    def __init__(
        self,
        *,
        max_connections: int = 64,
        tls: ssl.SSLContext | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_connections = max_connections
        self._tls = tls
        self._monotonic = monotonic
        self._start_afresh()
        renew_in_children(self)

    def post(self, url: str, headers: Mapping[str, str], body: bytes, deadline: float) -> RawAnswer | RemoteFailure:
        """Post and read the whole answer within `deadline` seconds. What goes wrong is a RemoteFailure."""
        end = self._monotonic() + deadline
        free = self._free
        if not free.acquire(timeout=max(0.0, deadline * WAIT_SHARE)):
            return BUSY
        try:
            return self._exchange(urlsplit(url), headers, body, end)
        finally:
            free.release()

    def close(self) -> None:
        """Close the connections that are not in use; those in use close when their answer has been read."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, {}
        for wires in idle.values():
            for wire in wires:
                wire.hang_up()

    def renew_after_fork(self) -> None:
        """Leave the parent's connections to the parent. Closing our copies does not end them."""
        idle = self._idle
        self._start_afresh()
        for wires in idle.values():
            for wire in wires:
                wire.hang_up()

    def _start_afresh(self) -> None:
        self._lock = Lock()
        self._idle = {}
        self._free = BoundedSemaphore(self._max_connections)
        self._closed = False

    def _exchange(
        self, url: SplitResult, headers: Mapping[str, str], body: bytes, end: float
    ) -> RawAnswer | RemoteFailure:
        place = (url.scheme, url.hostname or "", url.port or (443 if url.scheme == "https" else 80))
        wire = self._take(place)
        if wire is not None:
            answer = self._speak(place, wire, url, headers, body, end)
            # Closed by the other side before it read the question: it was idle for too long. Ask once more.
            if not (isinstance(answer, RemoteFailure) and answer.kind is FailureKind.CLOSED and not wire.received):
                return answer
        opened = self._open(place, end)
        return opened if isinstance(opened, RemoteFailure) else self._speak(place, opened, url, headers, body, end)

    def _open(self, place: _Place, end: float) -> Wire | RemoteFailure:
        scheme, host, port = place
        if scheme == "https" and self._tls is None:
            return RemoteFailure(FailureKind.CONFIG, "tls.missing")
        try:
            return connect(host, port, end, self._tls if scheme == "https" else None, self._monotonic)
        except TimeoutError:
            return RemoteFailure(FailureKind.DEADLINE, "connect")
        except ssl.SSLCertVerificationError:
            # Whoever stands in the way with a wrong certificate must not choose the fallback.
            return RemoteFailure(FailureKind.CONFIG, "tls.certificate")
        except ssl.SSLError:
            return RemoteFailure(FailureKind.CONNECT, "tls")
        except (OSError, UnicodeError):
            return RemoteFailure(FailureKind.CONNECT, "connect")

    def _speak(
        self, place: _Place, wire: Wire, url: SplitResult, headers: Mapping[str, str], body: bytes, end: float
    ) -> RawAnswer | RemoteFailure:
        wire.deadline, wire.received = end, 0
        keep = False
        try:
            answer, keep = _ask(wire, url, headers, body)
            return answer
        except TimeoutError:
            return RemoteFailure(FailureKind.DEADLINE, "read")
        except http.client.RemoteDisconnected:
            return RemoteFailure(FailureKind.CLOSED, "closed")
        except http.client.IncompleteRead:  # also raised for a chunk whose size cannot be read
            return RemoteFailure(FailureKind.CLOSED if wire.has_ended else FailureKind.MALFORMED, "body")
        except (http.client.HTTPException, ValueError):
            return RemoteFailure(FailureKind.MALFORMED, "http")
        except OSError:
            return RemoteFailure(FailureKind.CLOSED, "closed")
        finally:
            if not (keep and self._give_back(place, wire)):
                wire.hang_up()

    def _take(self, place: _Place) -> Wire | None:
        """A kept-alive connection on which nothing has come in since its last answer."""
        while True:
            with self._lock:
                wires = self._idle.get(place)
                wire = wires.pop() if wires else None
            if wire is None or wire.is_quiet():
                return wire
            wire.hang_up()

    def _give_back(self, place: _Place, wire: Wire) -> bool:
        with self._lock:
            if self._closed:
                return False
            self._idle.setdefault(place, []).append(wire)
            return True


def _ask(
    wire: Wire, url: SplitResult, headers: Mapping[str, str], body: bytes
) -> tuple[RawAnswer | RemoteFailure, bool]:
    """One exchange, and whether the connection can carry another. Raises what `http.client` and sockets raise."""
    connection = http.client.HTTPConnection(url.netloc)
    connection.sock = wire  # as much of a socket as http.client uses
    connection.putrequest("POST", url.path or "/", skip_accept_encoding=True)
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body)
    wire.flush()
    response = http.client.HTTPResponse(wire, method="POST")  # type: ignore[arg-type]  # likewise
    response.begin()
    if wire.has_ended:  # http.client takes the end of the stream for the end of the head
        return RemoteFailure(FailureKind.CLOSED, "head.truncated"), False
    head = RawAnswer(response.status, tuple((name.lower(), value) for name, value in response.msg.items()), b"")
    failure = framing_failure(head)
    if failure is not None or response.msg.defects:
        return failure or RemoteFailure(FailureKind.MALFORMED, "header"), False
    return _read(wire, response, head)


def _read(wire: Wire, response: http.client.HTTPResponse, head: RawAnswer) -> tuple[RawAnswer | RemoteFailure, bool]:
    lengths = head.values("content-length")
    body = response.read(MAX_BODY + 1)
    if len(body) > MAX_BODY:
        return RemoteFailure(FailureKind.MALFORMED, "body.too_large"), False
    if lengths and len(body) != int(lengths[0]):
        return RemoteFailure(FailureKind.CLOSED, "body.truncated"), False
    answer = RawAnswer(head.status, head.headers, body)
    return answer, not response.will_close and wire.is_quiet()
