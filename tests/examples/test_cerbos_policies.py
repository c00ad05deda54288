"""The policies for Cerbos decide as `pdp.yaml` does: whichever decision point the demo finds, its table is the same."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from authz_middleware.permission import Permission
from authz_middleware.policy.store import SnapshotStore
from authz_middleware.question import Question
from authz_middleware.remote.decision_point import DecisionPoint
from authz_middleware.remote.failure import RemoteAnswer
from authz_middleware.remote.query import RemoteQuery
from authz_middleware.resource import Resource
from authz_middleware.settings.remote.decision_point import RemoteSettings
from tests.support.cerbos import CerbosServer
from tests.support.questions import NOW, question

EXAMPLES: Final = Path(__file__).parents[2] / "example_apps"
ACTIONS: Final = ("invoice:approve", "refund:create", "invoice:export", "invoice:read", "report:run")
CALLERS: Final[tuple[dict[str, Any], ...]] = (
    {"kind": "human", "purpose": "payments", "task": "monthly-close"},
    {"kind": "agent", "purpose": "payments", "task": "monthly-close"},
    {"kind": "human", "purpose": "marketing", "task": "onboarding"},
    {"kind": None, "purpose": None, "task": None},
)
AMOUNTS: Final = (None, 0, 240, 500, 500.01, 50_000, 50_001, "240")
AGES: Final = (0.0, 30.0, 30.5)


@pytest.fixture(scope="module")
def point(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DecisionPoint]:
    with CerbosServer(tmp_path_factory.mktemp("cerbos"), EXAMPLES / "cerbos") as server:
        asked = DecisionPoint(RemoteSettings(url=server.url, dialect="cerbos", deadline=10.0))
        yield asked
        asked.close()


def questions(action: str) -> Iterator[Question]:
    kind = "report" if action.startswith("report") else "invoice"
    for caller, amount, age in itertools.product(CALLERS, AMOUNTS, AGES):
        attributes = None if amount is None else {"amount": amount}
        resource = Resource(kind, "inv-1", attributes, None if amount is None else NOW - age)
        yield question(permission=Permission(action=action), resource=resource, **caller)


@pytest.mark.capability("C29")
@pytest.mark.promise("P8")
@pytest.mark.parametrize("action", ACTIONS)
def test_cerbos_decides_as_the_decision_point_of_the_demo_does(point: DecisionPoint, action: str) -> None:
    store = SnapshotStore(EXAMPLES / "pdp.yaml")
    store.reload()
    assert store.current is not None
    permits = 0
    for asked in questions(action):
        reply = point.ask(RemoteQuery.of(asked, "r1", dialect="cerbos"))
        assert isinstance(reply, RemoteAnswer), reply
        ours = store.current.evaluate(asked).permit
        assert reply.permit is ours, (asked.principal.kind, asked.principal.purpose, asked.resource)
        permits += ours
    assert bool(permits) is (action != "invoice:read")
