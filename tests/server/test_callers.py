"""Who may ask: real processes that ask for tokens, JWTs and client certificates, over TLS."""

from __future__ import annotations

import json
import os
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from authz_middleware.server.metadata import EVALUATION, SEARCH_ACTION
from tests.support.certificates import Authority, Holder
from tests.support.decision_point import DecisionPointProcess
from tests.support.records import read_records
from tests.support.refunds import POLICY, REFUND, until
from tests.support.tokens import Issuer

TOKEN = "billing-0123456789abcdefghij"
OTHER = "payroll-0123456789abcdefghij"
BASE_URL = "https://pdp.test/authz"


def ask(client: httpx.Client, authorization: str | None = None, path: str = EVALUATION) -> httpx.Response:
    headers = {"X-Request-ID": "r-1"} | ({} if authorization is None else {"Authorization": authorization})
    return client.post(path, json=REFUND, headers=headers)


def callers(path: Path) -> list[str]:
    return [record["requested_by"] for record in read_records(path)]


# ---- tokens and JWTs


ISSUER = Issuer("https://idp.test/", audience=BASE_URL)
KNOWN = f"""
[server]
port = PORT
base_url = "{BASE_URL}"
[callers]
tokens = {{billing = "billing.token", payroll = "payroll.token"}}
[[issuers]]
issuer = "{ISSUER.url}"
algorithms = ["ES256"]
jwks_file = "keys.json"
[decision_log]
sink = "file:decisions.jsonl"
"""


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[httpx.Client, Path]]:
    folder = tmp_path_factory.mktemp("known")
    (folder / "billing.token").write_text(TOKEN)
    (folder / "payroll.token").write_text(OTHER)
    (folder / "keys.json").write_text(json.dumps(ISSUER.jwks()))
    with (
        DecisionPointProcess(folder, POLICY, settings=KNOWN) as process,
        httpx.Client(base_url=process.url) as client,
    ):
        yield client, folder


@pytest.mark.capability("C43")
@pytest.mark.promise("P6")
def test_a_known_caller_is_answered_and_named_in_the_record(known: tuple[httpx.Client, Path]) -> None:
    client, folder = known
    token = ISSUER.mint(sub="orders")
    for authorization in (f"Bearer {TOKEN}", f"bearer {OTHER}", f"Bearer {token}"):
        assert ask(client, authorization).json()["decision"] is True
    log = folder / "decisions.jsonl"
    until(lambda: len(callers(log)) >= 3)
    assert callers(log)[:3] == ["billing", "payroll", f"orders ({ISSUER.url})"]
    text = log.read_text()
    assert TOKEN not in text
    assert token not in text


STRANGERS = {
    "nothing": None,
    "empty": "",
    "another scheme": f"Basic {TOKEN}",
    "a token with more": f"Bearer {TOKEN}x",
    "no JWT": "Bearer " + "x" * 40,
    "two in one": f"Bearer {TOKEN}, Bearer {OTHER}",
    "another audience": f"Bearer {ISSUER.mint(aud='https://pdp.test')}",
    "expired": f"Bearer {ISSUER.mint(now=time.time() - 10_000)}",
    "another issuer": f"Bearer {Issuer('https://evil.test/', audience=BASE_URL).mint()}",
    "a key of ours": f"Bearer {Issuer(ISSUER.url, audience=BASE_URL).mint()}",
}


@pytest.mark.capability("C43")
@pytest.mark.parametrize("name", STRANGERS)
def test_a_stranger_learns_that_and_no_more(known: tuple[httpx.Client, Path], name: str) -> None:
    client, _ = known
    for path in (EVALUATION, SEARCH_ACTION):
        answer = ask(client, STRANGERS[name], path)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.headers["x-request-id"] == "r-1"
        assert answer.json() == {"error": {"status": 401, "message": "the caller is not authenticated"}}


def test_two_credentials_are_none(known: tuple[httpx.Client, Path]) -> None:
    client, _ = known
    headers = [("Authorization", f"Bearer {TOKEN}"), ("Authorization", f"Bearer {OTHER}")]
    assert client.post(EVALUATION, json=REFUND, headers=headers).status_code == 400


def test_a_stranger_has_no_body_read(known: tuple[httpx.Client, Path]) -> None:
    client, _ = known
    answer = client.post(EVALUATION, content=b"[" * 10_000_000, headers={"Content-Type": "application/json"})
    assert answer.status_code == 401


def test_health_and_metadata_are_for_everybody(known: tuple[httpx.Client, Path]) -> None:
    client, _ = known
    for path in ("/healthz", "/readyz", "/.well-known/authzen-configuration/authz"):
        assert client.get(path).status_code == 200


@pytest.mark.capability("C43")
def test_a_token_is_replaced_without_a_call_being_lost(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN)
    with (
        DecisionPointProcess(tmp_path, POLICY, options=("--token-file", str(file))) as process,
        httpx.Client(base_url=process.url) as client,
    ):

        def status(token: str) -> int:
            return ask(client, f"Bearer {token}").status_code

        def put(text: str) -> None:
            fresh = tmp_path / "fresh"
            fresh.write_text(text)
            fresh.replace(file)

        assert (status(TOKEN), status(OTHER)) == (200, 401)
        put(f"{OTHER}\n{TOKEN}\n")
        seen = []
        until(lambda: seen.append(status(TOKEN)) or status(OTHER) == 200)  # type: ignore[func-returns-value]  # None, on purpose
        put(OTHER)
        until(lambda: seen.append(status(OTHER)) or status(TOKEN) == 401)  # type: ignore[func-returns-value]  # likewise
        assert set(seen) == {200}


# ---- TLS


