"""The enforcement point: what holds for every adapter, without any of them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from authz_middleware import Answer, Decision, Reason, ResourceLoaders, Settings, authz, requires
from authz_middleware.authorization import Authorization
from authz_middleware.errors import AccessDenied, AnnotationError, NoRequestError, PolicyError, SettingsError
from authz_middleware.facts import RequestFacts
from authz_middleware.inquiry import Inquirer
from authz_middleware.loaders import LoaderError
from authz_middleware.pep import EnforcementPoint
from authz_middleware.permission import Requirement, annotations_of, public
from authz_middleware.resource import Resource
from authz_middleware.startup import requirement_problems
from tests.support.tokens import bearer, shown
from tests.support.treasury import INVOICES, loaders, records, settings, token

FACTS = RequestFacts(method="GET", route="/invoices/{invoice_id}", endpoint="app:read", path_params={"invoice_id": "1"})


def asked(action: str, resource: str | None = None, **members: Any) -> Requirement:
    return Requirement.of(annotations_of(requires(action, resource, **members)(lambda: None)))


READ = asked("invoice:read", "invoice/{invoice_id}")
LIST = asked("invoice:list")


class Point:
    """An enforcement point over the treasury's policy, with its records at hand."""

    def __init__(self, folder: Path, chosen: dict[str, Any] | None = None, **members: Any) -> None:
        self.folder = folder
        self.pep = EnforcementPoint(Settings.from_mapping(chosen or settings(folder)), **members)
        self.pep.start()

    def enforce(self, requirement: Requirement = READ, **claims: Any) -> Authorization:
        return self.pep.enforce(FACTS, bearer(token(**claims)), requirement)

    def reasons(self) -> list[str]:
        self.pep.recorder.flush()
        return [record["authz"]["reason"] for record in records(self.folder)]


@pytest.fixture
def point(tmp_path: Path) -> Iterator[Point]:
    made = Point(tmp_path, loaders=loaders(asynchronous=False))
    yield made
    made.pep.close()


@pytest.mark.capability("C1", "C17")
def test_a_changed_policy_decides_the_next_request_of_the_same_token(point: Point) -> None:
    credentials = bearer(token())
    assert point.pep.enforce(FACTS, credentials, LIST).decision.permit
    source = point.pep.settings.policy.source
    source.write_text(source.read_text().replace("permit: invoice:list", "permit: invoice:browse"))
    assert point.pep.policy.reload()
    refused = point.pep.enforce(FACTS, credentials, LIST)
    assert refused.refusal is not None
    assert refused.refusal.status == 403


@pytest.mark.promise("P7")
def test_a_request_keeps_the_policy_it_came_in_with(point: Point) -> None:
    request = point.enforce(LIST)
    source = point.pep.settings.policy.source
    source.write_text(source.read_text().replace("permit: invoice:amend", "permit: invoice:nothing"))
    assert point.pep.policy.reload()
    assert request.check("invoice:amend", resource="invoice/1").permit
    assert not point.enforce(LIST).permitted("invoice:amend", resource="invoice/1")


@pytest.mark.capability("C1")
def test_on_a_websocket_each_check_is_made_by_the_policy_of_its_moment(tmp_path: Path) -> None:
    point = Point(tmp_path, loaders=loaders(asynchronous=False))
    facts = RequestFacts(method="GET", route="/feed", endpoint="app:feed", protocol="websocket")
    socket = point.pep.enforce(facts, bearer(token()), LIST)
    assert socket.permitted("invoice:amend", resource="invoice/1")
    source = point.pep.settings.policy.source
    source.write_text(source.read_text().replace("permit: invoice:amend", "permit: invoice:nothing"))
    assert point.pep.policy.reload()
    assert not socket.permitted("invoice:amend", resource="invoice/1")
    point.pep.close()


def test_a_request_that_goes_on_ends_with_its_token(tmp_path: Path) -> None:
    now = [time.time()]
    point = Point(tmp_path, loaders=loaders(asynchronous=False), clock=lambda: now[0])
    stream = point.enforce(LIST)
    assert stream.permitted("invoice:list")
    now[0] += 300 + 60
    assert not stream.permitted("invoice:list")
    assert point.reasons()[-1] == "credential.invalid"
    point.pep.close()


@pytest.mark.promise("P7")
def test_a_policy_that_cannot_be_used_changes_nothing(point: Point) -> None:
    source = point.pep.settings.policy.source
    source.write_text("policy: [")
    with pytest.raises(PolicyError):
        point.pep.policy.reload()
    assert point.enforce(LIST).decision.permit


def test_an_application_does_not_start_without_a_policy(tmp_path: Path) -> None:
    chosen = settings(tmp_path)
    Path(chosen["policy"]["source"]).unlink()
    with pytest.raises(PolicyError):
        Point(tmp_path, chosen)


