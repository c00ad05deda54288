"""Every test in here ends with the same question: did a handler run that had not been permitted?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.starlette.guarded import Guard, recorders_of


@pytest.fixture
def make_guard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Guard]]:
    guards: list[Guard] = []

    def make(**changes: Any) -> Guard:
        guards.append(Guard(tmp_path_factory.mktemp("guard"), **changes))
        return guards[-1]

    yield make
    for made in guards:
        made.check()
        for recorder in recorders_of(made.folder):
            recorder.close()


@pytest.fixture
def guard(make_guard: Callable[..., Guard]) -> Guard:
    return make_guard()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path
