"""What is revoked is refused from the next decision on, wherever a request stands at that moment."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from authz_middleware import SettingsError
from authz_middleware.errors import AccessDenied
from authz_middleware.facts import RequestFacts
from authz_middleware.flow import Ask, Await, Load
from authz_middleware.identity.connection.credentials import Credentials
from authz_middleware.pep import EnforcementPoint
from authz_middleware.permission import Requirement, annotations_of, public, requires
from authz_middleware.remote.failure import FailureKind, RemoteAnswer, RemoteFailure
from authz_middleware.revocation.entry import RevocationError, Scope
from authz_middleware.settings import Settings
from tests.support.tokens import bearer, shown
from tests.support.treasury import ISSUER, loaders, records, settings, token

FACTS = RequestFacts(method="GET", route="/invoices", endpoint="app:list")
OWNER = {"reason": "stolen", "owner": "security@example.com"}


def asked(action: str) -> Requirement:
    return Requirement.of(annotations_of(requires(action)(lambda: None)))


LIST, APPROVE = asked("invoice:list"), asked("invoice:approve")


@pytest.fixture
def open_point(tmp_path: Path) -> Iterator[Callable[..., EnforcementPoint]]:
    opened = []

    def build(clock: Callable[[], float] = time.time, **changes: Any) -> EnforcementPoint:
        values = {**settings(tmp_path), "app": {"name": "treasury", "environment": "production", **changes}}
        values["remote"] = {**values["remote"], "permit_ttl": "60s"}
        values["revocations"] = {"store": "memory", "per_process": True, "on_unavailable": {"default": "deny"}}
        point = EnforcementPoint(Settings.from_mapping(values), loaders=loaders(asynchronous=False), clock=clock)
        point.start()
        opened.append(point)
        return point

    yield build
    for point in opened:
        point.close()


def enforcing(point: EnforcementPoint, facts: RequestFacts, who: Credentials, what: Requirement) -> Any:
    """The flow that `enforce` drives, to be driven by hand."""
    return point._pipeline.enforcing(point._authorization(facts, what), who)


def reasons(point: EnforcementPoint, folder: Path) -> list[str]:
    point.recorder.flush()
    return [record["authz"]["reason"] for record in records(folder)]


def revoke(point: EnforcementPoint, scope: Scope, **names: Any) -> None:
    assert point.revocations is not None
    point.revocations.revoke(scope, **names, **OWNER)


@pytest.mark.capability("C16")
def test_a_completed_transaction_ends_every_token_of_it_and_no_other(
    open_point: Callable[..., EnforcementPoint],
) -> None:
    point = open_point()
    request = point.enforce(FACTS, bearer(token(txn="txn-1")), LIST)
    request.complete_task(reason="month closed")
    with pytest.raises(AccessDenied):
        request.check("invoice:list")
    assert point.enforce(FACTS, bearer(token(txn="txn-1", sub="bob")), LIST).refusal is not None
    assert point.enforce(FACTS, bearer(token(txn="txn-2")), LIST).refusal is None


@pytest.mark.capability("C16")
def test_a_transaction_of_another_issuer_is_another(open_point: Callable[..., EnforcementPoint]) -> None:
    point = open_point()
    point.enforce(FACTS, bearer(token(txn="txn-1")), LIST).complete_task(reason="month closed")
    assert point.revocations is not None
    assert [(entry.issuer, entry.value) for entry in point.revocations.entries()] == [(ISSUER.url, "txn-1")]


@pytest.mark.capability("C16")
async def test_a_completed_task_ends_every_token_of_it(open_point: Callable[..., EnforcementPoint]) -> None:
    point = open_point()
    request = await point.aenforce(FACTS, bearer(token()), LIST)
    await request.acomplete_task(task="month-end", reason="month closed")
    assert (await point.aenforce(FACTS, bearer(token()), LIST)).refusal is not None
    assert (await point.aenforce(FACTS, bearer(token(task="audit")), LIST)).refusal is None


def test_a_token_without_a_transaction_has_none_to_complete(open_point: Callable[..., EnforcementPoint]) -> None:
    request = open_point().enforce(FACTS, bearer(token()), LIST)
    with pytest.raises(RevocationError, match="task: or transaction is required"):
        request.complete_task(reason="month closed")


def test_without_the_table_nothing_can_be_completed(tmp_path: Path) -> None:
    point = EnforcementPoint(Settings.from_mapping(settings(tmp_path)), loaders=loaders(asynchronous=False))
    point.start()
    request = point.enforce(FACTS, bearer(token(txn="txn-1")), LIST)
    with pytest.raises(SettingsError, match="revocations: is absent"):
        request.complete_task(reason="month closed")
    point.close()


@pytest.mark.capability("C18")
@pytest.mark.promise("P5")
@pytest.mark.parametrize("reply", [RemoteAnswer(permit=True), RemoteFailure(FailureKind.CONNECT)], ids=["permit", "no"])
def test_who_is_revoked_while_the_decision_point_thinks_is_refused(
    open_point: Callable[..., EnforcementPoint], tmp_path: Path, reply: Any
) -> None:
    point = open_point()
    flow = enforcing(point, FACTS, bearer(token(roles=["manager"])), APPROVE)
    effect = next(flow)
    assert isinstance(effect, Ask)
    revoke(point, Scope.SUBJECT, issuer=ISSUER.url, value="alice")
    with pytest.raises(StopIteration) as end:
        drive(flow, point, reply)
    assert end.value.value.refusal is not None
    assert reasons(point, tmp_path) == ["credential.revoked"]


def drive(flow: Any, point: EnforcementPoint, reply: Any) -> None:
    effect = flow.send(reply)
    while True:
        effect = flow.send(point._perform(effect))


@pytest.mark.capability("C18")
@pytest.mark.promise("P5")
def test_who_is_revoked_while_a_resource_is_looked_up_is_refused(
    open_point: Callable[..., EnforcementPoint], tmp_path: Path
) -> None:
    point = open_point()
    facts = RequestFacts(method="GET", route="/invoices/{id}", endpoint="app:read", path_params={"id": "1"})
    read = Requirement.of(annotations_of(requires("invoice:read", "invoice/{id}")(lambda: None)))
    flow = enforcing(point, facts, bearer(token()), read)
    effect = next(flow)
    assert isinstance(effect, Load)
    loaded = point._perform(effect)
    revoke(point, Scope.EVERYTHING)
    with pytest.raises(StopIteration) as end:
        drive(flow, point, loaded)
    assert end.value.value.refusal is not None
    assert reasons(point, tmp_path) == ["credential.revoked"]


@pytest.mark.capability("C18", "C32")
@pytest.mark.promise("P5")
def test_after_any_revocation_the_decision_point_is_asked_again(open_point: Callable[..., EnforcementPoint]) -> None:
    point = open_point()
    who = bearer(token(roles=["manager"]))

    def asks() -> bool:
        """Whether this request asks the decision point; it permits."""
        flow = enforcing(point, FACTS, who, APPROVE)
        effect = next(flow)
        asked_now = isinstance(effect, Ask)
        reply = RemoteAnswer(permit=True) if asked_now else point._perform(effect)
        with pytest.raises(StopIteration) as end:
            drive(flow, point, reply)
        assert end.value.value.refusal is None
        return asked_now

    assert [asks(), asks()] == [True, False]
    revoke(point, Scope.SUBJECT, issuer=ISSUER.url, value="somebody else")
    assert [asks(), asks()] == [True, False]


@pytest.mark.capability("C46")
def test_where_nothing_is_refused_a_revoked_token_is_recorded(
    open_point: Callable[..., EnforcementPoint], tmp_path: Path
) -> None:
    point = open_point(mode="observe")
    revoke(point, Scope.EVERYTHING)
    assert point.enforce(FACTS, bearer(token()), LIST).refusal is None
    assert reasons(point, tmp_path) == ["credential.revoked"]


def test_the_kill_switch_leaves_public_endpoints_open(open_point: Callable[..., EnforcementPoint]) -> None:
    point = open_point()
    revoke(point, Scope.EVERYTHING)
    opened = Requirement.of(annotations_of(public(reason="liveness probe", owner="platform")(lambda: None)))
    assert point.enforce(FACTS, shown(), opened).refusal is None


@pytest.mark.promise("P6")
def test_who_goes_away_while_a_refusal_is_recorded_leaves_one_record(
    open_point: Callable[..., EnforcementPoint], tmp_path: Path
) -> None:
    point = open_point()
    revoke(point, Scope.EVERYTHING)
    flow = enforcing(point, FACTS, bearer(token()), LIST)
    effect = next(flow)
    while not isinstance(effect, Await):
        effect = flow.send(point._perform(effect))
    with pytest.raises(asyncio.CancelledError):
        flow.throw(asyncio.CancelledError())
    assert reasons(point, tmp_path) == ["credential.revoked"]


@pytest.mark.promise("P3", "P6")
@pytest.mark.parametrize("broken", ["clock", "check"])
async def test_what_goes_on_ends_with_one_record_when_it_cannot_be_told_whether_it_may(
    open_point: Callable[..., EnforcementPoint], tmp_path: Path, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Any:
        raise RuntimeError("s3cr3t")

    clocks: list[Callable[[], float]] = [time.time]

    def read() -> float:
        return clocks[-1]()

    point = open_point(clock=read)
    request = await point.aenforce(FACTS, bearer(token()), LIST)
    assert request.stands()
    if broken == "clock":
        clocks.append(fail)
    else:
        monkeypatch.setattr(point.revocations, "check", fail)
    assert not request.stands()
    await request.areaffirm()
    assert request.refusal is not None
    assert reasons(point, tmp_path) == ["permitted", "error"]
