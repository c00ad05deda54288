"""The decision point goes away and comes back: what was chosen beforehand is what happens, in every framework."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.decision_point import DecisionPointProcess, free_port
from tests.support.surfaces.all import FRAMEWORKS, open_surface
from tests.support.surfaces.surface import Reply, Surface
from tests.support.treasury import records, settings, token

pytestmark = pytest.mark.parametrize("framework", FRAMEWORKS)


@pytest.fixture
def point(tmp_path: Path) -> Iterator[DecisionPointProcess]:
    with DecisionPointProcess(tmp_path) as process:
        yield process


def ask(surface: Surface, request: str, credential: str) -> Reply:
    method, path = request.split()
    return surface.request(method, path, {"Authorization": f"Bearer {credential}"})


def fallbacks(folder: Path) -> list[Any]:
    return [
        (record["authz"]["fallback"]["mode"], record["result"])
        for record in records(folder)
        if "fallback" in record["authz"]
    ]


@pytest.mark.capability("C30", "C31", "C32")
def test_deny_degrade_and_cached_hold_while_it_is_away_and_end_when_it_is_back(
    framework: str, tmp_path: Path, point: DecisionPointProcess
) -> None:
    chosen = settings(tmp_path, remote=point.url)
    chosen["remote"]["breaker"] = {"failures": 1000, "pause": "10ms"}
    manager = token(roles=["manager"])
    with open_surface(framework, chosen) as surface:
        assert ask(surface, "POST /invoices/1/approve", manager).status == 200
        assert ask(surface, "POST /export", manager).status == 200

        point.stop()
        denied = ask(surface, "POST /invoices/1/approve", manager)
        assert (denied.status, "retry-after" in denied.headers) == (503, True)
        read = ask(surface, "GET /reports", manager)
        assert (read.status, read.headers.get("authz-degraded")) == (200, "true")
        assert ask(surface, "POST /reports/run", manager).status == 503
        exported = ask(surface, "POST /export", manager)
        assert (exported.status, exported.headers.get("authz-degraded")) == (200, None)
        assert ask(surface, "POST /export", token(roles=["manager"])).status == 503

        point.start()
        assert ask(surface, "POST /invoices/1/approve", manager).status == 200
        back = ask(surface, "GET /reports", manager)
        assert (back.status, back.headers.get("authz-degraded")) == (200, None)
        assert surface.ran == ["approve", "export", "read_report", "export", "approve", "read_report"]
    assert fallbacks(tmp_path) == [
        ("deny", False),
        ("degrade", True),
        ("degrade", False),
        ("cached", True),
        ("cached", False),
    ]


@pytest.mark.capability("C28")
def test_what_is_not_sensitive_is_decided_without_the_decision_point(framework: str, tmp_path: Path) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    with open_surface(framework, settings(tmp_path, remote=nobody)) as surface:
        assert ask(surface, "GET /invoices/1", token()).status == 200
        assert ask(surface, "POST /export", token()).status == 503


@pytest.mark.capability("C46")
def test_observing_refuses_nothing_and_records_every_refusal_it_would_have_made(framework: str, tmp_path: Path) -> None:
    with open_surface(framework, settings(tmp_path, mode="observe")) as surface:
        for request in ("GET /undeclared", "GET /invoices/2", "GET /amend/2"):
            assert ask(surface, request, token()).status == 200
        assert surface.request("GET", "/invoices", {}).status == 200
        assert surface.ran == ["undeclared", "read_invoice", "amend", "list_invoices"]
    shadows = [record["authz"]["reason"] for record in records(tmp_path) if record["authz"].get("shadow")]
    assert shadows == ["permission.missing", "rule.none", "rule.none", "credential.missing"]


@pytest.mark.capability("C49")
def test_a_permitted_handler_that_fails_is_the_applications_own_affair(framework: str, tmp_path: Path) -> None:
    with open_surface(framework, settings(tmp_path)) as surface:
        reply = ask(surface, "GET /broken", token())
        assert (reply.status, surface.ran) == (200, ["broken"])  # its error handler makes everything look fine
    assert [record["result"] for record in records(tmp_path)] == [True]
