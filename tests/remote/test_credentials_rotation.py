"""Credentials that change under load: through the whole client, against servers that accept only what is current."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest
from blockbuster import BlockingError, blockbuster_ctx

from authz_middleware.errors import SettingsError
from authz_middleware.remote.credentials import client_credentials as client_credentials_grant
from authz_middleware.remote.decision_point import DecisionPoint
from authz_middleware.remote.failure import FailureKind, RemoteAnswer, RemoteFailure
from authz_middleware.remote.query import RemoteQuery
from authz_middleware.settings.remote.credential import ClientCredentials, CredentialSettings, StaticToken, TokenFile
from authz_middleware.settings.remote.decision_point import RemoteSettings
from authz_middleware.settings.remote.rotation import day_of
from authz_middleware.settings.secret import Secret
from tests.support.pdp import Exchange, ScriptedServer, answer, response
from tests.support.projected import Projected
from tests.support.token_endpoint import CLIENT_ID, ISSUER, ClientKey, TokenEndpoint
from tests.support.tokens import Issuer

pytestmark = pytest.mark.capability("C43")

SECONDS = 3.0
CANARY = "s3cret-canary-8d1f"
Reply = RemoteAnswer | RemoteFailure


class Point:
    """A decision point's side of it: who may ask at the moment, and with what everybody has asked."""

    def __init__(self, accepts: Callable[[str], bool] = lambda token: True) -> None:
        self.accepts = accepts
        self.shown: set[str] = set()
        self.refused = 0

    def __call__(self, exchange: Exchange) -> bool:
        scheme, _, token = (exchange.header("authorization") or "").partition(" ")
        self.shown.add(token)
        if scheme == "Bearer" and self.accepts(token):
            exchange.send(response())
        else:
            self.refused += 1
            exchange.send(response(b"{}", status="401 Unauthorized"))
        return True


def remote(url: str, credential: CredentialSettings | None, **changes: Any) -> RemoteSettings:
    return RemoteSettings(url=url, credential=credential, deadline=changes.pop("deadline", 5.0), **changes)


class Load:
    """Three threads and an event loop that ask one decision point all the time; every reply is kept."""

    def __init__(self, point: DecisionPoint) -> None:
        self.point = point
        self.replies: deque[Reply] = deque()
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(3)]
        self._threads.append(threading.Thread(target=asyncio.run, args=(self._ask_async(),)))

    def _query(self, number: int) -> RemoteQuery:
        return RemoteQuery((threading.get_ident(), number), b"{}", f"request-{number}")

    def _ask(self) -> None:
        number = 0
        while not self._stopping.is_set():
            number += 1
            self.replies.append(self.point.ask(self._query(number)))
            time.sleep(0.002)

    async def _ask_async(self) -> None:
        async def one(offset: int) -> None:
            number = offset
            while not self._stopping.is_set():
                number += 10
                self.replies.append(await self.point.ask_async(self._query(number)))
                await asyncio.sleep(0.002)

        await asyncio.gather(*(one(offset) for offset in range(3)))
        await self.point.aclose()

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(20)
        self.point.close()

    def failures(self) -> list[Reply]:
        return [reply for reply in self.replies if reply != RemoteAnswer(True)]


