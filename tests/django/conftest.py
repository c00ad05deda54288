"""Django is set up once for all tests here; each test then opens a site of its own."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import django
import pytest

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.django_project.settings")
django.setup()

from tests.django_project.site import Colour, Site, open_site  # noqa: E402 - needs Django set up

OpenSite = Callable[..., Site]


@pytest.fixture(params=["sync", "async"])
def colour(request: pytest.FixtureRequest) -> Colour:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def site(tmp_path: Path, colour: Colour) -> Iterator[OpenSite]:
    """Opens a site in either colour, and closes it after the test."""
    with ExitStack() as stack:

        def enter(*patterns: Any, **options: Any) -> Site:
            return stack.enter_context(open_site(tmp_path, colour, *patterns, **options))

        yield functools.partial(enter)
