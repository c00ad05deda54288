"""Pushed security events: taken only when wholly right, acknowledged only when kept, and never undone."""

from __future__ import annotations

import itertools
import json
import os
import random
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from authz_middleware.answer import Answer
from authz_middleware.identity.keys.key_set import FileKeys, InlineKeys, KeySet, RefreshTimes, RemoteKeys
from authz_middleware.identity.principal import Principal
from authz_middleware.revocation.entry import Revocation, Scope
from authz_middleware.revocation.feeds.event_receiver import EventReceiver
from authz_middleware.revocation.feeds.transmitter import Transmitter
from authz_middleware.revocation.memory import MemoryStore
from authz_middleware.revocation.store import StoreUnavailableError, Trouble
from authz_middleware.settings.revocation_feeds import KeySource, TransmitterSettings
from authz_middleware.settings.secret import Secret
from tests.support.security_events import (
    ALICE,
    AUDIENCE,
    CAEP,
    CONTENT_TYPE,
    CREDENTIAL_CHANGE,
    HEADERS,
    RISC,
    SESSION_REVOKED,
    STREAM_UPDATED,
    TOKEN_CLAIMS_CHANGE,
    TOKEN_ISSUER,
    TRANSMITTER,
    VERIFICATION,
    err,
    event_claims,
    security_event,
)
from tests.support.status_lists import REMOVED, DocumentServer, document, eventually
from tests.support.tokens import Issuer, KeyServer, base64url

pytestmark = pytest.mark.capability("C16", "C18")

SETTINGS = TransmitterSettings(
    TRANSMITTER.url, (AUDIENCE,), (TOKEN_ISSUER,), KeySource(("RS256",), jwks=TRANSMITTER.jwks())
)
OTHER_KEY = Issuer(TRANSMITTER.url, kid="ssf", alg="RS256")
TAKEN = (202, None)


def receiver(
    store: Any = None, *, keys: KeySet | None = None, monotonic: Callable[[], float] = time.monotonic, **changes: Any
) -> EventReceiver:
    settings = msgspec.structs.replace(SETTINGS, **changes)
    keys = keys or InlineKeys(TRANSMITTER.jwks(), ("RS256",), name="test")
    return EventReceiver([Transmitter(settings, keys)], store or MemoryStore(), monotonic=monotonic)


def send(to: EventReceiver, body: bytes, headers: Iterable[tuple[str, str]] = HEADERS) -> tuple[int, str | None]:
    return err(to.receive("POST", list(headers), body))


def entries_after(body: bytes, **changes: Any) -> Sequence[Revocation]:
    store = MemoryStore()
    assert send(receiver(store, **changes), body) == TAKEN
    return store.entries()


def revoked(store: MemoryStore, issued_at: float, subject: str = "alice", **parts: Any) -> bool:
    who = Principal(issuer=TOKEN_ISSUER, subject=subject, issued_at=issued_at, expires_at=issued_at + 300, **parts)
    index = store.reading(time.time()).index
    return index is not None and index.find(who, time.time()) is not None


# what an event ends


@pytest.mark.parametrize(
    ("type_", "event"),
    [
        (SESSION_REVOKED, {}),
        (TOKEN_CLAIMS_CHANGE, {"claims": {"role": "ro-admin"}}),
        (CREDENTIAL_CHANGE, {"credential_type": "password", "change_type": "update"}),
        (CREDENTIAL_CHANGE, {"credential_type": "fido2-roaming", "change_type": "revoke"}),
        (CREDENTIAL_CHANGE, {"credential_type": "x509", "change_type": "delete"}),
        (RISC + "account-disabled", {"reason": "hijacking"}),
        (RISC + "account-purged", {}),
        (RISC + "credential-compromise", {"credential_type": "password"}),
        (RISC + "account-credential-change-required", {}),
        (RISC + "sessions-revoked", {}),
    ],
)
def test_what_was_issued_before_the_event_is_revoked_and_what_comes_after_is_not(
    type_: str, event: dict[str, Any]
) -> None:
    now = int(time.time())
    store = MemoryStore()
    body = security_event(type_, event={"event_timestamp": now - 60, **event})
    assert send(receiver(store), body) == TAKEN
    assert revoked(store, now - 61)
    assert revoked(store, now - 60)
    assert not revoked(store, now - 59)
    assert not revoked(store, now - 61, subject="bob")