@pytest.mark.capability("C33")
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s.pop("fallback"), "nothing says what happens when the decision point does not answer"),
        (lambda s: s.pop("remote"), "no decision point is configured: add [remote]"),
        (lambda s: s["fallback"]["actions"]["report:*"].update(rules="readonly"), "it has: read-only"),
    ],
)
def test_a_sensitive_action_without_a_chosen_fallback_does_not_start(tmp_path: Path, change: Any, said: str) -> None:
    chosen = settings(tmp_path)
    change(chosen)
    with pytest.raises(PolicyError, match=said.replace("[", r"\[")):
        Point(tmp_path, chosen)


@pytest.mark.capability("C33")
def test_a_sensitive_annotation_without_a_chosen_fallback_is_a_problem_of_its_endpoint(tmp_path: Path) -> None:
    chosen = settings(tmp_path)
    del chosen["fallback"]["default"]
    chosen["fallback"]["actions"]["invoice:approve"] = {"mode": "deny"}
    read = Settings.from_mapping(chosen)
    (problem,) = requirement_problems(read, "app:pay", asked("invoice:pay", sensitive=True))
    assert problem.where == "app:pay"
    assert requirement_problems(read, "app:read", READ) == []


@pytest.mark.capability("C33")
def test_a_new_policy_with_a_sensitive_action_and_no_fallback_for_it_does_not_come_into_force(tmp_path: Path) -> None:
    chosen = settings(tmp_path)
    del chosen["fallback"]["default"]
    chosen["fallback"]["actions"]["invoice:approve"] = {"mode": "deny"}
    point = Point(tmp_path, chosen)
    source = point.pep.settings.policy.source
    source.write_text(source.read_text().replace("permit: invoice:list", "permit: invoice:list\n    sensitive: true"))
    with pytest.raises(PolicyError, match="'invoice:list' is sensitive, but nothing says"):
        point.pep.policy.reload()
    assert point.enforce(LIST).decision.permit
    point.pep.close()


@pytest.mark.capability("C41")
@pytest.mark.parametrize("credentials", [[], ["Basic YWRtaW46"], ["Bearer x"], ["Bearer a", "Bearer b"], ["\x00"]])
def test_a_bad_credential_is_refused_with_401_and_recorded_once(point: Point, credentials: list[str]) -> None:
    request = point.pep.enforce(FACTS, shown(*credentials), READ)
    assert request.refusal is not None
    assert request.refusal.status == 401
    assert request.principal is None
    assert len(point.reasons()) == 1


@pytest.mark.capability("C41", "C47")
def test_the_refusal_of_an_endpoint_that_asks_for_nothing_tells_who_asked_for_it(point: Point) -> None:
    assert point.enforce(Requirement(), sub="mallory").refusal is not None
    assert point.reasons() == ["permission.missing"]
    (record,) = records(point.folder)
    assert (record["input"]["subject"]["id"], record["path"]) == ("mallory", "authz/route/undeclared")


def test_every_permission_of_an_endpoint_must_hold_and_each_leaves_a_record(point: Point) -> None:
    both = Requirement((*LIST.permissions, *asked("invoice:amend", "invoice/{invoice_id}").permissions))
    assert point.enforce(both).refusal is None
    assert point.reasons() == ["permitted", "permitted"]
    assert point.enforce(both, roles=["visitor"]).refusal is not None
    assert point.reasons() == ["permitted", "permitted", "permitted", "rule.none"]


