"""One request on its way through the routes: branches add their annotations, a leaf is decided on."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.routing import BaseRoute
from starlette.types import Receive, Scope, Send

from authz_middleware.authorization import Authorization
from authz_middleware.current import current_authorization
from authz_middleware.identity.connection.asgi import ASGICredentials
from authz_middleware.pep import EnforcementPoint
from authz_starlette.endpoint import Layers, application_layers, branch_of, endpoint_of
from authz_starlette.facts import facts_of, header_of
from authz_starlette.gate import KEY, Handle
from authz_starlette.handlers import target_of, wrapped_applications
from authz_starlette.included import context_of, layers_of
from authz_starlette.refusal import refuse_method, send_answer


class RequestPassage(msgspec.Struct):
    """What the gate finds in the scope of one request, at one place of the tree of routes.

    `taken` holds every authorization of the request, in order. `app` is the application that `layers` have led to.
    `above` is the passage of an outer `AuthzMiddleware`, when one application is mounted in another.
    """

    pep: EnforcementPoint
    taken: list[Authorization]
    layers: Layers
    app: Any
    above: RequestPassage | None = None

    async def enter(self, route: BaseRoute, handle: Handle, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a branch on, answer 405 for a method the leaf does not have, or decide and run the leaf."""
        app = scope.get("app")
        layers = self.layers if app is self.app else (*self.layers, *application_layers(app))
        context = context_of(route, scope) if "fastapi" in scope else None
        if context is not None:
            layers = layers_of(context, route, layers)
        branch = branch_of(route)
        if branch is not None:
            await self._pass_on(route, (*layers, *branch), handle, scope, receive, send)
            return
        methods = getattr(route, "methods", None)
        if methods and scope["type"] == "http" and scope["method"] not in methods:
            # Answered here rather than by the route, so that no route class can run a handler for it after all.
            await refuse_method(methods, scope, receive, send)
            return
        authorization = self._earlier_refusal() or await self.decide(route, layers, scope, context)
        if authorization.refusal is not None:
            await send_answer(authorization.refusal, scope, send)
            return
        scope["authz"] = authorization
        token = current_authorization.set(authorization)
        try:
            await self._pass_on(route, _layers_inside(route, layers), handle, scope, receive, send)
        finally:
            current_authorization.reset(token)

    async def decide(self, route: BaseRoute, layers: Layers, scope: Scope, context: Any) -> Authorization:
        """Ask every enforcement point that this request has come to, the outermost first. Never raises."""
        if self.above is not None:
            outer = await self.above.decide(route, (*self.above.layers, *layers), scope, context)
            if outer.refusal is not None:
                return outer
        try:
            endpoint = endpoint_of(route, scope.get("method", "GET"), layers, self.pep.settings, context)
            traceparent = header_of(scope, b"traceparent")
            facts = facts_of(scope, endpoint.route, endpoint.name, traceparent, endpoint.fields)
        except Exception as error:  # noqa: BLE001 - what cannot be read has not been permitted
            facts = facts_of({**scope, "path_params": None}, "", type(route).__qualname__)
            authorization = self.pep.refuse_failed(facts, error)
        else:
            authorization = await self.pep.aenforce(facts, ASGICredentials(scope), endpoint.requirement)
        self.taken.append(authorization)
        return authorization

    async def _pass_on(
        self, route: BaseRoute, layers: Layers, handle: Handle, scope: Scope, receive: Receive, send: Send
    ) -> None:
        # A new one each time: a handler may dispatch to several routes at once, on copies of the scope.
        scope[KEY] = RequestPassage(self.pep, self.taken, layers, scope.get("app"), self.above)
        try:
            await handle(route, scope, receive, send)
        finally:
            scope[KEY] = self

    def _earlier_refusal(self) -> Authorization | None:
        """The refusal of this request, which no other handler can make up for: an error handler may try one."""
        return next((taken for taken in self.taken if taken.refusal is not None), None) if self.taken else None


def _layers_inside(route: BaseRoute, layers: Layers) -> Layers:
    """What holds for the routes inside of a leaf. What a handler dispatches to is another matter, and starts anew."""
    if "endpoint" in route.__dict__:
        return ()
    target = target_of(route)
    return (*layers, route, target, *wrapped_applications(target))
