"""A signed list: taken whole or not at all, never an older one, and never without somebody noticing."""

from __future__ import annotations

import json
import os
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from authz_middleware.identity.keys.key_set import FileKeys, InlineKeys, KeySet
from authz_middleware.identity.principal import Principal
from authz_middleware.revocation.entry import Scope, new_revocation
from authz_middleware.revocation.feeds.joined import JoinedStore
from authz_middleware.revocation.feeds.list_feed import ListFeed
from authz_middleware.revocation.memory import MemoryStore
from authz_middleware.revocation.store import Trouble
from authz_middleware.settings.revocation_feeds import KeySource, SignedListSettings
from tests.support.status_lists import (
    REMOVED,
    REVOCATION_LIST,
    DocumentServer,
    eventually,
    listed,
    revocation_list,
)
from tests.support.tokens import Issuer, base64url

pytestmark = pytest.mark.capability("C18", "C51")

SIGNER = Issuer("https://soc.example/", kid="soc", alg="EdDSA")
ISSUER = "https://issuer.example/"

Make = Callable[..., ListFeed]


class Place:
    """Where the list lies: a file that a test writes."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def put(self, serial: int, /, *entries: dict[str, Any], signer: Issuer = SIGNER, **changes: Any) -> bytes:
        data = revocation_list(signer, serial, *entries, **changes)
        self.path.write_bytes(data)
        return data


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "revocations.jws")


@pytest.fixture
def make(place: Place) -> Iterator[Make]:
    made: list[ListFeed] = []

    def feed(*, keys: KeySet | None = None, ahead: Callable[[], float] = lambda: 0.0, **changes: Any) -> ListFeed:
        settings = SignedListSettings("soc", SIGNER.url, KeySource(("EdDSA",), jwks=SIGNER.jwks()), path=place.path)
        settings = msgspec.structs.replace(settings, refresh=3600.0, **changes)
        keys = keys or InlineKeys(SIGNER.jwks(), ("EdDSA",), name="test")
        made.append(ListFeed(settings, keys, clock=lambda: time.time() + ahead()))
        return made[-1]

    yield feed
    for each in made:
        each.close()


def principal(subject: str = "alice", **parts: Any) -> Principal:
    now = time.time()
    return Principal(issuer=ISSUER, subject=subject, **{"issued_at": now - 10, "expires_at": now + 300, **parts})


def found(feed: ListFeed, who: Principal | None = None, now: float | None = None) -> bool:
    now = time.time() if now is None else now
    index = feed.reading(now).index
    return index is not None and index.find(who or principal(), now) is not None


def trouble(feed: ListFeed, now: float | None = None) -> Trouble | None:
    return feed.reading(time.time() if now is None else now).trouble


def problem(feed: ListFeed) -> str | None:
    return feed.health(time.time()).problem


# what it names


def test_what_the_list_names_is_revoked(place: Place, make: Make) -> None:
    place.put(1, listed())
    feed = make()
    feed.start()
    assert trouble(feed) is None
    assert found(feed)
    assert not found(feed, principal("bob"))


@pytest.mark.parametrize(
    ("entry", "who"),
    [
        (listed("token", issuer=ISSUER, value="t1"), {"token_id": "t1"}),
        (listed("client", issuer=ISSUER, value="shop"), {"client": "shop"}),
        (listed("task", value="t-7"), {"task": "t-7"}),
        (listed("transaction", value="x-7"), {"transaction": "x-7"}),
        (listed("key", issuer=ISSUER, value="key-1"), {"key_id": "key-1"}),
        (listed("actor", value="alice"), {}),
        (listed("issuer", issuer=ISSUER), {}),
        (listed("everything"), {}),
    ],
)
def test_a_list_speaks_of_all_that_can_be_revoked(
    place: Place, make: Make, entry: dict[str, Any], who: dict[str, Any]
) -> None:
    place.put(1)
    feed = make()
    feed.start()
    assert not found(feed, principal(**who))
    place.put(2, entry)
    feed.look()
    assert found(feed, principal(**who))


def test_a_cut_off_spares_what_was_issued_later(place: Place, make: Make) -> None:
    now = time.time()
    place.put(1, listed(issued_before=now - 100))
    feed = make()
    feed.start()
    assert found(feed, principal(issued_at=now - 200))
    assert not found(feed, principal(issued_at=now - 10))


def test_an_entry_counts_for_as_long_as_it_is_listed(place: Place, make: Make) -> None:
    """However old the list, and whatever the entry's own cut-off."""
    now = time.time()
    place.put(1, listed(issued_before=now - 9 * 86_400), now=now - 10 * 86_400, exp=now + 86_400)
    feed = make()
    feed.start()
    assert found(feed, principal(issued_at=now - 9.5 * 86_400))


