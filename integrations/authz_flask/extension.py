"""The Flask extension: reads the settings, starts the enforcement point and puts the guard around the application."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Final

from flask import Flask

from authz_flask.guard import Guard
from authz_flask.point import BlockingPoint
from authz_middleware.errors import Problem, SettingsError
from authz_middleware.loaders import ResourceLoaders
from authz_middleware.pep import EnforcementPoint
from authz_middleware.refusals import Render
from authz_middleware.remote.transport.protocol import Transport
from authz_middleware.settings import Settings, SettingsSource

CONFIG_KEY: Final = "AUTHZ"
EXTENSION: Final = "authz"


class Authz:
    """Authorization for a Flask application.

        app.config["AUTHZ"] = "authz.toml"
        Authz(app)

    or `authz = Authz()` and `authz.init_app(app)` in an application factory, for any number of applications. The
    settings are a mapping, the path of a TOML file or a `Settings`, given here or as `app.config["AUTHZ"]`; relative
    paths start from `app.root_path`. `loaders`, `render` and `transport` as for `EnforcementPoint`.

    Where in the set-up it stands does not matter: views, blueprints, WSGI middleware and mounted applications that are
    added to the application later are guarded as well. What is wrapped around the application object itself
    (`DispatcherMiddleware(app, ...)`) stands outside.

    A view finds its `Authorization` as `flask.g.authz` or through `authz_middleware.authz`. In an `async def` view
    `check` blocks only the event loop that Flask has made for this one request, and `acheck` works as well.
    """

    def __init__(
        self,
        app: Flask | None = None,
        settings: SettingsSource | None = None,
        *,
        loaders: ResourceLoaders | None = None,
        render: Render | None = None,
        transport: Transport | None = None,
    ) -> None:
        self._settings = settings
        self._loaders = loaders
        self._render = render
        self._transport = transport
        self._pep: EnforcementPoint | None = None
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Guard an application. Loads policy and keys now, so that a server may fork afterwards.

        `app.extensions["authz"]` is its `Guard`. Raises SettingsError or PolicyError when the application must not
        start. Annotations that the settings cannot honour are found with the first request, which raises, as does
        every request after it.
        """
        if EXTENSION in app.extensions:
            raise SettingsError([Problem("Authz", f"already guards {app.name!r}: it is set up once an application")])
        settings = _settings_of(app, self._settings)
        pep = BlockingPoint(settings, loaders=self._loaders, render=self._render, transport=self._transport)
        try:
            pep.start()
        except BaseException:
            pep.close()
            raise
        self._pep = pep
        guard = app.extensions[EXTENSION] = Guard(app, pep)
        guard.install()

    @property
    def pep(self) -> EnforcementPoint:
        """The enforcement point of the application; of several, the last one that was guarded."""
        if self._pep is None:
            raise RuntimeError("init_app has not been called yet")
        return self._pep


def _settings_of(app: Flask, given: SettingsSource | None) -> Settings:
    source: object = app.config.get(CONFIG_KEY) if given is None else given
    base = Path(app.root_path)
    if isinstance(source, Settings):
        return source
    if isinstance(source, Mapping):
        return Settings.from_mapping(source, base)
    if isinstance(source, str | PathLike):
        return Settings.from_toml(base / source)
    raise SettingsError(
        [Problem(f'app.config["{CONFIG_KEY}"]', f"must be a mapping or the path of a TOML file, not {type(source)!r}")]
    )
