"""Metadata counts only as that of exactly this decision point, and leads the credential nowhere else."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import msgspec
import pytest
from blockbuster import blockbuster_ctx

from authz_middleware.address import parse_place
from authz_middleware.remote.decision_point import DecisionPoint
from authz_middleware.remote.discovery import PENDING, DiscoveredEndpoints
from authz_middleware.remote.endpoints import NOT_OFFERED
from authz_middleware.remote.failure import FailureKind, RemoteAnswer, RemoteFailure
from authz_middleware.remote.messages.metadata import MetadataError, metadata_url, read_metadata
from authz_middleware.remote.messages.search import action_search
from authz_middleware.remote.query import RemoteQuery
from authz_middleware.settings.remote.decision_point import RemoteSettings
from authz_middleware.settings.remote.endpoints import DiscoverySettings, EndpointSettings, MetadataKeys
from tests.support.authorization_server import reply
from tests.support.cerbos import CerbosServer
from tests.support.discovered_point import DiscoveredPoint
from tests.support.pdp import certificate, refused_port
from tests.support.questions import question
from tests.support.tokens import REMOVED, Issuer

IDENTIFIER = "https://pdp.test/tenant"
SIGNER = "https://signer.test/"
QUERY = RemoteQuery(("key",), b"{}", "request-1")
PLAIN = {
    "policy_decision_point": IDENTIFIER,
    "access_evaluation_endpoint": "https://pdp.test/one",
    "access_evaluations_endpoint": "https://pdp.test/many",
}


@pytest.fixture
def server() -> Iterator[DiscoveredPoint]:
    with DiscoveredPoint() as running:
        yield running


Find = Callable[..., DiscoveredEndpoints]


def settings_of(url: str, *, given: Any = None, ca_file: Path | None = None, **discovery: Any) -> RemoteSettings:
    found = DiscoverySettings(**{"deadline": 1.0, **discovery})
    return RemoteSettings(url=url, deadline=5.0, ca_file=ca_file, endpoints=EndpointSettings(given or {}, found))


@pytest.fixture
def find() -> Iterator[Find]:
    opened: list[DiscoveredEndpoints] = []

    def endpoints(url: str, *, clock: Callable[[], float] = time.time, **changes: Any) -> DiscoveredEndpoints:
        settings = settings_of(url, **changes)
        assert settings.endpoints.discovery is not None
        opened.append(DiscoveredEndpoints(settings, settings.endpoints.discovery, clock=clock))
        return opened[-1]

    yield endpoints
    for each in opened:
        each.close()


def wait_until(holds: Callable[[], bool]) -> None:
    ends = time.monotonic() + 15
    while not holds():
        assert time.monotonic() < ends, "it never happened"
        time.sleep(0.02)


def told(endpoints: DiscoveredEndpoints) -> str | RemoteFailure:
    endpoints.start()
    return endpoints.url("evaluation")


# what metadata says


@pytest.mark.capability("C28")
@pytest.mark.parametrize(
    ("identifier", "url"),
    [
        ("https://pdp.example.com", "https://pdp.example.com/.well-known/authzen-configuration"),
        ("https://pdp.example.com/", "https://pdp.example.com/.well-known/authzen-configuration"),
        ("https://pdp.example.com/tenant1", "https://pdp.example.com/.well-known/authzen-configuration/tenant1"),
        ("https://pdp.example.com:8443/a/b/", "https://pdp.example.com:8443/.well-known/authzen-configuration/a/b"),
    ],
)
def test_the_well_known_path_stands_between_host_and_path(identifier: str, url: str) -> None:
    assert metadata_url(identifier) == url


def test_an_api_that_is_not_named_is_not_offered() -> None:
    assert read_metadata(json.dumps(PLAIN).encode(), IDENTIFIER) == {
        "evaluation": "https://pdp.test/one",
        "evaluations": "https://pdp.test/many",
    }


@pytest.mark.capability("C28")
@pytest.mark.parametrize(
    "identity",
    [
        REMOVED,
        "",
        1,
        [IDENTIFIER],
        IDENTIFIER + "/",
        "https://PDP.test/tenant",
        "https://pdp.test:443/tenant",
        "https://pdp.test",
        "http://pdp.test/tenant",
        "https://evil.test/tenant",
    ],
)
def test_metadata_of_another_decision_point_is_not_used(identity: object) -> None:
    document = json.dumps({**PLAIN, "policy_decision_point": identity}).encode()
    with pytest.raises(MetadataError, match=r"discovery\.identity"):
        read_metadata(document, IDENTIFIER)


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"[]",
        b"null",
        b'{"policy_decision_point":"https://pdp.test/tenant","policy_decision_point":"https://pdp.test/tenant"}',
        json.dumps(PLAIN).encode() + b"x",
        json.dumps(PLAIN).encode("utf-16"),
        b'{"a":NaN,' + json.dumps(PLAIN).encode()[1:],
    ],
)
def test_metadata_that_is_no_strict_json_is_not_used(document: bytes) -> None:
    with pytest.raises(MetadataError, match=r"discovery\.malformed"):
        read_metadata(document, IDENTIFIER)


@pytest.mark.capability("C43")
@pytest.mark.parametrize("parameter", ["access_evaluation_endpoint", "search_subject_endpoint"])
@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("https://evil.test/one", "origin"),
        ("https://pdp.test:8443/one", "origin"),
        ("https://pdp.test.evil.test/one", "origin"),
        ("https://sub.pdp.test/one", "origin"),
        ("http://localhost/one", "origin"),
        ("http://pdp.test/one", "endpoint"),
        ("https://pdp.test@evil.test/one", "endpoint"),
        ("https://evil.test\\@pdp.test/one", "endpoint"),
        ("https://pdp.test/one?tenant=2", "endpoint"),
        ("https://pdp.test/one#part", "endpoint"),
        ("https://pdp.test./one", "endpoint"),
        ("//pdp.test/one", "endpoint"),
        ("/one", "endpoint"),
        ("file:///etc/passwd", "endpoint"),
        ("https://pdp.test/one\r\nX: y", "endpoint"),
        ("", "endpoint"),
        (None, "endpoint"),
        (["https://pdp.test/one"], "endpoint"),
    ],
)
def test_an_endpoint_elsewhere_makes_all_of_it_unusable(parameter: str, url: object, code: str) -> None:
    with pytest.raises(MetadataError, match=rf"discovery\.{code}$"):
        read_metadata(json.dumps({**PLAIN, parameter: url}).encode(), IDENTIFIER)


def test_an_allowed_host_may_have_endpoints_over_https_only() -> None:
    hosts = (parse_place("api.test"), parse_place("localhost:80"))
    document = json.dumps({**PLAIN, "access_evaluation_endpoint": "https://api.test/one"}).encode()
    assert read_metadata(document, IDENTIFIER, hosts)["evaluation"] == "https://api.test/one"
    document = json.dumps({**PLAIN, "access_evaluation_endpoint": "http://localhost/one"}).encode()
    with pytest.raises(MetadataError, match=r"discovery\.origin"):
        read_metadata(document, IDENTIFIER, hosts)


# where it comes from


@pytest.mark.capability("C28")
@pytest.mark.parametrize("path", ["", "/tenant1"])
def test_questions_go_where_the_metadata_says(path: str) -> None:
    with DiscoveredPoint(path) as server:
        point = DecisionPoint(settings_of(server.identifier))
        point.start()
        queries = [RemoteQuery((n,), b'{"subject":{"id":"a"},"resource":{"id":"%d"}}' % n) for n in range(2)]
        assert point.ask(QUERY) == RemoteAnswer(True)
        assert point.ask_all(queries) == [RemoteAnswer(True)] * 2
        point.close()
    assert server.fetched[0] == f"/.well-known/authzen-configuration{path}"
    assert server.asked == ["/ask/one", "/ask/many"]


def test_a_point_whose_metadata_names_no_batches_is_asked_one_by_one(server: DiscoveredPoint) -> None:
    del server.metadata["access_evaluations_endpoint"]
    point = DecisionPoint(settings_of(server.identifier))
    point.start()
    assert point.ask_all([RemoteQuery((n,), b"{}") for n in range(2)]) == [RemoteAnswer(True)] * 2
    point.close()
    assert server.asked == ["/ask/one"] * 2


def test_an_api_that_is_not_named_is_not_asked(server: DiscoveredPoint, find: Find) -> None:
    endpoints = find(server.identifier)
    endpoints.start()
    assert endpoints.url("search_subject") == NOT_OFFERED


def test_endpoints_in_the_settings_count_more_than_metadata(server: DiscoveredPoint, find: Find) -> None:
    given = {"evaluation": "https://other.test/one"}
    endpoints = find(server.identifier, given=given)
    endpoints.start()
    assert endpoints.url("evaluation") == "https://other.test/one"
    assert endpoints.url("evaluations") == f"{server.origin}/ask/many"


def test_endpoints_in_the_settings_serve_without_any_metadata(find: Find) -> None:
    endpoints = find(f"http://127.0.0.1:{refused_port()}", given={"evaluation": "https://other.test/one"})
    assert endpoints.url("evaluation") == "https://other.test/one"


def _status(status: int, **headers: str) -> Callable[[BaseHTTPRequestHandler], object]:
    return lambda handler: reply(handler, PLAIN, status=status, headers=headers)


def _hang(_: BaseHTTPRequestHandler) -> None:
    time.sleep(3)


def _drip(handler: BaseHTTPRequestHandler) -> None:
    for byte in b"HTTP/1.1 200 OK\r\n" * 9:
        handler.wfile.write(bytes([byte]))
        time.sleep(0.1)


@pytest.mark.capability("C28", "C30")
@pytest.mark.parametrize(
    ("behave", "failure"),
    [
        (_hang, RemoteFailure(FailureKind.CONNECT, "discovery.unreachable", is_news=False)),
        (_drip, RemoteFailure(FailureKind.CONNECT, "discovery.unreachable", is_news=False)),
        (_status(404), RemoteFailure(FailureKind.CONFIG, "discovery.answer", is_news=False)),
        (_status(401), RemoteFailure(FailureKind.CONFIG, "discovery.answer", is_news=False)),
        (
            lambda handler: reply(handler, PLAIN, content_type="text/html"),
            RemoteFailure(FailureKind.CONFIG, "discovery.answer", is_news=False),
        ),
        (
            lambda handler: reply(handler, PLAIN, content_type=None),
            RemoteFailure(FailureKind.CONFIG, "discovery.answer", is_news=False),
        ),
        (
            lambda handler: reply(handler, b"{}" + b" " * 100_000),
            RemoteFailure(FailureKind.CONFIG, "discovery.answer", is_news=False),
        ),
        (
            lambda handler: reply(handler, b"[]"),
            RemoteFailure(FailureKind.CONFIG, "discovery.malformed", is_news=False),
        ),
        (
            lambda handler: reply(handler, PLAIN),
            RemoteFailure(FailureKind.CONFIG, "discovery.identity", is_news=False),
        ),
    ],
)
def test_until_there_is_metadata_the_failure_says_whose_it_is(
    server: DiscoveredPoint, find: Find, behave: Any, failure: RemoteFailure
) -> None:
    server.behave = behave
    began = time.monotonic()
    assert told(find(server.identifier)) == failure
    assert time.monotonic() - began < 2.0


def test_nobody_there_is_an_outage(find: Find) -> None:
    failure = told(find(f"http://127.0.0.1:{refused_port()}"))
    assert failure == RemoteFailure(FailureKind.CONNECT, "discovery.unreachable", is_news=False)
    assert isinstance(failure, RemoteFailure)
    assert failure.is_outage


def test_metadata_without_the_one_endpoint_that_there_must_be_is_not_used(server: DiscoveredPoint, find: Find) -> None:
    del server.metadata["access_evaluation_endpoint"]
    assert told(find(server.identifier)) == RemoteFailure(FailureKind.CONFIG, "discovery.no_evaluation", is_news=False)


@pytest.mark.capability("C28")
@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_no_redirect_is_followed(server: DiscoveredPoint, find: Find, status: int) -> None:
    with DiscoveredPoint() as other:
        other.metadata["policy_decision_point"] = server.identifier
        server.behave = _status(status, Location=f"{other.origin}/.well-known/authzen-configuration")
        failure = told(find(server.identifier))
    assert failure == RemoteFailure(FailureKind.CONFIG, "discovery.answer", is_news=False)
    assert not other.fetched


@pytest.mark.capability("C28")
def test_over_tls_the_certificate_must_be_one_to_trust(tmp_path: Path, find: Find) -> None:
    ca_file, context = certificate(tmp_path)
    with DiscoveredPoint(tls=context) as server:
        assert told(find(server.identifier, ca_file=ca_file)) == f"{server.origin}/ask/one"
        # Whoever stands in the way with a wrong certificate must not choose the fallback.
        untrusted = told(find(server.identifier))
    assert untrusted == RemoteFailure(FailureKind.CONFIG, "discovery.certificate", is_news=False)


# who signs it


ISSUER = Issuer(SIGNER)
OTHER = Issuer(SIGNER, kid="key-2")
NOW = 1_769_850_000.0


@pytest.fixture
def signed(tmp_path: Path, server: DiscoveredPoint, find: Find) -> Callable[..., str | RemoteFailure]:
    """What comes of metadata with this `signed_metadata`: the evaluation endpoint, below the server's origin."""
    jwks = tmp_path / "jwks.json"
    jwks.write_text(json.dumps(ISSUER.jwks()))
    keys = MetadataKeys(jwks, ("ES256",), SIGNER)

    def use(token: object) -> str | RemoteFailure:
        if token is not REMOVED:
            server.metadata["signed_metadata"] = token
        found = told(find(server.identifier, keys=keys, clock=lambda: NOW))
        return found.removeprefix(server.origin) if isinstance(found, str) else found

    return use