def test_an_entry_may_end_by_itself(place: Place, make: Make) -> None:
    now = time.time()
    place.put(1, listed(created_at=now - 3 * 86_400, expires_at=now - 1), listed(value="bob", expires_at=now + 90_000))
    feed = make()
    feed.start()
    assert not found(feed)
    assert found(feed, principal("bob"))


def test_a_new_list_takes_the_place_of_the_old_one(place: Place, make: Make) -> None:
    place.put(1, listed(), listed(value="bob"))
    feed = make()
    feed.start()
    place.put(2, listed(value="bob"), listed(value="carol"))
    feed.look()
    assert [found(feed, principal(name)) for name in ("alice", "bob", "carol")] == [False, True, True]


def test_a_request_meets_the_old_list_or_the_new_one_never_half(place: Place, make: Make) -> None:
    place.put(1, listed(value="alice"))
    feed = make()
    feed.start()
    before = feed.reading(time.time())
    place.put(2, listed(value="bob"))
    feed.look()
    assert before.index is not None
    assert [before.index.find(principal(name), time.time()) is not None for name in ("alice", "bob")] == [True, False]
    assert feed.reading(time.time()).epoch != before.epoch


def test_the_same_list_again_keeps_what_was_concluded_from_it(place: Place, make: Make) -> None:
    place.put(1, listed())
    feed = make()
    feed.start()
    before = feed.reading(time.time())
    feed.look()
    place.put(2, listed(), iat=int(time.time()) - 5, exp=int(time.time()) + 9000)
    after = feed.reading(time.time())
    assert (after.index, after.epoch) == (before.index, before.epoch)


# what is no list

NOW = int(time.time())
BAD: list[tuple[dict[str, Any], str]] = [
    ({"iss": "https://other.example/"}, "document.iss"),
    ({"iss": REMOVED}, "list.members"),
    ({"iat": REMOVED}, "list.members"),
    ({"exp": REMOVED}, "list.members"),
    ({"serial": REMOVED}, "list.members"),
    ({"entries": REMOVED}, "list.members"),
    ({"more": 1}, "list.members"),
    ({"iat": NOW + 3600}, "document.not_yet_valid"),
    ({"exp": NOW - 1}, "document.expired"),
    ({"exp": "2099"}, "document.exp"),
    ({"serial": -1}, "list.serial"),
    ({"serial": True}, "list.serial"),
    ({"serial": 2.0}, "list.serial"),
    ({"serial": "2"}, "list.serial"),
    ({"entries": {}}, "list.entries"),
    ({"entries": "none"}, "list.entries"),
    ({"entries": [None]}, "list.entries"),
    ({"entries": [listed(value="bob"), listed(scope="planet")]}, "list.entries"),
    ({"entries": [listed(value="bob"), listed(more=1)]}, "list.entries"),
    ({"entries": [listed(value="bob"), listed(value=REMOVED)]}, "list.entries"),
    ({"entries": [listed(value="")]}, "list.entries"),
    ({"entries": [listed(value="a\nb")]}, "list.entries"),
    ({"entries": [listed(reason="")]}, "list.entries"),
    ({"entries": [listed(owner=1)]}, "list.entries"),
    ({"entries": [listed(issued_before="today")]}, "list.entries"),
    ({"entries": [listed(issued_before=True)]}, "list.entries"),
    ({"entries": [listed(expires_at=NOW + 60)]}, "list.entries"),
    ({"entries": [listed("everything", value="x")]}, "list.entries"),
    ({"header": {"typ": "JWT"}}, "document.type"),
    ({"header": {"typ": "secevent+jwt"}}, "document.type"),
    ({"header": {"alg": "none"}}, "document.algorithm"),
    ({"header": {"kid": "other"}}, "document.key_unknown"),
    ({"signer": Issuer("https://soc.example/", kid="soc", alg="EdDSA")}, "document.signature"),
    ({"signer": Issuer("https://soc.example/", kid="soc", alg="HS256")}, "document.algorithm"),
]


