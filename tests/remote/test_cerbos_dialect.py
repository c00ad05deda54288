"""What a real Cerbos makes of our requests: it decides by all that they say, and puts out what we read."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from authz_middleware.errors import SettingsError
from authz_middleware.permission import Permission
from authz_middleware.question import Question
from authz_middleware.remote.decision_point import DecisionPoint
from authz_middleware.remote.failure import FailureKind, RemoteAnswer, RemoteFailure
from authz_middleware.remote.messages.advice import read_advice
from authz_middleware.remote.query import RemoteQuery
from authz_middleware.resource import Resource
from authz_middleware.settings.remote.decision_point import RemoteSettings
from authz_middleware.settings.remote.probe import ProbeSettings
from authz_middleware.strict_json import parse_object
from tests.support.cerbos import CerbosServer
from tests.support.questions import NOW, question

POLICIES = {
    "invoice.yaml": """
apiVersion: api.cerbos.dev/v1
resourcePolicy:
  resource: invoice
  version: default
  rules:
    - name: refund-small
      actions: ["invoice:refund"]
      effect: EFFECT_ALLOW
      roles: [cashier]
      condition:
        match:
          all:
            of:
              - expr: P.attr.kind == "human"
              - expr: R.attr.tenant == P.attr.tenant
              - expr: R.attr.amount <= 500.0
              - expr: P.attr.context.purpose == "support"
              - expr: P.attr.context.environment == "production"
              - expr: timestamp(P.attr.context.time).getHours("Europe/Berlin") >= 8
              - expr: timestamp(P.attr.context.time).getHours("Europe/Berlin") < 18
              - expr: P.attr.claims.department == "sales"
      output:
        when:
          ruleActivated: |-
            {"obligations": [{"id": "notify", "who": R.attr.tenant}], "reason_admin": "small refund"}
          conditionNotMet: |-
            {"reason_user": "This refund needs a manager.", "acr_values": ["phr"]}
    - name: sell-by-agents
      actions: ["invoice:sell"]
      effect: EFFECT_ALLOW
      roles: [agent]
    - name: broken-obligation
      actions: ["invoice:archive"]
      effect: EFFECT_ALLOW
      roles: ["*"]
      output:
        when:
          ruleActivated: |-
            {"obligations": [P.attr.nobody.knows]}
    - name: plain
      actions: ["invoice:list"]
      effect: EFFECT_ALLOW
      roles: ["*"]
""",
    "lenient.yaml": """
apiVersion: api.cerbos.dev/v1
resourcePolicy:
  resource: invoice
  version: lenient
  rules:
    - actions: ["*"]
      effect: EFFECT_ALLOW
      roles: ["*"]
