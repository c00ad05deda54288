"""Keys come and go beside the requests: rotation, outages, storms of unknown key ids, forks."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import msgspec
import pytest

from authz_middleware.address import parse_address
from authz_middleware.decision import Reason
from authz_middleware.errors import SettingsError
from authz_middleware.identity.authenticator import Authenticator
from authz_middleware.identity.keys.download import MAX_DOCUMENT
from authz_middleware.identity.keys.jwk import KeySetError
from authz_middleware.identity.keys.key_set import FileKeys, RefreshTimes, RemoteKeys
from authz_middleware.identity.keys.sources import key_set_of
from authz_middleware.identity.principal import Principal
from authz_middleware.settings.issuers import IssuerSettings
from tests.support.authorization_server import AuthorizationServer
from tests.support.pdp import certificate
from tests.support.tokens import AUDIENCE, Issuer, KeyServer, bearer

OLD = Issuer(kid="old")
NEW = Issuer(kid="new")
FAST = RefreshTimes(interval=0.05, poll=0.02, cooldown=0.0, retry=0.02, deadline=0.5)
SLOW = RefreshTimes(interval=600, poll=600, cooldown=600, retry=600, deadline=0.5)


@pytest.fixture
def server() -> Iterator[KeyServer]:
    with KeyServer(OLD.jwks()) as running:
        yield running


@pytest.fixture
def closing() -> Iterator[Callable[[Any], Any]]:
    opened: list[Any] = []

    def remember(thing: Any) -> Any:
        opened.append(thing)
        return thing

    yield remember
    for thing in opened:
        thing.close()


def settings_for(**source: Any) -> IssuerSettings:
    return IssuerSettings(OLD.url, (AUDIENCE,), ("ES256",), **source)


def outcome_of(authenticator: Authenticator, token: str) -> str:
    result = authenticator.authenticate(bearer(token), time.time())
    if isinstance(result, Principal):
        return result.subject
    expected = Reason.KEYS_UNAVAILABLE if result.detail == "keys.unavailable" else Reason.CREDENTIAL_INVALID
    assert result.reason is expected
    return result.detail


def becomes(expected: str, authenticator: Authenticator, token: str, seconds: float = 5.0) -> bool:
    """Whether the outcome is as expected before long."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        if outcome_of(authenticator, token) == expected:
            return True
        time.sleep(0.01)
    return False


Closing = Callable[[Any], Any]


# from an address


def test_keys_are_loaded_before_the_first_request(server: KeyServer, closing: Closing) -> None:
    authenticator = closing(Authenticator([settings_for(jwks_uri=server.url)], times=SLOW))
    authenticator.start()
    assert server.fetches == 1
    assert outcome_of(authenticator, OLD.mint()) == "alice"


def test_starting_leaves_no_thread_behind_that_a_fork_would_lose(server: KeyServer, closing: Closing) -> None:
    authenticator = closing(Authenticator([settings_for(jwks_uri=server.url)], times=SLOW))
    authenticator.start()
    assert not [thread for thread in threading.enumerate() if thread.name == "authz-keys"]


def test_without_keys_it_cannot_be_decided(server: KeyServer, closing: Closing) -> None:
    server.behave = lambda handler: handler.send_error(500)
    authenticator = closing(Authenticator([settings_for(jwks_uri=server.url)], times=SLOW))
    authenticator.start()
    assert outcome_of(authenticator, OLD.mint()) == "keys.unavailable"


def test_an_issuer_that_was_down_at_start_is_found_later(server: KeyServer, closing: Closing) -> None:
    server.behave = lambda handler: handler.send_error(500)
    authenticator = closing(Authenticator([settings_for(jwks_uri=server.url)], times=FAST))
    authenticator.start()
    token = OLD.mint()
    assert outcome_of(authenticator, token) == "keys.unavailable"
    server.behave = None
    assert becomes("alice", authenticator, token)


def test_requests_for_missing_keys_shorten_the_wait_for_the_next_look(server: KeyServer, closing: Closing) -> None:
    server.behave = lambda handler: handler.send_error(500)
    times = msgspec.structs.replace(SLOW, cooldown=0.0)
    authenticator = closing(Authenticator([settings_for(jwks_uri=server.url)], times=times))
    authenticator.start()
    server.behave = None
    assert becomes("alice", authenticator, OLD.mint())


