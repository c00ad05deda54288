"""Opaque tokens: what the issuer says of them counts as much as a signature, and its silence never as a yes."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest
from blockbuster import blockbuster_ctx

from authz_middleware.decision import Reason
from authz_middleware.errors import SettingsError
from authz_middleware.flow import Effect, Flow, Work, arun, run
from authz_middleware.identity.authenticator import Authenticator
from authz_middleware.identity.claims.principals import principal_of
from authz_middleware.identity.introspection.introspector import BREAKER, Introspector, is_opaque
from authz_middleware.identity.principal import Principal
from authz_middleware.identity.problem import PROBLEMS, CredentialDetail, CredentialProblem, TokenRefusedError
from authz_middleware.identity.tokens import IssuerRules, RawClaims
from authz_middleware.settings.issuers import IssuerSettings
from authz_middleware.settings.key_sources import IntrospectionSettings
from authz_middleware.settings.secret import Secret
from tests.support.authorization_server import BEARER, CLIENT_ID, CLIENT_SECRET, AuthorizationServer
from tests.support.pdp import (
    Behaviour,
    Exchange,
    ScriptedServer,
    answer,
    certificate,
    drip,
    hang,
    hang_up,
    refused_port,
    reply,
    reset,
    response,
    take,
)
from tests.support.tokens import AUDIENCE, REMOVED, Issuer, base64url, bearer

ISSUER = "https://issuer.example/"
TOKEN = "ory_at_2YotnFZFEjr1zCsicMWpAA.x-_~+/=="
DEADLINE = 0.3
MARGIN = 0.3


opened: list[Introspector | Authenticator] = []


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("CLIENT_SECRET", CLIENT_SECRET)
    yield
    while opened:
        opened.pop().close()


@pytest.fixture
def server() -> Iterator[AuthorizationServer]:
    with AuthorizationServer() as running:
        yield running


@pytest.fixture(params=["sync", "async"])
def colour(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Clock:
    """A monotonic clock that runs, and can be put forward."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


def introspector(
    url: str, *, issuer: str = ISSUER, clock: Callable[[], float] = time.monotonic, rules: Any = None, **changes: Any
) -> Introspector:
    introspection = msgspec.structs.replace(
        IntrospectionSettings(url, CLIENT_ID, Secret(env="CLIENT_SECRET"), deadline=5.0), **changes
    )
    settings = msgspec.structs.replace(
        IssuerSettings(issuer, (AUDIENCE,), introspection=introspection, max_lifetime=86_400.0), **(rules or {})
    )
    made = Introspector(IssuerRules(settings), introspection, where="issuers[0]", monotonic=clock)
    opened.append(made)
    return made


def of(server: AuthorizationServer, **changes: Any) -> Introspector:
    return introspector(server.endpoint, issuer=server.issuer, **changes)


Outcome = RawClaims | str


def outcomes(
    colour: str, asked: Introspector, *tokens: str, now: float | None = None, pause: float = 0.0
) -> list[Outcome]:
    """What comes of each token in turn: claims, or the code of the refusal. In both colours, on one event loop."""
    return (
        asyncio.run(_turns(asked, tokens, now, pause))
        if colour == "async"
        else [_turn(asked, token, now, pause) for token in tokens]
    )


def outcome(colour: str, asked: Introspector, token: str = TOKEN, now: float | None = None) -> Outcome:
    return outcomes(colour, asked, token, now=now)[0]


def _perform(effect: Effect) -> object:
    assert isinstance(effect, Work)
    return effect.job.perform()


async def _aperform(effect: Effect) -> object:
    assert isinstance(effect, Work)
    return await effect.job.aperform()


def _turn(asked: Introspector, token: str, now: float | None, pause: float) -> Outcome:
    time.sleep(pause)
    try:
        return run(asked.introspect(token, time.time() if now is None else now), _perform)
    except TokenRefusedError as refusal:
        return refusal.detail.value


async def _aturn(asked: Introspector, token: str, now: float | None = None, pause: float = 0.0) -> Outcome:
    await asyncio.sleep(pause)
    try:
        return await arun(asked.introspect(token, time.time() if now is None else now), _aperform)
    except TokenRefusedError as refusal:
        return refusal.detail.value


async def _turns(asked: Introspector, tokens: tuple[str, ...], now: float | None, pause: float) -> list[Outcome]:
    told = [await _aturn(asked, token, now, pause) for token in tokens]
    await asked.aclose()
    return told


# who is asked, and how


