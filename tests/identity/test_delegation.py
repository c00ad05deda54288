"""Who may act for whom, and what an actor takes away. (That a chain shrinks scopes and roles: test_claims.)"""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz_middleware.boundary import crossed
from authz_middleware.decision import Reason
from authz_middleware.identity.claims.principals import principal_of
from authz_middleware.identity.principal import Actor, Principal
from authz_middleware.identity.problem import TokenRefusedError
from authz_middleware.permission import Permission
from authz_middleware.settings.issuers import IssuerSettings
from tests.support.policies import NOON, ask

pytestmark = [pytest.mark.capability("C20"), pytest.mark.promise("P2")]

SETTINGS = IssuerSettings("https://issuer.example/", ("billing-api",), ("ES256",))
AGENTS = msgspec.structs.replace(SETTINGS, claims="txn-token-agent")
BASE = {"iss": SETTINGS.issuer, "sub": "alice", "aud": "billing-api", "iat": 1000, "exp": 1300}
BOT = {"sub": "bot"}


def principal(settings: IssuerSettings = SETTINGS, /, **claims: Any) -> Principal:
    return principal_of({**BASE, **claims}, settings)


def outcome_of(settings: IssuerSettings = SETTINGS, /, **claims: Any) -> str | None:
    """The detail of a refusal; None where there is none."""
    try:
        principal(settings, **claims)
    except TokenRefusedError as refusal:
        return refusal.detail.value
    return None


def overridden(**places: str) -> IssuerSettings:
    return msgspec.structs.replace(SETTINGS, claim_overrides=places)


# may_act


@pytest.mark.parametrize(
    ("act", "may_act", "detail"),
    [
        (BOT, BOT, None),
        (None, BOT, None),
        ({**BOT, "act": {"sub": "planner"}}, BOT, None),
        ({**BOT, "scope": "read"}, BOT, None),
        ({"sub": "mallory"}, BOT, "token.actor"),
        ({"sub": "Bot"}, BOT, "token.actor"),
        ({"sub": "bot "}, BOT, "token.actor"),
        # the one that is named is further down the chain
        ({"sub": "mallory", "act": BOT}, BOT, "token.actor"),
        # a `sub` is unique within its issuer only; one without `iss` is of the token's own
        ({**BOT, "iss": "https://issuer.example/"}, BOT, None),
        (BOT, {**BOT, "iss": "https://issuer.example/"}, None),
        ({**BOT, "iss": "https://evil.example/"}, BOT, "token.actor"),
        (BOT, {**BOT, "iss": "https://other.example/"}, "token.actor"),
        ({**BOT, "iss": "https://issuer.example"}, {**BOT, "iss": "https://issuer.example/"}, "token.actor"),
        ({**BOT, "iss": "https://other.example/"}, {**BOT, "iss": "https://other.example/"}, None),
        ({**BOT, "client_id": "c-1"}, {**BOT, "client_id": "c-1"}, None),
        ({**BOT, "client_id": "c-1"}, {"client_id": "c-1"}, None),
        ({**BOT, "client_id": "c-2"}, {**BOT, "client_id": "c-1"}, "token.actor"),
        ({"sub": "mallory", "client_id": "c-1"}, {**BOT, "client_id": "c-1"}, "token.actor"),
        (BOT, {**BOT, "client_id": "c-1"}, "token.actor"),
        (BOT, {"client_id": "c-1"}, "token.actor"),
        ({**BOT, "client_id": "c-1"}, BOT, None),
    ],
    ids=repr,
)
def test_the_actor_is_one_that_the_token_lets_act(act: Any, may_act: Any, detail: str | None) -> None:
    claims = {"may_act": may_act} if act is None else {"act": act, "may_act": may_act}
    assert outcome_of(**claims) == detail


@pytest.mark.parametrize("has_actor", [True, False])
@pytest.mark.parametrize(
    "may_act",
    [
        *(None, "bot", [], [BOT], {}, 7, True),
        *({"iss": "https://issuer.example/"}, {"email": "bot@example.com"}),
        *({"sub": 7}, {"sub": ""}, {"sub": "bot\n"}, {"sub": None}, {"sub": ["bot"]}),
        *({**BOT, "iss": 7}, {**BOT, "client_id": ["c"]}),
    ],
    ids=repr,
)
def test_a_permission_to_act_that_is_not_one_refuses_the_token(may_act: Any, has_actor: bool) -> None:
    assert outcome_of(may_act=may_act, **({"act": BOT} if has_actor else {})) == "token.claim_type"


def test_a_permission_to_act_is_also_read_where_the_map_says_and_both_must_hold() -> None:
    settings = overridden(may_act="/delegation/allowed")
    allowed = {"delegation": {"allowed": BOT}}
    assert outcome_of(settings, act=BOT, **allowed) is None
    assert outcome_of(settings, act={"sub": "mallory"}, **allowed) == "token.actor"
    assert outcome_of(settings, act=BOT, may_act={"sub": "other"}, **allowed) == "token.actor"


def test_nobody_can_read_who_may_act_as_a_claim() -> None:
    assert principal(may_act=BOT).claims == {}