def test_without_a_timestamp_the_time_of_the_event_counts() -> None:
    now = int(time.time())
    (entry,) = entries_after(security_event(now=now - 5))
    assert entry.issued_before == now - 5


@pytest.mark.parametrize("stated", [None, True, "soon", -1, 0, "ms", "later", "tomorrow", "last year"])
def test_a_timestamp_that_would_end_nothing_or_too_much_does_not_count(stated: Any) -> None:
    now = int(time.time())
    words = {"ms": now * 1000, "later": now + 5, "tomorrow": now + 86_400, "last year": now - 365 * 86_400}
    (entry,) = entries_after(security_event(now=now, event={"event_timestamp": words.get(stated, stated)}))
    assert entry.issued_before == now


def test_a_credential_that_is_added_ends_nothing() -> None:
    assert entries_after(security_event(CREDENTIAL_CHANGE, event={"change_type": "create"})) == ()


@pytest.mark.parametrize("change", [REMOVED, "", "renew", 1, ["update"]])
def test_a_change_that_is_not_understood_is_not_acknowledged(change: Any) -> None:
    body = security_event(CREDENTIAL_CHANGE, event={"change_type": change})
    assert send(receiver(), body) == (400, "invalid_request")


def test_it_is_kept_who_said_so_and_why() -> None:
    (entry,) = entries_after(security_event())
    assert entry.scope is Scope.SUBJECT
    assert (entry.issuer, entry.value) == (TOKEN_ISSUER, "alice")
    assert (entry.source, entry.owner) == (f"events:{TRANSMITTER.url}", TRANSMITTER.url)
    assert entry.reason == "session revoked"


def test_a_revocation_outlives_every_token_it_ends() -> None:
    now = time.time()
    (entry,) = entries_after(security_event())
    assert entry.expires_at > now + 86_400


def test_events_in_any_order_and_number_leave_the_same_behind() -> None:
    """A late older event takes nothing back from a newer one, and none of them gives anything again."""
    now = int(time.time())
    bodies = [security_event(now=now - 10, event={"event_timestamp": now - age}) for age in (600, 300, 60)]
    for order in itertools.permutations(bodies):
        store = MemoryStore()
        to = receiver(store)
        for body in (*order, *random.sample(bodies, 2)):
            assert send(to, body) == TAKEN
        assert revoked(store, now - 60)
        assert not revoked(store, now - 59)
        assert len(store.entries()) == 3


def test_an_event_that_is_sent_twice_is_taken_twice_and_counts_once() -> None:
    store = MemoryStore()
    body = security_event()
    to = receiver(store)
    assert [send(to, body), send(to, body)] == [TAKEN, TAKEN]
    assert len(store.entries()) == 1


@pytest.mark.parametrize("type_", [RISC + "account-enabled", CAEP + "session-established", "urn:other"])
def test_no_event_gives_anything_back(type_: str) -> None:
    now = int(time.time())
    store = MemoryStore()
    to = receiver(store)
    assert send(to, security_event(RISC + "account-disabled")) == TAKEN
    assert send(to, security_event(type_)) == TAKEN
    assert revoked(store, now - 1)


def test_every_event_of_a_set_counts() -> None:
    events: dict[str, Any] = {"urn:other": {}, SESSION_REVOKED: {}, RISC + "account-disabled": {}}
    (entry,) = entries_after(security_event(events=events))
    assert entry.value == "alice"


# whom it is about

USER = {"format": "iss_sub", "iss": TOKEN_ISSUER, "sub": "alice"}
DEVICE = {"format": "iss_sub", "iss": TOKEN_ISSUER, "sub": "e9297990"}
TENANT = {"format": "opaque", "id": "123456789"}
SESSION = {"format": "opaque", "id": "dMTlD|1600802906337.16"}
JWT = {"format": "jwt_id", "iss": TOKEN_ISSUER, "jti": "t-1"}