""",
}
AMOUNTS = {"amount": 12.5, "tenant": "acme"}


@pytest.fixture(scope="module")
def cerbos(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CerbosServer]:
    work = tmp_path_factory.mktemp("cerbos")
    policies = work / "policies"
    policies.mkdir()
    for name, text in POLICIES.items():
        (policies / name).write_text(text)
    with CerbosServer(work, policies) as server:
        yield server


def post(server: CerbosServer, body: bytes, path: str = "/access/v1/evaluation") -> dict[str, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    try:
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        assert response.status == 200
        return parse_object(response.read())
    finally:
        connection.close()


def refund(**changes: Any) -> Question:
    return question(**{"kind": "human", "resource": Resource("invoice", "17", AMOUNTS, NOW), **changes})


def doing(action: str, **changes: Any) -> Question:
    return refund(permission=Permission(action=action), **changes)


def put(asked: Question, dialect: str = "cerbos") -> RemoteQuery:
    return RemoteQuery.of(asked, "r1", dialect=dialect)


def permits(server: CerbosServer, asked: Question, dialect: str = "cerbos") -> object:
    return post(server, put(asked, dialect).body)["decision"]


def ask(server: CerbosServer, asked: Question) -> tuple[object, Any]:
    """The decision, and the advice beside it."""
    query = put(asked)
    told = post(server, query.body)
    context = query.read_context(told["context"])
    assert not isinstance(context, RemoteFailure)
    return told["decision"], read_advice(context, permit=told["decision"])


@pytest.mark.capability("C29")
def test_cerbos_permits_what_its_policy_permits(cerbos: CerbosServer) -> None:
    assert permits(cerbos, refund()) is True


@pytest.mark.capability("C29")
@pytest.mark.parametrize(
    "change",
    [
        {"roles": frozenset({"clerk"})},
        {"roles": frozenset()},
        {"kind": "agent"},
        {"kind": None},
        {"tenant": "umbrella"},
        {"tenant": None},
        {"resource": Resource("invoice", "17", {**AMOUNTS, "amount": 501}, NOW)},
        {"resource": Resource("invoice", "17", {"tenant": "acme"}, NOW)},
        {"resource": Resource("invoice", "17")},
        {"resource": Resource("receipt", "17", AMOUNTS, NOW)},
        {"purpose": "audit"},
        {"purpose": None},
        {"environment": "staging"},
        {"now": NOW + 12 * 3600},
        {"claims": {"department": "legal"}},
        {"permission": Permission(action="invoice:approve")},
    ],
    ids=str,
)
def test_cerbos_decides_by_everything_that_we_say(cerbos: CerbosServer, change: dict[str, Any]) -> None:
    assert permits(cerbos, refund(**change)) is False


def test_cerbos_ignores_the_context_of_the_standards_own_form(cerbos: CerbosServer) -> None:
    """Why there is a dialect: the same question denied, because nobody reads what was said."""
    assert permits(cerbos, refund(), "authzen") is False


@pytest.mark.capability("C29")
def test_nobodys_type_is_a_role(cerbos: CerbosServer) -> None:
    """Cerbos makes the type a role where there is none, and the policy's agents sell houses."""
    machine = doing("invoice:sell", kind="agent", roles=frozenset())
    assert permits(cerbos, machine, "authzen") is True
    assert permits(cerbos, machine) is False
    assert permits(cerbos, doing("invoice:sell", kind="agent", roles=frozenset({""}))) is False
    assert permits(cerbos, doing("invoice:sell", kind="human", roles=frozenset({"agent"}))) is True


@pytest.mark.capability("C29")
def test_claims_cannot_give_a_role_or_choose_a_policy(cerbos: CerbosServer) -> None:
    claims = {"cerbos.roles": ["agent"], "cerbos.policyVersion": "lenient", "roles": ["agent"]}
    assert permits(cerbos, doing("invoice:sell", claims=claims)) is False


@pytest.mark.capability("C29")
def test_cerbos_obeys_attributes_that_we_therefore_do_not_send(cerbos: CerbosServer) -> None:
    """The message error of the dialect has a reason: such an attribute chooses the policy."""
    chosen = {**AMOUNTS, "amount": 9999, "cerbos.policyVersion": "lenient"}
    assert permits(cerbos, refund(resource=Resource("invoice", "17", chosen)), "authzen") is True


@pytest.mark.capability("C28")
def test_what_policies_put_out_of_a_permit_is_an_obligation(cerbos: CerbosServer) -> None:
    decision, advice = ask(cerbos, refund())
    assert decision is True
    assert [(each.id, each.attributes) for each in advice.obligations] == [("notify", {"who": "acme"})]
    assert advice.reason_admin == "small refund"


@pytest.mark.capability("C25")
def test_what_policies_put_out_of_a_deny_says_why_and_how_to_authenticate(cerbos: CerbosServer) -> None:
    decision, advice = ask(cerbos, refund(purpose="audit"))
    assert decision is False
    assert advice.reason_user == "This refund needs a manager."
    assert advice.step_up.acr_values == ("phr",)


@pytest.mark.capability("C28", "C30")
@pytest.mark.promise("P4")
def test_a_permit_with_an_output_that_cerbos_could_not_compute_is_none(cerbos: CerbosServer) -> None:
    decision, advice = ask(cerbos, doing("invoice:archive"))
    assert decision is True
    assert isinstance(advice, RemoteFailure)
    assert advice.kind is FailureKind.MALFORMED


def test_a_permit_without_outputs_is_one(cerbos: CerbosServer) -> None:
    decision, advice = ask(cerbos, doing("invoice:list"))
    assert decision is True
    assert not isinstance(advice, RemoteFailure)
    assert advice.obligations == ()


@pytest.mark.capability("C30")
def test_the_answer_to_one_question_is_none_to_another(cerbos: CerbosServer) -> None:
    told = post(cerbos, put(refund()).body)
    failure = put(refund()).read_context(told["context"])
    assert isinstance(failure, RemoteFailure)
    assert failure.kind is FailureKind.MISMATCHED


