"""Client credentials with `private_key_jwt`: what we sign, what we take for a token, and what a failure means."""

from __future__ import annotations

import asyncio
import gzip
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import jwt
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from authz_middleware.errors import SettingsError
from authz_middleware.remote.credentials.assertion import UNAVAILABLE, UNUSABLE, Signer
from authz_middleware.remote.credentials.client_credentials import ClientCredentialsGrant
from authz_middleware.remote.credentials.grant import MAX_LIFETIME_S, Grant, parse_grant
from authz_middleware.remote.credentials.held import Held
from authz_middleware.remote.credentials.protocol import Credential
from authz_middleware.remote.credentials.renewal import LATE
from authz_middleware.remote.credentials.sources import credential_for
from authz_middleware.remote.failure import FailureKind, RemoteFailure
from authz_middleware.remote.transport.protocol import RawAnswer
from authz_middleware.settings.remote.credential import ClientCredentials
from authz_middleware.settings.secret import Secret
from tests.support.authorization_server import reply
from tests.support.pdp import ScriptedServer, answer, certificate, drip, hang, hang_up, raw, refused_port, response
from tests.support.token_endpoint import CLIENT_ID, ISSUER, ClientKey, TokenEndpoint
from tests.support.tokens import base64url, make_key

pytestmark = pytest.mark.capability("C43")

