"""The outer line: compares what leaves for one request with what was decided about it."""

from __future__ import annotations

from typing import Final

from starlette.types import Message, Scope, Send

from authz_middleware.answer import Answer
from authz_middleware.authorization import Authorization
from authz_middleware.errors import AccessDenied
from authz_middleware.facts import RequestFacts
from authz_middleware.ledger import DEGRADED_HEADER, Ledger, Outgoing
from authz_middleware.pep import EnforcementPoint
from authz_starlette.facts import facts_of, header_of
from authz_starlette.refusal import send_answer, send_close

_STARTS: Final = frozenset({"http.response.start", "websocket.http.response.start", "websocket.accept"})
_DEGRADED: Final = (DEGRADED_HEADER[0].encode(), DEGRADED_HEADER[1].encode())


class OuterLine:
    """Stands between the application and the server for one request."""

    __slots__ = ("_answered", "_ended", "_ledger", "_scope", "_send", "_started")

    def __init__(self, pep: EnforcementPoint, scope: Scope, send: Send) -> None:
        self._ledger = Ledger(pep)
        self._scope = scope
        self._send = send
        self._started = False
        self._ended = False
        self._answered: Answer | None = None

    @property
    def taken(self) -> list[Authorization]:
        """Every authorization of the request, in order."""
        return self._ledger.taken

    async def send(self, message: Message) -> None:
        """Pass a message on to the server, replace it, or hold it back."""
        refusal = self._ledger.refusal
        if self._ended:
            return
        if self._started:
            if refusal is self._answered:
                await self._send(message)
            else:
                await self._end(refusal)
        elif message["type"] in _STARTS:
            await self._start(message, refusal)
        elif message["type"] == "websocket.close":
            self._ended = True
            await self._send(message)
        elif self.taken and refusal is None:
            await self._send(message)

    async def settle(self, *, failed: bool) -> bool:
        """Once the application is done, see to it that a refusal has been sent; whether the client has got one.

        An application that `failed` before anything was decided is refused too: who knows what error handlers would
        answer for it.
        """
        refusal = self._ledger.refusal
        if self._started or self._ended:
            if not self._ended and refusal is not self._answered:
                await self._end(refusal)
        elif refusal is not None:
            await self._replace(refusal)
        elif failed and not self.taken:
            replacement = self._ledger.replacement(self._outgoing({"status": 500}), self._facts)
            if replacement is not None:
                await self._replace(replacement)
        return self._ended or self._answered is not None

    def leave(self) -> None:
        """The application is done."""

    def explains(self, error: Exception) -> bool:
        """Whether an exception of the application is only about the refusal."""
        return isinstance(error, AccessDenied)

    async def _start(self, message: Message, refusal: Answer | None) -> None:
        if refusal is not None or not self.taken:
            replacement = self._ledger.replacement(self._outgoing(message), self._facts)
            if replacement is not None:
                await self._replace(replacement)
                return
        self._started = True
        self._answered = refusal
        if self._ledger.degraded:
            message = {**message, "headers": [*message.get("headers", ()), _DEGRADED]}
        await self._send(message)

    async def _replace(self, answer: Answer) -> None:
        self._ended = True
        await send_answer(answer, self._scope, self._send)

    async def _end(self, refusal: Answer | None) -> None:
        """Let nothing more leave for a request that was refused midway: a websocket is closed, and a response that
        has begun is never completed, which the client sees."""
        self._ended = True
        if refusal is not None and self._scope["type"] == "websocket":
            await send_close(refusal, self._send)

    def _outgoing(self, message: Message) -> Outgoing:
        return Outgoing(
            status=message.get("status", 101),
            headers=((n.decode("latin-1"), v.decode("latin-1")) for n, v in message.get("headers", ())),
            method=self._scope.get("method", "GET"),
            path=self._scope["path"],
            origin=header_of(self._scope, b"origin"),
            requested_method=header_of(self._scope, b"access-control-request-method"),
        )

    def _facts(self) -> RequestFacts:
        return facts_of(self._scope, self._scope["path"], "")