def test_asking_again_before_the_look_has_begun_is_not_granted(server: KeyServer, closing: Closing) -> None:
    keys = closing(RemoteKeys(server.url, ("ES256",), name=OLD.url, times=SLOW))
    keys.ask()
    assert keys._wanted.is_set()
    keys._wanted.clear()
    keys.ask()
    assert not keys._wanted.is_set()


def test_closed_keys_are_looked_after_no_more(server: KeyServer) -> None:
    keys = RemoteKeys(server.url, ("ES256",), name=OLD.url, times=SLOW)
    keys.close()
    keys.look_after()
    assert keys._worker is None


def test_keys_are_found_even_when_nobody_called_start(server: KeyServer, closing: Closing) -> None:
    authenticator = closing(Authenticator([settings_for(jwks_uri=server.url)], times=SLOW))
    assert becomes("alice", authenticator, OLD.mint())


def test_an_unknown_key_is_refused_at_once_and_known_soon(server: KeyServer, closing: Closing) -> None:
    times = msgspec.structs.replace(SLOW, cooldown=0.0)
    authenticator = closing(Authenticator([settings_for(jwks_uri=server.url)], times=times))
    authenticator.start()
    server.document = OLD.jwks(NEW)
    token = NEW.mint()
    assert outcome_of(authenticator, token) == "token.key_unknown"
    assert becomes("alice", authenticator, token)
    assert outcome_of(authenticator, OLD.mint()) == "alice"


def test_a_removed_key_ends_the_tokens_it_had_verified(server: KeyServer, closing: Closing) -> None:
    authenticator = closing(Authenticator([settings_for(jwks_uri=server.url)], times=FAST))
    authenticator.start()
    token = OLD.mint()
    assert outcome_of(authenticator, token) == "alice"
    server.document = NEW.jwks()
    assert becomes("token.key_unknown", authenticator, token)


def test_a_key_replaced_under_its_old_name_ends_the_tokens_it_had_verified(server: KeyServer, closing: Closing) -> None:
    authenticator = closing(Authenticator([settings_for(jwks_uri=server.url)], times=FAST))
    authenticator.start()
    token = OLD.mint()
    assert outcome_of(authenticator, token) == "alice"
    server.document = Issuer(kid=OLD.kid).jwks()
    assert becomes("token.signature", authenticator, token)