def test_an_active_token_is_worth_what_its_issuer_says(colour: str, server: AuthorizationServer) -> None:
    server.grant(TOKEN, sub="alice", scope="invoices.read invoices.approve", jti="grant-1", username="alice@example")
    asked = of(server)
    claims = outcome(colour, asked)
    assert isinstance(claims, dict)
    assert "active" not in claims
    principal = principal_of(claims, asked._rules.settings)
    assert (principal.issuer, principal.subject, principal.token_id) == (server.issuer, "alice", "grant-1")
    assert principal.scopes == {"invoices.read", "invoices.approve"}
    with pytest.raises(TypeError):
        claims["sub"] = "mallory"


@pytest.mark.capability("C43")
def test_the_question_is_a_form_with_the_credentials_of_the_client(colour: str, server: AuthorizationServer) -> None:
    server.grant(TOKEN)
    assert isinstance(outcome(colour, of(server)), dict)
    ((headers, form),) = server.questions
    assert form == [("token", TOKEN), ("token_type_hint", "access_token")]
    assert {name: headers[name] for name in sorted(headers) if name not in ("Content-Length", "Host")} == {
        "Accept": "application/json",
        "Accept-Encoding": "identity",
        "Authorization": headers["Authorization"],
        "Content-Type": "application/x-www-form-urlencoded",
        "User-Agent": headers["User-Agent"],
    }
    # RFC 6749 section 2.3.1: form-encoded, so that the colon of the client id is no separator
    credential = base64.b64decode(headers["Authorization"].removeprefix("Basic ")).decode()
    assert credential == "billing%3Aapi:s3cret%3A%2B%2F+%25%26%3D%C3%BC"


def test_a_bearer_token_from_a_file_is_followed_as_it_changes(
    colour: str, server: AuthorizationServer, tmp_path: Path
) -> None:
    server.grant(TOKEN)
    file, clock = tmp_path / "token", Clock()
    file.write_text("outdated")
    asked = of(server, client_id=None, client_secret=None, token=Secret(file=file), clock=clock)
    assert outcome(colour, asked) == "introspection.failed"
    file.write_text(f"{BEARER}\n")
    clock.ahead += 1.1
    assert isinstance(outcome(colour, asked), dict)
    assert [headers["Authorization"] for headers, _ in server.questions] == ["Bearer outdated", f"Bearer {BEARER}"]


@pytest.mark.parametrize("held", [None, "", "two words", "line\nbreak", "ü"])
def test_without_a_credential_that_can_be_shown_nobody_is_asked(
    colour: str, server: AuthorizationServer, tmp_path: Path, held: str | None
) -> None:
    server.grant(TOKEN)
    if held is not None:
        (tmp_path / "token").write_text(held)
    asked = of(server, client_id=None, client_secret=None, token=Secret(file=tmp_path / "token"))
    assert outcome(colour, asked) == "introspection.failed"
    assert outcome(colour, of(server, client_secret=None)) == "introspection.failed"
    assert outcome(colour, of(server, client_secret=Secret(env="NOT_SET_ANYWHERE"))) == "introspection.failed"
    assert not server.questions


@pytest.mark.promise("P9")
def test_the_event_loop_does_not_wait_for_a_file(server: AuthorizationServer, tmp_path: Path) -> None:
    server.grant(TOKEN)
    (tmp_path / "token").write_text(BEARER)
    asked = of(server, client_id=None, client_secret=None, token=Secret(file=tmp_path / "token"))

    async def ask() -> Outcome:
        with blockbuster_ctx(["authz_middleware"]):
            told = await _aturn(asked, TOKEN)
        await asked.aclose()
        return told

    assert isinstance(asyncio.run(ask()), dict)