@pytest.mark.parametrize(
    ("subject", "targets"),
    [
        (USER, [(Scope.SUBJECT, "alice")]),
        ({**USER, "more": "x"}, [(Scope.SUBJECT, "alice")]),
        (JWT, [(Scope.TOKEN, "t-1")]),
        ({"format": "complex", "user": USER}, [(Scope.SUBJECT, "alice")]),
        ({"format": "complex", "user": USER, "device": DEVICE, "tenant": TENANT}, [(Scope.SUBJECT, "alice")]),
        ({"format": "complex", "user": USER, "session": SESSION, "planet": TENANT}, [(Scope.SUBJECT, "alice")]),
        ({"format": "complex", "session": JWT, "tenant": TENANT}, [(Scope.TOKEN, "t-1")]),
        ({"format": "aliases", "identifiers": [USER]}, [(Scope.SUBJECT, "alice")]),
        (
            {"format": "aliases", "identifiers": [{"format": "phone_number", "phone_number": "+1"}, USER, JWT]},
            [(Scope.SUBJECT, "alice"), (Scope.TOKEN, "t-1")],
        ),
    ],
)
def test_the_subject_is_found(subject: dict[str, Any], targets: list[tuple[Scope, str]]) -> None:
    entries = entries_after(security_event(subject=subject))
    assert [(entry.scope, entry.value) for entry in entries] == targets
    assert {entry.issuer for entry in entries} == {TOKEN_ISSUER}


@pytest.mark.parametrize(
    ("subject", "format_"),
    [({"format": "opaque", "id": "alice"}, "opaque"), ({"format": "email", "email": "alice"}, "email")],
)
def test_a_subject_without_issuer_counts_where_the_settings_say_what_it_means(
    subject: dict[str, Any], format_: Any
) -> None:
    (entry,) = entries_after(security_event(subject=subject), subjects=frozenset({format_}))
    assert (entry.scope, entry.issuer, entry.value) == (Scope.SUBJECT, TOKEN_ISSUER, "alice")
    assert send(receiver(), security_event(subject=subject)) == (400, "invalid_request")


@pytest.mark.parametrize(
    "subject",
    [
        None,
        "alice",
        [],
        {},
        {"iss": TOKEN_ISSUER, "sub": "alice"},
        {"format": 1},
        {"format": ["iss_sub"]},
        {"format": "ISS_SUB", "iss": TOKEN_ISSUER, "sub": "alice"},
        {"format": "iss_sub"},
        {"format": "iss_sub", "iss": TOKEN_ISSUER},
        {"format": "iss_sub", "sub": "alice"},
        *({"format": "iss_sub", "iss": TOKEN_ISSUER, "sub": sub} for sub in (None, "", " ", 1, ["alice"], "a\nb")),
        {"format": "jwt_id", "iss": TOKEN_ISSUER},
        SESSION,
        {"format": "account", "uri": "acct:alice@example.com"},
        {"format": "phone_number", "phone_number": "+1"},
        {"format": "did", "url": "did:example:1"},
        {"format": "saml_assertion_id", "issuer": TOKEN_ISSUER, "assertion_id": "_1"},
        {"format": "ip-addresses", "ip-addresses": ["10.0.0.1"]},
        {"format": "complex"},
        {"format": "complex", "device": DEVICE},
        {"format": "complex", "tenant": TENANT},
        {"format": "complex", "session": SESSION},
        {"format": "complex", "user": SESSION, "session": JWT},
        {"format": "complex", "user": "alice"},
        {"format": "complex", "user": {"format": "complex", "user": USER}},
        {"format": "aliases"},
        {"format": "aliases", "identifiers": []},
        {"format": "aliases", "identifiers": USER},
        {"format": "aliases", "identifiers": ["alice"]},
        {"format": "aliases", "identifiers": [SESSION]},
        {"format": "aliases", "identifiers": [USER] * 33},
        {"format": "aliases", "identifiers": [USER, {"format": "aliases", "identifiers": [USER]}]},
    ],
)
def test_a_subject_that_cannot_be_acted_on_is_not_acknowledged(subject: Any) -> None:
    """Acknowledged without effect, the event would be lost, and nobody would know."""
    store = MemoryStore()
    assert send(receiver(store), security_event(subject=subject)) == (400, "invalid_request")
    assert store.entries() == ()


@pytest.mark.parametrize("format_", [{"format": "iss_sub", "sub": "alice"}, {"format": "jwt_id", "jti": "t-1"}])
def test_a_transmitter_speaks_about_its_own_issuers_only(format_: dict[str, str]) -> None:
    subject = {**format_, "iss": "https://other.example/"}
    assert send(receiver(), security_event(subject=subject)) == (400, "access_denied")
    assert send(receiver(), security_event(subject={"format": "complex", "user": subject})) == (400, "access_denied")


def test_an_older_draft_has_its_subject_within_the_event() -> None:
    (entry,) = entries_after(security_event(event={"subject": ALICE}, sub_id=REMOVED))
    assert entry.value == "alice"
    (entry,) = entries_after(security_event(event={"subject": ALICE}))
    assert entry.value == "alice"


