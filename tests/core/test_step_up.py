"""Step-up authentication (RFC 9470): what suffices, what a client is told, and that doing it helps."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authz_middleware import Settings, requires
from authz_middleware.authorization import Authorization
from authz_middleware.decision import Decision, Reason
from authz_middleware.engine import Attempt, Engine
from authz_middleware.facts import RequestFacts
from authz_middleware.identity.principal import Principal
from authz_middleware.pep import EnforcementPoint
from authz_middleware.permission import Permission, Requirement, annotations_of
from authz_middleware.policy.compiler import compile_policy
from authz_middleware.policy.model import Always, Equals, Match, Policy, Rule
from authz_middleware.settings.model import AppSettings, DecisionLogSettings, PolicySettings
from authz_middleware.settings.remote.decision_point import RemoteSettings
from authz_middleware.step_up import (
    MAX_AGE,
    StepUp,
    enough_for_one,
    find_faults,
    is_met,
    parse_max_age,
    strictest,
    told_to,
)
from tests.support.alice import NOW, alice, asks
from tests.support.tokens import bearer
from tests.support.treasury import records, token
from tests.support.treasury import settings as treasury

PERSON: dict[str, Any] = {"subject_kind": "human", "kind": "human"}


# What suffices


@pytest.mark.promise("P2")
@pytest.mark.capability("C25")
@pytest.mark.parametrize(
    ("acr", "at", "met"),
    [
        ("phr", NOW, True),
        ("mfa", NOW - 300, True),
        ("phr", NOW - 301, False),
        ("phr", None, False),
        ("phr", NOW + 60, True),  # clocks differ
        ("phr", NOW + 61, False),
        ("phr", float("nan"), False),
        ("phr", float("inf"), False),
        ("phr", 0.0, False),
        ("pwd", NOW, False),
        (None, NOW, False),
        ("", NOW, False),
        ("PHR", NOW, False),
        ("phrh", NOW, False),
        ("phr mfa", NOW, False),
        ("phr ", NOW, False),
    ],
)
def test_an_authentication_suffices_only_where_the_token_says_that_it_does(
    acr: str | None, at: float | None, met: bool
) -> None:
    asked = StepUp(("phr", "mfa"), 300)
    assert is_met(asked, alice(acr=acr, authenticated_at=at), NOW) is met


def test_what_is_not_asked_need_not_be_there() -> None:
    assert is_met(StepUp(("phr",)), alice(acr="phr"), NOW)
    assert is_met(StepUp((), 300), alice(authenticated_at=NOW - 5), NOW)
    assert not is_met(StepUp((), 300), alice(acr="phr"), NOW)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1s", 1),
        ("5m", 300),
        ("1.5m", 90),
        ("2000ms", 2),
        ("365d", MAX_AGE),
        ("366d", None),
        ("0s", None),
        ("500ms", None),
        ("1.5s", None),
        ("300", None),
        ("-5m", None),
        (300, None),
        (True, None),
        (None, None),
    ],
)
def test_an_age_is_whole_seconds_with_a_unit(text: object, seconds: int | None) -> None:
    assert parse_max_age(text) == seconds


@pytest.mark.parametrize(
    ("asked", "fault"),
    [
        (StepUp(), "must ask for acr, max_age or both"),
        ("phr", "must be a StepUp"),
        (StepUp("phr"), "must be a StepUp"),  # type: ignore[arg-type]
        (StepUp(("a b",)), "acr 'a b' must be"),
        (StepUp(("",)), "acr '' must be"),
        (StepUp(('a"',)), "must be"),
        (StepUp(("a\\",)), "must be"),
        (StepUp(("a\r\nset-cookie: x",)), "must be"),
        (StepUp(("é",)), "must be"),
        (StepUp((5,)), "must be"),  # type: ignore[arg-type]
        (StepUp(("a" * 257,)), "must be"),
        (StepUp(("a", "a")), "each once"),
        (StepUp(tuple(map(str, range(17)))), "up to 16"),
        (StepUp((), 0), "max_age must be"),
        (StepUp((), -5), "max_age must be"),
        (StepUp((), MAX_AGE + 1), "max_age must be"),
        (StepUp((), 2.5), "max_age must be"),  # type: ignore[arg-type]
        (StepUp((), True), "max_age must be"),
    ],
)
def test_what_nobody_could_meet_or_a_header_not_hold_is_a_fault(asked: Any, fault: str) -> None:
    found = list(find_faults(asked))
    assert len(found) == 1
    assert fault in found[0]


def test_what_can_be_asked_has_no_fault() -> None:
    asked = StepUp(("urn:mace:incommon:iap:silver", "https://refeds.org/profile/mfa", "a" * 256), MAX_AGE)
    assert list(find_faults(asked)) == []


# What is told


@pytest.mark.parametrize(
    ("asked", "together"),
    [
        ([], StepUp()),
        ([StepUp(("a", "b")), StepUp(("b", "a"))], StepUp(("a", "b"))),
        ([StepUp(("a", "b")), StepUp(("b", "c")), StepUp((), 60)], StepUp(("b",), 60)),
        ([StepUp((), 300), StepUp((), 60), StepUp(("a",))], StepUp(("a",), 60)),
        ([StepUp(("a",)), StepUp(("b",))], None),
        ([StepUp(("a",)), StepUp(("b",)), StepUp(("a",))], None),
    ],
)
def test_requirements_that_must_all_hold_are_told_at_their_strictest(
    asked: list[StepUp], together: StepUp | None
) -> None:
    assert strictest(asked) == together


@pytest.mark.parametrize(
    ("ways", "told"),
    [
        ([StepUp(("a",), 60)], StepUp(("a",), 60)),
        ([StepUp(("a", "b")), StepUp(("b", "a"))], StepUp(("a", "b"))),
        ([StepUp(("c",)), StepUp(("b", "a"))], StepUp(("c", "b", "a"))),
        ([StepUp(("a",)), StepUp(("b",), 60)], StepUp(("a", "b"), 60)),
        ([StepUp(("a",)), StepUp((), 60)], StepUp((), 60)),
        ([StepUp((), 300), StepUp(("a",), 5), StepUp((), 60)], StepUp((), 300)),
        ([StepUp(("a",), 60), StepUp(("a",))], StepUp(("a",))),
        ([StepUp(("a",)), StepUp(("a", "b"))], StepUp(("a", "b"))),
        ([StepUp(("a",)), StepUp(("a",))], StepUp(("a",))),
        ([StepUp(("a",), 60), StepUp(("a", "b"), 30)], StepUp(("a", "b"), 30)),
    ],
)
def test_of_several_ways_in_the_easiest_is_told(ways: list[StepUp], told: StepUp) -> None:
    assert enough_for_one(ways) == told


@pytest.mark.capability("C25")
@pytest.mark.parametrize("kind", [None, "workload", "agent"])
def test_only_a_person_is_told_to_authenticate(kind: Any) -> None:
    ways = [StepUp(("phr",))]
    assert told_to(alice(subject_kind="human", kind="agent"), None, ways) == ways[0]
    assert told_to(alice(subject_kind=kind, kind="human"), None, ways) is None


def test_a_way_that_the_route_rules_out_is_not_told() -> None:
    route = StepUp(("phr", "mfa"), 60)
    assert told_to(alice(**PERSON), route, [StepUp(("pwd",)), StepUp(("mfa",), 300)]) == StepUp(("mfa",), 60)
    assert told_to(alice(**PERSON), route, [StepUp(("pwd",))]) is None


acrs = st.sampled_from(["a", "b", "c"])
asked_of = st.builds(
    StepUp,
    st.lists(acrs, max_size=2, unique=True).map(tuple),
    st.none() | st.sampled_from([60, 300]),
).filter(lambda asked: asked != StepUp())
ages = st.none() | st.sampled_from([0, 60, 61, 300, 301, -61])


@st.composite
def situations(draw: st.DrawFn) -> tuple[Policy, Permission, Principal]:
    rules = [
        Rule(f"r{number}", "permit", ("act",), Always(), authentication=draw(st.none() | asked_of))
        for number in range(draw(st.integers(0, 3)))
    ]
    age = draw(ages)
    who = alice(acr=draw(st.none() | acrs), authenticated_at=None if age is None else NOW - age, **PERSON)
    policy = Policy(name="p", owner="o", rules=tuple(rules))
    return policy, Permission(action="act", step_up=draw(st.none() | asked_of)), who


PLAIN = Settings(
    app=AppSettings("treasury", "production"),
    issuers=(),
    policy=PolicySettings(Path("unused")),
    decision_log=DecisionLogSettings(),
)
ENGINE = Engine(PLAIN)


def decided(policy: Policy, permission: Permission, who: Principal) -> Decision:
    question = msgspec.structs.replace(asks("act"), permission=permission, principal=who)
    decision = ENGINE.begin(question, compile_policy(policy))
    assert isinstance(decision, Decision)
    return decision


@pytest.mark.capability("C25")
@settings(deadline=None)
@given(situations())
def test_whoever_does_what_the_challenge_says_gets_in(situation: tuple[Policy, Permission, Principal]) -> None:
    policy, permission, who = situation
    told = decided(policy, permission, who).step_up
    if told is not None:
        for acr in told.acr_values or (who.acr,):
            anew = msgspec.structs.replace(who, acr=acr, authenticated_at=NOW)
            assert decided(policy, permission, anew).permit


@pytest.mark.capability("C25")
@settings(deadline=None)
@given(situations())
def test_a_permit_has_met_the_route_and_its_rule(situation: tuple[Policy, Permission, Principal]) -> None:
    policy, permission, who = situation
    decision = decided(policy, permission, who)
    met = [rule.name for rule in policy.rules if rule.authentication is None or is_met(rule.authentication, who, NOW)]
    route = permission.step_up is None or is_met(permission.step_up, who, NOW)
    assert decision.permit is (route and bool(met))
    if decision.permit:
        assert decision.rule in met
        assert decision.step_up is None
    elif policy.rules:
        assert decision.reason is Reason.AUTHENTICATION_INSUFFICIENT
    else:
        assert decision.reason is Reason.NO_RULE


# In the pipeline

POLICY = """
policy: treasury
owner: payments-platform@example.com
rules:
  - {rule: open, permit: ["invoice:*", "vault:*"], when: always}
  - rule: pay
    permit: payout:release
    sensitive: true
    authentication: {acr: [phr, mfa], max_age: 5m}
    when: {subject.roles: {has: clerk}}
  - {rule: closed, deny: "vault:*", when: {subject.tenant: acme}}
