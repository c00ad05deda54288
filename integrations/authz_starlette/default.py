"""`Router.default`, behind the gate: what a router runs when no route matches may be an application of its own."""

from __future__ import annotations

from typing import Any

from starlette.routing import BaseRoute, Router
from starlette.types import ASGIApp, Receive, Scope, Send


class DefaultRoute(BaseRoute):
    """A router's default application as a leaf; being a route, it has the gate."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the default application."""
        await self.app(scope, receive, send)


class GatedDefault:
    """The attribute `default` of every router. The router's own 404 is handed out as it is."""

    def __get__(self, router: Router | None, owner: type[Router]) -> Any:
        if router is None:
            return self
        try:
            default = router.__dict__["default"]
        except KeyError:
            raise AttributeError("default") from None
        return default if getattr(default, "__func__", None) is Router.not_found else DefaultRoute(default).handle

    def __set__(self, router: Router, default: ASGIApp) -> None:
        gated = getattr(default, "__self__", None)
        router.__dict__["default"] = gated.app if isinstance(gated, DefaultRoute) else default


def install() -> None:
    """Put the attribute on `Router`. Idempotent."""
    if not isinstance(Router.__dict__.get("default"), GatedDefault):
        Router.default = GatedDefault()  # type: ignore[assignment]