def test_two_subjects_that_differ_are_refused() -> None:
    body = security_event(event={"subject": {**ALICE, "sub": "bob"}})
    assert send(receiver(), body) == (400, "invalid_request")


# the stream itself


def test_a_verification_is_acknowledged() -> None:
    stream = {"format": "opaque", "id": "f67e39a0"}
    assert entries_after(security_event(VERIFICATION, stream, event={"state": "VGhpcyBp"})) == ()


@pytest.mark.capability("C48")
def test_a_stream_that_is_paused_is_noticed(caplog: pytest.LogCaptureFixture) -> None:
    stream = {"format": "opaque", "id": "f67e39a0"}
    to = receiver()
    for status, readable in (("paused", False), ("enabled", True), ("disabled", False)):
        assert send(to, security_event(STREAM_UPDATED, stream, event={"status": status})) == TAKEN
        (reading,) = to.readings(time.time())
        assert reading.readable is readable
    assert "'paused': it sends no revocations" in caplog.text


@pytest.mark.capability("C48")
def test_it_is_known_when_a_transmitter_was_last_heard() -> None:
    to = receiver()
    (silent,) = to.readings(time.time())
    assert (silent.name, silent.readable, silent.lag) == (TRANSMITTER.url, True, None)
    send(to, security_event(VERIFICATION))
    (heard,) = to.readings(time.time() + 60)
    assert heard.lag == pytest.approx(60, abs=5)


# what is no event for us

FUTURE = int(time.time()) + 3600


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"iss": "https://other.example/"}, "invalid_issuer"),
        ({"iss": "https://idp.example"}, "invalid_issuer"),
        ({"iss": REMOVED}, "invalid_issuer"),
        ({"iss": [TRANSMITTER.url]}, "invalid_issuer"),
        ({"aud": "https://other.example/"}, "invalid_audience"),
        ({"aud": REMOVED}, "invalid_audience"),
        ({"aud": []}, "invalid_audience"),
        ({"aud": [1, AUDIENCE]}, "invalid_audience"),
        ({"aud": {"a": AUDIENCE}}, "invalid_audience"),
        ({"aud": AUDIENCE.upper()}, "invalid_audience"),
        ({"aud": ["x"] * 300 + [AUDIENCE]}, "invalid_audience"),
        ({"jti": REMOVED}, "invalid_request"),
        ({"jti": ""}, "invalid_request"),
        ({"jti": 1}, "invalid_request"),
        ({"iat": REMOVED}, "invalid_request"),
        ({"iat": "now"}, "invalid_request"),
        ({"iat": True}, "invalid_request"),
        ({"iat": FUTURE}, "invalid_request"),
        ({"sub": "alice"}, "invalid_request"),
        ({"exp": FUTURE}, "invalid_request"),
        ({"sub_id": REMOVED}, "invalid_request"),
        ({"events": REMOVED}, "invalid_request"),
        ({"events": {}}, "invalid_request"),
        ({"events": [SESSION_REVOKED]}, "invalid_request"),
        ({"events": {SESSION_REVOKED: None}}, "invalid_request"),
        ({"events": {SESSION_REVOKED: []}}, "invalid_request"),
        ({"header": {"typ": "JWT"}}, "invalid_request"),
        ({"header": {"typ": REMOVED}}, "invalid_request"),
        ({"header": {"typ": "at+jwt"}}, "invalid_request"),
        ({"header": {"crit": ["x"]}}, "invalid_request"),
        ({"header": {"alg": "none"}}, "invalid_key"),
        ({"header": {"alg": "HS256"}}, "invalid_key"),
        ({"header": {"alg": "RS512"}}, "invalid_key"),
        ({"signer": OTHER_KEY}, "invalid_key"),
    ],
)
def test_an_event_that_is_not_wholly_right_is_refused(
    changes: dict[str, Any], code: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = MemoryStore()
    assert send(receiver(store), security_event(**changes)) == (400, code)
    assert store.entries() == ()
    assert code in caplog.text


def test_an_event_for_several_recipients_may_be_for_us() -> None:
    assert entries_after(security_event(aud=["https://other.example/", AUDIENCE])) != ()


def test_a_clock_that_is_a_little_ahead_does_no_harm() -> None:
    now = int(time.time())
    assert send(receiver(), security_event(now=now + 50)) == TAKEN
    assert send(receiver(), security_event(now=now + 70)) == (400, "invalid_request")


def test_an_event_that_comes_late_still_counts() -> None:
    now = int(time.time())
    (entry,) = entries_after(security_event(now=now - 3 * 86_400))
    assert entry.issued_before == now - 3 * 86_400


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"a.b.c",
        json.dumps(event_claims()).encode(),
        security_event()[:-10],
        security_event() + b".x",
        TRANSMITTER.sign(base64url({"typ": "secevent+jwt", "alg": "RS256"}), base64url(b'{"iss":1,"iss":2}')).encode(),
    ],
)
def test_what_is_no_security_event(body: bytes) -> None:
    status, code = send(receiver(), body)
    assert status == 400
    assert code in ("invalid_request", "invalid_key")