@pytest.mark.parametrize(("changes", "code"), BAD)
def test_a_list_that_is_not_wholly_right_changes_nothing(
    place: Place, make: Make, changes: dict[str, Any], code: str, caplog: pytest.LogCaptureFixture
) -> None:
    place.put(1, listed())
    feed = make()
    feed.start()
    before = feed.reading(time.time())
    place.put(2, **changes)
    feed.look()
    after = feed.reading(time.time())
    assert problem(feed) == code
    assert code in caplog.text
    assert (after.index, after.epoch, after.as_of) == (before.index, before.epoch, before.as_of)
    assert found(feed)


@pytest.mark.parametrize("cut", [1, 10, 100, -1])
def test_a_list_that_was_cut_off_changes_nothing(place: Place, make: Make, cut: int) -> None:
    place.put(1, listed())
    feed = make()
    feed.start()
    place.path.write_bytes(place.put(2)[:cut])
    feed.look()
    assert problem(feed) == "document.malformed"
    assert found(feed)


def test_a_list_with_a_symmetric_key_cannot_be_configured_by_file(place: Place, make: Make, tmp_path: Path) -> None:
    shared = Issuer(SIGNER.url, kid="soc", alg="HS256")
    (tmp_path / "jwks.json").write_text(json.dumps(shared.jwks()))
    place.put(1, listed(), signer=shared)
    feed = make(keys=FileKeys(tmp_path / "jwks.json", ("EdDSA",), name="test"))
    feed.start()
    assert problem(feed) == "keys.unavailable"


def test_an_unreadable_list_is_logged_once_a_minute(place: Place, make: Make, caplog: pytest.LogCaptureFixture) -> None:
    feed = make()
    for _ in range(5):
        feed.look()
    assert problem(feed) == "list.unreachable"
    assert caplog.text.count("revocation list 'soc'") == 1


def test_the_log_quotes_nothing_of_a_list(place: Place, make: Make, caplog: pytest.LogCaptureFixture) -> None:
    place.put(1, listed(value="mallory-canary", reason=""))
    make().start()
    place.path.write_text("canary")
    make().start()
    assert caplog.records
    assert "canary" not in caplog.text


def test_a_list_larger_than_the_bound_is_refused_without_reading_it(place: Place, make: Make) -> None:
    with place.path.open("wb") as file:
        file.truncate(256 * 1024 * 1024)
    feed = make()
    tracemalloc.start()
    try:
        feed.start()
        assert tracemalloc.get_traced_memory()[1] < 32 * 1024 * 1024
    finally:
        tracemalloc.stop()
    assert problem(feed) == "document.too_long"


# the serial only rises


def test_an_older_list_is_refused_though_its_signature_holds(place: Place, make: Make) -> None:
    older = revocation_list(SIGNER, 6)
    place.put(7, listed())
    feed = make()
    feed.start()
    place.path.write_bytes(older)
    feed.look()
    assert problem(feed) == "list.older"
    assert found(feed)


def test_a_serial_is_not_used_for_two_lists(place: Place, make: Make) -> None:
    place.put(7, listed())
    feed = make()
    feed.start()
    place.put(7)
    feed.look()
    assert problem(feed) == "list.serial_used_twice"
    assert found(feed)


