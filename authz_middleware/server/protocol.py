"""uvicorn's HTTP protocol, with what a decision point needs of a connection and uvicorn does not give.

* The client certificate, in the form of the ASGI TLS extension (version 0.2).
* A time within which a request must have arrived and its answer been taken, and a size for all that is not its body:
  uvicorn bounds none of them, and who sends or reads a byte a minute keeps a connection for good.
* No trailers: they come after a caller has been judged by the headers, and are none (RFC 9110 section 6.5.1).
* No reading on while requests wait for their turn: uvicorn reads as fast as it is sent to, a gigabyte in seconds.
* A request that is here as a whole, as nearly all are, is answered where it stands: no task, no queue and no messages,
  which take longer than to decide. Every other request goes uvicorn's way, through the ASGI application.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Collection
from typing import Any, Final

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from authz_middleware.server.app import DecisionPointApp
from authz_middleware.server.exchange import CLOSE, EVERY_ANSWER, REQUEST_ID, Receive, Reply, Scope, Send, send_reply

MAX_HEAD: Final = 64 * 1024
"""Bytes after which the request line and the headers must be complete, or what comes after the body."""
ARRIVAL_S: Final = 10.0
"""Seconds for a request to arrive, where the configuration does not say: from the opening of the connection, or from
its first byte, to its last one. As long may an answer wait for who asked to read it."""

_HEADERS: Final = b"".join(b"%s: %s\r\n" % header for header in EVERY_ANSWER)


class _Flow(FlowControl):
    """uvicorn's flow control; does not read on before the last of the requests that are here has its turn."""

    def __init__(self, transport: asyncio.Transport, waiting: Collection[object]) -> None:
        super().__init__(transport)
        self._waiting = waiting

    def resume_reading(self) -> None:
        """Read on, where nothing waits."""
        if not self._waiting:
            super().resume_reading()