def test_an_access_token_of_the_same_keys_is_no_event() -> None:
    token = document(TRANSMITTER, event_claims(), typ="at+jwt")
    assert send(receiver(), token) == (400, "invalid_request")


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("GET", HEADERS, 405),
        ("PUT", HEADERS, 405),
        ("post", HEADERS, 405),
        ("POST", (), 415),
        ("POST", (("content-type", "application/json"),), 415),
        ("POST", (("content-type", "application/jwt"),), 415),
        ("POST", (*HEADERS, *HEADERS), 415),
        ("POST", (*HEADERS, ("content-encoding", "gzip")), 415),
    ],
)
def test_an_event_comes_by_post_and_as_what_it_is(
    method: str, headers: tuple[tuple[str, str], ...], status: int
) -> None:
    store = MemoryStore()
    answer = receiver(store).receive(method, headers, security_event())
    assert err(answer) == (status, "invalid_request")
    assert store.entries() == ()


@pytest.mark.parametrize("kind", [f"{CONTENT_TYPE}; charset=utf-8", CONTENT_TYPE.upper()])
def test_the_type_may_have_parameters(kind: str) -> None:
    assert send(receiver(), security_event(), [("content-type", kind)]) == TAKEN


def test_an_event_has_a_length() -> None:
    fits = security_event(event={"pad": "x" * 30_000})
    assert send(receiver(), fits) == TAKEN
    assert send(receiver(), security_event(event={"pad": "x" * 60_000})) == (413, "invalid_request")


def test_a_refusal_is_written_as_the_standard_says() -> None:
    answer = receiver().receive("POST", HEADERS, b"x")
    headers = dict(answer.headers)
    assert headers["content-type"] == "application/json"
    assert headers["content-language"] == "en"
    assert set(json.loads(answer.body)) == {"err", "description"}


def test_neither_answer_nor_log_quotes_the_event(caplog: pytest.LogCaptureFixture) -> None:
    to = receiver()
    bodies = [
        security_event(jti="canary\n"),
        security_event(subject={**ALICE, "sub": "canary\n"}),
        security_event(subject={"format": "canary"}),
        security_event(iss="canary"),
        security_event(events={SESSION_REVOKED: "canary"}),
        b"canary",
    ]
    answers = [to.receive("POST", HEADERS, body) for body in bodies]
    assert {answer.status for answer in answers} == {400}
    assert "canary" not in caplog.text
    assert not any(b"canary" in answer.body for answer in answers)


# who sends it


def with_bearer(token: str) -> list[tuple[str, str]]:
    return [*HEADERS, ("authorization", f"Bearer {token}")]


@pytest.fixture
def guarded(tmp_path: Path) -> tuple[EventReceiver, Path]:
    secret = tmp_path / "credential"
    secret.write_text("s3cret\n")
    return receiver(credential=Secret(file=secret)), secret


def test_a_transmitter_shows_its_credential(guarded: tuple[EventReceiver, Path]) -> None:
    to, _ = guarded
    assert send(to, security_event(), with_bearer("s3cret")) == TAKEN
    assert send(to, security_event(), [*HEADERS, ("authorization", "bearer s3cret")]) == TAKEN


