"""The one enforcement point of this process, shared by every handler that Django loads in it."""

from __future__ import annotations

import threading
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed

from authz_django.configuration import NAMES, read_render, read_settings, read_transports
from authz_django.endpoint import Endpoints
from authz_middleware.errors import AuthzError
from authz_middleware.pep import EnforcementPoint


class Enforcement:
    """The enforcement point and what has been read off the views under its settings."""

    __slots__ = ("endpoints", "pep")

    def __init__(self, pep: EnforcementPoint) -> None:
        self.pep = pep
        self.endpoints = Endpoints(pep.settings)


_lock = threading.Lock()
_current: Enforcement | None = None


def current() -> Enforcement:
    """This process's enforcement, made and started by the first call.

    Raises ImproperlyConfigured with every problem of the settings and the policy.
    """
    return _current or _begin()


def _begin() -> Enforcement:
    global _current  # noqa: PLW0603 - one a process is what this module is for
    with _lock:
        if _current is None:
            try:
                transport, async_transport = read_transports()
                pep = EnforcementPoint(
                    read_settings(), render=read_render(), transport=transport, async_transport=async_transport
                )
                pep.start()
            except AuthzError as error:
                raise ImproperlyConfigured(str(error)) from error
            _current = Enforcement(pep)
        return _current


def _settings_changed(*, setting: str, **_: Any) -> None:
    """Tests override settings: the next request asks a new enforcement point."""
    global _current
    if setting in NAMES:
        with _lock:
            outdated, _current = _current, None
        if outdated is not None:
            outdated.pep.close()


setting_changed.connect(_settings_changed, dispatch_uid="authz_django.enforcement")