class DecisionPointProtocol(HttpToolsProtocol):
    """One connection."""

    _extensions: dict[str, Any] | None = None
    _timer: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None
    _is_partial = False
    _is_counted = True
    """Whether the piece at hand is nothing but head or trailers."""
    _head = 0
    _held: list[bytes] | None = None
    """The pieces of the body of a request that uvicorn has not been told of yet."""
    _own: DecisionPointApp | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """A connection: take the certificate that its TLS handshake has verified."""
        super().connection_made(transport)
        self.flow = _Flow(transport, self.pipeline)
        self._own = self.app if isinstance(self.app, DecisionPointApp) else None
        self._arm()
        tls = transport.get_extra_info("ssl_object")
        if tls is not None:
            self._extensions = {"tls": _tls_extension(tls.getpeercert(binary_form=True))}

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._disarm()
        super().connection_lost(exc)
        self._stop_waiting_for_reader()

    def pause_writing(self) -> None:
        """The other end does not read what it is answered."""
        super().pause_writing()
        self._unread = self._ending()

    def resume_writing(self) -> None:
        """It reads again."""
        super().resume_writing()
        self._stop_waiting_for_reader()

    def data_received(self, data: bytes) -> None:
        """Some bytes. Nearly always they are one request, whole."""
        super().data_received(data)
        if self._held is not None:
            self._hand_over()
        if self._is_partial and self._is_counted:
            self._head += len(data)
            if self._head > MAX_HEAD:
                self.transport.abort()
        self._is_counted = True
        if self._timer is None and (self._is_partial or self._is_idle()):
            self._arm()

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        # What else is in the piece that a head begins in is not of it, and a piece is of bounded size.
        self._is_partial, self._is_counted, self._head = True, False, 0
        if self._extensions is not None:
            self.scope["extensions"] = self._extensions

    def on_headers_complete(self) -> None:
        """The head of a request is here: hold it back where it may be answered at once, or not at all."""
        if self.transport.is_closing() or self._may_be_answered_at_once():
            self._held = []
        else:
            self._tell_uvicorn()
        self._head = 0
        self.headers = []  # those of the request are in its scope: what is still to come are trailers

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self._is_counted, self._head = False, 0
        if self._held is None:
            super().on_body(body)
        else:
            self._held.append(body)

    def on_message_complete(self) -> None:
        """A request is here, whole."""
        self._is_partial = False
        if self._timer is not None:
            self._disarm()
        held, self._held = self._held, None
        if held is None:
            super().on_message_complete()
        elif self._own is not None and not self.transport.is_closing():  # else the answer before was the last one
            self._answer_at_once(self._own, held[0] if len(held) == 1 else b"".join(held))

    def _may_be_answered_at_once(self) -> bool:
        """Whether it is a question, and nothing before it still waits for its answer, or to be read by the caller."""
        parser: Any = self.parser  # there is one as long as there is a connection
        if self._own is None or parser.get_method() != b"POST" or parser.get_http_version() != "1.1":
            return False
        path = self.url.decode("ascii", "replace")
        if path not in self._own.api.endpoints or parser.should_upgrade() or self.flow.write_paused:
            return False
        self.scope["method"], self.scope["path"] = "POST", path
        return self.cycle is None or self.cycle.response_complete

    def _is_idle(self) -> bool:
        """Whether nothing is under way, nor anything of uvicorn's bounds how long that may last."""
        return self.timeout_keep_alive_task is None and (self.cycle is None or self.cycle.response_complete)

    def _tell_uvicorn(self) -> None:
        super().on_headers_complete()
        parser: Any = self.parser  # likewise
        if parser.should_upgrade():
            self.cycle.keep_alive = False  # the parser takes whatever follows for another protocol

    def _hand_over(self) -> None:
        """Tell uvicorn of a request that was held back, and is not here as a whole."""
        held, self._held = self._held or [], None
        if self.transport.is_closing():
            return
        super().on_headers_complete()
        for piece in held:
            super().on_body(piece)

    def _answer_at_once(self, app: DecisionPointApp, body: bytes) -> None:
        parser: Any = self.parser  # likewise
        scope: Any = self.scope
        reply, request_id = app.api.answer(scope, body)
        if not isinstance(reply, Reply):
            self._answer_later(reply, request_id)
            return
        is_last = CLOSE in reply.headers or not parser.should_keep_alive()
        self.transport.write(self._written(reply, request_id, is_last))
        if is_last:
            self.transport.close()
        self.on_response_complete()

    def _answer_later(self, reply: Awaitable[Reply], request_id: bytes | None) -> None:
        """Have uvicorn send what has to be waited for, so that whatever comes after it waits as well."""

        async def answer(_: Scope, __: Receive, send: Send) -> None:
            await send_reply(send, await reply, request_id)

        app, self.app = self.app, answer
        super().on_headers_complete()
        self.app = app
        super().on_message_complete()

    def _written(self, reply: Reply, request_id: bytes | None, is_last: bool) -> bytes:
        written = [STATUS_LINE[reply.status], _HEADERS, b"content-length: %d\r\n" % len(reply.body)]
        written += [b"%s: %s\r\n" % header for header in (*self.server_state.default_headers, *reply.headers)]
        if request_id is not None:
            written += (REQUEST_ID, b": ", request_id, b"\r\n")
        if is_last and CLOSE not in reply.headers:
            written.append(b"connection: close\r\n")
        written += (b"\r\n", reply.body)
        return b"".join(written)

    def _ending(self) -> asyncio.TimerHandle:
        return self.loop.call_later(getattr(self.config, "arrival", ARRIVAL_S), self.transport.abort)

    def _stop_waiting_for_reader(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _arm(self) -> None:
        self._timer = self._ending()

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _tls_extension(certificate: bytes | None) -> dict[str, Any]:
    chain = [] if certificate is None else [ssl.DER_cert_to_PEM_cert(certificate)]
    return {"client_cert_chain": chain, "client_cert_error": None}
