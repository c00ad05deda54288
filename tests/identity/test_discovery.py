"""The issuer's metadata names where its keys are: for exactly this issuer, on an allowed host, and in strict JSON."""

from __future__ import annotations

import gzip
import json
import logging
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import msgspec
import pytest

from authz_middleware.address import parse_address
from authz_middleware.identity.keys.discovery import DiscoveredKeys, metadata_address
from authz_middleware.identity.keys.sources import key_set_of
from authz_middleware.settings.issuers import IssuerSettings
from authz_middleware.settings.key_sources import Discovery, RefreshTimes
from tests.support.authorization_server import AuthorizationServer, Behaviour, reply
from tests.support.pdp import certificate
from tests.support.tokens import AUDIENCE, Issuer

SLOW = RefreshTimes(interval=600, poll=600, cooldown=600, retry=600, deadline=0.5)
FAST = RefreshTimes(interval=0.05, cooldown=0.0, retry=0.02, deadline=0.5)
OPENID = "/.well-known/openid-configuration"


@pytest.fixture
def server() -> Iterator[AuthorizationServer]:
    with AuthorizationServer() as running:
        yield running


@pytest.fixture
def discover() -> Iterator[Callable[..., DiscoveredKeys]]:
    opened: list[DiscoveredKeys] = []

    def keys(server: AuthorizationServer, discovery: Discovery = "openid", **changes: Any) -> DiscoveredKeys:
        settings = IssuerSettings(server.issuer, (AUDIENCE,), ("ES256",), discovery=discovery, refresh=SLOW)
        found = key_set_of(msgspec.structs.replace(settings, **changes))
        assert isinstance(found, DiscoveredKeys)
        opened.append(found)
        return found

    yield keys
    for found in opened:
        found.close()


Discover = Callable[..., DiscoveredKeys]


@pytest.mark.parametrize(
    ("issuer", "openid", "oauth"),
    [
        (
            "https://idp.example",
            "https://idp.example/.well-known/openid-configuration",
            "https://idp.example/.well-known/oauth-authorization-server",
        ),
        (
            "https://idp.example/",
            "https://idp.example/.well-known/openid-configuration",
            "https://idp.example/.well-known/oauth-authorization-server",
        ),
        (
            "https://idp.example:8443/realms/one",
            "https://idp.example:8443/realms/one/.well-known/openid-configuration",
            "https://idp.example:8443/.well-known/oauth-authorization-server/realms/one",
        ),
        (
            "https://idp.example/realms/one/",
            "https://idp.example/realms/one/.well-known/openid-configuration",
            "https://idp.example/.well-known/oauth-authorization-server/realms/one",
        ),
    ],
)
def test_where_metadata_is_published(issuer: str, openid: str, oauth: str) -> None:
    assert metadata_address(issuer, "openid") == openid
    assert metadata_address(issuer, "oauth") == oauth


@pytest.mark.parametrize("path", ["", "/", "/realms/one", "/realms/one/"])
@pytest.mark.parametrize("discovery", ["openid", "oauth"])
def test_the_keys_are_where_the_metadata_says(path: str, discovery: Discovery, discover: Discover) -> None:
    with AuthorizationServer(path) as server:
        keys = discover(server, discovery)
        keys.load()
        assert keys.current is not None
        assert keys.current.select("key-1", "ES256")
        assert server.fetched == [metadata_address(server.issuer, discovery).removeprefix(server.origin), "/jwks"]


def metadata(**members: Any) -> Callable[[AuthorizationServer], Behaviour]:
    """Metadata with other members; those that are None are left out."""

    def prepare(server: AuthorizationServer) -> Behaviour:
        changed = {**server.metadata, **members}
        return lambda handler: reply(handler, {name: value for name, value in changed.items() if value is not None})

    return prepare


def text(template: str) -> Callable[[AuthorizationServer], Behaviour]:
    """Metadata as this very text, with the issuer and the address of the keys filled in."""

    def prepare(server: AuthorizationServer) -> Behaviour:
        filled = template.replace("ISSUER", json.dumps(server.issuer)).replace(
            "KEYS", json.dumps(f"{server.origin}/jwks")
        )
        return lambda handler: reply(handler, filled.encode("latin-1"))

    return prepare


def good(**options: Any) -> Callable[[AuthorizationServer], Behaviour]:
    """Good metadata, answered otherwise than it should be."""
    return lambda server: lambda handler: reply(handler, server.metadata, **options)


