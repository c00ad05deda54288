"""Where the adapter's own choices come from: `AUTHZ`, `AUTHZ_RENDER` and `BASE_DIR` in the Django settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from django.conf import settings as django_settings
from django.utils.module_loading import import_string

from authz_middleware.errors import Problem, SettingsError
from authz_middleware.refusals import Render
from authz_middleware.settings import Settings

NAMES: Final = frozenset({"AUTHZ", "AUTHZ_RENDER", "BASE_DIR"})


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
    name: Any = getattr(django_settings, "AUTHZ_RENDER", None)
    if name is None:
        return None
    try:
        render = import_string(name)
    except (ImportError, AttributeError, TypeError, ValueError):
        render = None
    if not callable(render):
        raise SettingsError(
            [Problem("settings.AUTHZ_RENDER", f"{name!r} must be the dotted path of a function, such as 'shop.refuse'")]
        )
    return render  # type: ignore[no-any-return]  # what it answers is checked where it is called