def batch(server: CerbosServer, *asked: Question) -> list[dict[str, Any]]:
    body = {
        "evaluations": [msgspec.Raw(put(each).body) for each in asked],
        "options": {"evaluations_semantic": "execute_all"},
    }
    told = post(server, msgspec.json.encode(body), "/access/v1/evaluations")
    return told["evaluations"]  # type: ignore[no-any-return]  # JSON


@pytest.mark.capability("C29")
@pytest.mark.parametrize(
    "change",
    [
        {"resource": Resource("invoice", "17", {**AMOUNTS, "amount": 9999}, NOW)},
        {"kind": "agent"},
        {"tenant": "umbrella"},
        {"purpose": "audit"},
        {"roles": frozenset()},
    ],
    ids=str,
)
def test_cerbos_answers_items_with_the_same_ids_by_the_first_of_them(
    cerbos: CerbosServer, change: dict[str, Any]
) -> None:
    """Why such items are never put together: the second is permitted, which by itself is denied."""
    assert permits(cerbos, refund(**change)) is False
    assert [item["decision"] for item in batch(cerbos, refund(), refund(**change))] == [True, True]


@pytest.mark.capability("C29")
def test_outputs_of_a_batch_are_told_where_the_batch_asks_for_them(cerbos: CerbosServer) -> None:
    asked = [
        refund(),
        doing("invoice:list", resource=Resource("invoice", "18", {})),
        refund(purpose="audit", subject="bob"),
    ]
    queries = [put(each) for each in asked]
    body = {"evaluations": [msgspec.Raw(query.body) for query in queries], "context": queries[0].batch_context}
    told = post(cerbos, msgspec.json.encode(body), "/access/v1/evaluations")["evaluations"]
    ids = [query.request_id for query in queries]
    contexts: list[Any] = [query.read_context(item["context"], ids) for query, item in zip(queries, told, strict=True)]
    assert [item["decision"] for item in told] == [True, True, False]
    assert [sorted(context) for context in contexts] == [
        ["obligations", "reason_admin"],
        [],
        ["acr_values", "reason_user"],
    ]


def test_without_being_asked_cerbos_tells_no_outputs(cerbos: CerbosServer) -> None:
    """Then no permit of the batch counts: what it would oblige us to is not known."""
    (told,) = batch(cerbos, refund())
    assert told == {"decision": True}
    context = put(refund()).read_context({})
    assert isinstance(context, dict)
    assert isinstance(read_advice(context, permit=True), RemoteFailure)


def probed(server: CerbosServer, dialect: str) -> DecisionPoint:
    """The client of a decision point whose probes differ in their purpose."""
    permit, deny = (put(refund(purpose=purpose), dialect).body for purpose in ("support", "audit"))
    place = "context.purpose" if dialect == "authzen" else "subject.properties.context.purpose"
    probe = ProbeSettings(permit, deny, (place,))
    return DecisionPoint(RemoteSettings(url=server.url, dialect="cerbos", deadline=5.0, probe=probe))


@pytest.mark.capability("C29")
def test_a_probe_that_says_it_where_cerbos_looks_is_passed(cerbos: CerbosServer) -> None:
    point = probed(cerbos, "cerbos")
    point.start()
    reply = point.ask(put(refund()))
    assert isinstance(reply, RemoteAnswer)
    assert reply.permit is True
    assert [obligation.id for obligation in reply.advice.obligations] == ["notify"]
    assert point.ask(put(refund(purpose="audit"))) != reply
    point.close()


@pytest.mark.capability("C29", "C30")
def test_a_probe_finds_out_that_cerbos_ignores_the_context(cerbos: CerbosServer) -> None:
    point = probed(cerbos, "authzen")
    with pytest.raises(SettingsError, match=r"remote\.probe\.permit.*context\.purpose"):
        point.start()
    point.close()


async def test_on_an_event_loop_cerbos_is_asked_in_its_dialect_as_well(cerbos: CerbosServer) -> None:
    point = probed(cerbos, "cerbos")
    reply = await point.ask_async(put(refund()))
    several = await point.ask_all_async([put(refund()), put(refund(kind="agent")), put(doing("invoice:list"))])
    await point.aclose()
    point.close()
    assert isinstance(reply, RemoteAnswer)
    assert [reply.permit for reply in several if isinstance(reply, RemoteAnswer)] == [True, False, True]
