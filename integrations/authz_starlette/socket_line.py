"""The outer line of a websocket. Each message, in or out, is a moment of action: the socket ends when its token expires
or is revoked, or when the policy no longer permits the endpoint."""

from __future__ import annotations

import asyncio
import contextlib

from starlette.types import Message, Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect

from authz_middleware.answer import Answer
from authz_middleware.pep import EnforcementPoint
from authz_starlette.outer_line import OuterLine
from authz_starlette.refusal import send_close
from authz_starlette.socket_watch import current_watch


class SocketEndedError(OSError):
    """The application sends on a websocket whose time is over. An `OSError`, as a server raises for a socket that the
    client has closed (ASGI specification, Disconnected Client)."""


class SocketLine(OuterLine):
    """Stands between the application and the server for one websocket."""

    __slots__ = ("_cut", "_deciding", "_receive")

    def __init__(self, pep: EnforcementPoint, scope: Scope, receive: Receive, send: Send) -> None:
        super().__init__(pep, scope, send)
        self._receive = receive
        self._deciding = asyncio.Lock()
        self._cut: Answer | None = None

    async def receive(self) -> Message:
        """Pass a message on to the application; what comes in after the end is a disconnect."""
        message = await self._receive()
        if message["type"] == "websocket.receive" and not self.stands():
            await self.reaffirm()
        if self._cut is not None:
            return {"type": "websocket.disconnect", "code": self._cut.websocket_code, "reason": ""}
        return message

    async def send(self, message: Message) -> None:
        """Pass a message on to the client. Raises SocketEndedError after the end."""
        if not self.stands():
            await self.reaffirm()
        if self._ended:
            raise SocketEndedError
        await super().send(message)
        if message["type"] == "websocket.accept" and self._started:
            current_watch().enter(self)

    def stands(self) -> bool:
        """Whether nothing has changed that the websocket rests on.

        A refusal is a change even where the application has caught it: it must not go on hearing whom it has refused.
        """
        if self._ended:
            return True
        return self._ledger.refusal is self._answered and all(authorization.stands() for authorization in self.taken)

    async def reaffirm(self) -> None:
        """Decide again on what has changed, and close the websocket where it is refused. Never raises."""
        async with self._deciding:  # whoever comes meanwhile waits for the outcome, and does not record another
            for authorization in self.taken:
                if not authorization.stands():
                    await authorization.areaffirm()
            refusal = self._ledger.refusal
            if refusal is not None and refusal is not self._answered and self._started and not self._ended:
                self._ended = True
                self._cut = refusal
                with contextlib.suppress(Exception):  # the client may have gone at the same moment
                    await send_close(refusal, self._send)

    def leave(self) -> None:
        """The application is done."""
        current_watch().leave(self)

    def explains(self, error: Exception) -> bool:
        """Whether an exception of the application is only about the refusal."""
        told = isinstance(error, WebSocketDisconnect) and self._ledger.refusal is not None
        return told or isinstance(error, SocketEndedError) or super().explains(error)
