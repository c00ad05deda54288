"""One request on its way through an application, and through those mounted inside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from flask import Response
from werkzeug.exceptions import HTTPException

from authz_middleware.answer import Answer
from authz_middleware.facts import NO_PARAMS, RequestFacts
from authz_middleware.ledger import Ledger
from authz_middleware.pep import EnforcementPoint

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

KEY: Final = "authz.passage"


class Passage:
    """What gate and outer line know of one request, kept in its environ.

    `visit` is what the gate has let in and is still running, `routing` what the router answers by itself. While it
    `is_open` an outer line holds it: applications mounted inside share it and its ledger.
    """

    __slots__ = ("is_open", "ledger", "routing", "visit")

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.visit: object = None
        self.routing: HTTPException | None = None
        self.is_open = True


def passage_of(environ: WSGIEnvironment, pep: EnforcementPoint) -> Passage:
    """The passage of a request; a new one where no outer line has seen it, such as in a pushed test context."""
    passage = environ.get(KEY)
    if not isinstance(passage, Passage):
        passage = environ[KEY] = Passage(Ledger(pep))
    return passage


def facts_of(
    environ: WSGIEnvironment,
    *,
    method: str,
    route: str,
    endpoint: str,
    params: Mapping[str, Any] = NO_PARAMS,
    websocket: bool = False,
) -> RequestFacts:
    """The facts of a WSGI request. The client is `REMOTE_ADDR`: whoever has put a proxy fix into the application has
    said which proxies to believe, and no forwarded header is read here."""
    return RequestFacts(
        method=method,
        route=route,
        endpoint=endpoint,
        path_params={name: str(value) for name, value in params.items() if value is not None},
        protocol="websocket" if websocket else "http",
        client=environ.get("REMOTE_ADDR") or None,
        tls=environ.get("wsgi.url_scheme") in ("https", "wss"),
        traceparent=environ.get("HTTP_TRACEPARENT"),
    )


def path_of(environ: WSGIEnvironment) -> str:
    """The whole path of a request, with the prefix it is mounted under, as text."""
    path: str = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    return path.encode("latin-1", "replace").decode("utf-8", "replace")


def response_of(answer: Answer) -> Response:
    """An answer of the enforcement point as the return value of a view. A refusal is never raised: an error handler
    would make it something else."""
    return Response(answer.body, answer.status, list(answer.headers))
