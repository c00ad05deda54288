"""The transport for blocking code: HTTP/1.1 over a small pool of kept-alive connections.

Bounded in time (the whole exchange, resolving and connecting included), in connections, and in bytes. Safe to
use from many threads and across `fork()`.
"""

from __future__ import annotations

import ssl
import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Lock
from typing import Final

from authz_middleware.forking import renew_in_children
from authz_middleware.remote.failure import FailureKind, RemoteFailure
from authz_middleware.remote.transport.client_tls import WRONG_SERVER, ClientTLS, tls_failure
from authz_middleware.remote.transport.protocol import RawAnswer
from authz_middleware.remote.transport.request import Place, Target, request_of, target_of
from authz_middleware.remote.transport.response import ResponseReader, heard_early
from authz_middleware.remote.transport.wire import Wire, connect, connect_local

BUSY: Final = RemoteFailure(FailureKind.BUSY, "connections", is_news=False)
UNSAYABLE: Final = RemoteFailure(FailureKind.UNASKABLE, "header")
WAIT_SHARE: Final = 0.5
"""The part of the deadline that may go by waiting for a connection to be free; the rest is for the question."""
IDLE_S: Final = 30.0
"""How long a connection is kept that nobody has needed."""


class HttpTransport:
    """Carries questions by blocking calls, over at most `max_connections` connections at a time.

    `tls` is what https connections are made with; without one an https URL is refused. With `unix_socket` the host of
    a URL is only spoken of, and everybody is reached there.
    """

    _idle: dict[Place, list[Wire]]
    _finalizer: weakref.finalize[..., HttpTransport] | None = None

    def __init__(
        self,
        *,
        max_connections: int = 64,
        tls: ClientTLS | None = None,
        unix_socket: Path | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_connections = max_connections
        self._tls = tls
        self._unix_socket = unix_socket
        self._monotonic = monotonic
        self._start_afresh()
        renew_in_children(self)

    def post(self, url: str, headers: Mapping[str, str], body: bytes, deadline: float) -> RawAnswer | RemoteFailure:
        """Post and read the whole answer within `deadline` seconds. What goes wrong is a RemoteFailure."""
        end = self._monotonic() + deadline
        free = self._free
        try:
            free.get(timeout=max(0.0, deadline * WAIT_SHARE))
        except Empty:
            return BUSY
        try:
            target = target_of(url)
            request = request_of(target, headers, body)
            return UNSAYABLE if request is None else self._exchange(target, request, end)
        finally:
            free.put(None)

    def close(self) -> None:
        """Close the connections that are not in use; those in use close when their answer has been read."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, {}
        _hang_up(wire for wires in idle.values() for wire in wires)

    def renew_after_fork(self) -> None:
        """Leave the parent's connections to the parent. Closing our copies does not end them."""
        idle = self._idle
        self._start_afresh()
        _hang_up(wire for wires in idle.values() for wire in wires)

    def _start_afresh(self) -> None:
        self._lock = Lock()
        self._idle = {}
        # At the end of the process, or when it is forgotten, nobody else closes what lies idle.
        if self._finalizer is not None:
            self._finalizer.detach()
        self._finalizer = weakref.finalize(self, _hang_up_all, self._idle)
        # One item for each connection that may still be in use. A semaphore is made of Python, and ten times as slow.
        self._free = SimpleQueue[None]()
        for _ in range(self._max_connections):
            self._free.put(None)
        self._closed = False

    def _exchange(self, target: Target, request: bytes, end: float) -> RawAnswer | RemoteFailure:
        if target.is_secure and self._tls is None:
            return RemoteFailure(FailureKind.CONFIG, "tls.missing")
        context = self._tls.context() if target.is_secure and self._tls is not None else None
        place = (target.is_secure, target.host, target.port, context)
        wire = self._take(place)
        if wire is not None:
            answer = self._speak(place, wire, request, end)
            # Closed by the other side before it read the question: it was idle for too long. Ask once more.
            if not (isinstance(answer, RemoteFailure) and answer.kind is FailureKind.CLOSED and not wire.received):
                return answer
        opened = self._open(place, end)
        return opened if isinstance(opened, RemoteFailure) else self._speak(place, opened, request, end)

    def _open(self, place: Place, end: float) -> Wire | RemoteFailure:
        is_secure, host, port, context = place
        try:
            if self._unix_socket is None:
                wire = connect(host, port, end, context, self._monotonic)
            else:
                wire = connect_local(self._unix_socket, host, end, context, self._monotonic)
        except TimeoutError:
            return RemoteFailure(FailureKind.DEADLINE, "connect")
        except ssl.SSLError as error:
            return tls_failure(error) or RemoteFailure(FailureKind.CONNECT, "tls")
        except (OSError, UnicodeError):
            return RemoteFailure(FailureKind.CONNECT, "connect")
        if is_secure and not (self._tls is not None and self._tls.accepts(wire.certificate)):
            wire.hang_up()
            return WRONG_SERVER
        return wire

    def _speak(self, place: Place, wire: Wire, request: bytes, end: float) -> RawAnswer | RemoteFailure:
        wire.deadline, wire.received = end, 0
        keep = False
        try:
            reader = ResponseReader()
            is_said = _is_said(wire, request)
            answer = None
            while answer is None:
                data = wire.receive()
                answer = reader.feed(data) if data else reader.end()
            keep = reader.is_reusable and is_said
            return answer if is_said else heard_early(answer)
        except TimeoutError:
            return RemoteFailure(FailureKind.DEADLINE, "read")
        except OSError as error:
            failure = tls_failure(error) if isinstance(error, ssl.SSLError) else None
            return failure or RemoteFailure(FailureKind.CLOSED, "closed")
        finally:
            if not (keep and self._give_back(place, wire)):
                wire.hang_up()

    def _take(self, place: Place) -> Wire | None:
        """A kept-alive connection on which nothing has come in since its last answer."""
        oldest = self._monotonic() - IDLE_S
        while True:
            with self._lock:
                wires = self._idle.get(place)
                wire = wires.pop() if wires else None
            if wire is None or (wire.idle_since >= oldest and wire.is_quiet()):
                return wire
            wire.hang_up()

    def _give_back(self, place: Place, wire: Wire) -> bool:
        now = self._monotonic()
        wire.idle_since = now
        with self._lock:
            if self._closed:
                return False
            self._idle.setdefault(place, []).append(wire)
            unneeded = self._unneeded(now)
        _hang_up(unneeded)
        return True

    def _is_superseded(self, place: Place) -> bool:
        context = place[3]
        return context is not None and self._tls is not None and not self._tls.is_current(context)

    def _unneeded(self, now: float) -> list[Wire]:
        """Take out the connections that nobody has needed for long, or that nobody may use any more."""
        unneeded = []
        for place in list(self._idle):
            if self._is_superseded(place):
                unneeded += self._idle.pop(place)
            elif (wires := self._idle[place]) and now - wires[0].idle_since > IDLE_S:
                unneeded.append(wires.pop(0))
        return unneeded


def _is_said(wire: Wire, request: bytes) -> bool:
    """Whether all of it could be sent. Whoever closes while being asked may have said why, and that waits to be read:
    in TLS 1.3 a certificate is refused only after the handshake."""
    try:
        wire.send(request)
    except TimeoutError:
        raise
    except OSError:
        return False
    return True


def _hang_up_all(idle: dict[Place, list[Wire]]) -> None:
    for wires in idle.values():
        _hang_up(wires)


def _hang_up(wires: Iterable[Wire]) -> None:
    for wire in wires:
        wire.hang_up()