def test_a_storm_of_unknown_key_ids_costs_one_fetch_a_cooldown(server: KeyServer, closing: Closing) -> None:
    seconds = [1_000.0]
    times = msgspec.structs.replace(SLOW, cooldown=10.0)
    authenticator = closing(Authenticator([settings_for(jwks_uri=server.url)], times=times, clock=lambda: seconds[0]))
    authenticator.start()
    storm = [Issuer(kid=f"made-up-{i}", key=NEW.key).mint() for i in range(20)]
    for _ in range(3):
        seconds[0] += 10.5
        before = server.fetches
        threads = [
            threading.Thread(target=lambda: [outcome_of(authenticator, token) for token in storm]) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        settled = time.monotonic() + 2
        while server.fetches == before and time.monotonic() < settled:
            time.sleep(0.01)
        time.sleep(0.05)
        assert server.fetches == before + 1


@pytest.mark.capability("C47")
def test_one_and_the_same_unknown_key_id_causes_few_looks(server: KeyServer, closing: Closing) -> None:
    """A client that goes on showing an outdated token costs less than the cooldown alone would let it."""
    seconds = [1_000.0]
    times = msgspec.structs.replace(SLOW, cooldown=10.0, missing=60.0)
    keys = closing(RemoteKeys(server.url, ("ES256",), name=OLD.url, times=times, clock=lambda: seconds[0]))

    def granted(kid: str | None) -> bool:
        keys._wanted.clear()
        keys.ask(kid)
        return bool(keys._wanted.is_set())

    assert granted("outdated")
    seconds[0] += 11
    assert not granted("outdated")
    assert granted("new")
    seconds[0] += 11
    assert granted(None)
    seconds[0] += 39
    assert granted("outdated")
    seconds[0] -= 1_000
    assert granted("outdated")


def test_what_is_kept_of_unknown_key_ids_does_not_grow(server: KeyServer, closing: Closing) -> None:
    seconds = [1_000.0]
    times = msgspec.structs.replace(SLOW, cooldown=10.0, missing=60.0)
    keys = closing(RemoteKeys(server.url, ("ES256",), name=OLD.url, times=times, clock=lambda: seconds[0]))
    for number in range(2_000):
        seconds[0] += 1
        keys.ask(f"made-up-{number}")
    assert len(keys._sought) <= 6


def test_looking_while_a_look_is_under_way_asks_nobody_twice(server: KeyServer, closing: Closing) -> None:
    times = msgspec.structs.replace(SLOW, cooldown=0.0, deadline=5.0)
    keys = closing(RemoteKeys(server.url, ("ES256",), name=OLD.url, times=times))
    arrived, release = threading.Event(), threading.Event()
    server.behave = lambda handler: (arrived.set(), release.wait(5), server.serve(handler))  # type: ignore[func-returns-value]
    keys.look_after()
    keys.ask()
    assert arrived.wait(5)
    for number in range(100):
        keys.ask(f"made-up-{number}")
        keys.look_after()
    assert server.fetches == 1
    release.set()
    ends = time.monotonic() + 5
    while server.fetches < 2 and time.monotonic() < ends:
        time.sleep(0.01)
    time.sleep(0.1)
    assert server.fetches == 2


def test_a_clock_that_was_set_back_does_not_silence_the_asking(server: KeyServer, closing: Closing) -> None:
    seconds = [100_000.0]
    authenticator = closing(Authenticator([settings_for(jwks_uri=server.url)], times=SLOW, clock=lambda: seconds[0]))
    authenticator.start()
    seconds[0] = 50_000.0
    server.document = OLD.jwks(NEW)
    assert becomes("alice", authenticator, NEW.mint())


def test_a_slow_key_server_delays_no_request(server: KeyServer, closing: Closing) -> None:
    times = msgspec.structs.replace(SLOW, cooldown=0.0, deadline=5.0)
    authenticator = closing(Authenticator([settings_for(jwks_uri=server.url)], times=times))
    authenticator.start()
    release = threading.Event()
    server.behave = lambda handler: release.wait(5)
    known, unknown = OLD.mint(), NEW.mint()
    outcome_of(authenticator, unknown)
    while server.fetches < 2:
        time.sleep(0.01)
    started = time.perf_counter()
    for _ in range(20):
        assert outcome_of(authenticator, unknown) == "token.key_unknown"
        assert outcome_of(authenticator, known) == "alice"
    assert time.perf_counter() - started < 0.5
    release.set()


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"keys": []},
        {"keys": [OLD.jwk(), NEW.jwk(kid="old")]},
        {"keys": [{"kty": "oct", "k": "AAAA"}]},
        {"keys": [OLD.jwk(), *({"kty": "EC", "kid": str(number)} for number in range(64))]},
        {"keys": [OLD.jwk()], "padding": "x" * MAX_DOCUMENT},
        {"keys": [OLD.jwk()], "nothing": float("nan")},
        {"keys": [OLD.jwk()], "depth": json.loads("[" * 40 + "]" * 40)},
    ],
    ids=["no keys", "empty", "ambiguous", "symmetric", "65 keys", "more than 512 KiB", "NaN", "deep"],
)
def test_a_bad_key_set_leaves_the_last_good_one_in_force(
    server: KeyServer, closing: Closing, document: Any, caplog: pytest.LogCaptureFixture
) -> None:
    keys = closing(RemoteKeys(server.url, ("ES256",), name=OLD.url, times=SLOW))
    keys.load()
    good = keys.current
    server.document = document
    with caplog.at_level(logging.WARNING):
        keys.load()
        keys.load()
    assert keys.current is good
    assert good is not None
    assert caplog.text.count("the last good one stays in force") == 1


def test_an_unchanged_key_set_keeps_what_was_verified_with_it(server: KeyServer, closing: Closing) -> None:
    keys = closing(RemoteKeys(server.url, ("ES256",), name=OLD.url, times=SLOW))
    keys.load()
    first = keys.current
    keys.load()
    assert keys.current is first


def test_the_last_good_set_does_not_serve_for_ever(server: KeyServer, closing: Closing) -> None:
    seconds = [1_000.0]
    times = msgspec.structs.replace(SLOW, max_age=100.0)
    keys = closing(RemoteKeys(server.url, ("ES256",), name=OLD.url, times=times, clock=lambda: seconds[0]))
    keys.load()
    server.behave = lambda handler: handler.send_error(500)
    seconds[0] += 100
    keys.load()
    assert keys.current is not None
    seconds[0] += 1
    keys.load()
    assert keys.current is None