def test_a_proxy_of_the_environment_is_not_used(
    colour: str, server: AuthorizationServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1/")
    server.grant(TOKEN)
    assert isinstance(outcome(colour, of(server)), dict)


# which tokens


@pytest.mark.parametrize(
    ("token", "opaque"),
    [("2YotnFZFEjr1zCsicMWpAA", True), ("ory_at_a.b", True), ("a.b.c", False), ("a.b.c.d.e", False)],
)
def test_a_token_with_two_dots_is_not_opaque(token: str, opaque: bool) -> None:
    assert is_opaque(token) is opaque


@pytest.mark.parametrize("token", ["x", "A-z0.9_~+/==", "x" * 16_384], ids=["short", "every character", "long"])
def test_what_may_be_a_bearer_token_is_asked_about(colour: str, server: AuthorizationServer, token: str) -> None:
    server.grant(token)
    assert isinstance(outcome(colour, of(server)), str)
    assert isinstance(outcome(colour, of(server), token), dict)


@pytest.mark.capability("C44")
@pytest.mark.parametrize(
    ("token", "code"),
    [
        ("", "token.malformed"),
        ("a b", "token.malformed"),
        ("a,b", "token.malformed"),
        ("a=b", "token.malformed"),
        ("=", "token.malformed"),
        ("a\n", "token.malformed"),
        ("a&token=b", "token.malformed"),
        ("a%20b", "token.malformed"),
        ("\uff41\uff42", "token.malformed"),
        ("tok\u212aen", "token.malformed"),
        ("x" * 16_385, "token.too_long"),
        ("a.b.c", "token.malformed"),
        ("v4.public.payload", "token.malformed"),
        ("a.b.c.d.e", "token.malformed"),
        ("..", "token.malformed"),
    ],
)
def test_what_cannot_be_a_token_of_this_issuer_is_shown_to_nobody(
    colour: str, server: AuthorizationServer, token: str, code: str
) -> None:
    server.grant(token)
    assert outcome(colour, of(server), token) == code
    assert not server.questions


def test_a_signed_token_is_asked_about_only_where_it_names_this_issuer(
    colour: str, server: AuthorizationServer
) -> None:
    """Another issuer's token does not get around its signature check by way of introspection."""
    own, others = server.signer.mint(), Issuer("https://other.example/").mint()
    twice = base64url(f'{{"iss": "{server.issuer}", "iss": "https://other.example/"}}')
    doubled = ".".join([own.split(".")[0], twice, own.split(".")[2]])
    for token in (own, others, doubled, others + "=", own + "="):
        server.grant(token)
    asked = of(server)
    assert isinstance(outcome(colour, asked, own), dict)
    assert outcome(colour, asked, others) == "token.issuer"
    assert outcome(colour, asked, doubled) == "token.malformed"
    assert outcome(colour, asked, others + "=") == "token.malformed"
    assert outcome(colour, asked, own + "=") == "token.malformed"
    assert len(server.questions) == 1


SIGNER = Issuer("https://signer.example/")


def authenticator(server: AuthorizationServer, *others: IssuerSettings) -> Authenticator:
    """Of this server's opaque tokens, and of the signed ones of SIGNER."""
    introspection = IntrospectionSettings(server.endpoint, CLIENT_ID, Secret(env="CLIENT_SECRET"), deadline=5.0)
    signing = IssuerSettings(SIGNER.url, (AUDIENCE,), ("ES256",), jwks=SIGNER.jwks())
    made = Authenticator([signing, IssuerSettings(server.issuer, (AUDIENCE,), introspection=introspection), *others])
    opened.append(made)
    return made


def told_by(asked: Authenticator, token: str) -> str:
    known = asked.authenticate(bearer(token), time.time())
    return known.subject if isinstance(known, Principal) else known.detail


@pytest.mark.capability("C44")
@pytest.mark.promise("P3")
def test_no_signed_token_gets_around_its_signature_by_way_of_introspection(server: AuthorizationServer) -> None:
    """The endpoint would vouch for every one of these."""
    good, forged = SIGNER.mint(sub="bob"), Issuer(SIGNER.url).mint(sub="mallory")
    header, payload, signature = forged.split(".")
    unsigned = base64url({"typ": "at+jwt", "alg": "none"})
    outdated = SIGNER.mint(now=1_000_000.0)
    refused = {
        forged: "token.signature",
        outdated: "token.expired",
        f"{unsigned}.{payload}.": "token.malformed",
        f"{unsigned}.{payload}.{signature}": "token.algorithm",
        f"{header}.{payload}.{signature}=": "token.malformed",
        f"{header}.{payload}.": "token.malformed",
        f"{header}..{signature}": "token.malformed",
        f".{header}.{payload}.{signature}": "token.malformed",
        f"{header}.{payload}.{signature}.{signature}.{signature}": "token.malformed",
        Issuer("https://stranger.example/").mint(): "token.issuer",
        SIGNER.mint(iss=REMOVED): "token.issuer",
        SIGNER.mint(iss=[server.issuer]): "token.issuer",
        # By its first `iss` it is to be verified, by its last to be asked about.
        SIGNER.mint_raw(f'{{"iss": "{SIGNER.url}", "iss": "{server.issuer}"}}'): "token.malformed",
    }
    asked = authenticator(server)
    assert told_by(asked, good) == "bob"
    for token, code in refused.items():
        server.grant(token)
        assert told_by(asked, token) == code, token
    assert not server.questions


@pytest.mark.promise("P5")
def test_what_its_issuer_takes_back_is_refused_with_the_next_request(server: AuthorizationServer) -> None:
    asked = authenticator(server)
    server.grant(TOKEN, sub="carol")
    assert [told_by(asked, TOKEN), told_by(asked, TOKEN)] == ["carol", "carol"]
    server.tokens.clear()
    assert told_by(asked, TOKEN) == "token.inactive"
    assert len(server.questions) == 3


def test_while_the_issuer_is_out_it_cannot_be_decided(server: AuthorizationServer) -> None:
    server.grant(TOKEN)
    server.behave["/introspect"] = lambda handler: handler.send_error(500)
    problem = authenticator(server).authenticate(bearer(TOKEN), time.time())
    assert isinstance(problem, CredentialProblem)
    assert (problem.reason, problem.detail) == (Reason.ISSUER_UNAVAILABLE, "introspection.unavailable")


# what is said of them


@pytest.mark.parametrize(
    ("claims", "code"),
    [
        ({"iss": "https://other.example/"}, "token.issuer"),
        ({"iss": None}, "token.issuer"),
        ({"iss": ["ISSUER"]}, "token.issuer"),
        ({"aud": "other-api"}, "token.audience"),
        ({"aud": [AUDIENCE.upper()]}, "token.audience"),
        ({"aud": []}, "token.audience"),
        ({"aud": REMOVED}, "token.claim_missing"),
        ({"exp": REMOVED}, "token.claim_missing"),
        ({"iat": REMOVED}, "token.claim_missing"),
        ({"sub": REMOVED}, "token.claim_missing"),
        ({"exp": "9999999999"}, "token.claim_type"),
        ({"exp": True}, "token.claim_type"),
        ({"iat": "0"}, "token.claim_type"),
        ({"nbf": "0"}, "token.claim_type"),
        ({"sub": ""}, "token.claim_type"),
        ({"sub": "a\nb"}, "token.claim_type"),
        ({"sub": 7}, "token.claim_type"),
        ({"exp": 5}, "token.expired"),
        ({"nbf": 99_999_999_999}, "token.not_yet_valid"),
        ({"iat": 99_999_999_999, "exp": 99_999_999_999 + 60}, "token.not_yet_valid"),
        ({"exp": 99_999_999_999}, "token.lifetime"),
        ({"token_type": "DPoP"}, "token.bound"),
        ({"token_type": "refresh_token"}, "token.type"),
        ({"token_type": "N_A"}, "token.type"),
        ({"token_type": None}, "token.type"),
        ({"token_type": ["Bearer"]}, "token.type"),
        ({"token_use": "refresh_token"}, "token.type"),
        ({"token_use": "id"}, "token.type"),
        ({"typ": "Refresh"}, "token.id_token"),
        ({"typ": "Offline"}, "token.id_token"),
        ({"at_hash": "x"}, "token.id_token"),
    ],
)
def test_an_active_token_is_held_to_the_same_rules_as_a_signed_one(
    server: AuthorizationServer, claims: dict[str, Any], code: str
) -> None:
    server.grant(TOKEN)
    removed = {name for name, value in claims.items() if value is REMOVED and name in ("aud", "exp", "iat", "sub")}
    changed = {**server.tokens[TOKEN], **claims}
    server.tokens[TOKEN] = {name: value for name, value in changed.items() if name not in removed}
    assert outcome("sync", of(server, cache_ttl=60.0)) == code
    assert PROBLEMS[CredentialDetail(code)].reason is Reason.CREDENTIAL_INVALID


@pytest.mark.parametrize(
    "claims",
    [{"token_type": "Bearer"}, {"token_type": "bearer", "token_use": "access_token"}, {"token_type": "access_token"}],
)
def test_an_answer_may_say_that_it_is_about_an_access_token(
    server: AuthorizationServer, claims: dict[str, Any]
) -> None:
    server.grant(TOKEN, **claims)
    assert isinstance(outcome("sync", of(server)), dict)


@pytest.mark.capability("C19")
def test_a_token_that_is_bound_to_a_key_is_not_taken_without_its_proof(server: AuthorizationServer) -> None:
    server.grant(TOKEN, cnf={"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}, token_type="DPoP")
    claims = outcome("sync", of(server))
    assert isinstance(claims, dict)
    assert claims["cnf"] == {"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}
    assert told_by(authenticator(server), TOKEN) == "token.bound"
    server.grant(TOKEN, cnf={"jwk": {}})
    assert told_by(authenticator(server), TOKEN) == "token.bound"


def test_a_token_for_several_audiences_is_refused_where_it_must_be_for_one(server: AuthorizationServer) -> None:
    server.grant(TOKEN, aud=[AUDIENCE, "other-api"])
    assert isinstance(outcome("sync", of(server)), dict)
    assert outcome("sync", of(server, rules={"single_audience": True})) == "token.audience_not_single"


def test_an_answer_without_issuer_is_of_the_one_that_was_asked(colour: str, server: AuthorizationServer) -> None:
    server.grant(TOKEN, iss=REMOVED)
    claims = outcome(colour, of(server))
    assert isinstance(claims, dict)
    assert claims["iss"] == server.issuer


def test_an_inactive_token_is_refused_and_asked_about_again(colour: str, server: AuthorizationServer) -> None:
    asked = of(server, cache_ttl=60.0)
    assert outcome(colour, asked) == "token.inactive"
    server.tokens[TOKEN] = {**server.signer.claims(), "active": False}
    assert outcome(colour, asked) == "token.inactive"
    server.grant(TOKEN)
    assert isinstance(outcome(colour, asked), dict)
    assert PROBLEMS[CredentialDetail.INACTIVE].reason is Reason.CREDENTIAL_INVALID


# when nothing is said


def active(**members: Any) -> bytes:
    issued_at = int(time.time())
    lasting = {"iat": issued_at, "exp": issued_at + 85_000}  # these tables are made long before they are used
    return json.dumps({"active": True, **Issuer(ISSUER).claims(), **lasting, **members}).encode()


GOOD = active()
HEADERS = "Content-Type: application/json\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"

OUTAGES: dict[str, Behaviour] = {
    "black hole": hang,
    "answer after the deadline": take(DEADLINE + 0.1, answer(GOOD)),
    "dripped head": drip(response(GOOD)),
    "dripped body": lambda e: (e.send(response(GOOD)[: -len(GOOD)]), drip(GOOD)(e))[1],  # type: ignore[func-returns-value]
    "head without a body": reply(response(GOOD)[: -len(GOOD)]),
    "closed without a byte": hang_up,
    "reset without a byte": reset,
    "closed in the head": reply(b"HTTP/1.1 200 OK\r\nContent-Ty", keep=False),
    "closed in the body": reply(response(GOOD, length=len(GOOD) + 10), keep=False),
    "closed in a chunk": reply(CHUNKED + b"2000\r\n" + GOOD, keep=False),
    "500": answer(GOOD, status="500 Oops"),
    "503": answer(GOOD, status="503 Service Unavailable"),
    "429": answer(GOOD, status="429 Too Many Requests"),
}
FAULTS: dict[str, Behaviour] = {
    "400": answer(GOOD, status="400 Bad Request"),
    "401": answer(GOOD, status="401 Unauthorized"),
    "403": answer(GOOD, status="403 Forbidden"),
    "404": answer(GOOD, status="404 Not Found"),
    "201": answer(GOOD, status="201 Created"),
    "206": answer(GOOD, status="206 Partial Content"),
    "redirect": answer(GOOD, status="307 Moved", headers=HEADERS + "Location: http://127.0.0.1:1/\r\n"),
    "HTTP/0.9": reply(GOOD, keep=False),
    "garbage": reply(b"\x16\x03\x01\x00garbage\r\n\r\n", keep=False),
    "no content type": answer(GOOD, headers=""),
    "a page": answer(GOOD, headers="Content-Type: text/html\r\n"),
    "signed (RFC 9701)": answer(GOOD, headers="Content-Type: application/token-introspection+jwt\r\n"),
    "two content types": answer(GOOD, headers=HEADERS + HEADERS),
    "another character set": answer(GOOD, headers="Content-Type: application/json; charset=utf-16\r\n"),
    "gzip": answer(gzip.compress(GOOD), headers=HEADERS + "Content-Encoding: gzip\r\n"),
    "said to be gzip": answer(GOOD, headers=HEADERS + "Content-Encoding: gzip\r\n"),
    "two lengths": answer(GOOD, headers=HEADERS + "Content-Length: 3\r\n"),
    "bad chunk size": reply(CHUNKED + b"zz\r\n" + GOOD + b"\r\n0\r\n\r\n"),
    "oversize": answer(active(padding="x" * 65536)),
    "oversize, declared only": reply(response(length=10**9)),
    "endless": reply(CHUNKED + (b"4000\r\n" + b" " * 0x4000 + b"\r\n") * 8, keep=False),
    "active as text": answer(active(active="true")),
    "active as a number": answer(active(active=1)),
    "active as null": answer(active(active=None)),
    "active in a list": answer(active(active=[True])),
    "no active": answer(GOOD.replace(b'"active"', b'"Active"')),
    "active twice": answer(b'{"active": false, ' + GOOD[1:]),
    "active twice, one escaped": answer(b'{"\\u0061ctive": false, ' + GOOD[1:]),
    "a claim twice": answer(b'{"sub": "mallory", ' + GOOD[1:]),
    "NaN": answer(b'{"n": NaN, ' + GOOD[1:]),
    "infinite": answer(b'{"n": 1e999, ' + GOOD[1:]),
    "deep": answer(b'{"n": ' + b"[" * 40 + b"]" * 40 + b", " + GOOD[1:]),
    "very deep": answer(b'{"n": ' + b"[" * 30_000 + b"]" * 30_000 + b", " + GOOD[1:]),
    "not UTF-8": answer(b'{"n": "\xff", ' + GOOD[1:]),
    "a list": answer(b"[" + GOOD + b"]"),
    "two objects": answer(GOOD + b"{}"),
    "true": answer(b"true"),
    "empty": answer(b""),
    "half": answer(GOOD[:-1]),
}


@pytest.mark.capability("C30")
@pytest.mark.promise("P4")
@pytest.mark.parametrize("fault", OUTAGES)
def test_an_outage_is_neither_a_yes_nor_a_no(colour: str, fault: str) -> None:
    with ScriptedServer(OUTAGES[fault]) as server:
        started = time.monotonic()
        told = outcome(colour, introspector(server.url, deadline=DEADLINE))
        took = time.monotonic() - started
    assert told == "introspection.unavailable"
    assert took < DEADLINE + MARGIN
    assert PROBLEMS[CredentialDetail(told)].reason is Reason.ISSUER_UNAVAILABLE


@pytest.mark.capability("C30")
@pytest.mark.promise("P4")
@pytest.mark.parametrize("fault", FAULTS)
def test_an_answer_that_is_none_is_neither_a_yes_nor_a_no(colour: str, fault: str) -> None:
    with ScriptedServer(FAULTS[fault]) as server:
        told = outcome(colour, introspector(server.url))
    assert told == "introspection.failed"
    assert PROBLEMS[CredentialDetail(told)].reason is Reason.ISSUER_UNAVAILABLE


def test_the_good_answer_of_these_tables_is_good(colour: str) -> None:
    with ScriptedServer(answer(GOOD)) as server:
        assert isinstance(outcome(colour, introspector(server.url)), dict)


def test_nobody_listening_is_an_outage(colour: str) -> None:
    assert outcome(colour, introspector(f"http://127.0.0.1:{refused_port()}")) == "introspection.unavailable"


@pytest.mark.promise("P4")
def test_what_failed_is_not_remembered(colour: str) -> None:
    with ScriptedServer(answer(status="500 Oops"), answer(b"{}"), answer(GOOD)) as server:
        asked = introspector(server.url, cache_ttl=60.0)
        first, second, third = outcomes(colour, asked, TOKEN, TOKEN, TOKEN)
    assert [first, second] == ["introspection.unavailable", "introspection.failed"]
    assert isinstance(third, dict)


@pytest.mark.parametrize(
    ("address", "days", "known"), [("127.0.0.1", 1, False), ("127.0.0.2", 1, True), ("127.0.0.1", -1, True)]
)
def test_a_wrong_certificate_sees_no_token(colour: str, tmp_path: Path, address: str, days: int, known: bool) -> None:
    trusted, context = certificate(tmp_path, address, days)
    with ScriptedServer(answer(GOOD), tls=context) as server:
        assert outcome(colour, introspector(server.url, ca_file=trusted if known else None)) == "introspection.failed"
    assert not server.requests


def test_a_trusted_certificate_is_believed(colour: str, tmp_path: Path) -> None:
    trusted, context = certificate(tmp_path)
    with ScriptedServer(answer(GOOD), tls=context) as server:
        assert isinstance(outcome(colour, introspector(server.url, ca_file=trusted)), dict)


def test_certificates_that_cannot_be_read_stop_the_start(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"issuers\[0\]\.introspection\.ca_file: .*nowhere\.pem"):
        introspector("https://127.0.0.1/", ca_file=tmp_path / "nowhere.pem")


@pytest.mark.parametrize("reply", [True, {"active": True}, None, RuntimeError("x")])
def test_whatever_else_answers_the_job_is_no_answer(reply: object) -> None:
    asked = introspector("http://127.0.0.1:1")
    with pytest.raises(TokenRefusedError, match=r"introspection\.failed"):
        run(asked.introspect(TOKEN, time.time()), lambda _: reply)


@pytest.mark.promise("P3")
def test_whatever_a_transport_raises_is_no_answer(colour: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = introspector("http://127.0.0.1:1")

    def fail(*_: object) -> Any:
        raise RuntimeError("secret text")

    monkeypatch.setattr(asked._transport, "post", fail)
    monkeypatch.setattr(asked._async_transport, "post", fail)
    assert outcome(colour, asked) == "introspection.failed"


# how often


def test_a_dead_server_is_waited_for_by_few(colour: str) -> None:
    clock = Clock()
    with ScriptedServer(hang) as server:
        asked = introspector(server.url, deadline=0.1, clock=clock)
        tokens = [f"token-{number}" for number in range(BREAKER.failures + 20)]
        assert set(outcomes(colour, asked, *tokens)) == {"introspection.unavailable"}
        assert len(server.requests) == BREAKER.failures
        clock.ahead += BREAKER.pause * 1.3
        outcomes(colour, asked, *tokens[:3])
        assert len(server.requests) == BREAKER.failures + 1


def test_a_server_that_is_back_is_asked_again(colour: str) -> None:
    clock = Clock()
    with ScriptedServer(*[answer(status="503 Busy")] * BREAKER.failures, answer(GOOD)) as server:
        asked = introspector(server.url, clock=clock)
        assert set(outcomes(colour, asked, *[TOKEN] * (BREAKER.failures + 2))) == {"introspection.unavailable"}
        clock.ahead += BREAKER.pause * 1.3
        assert all(isinstance(told, dict) for told in outcomes(colour, asked, TOKEN, TOKEN))


def test_an_answer_that_is_none_does_not_open_the_breaker(colour: str) -> None:
    with ScriptedServer(*[answer(b"{}")] * 10, answer(GOOD)) as server:
        told = outcomes(colour, introspector(server.url), *[TOKEN] * 11)
    assert isinstance(told[-1], dict)


async def test_a_probe_that_is_given_up_leaves_room_for_the_next() -> None:
    clock = Clock()
    probed = threading.Event()
    then: Behaviour = lambda e: (probed.set(), hang(e))[1]  # type: ignore[func-returns-value]  # noqa: E731
    with ScriptedServer(*[answer(status="503 Busy")] * BREAKER.failures, then, answer(GOOD)) as server:
        asked = introspector(server.url, clock=clock)
        for _ in range(BREAKER.failures):
            await _aturn(asked, TOKEN)
        clock.ahead += BREAKER.pause * 1.3
        probe = asyncio.create_task(_aturn(asked, TOKEN))
        assert await asyncio.to_thread(probed.wait, 5)
        probe.cancel()
        with pytest.raises(asyncio.CancelledError):
            await probe
        assert isinstance(await _aturn(asked, TOKEN), dict)
        await asked.aclose()


def slowly(exchange: Exchange) -> bool:
    exchange.stopping.wait(0.15)
    return answer(GOOD)(exchange)


def together(colour: str, asked: Introspector, tokens: list[str]) -> list[Outcome]:
    """What comes of these tokens, all shown at the same time."""
    if colour == "sync":
        ready = threading.Barrier(len(tokens))

        def show(token: str) -> Outcome:
            ready.wait()
            return _turn(asked, token, None, 0.0)

        with ThreadPoolExecutor(len(tokens)) as threads:
            return list(threads.map(show, tokens))

    async def show_all() -> list[Outcome]:
        told = await asyncio.gather(*(_aturn(asked, token) for token in tokens))
        await asked.aclose()
        return told

    return asyncio.run(show_all())


def test_the_same_token_is_asked_about_once_at_a_time(colour: str) -> None:
    with ScriptedServer(slowly) as server:
        told = together(colour, introspector(server.url), [TOKEN] * 12)
        assert all(isinstance(claims, dict) for claims in told)
        assert len(server.requests) == 1


def test_different_tokens_never_share_an_answer(colour: str, server: AuthorizationServer) -> None:
    tokens = [f"token-{number}" for number in range(12)]
    for token in tokens[::2]:
        server.grant(token, sub=token)
    told = together(colour, of(server, cache_ttl=60.0), tokens)
    assert [claims["sub"] if isinstance(claims, dict) else claims for claims in told] == [
        token if number % 2 == 0 else "token.inactive" for number, token in enumerate(tokens)
    ]


@pytest.mark.parametrize(
    ("ttl", "later", "questions"),
    [
        (0.0, 0.0, 2),
        (60.0, 0.0, 1),
        (60.0, 59.9, 1),
        (60.0, 60.0, 2),
        (300.0, 299.0, 1),
        (60.0, -1.0, 2),
    ],
    ids=["not remembered unless said so", "remembered", "up to its bound", "not at it", "long", "clock set back"],
)
def test_an_answer_is_used_again_within_its_bound(
    colour: str, server: AuthorizationServer, ttl: float, later: float, questions: int
) -> None:
    now = 2_000_000_000.0
    server.grant(TOKEN, now, exp=int(now) + 900)
    asked = of(server, cache_ttl=ttl)
    assert isinstance(outcome(colour, asked, now=now), dict)
    assert isinstance(outcome(colour, asked, now=now + later), dict)
    assert len(server.questions) == questions


@pytest.mark.promise("P5")
def test_no_answer_is_used_beyond_the_life_of_the_token(colour: str, server: AuthorizationServer) -> None:
    now = 2_000_000_000.0
    server.grant(TOKEN, now, exp=int(now) + 30)
    asked = of(server, cache_ttl=300.0)
    assert isinstance(outcome(colour, asked, now=now), dict)
    assert isinstance(outcome(colour, asked, now=now + 29.9), dict)
    server.tokens.clear()
    assert outcome(colour, asked, now=now + 30) == "token.inactive"
    assert len(server.questions) == 2


def test_what_is_remembered_is_bounded(server: AuthorizationServer) -> None:
    asked = of(server, cache_ttl=300.0)
    asked._cache._size = 3
    asked._cache.renew_after_fork()
    for number in range(9):
        outcome("sync", asked, server.grant(f"token-{number}"))
    assert len(asked._cache._answers) == 3


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_waits_for_nobody_and_remembers_nothing(server: AuthorizationServer) -> None:
    server.grant(TOKEN)
    asked = of(server, cache_ttl=300.0)
    assert isinstance(outcome("sync", asked), dict)
    with asked._cache._lock, asked._flights._lock:
        child = os.fork()
        if child == 0:
            signal.alarm(10)  # were it to wait for a lock that nobody holds any more
            os._exit(0 if isinstance(outcome("sync", asked), dict) else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert len(server.questions) == 2


# what is told


@pytest.mark.promise("P6")
@pytest.mark.parametrize("shown_by", ["secret", "bearer"])
def test_neither_token_nor_secret_is_shown_anywhere(
    colour: str, caplog: pytest.LogCaptureFixture, tmp_path: Path, shown_by: str
) -> None:
    token, seen = "the-token-that-nobody-may-read", []
    (tmp_path / "bearer").write_text("the-bearer-that-nobody-may-read")
    changes: dict[str, Any] = {"deadline": 0.2}
    if shown_by == "bearer":
        changes |= {"client_id": None, "client_secret": None, "token": Secret(file=tmp_path / "bearer")}
    outages = list(OUTAGES.values())
    # A breaker opens after so many outages; of the other faults it lets any number through.
    parts = [outages[at : at + BREAKER.failures] for at in range(0, len(outages), BREAKER.failures)]
    with caplog.at_level(logging.DEBUG):
        for behaviours in (*parts, [*FAULTS.values(), answer(GOOD)]):
            with ScriptedServer(*behaviours) as server:
                asked = introspector(server.url, **changes)
                told = outcomes(colour, asked, *[token] * len(behaviours))
                assert len(server.requests) == len(behaviours)
            flow: Flow[RawClaims] = asked.introspect(token, time.time())
            effect = next(flow)
            assert isinstance(effect, Work)
            seen += [str(told), repr(asked), repr(flow), repr(effect), repr(effect.job)]
            seen += [repr(asked._credential), repr(asked._settings), repr(asked._cache), str(asked.__dict__)]
            try:
                flow.throw(OSError("lost"))
            except OSError as error:
                seen.append(repr(error))
    shown = caplog.text + "".join(str(record.__dict__) for record in caplog.records) + "".join(seen)
    for hidden in (token, CLIENT_SECRET, "s3cret", "the-bearer-that", base64.b64encode(b"billing%3Aapi")[:12].decode()):
        assert hidden not in shown
    assert "introspection at the issuer https://issuer.example/ failed: malformed " in caplog.text


def test_a_flood_of_failures_is_told_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    with ScriptedServer(answer(b"{}")) as server:
        outcomes("sync", introspector(server.url), *[TOKEN] * 20)
    assert len([record for record in caplog.records if "introspection" in record.message]) == 1