"""
FACTS = RequestFacts(method="POST", route="/payouts", endpoint="app:pay")


def asked(action: str, **members: Any) -> Requirement:
    return Requirement.of(annotations_of(requires(action, **members)(lambda: None)))


class Point:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        chosen = treasury(folder)  # its decision point answers nothing: whoever asks it is refused with 503
        Path(chosen["policy"]["source"]).write_text(POLICY)
        del chosen["fallback"]["actions"]["report:*"]
        self.pep = EnforcementPoint(Settings.from_mapping(chosen))
        self.pep.start()

    def enforce(self, requirement: Requirement, **claims: Any) -> Authorization:
        return self.pep.enforce(FACTS, bearer(token(**claims)), requirement)

    def records(self) -> list[dict[str, Any]]:
        self.pep.recorder.flush()
        return records(self.folder)


@pytest.fixture
def point(tmp_path: Path) -> Iterator[Point]:
    made = Point(tmp_path)
    yield made
    made.pep.close()


def challenge_of(authorization: Authorization) -> tuple[int, str | None]:
    assert authorization.refusal is not None
    return authorization.refusal.status, dict(authorization.refusal.headers).get("www-authenticate")


PAY = asked("payout:release")
INSUFFICIENT = (
    'Bearer error="insufficient_user_authentication", '
    'error_description="A different or more recent authentication is required", '
)


@pytest.mark.capability("C25")
@pytest.mark.parametrize("actor", [{}, {"act": {"sub": "bot-7"}}], ids=["a person", "an agent for a person"])
@pytest.mark.parametrize(
    "claims",
    [{}, {"acr": "phr"}, {"acr": "phr", "auth_time": 301}, {"acr": "pwd", "auth_time": 1}],
    ids=["nothing said", "no time", "too long ago", "other acr"],
)
def test_a_person_whose_authentication_does_not_suffice_is_told_what_would(
    point: Point, claims: dict[str, Any], actor: dict[str, Any]
) -> None:
    claims = {**claims, **actor}
    if "auth_time" in claims:
        claims["auth_time"] = int(time.time()) - claims["auth_time"]
    refused = point.enforce(PAY, **claims)
    assert challenge_of(refused) == (401, INSUFFICIENT + 'acr_values="phr mfa", max_age=300')
    (record,) = point.records()
    assert record["authz"]["reason"] == "authentication.insufficient"
    assert record["authz"]["step_up"] == {"acr_values": ["phr", "mfa"], "max_age": 300}
    assert record["authz"]["decided_by"] == "local"  # never asked: nothing answers there


@pytest.mark.capability("C25")
def test_where_it_suffices_the_decision_point_is_asked(point: Point) -> None:
    refused = point.enforce(PAY, acr="mfa", auth_time=int(time.time()) - 5)
    assert refused.decision.reason is Reason.REMOTE_UNAVAILABLE


@pytest.mark.capability("C25")
@pytest.mark.parametrize("kind", ["workload", "agent", None])
def test_where_no_person_is_behind_the_token_there_is_no_challenge(point: Point, kind: str | None) -> None:
    refused = point.enforce(PAY, kind=kind)
    assert challenge_of(refused) == (403, None)
    assert refused.decision.reason is Reason.AUTHENTICATION_INSUFFICIENT


@pytest.mark.capability("C25")
def test_a_route_asks_for_itself_whatever_the_policy_says(point: Point) -> None:
    route = asked("invoice:read", acr="phr", max_age="10m")
    assert challenge_of(point.enforce(route)) == (401, INSUFFICIENT + 'acr_values="phr", max_age=600')
    assert point.enforce(route, acr="phr", auth_time=int(time.time())).decision.permit


@pytest.mark.capability("C25")
def test_a_sensitive_route_that_asks_for_more_does_not_ask_the_decision_point(point: Point) -> None:
    refused = point.enforce(asked("invoice:read", acr="phr", sensitive=True))
    assert refused.decision.reason is Reason.AUTHENTICATION_INSUFFICIENT


def test_nobody_is_sent_to_authenticate_for_what_is_denied_all_the_same(point: Point) -> None:
    for refused in (
        point.enforce(asked("vault:open", acr="phr")),
        point.enforce(asked("unknown:action", acr="phr")),
        point.enforce(asked("invoice:read", acr="phr", purpose="other")),
        point.enforce(PAY, roles=["manager"]),
    ):
        assert challenge_of(refused) == (403, None)
        assert refused.decision.reason is not Reason.AUTHENTICATION_INSUFFICIENT


def test_route_and_rule_are_told_together(point: Point) -> None:
    narrower = asked("payout:release", acr=["mfa", "pwd"], max_age="1m")
    assert challenge_of(point.enforce(narrower))[1] == INSUFFICIENT + 'acr_values="mfa", max_age=60'
    # Where the rule is content and the route is not, what the rule needs has to survive.
    held = {"acr": "phr", "auth_time": int(time.time())}
    assert challenge_of(point.enforce(narrower, **held))[1] == INSUFFICIENT + 'acr_values="mfa", max_age=60'
    # No one acr is right for both, so nothing would help.
    assert challenge_of(point.enforce(asked("payout:release", acr="pwd"), **held)) == (403, None)


def test_two_permissions_of_a_route_are_told_together(point: Point) -> None:
    inner = requires("invoice:read", acr="phr", max_age="2m")(lambda: None)
    both = Requirement.of(annotations_of(requires("invoice:list", acr=["mfa", "phr"])(inner)))
    assert challenge_of(point.enforce(both))[1] == INSUFFICIENT + 'acr_values="phr", max_age=120'


def test_a_refusal_of_the_route_names_the_policy_version_and_no_rule(point: Point) -> None:
    decision = point.enforce(asked("invoice:read", acr="phr")).decision
    assert (decision.rule, decision.policy) == (None, "treasury")
    assert decision.revision


def test_a_rule_that_would_not_permit_anyway_adds_nothing_to_what_is_told() -> None:
    elsewhere = Match("subject.tenant", Equals("globex"))
    rules = (
        Rule("recent", "permit", ("act",), Always(), authentication=StepUp((), 60)),
        Rule("elsewhere", "permit", ("act",), elsewhere, authentication=StepUp((), 300)),
    )
    policy, route = Policy(name="p", owner="o", rules=rules), Permission(action="act", step_up=StepUp(("phr",)))
    for tenant, age in (("acme", 60), ("globex", 300)):
        who = alice(tenant=tenant, authenticated_at=NOW, **PERSON)  # enough for the policy, not for the route
        assert decided(policy, route, who).step_up == StepUp(("phr",), age)


def test_an_attempt_is_never_made_for_an_insufficient_authentication() -> None:
    policy = Policy(
        name="p",
        owner="o",
        rules=(Rule("r", "permit", ("act",), Always(), sensitive=True, authentication=StepUp(("phr",))),),
    )
    engine = Engine(msgspec.structs.replace(PLAIN, remote=RemoteSettings("http://127.0.0.1:9")))
    assert isinstance(engine.begin(asks("act", who={"acr": "phr"}), compile_policy(policy)), Attempt)
    assert isinstance(engine.begin(asks("act", who={"acr": "pwd"}), compile_policy(policy)), Decision)
