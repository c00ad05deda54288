"""The treasury in Starlette."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from authz_middleware import AccessDenied
from authz_starlette import AuthzMiddleware
from tests.support.surfaces.asgi import AsgiSurface
from tests.support.treasury import ENDPOINTS, Endpoint, Handlers, loaders


def build(settings: dict[str, Any]) -> AsgiSurface:
    """The treasury behind the middleware, with error handlers that answer everything with 200."""
    handlers = Handlers()

    def handler(endpoint: Endpoint) -> Callable[[Request], Awaitable[Response]]:
        async def handle(request: Request) -> Response:
            return JSONResponse(await handlers.ahandle(endpoint, request.path_params.get("invoice_id", "")))

        return endpoint.annotate(handle)  # type: ignore[no-any-return]

    app = Starlette(
        routes=[
            Route(endpoint.path, handler(endpoint), methods=[endpoint.method], name=endpoint.name)
            for endpoint in ENDPOINTS
        ],
        exception_handlers=dict.fromkeys([Exception, 403, AccessDenied], welcome),
    )
    app.add_middleware(AuthzMiddleware, settings=settings, loaders=loaders(asynchronous=True))
    return AsgiSurface(app, handlers.ran)


async def welcome(request: Request, error: Exception) -> Response:
    """An error handler that makes everything look fine."""
    return JSONResponse({"ran": "error handler"})