def minted(server: DiscoveredPoint, issuer: Issuer = ISSUER, header: Any = None, **claims: Any) -> str:
    own = {
        "policy_decision_point": server.identifier,
        "access_evaluation_endpoint": f"{server.origin}/signed",
        **dict.fromkeys(("exp", "iat", "aud", "sub", "jti", "client_id", "scope"), REMOVED),
    }
    return issuer.mint(header={"typ": REMOVED, **(header or {})}, **{**own, **claims})


Signed = Callable[..., Any]


@pytest.mark.capability("C28")
@pytest.mark.parametrize("header", [{}, {"typ": "JWT"}, {"kid": REMOVED}])
def test_what_is_signed_counts_and_what_is_not_signed_says_nothing(
    server: DiscoveredPoint, find: Find, signed: Signed, header: Any
) -> None:
    assert signed(minted(server, header=header, iat=int(NOW), exp=int(NOW) + 60)) == "/signed"


def test_an_api_that_is_named_without_a_signature_is_not_offered(
    server: DiscoveredPoint, find: Find, tmp_path: Path
) -> None:
    jwks = tmp_path / "jwks.json"
    jwks.write_text(json.dumps(ISSUER.jwks()))
    server.metadata["signed_metadata"] = minted(server)
    endpoints = find(server.identifier, keys=MetadataKeys(jwks, ("ES256",), SIGNER))
    endpoints.start()
    assert endpoints.url("evaluations") == NOT_OFFERED


