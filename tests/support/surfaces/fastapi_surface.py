"""The treasury in FastAPI: an included router, synchronous handlers in its thread pool."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, FastAPI, Request

from authz_middleware import AccessDenied
from authz_starlette import AuthzMiddleware
from tests.support.surfaces.asgi import AsgiSurface
from tests.support.surfaces.starlette_surface import welcome
from tests.support.treasury import ENDPOINTS, Endpoint, Handlers, loaders


def build(settings: dict[str, Any]) -> AsgiSurface:
    """The treasury behind the middleware, with error handlers that answer everything with 200."""
    handlers = Handlers()

    def handler(endpoint: Endpoint) -> Callable[[Request], dict[str, str]]:
        def handle(request: Request) -> dict[str, str]:
            return handlers.handle(endpoint, request.path_params.get("invoice_id", ""))

        return endpoint.annotate(handle)  # type: ignore[no-any-return]

    router = APIRouter()
    for endpoint in ENDPOINTS:
        router.add_api_route(endpoint.path, handler(endpoint), methods=[endpoint.method], name=endpoint.name)
    app = FastAPI(exception_handlers=dict.fromkeys([Exception, 403, AccessDenied], welcome))
    app.include_router(router)
    app.add_middleware(AuthzMiddleware, settings=settings, loaders=loaders(asynchronous=False))
    return AsgiSurface(app, handlers.ran)
