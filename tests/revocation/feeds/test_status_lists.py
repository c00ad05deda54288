"""Status lists are held beside the requests: fetched once, refreshed, believed for a while, never guessed."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from authz_middleware.decision import Decision, Reason
from authz_middleware.identity.claims.status_reference import StatusReference
from authz_middleware.identity.keys.jwk import Keyring, read_jwks
from authz_middleware.identity.keys.key_set import InlineKeys, KeySet
from authz_middleware.revocation.feeds import status_lists
from authz_middleware.revocation.feeds.status_check import status_refusal
from authz_middleware.revocation.feeds.status_list import TokenStatus
from authz_middleware.revocation.feeds.status_lists import StatusLists, StatusTimes
from authz_middleware.revocation.feeds.status_token import StatusIssuer
from authz_middleware.settings.revocation_feeds import StatusListSettings
from authz_middleware.settings.revocations import OnUnavailable, UnavailableSettings
from tests.support.status_lists import REMOVED, DocumentServer, eventually, status_list_token
from tests.support.tokens import Issuer

pytestmark = pytest.mark.capability("C18")

ISSUER = Issuer()
VALID, INVALID, UNAVAILABLE = TokenStatus.VALID, TokenStatus.INVALID, TokenStatus.UNAVAILABLE
SLOW = StatusTimes(deadline=1.0, least=600.0, retry=600.0, idle=3600.0)
FAST = StatusTimes(deadline=1.0, least=0.02, retry=0.02, idle=3600.0)

Make = Callable[..., StatusLists]


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


class ChangingKeys(KeySet):
    """Keys that a test changes; it counts how often they were asked for."""

    def __init__(self, *issuers: Issuer) -> None:
        self.asked = 0
        self.hold(*issuers)

    def hold(self, *issuers: Issuer) -> None:
        jwks = {"keys": [issuer.jwk() for issuer in issuers]}
        self.current: Keyring | None = read_jwks(jwks, ("ES256",), secrets=False, name="test") if issuers else None

    def ask(self, kid: str | None = None) -> None:
        self.asked += 1


@pytest.fixture
def server() -> Iterator[DocumentServer]:
    with DocumentServer() as running:
        running.documents["/list"] = status_list_token(ISSUER, running.url())
        yield running


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make(server: DocumentServer, clock: Clock) -> Iterator[Make]:
    made: list[StatusLists] = []

    def lists(*, keys: KeySet | None = None, times: StatusTimes = SLOW, **settings: Any) -> StatusLists:
        chosen = StatusListSettings(ISSUER.url, hosts=(server.place,), uris=(server.url(),), refresh=600.0)
        chosen = msgspec.structs.replace(chosen, **settings)
        keys = keys or InlineKeys(ISSUER.jwks(), ("ES256",), name="test")
        made.append(StatusLists([StatusIssuer(chosen, ("ES256",), keys)], clock=clock, times=times))
        return made[-1]

    yield lists
    for each in made:
        each.close()


def status(lists: StatusLists, uri: str, index: int = 0, now: float | None = None) -> TokenStatus:
    return lists.status(ISSUER.url, uri, index, time.time() if now is None else now)


def problem_of(lists: StatusLists) -> str | None:
    (reading,) = lists.readings(time.time())
    return reading.problem


# what a list says


def test_each_token_has_the_status_at_its_index(server: DocumentServer, make: Make) -> None:
    server.documents["/list"] = status_list_token(ISSUER, server.url(), [0, 1, 2, 3, 0, 12, 15, 0], bits=4)
    lists = make()
    lists.start()
    expected = [VALID, INVALID, TokenStatus.SUSPENDED, *[TokenStatus.OTHER], VALID, *[TokenStatus.OTHER] * 2, VALID]
    assert [status(lists, server.url(), i) for i in range(8)] == expected


@pytest.mark.parametrize("index", [16, 17, 2**31, 2**63, 10**18])
def test_an_index_beyond_the_list_is_refused(server: DocumentServer, make: Make, index: int) -> None:
    server.documents["/list"] = status_list_token(ISSUER, server.url(), [0] * 16)
    lists = make()
    lists.start()
    assert status(lists, server.url(), 15) is VALID
    assert status(lists, server.url(), index) is TokenStatus.OUT_OF_RANGE


def test_a_list_is_fetched_once_for_many_decisions(server: DocumentServer, make: Make) -> None:
    lists = make()
    lists.start()
    assert {status(lists, server.url()) for _ in range(1000)} == {VALID}
    assert server.fetches == {"/list": 1}


# whose lists, and from where


def test_the_status_of_an_issuer_that_the_settings_do_not_have_is_refused(server: DocumentServer, make: Make) -> None:
    lists = make()
    lists.start()
    assert lists.status("https://other.example/", server.url(), 0, time.time()) is TokenStatus.NOT_CONFIGURED


def test_it_takes_a_written_reason_to_ignore_the_status_of_an_issuer(server: DocumentServer, make: Make) -> None:
    lists = make(ignore="they are not published yet; ticket 4711", hosts=(), uris=())
    lists.start()
    assert status(lists, server.url(), 1) is VALID
    assert server.fetches == {}


@pytest.mark.parametrize(
    "uri",
    [
        "http://127.0.0.1:1/list",
        "http://localhost:{port}/list",
        "http://user@127.0.0.1:{port}/list",
        "http://127.0.0.1:{port}@evil.example/list",
        "http://evil.example\\@127.0.0.1:{port}/list",
        "http://127.0.0.1:{port}#/list",
        "file:///etc/passwd",
        "//127.0.0.1:{port}/list",
        "list",
        " http://127.0.0.1:{port}/list",
    ],
)
def test_nothing_is_fetched_from_elsewhere(server: DocumentServer, make: Make, uri: str) -> None:
    lists = make(times=FAST, uris=())
    assert status(lists, uri.format(port=server.place[1])) is TokenStatus.NOT_ALLOWED
    time.sleep(0.05)
    assert server.fetches == {}
    assert lists.readings(time.time()) == ()


def test_a_redirect_is_not_followed(server: DocumentServer, make: Make) -> None:
    def redirect(handler: Any) -> None:
        if handler.path == "/list":
            handler.send_response(302)
            handler.send_header("Location", server.url("/elsewhere"))
            handler.end_headers()
        else:
            server.serve(handler)

    server.documents["/elsewhere"] = server.documents["/list"]
    server.behave = redirect
    lists = make()
    lists.start()
    assert status(lists, server.url()) is UNAVAILABLE
    assert server.fetches == {"/list": 1}


def test_a_list_of_another_issuer_does_not_count_for_this_one(server: DocumentServer, clock: Clock) -> None:
    other = Issuer("https://other.example/", kid="other")
    issuers = [
        StatusIssuer(
            StatusListSettings(each.url, hosts=(server.place,), uris=(server.url(),)),
            ("ES256",),
            InlineKeys(each.jwks(), ("ES256",), name="test"),
        )
        for each in (ISSUER, other)
    ]
    lists = StatusLists(issuers, clock=clock, times=SLOW)
    lists.start()
    assert lists.status(ISSUER.url, server.url(), 0, time.time()) is VALID
    assert lists.status(other.url, server.url(), 0, time.time()) is UNAVAILABLE
    lists.close()


# what is no list

BAD: list[tuple[dict[str, Any], str]] = [
    ({"sub": "https://status.example/other"}, "document.sub"),
    ({"sub": REMOVED}, "document.sub"),
    ({"iss": "https://other.example/"}, "document.iss"),
    ({"iat": REMOVED}, "document.iat"),
    ({"iat": "now"}, "document.iat"),
    ({"iat": int(time.time()) + 3600}, "document.not_yet_valid"),
    ({"nbf": int(time.time()) + 3600}, "document.not_yet_valid"),
    ({"exp": int(time.time()) - 1}, "document.expired"),
    ({"exp": None, "iat": int(time.time()) - 86_400 - 60}, "document.expired"),
    ({"iat": int(time.time()) - 86_400 - 60, "exp": int(time.time()) + 3600}, "document.expired"),
    ({"exp": "never"}, "document.exp"),
    ({"exp": True}, "document.exp"),
    ({"ttl": 0}, "status_list.ttl"),
    ({"ttl": -1}, "status_list.ttl"),
    ({"ttl": True}, "status_list.ttl"),
    ({"ttl": "60"}, "status_list.ttl"),
    ({"status_list": REMOVED}, "status_list.form"),
    ({"status_list": {"bits": 3, "lst": "eNpjYAAAAAIAAQ"}}, "status_list.form"),
    ({"status_list": {"bits": 1, "lst": "eNpj"}}, "status_list.encoding"),
    ({"header": {"typ": "JWT"}}, "document.type"),
    ({"header": {"typ": "at+jwt"}}, "document.type"),
    ({"header": {"typ": REMOVED}}, "document.type"),
    ({"header": {"alg": "none"}}, "document.algorithm"),
]


@pytest.mark.parametrize(("changes", "code"), BAD)
def test_a_list_that_is_not_wholly_right_is_not_believed(
    server: DocumentServer, make: Make, changes: dict[str, Any], code: str
) -> None:
    server.documents["/list"] = status_list_token(ISSUER, server.url(), **changes)
    lists = make()
    lists.start()
    assert problem_of(lists) == code
    assert status(lists, server.url()) is UNAVAILABLE


def test_a_list_of_its_own_issuer_may_say_so(server: DocumentServer, make: Make) -> None:
    server.documents["/list"] = status_list_token(ISSUER, server.url(), iss=ISSUER.url)
    lists = make()
    lists.start()
    assert status(lists, server.url()) is VALID


def test_a_list_that_somebody_else_signed_is_not_believed(server: DocumentServer, make: Make) -> None:
    server.documents["/list"] = status_list_token(Issuer(kid=ISSUER.kid), server.url())
    lists = make()
    lists.start()
    assert problem_of(lists) == "document.signature"


@pytest.mark.parametrize("content_type", ["application/json", "text/html", "application/statuslist+cwt", ""])
def test_a_list_comes_as_what_it_is(server: DocumentServer, make: Make, content_type: str) -> None:
    server.content_type = content_type
    lists = make()
    lists.start()
    assert problem_of(lists) == "status_list.unreachable"


def test_a_list_may_end_in_a_line_break(server: DocumentServer, make: Make) -> None:
    server.documents["/list"] += b"\n"
    lists = make()
    lists.start()
    assert status(lists, server.url()) is VALID


def test_a_list_longer_than_the_bound_is_not_read_to_its_end(server: DocumentServer, make: Make) -> None:
    server.documents["/list"] = b"x" * (status_lists.MAX_DOCUMENT + 1)
    lists = make()
    lists.start()
    assert problem_of(lists) == "status_list.unreachable"


def test_all_lists_of_an_issuer_together_are_bounded(
    server: DocumentServer, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status_lists, "MAX_WEIGHT", 1000)
    for path, size in (("/a", 600), ("/b", 600), ("/c", 300)):
        server.documents[path] = status_list_token(ISSUER, server.url(path), [0] * size, bits=8)
    lists = make(uris=tuple(server.url(path) for path in ("/a", "/b", "/c")))
    lists.start()
    answers = {path: status(lists, server.url(path)) for path in ("/a", "/b", "/c")}
    assert answers == {"/a": VALID, "/b": UNAVAILABLE, "/c": VALID}


# at the first use, and off the path of the request


def test_at_first_nothing_is_known_and_before_long_it_is(server: DocumentServer, make: Make) -> None:
    lists = make(uris=())
    assert status(lists, server.url(), 1) is UNAVAILABLE
    assert eventually(lambda: status(lists, server.url(), 1) is INVALID)
    assert server.fetches == {"/list": 1}


def test_a_decision_never_waits_and_never_connects(
    server: DocumentServer, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()
    server.behave = lambda _: release.wait(5)
    lists = make(uris=())
    status(lists, server.url())
    assert eventually(lambda: server.fetches.get("/list") == 1)
    monkeypatch.setattr(socket, "socket", None)
    started = time.perf_counter()
    assert {status(lists, server.url()) for _ in range(1000)} == {UNAVAILABLE}
    assert time.perf_counter() - started < 0.5
    monkeypatch.undo()
    release.set()


def test_a_storm_of_requests_costs_one_fetch(server: DocumentServer, make: Make) -> None:
    server.behave = lambda handler: handler.send_error(500)
    lists = make(uris=())
    threads = [threading.Thread(target=lambda: [status(lists, server.url(), i) for i in range(200)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert eventually(lambda: problem_of(lists) is not None)
    time.sleep(0.05)
    assert server.fetches == {"/list": 1}


def test_a_failed_fetch_is_tried_again_by_itself(server: DocumentServer, make: Make) -> None:
    server.behave = lambda handler: handler.send_error(500)
    lists = make(times=FAST, uris=())
    assert status(lists, server.url()) is UNAVAILABLE
    assert eventually(lambda: server.fetches["/list"] >= 3)
    server.behave = None
    assert eventually(lambda: status(lists, server.url()) is VALID)


def test_tokens_cannot_name_more_lists_than_are_allowed(
    server: DocumentServer, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    lists = make(uris=(), max_lists=3)
    for i in range(10):
        assert status(lists, server.url(f"/{i}")) is UNAVAILABLE
    assert len(lists.readings(time.time())) == 3
    assert eventually(lambda: sum(server.fetches.values()) == 3)
    assert caplog.text.count("more status lists than max_lists = 3") == 1
    wanted = lists._issuers[ISSUER.url]._worker._wanted
    assert eventually(lambda: not wanted.is_set())
    status(lists, server.url("/11"))
    assert not wanted.is_set()


def test_a_list_that_no_token_names_any_more_makes_room(server: DocumentServer, make: Make, clock: Clock) -> None:
    lists = make(uris=(), max_lists=1, times=msgspec.structs.replace(FAST, idle=100.0), refresh=0.05)
    status(lists, server.url("/gone"))
    server.documents["/list"] = status_list_token(ISSUER, server.url())
    assert eventually(lambda: "/gone" in server.fetches)
    assert status(lists, server.url()) is UNAVAILABLE
    clock.ahead = 200.0
    assert eventually(lambda: lists.readings(clock()) == ())
    assert eventually(lambda: status(lists, server.url(), now=clock()) is VALID)


def test_a_list_that_the_settings_name_is_kept_though_no_token_names_it(
    server: DocumentServer, make: Make, clock: Clock
) -> None:
    lists = make(times=msgspec.structs.replace(FAST, idle=100.0), refresh=0.05)
    lists.start()
    status(lists, server.url())
    clock.ahead = 200.0
    assert eventually(lambda: server.fetches["/list"] > 5)
    assert len(lists.readings(clock())) == 1


# as time goes by


def test_a_token_is_revoked_as_soon_as_the_next_list_says_so(server: DocumentServer, make: Make) -> None:
    lists = make(times=FAST, refresh=0.05)
    lists.start()
    assert status(lists, server.url(), 0) is VALID
    server.documents["/list"] = status_list_token(ISSUER, server.url(), [1, 1])
    assert eventually(lambda: status(lists, server.url(), 0) is INVALID)


@pytest.mark.parametrize(("ttl", "again"), [(1, True), (500, False), (REMOVED, False)])
def test_the_list_says_how_soon_it_is_fetched_again(
    server: DocumentServer, make: Make, clock: Clock, ttl: Any, again: bool
) -> None:
    server.documents["/list"] = status_list_token(ISSUER, server.url(), ttl=ttl)
    lists = make(uris=(), times=FAST)
    status(lists, server.url())
    assert eventually(lambda: status(lists, server.url()) is VALID)
    clock.ahead = 10.0
    lists._issuers[ISSUER.url]._worker.wake()
    assert eventually(lambda: server.fetches["/list"] == 2, 0.3) is again


def test_the_settings_bound_how_late_a_list_is_fetched_again(server: DocumentServer, make: Make) -> None:
    server.documents["/list"] = status_list_token(ISSUER, server.url(), ttl=86_400)
    lists = make(times=FAST, refresh=0.05)
    lists.start()
    status(lists, server.url())
    assert eventually(lambda: server.fetches["/list"] >= 3)


def test_a_ttl_of_next_to_nothing_does_not_make_us_hammer_the_host(server: DocumentServer, make: Make) -> None:
    server.documents["/list"] = status_list_token(ISSUER, server.url(), ttl=0.000_001)
    lists = make()
    lists.start()
    status(lists, server.url())
    time.sleep(0.1)
    assert server.fetches == {"/list": 1}


def test_the_last_good_list_serves_for_a_while_and_no_longer(server: DocumentServer, make: Make, clock: Clock) -> None:
    lists = make(max_age=100.0)
    lists.start()
    server.behave = lambda handler: handler.send_error(500)
    assert status(lists, server.url(), now=clock() + 99) is VALID
    assert status(lists, server.url(), 1, now=clock() + 99) is INVALID
    assert status(lists, server.url(), now=clock() + 101) is UNAVAILABLE
    assert status(lists, server.url(), 1, now=clock() + 101) is UNAVAILABLE


def test_a_list_never_outlives_its_exp(server: DocumentServer, make: Make) -> None:
    now = int(time.time())
    server.documents["/list"] = status_list_token(ISSUER, server.url(), exp=now + 50)
    lists = make(max_age=1000.0)
    lists.start()
    assert status(lists, server.url(), now=now + 49) is VALID
    assert status(lists, server.url(), now=now + 50) is UNAVAILABLE


def test_a_list_without_exp_is_believed_for_max_lifetime(server: DocumentServer, make: Make) -> None:
    now = int(time.time())
    server.documents["/list"] = status_list_token(ISSUER, server.url(), now=now - 40, exp=REMOVED)
    lists = make(max_age=1000.0, max_lifetime=60.0)
    lists.start()
    assert status(lists, server.url(), now=now + 19) is VALID
    assert status(lists, server.url(), now=now + 21) is UNAVAILABLE


def test_a_clock_that_was_set_back_far_does_not_make_an_old_list_new(server: DocumentServer, make: Make) -> None:
    lists = make(max_age=100.0)
    lists.start()
    assert status(lists, server.url(), now=time.time() - 50) is VALID
    assert status(lists, server.url(), now=time.time() - 1000) is UNAVAILABLE


def test_a_clock_that_was_set_back_does_not_put_off_the_next_fetch(
    server: DocumentServer, make: Make, clock: Clock
) -> None:
    clock.ahead = 9.0
    lists = make()
    lists.start()
    clock.ahead = -3600.0
    status(lists, server.url())
    assert eventually(lambda: server.fetches["/list"] >= 2)


def test_an_older_list_does_not_take_back_what_a_newer_one_says(
    server: DocumentServer, make: Make, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    now = int(time.time())
    older = status_list_token(ISSUER, server.url(), [0, 0], now=now - 30)
    server.documents["/list"] = status_list_token(ISSUER, server.url(), [0, 1], now=now)
    lists = make(times=FAST, refresh=0.05)
    lists.start()
    assert status(lists, server.url(), 1) is INVALID
    server.documents["/list"] = older
    assert eventually(lambda: problem_of(lists) == "status_list.older")
    assert status(lists, server.url(), 1) is INVALID
    assert "status_list.older" in caplog.text


# keys


def test_a_list_signed_with_a_new_key_has_the_keys_fetched(server: DocumentServer, make: Make) -> None:
    new = Issuer(kid="new")
    keys = ChangingKeys(ISSUER)
    server.documents["/list"] = status_list_token(new, server.url())
    lists = make(keys=keys, times=FAST)
    lists.start()
    assert problem_of(lists) == "document.key_unknown"
    assert keys.asked == 1
    keys.hold(ISSUER, new)
    assert eventually(lambda: status(lists, server.url()) is VALID)


def test_without_keys_nothing_is_believed(server: DocumentServer, make: Make) -> None:
    keys = ChangingKeys()
    lists = make(keys=keys)
    lists.start()
    assert problem_of(lists) == "keys.unavailable"
    assert keys.asked == 1


def test_a_key_that_is_withdrawn_takes_its_list_with_it(server: DocumentServer, make: Make) -> None:
    keys = ChangingKeys(ISSUER)
    lists = make(keys=keys, times=FAST, refresh=0.05)
    lists.start()
    assert status(lists, server.url()) is VALID
    server.behave = lambda handler: handler.send_error(500)
    keys.hold(Issuer(kid=ISSUER.kid))
    assert eventually(lambda: status(lists, server.url()) is UNAVAILABLE)


def test_a_list_outlives_a_rotation_that_keeps_its_key(server: DocumentServer, make: Make) -> None:
    keys = ChangingKeys(ISSUER)
    lists = make(keys=keys, times=FAST, refresh=0.05)
    lists.start()
    status(lists, server.url())
    server.behave = lambda handler: handler.send_error(500)
    keys.hold(ISSUER, Issuer(kid="new"))
    fetches = server.fetches["/list"]
    assert eventually(lambda: server.fetches["/list"] >= fetches + 3)
    assert status(lists, server.url()) is VALID


# what it means for a decision


def refusal(lists: StatusLists, action: str, index: int = 0, ahead: float = 0.0, uri: str = "") -> Decision | None:
    chosen = UnavailableSettings(OnUnavailable("deny"), {"report:*": OnUnavailable("last_known", 500.0)})
    reference = StatusReference(uri or lists.readings(time.time())[0].name, index)
    return status_refusal(lists, chosen, ISSUER.url, reference, action, time.time() + ahead)


@pytest.mark.parametrize(
    ("index", "reason", "detail"),
    [
        (1, Reason.CREDENTIAL_REVOKED, "status.invalid"),
        (2, Reason.CREDENTIAL_REVOKED, "status.suspended"),
        (3, Reason.CREDENTIAL_REVOKED, "status.other"),
        (4, Reason.CREDENTIAL_INVALID, "status.out_of_range"),
    ],
)
def test_a_token_that_is_not_valid_is_refused(
    server: DocumentServer, make: Make, index: int, reason: Reason, detail: str
) -> None:
    server.documents["/list"] = status_list_token(ISSUER, server.url(), [0, 1, 2, 3], bits=2)
    lists = make()
    lists.start()
    assert refusal(lists, "invoice:read", 0) is None
    refused = refusal(lists, "invoice:read", index)
    assert refused is not None
    assert (refused.permit, refused.reason, refused.detail) == (False, reason, detail)


def test_a_token_whose_list_is_elsewhere_is_refused(server: DocumentServer, make: Make) -> None:
    refused = refusal(make(), "report:run", uri="https://elsewhere.example/1")
    assert refused is not None
    assert (refused.reason, refused.detail) == (Reason.CREDENTIAL_INVALID, "status.not_allowed")


def test_while_the_status_cannot_be_told_each_action_has_its_choice(server: DocumentServer, make: Make) -> None:
    lists = make(max_age=100.0)
    lists.start()
    denied = refusal(lists, "invoice:read", ahead=200)
    assert denied is not None
    assert (denied.reason, denied.detail) == (Reason.REVOCATIONS_UNAVAILABLE, "status.unavailable")
    assert refusal(lists, "report:run", ahead=200) is None
    revoked = refusal(lists, "report:run", 1, ahead=200)
    assert revoked is not None
    assert revoked.reason is Reason.CREDENTIAL_REVOKED
    too_old = refusal(lists, "report:run", ahead=501)
    assert too_old is not None
    assert too_old.reason is Reason.REVOCATIONS_UNAVAILABLE


def test_what_was_never_known_is_not_last_known(server: DocumentServer, make: Make) -> None:
    server.behave = lambda handler: handler.send_error(503)
    refused = refusal(make(), "report:run")
    assert refused is not None
    assert refused.reason is Reason.REVOCATIONS_UNAVAILABLE


# threads, forks, logs


def test_starting_leaves_no_thread_behind_that_a_fork_would_lose(server: DocumentServer, make: Make) -> None:
    make().start()
    assert not [thread for thread in threading.enumerate() if thread.name == "authz-status"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_refreshes_by_itself(server: DocumentServer, make: Make) -> None:
    lists = make(times=FAST, refresh=0.05)
    lists.start()
    status(lists, server.url())
    issuer_lists = lists._issuers[ISSUER.url]
    with issuer_lists._adding, issuer_lists._fetching:  # as another thread may hold them at that moment
        child = os.fork()
        if child == 0:
            newest = status_list_token(ISSUER, server.url(), [1, 1])
            os._exit(0 if newest and eventually(lambda: status(lists, server.url(), 0) is INVALID) else 1)
    server.documents["/list"] = status_list_token(ISSUER, server.url(), [1, 1])
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_closed_lists_are_fetched_no_more(server: DocumentServer, make: Make) -> None:
    lists = make(times=FAST, refresh=0.05)
    lists.start()
    status(lists, server.url())
    lists.close()
    fetches = server.fetches["/list"]
    assert status(lists, server.url()) is VALID
    time.sleep(0.1)
    assert server.fetches["/list"] == fetches


def test_an_outage_is_logged_once_a_minute(
    server: DocumentServer, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    server.behave = lambda handler: handler.send_error(500)
    lists = make(times=FAST, refresh=0.05)
    lists.start()
    status(lists, server.url())
    assert eventually(lambda: server.fetches["/list"] >= 4)
    assert caplog.text.count("its tokens cannot be decided") == 1
    assert caplog.records[-1].levelno == logging.ERROR


# how far behind (C48)


@pytest.mark.capability("C48")
def test_the_lag_of_a_list_grows_while_it_cannot_be_had(server: DocumentServer, make: Make, clock: Clock) -> None:
    lists = make(max_age=100.0)
    lists.start()
    (reading,) = lists.readings(clock())
    assert reading.name == server.url()
    assert reading.readable
    assert reading.lag is not None
    assert reading.lag < 5
    (later,) = lists.readings(clock() + 101)
    assert not later.readable
    assert later.lag is not None
    assert later.lag > 100


@pytest.mark.capability("C48")
def test_a_list_that_was_never_had_has_no_lag(server: DocumentServer, make: Make) -> None:
    server.documents.clear()
    lists = make()
    lists.start()
    (reading,) = lists.readings(time.time())
    assert (reading.readable, reading.lag, reading.problem) == (False, None, "status_list.unreachable")


@pytest.mark.capability("C48")
def test_a_health_check_alone_has_the_lists_fetched(server: DocumentServer, make: Make) -> None:
    """Before it is healthy, nobody may send it requests."""
    lists = make(times=FAST, refresh=0.05)
    assert eventually(lambda: all(reading.readable for reading in lists.readings(time.time())))
