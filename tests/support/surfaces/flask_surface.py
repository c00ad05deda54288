"""The treasury in Flask."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from flask import Flask
from werkzeug.exceptions import MethodNotAllowed, NotFound

from authz_flask import Authz
from tests.support.surfaces.surface import Reply
from tests.support.treasury import ENDPOINTS, Endpoint, Handlers, loaders


class FlaskSurface:
    """A Flask application called without a socket."""

    def __init__(self, app: Flask, authz: Authz, ran: list[str]) -> None:
        self.ran = ran
        self._authz = authz
        self._client = app.test_client()

    def request(self, method: str, path: str, headers: Mapping[str, str]) -> Reply:
        """Send one request."""
        reply = self._client.open(path, method=method, headers=dict(headers))
        return Reply(reply.status_code, {k.lower(): v for k, v in reply.headers.items()}, reply.data)

    def close(self) -> None:
        """Stop the enforcement point."""
        self._authz.pep.close()


def build(settings: dict[str, Any]) -> FlaskSurface:
    """The treasury behind the extension, with error handlers that answer everything with 200."""
    handlers = Handlers()
    app = Flask("treasury", static_folder=None)

    def view(endpoint: Endpoint) -> Callable[..., dict[str, str]]:
        def handle(invoice_id: str = "", user: str = "") -> dict[str, str]:
            return handlers.handle(endpoint, invoice_id)

        return endpoint.annotate(handle)  # type: ignore[no-any-return]

    for endpoint in ENDPOINTS:
        rule = endpoint.path.replace("{", "<").replace("}", ">")
        app.add_url_rule(rule, endpoint.name, view(endpoint), methods=[endpoint.method])
    for error in (Exception, 403):
        app.register_error_handler(error, welcome)
    authz = Authz(app, settings=settings, loaders=loaders(asynchronous=False))
    return FlaskSurface(app, authz, handlers.ran)


def welcome(error: Exception) -> Any:
    """An error handler that makes everything look fine but what the router itself says."""
    if isinstance(error, NotFound | MethodNotAllowed):
        return error
    return {"ran": "error handler"}, 200
