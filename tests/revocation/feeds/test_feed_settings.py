"""The feeds in the settings: complete or refused, and put together as they say."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from authz_middleware.decision import Reason
from authz_middleware.errors import Problem, SettingsError
from authz_middleware.identity.keys.key_set import InlineKeys, KeySet
from authz_middleware.identity.principal import Principal
from authz_middleware.revocation.feeds.assembly import Feeds
from authz_middleware.revocation.feeds.status_list import TokenStatus
from authz_middleware.revocation.guard import Revocations
from authz_middleware.revocation.memory import MemoryStore
from authz_middleware.settings.issuers import IssuerSettings
from authz_middleware.settings.revocation_feeds import FeedSettings, feed_problems, read_feeds
from authz_middleware.settings.revocations import OnUnavailable, RevocationSettings, UnavailableSettings
from authz_middleware.settings.section import Section
from tests.support.security_events import AUDIENCE, HEADERS, TRANSMITTER, security_event
from tests.support.status_lists import DocumentServer, eventually, listed, revocation_list, status_list_token
from tests.support.tokens import Issuer

BASE = Path("/etc/app")
ISSUER = Issuer()
SIGNER = Issuer("https://soc.example/", kid="soc", alg="EdDSA")

STATUS: dict[str, Any] = {"issuer": ISSUER.url, "hosts": ["status.example"]}
LIST: dict[str, Any] = {
    "name": "soc",
    "issuer": SIGNER.url,
    "path": "revocations.jws",
    "algorithms": ["EdDSA"],
    "jwks": SIGNER.jwks(),
}
PUSH: dict[str, Any] = {
    "issuer": TRANSMITTER.url,
    "audience": [AUDIENCE],
    "about": [ISSUER.url],
    "algorithms": ["RS256"],
    "jwks": TRANSMITTER.jwks(),
}


def read(**tables: Any) -> FeedSettings | list[Problem]:
    problems: list[Problem] = []
    section = Section(tables, "revocations", problems, BASE)
    feeds = read_feeds(section)
    section.done()
    return problems or feeds


def settings(**tables: Any) -> FeedSettings:
    feeds = read(**tables)
    assert isinstance(feeds, FeedSettings), feeds
    return feeds


def test_without_feeds_there_are_none() -> None:
    assert read() == FeedSettings()


def test_what_is_left_out_has_its_default() -> None:
    feeds = settings(status_lists=[STATUS], lists=[LIST], transmitters=[PUSH])
    (status,), (signed,), (pushing,) = feeds.status_lists, feeds.lists, feeds.transmitters
    assert (status.hosts, status.refresh, status.max_age, status.max_lifetime) == (
        (("status.example", 443),),
        60,
        900,
        86400,
    )
    assert (signed.path, signed.refresh, signed.max_age, signed.kept) == (BASE / "revocations.jws", 10, 300, None)
    assert (pushing.credential, pushing.subjects) == (None, frozenset())


def test_all_of_it_can_be_said() -> None:
    feeds = settings(
        status_lists=[
            {
                **STATUS,
                "hosts": ["status.example:8443"],
                "uris": ["https://status.example:8443/1"],
                "refresh": "30s",
                "max_age": "5m",
                "max_lifetime": "12h",
                "max_lists": 3,
                "ca_file": "ca.pem",
            }
        ],
        lists=[
            {
                **{key: value for key, value in LIST.items() if key not in ("path", "jwks")},
                "url": "https://soc.example/list",
                "jwks_file": "soc.json",
                "refresh": "1m",
                "max_age": "1h",
                "kept": "kept.jws",
                "ca_file": "ca.pem",
            }
        ],
        transmitters=[{**PUSH, "credential": {"env": "SSF_TOKEN"}, "subjects": ["opaque", "email"]}],
    )
    assert feeds.status_lists[0].uris == ("https://status.example:8443/1",)
    assert feeds.lists[0].kept == BASE / "kept.jws"
    assert feeds.transmitters[0].credential is not None
    assert feeds.transmitters[0].subjects == {"opaque", "email"}


@pytest.mark.parametrize(
    ("tables", "where", "what"),
    [
        ({"status_lists": {}}, "status_lists", "array of tables"),
        ({"status_lists": [{}]}, "status_lists[0].issuer", "is required"),
        ({"status_lists": [{"issuer": "x"}]}, "status_lists[0].hosts", "is required"),
        ({"status_lists": [{**STATUS, "hosts": ["https://status.example/"]}]}, "status_lists[0].hosts", "a host"),
        ({"status_lists": [{**STATUS, "hosts": ["*.example"]}]}, "status_lists[0].hosts", "a host"),
        ({"status_lists": [{**STATUS, "uris": ["https://other.example/1"]}]}, "status_lists[0].uris", "not in hosts"),
        ({"status_lists": [{**STATUS, "uris": ["http://status.example/1"]}]}, "status_lists[0].uris", "https"),
        ({"status_lists": [{**STATUS, "refresh": "1s"}]}, "status_lists[0].refresh", "5s"),
        ({"status_lists": [{**STATUS, "refresh": "1m", "max_age": "30s"}]}, "status_lists[0].max_age", "shorter"),
        (
            {"status_lists": [{**STATUS, "max_lists": 1, "uris": [f"https://status.example/{i}" for i in (1, 2)]}]},
            "status_lists[0].uris",
            "more addresses than max_lists",
        ),
        ({"status_lists": [{**STATUS, "max_lists": 0}]}, "status_lists[0].max_lists", "from 1"),
        ({"status_lists": [{**STATUS, "more": 1}]}, "status_lists[0].more", "not a known key"),
        ({"status_lists": [{**STATUS, "ignore": "because"}]}, "status_lists[0].hosts", "not a known key"),
        ({"status_lists": [{"issuer": "x", "ignore": " "}]}, "status_lists[0].ignore", "non-empty"),
        ({"status_lists": [{"issuer": "x", "ignore": True}]}, "status_lists[0].ignore", "non-empty"),
        ({"status_lists": [STATUS, STATUS]}, "status_lists", "two entries"),
        ({"lists": [{**LIST, "url": "https://soc.example/list"}]}, "lists[0]", "exactly one"),
        ({"lists": [{**LIST, "path": None, "url": None}]}, "lists[0]", "exactly one"),
        ({"lists": [{**LIST, "algorithms": ["HS256"]}]}, "lists[0].algorithms", "HS256"),
        ({"lists": [{**LIST, "algorithms": ["none"]}]}, "lists[0].algorithms", "none"),
        ({"lists": [{**LIST, "jwks_file": "soc.json"}]}, "lists[0]", "exactly one of jwks_file, jwks"),
        ({"lists": [{**LIST, "jwks_uri": "https://soc.example/jwks"}]}, "lists[0].jwks_uri", "not a known key"),
        ({"lists": [{**LIST, "name": "x" * 191}]}, "lists[0].name", "printable"),
        ({"lists": [{**LIST, "name": "a\nb"}]}, "lists[0].name", "printable"),
        ({"lists": [LIST, LIST]}, "lists", "two entries"),
        ({"transmitters": [{**PUSH, "about": []}]}, "transmitters[0].about", "non-empty"),
        ({"transmitters": [{**PUSH, "audience": ""}]}, "transmitters[0].audience", "non-empty"),
        ({"transmitters": [{**PUSH, "credential": "s3cret"}]}, "transmitters[0].credential", "never written here"),
        ({"transmitters": [{**PUSH, "algorithms": ["HS256"]}]}, "transmitters[0].algorithms", "HS256"),
        ({"transmitters": [{**PUSH, "subjects": ["phone"]}]}, "transmitters[0].subjects", "phone"),
        (
            {"transmitters": [{**PUSH, "about": ["a", "b"], "subjects": ["email"]}]},
            "transmitters[0].subjects",
            "exactly one issuer",
        ),
        (
            {"transmitters": [{**PUSH, "jwks": None, "jwks_uri": "http://idp.example/"}]},
            "transmitters[0].jwks_uri",
            "https",
        ),
        ({"transmitters": [PUSH, PUSH]}, "transmitters", "two entries"),
    ],
)
def test_what_cannot_be_meant_is_refused(tables: dict[str, Any], where: str, what: str) -> None:
    tables = {
        name: [_said(entry) for entry in value] if isinstance(value, list) else value for name, value in tables.items()
    }
    problems = read(**tables)
    assert isinstance(problems, list)
    assert [problem for problem in problems if problem.where == f"revocations.{where}" and what in problem.what], (
        problems
    )


def _said(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if value is not None}


def test_a_secret_written_in_the_settings_is_not_shown() -> None:
    problems = read(transmitters=[{**PUSH, "credential": "s3cret"}])
    assert "s3cret" not in str(problems)


def test_feeds_speak_of_issuers_that_there_are() -> None:
    feeds = settings(status_lists=[STATUS], transmitters=[PUSH])
    assert feed_problems(feeds, [ISSUER.url]) == []
    assert [problem.where for problem in feed_problems(feeds, ["https://other.example/"])] == [
        "revocations.status_lists[0].issuer",
        "revocations.transmitters[0].about",
    ]


# put together

TOKENS = IssuerSettings(ISSUER.url, ("billing-api",), ("ES256",), jwks=ISSUER.jwks())


def keys_of(issuer: str) -> KeySet | None:
    return InlineKeys(ISSUER.jwks(), ("ES256",), name=issuer) if issuer == ISSUER.url else None


def test_all_mistakes_of_the_feeds_are_reported_at_once() -> None:
    feeds = settings(
        status_lists=[{**STATUS, "issuer": "https://other.example/"}, {**STATUS, "issuer": "https://opaque.example/"}],
        lists=[{**LIST, "jwks": {"keys": []}}],
        transmitters=[{**PUSH, "jwks": {"keys": [{"kty": "oct", "k": "AAAA"}]}}],
    )
    opaque = IssuerSettings("https://opaque.example/", ("billing-api",))
    with pytest.raises(SettingsError) as caught:
        Feeds(feeds, MemoryStore(), [TOKENS, opaque], keys_of)
    assert [problem.where for problem in caught.value.problems] == [
        "revocations.status_lists[0].issuer",
        "revocations.status_lists[1].issuer",
        "revocations.lists[0].jwks",
        "revocations.transmitters[0].jwks",
    ]


def test_an_issuer_without_keys_may_have_its_status_ignored() -> None:
    opaque = IssuerSettings("https://opaque.example/", ("billing-api",))
    feeds = settings(status_lists=[{"issuer": opaque.issuer, "ignore": "introspection tells"}])
    made = Feeds(feeds, MemoryStore(), [opaque], keys_of)
    assert made.status_lists.status(opaque.issuer, "https://x.example/", 0, time.time()) is TokenStatus.VALID


@pytest.mark.capability("C18", "C48")
def test_the_feeds_work_together(tmp_path: Path) -> None:
    (tmp_path / "list.jws").write_bytes(revocation_list(SIGNER, 1, listed(value="bob")))
    with DocumentServer() as server:
        server.documents["/1"] = status_list_token(ISSUER, server.url("/1"))
        feeds = settings(
            status_lists=[{**STATUS, "hosts": [f"127.0.0.1:{server.place[1]}"], "uris": [server.url("/1")]}],
            lists=[{**LIST, "path": str(tmp_path / "list.jws")}],
            transmitters=[PUSH],
        )
        made = Feeds(feeds, MemoryStore(), [TOKENS], keys_of)
        made.store.start()
        made.start()
        assert made.receiver is not None
        assert made.receiver.receive("POST", HEADERS, security_event()).status == 202
        now = time.time()
        assert made.status_lists.status(ISSUER.url, server.url("/1"), 1, now) is TokenStatus.INVALID
        assert {entry.value for entry in made.store.entries()} == {"alice", "bob"}
        readings = made.readings(now)
        assert [reading.name for reading in readings] == ["soc", server.url("/1"), TRANSMITTER.url]
        assert all(reading.readable for reading in readings)
        made.close()
        made.store.close()


def test_without_feeds_the_store_is_the_store() -> None:
    store = MemoryStore()
    made = Feeds(FeedSettings(), store, [TOKENS], keys_of)
    assert made.store is store
    assert made.receiver is None
    assert made.readings(time.time()) == ()
    assert made.status_lists.status(ISSUER.url, "https://x.example/", 0, time.time()) is TokenStatus.NOT_CONFIGURED


@pytest.mark.capability("C16", "C51")
def test_what_a_feed_says_counts_for_the_next_decision(tmp_path: Path) -> None:
    path = tmp_path / "list.jws"
    path.write_bytes(revocation_list(SIGNER, 1))
    feeds = settings(lists=[{**LIST, "path": str(path), "refresh": "1s"}], transmitters=[PUSH])
    made = Feeds(feeds, MemoryStore(), [TOKENS], keys_of)
    chosen = RevocationSettings(UnavailableSettings(OnUnavailable("deny")))
    revocations = Revocations(chosen, store=made.store)
    revocations.start()
    made.start()
    now = time.time()
    alice, bob = (
        Principal(issuer=ISSUER.url, subject=name, issued_at=now - 10, expires_at=now + 300)
        for name in ("alice", "bob")
    )

    def reason(who: Principal, ahead: float = 0.0) -> Reason | None:
        refusal = revocations.check(who, "invoice:read", time.time() + ahead).refusal
        return None if refusal is None else refusal.reason

    assert reason(alice) is None
    assert made.receiver is not None
    assert made.receiver.receive("POST", HEADERS, security_event()).status == 202
    assert reason(alice) is Reason.CREDENTIAL_REVOKED
    assert reason(bob) is None
    path.write_bytes(revocation_list(SIGNER, 2, listed("everything")))
    assert eventually(lambda: reason(bob) is Reason.CREDENTIAL_REVOKED)
    assert reason(bob, ahead=1000) is Reason.REVOCATIONS_UNAVAILABLE
    made.close()
    revocations.close()