def test_without_keys_a_signature_is_not_looked_at(server: DiscoveredPoint, find: Find) -> None:
    """AuthZEN 1.0, section 9.1.3: signed metadata may be ignored by who does not support it."""
    server.metadata["signed_metadata"] = "no.signature.at-all"
    assert told(find(server.identifier)) == f"{server.origin}/ask/one"


@pytest.mark.capability("C28")
@pytest.mark.parametrize(
    ("token", "code"),
    [
        (lambda server: REMOVED, "unsigned"),
        (lambda server: 1, "unsigned"),
        (lambda server: "", "signature"),
        (lambda server: "a.b", "signature"),
        (lambda server: minted(server, OTHER), "signature"),
        (lambda server: minted(server, Issuer(SIGNER)), "signature"),
        (lambda server: minted(server)[:-4] + "AAAA", "signature"),
        (lambda server: minted(server, header={"alg": "none"}), "signature"),
        (lambda server: minted(server, header={"alg": "HS256"}), "signature"),
        (lambda server: minted(server, header={"alg": "ES384"}), "signature"),
        (lambda server: minted(server, header={"crit": ["exp"]}), "signature"),
        (lambda server: minted(server, header={"b64": False}), "signature"),
        (lambda server: minted(server, header={"kid": 1}), "signature"),
        (lambda server: minted(server, header={"typ": "at+jwt"}), "signature"),
        (lambda server: minted(server, header={"typ": "application/Logout+JWT"}), "signature"),
        (lambda server: minted(server, iss="https://other.test/"), "signer"),
        (lambda server: minted(server, iss=REMOVED), "signer"),
        (lambda server: minted(server, iss=[SIGNER]), "signer"),
        (lambda server: minted(server, signed_metadata="x"), "signed_twice"),
        (lambda server: minted(server, policy_decision_point=REMOVED), "identity"),
        (lambda server: minted(server, policy_decision_point=server.identifier + "/tenant2"), "identity"),
        (lambda server: minted(server, access_evaluation_endpoint="https://evil.test/"), "origin"),
        (lambda server: minted(server, access_evaluation_endpoint=REMOVED), "no_evaluation"),
        (lambda server: minted(server, exp=int(NOW)), "times"),
        (lambda server: minted(server, exp="2099"), "times"),
        (lambda server: minted(server, exp=True), "times"),
        (lambda server: minted(server, nbf=int(NOW) + 120), "times"),
        (lambda server: minted(server, iat=int(NOW) + 120), "times"),
    ],
)
def test_metadata_that_its_signer_did_not_sign_is_not_used(
    server: DiscoveredPoint, signed: Signed, token: Callable[[DiscoveredPoint], object], code: str
) -> None:
    failure = RemoteFailure(FailureKind.CONFIG, f"discovery.{code}", is_news=False)
    assert signed(token(server)) == failure
    assert not failure.is_outage