def test_the_same_list_may_be_signed_again_for_a_longer_life(place: Place, make: Make) -> None:
    now = time.time()
    place.put(7, listed(), exp=now + 10)
    feed = make()
    feed.start()
    place.put(7, listed(), exp=now + 200)
    feed.look()
    assert trouble(feed, now + 100) is None


def test_a_restart_remembers_the_serial_where_the_list_is_kept(place: Place, make: Make, tmp_path: Path) -> None:
    kept = tmp_path / "kept.jws"
    older = revocation_list(SIGNER, 6)
    place.put(7, listed())
    make(kept=kept).start()
    place.path.write_bytes(older)
    restarted = make(kept=kept)
    restarted.start()
    assert problem(restarted) == "list.older"
    assert found(restarted)
    forgetful = make()
    forgetful.start()
    assert problem(forgetful) is None


def test_a_kept_list_that_expired_still_holds_the_serial(place: Place, make: Make, tmp_path: Path) -> None:
    kept = tmp_path / "kept.jws"
    now = time.time()
    kept.write_bytes(revocation_list(SIGNER, 7, listed(), now=now - 500, exp=now - 100))
    place.put(6)
    feed = make(kept=kept)
    feed.start()
    assert problem(feed) == "list.older"
    assert trouble(feed) is Trouble.LAG