def test_the_last_good_set_is_given_up_when_it_is_too_old_and_not_with_the_next_try(
    server: KeyServer, closing: Closing
) -> None:
    times = RefreshTimes(interval=600, retry=0.05, max_age=0.5, deadline=0.5)
    keys = closing(RemoteKeys(server.url, ("ES256",), name=OLD.url, times=times))
    keys.load()
    server.behave = lambda handler: handler.send_error(500)
    for _ in range(10):
        keys.load()  # each failure doubles the pause before the next try
    assert keys.current is not None
    keys.look_after()
    ends = time.monotonic() + 3
    while keys.current is not None and time.monotonic() < ends:
        time.sleep(0.01)
    assert keys.current is None


@pytest.mark.capability("C44")
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_key_server_sends_us_nowhere_else(server: KeyServer, closing: Closing, status: int) -> None:
    def behave(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Location", other.url)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    with KeyServer(NEW.jwks()) as other:
        server.behave = behave
        keys = closing(RemoteKeys(server.url, ("ES256",), name=OLD.url, times=SLOW))
        keys.load()
        assert keys.current is None
        assert (server.fetches, other.fetches) == (1, 0)


def test_keys_that_aged_while_nobody_asked_are_not_used(server: KeyServer, closing: Closing) -> None:
    seconds = [1_000.0]
    times = msgspec.structs.replace(SLOW, max_age=100.0)
    authenticator = closing(Authenticator([settings_for(jwks_uri=server.url)], times=times, clock=lambda: seconds[0]))
    authenticator.start()
    server.behave = lambda handler: handler.send_error(500)
    seconds[0] += 101
    assert outcome_of(authenticator, OLD.mint()) == "keys.unavailable"


def test_what_nobody_foresaw_does_not_end_the_refreshing(tmp_path: Path, closing: Closing) -> None:
    keys = closing(FileKeys(tmp_path / "jwks.json", ("ES256",), name=OLD.url, times=FAST))

    def fail() -> bytes:
        raise RuntimeError("secret text")

    keys._read = fail
    keys.look_after()
    time.sleep(0.1)
    del keys._read
    (tmp_path / "jwks.json").write_text(json.dumps(OLD.jwks()))
    ends = time.monotonic() + 5
    while keys.current is None and time.monotonic() < ends:
        time.sleep(0.01)
    assert keys.current is not None


# from a file


def test_a_key_file_is_read_again_when_it_changes(tmp_path: Path, closing: Closing) -> None:
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps(OLD.jwks()))
    authenticator = closing(Authenticator([settings_for(jwks_file=path)], times=FAST))
    authenticator.start()
    old, new = OLD.mint(), NEW.mint()
    assert outcome_of(authenticator, old) == "alice"
    path.write_text(json.dumps(NEW.jwks()))
    assert becomes("alice", authenticator, new)
    assert outcome_of(authenticator, old) == "token.key_unknown"


def test_a_broken_key_file_changes_nothing_and_complains_once(
    tmp_path: Path, closing: Closing, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps(OLD.jwks()))
    keys = closing(FileKeys(path, ("ES256",), name=OLD.url, times=SLOW))
    keys.load()
    good = keys.current
    with caplog.at_level(logging.WARNING):
        for text in ('{"keys": [', '{"keys": ['):
            path.write_text(text)
            keys.load()
    assert keys.current is good
    assert len(caplog.records) == 1
    caplog.clear()
    path.unlink()
    keys.load()
    assert keys.current is good
    assert "cannot be read (FileNotFoundError)" in caplog.text


def test_a_key_file_has_a_size_limit(tmp_path: Path, closing: Closing, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps(OLD.jwks()) + " " * 512 * 1024)
    keys = closing(FileKeys(path, ("ES256",), name=OLD.url, times=SLOW))
    keys.load()
    assert keys.current is None
    assert "more than 524288 bytes" in caplog.text


def test_a_secret_in_a_file_verifies_hmac_tokens(tmp_path: Path, closing: Closing) -> None:
    issuer = Issuer(alg="HS256")
    path = tmp_path / "secret.json"
    path.write_text(json.dumps(issuer.jwks()))
    settings = msgspec.structs.replace(settings_for(jwks_file=path), algorithms=("HS256",))
    authenticator = closing(Authenticator([settings], times=SLOW))
    authenticator.start()
    assert outcome_of(authenticator, issuer.mint()) == "alice"


# in the settings