@pytest.fixture
def expensive_switches() -> Iterator[None]:
    """Threads take turns often, so that whatever is not guarded is met in the middle."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    yield
    sys.setswitchinterval(before)


@pytest.mark.parametrize("signed", [False, True], ids=["opaque", "JWT"])
def test_a_projected_token_that_is_replaced_under_load_loses_no_call(
    tmp_path: Path, expensive_switches: None, signed: bool
) -> None:
    issuer = Issuer()

    def token(number: int) -> str:
        return issuer.mint(jti=str(number)) if signed else f"token-{number}"

    # The current one, and the one before for as long as it takes others to notice: more than the client's one second.
    current = [token(0)]
    volume = Projected(tmp_path, current[0])
    served = Point(lambda shown: shown in current[-2:])
    with ScriptedServer(served) as server, Load(DecisionPoint(remote(server.url, TokenFile(volume.token)))) as load:
        ends = time.monotonic() + SECONDS
        while time.monotonic() < ends:
            time.sleep(0.2)
            replaced = [*current, token(len(current))]
            current[:] = replaced
            volume.project(replaced[-1])
            noticing = time.monotonic() + 15
            while replaced[-1] not in served.shown:
                assert time.monotonic() < noticing, "a new token was not noticed"
                time.sleep(0.01)
    assert load.failures() == []
    assert len(load.replies) > 100
    assert len(current) > 2
    assert served.shown == set(current)


def test_a_token_that_is_removed_and_written_in_place_under_load_loses_no_call(tmp_path: Path) -> None:
    """By somebody who does not know how to do it: the file is gone, empty and half there in between."""
    path = tmp_path / "token"
    path.write_text("token-0")
    served = Point(lambda shown: shown.startswith("token-") and len(shown) >= 7)
    with ScriptedServer(served) as server, Load(DecisionPoint(remote(server.url, TokenFile(path)))) as load:
        while not served.shown:
            time.sleep(0.01)
        for number in range(1, 4):
            path.unlink()
            time.sleep(0.4)
            path.write_text("")
            time.sleep(0.3)
            with path.open("w") as file:
                file.write("token-")
                file.flush()
                file.write(str(number))
            noticing = time.monotonic() + 15
            while f"token-{number}" not in served.shown:
                assert time.monotonic() < noticing, "a new token was not noticed"
                time.sleep(0.01)
    assert load.failures() == []


def client_credentials(endpoint: TokenEndpoint, key: Path, **changes: Any) -> ClientCredentials:
    return ClientCredentials(endpoint.url, ISSUER, CLIENT_ID, Secret(file=key), **changes)


def test_keys_and_tokens_that_are_replaced_under_load_lose_no_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expensive_switches: None
) -> None:
    """Short-lived tokens, a client key that changes, and an authorization server that is away in between."""
    monkeypatch.setattr(client_credentials_grant, "RENEWED_AFTER", (0.2, 0.3))  # often, and long before the end
    keys = [ClientKey("key-0")]
    path = keys[0].write(tmp_path / "key", jwk=True)
    with TokenEndpoint(keys[0], lifetime=3) as endpoint:
        valid: dict[str, float] = {}

        def accepts(token: str) -> bool:
            # A token counts for its lifetime from when it was given, and not a moment longer.
            if token in endpoint.tokens and token not in valid:
                valid[token] = time.monotonic() + endpoint.lifetime
            return time.monotonic() < valid.get(token, 0.0)

        served = Point(accepts)
        with ScriptedServer(served) as server:
            point = DecisionPoint(remote(server.url, client_credentials(endpoint, path)))
            with Load(point) as load:
                ends = time.monotonic() + SECONDS
                while time.monotonic() < ends:
                    time.sleep(0.5)
                    key = ClientKey(f"key-{len(keys)}")
                    keys.append(key)
                    endpoint.keys = keys[-2:]
                    key.write(tmp_path / "new", jwk=True).rename(path)
                    endpoint.behave = lambda handler: handler.send_error(503)
                    time.sleep(0.1)
                    endpoint.behave = None
    assert load.failures() == []
    assert len(endpoint.tokens) > 2
    assert len({header["kid"] for header, _ in endpoint.assertions}) > 1
    assert served.shown == set(endpoint.tokens[: len(served.shown)])


def test_a_token_that_the_decision_point_no_longer_accepts_is_replaced(tmp_path: Path) -> None:
    """The authorization server has changed its keys: what it gave out before is worth nothing from now on."""
    key = ClientKey()
    with TokenEndpoint(key, lifetime=3600) as endpoint:
        served = Point(lambda token: token == endpoint.tokens[-1] and len(endpoint.tokens) != 1)
        with ScriptedServer(served) as server:
            point = DecisionPoint(remote(server.url, client_credentials(endpoint, key.write(tmp_path / "key"))))
            told = point.ask(RemoteQuery(("first",), b"{}"))
            assert isinstance(told, RemoteFailure)
            assert told.kind is FailureKind.STATUS_4XX
            ends = time.monotonic() + 10
            while point.ask(RemoteQuery(("next",), b"{}")) != RemoteAnswer(True):
                assert time.monotonic() < ends
                time.sleep(0.01)
            point.close()
        assert len(endpoint.tokens) == 2


# the event loop


def kinds(tmp_path: Path, endpoint: TokenEndpoint) -> dict[str, CredentialSettings]:
    (tmp_path / "token").write_text("token")
    day = day_of(time.time() + 86_400)
    return {
        "token file": TokenFile(tmp_path / "token"),
        "static file": StaticToken(Secret(file=tmp_path / "token"), "sre", day),
        "static environment": StaticToken(Secret(env="PDP_TOKEN"), "sre", day),
        "client credentials": client_credentials(endpoint, ClientKey().write(tmp_path / "key")),
    }


@pytest.mark.promise("P9")
@pytest.mark.parametrize("kind", ["token file", "static file", "static environment", "client credentials"])
def test_no_credential_blocks_an_event_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setenv("PDP_TOKEN", "token")

    async def ask(point: DecisionPoint) -> list[Reply]:
        told = []
        with blockbuster_ctx(["authz_middleware"]):
            for number in range(4):
                told.append(await point.ask_async(RemoteQuery((number,), b"{}")))
                await asyncio.sleep(0.5)  # so that the second it is good for goes by
            await point.aclose()
        return told

    with TokenEndpoint(lifetime=1) as endpoint, ScriptedServer(Point()) as server:
        endpoint._error = lambda form: None  # type: ignore[method-assign]  # it is not about who asks
        point = DecisionPoint(remote(server.url, kinds(tmp_path, endpoint)[kind]))
        assert asyncio.run(ask(point)) == [RemoteAnswer(True)] * 4


async def test_the_watch_over_the_event_loop_sees_a_secret_being_read(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("token")
    with blockbuster_ctx(["authz_middleware"]), pytest.raises(BlockingError):
        Secret(file=tmp_path / "token").reveal()


# what is secret


def test_the_credential_goes_to_the_decision_point_and_to_nobody_else(tmp_path: Path) -> None:
    key = ClientKey()
    with TokenEndpoint(key) as endpoint, ScriptedServer(answer()) as elsewhere:
        where = f"Location: {elsewhere.url}/access/v1/evaluation\r\nContent-Type: application/json\r\n"
        with ScriptedServer(answer(b"{}", status="307 Temporary Redirect", headers=where)) as server:
            point = DecisionPoint(remote(server.url, client_credentials(endpoint, key.write(tmp_path / "key"))))
            told = point.ask(RemoteQuery(("k",), b"{}"))
            point.close()
        assert isinstance(told, RemoteFailure)
        assert told.kind is FailureKind.REDIRECT
        assert not elsewhere.requests
        (asked,) = server.requests
        assert asked.header("authorization") == f"Bearer {endpoint.tokens[0]}"
        assert "client_assertion" not in (asked.head + asked.body).decode()
        assert not any("authorization" in map(str.lower, headers) for headers in endpoint.headers)


def everything(thing: object, depth: int = 5) -> str:
    """What `repr` says of a thing and of all that hangs on it, as an error page would show it."""
    if depth == 0 or isinstance(thing, str | bytes):
        return "" if isinstance(thing, str | bytes) else repr(thing)
    slots = [getattr(thing, name, None) for name in getattr(type(thing), "__slots__", ()) if name != "header"]
    held = [*getattr(thing, "__dict__", {}).values(), *slots]
    if isinstance(thing, dict):
        held += thing.values()
    return repr(thing) + "".join(everything(one, depth - 1) for one in held if type(one).__module__ != "threading")


@pytest.mark.promise("P6")
@pytest.mark.parametrize("broken", [False, True], ids=["works", "fails"])
@pytest.mark.parametrize("kind", ["token file", "static", "client credentials"])
def test_no_repr_log_or_failure_shows_a_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, kind: str, broken: bool
) -> None:
    caplog.set_level(logging.DEBUG)
    secret = f"{CANARY} {CANARY}" if broken else CANARY
    monkeypatch.setenv("PDP_TOKEN", secret)
    (tmp_path / "token").write_text(secret)
    key = ClientKey()
    key_text = f"-----BEGIN PRIVATE KEY-----\n{CANARY}\n-----END PRIVATE KEY-----\n" if broken else key.pem().decode()
    (tmp_path / "key").write_text(key_text)
    with TokenEndpoint(key) as endpoint, ScriptedServer(Point()) as server:
        endpoint.change = lambda granted: {**granted, "access_token": secret}
        credential: CredentialSettings = {
            "token file": TokenFile(tmp_path / "token"),
            "static": StaticToken(Secret(env="PDP_TOKEN"), "sre", day_of(time.time() + 86_400)),
            "client credentials": client_credentials(endpoint, tmp_path / "key"),
        }[kind]
        chosen = remote(server.url, credential)
        point = DecisionPoint(chosen)
        told = [point.ask(RemoteQuery(("k",), b"{}")), asyncio.run(point.ask_async(RemoteQuery(("l",), b"{}")))]
        shown = everything(point) + repr(chosen) + repr(told) + str(told) + caplog.text
        point.close()
        assert all(isinstance(reply, RemoteFailure) is broken for reply in told)
        assert (CANARY in "".join(exchange.head.decode() for exchange in server.requests)) is not broken
    body = "".join(key.pem().decode().splitlines()[1:-1])
    assert not [line for line in (CANARY, body[20:60], *endpoint.tokens) if line in shown]


def test_a_secret_whose_day_has_passed_stops_the_start_without_being_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PDP_TOKEN", CANARY)
    passed = StaticToken(Secret(env="PDP_TOKEN"), "sre@example.com", day_of(time.time() - 86_400))
    with pytest.raises(SettingsError, match=r"sre@example\.com has to replace") as stopped:
        DecisionPoint(remote("http://127.0.0.1:1", passed))
    assert CANARY not in str(stopped.value)