def drip(_: AuthorizationServer) -> Behaviour:
    def behave(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{")
        for _ in range(150):
            handler.wfile.write(b" ")
            time.sleep(0.02)

    return behave


def cut(server: AuthorizationServer) -> Behaviour:
    def behave(handler: BaseHTTPRequestHandler) -> None:
        handler.close_connection = True
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")
        handler.wfile.write(json.dumps(server.metadata).encode()[:-1])

    return behave


@pytest.mark.capability("C44")
@pytest.mark.parametrize(
    ("prepare", "why"),
    [
        pytest.param(metadata(issuer="https://other.example"), "another issuer", id="another issuer"),
        pytest.param(metadata(issuer=None), "another issuer", id="no issuer"),
        pytest.param(metadata(issuer=["https://other.example"]), "another issuer", id="issuers"),
        pytest.param(lambda s: metadata(issuer=s.issuer + "/")(s), "another issuer", id="a slash more"),
        pytest.param(lambda s: metadata(issuer=s.issuer.upper())(s), "another issuer", id="in capitals"),
        pytest.param(lambda s: metadata(issuer=[s.issuer])(s), "another issuer", id="in a list"),
        pytest.param(metadata(jwks_uri=None), "no jwks_uri", id="no address"),
        pytest.param(metadata(jwks_uri=["/jwks"]), "no jwks_uri", id="address in a list"),
        pytest.param(metadata(jwks_uri="/jwks"), "plain URL", id="relative"),
        pytest.param(metadata(jwks_uri="file:///etc/passwd"), "plain URL", id="a file"),
        pytest.param(metadata(jwks_uri="http://keys.example/jwks"), "https", id="plain http"),
        pytest.param(metadata(jwks_uri="https://keys.example/jwks"), "not allowed", id="another host"),
        pytest.param(
            lambda s: metadata(jwks_uri=f"http://localhost:{s.port}/jwks")(s), "not allowed", id="by its name"
        ),
        pytest.param(lambda s: metadata(jwks_uri=f"https://127.0.0.1:{s.port}.x.example/")(s), "plain", id="suffix"),
        pytest.param(lambda s: metadata(jwks_uri=f"http://127.0.0.1.:{s.port}/jwks")(s), "plain", id="trailing dot"),
        pytest.param(lambda s: metadata(jwks_uri=f"http://x@127.0.0.1:{s.port}/jwks")(s), "plain", id="user"),
        pytest.param(lambda s: metadata(jwks_uri=f"http://127.0.0.1:{s.port + 1}/jwks")(s), "not allowed", id="port"),
        pytest.param(lambda s: metadata(jwks_uri=f"{s.origin}/jwks#x")(s), "plain", id="fragment"),
        pytest.param(text('{"issuer": ISSUER, "jwks_uri": KEYS, "jwks_uri": KEYS}'), "strict", id="a member twice"),
        pytest.param(text('{"issuer": "x", "issuer": ISSUER, "jwks_uri": KEYS}'), "strict", id="two issuers"),
        pytest.param(text('{"issuer": ISSUER, "jwks_uri": KEYS, "n": NaN}'), "strict", id="NaN"),
        pytest.param(text('{"issuer": ISSUER, "jwks_uri": KEYS, "n": 1e999}'), "strict", id="infinite"),
        pytest.param(
            text('{"issuer": ISSUER, "jwks_uri": KEYS, "d": ' + "[" * 40 + "]" * 40 + "}"), "strict", id="deep"
        ),
        pytest.param(text('{"issuer": ISSUER, "jwks_uri": KEYS, "d": "\xff"}'), "strict", id="not UTF-8"),
        pytest.param(text('[{"issuer": ISSUER, "jwks_uri": KEYS}]'), "strict", id="a list"),
        pytest.param(text('{"issuer": ISSUER, "jwks_uri": KEYS} {}'), "strict", id="two documents"),
        pytest.param(text('\xef\xbb\xbf{"issuer": ISSUER, "jwks_uri": KEYS}'), "strict", id="byte order mark"),
        pytest.param(metadata(padding="x" * 70_000), "more than 65536 bytes", id="large"),
        pytest.param(good(content_type="text/html"), "another type", id="a page"),
        pytest.param(good(content_type="application/jwk-set+json"), "another type", id="a key set"),
        pytest.param(good(content_type=None), "another type", id="no type"),
        pytest.param(good(status=404), "status 404", id="not found"),
        pytest.param(good(status=500), "status 500", id="in trouble"),
        pytest.param(good(status=302, headers={"Location": OPENID + "?2"}), "status 302", id="redirect"),
        pytest.param(
            lambda s: (
                lambda h: reply(h, gzip.compress(json.dumps(s.metadata).encode()), headers={"Content-Encoding": "gzip"})
            ),
            "compressed",
            id="gzip",
        ),
        pytest.param(drip, "in time", id="dripped"),
        pytest.param(cut, "strict", id="cut short"),
    ],
)
def test_metadata_that_is_not_as_it_must_be_leads_to_no_keys(
    server: AuthorizationServer,
    discover: Discover,
    prepare: Callable[[AuthorizationServer], Behaviour],
    why: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    server.behave[OPENID] = prepare(server)
    keys = discover(server)
    started = time.monotonic()
    with caplog.at_level(logging.WARNING):
        keys.load()
    assert keys.current is None
    assert why in caplog.text
    assert "example" not in caplog.text  # nothing is quoted of what came in
    assert server.fetched == [OPENID]
    assert time.monotonic() - started < 1


@pytest.mark.capability("C44")
def test_keys_on_another_host_need_its_name_on_the_list(server: AuthorizationServer, discover: Discover) -> None:
    with AuthorizationServer() as elsewhere:
        server.metadata["jwks_uri"] = f"{elsewhere.origin}/jwks"
        place = parse_address(elsewhere.origin).place
        listed, unlisted = discover(server, key_hosts=(place,)), discover(server)
        listed.load()
        unlisted.load()
    assert listed.current is not None
    assert unlisted.current is None
    assert elsewhere.fetched == ["/jwks"]


@pytest.mark.capability("C44")
def test_a_list_of_hosts_is_the_whole_list(server: AuthorizationServer, discover: Discover) -> None:
    keys = discover(server, key_hosts=(("keys.example", 443),))
    keys.load()
    assert keys.current is None
    assert server.fetched == [OPENID]


def test_metadata_is_looked_up_again_with_the_keys(server: AuthorizationServer, discover: Discover) -> None:
    moved = Issuer(server.issuer, kid="moved")
    server.behave["/other"] = lambda handler: reply(handler, moved.jwks())
    keys = discover(server, refresh=FAST)
    keys.load()
    keys.look_after()
    server.metadata["jwks_uri"] = f"{server.origin}/other"
    ends = time.monotonic() + 5
    while time.monotonic() < ends and keys.current is not None and keys.current.keys[0].kid != "moved":
        time.sleep(0.01)
    assert keys.current is not None
    assert [key.kid for key in keys.current.keys] == ["moved"]


def test_the_last_good_keys_stay_when_the_metadata_turns_bad(server: AuthorizationServer, discover: Discover) -> None:
    keys = discover(server)
    keys.load()
    good_ones = keys.current
    assert good_ones is not None
    server.metadata["issuer"] = "https://other.example"
    keys.load()
    assert keys.current is good_ones


def test_one_deadline_is_for_metadata_and_keys_together(server: AuthorizationServer, discover: Discover) -> None:
    server.behave[OPENID] = lambda handler: (time.sleep(0.35), reply(handler, server.metadata))  # type: ignore[func-returns-value]
    server.behave["/jwks"] = lambda handler: (time.sleep(0.35), reply(handler, server.keys))  # type: ignore[func-returns-value]
    keys = discover(server)
    started = time.monotonic()
    keys.load()
    assert time.monotonic() - started < 0.65
    assert keys.current is None


def test_symmetric_keys_do_not_come_from_an_address(server: AuthorizationServer, discover: Discover) -> None:
    server.keys = Issuer(server.issuer, alg="HS256").jwks()
    keys = discover(server, algorithms=("HS256",))
    keys.load()
    assert keys.current is None


@pytest.mark.parametrize(("address", "known"), [("127.0.0.1", True), ("127.0.0.2", True), ("127.0.0.1", False)])
def test_metadata_and_keys_come_over_tls_from_whom_the_file_vouches_for(
    tmp_path: Path, discover: Discover, address: str, known: bool
) -> None:
    trusted, context = certificate(tmp_path, address)
    with AuthorizationServer(tls=context) as server:
        keys = discover(server, ca_file=trusted if known else None)
        keys.load()
        assert (keys.current is not None) is (known and address == "127.0.0.1")
        assert bool(server.fetched) is (keys.current is not None)
