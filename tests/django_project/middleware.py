"""Middleware that real projects have, each of which could get around an authorization that is not careful."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpRequest, HttpResponse

from authz_middleware import NoRequestError, authz
from authz_middleware.current import current_authorization


class Dual:
    """Both colours of a middleware in one: `before` may answer, `after` may exchange the answer."""

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[..., Any]) -> None:
        self.get_response = get_response
        self.is_async = iscoroutinefunction(get_response)
        if self.is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Any:
        if self.is_async:
            return self.acall(request)
        return self.before(request) or self.after(request, self.get_response(request))

    async def acall(self, request: HttpRequest) -> Any:
        return self.before(request) or self.after(request, await self.get_response(request))

    def before(self, request: HttpRequest) -> HttpResponse | None:
        return None

    def after(self, request: HttpRequest, response: Any) -> Any:
        return response


class Welcome(Dual):
    """Answers everything that went wrong with 200."""

    def after(self, request: HttpRequest, response: Any) -> Any:
        return HttpResponse("welcome") if response.status_code >= 400 else response

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse:
        return HttpResponse("welcome")


class Kiosk(Dual):
    """Serves `/kiosk/` itself."""

    def before(self, request: HttpRequest) -> HttpResponse | None:
        return HttpResponse("from the kiosk") if request.path == "/kiosk/" else None


class FallbackPage(Dual):
    """Serves a page where there is no view, as flat pages do."""

    def after(self, request: HttpRequest, response: Any) -> Any:
        return HttpResponse("a flat page") if response.status_code == 404 else response


class Preflight(Dual):
    """Answers CORS preflights, with more in the body than there should be."""

    def before(self, request: HttpRequest) -> HttpResponse | None:
        if request.method != "OPTIONS" or "Access-Control-Request-Method" not in request.headers:
            return None
        headers = {"Access-Control-Allow-Origin": "https://shop.example", "X-Secret": "of the kiosk"}
        return HttpResponse("from the kiosk", headers=headers)


class MethodOverride(Dual):
    """Takes the method from a header once the view is resolved, as packages for HTML forms do."""

    def process_view(self, request: HttpRequest, view: Any, args: Any, kwargs: Any) -> None:
        request.method = request.headers.get("X-HTTP-Method-Override", request.method)


class EarlyMethodOverride(Dual):
    """Takes the method from a header before the view is resolved."""

    def before(self, request: HttpRequest) -> None:
        request.method = request.headers.get("X-HTTP-Method-Override", request.method)


class SyncOnly:
    """A middleware from before async Django."""

    def __init__(self, get_response: Callable[..., Any]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> Any:
        return self.get_response(request)


class AsyncOnly:
    """A middleware that knows nothing but async."""

    sync_capable = False
    async_capable = True

    def __init__(self, get_response: Callable[..., Any]) -> None:
        self.get_response = get_response
        markcoroutinefunction(self)

    async def __call__(self, request: HttpRequest) -> Any:
        return await self.get_response(request)


class Again(Dual):
    """Sends a request that failed in a second time, to the path that a header names."""

    def __call__(self, request: HttpRequest) -> Any:
        if self.is_async:
            return self.acall(request)
        self.get_response(request)
        return self.get_response(self.redirected(request))

    async def acall(self, request: HttpRequest) -> Any:
        await self.get_response(request)
        return await self.get_response(self.redirected(request))

    def redirected(self, request: HttpRequest) -> HttpRequest:
        request.path = request.path_info = request.headers["X-Again"]
        return request


class ChecksLate(Dual):
    """Checks a permission where nobody turns the refusal into a response."""

    def after(self, request: HttpRequest, response: Any) -> Any:
        authz.check("invoice:amend")
        return response

    async def acall(self, request: HttpRequest) -> Any:
        response = await self.get_response(request)
        await authz.acheck("invoice:amend")
        return response


class ChecksEarly(Dual):
    """Checks a permission before it is known who asks, and says what came of it."""

    def before(self, request: HttpRequest) -> None:
        try:
            authz.check("invoice:read")
        except NoRequestError as error:
            request.META["test.early"] = str(error)


class SeesContext(Dual):
    """Stands outside and tells which authorization it can see before and after."""

    def before(self, request: HttpRequest) -> None:
        request.META["test.before"] = current_authorization.get(None)

    def after(self, request: HttpRequest, response: Any) -> Any:
        response["X-Left-Behind"] = str(current_authorization.get(None) is not request.META["test.before"])
        return response


class Exchange(Dual):
    """Hands on another request than the one it was given."""

    def acall(self, request: HttpRequest) -> Any:
        return self.get_response(self.other(request))

    def __call__(self, request: HttpRequest) -> Any:
        return self.get_response(self.other(request))

    def other(self, request: HttpRequest) -> HttpRequest:
        other = HttpRequest()
        for name in ("META", "method", "path", "path_info"):
            setattr(other, name, getattr(request, name))
        return other
