"""What verified claims say about a principal, and which claims refuse the token instead."""

from __future__ import annotations

import copy
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz_middleware.identity.claims import CLAIM_NAMES, PRESETS, path_of, principal_of
from authz_middleware.identity.principal import Actor, Principal
from authz_middleware.identity.problem import TokenRefusedError
from authz_middleware.settings.model import IssuerSettings

SETTINGS = IssuerSettings("https://issuer.example/", ("billing-api",), ("ES256",))
BASE = {"iss": SETTINGS.issuer, "sub": "alice", "aud": "billing-api", "iat": 1000, "exp": 1300}


def principal(settings: IssuerSettings = SETTINGS, /, **claims: Any) -> Principal:
    return principal_of({**BASE, **claims}, settings)


def with_preset(preset: str, **changes: Any) -> IssuerSettings:
    return msgspec.structs.replace(SETTINGS, claims=preset, **changes)


def refused(settings: IssuerSettings = SETTINGS, /, **claims: Any) -> str:
    with pytest.raises(TokenRefusedError) as caught:
        principal(settings, **claims)
    return caught.value.detail.value


def test_an_access_token_fills_the_principal() -> None:
    who = principal(
        aud=["billing-api", "other"],
        scope="invoices.read  invoices.list",
        roles=["cashier"],
        tenant="acme",
        task="close-month",
        purpose="audit",
        env="production",
        clearance="internal",
        client_id="web-shop",
        jti="t-1",
        txn="x-1",
    )
    assert who == Principal(
        issuer="https://issuer.example/",
        subject="alice",
        client="web-shop",
        scopes=frozenset({"invoices.read", "invoices.list"}),
        roles=frozenset({"cashier"}),
        tenant="acme",
        task="close-month",
        purpose="audit",
        environment="production",
        clearance="internal",
        audience=("billing-api", "other"),
        token_id="t-1",
        transaction="x-1",
        issued_at=1000.0,
        expires_at=1300.0,
    )


def test_what_a_token_does_not_say_is_not_assumed() -> None:
    assert principal() == Principal(
        issuer="https://issuer.example/",
        subject="alice",
        audience=("billing-api",),
        issued_at=1000.0,
        expires_at=1300.0,
    )


def test_a_transaction_token_states_purpose_workload_and_context() -> None:
    who = principal(
        with_preset("txn-token"),
        txn="x-1",
        scope="refund",
        req_wl="spiffe://prod/gateway",
        tctx={"tenant": "acme", "task": "case-7", "env": "production"},
    )
    assert (who.transaction, who.purpose, who.scopes) == ("x-1", "refund", frozenset({"refund"}))
    assert (who.client, who.tenant, who.task, who.environment) == (
        "spiffe://prod/gateway",
        "acme",
        "case-7",
        "production",
    )


def test_token_exchange_knows_the_client_by_its_registered_name_only() -> None:
    assert principal(with_preset("rfc8693"), azp="web-shop").client is None
    assert principal(with_preset("rfc9068"), azp="web-shop").client == "web-shop"


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_every_preset_reads_scopes_and_actors(preset: str) -> None:
    who = principal(with_preset(preset), scope="a", act={"sub": "bot"})
    assert who.scopes == {"a"}
    assert who.actors == (Actor("bot"),)


# overrides


@pytest.mark.parametrize(
    ("name", "place", "claims", "expected"),
    [
        ("tenant", "tid", {"tid": "acme", "tenant": "not-read"}, "acme"),
        ("tenant", "https://example/tenant", {"https://example/tenant": "acme"}, "acme"),
        ("tenant", "/org/id", {"org": {"id": "acme"}}, "acme"),
        ("tenant", "/a~1b/c~0d", {"a/b": {"c~d": "acme"}}, "acme"),
        ("tenant", "/orgs/1", {"orgs": ["first", "acme"]}, "acme"),
        ("tenant", "/orgs/2", {"orgs": ["first", "acme"]}, None),
        ("tenant", "/orgs/-1", {"orgs": ["first", "acme"]}, None),
        ("tenant", "/org/id", {"org": "acme"}, None),
        ("roles", "/realm_access/roles", {"realm_access": {"roles": ["a"]}, "roles": ["b"]}, frozenset({"a"})),
        ("scopes", "scp", {"scp": ["a", "b"]}, frozenset({"a", "b"})),
    ],
)
def test_an_entry_of_the_map_can_be_read_elsewhere(
    name: str, place: str, claims: dict[str, Any], expected: Any
) -> None:
    settings = msgspec.structs.replace(SETTINGS, claim_overrides={name: place})
    assert getattr(principal(settings, **claims), name) == expected


