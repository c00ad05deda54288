"""One Authorization header in, one principal out; remembered no longer and no further than it holds."""

from __future__ import annotations

import gc
import json
import logging
import traceback
from types import FunctionType, ModuleType
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authz_middleware.decision import Reason
from authz_middleware.identity.authenticator import Authenticator
from authz_middleware.identity.principal import Principal
from authz_middleware.identity.problem import PROBLEMS, CredentialDetail, CredentialProblem, TokenRefusedError
from authz_middleware.identity.tokens import parse_token
from authz_middleware.settings.issuers import IssuerSettings
from tests.support.tokens import AUDIENCE, REMOVED, Issuer, bearer, shown

NOW = 1_750_000_000.0
ISSUER = Issuer()
TOKEN = ISSUER.mint(now=NOW)


def make(**options: Any) -> Authenticator:
    return Authenticator([IssuerSettings(ISSUER.url, (AUDIENCE,), ("ES256",), jwks=ISSUER.jwks())], **options)


def verifications(authenticator: Authenticator) -> list[str]:
    """A list that grows with each token that is verified in full."""
    seen: list[str] = []
    verifying = authenticator._verifying

    def watch(token: str, now: float) -> Any:
        seen.append(token)
        return verifying(token, now)

    authenticator._verifying = watch  # type: ignore[method-assign]
    return seen


# the header


@pytest.mark.capability("C47")
def test_without_a_header_the_credential_is_missing() -> None:
    assert make().authenticate(shown(), NOW) == CredentialProblem(Reason.CREDENTIAL_MISSING, "authorization.missing")


@pytest.mark.capability("C44")
@pytest.mark.parametrize(
    ("headers", "detail"),
    [
        ([f"Bearer {TOKEN}", f"Bearer {TOKEN}"], "authorization.multiple"),
        ([f"Bearer {TOKEN}", ""], "authorization.multiple"),
        ([f"Bearer {TOKEN}, Bearer {TOKEN}"], "authorization.multiple"),
        ([f"Bearer {TOKEN},"], "authorization.multiple"),
        ([f"Basic YTpi, Bearer {TOKEN}"], "authorization.multiple"),
        ([""], "authorization.scheme"),
        (["Bearer"], "authorization.scheme"),
        (["Bearer "], "authorization.scheme"),
        ([TOKEN], "authorization.scheme"),
        (["Basic YTpi"], "authorization.scheme"),
        ([f"DPoP {TOKEN}"], "dpop.unbound"),
        ([f"Bearer  {TOKEN}"], "authorization.scheme"),
        ([f" Bearer {TOKEN}"], "authorization.scheme"),
        ([f"Bearer {TOKEN} "], "authorization.scheme"),
        ([f"Bearer\t{TOKEN}"], "authorization.scheme"),
        ([f"Bearer {TOKEN} {TOKEN}"], "authorization.scheme"),
        ([f"Bearer:{TOKEN}"], "authorization.scheme"),
        ([f"Bearer\xa0{TOKEN}"], "authorization.scheme"),
        ([f"Bearer {'a' * 16385}"], "token.too_long"),
        ([f"Bearer {TOKEN}\u00e9"], "token.malformed"),
        ([f"Bearer {TOKEN}\udcff"], "token.malformed"),
    ],
)
def test_anything_but_one_bearer_token_in_one_header_is_refused(headers: list[str], detail: str) -> None:
    assert make().authenticate(shown(*headers), NOW) == CredentialProblem(Reason.CREDENTIAL_INVALID, detail)


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "bEaReR"])
def test_the_scheme_is_read_without_regard_to_case(scheme: str) -> None:
    assert isinstance(make().authenticate(shown(f"{scheme} {TOKEN}"), NOW), Principal)


@pytest.mark.parametrize("credentials", [None, shown(None), shown(b"Bearer x"), shown(7), 7])  # type: ignore[arg-type]
def test_what_no_adapter_should_hand_over_is_refused(credentials: Any) -> None:
    result = make().authenticate(credentials, NOW)
    assert isinstance(result, CredentialProblem)
    assert result.reason is not Reason.KEYS_UNAVAILABLE


