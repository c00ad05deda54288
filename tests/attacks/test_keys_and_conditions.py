"""Questions that must not be taken for one another, and conditions that must not be talked into holding."""

from __future__ import annotations

import math
import threading
from decimal import Decimal
from itertools import combinations
from typing import Any
from uuid import UUID

import pytest
from flask import Flask

from authz_middleware import NoRequestError, authz, requires
from authz_middleware.decision import Reason
from authz_middleware.identity.authenticator import Authenticator
from authz_middleware.identity.principal import Actor, Principal
from authz_middleware.loaders import described
from authz_middleware.remote.messages.values import MessageError
from authz_middleware.remote.query import RemoteQuery
from authz_middleware.resource import Resource
from authz_middleware.settings.issuers import IssuerSettings
from tests.flask.office import Office, clerk
from tests.support.alice import asks
from tests.support.policies import answer_of, ask, instant, rules_document, snapshot_of
from tests.support.tokens import Issuer, bearer

VALUES = (
    *(1, 1.0, True, "1", "true", "True", 0, 0.0, -0.0, False, "", "é", "e\u0301", "\u0130", "i"),
    *([], [1], ["1"], [[1]], [1, 1], {}, {"a": 1}, {"a": {"b": 1}}, {"a.b": 1}, {"a": "b:1"}, 2**53 - 1, 1e300, 1e-300),
)


def _key(**changes: Any) -> Any:
    return RemoteQuery.of(asks("invoice:read", **changes), "r").key


@pytest.mark.promise("P5")
def test_two_different_attributes_never_share_an_answer() -> None:
    keys = [_key(resource=described(Resource("t", "1", {"value": value}, 1.0))) for value in VALUES]
    alike = [(VALUES[a], VALUES[b]) for a, b in combinations(range(len(VALUES)), 2) if keys[a] == keys[b]]
    assert alike == []


@pytest.mark.promise("P5")
def test_two_different_callers_never_share_an_answer() -> None:
    callers: list[dict[str, Any]] = [
        {},
        {"subject": "alice2"},
        {"issuer": "https://other.example/"},
        {"kind": "human"},
        {"subject_kind": "human"},
        {"tenant": "acme"},
        {"task": "acme"},
        {"purpose": "acme"},
        {"clearance": "acme"},
        {"client": "acme"},
        {"token_id": "acme"},
        {"transaction": "acme"},
        {"environment": "staging"},
        {"expires_at": 1.0},
        {"issued_at": 1.0},
        {"scopes": frozenset({"a b"})},
        {"scopes": frozenset({"a", "b"})},
        {"roles": frozenset({"a", "b"})},
        {"actors": (Actor("a"), Actor("b"))},
        {"actors": (Actor("b"), Actor("a"))},
        {"actors": (Actor("a", "agent", "b"),)},
        {"actors": (Actor("a", "workload", "b"),)},
        {"claims": {"tenant": "acme"}},
        {"claims": {"scopes": ("a", "b")}},
        {"claims": {"subject.tenant": "acme"}},
        {"claims": {"expires_at": 1.0}},
    ]
    keys = [_key(who=caller) for caller in callers]
    assert len(set(keys)) == len(keys)
    assert _key(who={"scopes": frozenset("abcdef")}) == _key(who={"scopes": frozenset("fedcba")})


@pytest.mark.promise("P5")
def test_two_different_resources_never_share_an_answer() -> None:
    pairs = [("a", "b/c"), ("a/b", "c"), ("a", "b:c"), ("a:b", "c"), ("a", "b"), ("a", "B"), ("a", "b\u0301")]
    keys = [_key(resource=Resource(type_, id_)) for type_, id_ in pairs]
    assert len(set(keys)) == len(keys)


class _Liar:
    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return True

    def __le__(self, other: object) -> bool:
        return True

    def __contains__(self, item: object) -> bool:
        return True


class _LyingText(str):
    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return hash("acme")

    def startswith(self, *_: Any) -> bool:  # type: ignore[override]
        return True


class _LyingNumber(int):
    def __le__(self, other: object) -> bool:
        return True