def test_the_identity_of_the_plain_part_counts_as_well(server: DiscoveredPoint, signed: Signed) -> None:
    server.metadata["policy_decision_point"] = "https://other.test"
    assert signed(minted(server)) == RemoteFailure(FailureKind.CONFIG, "discovery.identity", is_news=False)


@pytest.mark.parametrize("content", [None, "", "{}", '{"keys": []}'])
def test_without_usable_keys_nothing_is_used(
    tmp_path: Path, server: DiscoveredPoint, find: Find, content: str | None
) -> None:
    jwks = tmp_path / "jwks.json"
    if content is not None:
        jwks.write_text(content)
    server.metadata["signed_metadata"] = minted(server)
    failure = told(find(server.identifier, keys=MetadataKeys(jwks, ("ES256",), SIGNER)))
    assert failure == RemoteFailure(FailureKind.CONFIG, "discovery.keys", is_news=False)


# how it stays fresh


@pytest.mark.promise("P9")
async def test_a_question_never_waits_for_metadata_and_a_later_one_finds_it(server: DiscoveredPoint) -> None:
    point = DecisionPoint(settings_of(server.identifier))
    with blockbuster_ctx():
        assert await point.ask_async(QUERY) == PENDING
        ends = time.monotonic() + 15
        while (reply := await point.ask_async(QUERY)) != RemoteAnswer(True):
            assert isinstance(reply, RemoteFailure)
            assert time.monotonic() < ends
            await asyncio.sleep(0.02)
    await point.aclose()
    await asyncio.to_thread(point.close)