@pytest.mark.parametrize("place", ["/a~2b", "/a~", "/~"])
def test_a_wrong_json_pointer_is_refused(place: str) -> None:
    with pytest.raises(ValueError, match="not a JSON pointer"):
        path_of(place)


def test_the_map_names_what_settings_may_override() -> None:
    assert {"scopes", "roles", "tenant", "task", "purpose", "environment", "kind", "client", "actor"} <= CLAIM_NAMES


# types


WRONG_TEXT: list[Any] = [7, True, None, [], ["acme"], {}, "", "a\nb", "a\x00", "\u202eacme", "x" * 2049]


@pytest.mark.parametrize("value", WRONG_TEXT, ids=repr)
@pytest.mark.parametrize(
    "name", ["tenant", "task", "purpose", "env", "clearance", "kind", "client_id", "azp", "jti", "txn"]
)
def test_a_text_claim_of_another_type_refuses_the_token(name: str, value: Any) -> None:
    assert refused(**{name: value}) == "token.claim_type"


@pytest.mark.parametrize("name", ["scope", "roles"])
@pytest.mark.parametrize(
    "value", [7, True, None, {}, [7], ["a", None], [["a"]], [""], "a\tb", "a\nb", ["x"] * 257, "x " * 257]
)
def test_a_set_of_another_type_refuses_the_token(name: str, value: Any) -> None:
    assert refused(**{name: value}) == "token.claim_type"


@pytest.mark.parametrize(
    "act",
    [
        None,
        "bot",
        [],
        [{"sub": "bot"}],
        {},
        {"iss": "https://issuer.example/"},
        {"sub": 7},
        {"sub": ""},
        {"sub": "bot\n"},
        {"sub": "bot", "iss": 7},
        {"sub": "bot", "kind": 7},
        {"sub": "bot", "scope": 7},
        {"sub": "bot", "act": "boss"},
        {"sub": "bot", "act": {}},
        {"sub": "bot", "act": None},
    ],
    ids=repr,
)
@pytest.mark.capability("C20")
def test_a_chain_that_is_not_one_refuses_the_token(act: Any) -> None:
    assert refused(act=act) == "token.claim_type"


# environment


@pytest.mark.capability("C5")
@pytest.mark.parametrize(
    ("of_issuer", "claim", "expected"),
    [
        (None, {}, None),
        ("staging", {}, "staging"),
        (None, {"env": "staging"}, "staging"),
        ("production", {"env": "production"}, "production"),
        ("production", {"env": "staging"}, None),
        ("staging", {"env": "production"}, None),
    ],
)
def test_the_environment_is_the_claim_or_the_issuers_and_none_where_they_differ(
    of_issuer: str | None, claim: dict[str, str], expected: str | None
) -> None:
    settings = msgspec.structs.replace(SETTINGS, environment=of_issuer)
    assert principal(settings, **claim).environment == expected


# who acts


def chain(*actors: dict[str, Any]) -> dict[str, Any]:
    """A nested `act` claim, the current actor outermost."""
    inner: dict[str, Any] = {}
    for actor in reversed(actors):
        inner = {**actor, **({"act": inner} if inner else {})}
    return inner


@pytest.mark.capability("C20")
def test_the_chain_starts_with_the_party_that_makes_this_call() -> None:
    who = principal(act=chain({"sub": "tool", "iss": "https://b.example/"}, {"sub": "planner"}))
    assert who.actors == (Actor("tool", "agent", "https://b.example/"), Actor("planner"))


@pytest.mark.capability("C20")
@pytest.mark.parametrize(("kept", "named", "dropped"), [(0, 0, 6), (4, 4, 2), (6, 6, 0), (16, 6, 0)])
def test_actors_beyond_the_bound_are_counted(kept: int, named: int, dropped: int) -> None:
    settings = msgspec.structs.replace(SETTINGS, max_actors=kept)
    who = principal(settings, act=chain(*({"sub": f"a{i}"} for i in range(6))))
    assert [actor.id for actor in who.actors] == [f"a{i}" for i in range(named)]
    assert who.dropped_actors == dropped


