"""On an event loop nothing blocks: `blockbuster` raises from inside every blocking call made there."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from blockbuster import BlockingError, blockbuster_ctx

from authz_middleware import boundary
from tests.support.decision_point import DecisionPointProcess
from tests.support.surfaces.all import open_surface
from tests.support.treasury import settings, token

OURS = ["authz_middleware", "authz_starlette", "authz_django"]


async def test_a_blocking_call_of_ours_would_be_noticed() -> None:
    space: dict[str, Any] = {"__name__": boundary.__name__}
    exec(compile("def wait(sleep):\n    sleep(0.001)\n", boundary.__file__, "exec"), space)
    with blockbuster_ctx(OURS), pytest.raises(BlockingError):
        space["wait"](time.sleep)


@pytest.mark.promise("P9")
@pytest.mark.parametrize("framework", ["starlette", "fastapi", "django_async"])
def test_no_request_makes_a_blocking_call_on_the_event_loop(framework: str, tmp_path: Path) -> None:
    person, manager = ({"Authorization": f"Bearer {token(roles=[role])}"} for role in ("clerk", "manager"))
    with (
        DecisionPointProcess(tmp_path) as point,
        open_surface(framework, settings(tmp_path, remote=point.url)) as surface,
    ):
        surface.request("GET", "/health", {})  # Django loads its middleware with the first request
        with blockbuster_ctx(OURS):
            for method, path, headers, status in [
                ("GET", "/health", {}, 200),
                ("GET", "/invoices", {}, 401),
                ("GET", "/invoices/1", person, 200),
                ("GET", "/invoices/2", person, 403),
                ("GET", "/may-amend/2", person, 200),
                ("POST", "/invoices/1/approve", manager, 200),
                ("POST", "/invoices/2/approve", manager, 403),
                ("GET", "/undeclared", person, 403),
            ]:
                assert surface.request(method, path, headers).status == status, (method, path)