def test_metadata_that_could_not_be_had_is_had_soon_after(server: DiscoveredPoint, find: Find) -> None:
    server.behave = _status(503)
    endpoints = find(server.identifier)
    assert isinstance(told(endpoints), RemoteFailure)
    server.behave = None
    wait_until(lambda: endpoints.url("evaluation") == f"{server.origin}/ask/one")


def test_a_question_without_metadata_has_it_looked_for_however_long_it_was_in_vain(
    server: DiscoveredPoint, find: Find
) -> None:
    server.behave = _status(503)
    endpoints = find(server.identifier, refresh=3600.0)
    endpoints._failures = 12
    assert isinstance(told(endpoints), RemoteFailure)
    server.behave = None
    wait_until(lambda: endpoints.url("evaluation") == f"{server.origin}/ask/one")


def test_questions_without_metadata_do_not_storm_whoever_should_have_it(server: DiscoveredPoint, find: Find) -> None:
    server.behave = _status(503)
    endpoints = find(server.identifier)
    endpoints.start()
    ends = time.monotonic() + 2.5
    while time.monotonic() < ends:
        endpoints.url("evaluation")
        time.sleep(0.001)
    assert 2 <= len(server.fetched) <= 4


def test_metadata_that_changed_comes_into_force(server: DiscoveredPoint, find: Find) -> None:
    endpoints = find(server.identifier, refresh=0.1)
    assert told(endpoints) == f"{server.origin}/ask/one"
    server.metadata = {**server.metadata, "access_evaluation_endpoint": f"{server.origin}/elsewhere"}
    wait_until(lambda: endpoints.url("evaluation") == f"{server.origin}/elsewhere")


