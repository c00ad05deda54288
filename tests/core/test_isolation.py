"""What the core does not touch: frameworks when it is imported, sockets and files when it decides."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from authz_middleware import Settings, requires
from authz_middleware.facts import RequestFacts
from authz_middleware.pep import EnforcementPoint
from authz_middleware.permission import Requirement, annotations_of
from tests.support.tokens import bearer
from tests.support.treasury import settings, token

FRAMEWORKS = (
    "asgiref",
    "django",
    "fastapi",
    "flask",
    "rest_framework",
    "rich",
    "starlette",
    "typer",
    "uvicorn",
)

_watched: list[tuple[int, str]] = []
_watching: set[int] = set()


def _note(event: str, _: tuple[Any, ...]) -> None:
    if threading.get_ident() in _watching and (event == "open" or event.startswith("socket.")):
        _watched.append((threading.get_ident(), event))


sys.addaudithook(_note)


@contextmanager
def watched() -> Iterator[list[tuple[int, str]]]:
    """The sockets and files that this thread opens meanwhile."""
    _watched.clear()
    _watching.add(threading.get_ident())
    try:
        yield _watched
    finally:
        _watching.discard(threading.get_ident())


@pytest.mark.promise("P9")
def test_the_core_is_imported_without_any_framework() -> None:
    everything = (
        "import pkgutil, importlib, sys, authz_middleware\n"
        "for module in pkgutil.walk_packages(authz_middleware.__path__, 'authz_middleware.'):\n"
        "    if not module.name.startswith(('authz_middleware.server', 'authz_middleware.cli')) "
        "and not module.name.endswith(('redis_records', 'redis_follower')):\n"
        "        importlib.import_module(module.name)\n"
        f"print(sorted(set({FRAMEWORKS!r}) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", everything], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.promise("P10")
@pytest.mark.capability("C28")
def test_a_local_decision_opens_no_socket_and_no_file(tmp_path: Path) -> None:
    point = EnforcementPoint(Settings.from_mapping(settings(tmp_path)))
    point.start()
    asked = Requirement.of(annotations_of(requires("invoice:list")(lambda: None)))
    facts = RequestFacts(method="GET", route="/invoices", endpoint="app:list")
    credentials = bearer(token())
    with watched() as opened:
        assert point.enforce(facts, credentials, asked).refusal is None
    point.close()
    assert opened == []


def test_the_watch_sees_a_file_being_opened(tmp_path: Path) -> None:
    with watched() as opened:
        (tmp_path / "x").write_text("")
    assert [event for _, event in opened] == ["open"]
