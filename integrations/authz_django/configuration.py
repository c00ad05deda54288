"""Where the adapter's own choices come from: `AUTHZ`, `BASE_DIR` and the functions that the Django settings name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from django.conf import settings as django_settings
from django.utils.module_loading import import_string

from authz_middleware.errors import Problem, SettingsError
from authz_middleware.refusals import Render
from authz_middleware.remote.transport.protocol import AsyncTransport, Transport
from authz_middleware.settings import Settings

NAMES: Final = frozenset({"AUTHZ", "AUTHZ_RENDER", "AUTHZ_TRANSPORT", "AUTHZ_ASYNC_TRANSPORT", "BASE_DIR"})


def read_settings() -> Settings:
    """The settings that `AUTHZ` holds (a mapping) or names (a TOML file). Relative paths start from `BASE_DIR`, where
    there is one; those inside a TOML file start from its folder.

    Raises SettingsError with every problem found.
    """
    source: Any = getattr(django_settings, "AUTHZ", None)
    base = Path(getattr(django_settings, "BASE_DIR", None) or Path.cwd())
    if isinstance(source, Settings):
        return source
    if isinstance(source, Mapping):
        return Settings.from_mapping(source, base)
    if isinstance(source, str | Path):
        return Settings.from_toml(base / source)
    raise SettingsError(
        [Problem("settings.AUTHZ", f"must be a mapping or the path of a TOML file, not {type(source).__name__}")]
    )


def read_render() -> Render | None:
    """The function that `AUTHZ_RENDER` names, which may replace headers and body of a refusal.

    Raises SettingsError when it names none.
    """
    render: Render | None = _named("AUTHZ_RENDER", "shop.refuse")  # what it answers is checked where it is called
    return render


def read_transports() -> tuple[Transport | None, AsyncTransport | None]:
    """What carries questions to the decision point in place of our own: what the functions (or classes) make that
    `AUTHZ_TRANSPORT` and `AUTHZ_ASYNC_TRANSPORT` name.

    Raises SettingsError when they name none.
    """
    make = _named("AUTHZ_TRANSPORT", "shop.transport")
    make_async = _named("AUTHZ_ASYNC_TRANSPORT", "shop.async_transport")
    return make and make(), make_async and make_async()


def _named(setting: str, example: str) -> Any:
    """The function whose dotted path a setting holds, or None where there is no such setting."""
    name: Any = getattr(django_settings, setting, None)
    if name is None:
        return None
    try:
        function = import_string(name)
    except (ImportError, AttributeError, TypeError, ValueError):
        function = None
    if not callable(function):
        raise SettingsError(
            [Problem(f"settings.{setting}", f"{name!r} must be the dotted path of a function, such as {example!r}")]
        )
    return function