ALGORITHMS = ["ES256", "ES384", "ES512", "EdDSA", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512"]
KEY = ClientKey()


class Clock:
    """Runs, and can be put forward."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self.ahead = 0.0

    def __call__(self) -> float:
        return self._now() + self.ahead


made: list[Credential] = []


@pytest.fixture(autouse=True)
def closing() -> Iterator[None]:
    yield
    while made:
        made.pop().close()


@pytest.fixture
def endpoint() -> Iterator[TokenEndpoint]:
    with TokenEndpoint(KEY) as running:
        yield running


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    return KEY.write(tmp_path / "pep.pem")


@pytest.fixture(params=["sync", "async"])
def have(request: pytest.FixtureRequest) -> Callable[..., str | RemoteFailure]:
    def ask(credential: Credential, left: float = 10.0) -> str | RemoteFailure:
        return credential.header(left) if request.param == "sync" else asyncio.run(credential.aheader(left))

    return ask


def settings(url: str, key_file: Path, **changes: Any) -> ClientCredentials:
    least = ClientCredentials(url, ISSUER, CLIENT_ID, Secret(file=key_file), key_id=KEY.kid)
    return msgspec.structs.replace(least, **changes)


def opened(
    chosen: ClientCredentials, monotonic: Callable[[], float] = time.monotonic, clock: Callable[[], float] = time.time
) -> Credential:
    credential = credential_for(chosen, monotonic=monotonic, clock=clock)
    assert credential is not None
    made.append(credential)
    return credential


# what we sign


def test_a_token_is_granted_to_who_signs(endpoint: TokenEndpoint, key_file: Path, have: Callable[..., str]) -> None:
    assert have(opened(settings(endpoint.url, key_file))) == f"Bearer {endpoint.tokens[0]}"
    (form,) = endpoint.forms
    assert set(form) == {"grant_type", "client_id", "client_assertion_type", "client_assertion"}
    assert "Authorization" not in endpoint.headers[0]
    ((header, claims),) = endpoint.assertions
    assert header == {"alg": "ES256", "typ": "client-authentication+jwt", "kid": "key-1"}
    assert set(claims) == {"iss", "sub", "aud", "jti", "iat", "exp"}
    assert (claims["iss"], claims["sub"], claims["aud"]) == (CLIENT_ID, CLIENT_ID, ISSUER)
    assert claims["exp"] - claims["iat"] == 60
    assert len(claims["jti"]) >= 22


def test_what_the_token_is_for_is_asked_for(endpoint: TokenEndpoint, key_file: Path) -> None:
    chosen = settings(
        endpoint.url,
        key_file,
        scope=("pdp.evaluate", "pdp.search"),
        audience="https://pdp.example/?a=b&c",
        resource=("https://pdp.example/", "urn:pdp"),
    )
    opened(chosen).header(10.0)
    form = endpoint.forms[0]
    assert form["scope"] == ["pdp.evaluate pdp.search"]
    assert form["audience"] == ["https://pdp.example/?a=b&c"]
    assert form["resource"] == ["https://pdp.example/", "urn:pdp"]


@pytest.mark.parametrize("as_jwk", [False, True], ids=["PEM", "JWK"])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_signs_with_either_form_of_key(tmp_path: Path, algorithm: str, as_jwk: bool) -> None:
    key = ClientKey("key-9", algorithm)
    signer = Signer(settings("", key.write(tmp_path / "key", jwk=as_jwk), algorithm=algorithm, key_id=None))
    signed = signer.assertion(time.time())
    assert isinstance(signed, str)
    assert jwt.decode(signed, key.public, algorithms=[algorithm], audience=ISSUER)["sub"] == CLIENT_ID
    assert jwt.get_unverified_header(signed).get("kid") == ("key-9" if as_jwk else None)


def test_no_two_statements_are_the_same(key_file: Path) -> None:
    signer = Signer(settings("", key_file, algorithm="ES256"))
    ids = {jwt.decode(str(signer.assertion(1e9)), options={"verify_signature": False})["jti"] for _ in range(20)}
    assert len(ids) == 20


OTHER_CURVE = ClientKey("other", "EdDSA", key=Ed448PrivateKey.generate())
WEAK = ClientKey("weak", "RS256", key=make_key("RS256", rsa_bits=1024))


@pytest.mark.parametrize(
    ("content", "algorithm"),
    [
        (b"nonsense", "ES256"),
        (b"{}", "ES256"),
        (b'{"kty": "EC"', "ES256"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "ES256"),
        (ClientKey("k", "ES384").pem(), "ES256"),
        (ClientKey("k", "ES384").jwk(), "ES256"),
        (ClientKey("k", "RS256").pem(), "ES256"),
        (KEY.pem(), "RS256"),
        (KEY.pem(), "EdDSA"),
        (OTHER_CURVE.pem(), "EdDSA"),
        (OTHER_CURVE.jwk(), "EdDSA"),
        (WEAK.pem(), "RS256"),
        (WEAK.jwk(), "PS256"),
        (KEY.jwk(alg="ES384"), "ES256"),
        (KEY.jwk(kid=""), "ES256"),
        (KEY.jwk(kid=7), "ES256"),
        (KEY.jwk(kid="a\nb"), "ES256"),
        (b'{"kty":"EC","kty":"EC"}', "ES256"),
        (json.dumps({"kty": "oct", "k": "c2VjcmV0"}).encode(), "ES256"),
    ],
)
def test_a_key_that_does_not_fit_signs_nothing(
    tmp_path: Path, endpoint: TokenEndpoint, content: bytes, algorithm: str
) -> None:
    (tmp_path / "key").write_bytes(content)
    chosen = settings(endpoint.url, tmp_path / "key", algorithm=algorithm)
    assert Signer(chosen).assertion(time.time()) == UNUSABLE
    told = opened(chosen).header(10.0)
    assert isinstance(told, RemoteFailure)
    assert (told.kind, told.detail) == (FailureKind.CONFIG, "credential.key.unusable")
    assert not endpoint.forms


def test_a_public_key_signs_nothing(tmp_path: Path) -> None:
    members = json.loads(KEY.jwk())
    del members["d"]
    (tmp_path / "key").write_text(json.dumps(members))
    assert Signer(settings("", tmp_path / "key")).assertion(time.time()) == UNUSABLE


def test_without_a_key_nobody_is_asked(tmp_path: Path, endpoint: TokenEndpoint) -> None:
    chosen = settings(endpoint.url, tmp_path / "absent")
    assert Signer(chosen).assertion(time.time()) == UNAVAILABLE
    assert not opened(chosen).header(10.0).is_outage  # type: ignore[union-attr]
    assert not endpoint.forms


def test_a_key_that_was_replaced_signs_the_next_request(endpoint: TokenEndpoint, tmp_path: Path) -> None:
    path = KEY.write(tmp_path / "key", jwk=True)
    signer = Signer(settings(endpoint.url, path))
    assert jwt.get_unverified_header(str(signer.assertion(1e9)))["kid"] == "key-1"
    ClientKey("key-2").write(path, jwk=True)
    assert jwt.get_unverified_header(str(signer.assertion(1e9)))["kid"] == "key-2"


# what we take for a token


def granted(**changes: Any) -> RawAnswer:
    members = {"access_token": "good", "token_type": "Bearer", "expires_in": 300, **changes}
    return raw({name: value for name, value in members.items() if value is not ...})


@pytest.mark.parametrize("token_type", ["Bearer", "bearer", "BEARER"])
def test_a_bearer_token_with_a_lifetime_is_taken(token_type: str) -> None:
    told = parse_grant(granted(token_type=token_type, refresh_token="x", scope="other", unknown={"a": []}))
    assert isinstance(told, Grant)
    assert (told.header, told.lifetime) == ("Bearer good", 300)


@pytest.mark.parametrize(
    ("told", "kind", "detail"),
    [
        (granted(token_type=...), "malformed", "token_type"),
        (granted(token_type="DPoP"), "malformed", "token_type"),
        (granted(token_type="N_A"), "malformed", "token_type"),
        (granted(token_type=["Bearer"]), "malformed", "token_type"),
        (granted(token_type=None), "malformed", "token_type"),
        (granted(access_token=...), "malformed", "access_token"),
        (granted(access_token=""), "malformed", "access_token"),
        (granted(access_token="a b"), "malformed", "access_token"),
        (granted(access_token="a\r\nX-Injected: 1"), "malformed", "access_token"),
        (granted(access_token=["good"]), "malformed", "access_token"),
        (granted(access_token="x" * 16_385), "malformed", "access_token"),
        (granted(expires_in=...), "malformed", "expires_in"),
        (granted(expires_in=None), "malformed", "expires_in"),
        (granted(expires_in="300"), "malformed", "expires_in"),
        (granted(expires_in=300.0), "malformed", "expires_in"),
        (granted(expires_in=True), "malformed", "expires_in"),
        (granted(expires_in=0), "malformed", "expires_in"),
        (granted(expires_in=-1), "malformed", "expires_in"),
        (granted(expires_in=MAX_LIFETIME_S + 1), "malformed", "expires_in"),
        (raw(b""), "malformed", "body.not_json"),
        (raw(b"[]"), "malformed", "body.not_an_object"),
        (raw(b'{"access_token":"a","access_token":"b"}'), "malformed", "body.duplicate_member"),
        (raw(b'{"expires_in":NaN}'), "malformed", "body.not_finite"),
        (raw(b"\xff{}"), "malformed", "body.not_utf8"),
        (raw(b"access_token=good&token_type=bearer"), "malformed", "body.not_json"),
        (raw(b"{}", headers=()), "malformed", "header.content_type"),
        (raw(b"{}", headers=(("content-type", "text/html"),)), "malformed", "header.content_type"),
        (raw(b"{}", headers=(("content-type", "application/json"),) * 2), "malformed", "header.content_type"),
        (
            raw(gzip.compress(b"{}"), headers=(("content-type", "application/json"), ("content-encoding", "gzip"))),
            "malformed",
            "header.content_encoding",
        ),
        (raw({"error": "invalid_client"}, 401), "config", "refused.invalid_client"),
        (raw({"error": "invalid_scope"}, 400), "config", "refused.invalid_scope"),
        (raw({"error": "s3cret text of theirs"}, 400), "config", "refused"),
        (raw({"error": ["invalid_client"]}, 400), "config", "refused"),
        (raw(b"<html>", 401), "config", "refused"),
        (msgspec.structs.replace(granted(), status=201), "malformed", "status.201"),
        (raw(b"", 204), "malformed", "status.204"),
        (raw(b"", 302), "redirect", "status.302"),
        (raw(b"", 403), "config", "status.403"),
        (raw(b"", 404), "config", "status.404"),
        (raw(b"", 429), "throttled", "status.429"),
        (raw(b"", 500), "status_5xx", "status.500"),
        (raw(b"", 503), "status_5xx", "status.503"),
    ],
)
def test_whatever_else_comes_back_is_no_token(told: RawAnswer, kind: str, detail: str) -> None:
    assert parse_grant(told) == RemoteFailure(FailureKind(kind), f"credential.{detail}")


SCALARS = st.none() | st.booleans() | st.integers(-10, 100_000) | st.floats(-1e6, 1e6) | st.text(max_size=8)
JSON_VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=3,
)


@hypothesis_settings(deadline=None)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "access_token": st.sampled_from(["good", "a b", ""]) | JSON_VALUES,
            "token_type": st.sampled_from(["Bearer", "bearer", "DPoP"]) | JSON_VALUES,
            "expires_in": st.integers(-1, 90_000) | JSON_VALUES,
        },
    ),
    st.sampled_from([200, 200, 200, 201, 301, 400, 500]),
)
def test_only_a_whole_grant_is_one(members: Mapping[str, Any], status: int) -> None:
    told = parse_grant(raw(members, status))
    if isinstance(told, Grant):
        assert status == 200
        assert str(members["token_type"]).lower() == "bearer"
        assert told.header == f"Bearer {members['access_token']}"
        assert " " not in members["access_token"]
        assert type(members["expires_in"]) is int
        assert 0 < told.lifetime == members["expires_in"] <= MAX_LIFETIME_S


# what a failure means


@pytest.mark.parametrize(
    ("behaviour", "kind", "outage"),
    [
        (hang, "deadline", True),
        (hang_up, "closed", True),
        (drip(response(b'{"access_token":"x"}')), "deadline", True),
        (answer(b"", status="500 Oops"), "status_5xx", True),
        (answer(b"", status="503 Later"), "status_5xx", True),
        (answer(b"", status="429 Slow"), "throttled", True),
        (answer(b'{"error":"invalid_client"}', status="401 No"), "config", False),
        (answer(b'{"error":"invalid_request"}', status="400 No"), "config", False),
        (answer(b"", status="404 What"), "config", False),
        (answer(b"{}"), "malformed", False),
        (answer(b"x" * 70_000), "malformed", False),
    ],
)
def test_an_absent_server_is_an_outage_and_a_refusing_one_a_fault(
    key_file: Path, have: Callable[..., Any], behaviour: Any, kind: str, outage: bool
) -> None:
    with ScriptedServer(behaviour) as server:
        told = have(opened(settings(f"{server.url}/token", key_file, deadline=0.5)))
    assert isinstance(told, RemoteFailure)
    assert (told.kind, told.is_outage, told.is_news) == (kind, outage, False)
    assert told.detail.startswith("credential.")


def test_a_server_that_nobody_listens_for_is_an_outage(key_file: Path, have: Callable[..., Any]) -> None:
    told = have(opened(settings(f"http://127.0.0.1:{refused_port()}/token", key_file)))
    assert told == RemoteFailure(FailureKind.CONNECT, "credential.connect", is_news=False)


def test_a_server_that_answers_late_is_an_outage_for_the_call_and_not_for_the_next(
    endpoint: TokenEndpoint, key_file: Path, have: Callable[..., Any]
) -> None:
    endpoint.delay = 0.4
    credential = opened(settings(endpoint.url, key_file))
    assert have(credential, 0.05) == LATE
    assert LATE.is_outage
    assert have(credential, 10.0) == f"Bearer {endpoint.tokens[0]}"
    assert len(endpoint.forms) == 1


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"])
def test_a_redirect_is_not_followed(key_file: Path, have: Callable[..., Any], status: str) -> None:
    with ScriptedServer(answer()) as other:
        where = f"Location: {other.url}/token\r\nContent-Type: application/json\r\n"
        with ScriptedServer(answer(b"{}", status=status, headers=where)) as server:
            told = have(opened(settings(f"{server.url}/token", key_file)))
        assert told.kind is FailureKind.REDIRECT
        assert not told.is_outage
        assert not other.requests


def test_a_proxy_of_the_environment_is_not_used(
    endpoint: TokenEndpoint, key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1/")
    assert isinstance(opened(settings(endpoint.url, key_file)).header(10.0), str)


def test_tls_with_an_authority_of_ones_own(tmp_path: Path, key_file: Path) -> None:
    trusted, context = certificate(tmp_path)
    with TokenEndpoint(KEY, tls=context) as endpoint:
        assert isinstance(opened(settings(endpoint.url, key_file, ca_file=trusted)).header(10.0), str)
        told = opened(settings(endpoint.url, key_file)).header(10.0)
    assert told == RemoteFailure(FailureKind.CONFIG, "credential.tls.certificate", is_news=False)


def test_certificates_that_cannot_be_read_stop_the_start(tmp_path: Path, key_file: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    with pytest.raises(SettingsError, match=r"client_credentials\.ca_file"):
        credential_for(settings("https://idp.example/token", key_file, ca_file=tmp_path / "ca.pem"))


# for how long


def source(endpoint: TokenEndpoint, key_file: Path, clock: Callable[[], float]) -> ClientCredentialsGrant:
    return ClientCredentialsGrant(settings(endpoint.url, key_file), monotonic=clock, clock=lambda: 2e9 + clock())


@pytest.mark.parametrize(
    ("lifetime", "until"), [(1, 0.9), (10, 9.0), (100, 90.0), (300, 290.0), (3600, 3590.0), (86_400, 86_390.0)]
)
def test_a_token_is_renewed_ahead_of_its_end_and_not_used_up_to_the_last_moment(
    endpoint: TokenEndpoint, key_file: Path, lifetime: int, until: float
) -> None:
    endpoint.lifetime = lifetime
    endpoint.behave = None
    endpoint._error = lambda form: None  # type: ignore[method-assign]  # its clock is another one
    held = source(endpoint, key_file, lambda: 100.0).obtain()
    assert isinstance(held, Held)
    assert held.until == pytest.approx(100.0 + until)
    assert held.expires_at == pytest.approx(2e9 + 100.0 + until)
    assert 0.65 * lifetime <= held.renew_at - 100.0 <= 0.8 * lifetime
    assert held.renew_at < held.until


def test_the_lifetime_counts_from_the_request_and_not_from_the_answer(endpoint: TokenEndpoint, key_file: Path) -> None:
    clock = Clock(lambda: 100.0)
    endpoint._error = lambda form: None  # type: ignore[method-assign]  # likewise

    def slowly(handler: BaseHTTPRequestHandler) -> None:
        clock.ahead += 50.0
        endpoint._grant(handler)

    endpoint.behave = slowly
    held = source(endpoint, key_file, clock).obtain()
    assert isinstance(held, Held)
    assert held.until == pytest.approx(390.0)


def test_many_processes_do_not_renew_at_the_same_moment(endpoint: TokenEndpoint, key_file: Path) -> None:
    endpoint._error = lambda form: None  # type: ignore[method-assign]  # likewise
    asked = source(endpoint, key_file, lambda: 100.0)
    helds = [asked.obtain() for _ in range(8)]
    assert len({held.renew_at for held in helds if isinstance(held, Held)}) == 8


def test_the_pauses_after_failures_grow_and_stay_bounded(endpoint: TokenEndpoint, key_file: Path) -> None:
    asked = source(endpoint, key_file, time.monotonic)
    assert 0.1 <= asked.pause(1) <= 0.2
    assert 0.4 <= asked.pause(3) <= 0.8
    assert all(5.0 <= asked.pause(failures) <= 10.0 for failures in (7, 50, 5000))


def test_while_a_token_is_good_a_server_that_is_away_loses_no_call(
    endpoint: TokenEndpoint, key_file: Path, have: Callable[..., Any]
) -> None:
    monotonic, wall = Clock(), Clock(time.time)
    credential = opened(settings(endpoint.url, key_file), monotonic, wall)
    header = have(credential)
    endpoint.behave = lambda handler: reply(handler, {}, status=503)
    for _ in range(2):
        monotonic.ahead += 140
        wall.ahead += 140
        assert have(credential) == header
    monotonic.ahead += 15
    wall.ahead += 15
    told = have(credential)
    assert isinstance(told, RemoteFailure)
    assert told.kind is FailureKind.STATUS_5XX
    endpoint.behave = None
    endpoint._error = lambda form: None  # type: ignore[method-assign]  # likewise
    monotonic.ahead += 11
    assert have(credential) == f"Bearer {endpoint.tokens[-1]}"


def test_many_callers_have_one_token_fetched(endpoint: TokenEndpoint, key_file: Path) -> None:
    endpoint.delay = 0.2
    credential = opened(settings(endpoint.url, key_file))

    async def several() -> list[str | RemoteFailure]:
        return await asyncio.gather(*(credential.aheader(10.0) for _ in range(10)))

    with ThreadPoolExecutor(7) as pool:
        loops = [pool.submit(asyncio.run, several()) for _ in range(2)]
        threads = [pool.submit(credential.header, 10.0) for _ in range(5)]
        told = {*(one for loop in loops for one in loop.result()), *(thread.result() for thread in threads)}
    assert told == {f"Bearer {endpoint.tokens[0]}"}
    assert len(endpoint.forms) == 1


def test_each_request_has_a_connection_and_a_statement_of_its_own(endpoint: TokenEndpoint, key_file: Path) -> None:
    """On a kept-alive connection that has gone stale the transport would post the same statement twice."""
    asked = ClientCredentialsGrant(settings(endpoint.url, key_file))
    for _ in range(3):
        assert isinstance(asked.obtain(), Held)
    assert endpoint.connections == 3
    assert len({claims["jti"] for _, claims in endpoint.assertions}) == 3
    assert not endpoint.refusals


def test_a_server_that_closes_is_not_asked_twice_with_one_statement(key_file: Path) -> None:
    with ScriptedServer(hang_up) as server:
        asked = ClientCredentialsGrant(settings(f"{server.url}/token", key_file))
        asked.obtain()
        asked.obtain()
    assert len(server.requests) == 2


def test_no_thread_is_left_behind(endpoint: TokenEndpoint, key_file: Path) -> None:
    credential = opened(settings(endpoint.url, key_file))
    before = set(threading.enumerate())
    credential.header(10.0)
    (keeper,) = [thread for thread in set(threading.enumerate()) - before if thread.name == "authz-credential"]
    credential.close()
    assert not keeper.is_alive()


def test_no_repr_shows_a_token_or_a_key(endpoint: TokenEndpoint, key_file: Path) -> None:
    asked = ClientCredentialsGrant(settings(endpoint.url, key_file))
    held = asked.obtain()
    assert isinstance(held, Held)
    shown = "".join(map(repr, (asked, held, asked._signer, asked._signer._secret, Grant("Bearer s3cret", 1))))
    assert "granted-" not in shown
    assert "s3cret" not in shown
    assert base64url(KEY.pem())[:40] not in shown