def test_metadata_that_became_unusable_changes_nothing_and_is_told_once(
    server: DiscoveredPoint, find: Find, caplog: pytest.LogCaptureFixture
) -> None:
    endpoints = find(server.identifier, refresh=0.05)
    assert told(endpoints) == f"{server.origin}/ask/one"
    server.metadata = {**server.metadata, "policy_decision_point": "https://s3cret.test"}
    seen = len(server.fetched)
    wait_until(lambda: len(server.fetched) >= seen + 4)
    assert endpoints.url("evaluation") == f"{server.origin}/ask/one"
    assert endpoints.url("search_action") == NOT_OFFERED
    warned = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert warned == [f"metadata of {server.identifier}: config discovery.identity; what was known stays in force"]


def test_a_point_that_is_closed_looks_no_more(server: DiscoveredPoint) -> None:
    point = DecisionPoint(settings_of(server.identifier, refresh=0.05))
    point.start()
    assert point.ask(QUERY) == RemoteAnswer(True)
    wait_until(lambda: len(server.fetched) > 1)
    point.close()
    seen = len(server.fetched)
    time.sleep(0.3)
    assert len(server.fetched) == seen


FORKING = """
import os, sys, threading
from authz_middleware.remote.decision_point import DecisionPoint
from authz_middleware.remote.query import RemoteQuery
from authz_middleware.settings.remote.decision_point import RemoteSettings
from authz_middleware.settings.remote.endpoints import DiscoverySettings, EndpointSettings

settings = RemoteSettings(url=sys.argv[1], deadline=5.0, endpoints=EndpointSettings({}, DiscoverySettings()))
point = DecisionPoint(settings)
point.start()
assert threading.active_count() == 1  # a server may fork after it
for _ in range(2):
    pid = os.fork()
    if not pid:
        permitted = point.ask(RemoteQuery(("k",), b"{}")).permit
        looking = any(thread.name == "authz-discovery" for thread in threading.enumerate())
        os._exit(0 if permitted and looking else 1)
    assert os.waitpid(pid, 0)[1] == 0
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_knows_what_its_parent_knew_and_goes_on_looking(server: DiscoveredPoint) -> None:
    command = [sys.executable, "-W", "error", "-c", FORKING, server.identifier]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert server.asked == ["/ask/one"] * 2


def test_a_fault_of_metadata_rings_when_somebody_asks(
    caplog: pytest.LogCaptureFixture, server: DiscoveredPoint
) -> None:
    server.metadata["policy_decision_point"] = "https://other.test"
    point = DecisionPoint(settings_of(server.identifier))
    point.start()
    assert point.ask(QUERY) == RemoteFailure(FailureKind.CONFIG, "discovery.identity", is_news=False)
    point.close()
    assert f"{server.identifier} ended in a fault: config discovery.identity" in caplog.text


# a decision point whose metadata is made of what its client says


@pytest.fixture
def cerbos(tmp_path: Path) -> Callable[[bool], CerbosServer]:
    def server(tls: bool) -> CerbosServer:
        (tmp_path / "policies").mkdir()
        return CerbosServer(tmp_path, tmp_path / "policies", tls=tls)

    return server


@pytest.mark.capability("C28")
def test_cerbos_is_found_by_its_metadata_and_has_no_search(cerbos: Callable[[bool], CerbosServer]) -> None:
    with cerbos(False) as server:
        settings = msgspec.structs.replace(settings_of(server.url), dialect="cerbos")
        point = DecisionPoint(settings)
        point.start()
        reply = point.ask(RemoteQuery.of(question(), "r1", dialect="cerbos"))
        found = point.search(action_search(question()))
        point.close()
    assert isinstance(reply, RemoteAnswer)
    assert not reply.permit  # it has no policy
    assert found == NOT_OFFERED


@pytest.mark.capability("C28")
def test_cerbos_over_tls_names_itself_by_http_and_needs_its_endpoints_given(
    cerbos: Callable[[bool], CerbosServer],
) -> None:
    with cerbos(True) as server:
        given = {"evaluation": f"{server.url}/access/v1/evaluation"}
        replies = []
        for settings in (settings_of(server.url), settings_of(server.url, given=given)):
            point = DecisionPoint(msgspec.structs.replace(settings, dialect="cerbos", ca_file=server.ca_file))
            point.start()
            replies.append(point.ask(RemoteQuery.of(question(), "r1", dialect="cerbos")))
            point.close()
    assert replies[0] == RemoteFailure(FailureKind.CONFIG, "discovery.identity", is_news=False)
    assert isinstance(replies[1], RemoteAnswer)
