"""What a refused client is told: enough to try again, and not a word about which check failed."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authz_middleware.advice import Advice
from authz_middleware.answer import Answer, answer_for
from authz_middleware.challenge import BEARER
from authz_middleware.decision import Decision, Reason, Source
from authz_middleware.refusals import reason_for_caller
from authz_middleware.remote.verdict import CONDITIONAL
from authz_middleware.step_up import StepUp

METADATA = "https://billing.example/.well-known/oauth-protected-resource"
DPOP = ("www-authenticate", 'DPoP algs="ES256 EdDSA"')
PERMITS = {Reason.PERMITTED, Reason.PUBLIC, Reason.DEGRADED, Reason.CACHED}
REFUSALS = [reason for reason in Reason if reason not in PERMITS]
STATUSES = {
    "credential.missing": 401,
    "credential.invalid": 401,
    "credential.revoked": 401,
    "keys.unavailable": 503,
    "issuer.unavailable": 503,
    "revocations.unavailable": 503,
    "policy.unavailable": 503,
    "remote.unavailable": 503,
    "record.unavailable": 503,
    "error": 503,
    "cancelled": 503,
}


def refused(reason: Reason, **members: Any) -> Decision:
    return Decision(permit=False, reason=reason, **members)


def answer(reason: Reason, *, step_up: StepUp | None = None, scopes: tuple[str, ...] = (), **members: Any) -> Answer:
    return answer_for(refused(reason, step_up=step_up, helpful_scopes=scopes), "id-1", retry_after=1.5, **members)


def challenges(answer: Answer) -> list[str]:
    return [value for name, value in answer.headers if name == "www-authenticate"]


@pytest.mark.parametrize("reason", REFUSALS)
def test_each_reason_has_its_status(reason: Reason) -> None:
    assert answer(reason).status == STATUSES.get(reason.value, 403)


@pytest.mark.parametrize("reason", REFUSALS)
def test_only_what_could_not_be_decided_says_when_to_come_back(reason: Reason) -> None:
    told = answer(reason)
    assert ("retry-after" in dict(told.headers)) is (told.status == 503)
    assert dict(told.headers).get("retry-after", "2") == "2"


@pytest.mark.promise("P6")
@pytest.mark.parametrize("reason", REFUSALS)
def test_an_answer_tells_its_id_and_no_reason(reason: Reason) -> None:
    told = answer_for(refused(reason, detail="token.signature", rule="r", owner="o"), "id-1", retry_after=1.0)
    body = json.loads(told.body)
    assert body["decision_id"] == "id-1"
    assert set(body) == {"type", "title", "status", "decision_id"}
    assert dict(told.headers)["cache-control"] == "no-store"
    seen = told.body.decode() + repr(told.headers)
    assert "token.signature" not in seen
    assert reason is Reason.ERROR or reason.value not in seen


@pytest.mark.parametrize("reason", REFUSALS)
def test_without_a_record_there_is_no_id(reason: Reason) -> None:
    assert "decision_id" not in json.loads(answer_for(refused(reason), None, retry_after=1.0).body)


@pytest.mark.capability("C14")
def test_nothing_tells_a_revoked_credential_from_a_forged_one() -> None:
    forged, revoked = answer(Reason.CREDENTIAL_INVALID), answer(Reason.CREDENTIAL_REVOKED)
    assert forged == revoked
    assert challenges(revoked) == ['Bearer error="invalid_token"']


@pytest.mark.parametrize("reason", REFUSALS)
def test_a_challenge_comes_with_401_and_without_need_with_nothing_else(reason: Reason) -> None:
    told = answer(reason)
    assert bool(challenges(told)) is (told.status == 401)


@pytest.mark.capability("C25")
def test_a_person_can_step_up() -> None:
    told = answer(Reason.AUTHENTICATION_INSUFFICIENT, step_up=StepUp(("phr", "mfa"), 300))
    assert told.status == 401
    assert told.websocket_code == 4401
    (challenge,) = challenges(told)
    assert challenge == (
        'Bearer error="insufficient_user_authentication", '
        'error_description="A different or more recent authentication is required", '
        'acr_values="phr mfa", max_age=300'
    )


@pytest.mark.capability("C25")
@pytest.mark.parametrize(
    ("step_up", "told"), [(StepUp(("phr",)), 'acr_values="phr"'), (StepUp((), 5), "max_age=5"), (StepUp(), None)]
)
def test_only_what_is_asked_is_told(step_up: StepUp, told: str | None) -> None:
    (challenge,) = challenges(answer(Reason.AUTHENTICATION_INSUFFICIENT, step_up=step_up))
    assert challenge.endswith(told or 'required"')
    assert ("acr_values" in challenge, "max_age" in challenge) == (bool(step_up.acr_values), bool(step_up.max_age))


def test_a_step_up_counts_for_its_own_reason_only() -> None:
    told = answer(Reason.RULE_DENY, step_up=StepUp(("phr",)))
    assert (told.status, challenges(told)) == (403, [])


@pytest.mark.capability("C2")
def test_a_scope_that_would_help_is_told() -> None:
    told = answer(Reason.NO_RULE, scopes=("a", "b"))
    assert (told.status, challenges(told)) == (403, ['Bearer error="insufficient_scope", scope="a b"'])


def test_what_is_not_one_value_is_told_in_no_list() -> None:
    (scope,) = challenges(answer(Reason.NO_RULE, scopes=("a b", "fine", "")))
    assert scope == 'Bearer error="insufficient_scope", scope="fine"'
    (acr,) = challenges(answer(Reason.AUTHENTICATION_INSUFFICIENT, step_up=StepUp(("a b", "fine", 'c"'))))
    assert acr.endswith(', acr_values="fine"')


def test_a_better_authentication_is_told_before_a_scope() -> None:
    (challenge,) = challenges(answer(Reason.AUTHENTICATION_INSUFFICIENT, step_up=StepUp((), 5), scopes=("a",)))
    assert "scope" not in challenge


def test_where_to_get_a_token_is_told_in_every_challenge() -> None:
    where = f'resource_metadata="{METADATA}"'
    for told, challenge in [
        (answer(Reason.CREDENTIAL_MISSING, resource_metadata=METADATA), f"Bearer {where}"),
        (
            answer(Reason.CREDENTIAL_INVALID, resource_metadata=METADATA),
            f'Bearer error="invalid_token", {where}',
        ),
        (
            answer(Reason.NO_RULE, scopes=("a",), resource_metadata=METADATA),
            f'Bearer error="insufficient_scope", scope="a", {where}',
        ),
        (
            answer(Reason.CREDENTIAL_MISSING, resource_metadata=METADATA, challenges=[DPOP]),
            f"{DPOP[1]}, {where}",
        ),
    ]:
        assert challenges(told) == [challenge]
    assert challenges(answer(Reason.NO_RULE, resource_metadata=METADATA)) == []


@pytest.mark.capability("C18")
@pytest.mark.parametrize(
    ("reason", "members", "told"),
    [
        (Reason.CREDENTIAL_MISSING, {}, ["Bearer", 'DPoP algs="ES256 EdDSA"']),
        (
            Reason.CREDENTIAL_INVALID,
            {},
            ['Bearer error="invalid_token"', 'DPoP error="invalid_token", algs="ES256 EdDSA"'],
        ),
        (
            Reason.NO_RULE,
            {"scopes": ("a",)},
            [
                'Bearer error="insufficient_scope", scope="a"',
                'DPoP error="insufficient_scope", scope="a", algs="ES256 EdDSA"',
            ],
        ),
    ],
)
def test_each_scheme_is_offered_with_the_same_news(reason: Reason, members: dict[str, Any], told: list[str]) -> None:
    assert challenges(answer(reason, challenges=(*BEARER, DPOP), **members)) == told


@pytest.mark.capability("C18")
def test_a_scheme_that_names_an_error_of_its_own_keeps_it() -> None:
    nonce = ("www-authenticate", 'DPoP error="use_dpop_nonce", algs="ES256"')
    told = answer(Reason.CREDENTIAL_INVALID, challenges=(*BEARER, nonce, ("dpop-nonce", "n-1")))
    assert challenges(told) == ['Bearer error="invalid_token"', nonce[1]]
    assert ("dpop-nonce", "n-1") in told.headers


def test_where_authenticating_cannot_help_no_scheme_is_offered() -> None:
    offered = (*BEARER, DPOP, ("dpop-nonce", "n-1"))
    for reason in (Reason.RULE_DENY, Reason.AUTHENTICATION_INSUFFICIENT, Reason.KEYS_UNAVAILABLE):
        assert not {"www-authenticate", "dpop-nonce"} & dict(answer(reason, challenges=offered).headers).keys()


def denied(reason: Reason = Reason.REMOTE_DENY, source: Source = Source.REMOTE, **members: Any) -> Decision:
    return refused(reason, source=source, **{"advice": Advice("ask the cashier", "policy C076E82F"), **members})


@pytest.mark.capability("C29")
@pytest.mark.parametrize("source", [Source.REMOTE, Source.CACHE])
@pytest.mark.parametrize("reason", [Reason.REMOTE_DENY, Reason.AUTHENTICATION_INSUFFICIENT])
def test_what_the_decision_point_says_of_its_own_refusal_is_for_the_caller(reason: Reason, source: Source) -> None:
    assert reason_for_caller(denied(reason, source)) == "ask the cashier"


@pytest.mark.promise("P6")
@pytest.mark.parametrize(
    "decision",
    [
        *(denied(reason) for reason in REFUSALS if reason.value not in ("remote.deny", "authentication.insufficient")),
        denied(source=Source.FALLBACK),
        denied(source=Source.LOCAL),
        denied(Reason.AUTHENTICATION_INSUFFICIENT, detail=CONDITIONAL),
        denied(advice=None),
        denied(advice=Advice(reason_admin="policy C076E82F")),
        denied(advice=Advice("your key is sk_live_" + "a" * 24)),
        Decision(permit=True, reason=Reason.REMOTE_DENY, source=Source.REMOTE, advice=Advice("welcome")),
    ],
    ids=lambda decision: f"{decision.reason.value}, {decision.source.value}",
)
def test_nothing_else_is(decision: Decision) -> None:
    assert reason_for_caller(decision) is None


@pytest.mark.promise("P6")
@settings(deadline=None)
@given(st.sampled_from(REFUSALS), st.text(max_size=40))
def test_a_text_for_people_is_in_the_body_and_in_no_header(reason: Reason, text: str) -> None:
    told, silent = answer(reason, detail=text), answer(reason)
    assert json.loads(told.body) == {**json.loads(silent.body), "detail": text}
    assert (told.status, told.headers) == (silent.status, silent.headers)


ONE_CHALLENGE = re.compile(
    r'[A-Za-z]+( [a-z_]+=("([ !#-\[\]-~]|\\["\\])*"|[0-9]+)(, [a-z_]+=("([ !#-\[\]-~]|\\["\\])*"|[0-9]+))*)?'
)


@pytest.mark.promise("P6")
@pytest.mark.parametrize(
    ("url", "told"),
    [('https://a/"', r"https://a/\""), ("https://a/\\", r"https://a/\\"), ("https://a/\r\nx: \xe9", "https://a/x: ")],
)
def test_a_quote_in_a_text_stays_within_its_quotes(url: str, told: str) -> None:
    assert challenges(answer(Reason.CREDENTIAL_MISSING, resource_metadata=url)) == [
        f'Bearer resource_metadata="{told}"'
    ]


@pytest.mark.promise("P6")
@given(
    st.lists(st.text(max_size=8), max_size=3).map(tuple),
    st.none() | st.integers(1, 10**9),
    st.lists(st.text(max_size=8), max_size=3).map(tuple),
    st.none() | st.text(max_size=12),
)
def test_nothing_that_is_told_breaks_out_of_its_quotes(
    acr_values: tuple[str, ...], max_age: int | None, scopes: tuple[str, ...], metadata: str | None
) -> None:
    step_up = StepUp(acr_values, max_age)
    for reason in (Reason.AUTHENTICATION_INSUFFICIENT, Reason.NO_RULE, Reason.CREDENTIAL_INVALID):
        for challenge in challenges(answer(reason, step_up=step_up, scopes=scopes, resource_metadata=metadata)):
            assert ONE_CHALLENGE.fullmatch(challenge), challenge