# where a chain is


@pytest.mark.parametrize("beside", [{"act": BOT}, {"act": {"sub": "other"}}, {"act": None}, {"act": "bot"}], ids=repr)
def test_an_actor_beside_the_chain_that_the_map_reads_refuses_the_token(beside: dict[str, Any]) -> None:
    assert outcome_of(overridden(actor="/on_behalf/by"), on_behalf={"by": BOT}, **beside) == "token.actor"


def test_an_actor_under_its_standard_name_is_seen_whatever_the_map_says() -> None:
    who = principal(overridden(actor="/on_behalf/by"), kind="human", act=BOT)
    assert (who.kind, who.actors) == ("agent", (Actor("bot"),))


# what an actor takes away


@pytest.mark.parametrize("name", ["tenant", "task", "purpose", "clearance", "environment"])
@pytest.mark.parametrize(
    ("own", "of_actors", "left"),
    [
        ("a", [None], "a"),
        ("a", ["a"], "a"),
        ("a", ["b"], None),
        ("a", ["a", "b"], None),
        ("a", [None, "b"], None),
        (None, ["a"], None),
        (None, [None], None),
    ],
)
def test_an_actor_confined_to_another_tenant_task_or_purpose_leaves_none(
    name: str, own: str | None, of_actors: list[str | None], left: str | None
) -> None:
    claim = "env" if name == "environment" else name
    chain: dict[str, Any] = {}
    for number, text in enumerate(reversed(of_actors)):
        inner = {"act": chain} if chain else {}
        chain = {"sub": f"a{number}", **({} if text is None else {claim: text}), **inner}
    assert getattr(principal(**({} if own is None else {claim: own}), act=chain), name) == left


def test_an_actor_of_another_environment_is_not_let_in_for_the_sake_of_the_issuer() -> None:
    settings = msgspec.structs.replace(SETTINGS, environment="production")
    assert principal(settings, act={**BOT, "env": "staging"}).environment is None
    assert principal(settings, act={**BOT, "env": "production"}).environment == "production"


@pytest.mark.parametrize("value", [7, "", "a\nb", None, ["a"]], ids=repr)
def test_what_confines_an_actor_has_the_type_it_must_have(value: Any) -> None:
    assert outcome_of(tenant="a", act={**BOT, "tenant": value}) == "token.claim_type"


def test_the_authorizations_of_an_actor_limit_those_of_the_subject() -> None:
    settings = msgspec.structs.replace(SETTINGS, claims="rar")

    def left(details: Any) -> Any:
        own = [{"type": "invoice", "actions": ["read", "approve"]}]
        act = {**BOT, "authorization_details": details}
        return principal(settings, authorization_details=own, act=act).claims.get("authorizations")

    assert left([{"type": "invoice", "actions": ["read", "delete"]}]) == ("invoice:read",)
    assert left([]) is None
    assert left([{"type": "invoice", "actions": ["read"], "locations": ["https://elsewhere.example/"]}]) is None


# who acts


@pytest.mark.capability("C22")
def test_an_agent_is_an_agent_whoever_calls_for_it() -> None:
    who = principal(kind="agent", act={"sub": "gateway", "kind": "workload"})
    assert (who.kind, who.subject_kind) == ("agent", "agent")


@pytest.mark.capability("C21")
@pytest.mark.parametrize(
    ("claims", "accountable"),
    [
        ({"act": {"sub": "bot"}}, True),
        # the shared identity again tells nobody apart
        ({"act": {"sub": "alice"}}, False),
        ({"act": {"sub": "alice", "iss": "https://issuer.example/"}}, False),
        ({"act": {"sub": "alice", "iss": "https://other.example/"}}, True),
        ({"act": {"sub": "alice", "act": {"sub": "bot"}}}, True),
        ({"act": {"sub": "alice"}, "client_id": "alice"}, False),
    ],
    ids=repr,
)
def test_an_actor_distinguishes_who_used_a_shared_identity(claims: dict[str, Any], accountable: bool) -> None:
    assert principal(**claims).is_accountable is accountable


@pytest.mark.capability("C22")
@pytest.mark.parametrize(
    "claims",
    [
        {"act": BOT},
        {"act": {"sub": "svc", "kind": "workload"}},
        {"act": {"sub": "bob", "kind": "human", "act": BOT}},
        {"act": {"sub": "bob", "kind": "Human"}},
        {"act": {"sub": "alice"}},
    ],
    ids=repr,
)
def test_a_person_behind_an_agent_is_not_let_in_where_only_people_are(claims: dict[str, Any]) -> None:
    people = Permission(action="act", kinds=frozenset({"human"}))
    who = msgspec.structs.replace(principal(kind="human", env="production", **claims), expires_at=NOON + 60)
    asked = msgspec.structs.replace(ask(), principal=who, permission=people)
    assert crossed(asked) is Reason.KIND_REFUSED
    alone = msgspec.structs.replace(who, kind="human", actors=())
    assert crossed(msgspec.structs.replace(asked, principal=alone)) is None


