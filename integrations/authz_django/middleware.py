"""The middleware line. It decides in `process_view`, where Django has resolved the view and nothing of it has run,
and holds the outer line in `__call__`. Sync and async without a thread hop: not `MiddlewareMixin`, whose async costs
five bare requests."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, NoReturn, cast

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.core.exceptions import ImproperlyConfigured
from django.http import FileResponse, HttpRequest, StreamingHttpResponse
from django.http.response import HttpResponseBase

from authz_django import enforcement
from authz_django.checks import problems_of_urlconf
from authz_django.request import credentials_of, facts_of, response_of, seal_method
from authz_django.streaming import watch
from authz_middleware.authorization import Authorization
from authz_middleware.current import current_authorization
from authz_middleware.errors import AccessDenied, NoRequestError
from authz_middleware.facts import RequestFacts
from authz_middleware.identity.connection.credentials import Credentials
from authz_middleware.ledger import DEGRADED_HEADER, Ledger, Outgoing
from authz_middleware.permission import Requirement

KEY: Final = "authz.ledger"

Response = HttpResponseBase
GetResponse = Callable[[HttpRequest], Any]
Asked = tuple[RequestFacts, Credentials, Requirement]


class AuthzMiddleware:
    """Authorization for a Django project.

        MIDDLEWARE = ["authz_django.AuthzMiddleware", ...]

    First in the list, but for middleware that only redirects or adds headers. Raises ImproperlyConfigured, with every
    problem, when Django loads it and the settings, the policy or the annotations in the URLconf cannot be used.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response
        problems = problems_of_urlconf(enforcement.current().pep.settings)
        if problems:
            raise ImproperlyConfigured("\n".join(str(problem) for problem in dict.fromkeys(problems)))
        self._is_async = iscoroutinefunction(get_response)
        # Django runs a process_view of the other colour in a thread, or in an event loop of its own.
        self.process_view: Callable[..., Any] = self._process_view
        if self._is_async:
            markcoroutinefunction(self)
            self.process_view = self._aprocess_view

    def __call__(self, request: HttpRequest) -> Response | Awaitable[Response]:
        """Serve one request; in an async stack, the awaitable that does."""
        if self._is_async:
            return self.__acall__(request)
        document = _document(request)
        if document is not None:
            return document
        line = _OuterLine(request)
        token = current_authorization.set(_NOT_ROUTED)
        try:
            return line.compare(self.get_response(request))
        finally:
            current_authorization.reset(token)

    async def __acall__(self, request: HttpRequest) -> Response:
        """Serve one request on the event loop."""
        document = _document(request)
        if document is not None:
            return document
        line = _OuterLine(request)
        token = current_authorization.set(_NOT_ROUTED)
        try:
            return line.compare(await self.get_response(request))
        finally:
            current_authorization.reset(token)

    def process_exception(self, request: HttpRequest, exception: Exception) -> Response | None:
        """Answer the refusal of a check inside a view. Always synchronous in Django, and nothing here waits."""
        ledger = request.__dict__.get(KEY)
        if not isinstance(exception, AccessDenied) or not isinstance(ledger, Ledger):
            return None
        return None if ledger.refusal is None else response_of(ledger.refusal)

    def _process_view(
        self, request: HttpRequest, view: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Response | None:
        enforced = enforcement.current()
        asked = _asked(enforced, request, view, args, kwargs)
        if not isinstance(asked, Authorization):
            asked = enforced.pep.enforce(*asked)
        return _take(enforced, request, asked)

    async def _aprocess_view(
        self, request: HttpRequest, view: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Response | None:
        enforced = enforcement.current()
        asked = _asked(enforced, request, view, args, kwargs)
        if not isinstance(asked, Authorization):
            asked = await enforced.pep.aenforce(*asked)
        return _take(enforced, request, asked)


def _document(request: HttpRequest) -> Response | None:
    answer = enforcement.current().pep.document(request.method or "", request.path)
    return None if answer is None else response_of(answer)


def _asked(
    enforced: enforcement.Enforcement, request: HttpRequest, view: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Asked | Authorization:
    """What to decide about; or the refusal, where that cannot even be read."""
    match = request.resolver_match
    route = "" if match is None else match.route
    try:
        endpoint = enforced.endpoints.of(view, request.method or "", "" if match is None else match.view_name)
        facts = facts_of(request, route, endpoint.name, args, kwargs)
    except Exception as error:  # noqa: BLE001 - what cannot be read has not been permitted
        return enforced.pep.refuse_failed(facts_of(request, route, type(view).__qualname__), error)
    return facts, credentials_of(request), endpoint.requirement


def _take(enforced: enforcement.Enforcement, request: HttpRequest, authorization: Authorization) -> Response | None:
    """Note what was decided. None lets the view run."""
    ledger = request.__dict__.get(KEY)
    if isinstance(ledger, Ledger):
        # Without one, some middleware has exchanged the request: the outer line will let nothing leave.
        ledger.taken.append(authorization)
    if authorization.refusal is not None:
        return response_of(authorization.refusal)
    request.__dict__["authz"] = authorization
    current_authorization.set(authorization)
    if not enforced.pep.observes:
        seal_method(request)
    return None


class _OuterLine:
    """Compares what leaves for one request with what was decided about it."""

    __slots__ = ("_ledger", "_path", "_request")

    def __init__(self, request: HttpRequest) -> None:
        self._ledger = Ledger(enforcement.current().pep)
        self._path = request.path  # anything may change it in place
        self._request = request
        request.__dict__[KEY] = self._ledger

    def compare(self, response: Response) -> Response:
        replacement = self._ledger.replacement(self._outgoing(response), self._facts)
        if replacement is not None:
            refused = response_of(replacement)
            # Files and connections of what does not leave are let go of when its replacement is closed.
            refused._resource_closers += response._resource_closers  # type: ignore[attr-defined]  # noqa: SLF001
            return refused
        if self._ledger.degraded:
            response.headers[DEGRADED_HEADER[0]] = DEGRADED_HEADER[1]
        if isinstance(response, StreamingHttpResponse) and not isinstance(response, FileResponse):
            watch(response, self._ledger)
        return response

    def _outgoing(self, response: Response) -> Outgoing:
        meta = self._request.META
        return Outgoing(
            status=response.status_code,
            headers=response.headers.items(),
            method=self._request.method or "",
            path=self._path,
            origin=meta.get("HTTP_ORIGIN"),
            requested_method=meta.get("HTTP_ACCESS_CONTROL_REQUEST_METHOD"),
        )

    def _facts(self) -> RequestFacts:
        return facts_of(self._request, self._path, "")


class _NoPoint:
    """Stands for the enforcement point of a request that has not reached its view."""

    def __getattr__(self, name: str) -> NoReturn:
        raise NoRequestError("nobody is known yet to decide about: the request has not reached its view")


# What `authz` finds in a middleware before the view: one for all requests, since nothing can be noted on it.
_NOT_ROUTED: Final = Authorization(cast("Any", _NoPoint()), RequestFacts(method="", route="", endpoint=""), None)