@settings(max_examples=200)
@given(headers=st.lists(st.text(max_size=40) | st.text(max_size=20).map(lambda text: f"Bearer {text}"), max_size=2))
def test_no_made_up_header_establishes_anybody(headers: list[str]) -> None:
    assert isinstance(make().authenticate(shown(*headers), NOW), CredentialProblem)


def test_an_authenticator_without_issuers_believes_nobody() -> None:
    assert Authenticator([]).authenticate(bearer(TOKEN), NOW) == PROBLEMS[CredentialDetail.ISSUER]


def test_each_issuer_has_its_own_keys_and_audience() -> None:
    second = Issuer("https://second.example/", audience="second-api")
    authenticator = Authenticator(
        [
            IssuerSettings(ISSUER.url, (AUDIENCE,), ("ES256",), jwks=ISSUER.jwks()),
            IssuerSettings(second.url, ("second-api",), ("ES256",), jwks=second.jwks()),
        ]
    )

    def outcome(token: str) -> Any:
        result = authenticator.authenticate(bearer(token), NOW)
        return result.issuer if isinstance(result, Principal) else result.detail

    assert outcome(second.mint(now=NOW)) == "https://second.example/"
    assert outcome(second.mint(now=NOW, aud=AUDIENCE)) == "token.audience"
    assert outcome(second.mint(now=NOW, iss=ISSUER.url, aud=AUDIENCE)) == "token.signature"


# the memory


def test_a_token_is_verified_once() -> None:
    authenticator = make()
    seen = verifications(authenticator)
    first = authenticator.authenticate(bearer(TOKEN), NOW)
    assert authenticator.authenticate(bearer(TOKEN), NOW + 1) is first
    assert len(seen) == 1


def test_a_refused_token_is_not_remembered() -> None:
    authenticator = make()
    for number in range(50):
        authenticator.authenticate(bearer(f"{TOKEN[:-8]}{number:08d}"), NOW)
        authenticator.authenticate(shown(f"Basic {number}"), NOW)
    assert len(authenticator._cache) == 0


def test_the_memory_is_bounded() -> None:
    authenticator = make(cache_size=4)
    for _ in range(20):
        assert isinstance(authenticator.authenticate(bearer(ISSUER.mint(now=NOW)), NOW), Principal)
    assert len(authenticator._cache) <= 4


@pytest.mark.capability("C14")
def test_a_remembered_token_has_no_leeway() -> None:
    """Just before `exp` it is served from memory; from `exp` on each use is verified anew, and soon refused."""
    authenticator = make()
    seen = verifications(authenticator)
    for moment, count in ((0.0, 1), (299.9, 1), (300.0, 2), (309.9, 3)):
        assert isinstance(authenticator.authenticate(bearer(TOKEN), NOW + moment), Principal)
        assert len(seen) == count
    assert authenticator.authenticate(bearer(TOKEN), NOW + 310) == PROBLEMS[CredentialDetail.EXPIRED]


@settings(max_examples=60, deadline=None)
@given(moments=st.lists(st.floats(-400, 800), max_size=12), lifetime=st.floats(1, 600))
def test_no_principal_outlives_its_token(moments: list[float], lifetime: float) -> None:
    """Whatever the order of the questions, clocks that run backwards included."""
    authenticator = make()
    token = ISSUER.mint(iat=NOW, exp=NOW + lifetime)
    for moment in moments:
        result = authenticator.authenticate(bearer(token), NOW + moment)
        if isinstance(result, Principal):
            assert NOW + moment < NOW + lifetime + 10
        else:
            assert moment < -10 or moment >= lifetime + 10 - 1e-3


def test_a_twin_of_a_remembered_token_is_verified_for_itself() -> None:
    authenticator = make()
    authenticator.authenticate(bearer(TOKEN), NOW)
    twin = TOKEN[:-8] + ("A" * 8)
    assert authenticator.authenticate(bearer(twin), NOW) == PROBLEMS[CredentialDetail.SIGNATURE]


@pytest.mark.capability("C2")
def test_verifying_says_who_calls_and_never_what_they_may() -> None:
    """A token without any right is a valid credential all the same."""
    who = make().authenticate(bearer(ISSUER.mint(now=NOW, scope=REMOVED)), NOW)
    assert isinstance(who, Principal)
    assert (who.scopes, who.roles) == (frozenset(), frozenset())