@pytest.mark.capability("C20")
def test_a_chain_without_end_refuses_the_token() -> None:
    assert refused(act=chain(*({"sub": f"a{i}"} for i in range(33)))) == "token.claim_type"


@pytest.mark.capability("C20")
@pytest.mark.parametrize(
    ("act", "scopes", "roles"),
    [
        ({"sub": "bot"}, {"read", "write"}, {"admin", "user"}),
        ({"sub": "bot", "scope": "read export"}, {"read"}, {"admin", "user"}),
        ({"sub": "bot", "scope": ""}, set(), {"admin", "user"}),
        ({"sub": "bot", "roles": ["user"]}, {"read", "write"}, {"user"}),
        (chain({"sub": "a", "scope": "read"}, {"sub": "b", "scope": "write"}), set(), {"admin", "user"}),
        (chain({"sub": "a"}, {"sub": "b", "scope": "write", "roles": []}), {"write"}, set()),
    ],
    ids=repr,
)
def test_the_effective_right_is_what_subject_and_actors_hold(act: Any, scopes: set[str], roles: set[str]) -> None:
    who = principal(scope="read write", roles=["admin", "user"], act=act)
    assert who.scopes == scopes
    assert who.roles == roles


@pytest.mark.capability("C20")
def test_an_actor_beyond_the_bound_still_limits_the_right() -> None:
    settings = msgspec.structs.replace(SETTINGS, max_actors=1)
    who = principal(settings, scope="read write", act=chain({"sub": "a"}, {"sub": "b", "scope": "read"}))
    assert (len(who.actors), who.dropped_actors, who.scopes) == (1, 1, frozenset({"read"}))


@pytest.mark.capability("C20")
def test_an_actors_own_scope_counts_where_the_subjects_is_read_elsewhere() -> None:
    settings = msgspec.structs.replace(SETTINGS, claim_overrides={"scopes": "scp"})
    assert principal(settings, scp="read write", act={"sub": "bot", "scope": "read"}).scopes == {"read"}
    assert principal(settings, scp="read write", act={"sub": "bot", "scp": "write"}).scopes == {"write"}


@pytest.mark.capability("C20")
def test_an_actors_own_roles_count_by_either_name() -> None:
    settings = msgspec.structs.replace(SETTINGS, claim_overrides={"roles": "/realm/roles"})
    held = {"realm": {"roles": ["a", "b"]}}
    assert principal(settings, **held, act={"sub": "bot", "roles": ["a"]}).roles == {"a"}
    assert principal(settings, **held, act={"sub": "bot", "realm": {"roles": ["b"]}}).roles == {"b"}


WORDS = st.frozensets(st.sampled_from("abcdef"))


@pytest.mark.capability("C20")
@given(own=WORDS, actors=st.lists(st.none() | WORDS, max_size=8), kept=st.integers(0, 16))
def test_nobody_in_the_chain_ever_adds_a_right(
    own: frozenset[str], actors: list[frozenset[str] | None], kept: int
) -> None:
    entries = [{"sub": "x", **({} if words is None else {"scope": " ".join(words)})} for words in actors]
    settings = msgspec.structs.replace(SETTINGS, max_actors=kept)
    who = principal(settings, scope=" ".join(own), **({"act": chain(*entries)} if entries else {}))
    expected = own
    for words in actors:
        expected = expected if words is None else expected & words
    assert who.scopes == expected
    assert len(who.actors) + who.dropped_actors == len(actors)


