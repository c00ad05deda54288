"""The decision point over TLS: who it must be, and that a wrong certificate is no outage."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

import authz_middleware.remote.transport.aiohttp_transport  # noqa: F401 - so that no test waits for the import of aiohttp
from authz_middleware.remote.decision_point import DecisionPoint
from authz_middleware.remote.failure import FailureKind, RemoteAnswer, RemoteFailure
from authz_middleware.remote.query import RemoteQuery
from authz_middleware.remote.transport.aiohttp_transport import AiohttpTransport
from authz_middleware.remote.transport.http_transport import HttpTransport
from authz_middleware.settings.remote.decision_point import RemoteSettings
from tests.support.pdp import ScriptedServer, certificate, drip, hang_up, response

QUERY = RemoteQuery(("key",), b"{}", "r")


@pytest.fixture(params=["sync", "async"])
def colour(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def ask(colour: str, settings: RemoteSettings, times: int = 1) -> list[RemoteAnswer | RemoteFailure]:
    point = DecisionPoint(settings)

    async def run() -> list[RemoteAnswer | RemoteFailure]:
        replies = [await point.ask_async(QUERY) for _ in range(times)]
        await point.aclose()
        return replies

    replies = asyncio.run(run()) if colour == "async" else [point.ask(QUERY) for _ in range(times)]
    point.close()
    return replies


def test_a_point_with_a_trusted_certificate_is_asked_over_one_connection(colour: str, tmp_path: Path) -> None:
    trusted, context = certificate(tmp_path)
    with ScriptedServer(tls=context) as server:
        settings = RemoteSettings(url=server.url, deadline=5.0, ca_file=trusted)
        assert ask(colour, settings, 3) == [RemoteAnswer(True)] * 3
        assert len(server.requests) == 3


@pytest.mark.capability("C30")
@pytest.mark.parametrize(
    ("address", "days", "trusted"),
    [("127.0.0.1", 1, False), ("127.0.0.2", 1, True), ("127.0.0.1", -1, True)],
    ids=["unknown authority", "another host", "expired"],
)
def test_a_wrong_certificate_is_a_fault_and_sees_no_question(
    colour: str, tmp_path: Path, address: str, days: int, trusted: bool
) -> None:
    file, context = certificate(tmp_path, address, days)
    with ScriptedServer(tls=context) as server:
        settings = RemoteSettings(url=server.url, deadline=5.0, ca_file=file if trusted else None)
        (told,) = ask(colour, settings)
    assert told == RemoteFailure(FailureKind.CONFIG, "tls.certificate")
    assert not told.is_outage
    assert not server.requests


def test_plain_http_where_tls_is_expected_is_an_outage(colour: str) -> None:
    with ScriptedServer() as server:
        settings = RemoteSettings(url=server.url.replace("http:", "https:"), deadline=0.5)
        (told,) = ask(colour, settings)
    assert isinstance(told, RemoteFailure)
    assert told.kind in (FailureKind.CONNECT, FailureKind.DEADLINE)


def test_the_deadline_holds_inside_of_tls(colour: str, tmp_path: Path) -> None:
    trusted, context = certificate(tmp_path)
    with ScriptedServer(drip(response()), tls=context) as server:
        started = time.monotonic()
        (told,) = ask(colour, RemoteSettings(url=server.url, deadline=0.4, ca_file=trusted))
        took = time.monotonic() - started
    assert isinstance(told, RemoteFailure)
    assert told.kind is FailureKind.DEADLINE
    assert took < 0.8


def test_a_kept_connection_that_ends_without_a_byte_is_asked_again_once(colour: str, tmp_path: Path) -> None:
    trusted, context = certificate(tmp_path)
    kept = lambda exchange: exchange.send(response()) or True  # noqa: E731 - the first of three behaviours
    with ScriptedServer(kept, hang_up, kept, tls=context) as server:
        settings = RemoteSettings(url=server.url, deadline=5.0, ca_file=trusted)
        assert ask(colour, settings, 2) == [RemoteAnswer(True)] * 2


def test_without_a_context_no_https_url_is_asked(colour: str) -> None:
    if colour == "sync":
        told = HttpTransport().post("https://127.0.0.1:1/", {}, b"", 1.0)
    else:
        told = asyncio.run(AiohttpTransport().post("https://127.0.0.1:1/", {}, b"", 1.0))
    assert told == RemoteFailure(FailureKind.CONFIG, "tls.missing")
