"""One revocation: what it has to say, and that it never ends before what it names."""

from __future__ import annotations

import itertools
import math
from typing import Any

import msgspec
import pytest

from authz_middleware.revocation.entry import OUTLIVES_S, Revocation, RevocationError, Scope, new_revocation
from tests.support.revocations import DAY, ISSUER, NOW, revocation, subject

GIVEN: dict[str, Any] = {"issuer": ISSUER, "value": "x", "issued_before": NOW}

FORMS = {
    # scope: what is required, what is accepted
    Scope.TOKEN: ({"issuer", "value"}, {"issuer", "value"}),
    Scope.SUBJECT: ({"issuer", "value"}, {"issuer", "value", "issued_before"}),
    Scope.ACTOR: ({"value"}, {"issuer", "value", "issued_before"}),
    Scope.CLIENT: ({"issuer", "value"}, {"issuer", "value", "issued_before"}),
    Scope.TASK: ({"value"}, {"issuer", "value", "issued_before"}),
    Scope.TRANSACTION: ({"value"}, {"issuer", "value", "issued_before"}),
    Scope.ISSUER: ({"issuer"}, {"issuer", "issued_before"}),
    Scope.KEY: ({"issuer", "value"}, {"issuer", "value", "issued_before"}),
    Scope.EVERYTHING: (set(), {"issued_before"}),
}


def problems(**arguments: Any) -> dict[str, str]:
    with pytest.raises(RevocationError) as caught:
        new_revocation(**{"reason": "r", "owner": "o", "source": "s", "now": NOW, **arguments})
    return {problem.where: problem.what for problem in caught.value.problems}


@pytest.mark.parametrize("scope", list(Scope))
def test_each_scope_says_exactly_what_it_needs(scope: Scope) -> None:
    required, accepted = FORMS[scope]
    for count in range(4):
        for names in itertools.combinations(GIVEN, count):
            given = {name: GIVEN[name] for name in names}
            if required <= set(names) <= accepted:
                revocation(scope, **given)
            else:
                assert set(problems(scope=scope, **given)) == (required - set(names)) | (set(names) - accepted)


@pytest.mark.parametrize("text", ["", " ", "a\nb", "a\u202eb", "x" * 2049, 7])
@pytest.mark.parametrize("name", ["issuer", "value"])
def test_what_is_named_is_text_that_a_claim_can_hold(name: str, text: Any) -> None:
    assert name in problems(scope=Scope.SUBJECT, **{"issuer": ISSUER, "value": "alice", name: text})


@pytest.mark.parametrize("text", ["", "  ", "a\nb", "x" * 201, None])
@pytest.mark.parametrize("name", ["reason", "owner", "source"])
def test_reason_owner_and_source_are_required(name: str, text: Any) -> None:
    assert name in problems(scope=Scope.EVERYTHING, **{name: text})


def test_a_revocation_ends_by_itself_no_sooner_than_any_token_that_exists() -> None:
    assert subject().expires_at == NOW + OUTLIVES_S
    assert subject(issued_before=NOW - 5 * DAY).expires_at == NOW + OUTLIVES_S
    assert subject(issued_before=NOW + 30).expires_at == NOW + 30 + OUTLIVES_S


@pytest.mark.promise("P5")
@pytest.mark.parametrize("scope", list(Scope))
@pytest.mark.parametrize("end", [NOW - 1, NOW, NOW + 300, NOW + OUTLIVES_S - 1, math.nan])
def test_an_end_that_would_bring_tokens_back_is_refused(scope: Scope, end: float) -> None:
    given = {name: GIVEN[name] for name in FORMS[scope][0]}
    assert "expires_at" in problems(scope=scope, **given, expires_at=end)


@pytest.mark.promise("P5")
def test_a_cut_off_outlives_the_tokens_that_may_be_issued_up_to_it() -> None:
    assert "expires_at" in problems(scope=Scope.EVERYTHING, issued_before=NOW + 60, expires_at=NOW + OUTLIVES_S)


def test_a_token_whose_end_is_known_is_revoked_a_little_longer() -> None:
    entry = revocation(Scope.TOKEN, "jti-1", issuer=ISSUER, token_expires_at=NOW + 300)
    assert entry.expires_at == NOW + 300 + 120
    with pytest.raises(RevocationError):
        revocation(Scope.TOKEN, "jti-1", issuer=ISSUER, token_expires_at=NOW + 300, expires_at=NOW + 300)


@pytest.mark.parametrize("moment", [math.nan, math.inf])
def test_times_are_numbers(moment: float) -> None:
    assert problems(scope=Scope.EVERYTHING, issued_before=moment)


def test_all_that_is_wrong_is_said_at_once() -> None:
    assert set(problems(scope=Scope.SUBJECT, reason="", owner="", issued_before=math.nan)) == {
        *("issuer", "value", "reason", "owner", "expires_at"),
    }


def test_the_id_tells_apart_what_is_revoked_and_by_whom_and_nothing_else() -> None:
    entry = subject()
    same = subject(reason="other", owner="other", now=NOW + 5, expires_at=NOW + 9 * DAY)
    others = [subject("bob"), subject(issuer="https://x.example/"), subject(issued_before=NOW), subject(source="cli")]
    others.append(revocation(Scope.CLIENT, "alice", issuer=ISSUER))
    assert same.id == entry.id
    assert len({entry.id, *(other.id for other in others)}) == 6


def test_of_two_with_one_id_the_one_that_ends_later_stays_in_any_order() -> None:
    short, long = subject(), subject(expires_at=NOW + 9 * DAY)
    assert short.strengthened(long) is long
    assert long.strengthened(short) is long


def test_a_revocation_survives_being_written_and_read() -> None:
    entry = subject(issued_before=NOW)
    assert msgspec.json.decode(msgspec.json.encode(entry), type=Revocation) == entry


@pytest.mark.parametrize(
    "change",
    [{"value": "bob"}, {"id": "0" * 16}, {"scope": "issuer"}, {"expires_at": NOW}, {"owner": ""}, {"issued_before": 1}],
)
def test_one_that_was_tampered_with_is_not_read(change: dict[str, Any]) -> None:
    written = {**msgspec.to_builtins(subject()), **change}
    with pytest.raises((RevocationError, msgspec.ValidationError)):
        msgspec.convert(written, Revocation)