def test_a_kept_list_is_verified_like_any_other(
    place: Place, make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept = tmp_path / "kept.jws"
    kept.write_bytes(revocation_list(Issuer(SIGNER.url, kid="soc", alg="EdDSA"), 2**62))
    place.put(1, listed())
    feed = make(kept=kept)
    feed.start()
    assert "the kept list cannot be used (document.signature)" in caplog.text
    assert problem(feed) is None
    assert found(feed)


def test_after_a_restart_without_the_source_the_kept_list_is_known_but_not_current(
    place: Place, make: Make, tmp_path: Path
) -> None:
    kept = tmp_path / "kept.jws"
    place.put(7, listed(), now=time.time() - 1000, exp=int(time.time()) + 3600)
    make(kept=kept).start()
    place.path.unlink()
    feed = make(kept=kept)
    feed.start()
    assert found(feed)
    assert trouble(feed) is Trouble.LAG


def test_a_list_that_cannot_be_kept_is_in_force_all_the_same(
    place: Place, make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place.put(1, listed())
    feed = make(kept=tmp_path / "no" / "such" / "folder" / "kept.jws")
    feed.start()
    assert found(feed)
    assert "a restart may take an older one" in caplog.text


def test_keeping_leaves_no_pieces_behind(place: Place, make: Make, tmp_path: Path) -> None:
    feed = make(kept=tmp_path / "kept.jws")
    for serial in range(1, 4):
        data = place.put(serial, listed())
        feed.look()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept.jws", "revocations.jws"]
    assert (tmp_path / "kept.jws").read_bytes() == data


# keys


def test_a_new_key_is_known_as_soon_as_its_file_has_it(place: Place, make: Make, tmp_path: Path) -> None:
    jwks = tmp_path / "jwks.json"
    jwks.write_text(json.dumps(SIGNER.jwks()))
    feed = make(keys=FileKeys(jwks, ("EdDSA",), name="test"))
    place.put(1)
    feed.start()
    new = Issuer(SIGNER.url, kid="new", alg="EdDSA")
    place.put(2, listed(), signer=new)
    feed.look()
    assert problem(feed) == "document.key_unknown"
    jwks.write_text(json.dumps(SIGNER.jwks(new)))
    feed.look()
    assert found(feed)


def test_a_key_that_is_withdrawn_takes_its_list_and_its_serial_with_it(
    place: Place, make: Make, tmp_path: Path
) -> None:
    """Whoever stole it may have used up every serial there is."""
    jwks = tmp_path / "jwks.json"
    jwks.write_text(json.dumps(SIGNER.jwks()))
    place.put(2**62, listed("everything"))
    feed = make(keys=FileKeys(jwks, ("EdDSA",), name="test"))
    feed.start()
    assert found(feed)
    new = Issuer(SIGNER.url, kid="new", alg="EdDSA")
    jwks.write_text(json.dumps(new.jwks()))
    feed.look()
    assert trouble(feed) is Trouble.NOT_STARTED
    assert not found(feed)
    place.put(8, listed(value="bob"), signer=new)
    feed.look()
    assert trouble(feed) is None
    assert found(feed, principal("bob"))


# as time goes by


def test_without_a_first_list_nothing_is_known(make: Make) -> None:
    feed = make()
    assert trouble(feed) is Trouble.NOT_STARTED
    feed.start()
    assert trouble(feed) is Trouble.NOT_STARTED
    assert feed.lag(time.time()) is None


@pytest.mark.capability("C48")
def test_a_list_that_cannot_be_had_lags_and_then_is_in_trouble(place: Place, make: Make) -> None:
    place.put(1, listed())
    feed = make(max_age=100.0)
    feed.start()
    place.path.unlink()
    feed.look()
    now = time.time()
    assert feed.lag(now + 50) == pytest.approx(50, abs=5)
    assert trouble(feed, now + 90) is None
    assert trouble(feed, now + 110) is Trouble.LAG
    assert found(feed, now=now + 110)
    assert not feed.health(now + 110).readable


@pytest.mark.capability("C48")
def test_an_unverifiable_list_counts_as_lag(place: Place, make: Make) -> None:
    ahead = [0.0]
    place.put(1, listed())
    feed = make(max_age=100.0, ahead=lambda: ahead[0])
    feed.start()
    place.put(2, signer=Issuer(SIGNER.url, kid="soc", alg="EdDSA"))
    ahead[0] = 200.0
    feed.look()
    assert trouble(feed, time.time() + 200) is Trouble.LAG
    assert feed.lag(time.time() + 200) == pytest.approx(200, abs=5)


def test_a_list_is_in_trouble_from_its_exp_on(place: Place, make: Make) -> None:
    now = time.time()
    place.put(1, listed(), exp=now + 50)
    feed = make(max_age=1000.0)
    feed.start()
    assert trouble(feed, now + 49) is None
    assert trouble(feed, now + 50) is Trouble.LAG


def test_a_clock_that_was_set_back_far_does_not_make_an_old_list_new(place: Place, make: Make) -> None:
    place.put(1, listed())
    feed = make(max_age=100.0)
    feed.start()
    assert trouble(feed, time.time() - 50) is None
    assert trouble(feed, time.time() - 1000) is Trouble.LAG


def test_the_list_is_followed_beside_the_requests(place: Place, make: Make) -> None:
    place.put(1)
    feed = make()
    feed._settings = msgspec.structs.replace(feed._settings, refresh=0.02)
    feed.start()
    assert not found(feed)
    place.put(2, listed("everything"))
    assert eventually(lambda: found(feed))


def test_a_health_check_alone_has_the_list_followed(place: Place, make: Make) -> None:
    place.put(1)
    feed = make()
    feed.health(time.time())
    assert eventually(lambda: feed.lag(time.time()) is not None)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_follows_by_itself(place: Place, make: Make) -> None:
    place.put(1)
    feed = make()
    feed._settings = msgspec.structs.replace(feed._settings, refresh=0.02)
    feed.start()
    found(feed)
    with feed._looking:  # as another thread may hold it at that moment
        child = os.fork()
        if child == 0:
            os._exit(0 if eventually(lambda: found(feed)) else 1)
    place.put(2, listed())
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# from an address


def test_a_list_comes_from_an_address_too(make: Make) -> None:
    with DocumentServer(REVOCATION_LIST) as server:
        server.documents["/list"] = revocation_list(SIGNER, 1, listed()) + b"\n"
        feed = make(path=None, url=server.url())
        feed.start()
        assert found(feed)
        server.behave = lambda handler: handler.send_error(503)
        feed.look()
        assert problem(feed) == "list.unreachable"
        assert found(feed)


def test_the_type_of_a_plain_file_server_does(make: Make) -> None:
    with DocumentServer("application/octet-stream") as server:
        server.documents["/list"] = revocation_list(SIGNER, 1, listed())
        feed = make(path=None, url=server.url())
        feed.start()
        assert found(feed)


# joined with the store


def store_with(*subjects: str) -> MemoryStore:
    store = MemoryStore()
    now = time.time()
    store.add(
        new_revocation(Scope.SUBJECT, issuer=ISSUER, value=name, reason="x", owner="y", source="cli", now=now)
        for name in subjects
    )
    return store


def test_what_the_store_or_a_list_names_is_revoked(place: Place, make: Make) -> None:
    place.put(1, listed(value="bob"))
    joined = JoinedStore(store_with("alice"), [make()])
    joined.start()
    now = time.time()
    reading = joined.reading(now)
    assert reading.trouble is None
    assert reading.index is not None
    names = ("alice", "bob", "carol")
    assert [reading.index.find(principal(name), now) is not None for name in names] == [True, True, False]
    assert sorted(entry.value or "" for entry in joined.entries()) == ["alice", "bob"]
    assert sorted(entry.value or "" for entry in reading.index.entries.values()) == ["alice", "bob"]
    assert len(reading.index) == 2
    joined.close()


def test_a_list_in_trouble_is_trouble_and_hides_nothing(place: Place, make: Make) -> None:
    place.put(1, listed(value="bob"))
    joined = JoinedStore(store_with("alice"), [make(max_age=100.0)])
    joined.start()
    later = time.time() + 200
    reading = joined.reading(later)
    assert reading.trouble is Trouble.LAG
    assert reading.index is not None
    assert reading.index.find(principal("alice"), later) is not None
    assert reading.index.find(principal("bob"), later) is not None
    assert joined.lag(later) == pytest.approx(200, abs=5)
    joined.close()


def test_a_list_that_was_never_read_leaves_the_store_readable_and_in_trouble(make: Make) -> None:
    joined = JoinedStore(store_with("alice"), [make()])
    now = time.time()
    reading = joined.reading(now)
    assert reading.trouble is Trouble.NOT_STARTED
    assert reading.as_of is None
    assert reading.index is not None
    assert reading.index.find(principal("alice"), now) is not None
    assert joined.lag(now) is None


def test_the_epoch_changes_with_the_store_and_with_the_list(place: Place, make: Make) -> None:
    place.put(1)
    feed = make()
    joined = JoinedStore(store_with(), [feed])
    joined.start()
    now = time.time()
    epochs = [joined.reading(now).epoch]
    joined.add(store_with("alice").entries())
    epochs.append(joined.reading(now).epoch)
    place.put(2, listed(value="bob"))
    feed.look()
    reading = joined.reading(now)
    epochs.append(reading.epoch)
    assert len(set(epochs)) == 3
    assert joined.reading(now).epoch == epochs[-1]
    assert reading.index is not None
    assert reading.index.find(principal("bob"), now) is not None


def test_what_a_list_names_cannot_be_withdrawn_here(place: Place, make: Make) -> None:
    place.put(1, listed())
    joined = JoinedStore(store_with("bob"), [make()])
    joined.start()
    assert joined.withdraw([entry.id for entry in joined.entries()]) == 1
    assert [entry.value for entry in joined.entries()] == ["alice"]


def test_a_list_signed_as_anything_but_json_is_refused(place: Place, make: Make) -> None:
    header = base64url({"typ": "authz-revocations+jwt", "alg": "EdDSA", "kid": "soc"})
    place.path.write_text(SIGNER.sign(header, base64url(b'{"serial":1,"serial":2}')))
    feed = make()
    feed.start()
    assert problem(feed) == "document.malformed"
