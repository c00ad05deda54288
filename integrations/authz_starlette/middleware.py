"""The middleware line. Pure ASGI: it sees HTTP and websockets, and it is the outermost line this library holds."""

from __future__ import annotations

import asyncio
from typing import Final

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect
from starlette.routing import Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from authz_middleware.answer import answer_for
from authz_middleware.decision import Decision, Reason
from authz_middleware.errors import AuthzError, SettingsError, describe
from authz_middleware.loaders import ResourceLoaders
from authz_middleware.pep import EnforcementPoint
from authz_middleware.refusals import Render
from authz_middleware.remote.transport.protocol import AsyncTransport, Transport
from authz_middleware.settings import Settings, SettingsSource
from authz_middleware.startup import requirement_problems
from authz_starlette import default, gate
from authz_starlette.endpoint import Layers, application_layers, endpoint_of, leaves
from authz_starlette.outer_line import OuterLine
from authz_starlette.passage import RequestPassage
from authz_starlette.refusal import send_answer
from authz_starlette.socket_line import SocketLine

_ENDS: Final = frozenset({"lifespan.shutdown.complete", "lifespan.shutdown.failed", "lifespan.startup.failed"})
_NOT_STARTED: Final = answer_for(Decision(permit=False, reason=Reason.POLICY_UNAVAILABLE), None, retry_after=1.0)

# Before any application runs: FastAPI keeps bound methods of the routes it has dispatched to.
gate.install()
default.install()


class AuthzMiddleware:
    """Authorization for a Starlette or FastAPI application.

        app.add_middleware(AuthzMiddleware, settings="authz.toml")

    Add it last, so that it stands outermost. `settings` is a mapping, a path or a `Settings`; `loaders`, `render` and
    the transports as for `EnforcementPoint`. Mistakes in settings or policy stop the server at start-up; without a
    lifespan they are raised by the first request, and every request after it. `pep` is the enforcement point, once it
    is started.
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: SettingsSource,
        *,
        loaders: ResourceLoaders | None = None,
        render: Render | None = None,
        transport: Transport | None = None,
        async_transport: AsyncTransport | None = None,
    ) -> None:
        self.app = app
        self.pep: EnforcementPoint | None = None
        self._settings = settings
        self._loaders = loaders
        self._render = render
        self._transport = transport
        self._async_transport = async_transport
        self._starting = asyncio.Lock()
        self._root: object = None
        self._layers: Layers = ()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one lifespan, request or websocket."""
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
            return
        gate.mend()
        pep = self.pep or await self._started_for(scope, send)
        above: RequestPassage | None = scope.get(gate.KEY)
        if above is not None:
            await self._nest(above, pep, scope, receive, send)
            return
        document = pep.document(scope["method"], scope["path"]) if scope["type"] == "http" else None
        if document is not None:
            await send_answer(document, scope, send)
            return
        line = OuterLine(pep, scope, send)
        if scope["type"] == "websocket":
            line = SocketLine(pep, scope, receive, send)
            receive = line.receive
        app = scope.get("app", self.app)
        if app is not self._root:
            self._root, self._layers = app, application_layers(app)
        scope[gate.KEY] = RequestPassage(pep, line.taken, self._layers, app)
        try:
            await self.app(scope, receive, line.send)
        except Exception as error:
            refused = not isinstance(error, ClientDisconnect) and await line.settle(failed=True)
            if not (refused and line.explains(error)):
                raise
        else:
            await line.settle(failed=False)
        finally:
            line.leave()
            del scope[gate.KEY]

    async def _nest(
        self, above: RequestPassage, pep: EnforcementPoint, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Serve inside of a request that is guarded already: mounted in another application, or called again by a
        handler of this one. The outer line stands; both enforcement points must permit."""
        app = scope.get("app")
        if above.pep is pep:
            within = RequestPassage(pep, above.taken, (*above.layers, *application_layers(app)), app, above.above)
        else:
            within = RequestPassage(pep, above.taken, application_layers(app), app, above)
        scope[gate.KEY] = within
        try:
            await self.app(scope, receive, send)
        finally:
            scope[gate.KEY] = above

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        startup = [await receive()]
        try:
            pep = await self._start(scope)
        except AuthzError as error:
            # Raised on, it would read to the server as an application without a lifespan, to be served all the same.
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        except Exception as error:  # noqa: BLE001 - likewise
            await send({"type": "lifespan.startup.failed", "message": f"authorization cannot start: {describe(error)}"})
            return

        async def receive_again() -> Message:
            return startup.pop() if startup else await receive()

        async def closing_send(message: Message) -> None:
            if message["type"] in _ENDS:
                await pep.aclose()
            await send(message)

        await self.app(scope, receive_again, closing_send)

    async def _started_for(self, scope: Scope, send: Send) -> EnforcementPoint:
        try:
            return await self._start(scope)
        except Exception:
            # The error is for the server's log; what an error handler would answer for it does not reach the client.
            await send_answer(_NOT_STARTED, scope, send)
            raise

    async def _start(self, scope: Scope) -> EnforcementPoint:
        async with self._starting:
            if self.pep is None:
                self.pep = await asyncio.to_thread(self._open, scope.get("app", self.app))
            return self.pep

    def _open(self, app: object) -> EnforcementPoint:
        pep = EnforcementPoint(
            Settings.of(self._settings),
            loaders=self._loaders,
            render=self._render,
            transport=self._transport,
            async_transport=self._async_transport,
        )
        try:
            pep.start()
            _check(app, pep)
        except BaseException:
            pep.close()
            raise
        return pep


def _check(app: object, pep: EnforcementPoint) -> None:
    """Raise SettingsError for annotations that these settings cannot honour."""
    if not isinstance(app, Starlette | Router):
        return
    problems = []
    for route, layers in leaves(app.routes, application_layers(app)):
        for method in getattr(route, "methods", None) or ("GET",):
            endpoint = endpoint_of(route, method, layers, pep.settings)
            problems += requirement_problems(pep.settings, endpoint.name, endpoint.requirement)
    if problems:
        raise SettingsError(dict.fromkeys(problems))