@pytest.mark.promise("P3")
@pytest.mark.parametrize("broken", ["authenticate", "evaluate", "settings", "proxies", "revocations"])
def test_any_error_while_deciding_is_a_refusal_with_one_record(
    point: Point, broken: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> Any:
        raise RuntimeError("s3cr3t")

    if broken == "authenticate":
        monkeypatch.setattr(point.pep._authenticator, "authenticating", fail)
    elif broken == "evaluate":
        monkeypatch.setattr(point.pep.engine, "wants_attributes", fail)
    elif broken == "proxies":
        monkeypatch.setattr(point.pep._authenticator.proxies, "facts", fail)
    elif broken == "revocations":
        monkeypatch.setattr(Inquirer, "_standing", fail)
    else:
        monkeypatch.setattr(point.pep._pipeline, "_clock", fail)
    request = point.enforce()
    assert request.refusal is not None
    assert request.refusal.status == 503
    assert point.reasons() == ["error"]
    assert "s3cr3t" not in caplog.text + repr(request) + request.refusal.body.decode()


@pytest.mark.parametrize("answer", [RuntimeError("s3cr3t"), 7, ["amount"]])
def test_a_loader_that_fails_is_a_refusal(tmp_path: Path, answer: Any, caplog: pytest.LogCaptureFixture) -> None:
    failing = ResourceLoaders()

    @failing.register("invoice")
    def load(_: str) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    point = Point(tmp_path, loaders=failing)
    request = point.enforce()
    assert request.refusal is not None
    assert request.refusal.status == 503
    assert point.reasons() == ["error"]
    assert "s3cr3t" not in caplog.text
    assert "app:read" in caplog.text
    point.pep.close()


@pytest.mark.promise("P3")
async def test_a_loader_that_stops_an_iteration_is_a_refusal_and_keeps_nobody_waiting(tmp_path: Path) -> None:
    stopping = ResourceLoaders()

    @stopping.register("invoice")
    def load(_: str) -> Any:
        return next(iter(()))

    point = Point(tmp_path, loaders=stopping)
    async with asyncio.timeout(5):
        request = await point.pep.aenforce(FACTS, bearer(token()), READ)
    assert request.refusal is not None
    assert point.reasons() == ["error"]
    point.pep.close()


@pytest.mark.capability("C28")
def test_attributes_are_loaded_only_when_a_rule_may_still_match_and_once_a_request(tmp_path: Path) -> None:
    counting, calls = ResourceLoaders(), []

    @counting.register("invoice")
    def load(invoice_id: str) -> dict[str, Any] | None:
        calls.append(invoice_id)
        return INVOICES.get(invoice_id)

    point = Point(tmp_path, loaders=counting)
    point.enforce(READ, scope="openid")
    point.enforce(LIST)
    point.enforce(READ, env="staging")
    assert calls == []
    request = point.enforce(READ)
    request.permitted("invoice:amend", resource="invoice/1")
    assert calls == ["1"]
    request.permitted("invoice:amend", resource="invoice/2")
    assert calls == ["1", "2"]
    point.pep.close()


def test_an_async_loader_in_a_synchronous_application_is_a_refusal(tmp_path: Path) -> None:
    point = Point(tmp_path, loaders=loaders(asynchronous=True))
    assert point.enforce().refusal is not None
    point.pep.close()


async def test_a_plain_loader_runs_off_the_event_loop(tmp_path: Path) -> None:
    import threading

    seen = []
    plain = ResourceLoaders()

    @plain.register("invoice")
    def load(invoice_id: str) -> dict[str, Any] | None:
        seen.append(threading.current_thread())
        return INVOICES.get(invoice_id)

    point = Point(tmp_path, loaders=plain)
    assert (await point.pep.aenforce(FACTS, bearer(token()), READ)).refusal is None
    assert seen
    assert seen[0] is not threading.current_thread()
    await point.pep.aclose()


def test_two_loaders_of_one_type_are_a_mistake() -> None:
    made = loaders(asynchronous=False)
    with pytest.raises(LoaderError, match="already has a loader"):
        made.register("invoice")(lambda _: None)


@pytest.mark.capability("C46")
def test_observing_refuses_nothing_and_records_what_it_would_have_done(tmp_path: Path) -> None:
    point = Point(tmp_path, settings(tmp_path, mode="observe"), loaders=loaders(asynchronous=False))
    nobody = point.pep.enforce(FACTS, shown(), READ)
    assert nobody.refusal is None
    assert nobody.permitted("invoice:amend", resource="invoice/2")
    assert not nobody.check("invoice:amend", resource="invoice/2").permit
    assert point.enforce(READ, scope="openid").refusal is None
    request = point.enforce(LIST)
    request.check("invoice:amend", resource="invoice/2")
    assert request.permitted("invoice:amend", resource="invoice/2")
    assert point.reasons() == ["credential.missing", "rule.none", "permitted", "rule.none", "rule.none"]
    shadows = [record["authz"].get("shadow", False) for record in records(tmp_path)]
    assert shadows == [True, True, False, True, True]
    point.pep.close()


def test_without_a_record_there_is_no_access_where_records_are_required(tmp_path: Path) -> None:
    chosen = settings(tmp_path)
    point = Point(tmp_path, chosen)
    (tmp_path / "decisions.jsonl").unlink(missing_ok=True)
    point.pep.recorder.close()
    request = point.enforce(LIST)
    assert request.refusal is not None
    assert (request.refusal.status, request.decision.reason) == (503, Reason.RECORD_UNAVAILABLE)
    point.pep.close()


def test_a_refusal_tells_the_client_its_decision_id_and_not_the_reason(point: Point) -> None:
    request = point.enforce(READ, tenant="globex")
    assert request.refusal is not None
    point.reasons()
    (record,) = records(point.folder)
    assert record["decision_id"] in request.refusal.body.decode()
    assert "rule" not in request.refusal.body.decode()
    assert ("content-type", "application/problem+json") in request.refusal.headers


@pytest.mark.parametrize(
    ("claims", "challenge"),
    [({"scope": "openid"}, 'Bearer error="insufficient_scope", scope="invoices.read"'), ({"env": "x"}, None)],
)
def test_a_scope_is_named_only_where_it_would_have_helped(
    point: Point, claims: dict[str, Any], challenge: str | None
) -> None:
    request = point.enforce(LIST, **claims)
    assert request.refusal is not None
    assert dict(request.refusal.headers).get("www-authenticate") == challenge


@pytest.mark.parametrize(
    ("render", "status"),
    [
        (lambda _d, a: Answer(451, a.headers, b"no"), 451),
        (lambda _d, _a: Answer(200, (), b"come in"), 403),
        (lambda _d, _a: None, 403),
        (lambda _d, _a: 1 / 0, 403),
    ],
)
def test_a_refusal_may_be_worded_anew_but_stays_a_refusal(tmp_path: Path, render: Any, status: int) -> None:
    point = Point(tmp_path, render=render)
    request = point.enforce(LIST, scope="openid")
    assert request.refusal is not None
    assert request.refusal.status == status
    point.pep.close()


class Invoice:
    def __authz_resource__(self) -> Resource:
        return Resource("invoice", "9", {"amount": 5}, 1e12)


@pytest.mark.parametrize(
    ("resource", "permit"),
    [
        ("invoice/1", True),
        ("invoice/2", False),
        (Resource("invoice", "1"), True),
        (Resource("invoice", "1\n"), False),
        ("invoice/1\u200b", False),
        ("invoice/{invoice_id}", False),
    ],
)
def test_a_check_takes_a_name_or_a_resource(point: Point, resource: Any, permit: bool) -> None:
    assert point.enforce(LIST).permitted("invoice:amend", resource=resource) is permit


def test_a_check_takes_an_object_that_describes_itself(point: Point) -> None:
    request = point.enforce(LIST)
    question = request.question("invoice:amend", resource=Invoice())
    assert question.resource == Invoice().__authz_resource__()


@pytest.mark.parametrize("arguments", [("invoice amend",), ("a:b", 7), ("a:b", "invoice")])
def test_a_check_that_cannot_mean_anything_is_an_error(point: Point, arguments: tuple[Any, ...]) -> None:
    with pytest.raises(AnnotationError):
        point.enforce(LIST).check(*arguments)


def test_a_failed_check_is_final_for_the_response(point: Point) -> None:
    request = point.enforce(LIST)
    with pytest.raises(AccessDenied):
        request.check("invoice:amend", resource="invoice/2")
    assert request.refusal is not None
    assert request.refusal.status == 403


def test_on_a_public_endpoint_there_is_nobody_to_check(point: Point) -> None:
    opened = Requirement.of(annotations_of(public(reason="probe", owner="platform")(lambda: None)))
    request = point.pep.enforce(FACTS, shown(), opened)
    assert request.refusal is None
    with pytest.raises(NoRequestError, match="is public"):
        request.check("invoice:amend")


def test_outside_of_a_request_there_is_nothing_to_ask() -> None:
    with pytest.raises(NoRequestError, match="no request"):
        authz.check("invoice:read")


def test_an_undecided_response_is_refused_recorded_and_alarmed(point: Point, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "authz"):
        request = point.pep.refuse_undecided(FACTS)
    assert request.refusal is not None
    assert request.decision == Decision(permit=False, reason=Reason.UNDECIDED)
    assert point.reasons() == ["guard.undecided"]
    assert "without a decision" in caplog.text


@pytest.mark.capability("C48")
def test_a_request_can_ask_how_the_enforcement_point_is(point: Point) -> None:
    opened = Requirement.of(annotations_of(public(reason="readiness probe", owner="platform")(lambda: None)))
    health = point.pep.enforce(FACTS, shown(), opened).health()
    assert (health.ready, health.problems) == (True, ())
    assert health.policy is not None
    assert health.policy.name == "treasury"


def test_nothing_can_be_searched_for_without_a_decision_point(tmp_path: Path) -> None:
    chosen = settings(tmp_path, remote=None)
    del chosen["fallback"]
    (tmp_path / "treasury.yaml").write_text(
        "policy: treasury\nowner: payments@example.com\nrules:\n"
        "  - {rule: list, permit: 'invoice:list', when: {subject.tenant: acme}}\n"
    )
    point = EnforcementPoint(Settings.from_mapping(chosen))
    point.start()
    request = point.enforce(FACTS, bearer(token()), LIST)
    with pytest.raises(SettingsError, match="remote: is absent"):
        request.search.actions("invoice/1")
    point.close()
