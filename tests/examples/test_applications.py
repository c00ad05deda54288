"""The four example applications are small, start by the command they state, and offer the same routes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from authz_middleware.policy.cases import run_cases
from authz_middleware.policy.compiler import compile_policy
from authz_middleware.policy.document import read_policy
from authz_middleware.settings import Settings
from example_apps.demo.__main__ import APPS

EXAMPLES = Path(__file__).parents[2] / "example_apps"
FOLDERS = ("starlette_app", "fastapi_app", "django_app", "flask_app")
ENTRIES = {"starlette_app": "app.py", "fastapi_app": "app.py", "django_app": "wsgi.py", "flask_app": "app.py"}


@pytest.mark.parametrize("folder", FOLDERS)
def test_an_application_has_less_than_150_lines(folder: str) -> None:
    assert sum(len(path.read_text().splitlines()) for path in (EXAMPLES / folder).glob("*.py")) < 150


@pytest.mark.parametrize(("folder", "name"), list(zip(FOLDERS, APPS, strict=True)))
def test_the_demo_starts_an_application_by_the_command_that_it_states(folder: str, name: str) -> None:
    stated = (EXAMPLES / folder / ENTRIES[folder]).read_text().split('"""')[1].strip().splitlines()[-1]
    used = [word for word in APPS[name][:-1] if not word.startswith("--no-")]  # what they write beside answering
    assert stated.split() == used


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_settings_hold(folder: str) -> None:
    settings = Settings.from_toml(EXAMPLES / folder / "authz.toml")
    assert settings.policy.source.resolve() == EXAMPLES / "treasury.yaml"


def test_the_settings_differ_in_the_name_of_the_application_only() -> None:
    texts = [
        re.sub(folder.removesuffix("_app"), "NAME", (EXAMPLES / folder / "authz.toml").read_text())
        for folder in FOLDERS
    ]
    assert set(texts) == {texts[0]}


@pytest.mark.capability("C7")
@pytest.mark.parametrize("name", ["treasury.yaml", "pdp.yaml"])
def test_the_policies_pass_their_own_tests(name: str) -> None:
    policy = read_policy(EXAMPLES / name)
    assert policy.tests
    assert run_cases(policy, compile_policy(policy)) == ()
