"""Every framework, by name."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from tests.support.surfaces.surface import Surface

FRAMEWORKS: Final = ("starlette", "fastapi", "flask", "django_sync", "django_async")


@contextmanager
def open_surface(framework: str, settings: dict[str, Any]) -> Iterator[Surface]:
    """The treasury served by one framework under these settings."""
    module, _, colour = framework.partition("_")
    build = importlib.import_module(f"tests.support.surfaces.{module}_surface").build
    surface: Surface = build(settings, colour) if colour else build(settings)
    try:
        yield surface
    finally:
        surface.close()
