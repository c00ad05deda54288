"""Which decision point the demo uses, and that it says so."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from example_apps.demo import points
from example_apps.demo.points import HOW, point_of
from example_apps.demo.processes import ROOT, NotStartedError
from tests.support.cerbos import PACKAGE, VERSION, cerbos_binary


def test_the_demo_with_our_own_decision_point_ends_as_it_must(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "example_apps.demo", "--state", str(tmp_path), "--point", "authz"],
        check=False,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout
    assert done.stdout.startswith("the decision point is authz serve, of this project\n")


def test_an_installed_cerbos_is_the_decision_point(tmp_path: Path) -> None:
    binary = cerbos_binary()
    if not binary.is_relative_to(ROOT):
        pytest.skip("these tests run from a copy of the tree, and Cerbos is installed for the tree itself")
    point = point_of("auto", tmp_path)
    assert point.told == f"Cerbos {VERSION} ({binary.relative_to(ROOT)})"
    assert point.dialect == "cerbos"


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without Cerbos."""
    monkeypatch.setattr(points, "ROOT", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def test_without_cerbos_it_is_our_own_and_says_how_to_get_the_other(elsewhere: Path) -> None:
    point = point_of("auto", elsewhere)
    assert point.told.startswith("authz serve, of this project; Cerbos is not installed")
    assert HOW in point.told
    assert point.dialect == "authzen"


def test_who_asks_for_cerbos_and_has_none_is_told_how_to_get_it(elsewhere: Path) -> None:
    with pytest.raises(NotStartedError, match="npm install"):
        point_of("cerbos", elsewhere)


@pytest.mark.parametrize(("content", "mode"), [("", 0o755), ("#!/bin/sh\nexit 3\n", 0o755), ("no program", 0o644)])
def test_a_cerbos_that_does_not_run_here_is_none(elsewhere: Path, content: str, mode: int) -> None:
    program = elsewhere / "cerbos"
    program.write_text(content)
    program.chmod(mode)
    assert point_of("auto", elsewhere).dialect == "authzen"


def test_a_cerbos_on_the_path_is_used(elsewhere: Path) -> None:
    program = elsewhere / "cerbos"
    program.write_text("#!/bin/sh\necho 0.99.1\n")
    program.chmod(0o755)
    assert point_of("auto", elsewhere).told == f"Cerbos 0.99.1 ({program.name})"


def test_the_demo_names_the_version_that_the_tests_use() -> None:
    assert f"npm install --prefix .cache/cerbos {PACKAGE}@{VERSION}" == HOW