@pytest.mark.capability("C22")
@pytest.mark.parametrize(
    ("claims", "subject_kind", "kind"),
    [
        ({}, None, None),
        ({"kind": "human"}, "human", "human"),
        ({"kind": "agent"}, "agent", "agent"),
        ({"kind": "workload"}, "workload", "workload"),
        ({"kind": "superuser"}, None, None),
        ({"kind": "Human"}, None, None),
        ({"client_id": "alice"}, "workload", "workload"),
        ({"client_id": "web-shop"}, None, None),
        ({"client_id": "alice", "kind": "agent"}, "agent", "agent"),
        ({"kind": "human", "act": {"sub": "bot"}}, "human", "agent"),
        ({"kind": "human", "act": {"sub": "bot", "kind": "robot"}}, "human", "agent"),
        ({"kind": "human", "act": {"sub": "svc", "kind": "workload"}}, "human", "workload"),
        ({"kind": "workload", "act": {"sub": "bob", "kind": "human"}}, "workload", "human"),
        (
            {"kind": "human", "act": chain({"sub": "svc", "kind": "workload"}, {"sub": "bot"})},
            "human",
            "agent",
        ),
        ({"act": chain({"sub": "s", "kind": "workload"}, {"sub": "b", "kind": "human"})}, None, "workload"),
    ],
    ids=repr,
)
def test_kind_is_that_of_whoever_really_acts(
    claims: dict[str, Any], subject_kind: str | None, kind: str | None
) -> None:
    who = principal(**claims)
    assert (who.subject_kind, who.kind) == (subject_kind, kind)


@pytest.mark.capability("C22")
def test_an_agent_beyond_the_bound_still_makes_the_caller_an_agent() -> None:
    settings = msgspec.structs.replace(SETTINGS, max_actors=0)
    who = principal(settings, kind="human", act={"sub": "bot"})
    assert (who.kind, who.actors, who.dropped_actors) == ("agent", (), 1)


@pytest.mark.capability("C21")
@pytest.mark.parametrize(
    ("claims", "accountable"),
    [
        ({}, False),
        ({"client_id": "alice"}, False),
        ({"client_id": "web-shop"}, True),
        ({"act": {"sub": "bot"}}, True),
        ({"jti": "t-1"}, True),
        ({"txn": "x-1"}, True),
    ],
)
def test_a_shared_subject_is_told_apart_by_actor_client_token_or_transaction(
    claims: dict[str, Any], accountable: bool
) -> None:
    assert principal(**claims).is_accountable is accountable


# further claims


def test_further_plain_claims_are_kept_and_structures_are_not() -> None:
    who = principal(department="treasury", level=3, vip=True, groups=["a", "b"], nested={"a": 1}, mixed=[{}], none=None)
    assert who.claims == {"department": "treasury", "level": 3, "vip": True, "groups": ("a", "b")}


@pytest.mark.parametrize("name", ["roles", "id", "issuer", "scopes", "actors", "subject_kind", "cnf", "may_act"])
def test_a_claim_cannot_pass_for_what_policies_read_under_a_built_in_name(name: str) -> None:
    settings = msgspec.structs.replace(SETTINGS, claim_overrides={"roles": "/realm_access/roles"})
    assert principal(settings, **{name: "forged"}).claims == {}


@pytest.mark.parametrize(
    "change",
    [
        lambda claims: claims.__setitem__("a", 1),
        lambda claims: claims.__delitem__("a"),
        lambda claims: claims.update(a=1),
        lambda claims: claims.setdefault("b", 1),
        lambda claims: claims.pop("a"),
        lambda claims: claims.popitem(),
        lambda claims: claims.clear(),
        lambda claims: claims.__ior__({"a": 1}),
    ],
)
def test_the_claims_of_a_principal_cannot_be_changed(change: Any) -> None:
    claims = principal(a="1").claims
    with pytest.raises(TypeError):
        change(claims)
    assert claims == {"a": "1"}


def test_a_principal_can_be_copied_and_encoded() -> None:
    who = principal(a=["1"])
    assert copy.deepcopy(who) == who
    assert msgspec.json.decode(msgspec.json.encode(who))["claims"] == {"a": ["1"]}


TEXT_LIKE = st.text(max_size=8) | st.integers() | st.none() | st.booleans() | st.lists(st.text(max_size=3), max_size=3)


@given(claims=st.dictionaries(st.sampled_from([*CLAIM_NAMES, "env", "scope", "jti", "txn", "act", "x"]), TEXT_LIKE))
def test_claims_of_any_type_give_a_typed_principal_or_a_refusal(claims: dict[str, Any]) -> None:
    try:
        who = principal(**claims)
    except TokenRefusedError:
        return
    msgspec.convert(msgspec.to_builtins(who), Principal, strict=True)
