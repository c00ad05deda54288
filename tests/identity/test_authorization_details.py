"""Which words a detailed authorization (RFC 9396) comes to, and that none says more than the detail does."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz_middleware.identity.claims.authorization_details import words_of_details
from authz_middleware.identity.problem import TokenRefusedError

pytestmark = [pytest.mark.capability("C3"), pytest.mark.promise("P2")]

US = "https://billing.example/"
AUDIENCES = frozenset({US, "billing-api"})
ELSEWHERE = "https://archive.example/"
INVOICE = {"type": "invoice", "actions": ["read"]}


def words(*details: Any) -> set[str]:
    return set(words_of_details(list(details), AUDIENCES))


@pytest.mark.parametrize(
    ("detail", "expected"),
    [
        ({"type": "invoice"}, {"invoice:*"}),
        (INVOICE, {"invoice:read"}),
        ({"type": "invoice", "actions": ["read", "approve"]}, {"invoice:read", "invoice:approve"}),
        ({**INVOICE, "locations": [US]}, {"invoice:read"}),
        ({**INVOICE, "locations": [ELSEWHERE, "billing-api"]}, {"invoice:read"}),
        ({**INVOICE, "identifier": "17"}, {"invoice:read@17"}),
        ({"type": "invoice", "identifier": "17"}, {"invoice:*@17"}),
        ({"type": "https://scheme.example/files", "actions": ["list"]}, {"https://scheme.example/files:list"}),
        ({"type": "invoice", "actions": []}, set()),
        # elsewhere
        ({**INVOICE, "locations": [ELSEWHERE]}, set()),
        ({**INVOICE, "locations": []}, set()),
        ({**INVOICE, "locations": ["https://billing.example"]}, set()),
        ({**INVOICE, "locations": ["https://billing.example/invoices"]}, set()),
        # restricted in ways that no word has
        ({**INVOICE, "datatypes": ["amounts"]}, set()),
        ({**INVOICE, "datatypes": []}, set()),
        ({**INVOICE, "privileges": ["admin"]}, set()),
        ({**INVOICE, "instructedAmount": {"currency": "EUR", "amount": "123.50"}}, set()),
        ({"type": "payment_initiation", "creditorName": "Merchant A"}, set()),
        ({**INVOICE, "Identifier": "17"}, set()),
        # names that would make a word ambiguous
        ({"type": "invoice", "actions": ["*"]}, set()),
        ({"type": "a", "actions": ["b:c"]}, set()),
        ({"type": "a", "actions": ["b@c", "d"]}, {"a:d"}),
        ({"type": "a@b", "actions": ["c"]}, set()),
    ],
    ids=repr,
)
def test_a_detail_comes_to_these_words(detail: dict[str, Any], expected: set[str]) -> None:
    assert words(detail) == expected


def test_an_action_of_one_detail_is_never_joined_with_the_location_of_another() -> None:
    here = {"type": "invoice", "actions": ["read"], "locations": [US]}
    there = {"type": "invoice", "actions": ["delete"], "locations": [ELSEWHERE]}
    assert words(here, there) == {"invoice:read"}
    assert words({**INVOICE, "identifier": "1"}, {"type": "invoice", "actions": ["delete"], "identifier": "2"}) == {
        "invoice:read@1",
        "invoice:delete@2",
    }


@pytest.mark.parametrize(
    "value",
    [
        *(None, "invoice", {"type": "invoice"}, 7, True),
        *(["invoice"], [None], [[INVOICE]]),
        *([{}], [{"actions": ["read"]}], [{"type": 7}], [{"type": ""}], [{"type": None}], [{"type": "a\nb"}]),
        *([{"type": "a", name: "read"}] for name in ("actions", "locations", "datatypes", "privileges")),
        *([{"type": "a", name: [7]}] for name in ("actions", "locations", "datatypes", "privileges")),
        *([{"type": "a", name: None}] for name in ("actions", "locations", "datatypes", "privileges")),
        *([{"type": "a", "identifier": value}] for value in (7, "", ["a"], None)),
        [INVOICE, {"type": 7}],
        [INVOICE] * 65,
        [{"type": "a", "actions": ["x"] * 257}],
        [{"type": f"t{n}", "actions": [f"a{m}" for m in range(100)]} for n in range(3)],
    ],
    ids=lambda value: repr(value)[:60],
)
def test_details_of_another_form_or_size_refuse_the_token(value: Any) -> None:
    with pytest.raises(TokenRefusedError) as caught:
        words_of_details(value, AUDIENCES)
    assert caught.value.detail.value == "token.claim_type"


NAMES = st.text("ab:@*", min_size=1, max_size=4)
DETAILS = st.fixed_dictionaries(
    {"type": NAMES},
    optional={
        "actions": st.lists(NAMES, max_size=3),
        "identifier": NAMES,
        "locations": st.lists(st.sampled_from([US, ELSEWHERE]), max_size=2),
    },
)


def grants(detail: dict[str, Any], type_: str, action: str, object_: str | None) -> bool:
    """What a detail says: this type, this action or any, on this object or on any, at one of our locations."""
    return (
        detail["type"] == type_
        and (action in detail["actions"] if "actions" in detail else action == "*")
        and detail.get("identifier") == object_
        and (US in detail["locations"] if "locations" in detail else True)
    )


@given(details=st.lists(DETAILS, max_size=4))
def test_every_word_can_be_read_in_one_way_and_one_detail_says_it_all(details: list[dict[str, Any]]) -> None:
    for word in words(*details):
        head, at, object_ = word.partition("@")
        type_, _, action = head.rpartition(":")
        assert any(grants(detail, type_, action, object_ if at else None) for detail in details)
