"""What a decision point says beside yes and no, through every framework: the same outcome, answer and record."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from authz_middleware import authz
from authz_middleware.advice import Obligation
from authz_middleware.question import Question
from tests.support.pdp import DENY, Exchange, ScriptedServer, answer, response
from tests.support.surfaces.all import FRAMEWORKS, open_surface
from tests.support.surfaces.surface import Reply
from tests.support.treasury import settings, token, wait_for_records

pytestmark = pytest.mark.parametrize("framework", FRAMEWORKS)

STAMPED: list[tuple[str, Any]] = []


@authz.obligation("test:stamp")
def stamp(obligation: Obligation, question: Question) -> None:
    STAMPED.append((question.resource.id, obligation.attributes.get("with")))


@authz.obligation("test:fail")
def fail(_obligation: Obligation, _question: Question) -> None:
    raise RuntimeError("s3cr3t")


@pytest.fixture(autouse=True)
def nothing_stamped() -> Iterator[None]:
    STAMPED.clear()
    yield
    STAMPED.clear()


class Case(msgspec.Struct, frozen=True):
    """An answer of the decision point, and all that must come of it."""

    name: str
    answer: dict[str, Any]
    status: int
    reason: str
    claims: dict[str, Any] = {}
    stamped: list[tuple[str, Any]] = []
    challenge: str | None = None


STAMP = {"id": "test:stamp", "attributes": {"with": "red ink"}}
CASES = (
    Case("permit", {"decision": True}, 200, "permitted"),
    Case("deny", {"decision": False}, 403, "remote.deny"),
    Case(
        "an obligation",
        {"decision": True, "context": {"obligations": [STAMP]}},
        200,
        "permitted",
        stamped=[("1", "red ink")],
    ),
    Case(
        "an obligation of a deny",
        {"decision": False, "context": {"obligations": [STAMP]}},
        403,
        "remote.deny",
    ),
    Case(
        "an obligation that nobody knows",
        {"decision": True, "context": {"obligations": [STAMP, {"id": "test:nobody"}]}},
        403,
        "obligation.unfulfilled",
    ),
    Case(
        "an obligation that fails",
        {"decision": True, "context": {"obligations": [{"id": "test:fail"}, STAMP]}},
        403,
        "obligation.unfulfilled",
    ),
    Case(
        "obligations that cannot be read",
        {"decision": True, "context": {"obligations": "test:stamp"}},
        503,
        "remote.unavailable",
    ),
    Case(
        "step-up",
        {"decision": False, "context": {"acr_values": ["gold"]}},
        401,
        "authentication.insufficient",
        challenge='acr_values="gold"',
    ),
    Case(
        "step-up of a permit",
        {"decision": True, "context": {"acr_values": ["gold"], "obligations": [STAMP]}},
        401,
        "authentication.insufficient",
        challenge='acr_values="gold"',
    ),
    Case(
        "step-up that has been done",
        {"decision": True, "context": {"acr_values": ["gold"]}},
        200,
        "permitted",
        {"acr": "gold"},
    ),
    Case(
        "step-up where nobody is",
        {"decision": False, "context": {"acr_values": ["gold"]}},
        403,
        "remote.deny",
        {"kind": "workload"},
    ),
)


def approve(framework: str, folder: Path, body: bytes, claims: dict[str, Any], **changes: Any) -> tuple[Reply, bool]:
    """The reply to one approval that a decision point is asked about, and whether the handler ran."""
    with ScriptedServer(answer(body)) as point:
        chosen = settings(folder, remote=point.url)
        chosen["remote"].update(deadline="5s", **changes)
        with open_surface(framework, chosen) as surface:
            shown = {"authorization": f"Bearer {token(roles=['manager'], **claims)}"}
            reply = surface.request("POST", "/invoices/1/approve", shown)
            return reply, surface.ran == ["approve"]


@pytest.mark.capability("C25", "C29", "C45")
@pytest.mark.promise("P4", "P8")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_answer_of_a_decision_point_comes_to_the_same_in_every_framework(
    framework: str, case: Case, tmp_path: Path
) -> None:
    reply, ran = approve(framework, tmp_path, json.dumps(case.answer).encode(), case.claims)
    assert (reply.status, ran) == (case.status, case.status == 200)
    assert case.stamped == STAMPED
    assert case.challenge is None or case.challenge in reply.headers["www-authenticate"]
    (record,) = wait_for_records(tmp_path, 1)
    assert record["authz"]["reason"] == case.reason
    assert record["metrics"]["timer_remote_ns"] > 0
    assert b"s3cr3t" not in reply.body + json.dumps(record).encode()


@pytest.mark.capability("C41")
@pytest.mark.parametrize("shown", [False, True])
def test_a_reason_for_the_user_is_shown_where_the_settings_say_so_and_one_for_the_administrator_never(
    framework: str, tmp_path: Path, shown: bool
) -> None:
    reasons = {"reason_user": {"en": "Ask your manager"}, "reason_admin": {"en": "rule 7 of c.yaml"}}
    body = json.dumps({"decision": False, "context": reasons}).encode()
    reply, ran = approve(framework, tmp_path, body, {}, show_reason=shown)
    assert (reply.status, ran) == (403, False)
    assert (b"Ask your manager" in reply.body) is shown
    assert b"rule 7" not in reply.body
    (record,) = wait_for_records(tmp_path, 1)
    assert "rule 7 of c.yaml" in json.dumps(record["authz"])


@pytest.mark.capability("C32")
@pytest.mark.promise("P5")
def test_the_obligations_of_a_remembered_permit_are_carried_out_each_time(framework: str, tmp_path: Path) -> None:
    body = json.dumps({"decision": True, "context": {"obligations": [STAMP]}}).encode()
    with ScriptedServer(answer(body)) as point:
        chosen = settings(tmp_path, remote=point.url)
        chosen["remote"].update(deadline="5s", permit_ttl="60s")
        with open_surface(framework, chosen) as surface:
            shown = {"authorization": f"Bearer {token(roles=['manager'])}"}
            replies = [surface.request("POST", "/invoices/1/approve", shown).status for _ in range(3)]
        assert len(point.requests) == 1
    assert replies == [200, 200, 200]
    assert STAMPED == [("1", "red ink")] * 3


@pytest.mark.capability("C46")
@pytest.mark.parametrize(
    ("obligations", "recorded"),
    [([STAMP], ("permitted", False)), ([STAMP, {"id": "test:nobody"}], ("obligation.unfulfilled", True))],
    ids=["known", "unknown"],
)
def test_where_nothing_is_refused_no_obligation_is_carried_out(
    framework: str, tmp_path: Path, obligations: list[Any], recorded: tuple[str, bool]
) -> None:
    body = json.dumps({"decision": True, "context": {"obligations": obligations}}).encode()
    with ScriptedServer(answer(body)) as point:
        chosen = settings(tmp_path, remote=point.url, mode="observe")
        chosen["remote"].update(deadline="5s")
        with open_surface(framework, chosen) as surface:
            shown = {"authorization": f"Bearer {token(roles=['manager'])}"}
            assert surface.request("POST", "/invoices/1/approve", shown).status == 200
    assert STAMPED == []
    (record,) = wait_for_records(tmp_path, 1)
    assert (record["authz"]["reason"], record["authz"].get("shadow", False)) == recorded


@pytest.mark.capability("C31")
@pytest.mark.parametrize("said", [True, False])
def test_that_a_response_is_degraded_is_said_unless_the_settings_turn_it_off(
    framework: str, tmp_path: Path, said: bool
) -> None:
    chosen = settings(tmp_path, remote="http://127.0.0.1:9")
    chosen["fallback"]["degraded_header"] = said
    with open_surface(framework, chosen) as surface:
        reply = surface.request("GET", "/reports", {"authorization": f"Bearer {token()}"})
    assert reply.status == 200
    assert reply.headers.get("authz-degraded") == ("true" if said else None)


@pytest.mark.capability("C30", "C31")
@pytest.mark.promise("P4")
@pytest.mark.parametrize("on_faults", [True, False])
def test_a_fault_takes_the_fallback_only_where_the_settings_say_so(
    framework: str, tmp_path: Path, on_faults: bool
) -> None:
    with ScriptedServer(answer(DENY, status="403 Forbidden")) as point:
        chosen = settings(tmp_path, remote=point.url)
        chosen["remote"].update(deadline="5s")
        chosen["fallback"]["actions"]["report:*"]["on_faults"] = on_faults
        with open_surface(framework, chosen) as surface:
            reply = surface.request("GET", "/reports", {"authorization": f"Bearer {token()}"})
    assert reply.status == (200 if on_faults else 503)
    (record,) = wait_for_records(tmp_path, 1)
    taken = {"trigger": "status_4xx", "mode": "degrade" if on_faults else "deny"}
    assert record["authz"]["fallback"] == taken


def answer_each(exchange: Exchange) -> bool:
    """Permits every question but those about the second invoice, however they are put."""
    asked = json.loads(exchange.body)
    items = asked.get("evaluations", [asked])
    answers = [{"decision": item["resource"]["id"] != "2"} for item in items]
    body = {"evaluations": answers} if "evaluations" in asked else answers[0]
    exchange.send(response(json.dumps(body).encode()))
    return True


@pytest.mark.capability("C12", "C29")
def test_the_resources_of_a_list_are_asked_about_together_and_each_leaves_a_record(
    framework: str, tmp_path: Path
) -> None:
    with ScriptedServer(answer_each) as point:
        chosen = settings(tmp_path, remote=point.url)
        chosen["remote"].update(deadline="5s")
        with open_surface(framework, chosen) as surface:
            shown = {"authorization": f"Bearer {token(roles=['manager'])}"}
            assert surface.request("GET", "/which", shown).status == 200
            assert surface.ran == ["which:[True, False, True]"]
        (request,) = point.requests
    assert request.head.startswith(b"POST /access/v1/evaluations ")
    assert json.loads(request.body)["options"] == {"evaluations_semantic": "execute_all"}
    reasons = [record["authz"]["reason"] for record in wait_for_records(tmp_path, 4)]
    assert reasons == ["permitted", "permitted", "remote.deny", "permitted"]


@pytest.mark.promise("P4")
def test_an_answer_with_fewer_items_than_the_question_permits_none_of_them(framework: str, tmp_path: Path) -> None:
    short = json.dumps({"evaluations": [{"decision": True}, {"decision": True}]}).encode()
    with ScriptedServer(answer(short)) as point:
        chosen = settings(tmp_path, remote=point.url)
        chosen["remote"].update(deadline="5s")
        with open_surface(framework, chosen) as surface:
            shown = {"authorization": f"Bearer {token(roles=['manager'])}"}
            assert surface.request("GET", "/which", shown).status == 200
            assert surface.ran == ["which:[False, False, False]"]
    reasons = [record["authz"]["reason"] for record in wait_for_records(tmp_path, 4)]
    assert reasons == ["permitted", *["remote.unavailable"] * 3]


def test_a_handler_can_search_for_what_is_permitted(framework: str, tmp_path: Path) -> None:
    results = [{"type": "invoice", "id": "7"}, {"type": "invoice", "id": "8"}]
    with ScriptedServer(answer(json.dumps({"results": results}).encode())) as point:
        chosen = settings(tmp_path, remote=point.url)
        chosen["remote"].update(deadline="5s")
        with open_surface(framework, chosen) as surface:
            assert surface.request("GET", "/search", {"authorization": f"Bearer {token()}"}).status == 200
            assert surface.ran == ["found:['7', '8']"]
        (request,) = point.requests
    assert request.head.startswith(b"POST /access/v1/search/resource ")
    asked = json.loads(request.body)
    assert (asked["action"], asked["resource"]) == ({"name": "invoice:approve"}, {"type": "invoice"})
