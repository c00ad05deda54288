"""The guard of one application: a gate before its views and a line around all of it, which stay where they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from flask import Flask

from authz_flask.endpoint import Endpoints
from authz_flask.gate import Dispatch, Gate
from authz_flask.line import OuterLine
from authz_middleware.errors import SettingsError
from authz_middleware.pep import EnforcementPoint
from authz_middleware.startup import requirement_problems

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication


class Guard:
    """What `app.extensions["authz"]` holds. `pep` is the enforcement point of the application."""

    def __init__(self, app: Flask, pep: EnforcementPoint) -> None:
        self.app = app
        self.pep = pep
        self.endpoints = Endpoints(app, pep.settings)
        self.line = OuterLine(self, app.wsgi_app)
        self.gate = Gate(self, app.dispatch_request)
        self._is_checked = False

    def install(self) -> None:
        """Give the application a class of its own, with gate and line where Flask looks for what it calls."""
        cls = type(self.app)
        members = {"_authz_guard": self, "__module__": cls.__module__, "__qualname__": cls.__qualname__}
        self.app.__class__ = type(cls.__name__, (_GuardedApp, cls), members)

    def check_annotations(self) -> None:
        """Raise SettingsError for annotations that the settings cannot honour; silent for good once there are none."""
        if self._is_checked:
            return
        problems = []
        for rule in self.app.url_map.iter_rules():
            for method in sorted(rule.methods or ("GET",)):
                endpoint = self.endpoints.find(rule.endpoint, method)
                problems += requirement_problems(self.pep.settings, endpoint.name, endpoint.requirement)
        if problems:
            raise SettingsError(dict.fromkeys(problems))
        self._is_checked = True


class _GuardedApp:
    """Precedes the application's own class. Whatever is assigned to `app.wsgi_app` or `app.dispatch_request`, before
    or after, is called from behind the guard: neither order nor accident takes it away."""

    _authz_guard: ClassVar[Guard]

    @property
    def wsgi_app(self) -> Any:
        return self._authz_guard.line

    @wsgi_app.setter
    def wsgi_app(self, application: WSGIApplication) -> None:
        self._authz_guard.line = OuterLine(self._authz_guard, application)

    @wsgi_app.deleter
    def wsgi_app(self) -> None:
        self.wsgi_app = super().wsgi_app  # type: ignore[misc]

    @property
    def dispatch_request(self) -> Any:
        return self._authz_guard.gate

    @dispatch_request.setter
    def dispatch_request(self, dispatch: Dispatch) -> None:
        self._authz_guard.gate = Gate(self._authz_guard, dispatch)

    @dispatch_request.deleter
    def dispatch_request(self) -> None:
        self.dispatch_request = super().dispatch_request  # type: ignore[misc]
