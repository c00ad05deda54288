"""What a real decision point says beside its decision, as the client, the record and the application get to see it."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from authz_middleware import Settings, requires
from authz_middleware.advice import Obligation
from authz_middleware.authorization import Authorization
from authz_middleware.decision import Reason, Source
from authz_middleware.facts import RequestFacts
from authz_middleware.obligations import Obligations
from authz_middleware.pep import EnforcementPoint
from authz_middleware.permission import Requirement, annotations_of
from authz_middleware.question import Question
from tests.support.pdp import ScriptedServer, answer, hang_up
from tests.support.records import parsed
from tests.support.tokens import bearer
from tests.support.treasury import settings, token

FACTS = RequestFacts(method="POST", route="/invoices/{id}/approve", endpoint="app:approve")
APPROVE = Requirement.of(annotations_of(requires("invoice:approve")(lambda: None)))
EXPORT = Requirement.of(annotations_of(requires("invoice:export", sensitive=True)(lambda: None)))
INSUFFICIENT = (
    'Bearer error="insufficient_user_authentication", '
    'error_description="A different or more recent authentication is required", '
)


class Site:
    """An application, its decision point, and what became of its obligations."""

    def __init__(self, folder: Path, server: ScriptedServer, **remote: Any) -> None:
        chosen = settings(folder, remote=server.url)
        chosen["remote"] |= remote
        self.folder = folder
        self.server = server
        self.done: list[tuple[Obligation, Question]] = []
        self.obligations = Obligations()
        self.obligations.register("log")(lambda obligation, question: self.done.append((obligation, question)))
        self.obligations.register("fail")(lambda obligation, question: False)
        self.pep = EnforcementPoint(Settings.from_mapping(chosen), obligations=self.obligations)
        self.pep.start()

    def enforce(self, requirement: Requirement = APPROVE, **claims: Any) -> Authorization:
        return self.pep.enforce(FACTS, bearer(token(roles=["manager"], **claims)), requirement)

    def aenforce(self, requirement: Requirement = APPROVE, **claims: Any) -> Authorization:
        async def enforced() -> Authorization:
            done = await self.pep.aenforce(FACTS, bearer(token(roles=["manager"], **claims)), requirement)
            await self.pep._point.aclose()  # type: ignore[union-attr]
            return done

        return asyncio.run(enforced())

    def records(self) -> list[dict[str, Any]]:
        self.pep.recorder.flush()
        return parsed((self.folder / "decisions.jsonl").read_bytes())


@contextmanager
def site(folder: Path, *contexts: tuple[bool, dict[str, Any]], **remote: Any) -> Iterator[Site]:
    """A decision point that answers each question with the next of these; the last one is repeated."""
    bodies = [json.dumps({"decision": permit, "context": context}).encode() for permit, context in contexts]
    with ScriptedServer(*(answer(body) for body in bodies)) as server:
        made = Site(folder, server, **remote)
        yield made
        made.pep.close()


BOTH = pytest.mark.parametrize("enforce", [Site.enforce, Site.aenforce], ids=["sync", "async"])
Enforce = Callable[..., Authorization]


def body_of(authorization: Authorization) -> dict[str, Any]:
    assert authorization.refusal is not None
    return json.loads(authorization.refusal.body)


def challenge_of(authorization: Authorization) -> tuple[int, str | None]:
    assert authorization.refusal is not None
    return authorization.refusal.status, dict(authorization.refusal.headers).get("www-authenticate")


@pytest.mark.capability("C29")
@BOTH
def test_a_reason_for_the_user_is_shown_where_the_settings_say_so(tmp_path: Path, enforce: Enforce) -> None:
    said = {"reason_user": {"en": "Ask\r\nthe \u202ecashier"}, "reason_admin": {"en": "policy C076E82F"}}
    with site(tmp_path, (False, said), show_reason=True) as open_site:
        refused = enforce(open_site)
        assert body_of(refused)["detail"] == "Ask the cashier"
        assert challenge_of(refused) == (403, None)
        assert b"C076E82F" not in refused.refusal.body  # type: ignore[union-attr]
        assert "cashier" not in repr(refused.refusal.headers)  # type: ignore[union-attr]
        (record,) = open_site.records()
    assert record["authz"]["reason"] == "remote.deny"
    assert record["authz"]["advice"] == {"reason_user": "Ask the cashier", "reason_admin": "policy C076E82F"}


@pytest.mark.capability("C29")
@BOTH
def test_it_is_not_shown_unless_they_do(tmp_path: Path, enforce: Enforce) -> None:
    with site(tmp_path, (False, {"reason_user": "Ask the cashier"})) as closed_site:
        assert "detail" not in body_of(enforce(closed_site))
        (record,) = closed_site.records()
    assert record["authz"]["advice"] == {"reason_user": "Ask the cashier"}


@pytest.mark.capability("C29")
def test_a_remembered_deny_says_again_what_it_said(tmp_path: Path) -> None:
    with site(tmp_path, (False, {"reason_user": "no"}), show_reason=True, deny_ttl="1m") as again:
        credentials = bearer(token(roles=["manager"]))
        both = [again.pep.enforce(FACTS, credentials, APPROVE) for _ in range(2)]
        assert [each.decision.source for each in both] == [Source.REMOTE, Source.CACHE]
        assert [body_of(each)["detail"] for each in both] == ["no", "no"]


@pytest.mark.capability("C25")
@BOTH
def test_a_step_up_becomes_a_challenge_until_it_is_met(tmp_path: Path, enforce: Enforce) -> None:
    said = {"acr_values": "urn:com:example:loa:3", "amr_values": "mfa hwk", "max_age": 300, "reason_user": "anew"}
    with site(tmp_path, (False, said), show_reason=True) as asking:
        refused = enforce(asking)
        told = 'acr_values="urn:com:example:loa:3", max_age=300'
        assert challenge_of(refused) == (401, INSUFFICIENT + told)
        assert body_of(refused)["detail"] == "anew"
        met = {"acr": "urn:com:example:loa:3", "auth_time": int(time.time()) - 5}
        for other in (met, {"kind": "workload"}, {"kind": None}):
            assert challenge_of(enforce(asking, **other)) == (403, None)
        records = asking.records()
    assert [record["authz"]["reason"] for record in records] == ["authentication.insufficient", *["remote.deny"] * 3]
    assert {record["authz"]["decided_by"] for record in records} == {"remote"}
    asked = {"acr_values": ["urn:com:example:loa:3"], "max_age": 300}
    assert records[0]["authz"]["step_up"] == asked
    assert [record["authz"]["advice"]["step_up"] for record in records] == [asked] * 4


@pytest.mark.capability("C25")
@BOTH
def test_a_permit_for_another_authentication_is_none(tmp_path: Path, enforce: Enforce) -> None:
    with site(tmp_path, (True, {"acr_values": ["phr"], "reason_user": "fine"}), show_reason=True) as asking:
        assert enforce(asking, acr="phr").refusal is None
        for claims, status in (({"acr": "pwd"}, 401), ({}, 401), ({"kind": "workload"}, 403)):
            refused = enforce(asking, **claims)
            assert challenge_of(refused)[0] == status
            assert "detail" not in body_of(refused)
        reasons = [(record["authz"]["reason"], record["authz"].get("detail")) for record in asking.records()]
    assert reasons == [("permitted", None), *[("authentication.insufficient", "remote.conditional")] * 3]


@pytest.mark.promise("P4")
@BOTH
@pytest.mark.parametrize("context", [{"acr_values": 3}, {"obligations": {"id": "log"}}, {"obligations": [{}]}])
def test_a_permit_under_unreadable_conditions_is_a_fault(
    tmp_path: Path, enforce: Enforce, context: dict[str, Any]
) -> None:
    with site(tmp_path, (True, context)) as broken:
        assert challenge_of(enforce(broken)) == (503, None)
        assert broken.done == []
        (record,) = broken.records()
    assert record["authz"]["reason"] == "remote.unavailable"
    assert record["authz"]["fallback"] == {"trigger": "malformed", "mode": "deny"}


@pytest.mark.capability("C29")
@BOTH
def test_a_permit_holds_once_its_obligations_are_carried_out(tmp_path: Path, enforce: Enforce) -> None:
    obliged = {"obligations": [{"id": "log", "level": 1}, {"id": "log", "attributes": {"level": 2}}]}
    with site(tmp_path, (True, obliged)) as obliging:
        assert enforce(obliging).refusal is None
        (record,) = obliging.records()
    assert [obligation.attributes for obligation, _ in obliging.done] == [{"level": 1}, {"level": 2}]
    assert {question.action for _, question in obliging.done} == {"invoice:approve"}
    assert record["authz"]["advice"] == {"obligations": ["log", "log"]}


@pytest.mark.capability("C29")
@BOTH
@pytest.mark.parametrize(
    ("id_", "detail", "done"), [("unheard-of", "obligation.unknown", 0), ("fail", "obligation.failed", 1)]
)
def test_a_permit_whose_obligation_is_not_carried_out_is_none(
    tmp_path: Path, enforce: Enforce, id_: str, detail: str, done: int
) -> None:
    obliged = {"obligations": [{"id": "log"}, {"id": id_}], "reason_user": "welcome"}
    with site(tmp_path, (True, obliged), show_reason=True) as obliging:
        refused = enforce(obliging)
        assert challenge_of(refused) == (403, None)
        assert "detail" not in body_of(refused)
        assert id_.encode() not in refused.refusal.body  # type: ignore[union-attr]
        (record,) = obliging.records()
    assert len(obliging.done) == done
    told = record["authz"]
    assert (record["result"], told["outcome"], told["decided_by"]) == (False, "deny", "remote")
    assert (told["reason"], told["detail"]) == ("obligation.unfulfilled", detail)
    assert told["advice"] == {"reason_user": "welcome", "obligations": ["log", id_], "unfulfilled": id_}


@pytest.mark.capability("C29")
def test_the_obligations_of_a_deny_are_named_and_not_carried_out(tmp_path: Path) -> None:
    with site(tmp_path, (False, {"obligations": [{"id": "log"}, {"id": "unheard-of"}]})) as refusing:
        assert refusing.enforce().decision.reason is Reason.REMOTE_DENY
        (record,) = refusing.records()
    assert refusing.done == []
    assert record["authz"]["advice"] == {"obligations": ["log", "unheard-of"]}


@pytest.mark.capability("C29")
@pytest.mark.promise("P5")
def test_a_remembered_permit_obliges_each_time(tmp_path: Path) -> None:
    with site(tmp_path, (True, {"obligations": [{"id": "log", "to": ["audit"]}]}), permit_ttl="1m") as obliging:
        credentials = bearer(token(roles=["manager"]))
        for expected in (Source.REMOTE, Source.CACHE, Source.CACHE):
            decision = obliging.pep.enforce(FACTS, credentials, APPROVE).decision
            assert (decision.permit, decision.source) == (True, expected)
            obliging.done[-1][0].attributes["to"].clear()
        assert len(obliging.done) == 3
        obliging.obligations.handlers["log"] = lambda obligation, question: False
        assert obliging.pep.enforce(FACTS, credentials, APPROVE).decision.reason is Reason.OBLIGATION_UNFULFILLED
        assert len(obliging.server.requests) == 1


@pytest.mark.promise("P5")
def test_a_permit_that_is_served_while_the_decision_point_is_away_obliges_too(tmp_path: Path) -> None:
    body = b'{"decision":true,"context":{"obligations":[{"id":"log"}]}}'
    with ScriptedServer(answer(body), hang_up) as server:
        away = Site(tmp_path, server)
        credentials = bearer(token(roles=["manager"]))
        assert away.pep.enforce(FACTS, credentials, EXPORT).decision.source is Source.REMOTE
        served = away.pep.enforce(FACTS, credentials, EXPORT).decision
        assert (served.permit, served.reason) == (True, Reason.CACHED)
        assert len(away.done) == 2
        away.obligations.handlers["log"] = lambda obligation, question: False
        refused = away.pep.enforce(FACTS, credentials, EXPORT).decision
        assert (refused.permit, refused.reason) == (False, Reason.OBLIGATION_UNFULFILLED)
        away.pep.close()


HOSTILE = st.sampled_from(['"', "\\", "\r\n", "\x00", "é", "\u202e", ",", " ", "phr", "Set-Cookie: a=b", "🔥"])
hostile_texts = st.lists(HOSTILE, max_size=4).map("".join)
ONE_CHALLENGE = re.compile(r'Bearer error="\w+", error_description="[\w ]+"(, acr_values="[^"\\]+")?(, max_age=\d+)?')
contexts = st.dictionaries(
    st.sampled_from(["reason_user", "reason_admin", "acr_values", "max_age", "obligations"]),
    hostile_texts
    | st.lists(hostile_texts, max_size=3)
    | st.dictionaries(hostile_texts, hostile_texts, max_size=2)
    | st.lists(st.fixed_dictionaries({"id": hostile_texts}), max_size=2)
    | st.integers(-1, 400),
)


@pytest.mark.capability("C25", "C29")
@pytest.mark.promise("P4")
@hypothesis_settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(st.booleans(), contexts)
def test_nothing_that_it_says_breaks_a_header_or_turns_its_deny(
    shared: Site, permit: bool, context: dict[str, Any]
) -> None:
    shared.server._behaviours[:] = [answer(json.dumps({"decision": permit, "context": context}).encode())]
    authorization = shared.enforce()
    assert permit or not authorization.decision.permit
    if authorization.refusal is None:
        assert authorization.decision.permit
        assert "obligations" not in context or context["obligations"] == []
        return
    for name, value in authorization.refusal.headers:
        assert (name + value).isascii()
        assert (name + value).isprintable()
        assert name != "www-authenticate" or ONE_CHALLENGE.fullmatch(value)
    detail = json.loads(authorization.refusal.body).get("detail", "")
    assert "\n" not in detail
    assert "\u202e" not in detail


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site(tmp_path_factory.mktemp("shared"), (False, {}), show_reason=True) as made:
        yield made