@pytest.mark.promise("P2")
@pytest.mark.parametrize(
    "value",
    [
        *(
            _Liar(),
            _LyingText("globex"),
            _LyingNumber(10**6),
            math.nan,
            math.inf,
            10**400,
            Decimal("NaN"),
            Decimal("sNaN"),
        ),
        *(None, "", "5", True, [], {}, [[5]], {"acme": 1}, b"acme", range(3), UUID(int=0), "ACME", "acme ", "acme\x00"),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("condition", ["acme", "{in: [acme]}", "{starts_with: acm}", "{at_most: 5}", "{has: acme}"])
def test_no_hostile_value_of_an_attribute_satisfies_a_condition(value: Any, condition: str) -> None:
    if condition == "{starts_with: acm}" and isinstance(value, str) and str.startswith(value, "acm"):
        return
    try:
        resource = described(Resource("thing", "1", {"value": value}, 1.0))
    except (MessageError, OverflowError):
        return  # refused before any rule is asked
    asked = ask(attributes=resource.attributes)
    head = "inputs:\n  resource.value: {from: application}\n"
    assert answer_of(f"{{resource.value: {condition}}}", asked, head) is not True


@pytest.mark.promise("P2")
@pytest.mark.parametrize(
    ("condition", "told"),
    [
        ("{resource.value: {not: acme}}", None),
        ("{not: {resource.value: acme}}", None),
        ("{not: {not: {resource.value: acme}}}", None),
        ("{any: [{resource.value: acme}, {subject.id: nobody}]}", None),
        ("{any: [{resource.value: acme}, {subject.id: ada}]}", True),
        ("{all: [{resource.value: acme}, {subject.id: nobody}]}", False),
        ("{not: {subject.roles: {has: banned}}}", None),
        ("{not: {subject.tenant: acme}}", None),
        ("{resource.value: {exists: false}}", None),
        ("{not: {resource.value: {exists: true}}}", None),
    ],
)
def test_what_nobody_looked_up_is_neither_true_nor_false(condition: str, told: bool | None) -> None:
    head = "inputs:\n  resource.value: {from: application}\n"
    assert answer_of(condition, ask(attributes=None), head) is told


@pytest.mark.promise("P2")
@pytest.mark.parametrize(
    ("pattern", "action", "covered"),
    [
        ("invoice:*", "invoice", False),
        ("invoice:*", "invoice:read", True),
        ("invoice:*", "invoice:read:all", True),
        ("invoice:*", "invoicex:read", False),
        ("invoice:*", "Invoice:read", False),
        ("invoice", "invoice:read", False),
        ("invoice:read", "invoice:read:all", False),
        ("*", "anything:at:all", True),
    ],
)
@pytest.mark.parametrize("beside", ["", "invoice:read:*", "invoice:read", "invoice:read:all"])
def test_a_deny_rule_reaches_every_action_that_its_pattern_covers(
    pattern: str, action: str, covered: bool, beside: str
) -> None:
    more = f"- {{rule: beside, permit: '{beside}', when: always}}\n" if beside else ""
    rules = f"- {{rule: open, permit: '*', when: always}}\n- {{rule: stop, deny: '{pattern}', when: always}}\n{more}"
    decision = snapshot_of(rules_document(rules)).evaluate(ask(action))
    assert (decision.reason is Reason.RULE_DENY) is covered


@pytest.mark.parametrize(
    ("at", "inside"),
    [
        ("2026-03-29T00:59:59+00:00", False),  # 01:59:59 in Berlin, the last second before the skipped hour
        ("2026-03-29T01:00:00+00:00", False),  # 03:00 at once: the window never comes
        ("2026-10-25T00:30:00+00:00", True),  # 02:30, the first time
        ("2026-10-25T01:30:00+00:00", True),  # 02:30, the second time
        ("2026-10-25T02:00:00+00:00", False),
    ],
)
def test_a_window_in_the_hour_of_the_clock_change_is_that_of_the_clocks(at: str, inside: bool) -> None:
    window = '{context.time: {between: ["02:00", "03:00"], zone: Europe/Berlin}}'
    assert answer_of(window, ask(now=instant(at))) is inside


@pytest.mark.promise("P5")
def test_a_remembered_token_is_that_very_token() -> None:
    issuer = Issuer()
    settings = IssuerSettings(
        issuer=issuer.url, audience=(issuer.audience,), algorithms=("ES256",), jwks=issuer.jwks(), leeway=0.0
    )
    authenticator, now = Authenticator([settings]), 1_780_000_000.0
    token = issuer.mint(now=now, exp=int(now) + 60)
    head, body, signature = token.split(".")
    forged = [
        f"{head}.{body}.",
        f"{head}.{body}.{signature[:-4]}AAAA",
        f"{head}.{body}A.{signature}",
        f"{token}\n",
        f"{token} ",
    ]
    for _ in range(2):
        assert isinstance(authenticator.authenticate(bearer(token), now), Principal)
        assert not any(isinstance(authenticator.authenticate(bearer(other), now), Principal) for other in forged)
    for moment, known in ((now + 59.9, True), (now + 60, False), (now + 30, True), (now + 3600, False)):
        assert isinstance(authenticator.authenticate(bearer(token), moment), Principal) is known


@pytest.mark.promise("P1")
def test_nothing_of_a_request_is_left_in_its_thread(tmp_path: Any) -> None:
    office = Office(tmp_path)
    app: Flask = office.app()
    elsewhere: list[object] = []

    @app.get("/<how>")
    @requires("invoice:list")
    def view(how: str) -> str:
        def ask_elsewhere() -> None:
            try:
                elsewhere.append(authz.permitted("admin:index"))
            except NoRequestError as error:
                elsewhere.append(type(error))

        thread = threading.Thread(target=ask_elsewhere)
        thread.start()
        thread.join()
        if how == "refused":
            authz.check("admin:nuke")
        if how == "broken":
            raise RuntimeError
        return how

    client = office.guard(app)
    for how in ("fine", "refused", "broken"):
        client.get(f"/{how}", headers=clerk())
        with pytest.raises(NoRequestError):
            authz.check("invoice:list")
    assert elsewhere == [NoRequestError] * 3
    office.close()
