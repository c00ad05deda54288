"""`[remote.probe]`: two requests as AuthZEN has them, and what tells them apart."""

from __future__ import annotations

import copy
import json
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from authz_middleware.errors import SettingsError
from authz_middleware.settings import Settings
from authz_middleware.settings.remote.probe import ProbeSettings

SCHEMA = json.loads((Path(__file__).parents[1] / "vectors" / "authzen" / "evaluation-request.schema.json").read_text())
TOML = """
[app]
name = "billing"
environment = "production"
[[issuers]]
issuer = "https://idp.example.com/"
audience = ["billing-api"]
jwks_uri = "https://idp.example.com/jwks"
algorithms = ["ES256"]
max_lifetime = "15m"
[policy]
source = "billing.yaml"
allow_unsigned = true
[decision_log]
sink = "stdout"
[fallback]
default = "deny"
[remote]
url = "https://pdp.example.com"
[remote.probe.permit]
subject = { type = "workload", id = "probe", properties = { roles = ["probe"], level = 3 } }
action = { name = "probe:run" }
resource = { type = "probe", id = "1" }
context = { purpose = "probe" }
[remote.probe.deny]
subject = { type = "workload", id = "probe", properties = { roles = ["probe"] } }
action = { name = "probe:run" }
resource = { type = "probe", id = "1" }
context = { purpose = "none" }
"""


def settings(probe: object = ...) -> Settings:
    values = tomllib.loads(TOML)
    if probe is not ...:
        values["remote"]["probe"] = probe
    return Settings.from_mapping(values)


def request(**changes: Any) -> dict[str, Any]:
    whole: dict[str, Any] = {
        "subject": {"type": "user", "id": "alice"},
        "action": {"name": "read"},
        "resource": {"type": "record", "id": "1"},
    }
    return {name: value for name, value in {**whole, **changes}.items() if value is not ...}


def probe_of(*requests: dict[str, Any]) -> ProbeSettings:
    permit, deny = requests
    remote = settings({"permit": permit, "deny": deny}).remote
    assert remote is not None
    assert remote.probe is not None
    return remote.probe


def problems(probe: object) -> dict[str, str]:
    with pytest.raises(SettingsError) as caught:
        settings(probe)
    return {problem.where: problem.what for problem in caught.value.problems}


@pytest.mark.capability("C29")
def test_both_requests_are_kept_as_they_are_written() -> None:
    remote, written = settings().remote, tomllib.loads(TOML)["remote"]["probe"]
    assert remote is not None
    assert remote.probe is not None
    sent = {"permit": json.loads(remote.probe.permit), "deny": json.loads(remote.probe.deny)}
    assert sent == written
    for each in sent.values():
        jsonschema.validate(each, SCHEMA)


def test_without_the_table_there_is_no_probe() -> None:
    values = tomllib.loads(TOML)
    del values["remote"]["probe"]
    remote = Settings.from_mapping(values).remote
    assert remote is not None
    assert remote.probe is None


@pytest.mark.parametrize(
    ("changes", "differences"),
    [
        ({"context": {"purpose": "audit"}}, ("context",)),
        ({"subject": {"type": "user", "id": "bob"}}, ("subject.id",)),
        ({"action": {"name": "write"}, "resource": {"type": "record", "id": "2"}}, ("action.name", "resource.id")),
        ({"resource": {"type": "record", "id": "1", "properties": {"amount": 1}}}, ("resource.properties",)),
    ],
)
def test_the_members_that_differ_are_known(changes: dict[str, Any], differences: tuple[str, ...]) -> None:
    assert probe_of(request(), request(**changes)).differences == differences


@pytest.mark.parametrize(
    ("one", "other"),
    [(1, 2), (1, 1.0), (1, True), (["a"], ["b"]), ({"a": 1}, {"a": 2}), ({"a": 1}, {}), ("x", 1)],
)
def test_values_that_a_decision_point_tells_apart_differ(one: object, other: object) -> None:
    (where,) = probe_of(request(context={"v": one}), request(context={"v": other})).differences
    assert where.startswith("context.v")


def test_the_same_request_twice_proves_nothing() -> None:
    assert "same request twice" in problems({"permit": request(), "deny": request()})["remote.probe"]


@pytest.mark.parametrize(
    ("probe", "where"),
    [
        ("x", "remote.probe"),
        ({}, "remote.probe.permit"),
        ({"deny": request()}, "remote.probe.permit"),
        ({"permit": request()}, "remote.probe.deny"),
        ({"permit": request(), "deny": "x"}, "remote.probe.deny"),
        ({"permit": request(), "deny": request(context={}), "extra": 1}, "remote.probe.extra"),
    ],
)
def test_both_requests_are_needed_and_nothing_else(probe: object, where: str) -> None:
    assert where in problems(probe)


@pytest.mark.capability("C29")
@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"subject": ...}, "subject.type"),
        ({"subject": "alice"}, "subject"),
        ({"subject": {"type": "user"}}, "subject.id"),
        ({"subject": {"type": "", "id": "a"}}, "subject.type"),
        ({"subject": {"type": "user", "id": 7}}, "subject.id"),
        ({"subject": {"type": "user", "id": "a", "roles": []}}, "subject.roles"),
        ({"subject": {"type": "user", "id": "a", "properties": []}}, "subject.properties"),
        ({"subject": {"type": "user", "id": "a", "properties": {"x": None}}}, "subject.properties.x"),
        ({"subject": {"type": "user", "id": "\ud800"}}, "subject.id"),
        ({"action": {}}, "action.name"),
        ({"action": {"name": "read", "id": "1"}}, "action.id"),
        ({"resource": {"id": "1"}}, "resource.type"),
        ({"context": "x"}, "context"),
        ({"context": {"a": [1, {"b": None}]}}, "context.a[1].b"),
        ({"context": {"a": float("nan")}}, "context.a"),
        ({"context": {"a": 2**53}}, "context.a"),
        ({"options": {}}, "options"),
        ({"evaluations": []}, "evaluations"),
    ],
    ids=str,
)
@pytest.mark.parametrize("outcome", ["permit", "deny"])
def test_a_request_has_the_form_of_the_standard(changes: dict[str, Any], where: str, outcome: str) -> None:
    probe = {"permit": request(context={"a": 1}), "deny": request()}
    probe[outcome] = request(**changes)
    assert f"remote.probe.{outcome}.{where}" in problems(probe)


def test_changing_the_mapping_afterwards_changes_no_probe() -> None:
    permit, deny = request(context={"a": [1]}), request()
    before = copy.deepcopy(permit)
    probe = probe_of(permit, deny)
    permit["context"]["a"].append(2)
    assert json.loads(probe.permit) == before