@pytest.mark.capability("C44")
def test_the_host_of_the_keys_is_on_the_list_of_hosts(server: KeyServer, closing: Closing) -> None:
    place = parse_address(server.url).place
    listed = closing(key_set_of(settings_for(jwks_uri=server.url, key_hosts=(place,))))
    unlisted = closing(key_set_of(settings_for(jwks_uri=server.url, key_hosts=(("keys.example", 443),))))
    unsaid = closing(key_set_of(settings_for(jwks_uri=server.url)))
    for keys in (listed, unlisted, unsaid):
        keys.load()
    assert listed.current is not None
    assert unlisted.current is None
    assert unsaid.current is not None
    assert server.fetches == 2


def test_the_authorities_of_a_file_vouch_for_the_key_server(tmp_path: Path, closing: Closing) -> None:
    trusted, context = certificate(tmp_path)
    with AuthorizationServer(tls=context) as served:
        settings = IssuerSettings(served.issuer, (AUDIENCE,), ("ES256",), jwks_uri=f"{served.origin}/jwks")
        believed = closing(key_set_of(msgspec.structs.replace(settings, ca_file=trusted)))
        believed.load()
        assert believed.current is not None
        doubted = closing(key_set_of(settings))
        doubted.load()
        assert doubted.current is None


def test_the_times_of_the_settings_count(server: KeyServer, closing: Closing) -> None:
    keys = closing(key_set_of(settings_for(jwks_uri=server.url, refresh=FAST)))
    keys.load()
    keys.look_after()
    server.document = NEW.jwks()
    ends = time.monotonic() + 5
    while time.monotonic() < ends and keys.current is not None and keys.current.keys[0].kid != "new":
        time.sleep(0.01)
    assert keys.current is not None
    assert keys.current.keys[0].kid == "new"


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ({}, "one of jwks_uri"),
        ({"jwks_uri": "https://issuer.example./jwks"}, "plain URL"),
        ({"jwks_uri": "https://issuer.example/jwks", "ca_file": Path("/nowhere.pem")}, "nowhere"),
        ({"discovery": "openid", "issuer": "urn:issuer"}, "plain URL"),
    ],
)
def test_a_key_source_that_cannot_be_used_is_told_at_the_start(source: dict[str, Any], why: str) -> None:
    with pytest.raises(KeySetError, match=why):
        key_set_of(msgspec.structs.replace(settings_for(), **source))


@pytest.mark.parametrize(
    ("source", "where"),
    [
        ({"jwks": {"keys": []}}, r"issuers\[0\]: has keys that cannot be used"),
        ({"jwks": Issuer(alg="HS256").jwks()}, "from a file"),
        ({}, r"issuers\[0\]: has keys that cannot be used"),
        ({"jwks": OLD.jwks(), "claim_overrides": {"tenant": "/a~"}}, "JSON pointer"),
    ],
)
def test_inline_keys_that_cannot_be_used_stop_the_start(source: dict[str, Any], where: str) -> None:
    with pytest.raises(SettingsError, match=where):
        Authenticator([settings_for(**source)])


# life and death


def test_closing_ends_the_background_thread(server: KeyServer) -> None:
    authenticator = Authenticator([settings_for(jwks_uri=server.url)], times=FAST)
    authenticator.start()
    outcome_of(authenticator, OLD.mint())
    assert [thread for thread in threading.enumerate() if thread.name == "authz-keys"]
    authenticator.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "authz-keys"]
    assert outcome_of(authenticator, OLD.mint()) == "alice"
    assert not [thread for thread in threading.enumerate() if thread.name == "authz-keys"]


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_refreshes_its_own_keys(tmp_path: Path, closing: Closing) -> None:
    """The parent forks while its locks are held and its thread runs; the child has neither, and follows a rotation."""
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps(OLD.jwks()))
    authenticator = closing(Authenticator([settings_for(jwks_file=path)], times=FAST))
    authenticator.start()
    assert outcome_of(authenticator, OLD.mint()) == "alice"
    keys = authenticator._issuers._signing[OLD.url].keys
    with authenticator._lock, keys._guard, keys._loading:
        child = os.fork()
        if child == 0:
            os._exit(_follow_rotation(authenticator, path))
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def _follow_rotation(authenticator: Authenticator, path: Path) -> int:
    """The child's part: 0 when the old token still holds, the new key is found, and then the old token no longer."""
    try:
        old, new = OLD.mint(), NEW.mint()
        if outcome_of(authenticator, old) != "alice":
            return 1
        path.write_text(json.dumps(NEW.jwks()))
        if not becomes("alice", authenticator, new):
            return 2
        return 0 if outcome_of(authenticator, old) == "token.key_unknown" else 3
    except BaseException:
        return 4
