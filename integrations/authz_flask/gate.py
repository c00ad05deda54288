"""The gate: decides at the one place where Flask has chosen the endpoint and is about to run its view.

Flask ends in `app.dispatch_request()` for functions, class-based views, blueprints and static files. Hooks that
run before it may answer a request, but never run its view; what they answer, the outer line sees.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from flask import Request, g, request
from flask.typing import ResponseReturnValue

from authz_flask.passage import Passage, facts_of, passage_of, response_of
from authz_middleware.authorization import Authorization
from authz_middleware.current import current_authorization
from authz_middleware.errors import AccessDenied
from authz_middleware.identity.connection.wsgi import WSGICredentials

if TYPE_CHECKING:
    from authz_flask.guard import Guard

Dispatch = Callable[[], ResponseReturnValue]


class Visit(NamedTuple):
    """One view about to run with its arguments: what a decision is for, and for nothing else."""

    request: Request
    endpoint: str | None
    method: str
    arguments: dict[str, Any]


class Gate:
    """Stands in for `app.dispatch_request`. `inner` is the one it guards: Flask's, a subclass's, or whatever another
    extension has put there since."""

    __slots__ = ("_guard", "_inner")

    def __init__(self, guard: Guard, inner: Dispatch) -> None:
        self._guard = guard
        self._inner = inner

    def __call__(self) -> ResponseReturnValue:
        """Run the view when it is permitted, else return the refusal. Never raises the refusal."""
        current = request._get_current_object()  # type: ignore[attr-defined]  # noqa: SLF001 - as Flask documents
        passage = passage_of(current.environ, self._guard.pep)
        visit = Visit(current, current.endpoint, current.method, dict(current.view_args or {}))
        if passage.visit == visit:  # a gate inside of what this one guards: it was decided a moment ago
            return self._inner()
        ledger = passage.ledger
        if ledger.refusal is not None:
            return response_of(ledger.refusal)  # final: nothing more runs for this request
        passage.routing = current.routing_exception
        if passage.routing is not None:
            self._guard.app.raise_routing_exception(current)
        # Answered here rather than by `inner`, so that nothing can run a view for it after all.
        ledger.routed = current.method == "OPTIONS" and getattr(current.url_rule, "provide_automatic_options", False)
        if ledger.routed:
            return self._guard.app.make_default_options_response()
        enclosing = _enclosing()
        authorization = g.authz = self._decide(visit)
        ledger.taken.append(authorization)
        try:
            if authorization.refusal is not None:
                return response_of(authorization.refusal)
            return self._run(authorization, passage, visit)
        finally:
            if enclosing is not None:
                g.authz = enclosing

    def _decide(self, visit: Visit) -> Authorization:
        environ, rule, pep = visit.request.environ, visit.request.url_rule, self._guard.pep
        name = visit.endpoint or ""
        route = name if rule is None else rule.rule
        try:
            endpoint = self._guard.endpoints.find(name, visit.method)
            facts = facts_of(
                environ,
                method=visit.method,
                route=route,
                endpoint=endpoint.name,
                params=visit.arguments,
                websocket=rule is not None and rule.websocket,
            )
        except Exception as error:  # noqa: BLE001 - what cannot be read has not been permitted
            return pep.refuse_failed(facts_of(environ, method=visit.method, route=route, endpoint=name), error)
        return pep.enforce(facts, WSGICredentials(environ), endpoint.requirement)

    def _run(self, authorization: Authorization, passage: Passage, visit: Visit) -> ResponseReturnValue:
        token = current_authorization.set(authorization)
        outer, passage.visit = passage.visit, visit
        try:
            return self._inner()
        except AccessDenied:
            if authorization.refusal is None:  # raised by hand, or of another request
                raise
            return response_of(authorization.refusal)
        finally:
            passage.visit = outer
            current_authorization.reset(token)


def _enclosing() -> Authorization | None:
    """The authorization of the view that this request was made in, where Flask lets both share one `g`."""
    enclosing = current_authorization.get(None)
    return enclosing if enclosing is g.get("authz") else None