class Place:
    """A folder with an authority's certificates in it, as the settings name them."""

    def __init__(self, folder: Path, name: str = "127.0.0.1") -> None:
        self.folder = folder
        self.authority = Authority("pdp authority")
        (folder / "ca.pem").write_text(self.authority.root.pem)
        self.renew()

    def renew(self) -> Holder:
        """A new certificate for the server."""
        holder = self.authority.issue("server", addresses=("127.0.0.1",))
        holder.save(self.folder, "server")
        return holder

    def client(self, **options: Any) -> ssl.SSLContext:
        """What a client needs who holds a certificate of the authority."""
        holder = self.authority.issue("client", **options)
        return self.authority.client_context(self.folder, holder)


TLS = """
[server]
port = PORT
[tls]
certificate = "server.pem"
key = "server.key"
client_ca = "ca.pem"
{}
[decision_log]
sink = "file:decisions.jsonl"
{}
"""
SPIFFE = "spiffe://example.org/billing"


@pytest.mark.capability("C43")
def test_a_client_certificate_names_its_holder(tmp_path: Path) -> None:
    place = Place(tmp_path)
    mine = place.client(uri=SPIFFE)
    settings = TLS.format("", f'[callers]\ncertificates = ["{SPIFFE}"]\n')
    with DecisionPointProcess(tmp_path, POLICY, settings=settings, context=mine) as process:
        with httpx.Client(base_url=process.url, verify=mine) as client:
            assert client.get("/.well-known/authzen-configuration").json()["policy_decision_point"] == process.url
            assert ask(client).json()["decision"] is True
        with httpx.Client(base_url=process.url, verify=place.client(uri=SPIFFE + "/other")) as client:
            assert ask(client).status_code == 401
            assert ask(client, f"Bearer {TOKEN}").status_code == 401
        with httpx.Client(base_url=process.url, verify=place.client()) as client:
            assert ask(client).status_code == 401
        for context in (
            place.authority.client_context(tmp_path, None),
            Authority("stranger").client_context(tmp_path, None),
        ):
            with httpx.Client(base_url=process.url, verify=context) as client, pytest.raises(httpx.TransportError):
                ask(client)
        stranger = place.authority.client_context(tmp_path, Authority("stranger").issue("client", uri=SPIFFE))
        with httpx.Client(base_url=process.url, verify=stranger) as client, pytest.raises(httpx.TransportError):
            ask(client)
    assert callers(tmp_path / "decisions.jsonl") == [SPIFFE]


@pytest.mark.capability("C43")
def test_where_a_certificate_is_optional_a_token_will_do_and_nothing_will_not(tmp_path: Path) -> None:
    place = Place(tmp_path)
    (tmp_path / "token").write_text(TOKEN)
    nobody = place.authority.client_context(tmp_path, None)
    settings = TLS.format('client_certificate = "optional"', '[callers.tokens]\nbilling = "token"\n')
    with (
        DecisionPointProcess(tmp_path, POLICY, settings=settings, context=nobody) as process,
        httpx.Client(base_url=process.url, verify=nobody) as client,
    ):
        assert ask(client).status_code == 401
        assert ask(client, f"Bearer {TOKEN}").status_code == 200
        with httpx.Client(base_url=process.url, verify=place.client()) as holder:
            assert ask(holder).status_code == 200
            assert ask(holder, f"Bearer {OTHER}").status_code == 401
    assert callers(tmp_path / "decisions.jsonl") == ["billing", "CN=client"]


def serial_of(process: DecisionPointProcess, context: ssl.SSLContext) -> int:
    """The serial number of the certificate that the server shows to a new connection."""
    import socket

    from cryptography import x509

    with (
        socket.create_connection(("127.0.0.1", process.port)) as connection,
        context.wrap_socket(connection, server_hostname="127.0.0.1") as tls,
    ):
        der = tls.getpeercert(binary_form=True)
        assert der is not None
        return x509.load_der_x509_certificate(der).serial_number


@pytest.mark.capability("C43")
def test_certificate_files_are_read_again_when_they_change(tmp_path: Path) -> None:
    place = Place(tmp_path)
    mine = place.client()
    with DecisionPointProcess(tmp_path, POLICY, settings=TLS.format("", ""), context=mine) as process:
        first = serial_of(process, mine)
        (tmp_path / "server.pem").write_text("no certificate")
        time.sleep(1.5)
        assert serial_of(process, mine) == first
        renewed = place.renew().certificate.serial_number
        until(lambda: serial_of(process, mine) == renewed)
        (tmp_path / "ca.pem").write_text(Authority("the next one").root.pem)

        def is_refused() -> bool:
            try:
                with httpx.Client(base_url=process.url, verify=mine) as client:
                    ask(client)
            except httpx.TransportError:
                return True
            return False

        until(is_refused)


def test_a_certificate_that_ends_ends_its_connection_s_questions(tmp_path: Path) -> None:
    place = Place(tmp_path)
    brief = place.client(days=4 / 86_400)
    with (
        DecisionPointProcess(tmp_path, POLICY, settings=TLS.format("", ""), context=brief) as process,
        httpx.Client(base_url=process.url, verify=brief) as client,
    ):
        assert ask(client).status_code == 200
        until(lambda: ask(client).status_code == 401)


def test_its_files_show_nothing_of_the_key_when_they_are_wrong(tmp_path: Path) -> None:
    place = Place(tmp_path)
    secret = "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n"
    (tmp_path / "server.key").write_text(secret)
    with (
        pytest.raises(RuntimeError) as caught,
        DecisionPointProcess(tmp_path, POLICY, settings=TLS.format("", ""), context=place.client()),
    ):
        pass
    assert "tls.certificate" in str(caught.value)
    assert "Traceback" not in str(caught.value)
    assert "c2VjcmV0" not in str(caught.value)
    assert os.linesep in str(caught.value)
