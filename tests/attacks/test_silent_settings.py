"""A setting that can mean nothing is refused, never ignored."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from authz_middleware.errors import SettingsError
from authz_middleware.settings import Settings
from authz_middleware.settings.model import covers
from tests.support.treasury import settings

Change = Callable[[dict[str, Any]], object]


def _handler(**entry: Any) -> Change:
    return lambda values: values["handlers"].update(x={"action": "note:read", **entry})


CHANGES: dict[str, Change] = {
    "sensitive suffix": lambda values: values["app"].update(sensitive=["*:delete"]),
    "sensitive with a space": lambda values: values["app"].update(sensitive=["invoice:approve "]),
    "sensitive inner star": lambda values: values["app"].update(sensitive=["invoice:*:pay"]),
    "sensitive no action": lambda values: values["app"].update(sensitive=["invoice approve"]),
    "fallback suffix": lambda values: values["fallback"]["actions"].update({"*:export": {"mode": "deny"}}),
    "fallback no action": lambda values: values["fallback"]["actions"].update({"invoice export": {"mode": "deny"}}),
    "handler inner star": lambda values: values["handlers"].update({"*delete*": {"action": "a:b"}}),
    "no kinds": _handler(kinds=()),
    "no tasks": _handler(task=()),
    "no purposes": _handler(purpose=()),
    "kinds listed empty": _handler(kinds=[]),
    "kinds as text": _handler(kinds="human"),
    "kinds unknown": _handler(kinds=["person"]),
    "sensitive as text": _handler(sensitive="true"),
    "no audience": lambda values: values["issuers"][0].update(audience=()),
    "no algorithms": lambda values: values["issuers"][0].update(algorithms=()),
    "no token types": lambda values: values["issuers"][0].update(token_types=()),
    "preset not a name": lambda values: values["issuers"][0].update(claims={"preset": ["rfc9068"]}),
    "half an address": lambda values: values["remote"].update(url="https://[::1"),
    "no such port": lambda values: values["remote"].update(url="https://pdp.example:99999"),
    "half an address of keys": lambda values: values["issuers"][0].update(jwks=None, jwks_uri="https://[::1"),
    "bound of a deny": lambda values: values["fallback"]["actions"].update(a={"mode": "deny", "max_stale": "9s"}),
    "open everything": lambda values: values["handlers"].update({"**": {"public": {"reason": "r", "owner": "o"}}}),
    "mode in capitals": lambda values: values["app"].update(mode="Observe"),
    "one issuer twice": lambda values: values.update(issuers=values["issuers"] * 2),
    "literal secret": lambda values: values["remote"].update(credential="s3cr3t-canary"),
}


@pytest.mark.promise("P2")
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_setting_that_means_nothing_is_reported(tmp_path: Path, change: Change) -> None:
    values = settings(tmp_path)
    values["issuers"] = [dict(issuer) for issuer in values["issuers"]]
    change(values)
    with pytest.raises(SettingsError) as found:
        Settings.of(values)
    assert "s3cr3t-canary" not in str(found.value)


@pytest.mark.parametrize(
    ("pattern", "name", "covered"),
    [
        ("admin:*", "admin:index", True),
        ("admin:*", "admin", False),
        ("admin:*", "administrator:index", False),
        ("admin", "admin:index", False),
        ("admin*", "administrator", True),
    ],
)
def test_a_pattern_by_name_covers_what_it_says(pattern: str, name: str, covered: bool) -> None:
    assert covers(pattern, name) is covered