# transaction tokens for agents


def agent_context(**members: Any) -> dict[str, Any]:
    return {"current_actor": "1p", "originator": "1p", "chain_metadata": {"hop_count": 1}, **members}


@pytest.mark.capability("C22")
@pytest.mark.parametrize(
    ("claims", "subject_kind", "kind", "actors"),
    [
        # autonomous: the subject is the agent itself
        ({"sub": "1p", "agentic_ctx": agent_context()}, "agent", "agent", []),
        ({"sub": "1p", "agentic_ctx": agent_context(current_actor="2p")}, "agent", "agent", ["2p"]),
        ({"sub": "2p", "agentic_ctx": agent_context(current_actor="2p")}, "agent", "agent", []),
        # on behalf of a person
        ({"act": {"sub": "1p"}, "agentic_ctx": agent_context()}, None, "agent", ["1p"]),
        ({"act": {"sub": "3p"}, "agentic_ctx": agent_context()}, None, "agent", ["1p", "3p"]),
        # an agent that came in later, where nobody was delegated to
        ({"agentic_ctx": agent_context()}, None, "agent", ["1p"]),
        ({"tctx": {"kind": "human"}, "agentic_ctx": agent_context()}, "human", "agent", ["1p"]),
        # earlier drafts name no agent; there is one all the same
        ({"agentic_ctx": {}}, None, "agent", []),
        ({"tctx": {"kind": "human"}, "agentic_ctx": {"intent": "x"}}, "human", "agent", []),
        ({"tctx": {"kind": "workload"}, "act": {"sub": "svc"}, "agentic_ctx": {}}, "workload", "agent", ["svc"]),
        ({}, None, None, []),
    ],
    ids=repr,
)
def test_the_agent_that_carries_a_transaction_on_comes_first(
    claims: dict[str, Any], subject_kind: str | None, kind: str | None, actors: list[str]
) -> None:
    who = principal(AGENTS, **claims)
    assert (who.subject_kind, who.kind, [actor.id for actor in who.actors]) == (subject_kind, kind, actors)


@pytest.mark.parametrize(
    ("claims", "hops", "kept", "dropped"),
    [
        ({"act": {"sub": "3p"}}, 2, 4, 0),
        # `act` never changes, so only the count tells of the agents in between
        ({"act": {"sub": "3p"}}, 5, 4, 1),
        ({"act": {"sub": "3p"}}, 2, 1, 1),
        ({"act": {"sub": "3p"}}, 0, 1, 1),
        ({"sub": "1p"}, 1, 0, 0),
        ({"sub": "1p"}, 2, 0, 1),
        ({}, 9, 4, 5),
    ],
)
def test_agents_that_are_only_counted_count(claims: dict[str, Any], hops: int, kept: int, dropped: int) -> None:
    settings = msgspec.structs.replace(AGENTS, max_actors=kept)
    context = agent_context(chain_metadata={"hop_count": hops})
    assert principal(settings, **claims, agentic_ctx=context).dropped_actors == dropped


@pytest.mark.parametrize(
    "context",
    [
        *(None, "1p", [], 7),
        *(agent_context(current_actor={"id": "1p"}), agent_context(current_actor=""), agent_context(originator=7)),
        *(agent_context(chain_metadata=None), agent_context(chain_metadata=[1])),
        *(agent_context(chain_metadata={"hop_count": hops}) for hops in ("1", True, 1.0, -1, None)),
    ],
    ids=repr,
)
def test_an_agent_context_that_is_not_one_refuses_the_token(context: Any) -> None:
    assert outcome_of(AGENTS, agentic_ctx=context) == "token.claim_type"


def test_the_agent_that_carries_a_transaction_on_is_one_that_may_act() -> None:
    allowed = {"act": {"sub": "3p"}, "may_act": {"sub": "3p"}}
    assert outcome_of(AGENTS, **allowed, agentic_ctx=agent_context(current_actor="3p")) is None
    assert outcome_of(AGENTS, **allowed, agentic_ctx=agent_context()) == "token.actor"


# any chain

TEXTS = st.sampled_from(["a", "b"])
PARTS = st.fixed_dictionaries(
    {},
    optional={
        "scope": st.lists(st.sampled_from("xyz")).map(" ".join),
        "roles": st.lists(st.sampled_from("xyz")),
        **dict.fromkeys(("tenant", "task", "purpose", "env", "clearance"), TEXTS),
    },
)


@given(own=PARTS, actors=st.lists(PARTS, min_size=1, max_size=5))
def test_no_actor_ever_adds_to_what_the_subject_has(own: dict[str, Any], actors: list[dict[str, Any]]) -> None:
    chain: dict[str, Any] = {}
    for number, parts in enumerate(actors):
        chain = {"sub": f"a{number}", **parts, **({"act": chain} if chain else {})}
    alone, acting = principal(**own), principal(**own, act=chain)
    assert acting.scopes <= alone.scopes
    assert acting.roles <= alone.roles
    for name in ("tenant", "task", "purpose", "environment", "clearance"):
        assert getattr(acting, name) in (None, getattr(alone, name))