@pytest.mark.parametrize(
    "shown",
    [
        [],
        [("authorization", "")],
        [("authorization", "Bearer ")],
        [("authorization", "Bearer wrong")],
        [("authorization", "Bearer s3cret2")],
        [("authorization", "Bearer s3cre")],
        [("authorization", "Bearer  s3cret")],
        [("authorization", "Bearer s3cret, Bearer s3cret")],
        [("authorization", "Basic s3cret")],
        [("authorization", "s3cret")],
        [("authorization", "Bearer \xe4")],
        [("authorization", "Bearer s3cret"), ("authorization", "Bearer s3cret")],
    ],
)
def test_without_its_credential_not_even_the_form_of_an_event_is_looked_at(
    guarded: tuple[EventReceiver, Path], shown: list[tuple[str, str]]
) -> None:
    to, _ = guarded
    for body in (security_event(), security_event(iss="https://other.example/"), b"x"):
        answer = to.receive("POST", [*HEADERS, *shown], body)
        assert err(answer) == (401, "authentication_failed")
        assert dict(answer.headers)["www-authenticate"] == "Bearer"


def test_while_a_credential_is_replaced_both_are_accepted(guarded: tuple[EventReceiver, Path]) -> None:
    to, secret = guarded
    secret.write_text("s3cret\nn3wer\n")
    assert send(to, security_event(), with_bearer("s3cret")) == TAKEN
    assert send(to, security_event(), with_bearer("n3wer")) == TAKEN
    assert send(to, security_event(), with_bearer("s3cret\nn3wer")) == (401, "authentication_failed")
    secret.write_text("n3wer")
    assert send(to, security_event(), with_bearer("s3cret")) == (401, "authentication_failed")


def test_a_credential_that_cannot_be_read_lets_nobody_in(
    guarded: tuple[EventReceiver, Path], caplog: pytest.LogCaptureFixture
) -> None:
    to, secret = guarded
    secret.unlink()
    assert send(to, security_event(), with_bearer("s3cret")) == (503, None)
    assert "s3cret" not in caplog.text
    secret.write_text(" ")
    assert send(to, security_event(), [*HEADERS, ("authorization", "Bearer ")]) == (503, None)


def test_one_transmitter_cannot_speak_for_another(tmp_path: Path) -> None:
    other = Issuer("https://other-idp.example/", kid="other", alg="RS256")
    (tmp_path / "a").write_text("secret-a")
    (tmp_path / "b").write_text("secret-b")
    settings = [
        msgspec.structs.replace(SETTINGS, credential=Secret(file=tmp_path / "a")),
        msgspec.structs.replace(
            SETTINGS, issuer=other.url, about=("https://other.example/",), credential=Secret(file=tmp_path / "b")
        ),
    ]
    keys = [InlineKeys(each.jwks(), ("RS256",), name="test") for each in (TRANSMITTER, other)]
    store = MemoryStore()
    to = EventReceiver([Transmitter(*pair) for pair in zip(settings, keys, strict=True)], store)
    assert send(to, security_event(), with_bearer("secret-b")) == (401, "authentication_failed")
    assert send(to, security_event(iss=other.url, signer=other), with_bearer("secret-b")) == (400, "access_denied")
    assert send(to, security_event(iss=other.url), with_bearer("secret-b")) == (400, "invalid_key")
    assert send(to, security_event(signer=other), with_bearer("secret-a")) == (400, "invalid_key")
    assert store.entries() == ()
    assert send(to, security_event(), with_bearer("secret-a")) == TAKEN


# its keys


def test_an_event_under_a_new_key_is_not_lost() -> None:
    """The transmitter would not send it again after a refusal (RFC 8935 section 2.3)."""
    new = Issuer(TRANSMITTER.url, kid="new", alg="RS256")
    with KeyServer(TRANSMITTER.jwks()) as server:
        to = receiver(keys=RemoteKeys(server.url, ("RS256",), name="test"))
        to.start()
        server.document = TRANSMITTER.jwks(new)
        assert send(to, security_event(signer=new)) == TAKEN
        to.close()


def test_made_up_keys_cost_one_fetch_in_a_while() -> None:
    seconds = [1000.0]
    with KeyServer(TRANSMITTER.jwks()) as server:
        to = receiver(keys=RemoteKeys(server.url, ("RS256",), name="test"), monotonic=lambda: seconds[0])
        to.start()
        before = server.fetches
        made_up = [security_event(signer=Issuer(TRANSMITTER.url, kid=f"x{i}", alg="RS256")) for i in range(4)]
        assert [send(to, body) for body in made_up] == [(400, "invalid_key"), *[(503, None)] * 3]
        assert server.fetches == before + 1
        seconds[0] += 11
        assert send(to, made_up[0]) == (400, "invalid_key")
        assert server.fetches == before + 2
        to.close()


