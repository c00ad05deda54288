"""An office of its own for each test, closed afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.flask.office import Office


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    """Guards applications, calls them, and reads what was recorded about it."""
    office = Office(tmp_path)
    yield office
    office.close()