# failing closed, and silently


def test_whatever_goes_wrong_is_a_refusal_that_tells_nothing(caplog: pytest.LogCaptureFixture) -> None:
    authenticator = make()

    def fail(*_: Any) -> Principal:
        raise RuntimeError(TOKEN)

    authenticator._verifying = fail  # type: ignore[method-assign]
    with caplog.at_level(logging.DEBUG):
        assert authenticator.authenticate(bearer(TOKEN), NOW) == PROBLEMS[CredentialDetail.UNEXPECTED]
    assert "RuntimeError" in caplog.text
    assert TOKEN not in caplog.text


@pytest.mark.capability("C44")
def test_nothing_of_a_token_is_logged_or_shown(caplog: pytest.LogCaptureFixture) -> None:
    authenticator = make()
    secret = "s3cr3t-marker"
    tokens = [
        ISSUER.mint(now=NOW, sub=secret, exp="soon"),
        ISSUER.mint(now=NOW, header={"kid": secret}),
        ISSUER.mint(now=NOW, header={"alg": secret}),
        ISSUER.mint_raw(secret),
        TOKEN,
    ]
    with caplog.at_level(logging.DEBUG):
        results = [authenticator.authenticate(bearer(token), NOW) for token in tokens]
    shown = caplog.text + repr(authenticator) + repr(authenticator._cache) + repr(results[:-1])
    assert secret not in shown
    assert not any(part in shown for token in tokens for part in token.split(".") if len(part) > 20)


def test_a_parsed_token_does_not_show_itself() -> None:
    raw = parse_token(ISSUER.mint(now=NOW, sub="s3cr3t-marker"))
    assert "s3cr3t-marker" not in repr(raw)
    assert not hasattr(raw, "__dict__")


def test_a_refusal_carries_its_code_alone() -> None:
    token = ISSUER.mint_raw("s3cr3t-marker")
    with pytest.raises(TokenRefusedError) as caught:
        parse_token(token).unverified_claims  # noqa: B018 - a property that reads
    assert caught.value.args == ("token.malformed",)
    assert caught.value.__cause__ is None
    assert "s3cr3t-marker" not in "".join(traceback.format_exception(caught.value))


def test_the_memory_holds_no_token() -> None:
    """What is kept of a token is a digest of its header, so that a dump of the memory holds nothing to replay."""
    authenticator = make()
    token = ISSUER.mint(now=NOW)
    assert isinstance(authenticator.authenticate(bearer(token), NOW), Principal)
    parts = token.split(".")[1:]
    kept = [thing for thing in reachable(authenticator) if isinstance(thing, str | bytes)]
    assert ISSUER.url in kept
    assert not any(part in str(thing) for part in parts for thing in kept)


def reachable(start: object) -> list[Any]:
    """Everything that can be reached from an object, code and classes apart."""
    found: dict[int, Any] = {}
    waiting = [start]
    while waiting:
        thing = waiting.pop()
        if id(thing) not in found and not isinstance(thing, type | ModuleType | FunctionType):
            found[id(thing)] = thing
            waiting.extend(gc.get_referents(thing))
    return list(found.values())


def test_every_refusal_has_one_shared_problem_with_its_code() -> None:
    assert {problem.detail for problem in PROBLEMS.values()} == {detail.value for detail in CredentialDetail}
    assert {detail for detail, problem in PROBLEMS.items() if problem.reason is not Reason.CREDENTIAL_INVALID} == {
        CredentialDetail.AUTHORIZATION_MISSING,
        CredentialDetail.KEYS_UNAVAILABLE,
        CredentialDetail.INTROSPECTION_UNAVAILABLE,
        CredentialDetail.INTROSPECTION_FAILED,
        CredentialDetail.DPOP_REPLAY_UNAVAILABLE,
    }


def test_a_problem_can_be_written_to_a_record() -> None:
    problem = PROBLEMS[CredentialDetail.EXPIRED]
    assert json.loads(msgspec.json.encode(problem)) == {"reason": "credential.invalid", "detail": "token.expired"}