def test_without_keys_an_event_is_to_be_sent_again() -> None:
    with DocumentServer() as server:
        to = receiver(keys=RemoteKeys(server.url(), ("RS256",), name="test"))
        to.start()
        assert send(to, security_event()) == (503, None)
        (reading,) = to.readings(time.time())
        assert (reading.readable, reading.problem) == (False, "keys.unavailable")
        to.close()


def test_while_keys_are_fetched_no_other_thread_waits() -> None:
    release = threading.Event()
    with KeyServer(TRANSMITTER.jwks()) as server:
        to = receiver(keys=RemoteKeys(server.url, ("RS256",), name="test"))
        to.start()
        server.behave = lambda _: release.wait(5)
        made_up = security_event(signer=Issuer(TRANSMITTER.url, kid="x", alg="RS256"))
        first = threading.Thread(target=lambda: send(to, made_up))
        first.start()
        while server.fetches < 2:
            time.sleep(0.005)
        started = time.perf_counter()
        assert send(to, made_up) == (503, None)
        assert send(to, security_event()) == TAKEN
        assert time.perf_counter() - started < 0.5
        release.set()
        first.join()
        to.close()


def test_a_key_from_a_file_may_be_replaced(tmp_path: Path) -> None:
    jwks = tmp_path / "jwks.json"
    jwks.write_text(json.dumps(TRANSMITTER.jwks()))
    to = receiver(keys=FileKeys(jwks, ("RS256",), name="test"))
    to.start()
    jwks.write_text(json.dumps({"keys": [OTHER_KEY.jwk(kid="other")]}))
    body = security_event(signer=OTHER_KEY, header={"kid": "other"})
    assert send(to, body) == TAKEN
    assert send(to, security_event()) == (503, None)
    to.close()


FAST = RefreshTimes(interval=0.05, poll=0.02, cooldown=0.0, retry=0.02, deadline=0.5)


def test_a_key_that_is_withdrawn_signs_no_more_events() -> None:
    with KeyServer(TRANSMITTER.jwks()) as server:
        to = receiver(keys=RemoteKeys(server.url, ("RS256",), name="test", times=FAST))
        to.start()
        assert send(to, security_event()) == TAKEN
        server.document = OTHER_KEY.jwks()
        assert eventually(lambda: send(to, security_event()) == (400, "invalid_key"))
        to.close()


@pytest.mark.capability("C48")
def test_a_health_check_alone_has_the_keys_fetched() -> None:
    """Before it is healthy, nobody may send it events."""
    with KeyServer(TRANSMITTER.jwks()) as server:
        to = receiver(keys=RemoteKeys(server.url, ("RS256",), name="test", times=FAST))
        assert eventually(lambda: to.readings(time.time())[0].readable)
        to.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_looks_for_keys_by_itself() -> None:
    new = Issuer(TRANSMITTER.url, kid="new", alg="RS256")
    with KeyServer(TRANSMITTER.jwks()) as server:
        to = receiver(keys=RemoteKeys(server.url, ("RS256",), name="test"))
        to.start()
        server.document = TRANSMITTER.jwks(new)
        body = security_event(signer=new)
        with to._transmitters[TRANSMITTER.url]._looking:  # as another thread may hold it at that moment
            child = os.fork()
            if child == 0:
                os._exit(0 if send(to, body) == TAKEN else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        to.close()


# kept, or not acknowledged


class BrokenStore(MemoryStore):
    """A store that cannot be written while `error` is set."""

    error: Exception | None = StoreUnavailableError(Trouble.LOCKED, "the store is locked")

    def add(self, entries: Iterable[Revocation]) -> None:
        if self.error is not None:
            raise self.error
        super().add(entries)


@pytest.mark.parametrize("error", [BrokenStore.error, RuntimeError("canary"), OSError("canary")])
def test_what_cannot_be_kept_is_not_acknowledged(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    store = BrokenStore()
    store.error = error
    to = receiver(store)
    body = security_event()
    answer: Answer = to.receive("POST", HEADERS, body)
    assert answer.status == 503
    assert int(dict(answer.headers)["retry-after"]) > 0
    assert "canary" not in caplog.text
    store.error = None
    assert send(to, body) == TAKEN
    assert revoked(store, time.time() - 10)


def test_refusals_are_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    to = receiver()
    for _ in range(50):
        send(to, security_event(signer=OTHER_KEY))
    assert caplog.text.count("a security event was refused (invalid_key)") == 1
