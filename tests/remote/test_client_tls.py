"""Certificates of ours and of the decision point's: shown, checked, and replaced under a running process."""

from __future__ import annotations

import asyncio
import logging
import os
import pty
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from blockbuster import blockbuster_ctx
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID

from authz_middleware.errors import SettingsError
from authz_middleware.identity.spiffe.spiffe_id import SpiffeId
from authz_middleware.remote.failure import FailureKind, RemoteAnswer, RemoteFailure
from authz_middleware.remote.query import RemoteQuery
from authz_middleware.remote.transport import client_tls
from authz_middleware.remote.transport.asyncio_transport import AsyncioTransport, _protocol_over
from authz_middleware.remote.transport.client_tls import ClientTLS
from authz_middleware.remote.transport.http_transport import HttpTransport
from authz_middleware.remote.transport.protocol import RawAnswer
from authz_middleware.remote.transport.wire import connect
from authz_middleware.settings.remote.decision_point import RemoteSettings
from authz_middleware.settings.remote.tls import KeyPair, TlsSettings
from tests.support.asking import COLOURS, QUERY, Asker, Reply, ask_once
from tests.support.certificates import Authority, Holder
from tests.support.pdp import Exchange, ScriptedServer, answer
from tests.support.svids import SvidAuthority

PERMITTED = RemoteAnswer(True)
WRONG_SERVER = RemoteFailure(FailureKind.CONFIG, "tls.certificate")
WRONG_CLIENT = RemoteFailure(FailureKind.CONFIG, "tls.client_certificate")
AUTHORITY = Authority()
STRANGER = Authority("another authority")


@pytest.fixture(params=COLOURS)
def colour(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_tls, "CHECK_S", 0.02)


def trusting(server: ScriptedServer, folder: Path, holder: Holder | None = None, **more: object) -> RemoteSettings:
    """Settings that trust the authority and show this certificate; both are files of one name that can be replaced."""
    root = folder / "root.pem"
    root.write_text(AUTHORITY.root.pem)
    pair = None if holder is None else KeyPair(*holder.save(folder, "client"))
    return RemoteSettings(url=server.url, deadline=5.0, ca_file=root, client_certificate=pair, **more)  # type: ignore[arg-type]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[ScriptedServer]:
    """A decision point that asks its clients for a certificate of the authority."""
    with ScriptedServer(tls=AUTHORITY.server_context(tmp_path)) as server:
        yield server


def serial_shown(server: ScriptedServer) -> int:
    """The serial number of the certificate that was shown with the last question."""
    connection = server.requests[-1].connection
    assert isinstance(connection, ssl.SSLSocket)
    der = connection.getpeercert(binary_form=True)
    assert der is not None
    return x509.load_der_x509_certificate(der).serial_number


@pytest.mark.capability("C43")
def test_a_point_is_shown_the_certificate(colour: str, served: ScriptedServer, tmp_path: Path) -> None:
    client = AUTHORITY.issue("client")
    with Asker(colour, trusting(served, tmp_path, client)) as asker:
        assert asker.ask() == PERMITTED
        assert serial_shown(served) == client.certificate.serial_number


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["TLS 1.2", "TLS 1.3"])
@pytest.mark.parametrize("shown", ["none", "a stranger's", "expired"])
def test_a_certificate_that_the_point_refuses_is_a_fault(
    colour: str, tmp_path: Path, version: ssl.TLSVersion, shown: str
) -> None:
    """In TLS 1.3 it is refused only when the question is on its way: then the first thing that comes is the alert."""
    clients = {"none": None, "a stranger's": STRANGER.issue("client"), "expired": AUTHORITY.issue("client", days=-0.5)}
    context = AUTHORITY.server_context(tmp_path)
    context.minimum_version = context.maximum_version = version
    told: list[Reply] = []
    with ScriptedServer(tls=context) as server:
        settings = trusting(server, tmp_path, clients[shown])
        while WRONG_CLIENT not in told and len(told) < 10:
            told.append(ask_once(colour, settings))
    assert WRONG_CLIENT in told
    # Where asyncio's writing of the question meets the end of the connection, it reads no more of what came before.
    is_told_late = (colour, version) == ("async", ssl.TLSVersion.TLSv1_3)
    assert set(told) <= {WRONG_CLIENT, RemoteFailure(FailureKind.CLOSED, "closed") if is_told_late else WRONG_CLIENT}
    assert not server.requests


def test_why_a_connection_was_ended_is_read_where_writing_to_it_fails(served: ScriptedServer, tmp_path: Path) -> None:
    context = ClientTLS(trusting(served, tmp_path).tls).context()
    wire = connect("127.0.0.1", served.port, time.monotonic() + 5.0, context)
    time.sleep(0.2)  # it has been refused by now
    place = (True, "127.0.0.1", served.port, context)
    told = HttpTransport()._speak(place, wire, b"POST / HTTP/1.1\r\n", time.monotonic() + 5.0)
    assert told == WRONG_CLIENT


def test_why_a_connection_was_ended_is_kept_for_who_has_not_asked_yet(served: ScriptedServer, tmp_path: Path) -> None:
    context = ClientTLS(trusting(served, tmp_path).tls).context()

    async def run() -> RawAnswer | RemoteFailure:
        connected = socket.create_connection(("127.0.0.1", served.port))
        connected.setblocking(False)
        connection = await _protocol_over(connected, "127.0.0.1", context)
        await asyncio.sleep(0.2)  # it has been refused by now
        async with asyncio.timeout(5.0):
            return await connection.exchange(b"POST / HTTP/1.1\r\n")

    assert asyncio.run(run()) == WRONG_CLIENT


def test_a_point_that_is_shown_a_certificate_must_have_the_right_one_itself(colour: str, tmp_path: Path) -> None:
    """Neither by a stranger's word, nor for another host."""
    context = STRANGER.server_context(tmp_path)
    elsewhere = AUTHORITY.server_context(tmp_path)
    elsewhere.load_cert_chain(*AUTHORITY.issue("server", addresses=("127.0.0.2",)).save(tmp_path, "elsewhere"))
    for wrong in (context, elsewhere):
        with ScriptedServer(tls=wrong) as server:
            assert ask_once(colour, trusting(server, tmp_path, AUTHORITY.issue("client"))) == WRONG_SERVER
            assert not server.requests


def test_tls_is_at_least_1_2_without_compression_and_knows_the_host(tmp_path: Path) -> None:
    root = tmp_path / "root.pem"
    root.write_text(AUTHORITY.root.pem)
    context = ClientTLS(TlsSettings(root)).context()
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert context.options & ssl.OP_NO_COMPRESSION
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert len(context.get_ca_certs()) == 1, "the system's authorities are trusted beside the configured one"


@pytest.mark.usefixtures("_quickly")
@pytest.mark.capability("C43")
def test_a_replaced_certificate_is_shown_from_the_next_question_on(
    colour: str, served: ScriptedServer, tmp_path: Path
) -> None:
    """Also where a connection is kept alive that was made with the old one."""
    first, second = AUTHORITY.issue("client"), AUTHORITY.issue("client")
    with Asker(colour, trusting(served, tmp_path, first)) as asker:
        assert [asker.ask(), asker.ask()] == [PERMITTED] * 2
        assert (served.connections, serial_shown(served)) == (1, first.certificate.serial_number)
        second.save(tmp_path, "client")
        asker.pause(0.05)
        assert asker.ask() == PERMITTED
        assert (served.connections, serial_shown(served)) == (2, second.certificate.serial_number)


@pytest.mark.usefixtures("_quickly")
def test_files_that_stay_keep_their_connection(colour: str, served: ScriptedServer, tmp_path: Path) -> None:
    with Asker(colour, trusting(served, tmp_path, AUTHORITY.issue("client"))) as asker:
        for _ in range(4):
            assert asker.ask() == PERMITTED
            os.utime(tmp_path / "client.pem")
            asker.pause(0.03)
    assert served.connections == 1


@pytest.mark.usefixtures("_quickly")
def test_a_connection_made_with_a_replaced_certificate_is_not_kept(served: ScriptedServer, tmp_path: Path) -> None:
    """Neither one that was idle while the files changed, nor one that was in use."""
    tls = ClientTLS(trusting(served, tmp_path, AUTHORITY.issue("client")).tls)
    transport = HttpTransport(tls=tls)

    def ask() -> int | None:
        told = transport.post(served.url, {}, b"{}", 5.0)
        return told.status if isinstance(told, RawAnswer) else None

    def replace() -> None:
        AUTHORITY.issue("client").save(tmp_path, "client")
        time.sleep(0.05)

    def answer_after_a_change(exchange: Exchange) -> bool:
        replace()
        tls.context()
        return answer()(exchange)

    assert ask() == 200
    replace()
    assert ask() == 200
    assert [len(wires) for wires in transport._idle.values()] == [1], "the old one was left open"
    served._behaviours[:] = [answer_after_a_change, answer()]
    assert ask() == 200
    assert not any(transport._idle.values())
    transport.close()


@pytest.mark.usefixtures("_quickly")
def test_nor_is_it_kept_on_an_event_loop(served: ScriptedServer, tmp_path: Path) -> None:
    tls = ClientTLS(trusting(served, tmp_path, AUTHORITY.issue("client")).tls)

    def replace(exchange: Exchange) -> bool:
        AUTHORITY.issue("client").save(tmp_path, "client")
        time.sleep(0.05)
        tls.context()
        return answer()(exchange)

    async def run() -> list[list[int]]:
        transport = AsyncioTransport(tls=tls)
        kept = []
        for behaviours in ([answer()], [replace, answer()], [answer()]):
            served._behaviours[:] = behaviours
            assert isinstance(await transport.post(served.url, {}, b"{}", 5.0), RawAnswer)
            (pool,) = transport._pools.values()
            kept.append([len(connections) for connections in pool._idle.values() if connections])
        AUTHORITY.issue("client").save(tmp_path, "client")
        await asyncio.sleep(0.05)
        await transport.post(served.url, {}, b"{}", 5.0)
        kept.append([len(connections) for connections in pool._idle.values() if connections])
        await transport.aclose()
        return kept

    assert asyncio.run(run()) == [[1], [], [1], [1]]


@pytest.mark.usefixtures("_quickly")
@pytest.mark.capability("C43")
def test_no_call_is_lost_while_certificates_are_replaced_under_load(
    colour: str, served: ScriptedServer, tmp_path: Path
) -> None:
    """File by file, half of each first: what cannot be used in between changes nothing."""
    settings = trusting(served, tmp_path, AUTHORITY.issue("client"))
    ended = threading.Event()
    replies: list[object] = []

    def replace() -> None:
        for number in range(6):
            certificate, key = AUTHORITY.issue("client").save(tmp_path, f"new-{number}")
            for new, name in ((certificate, "client.pem"), (key, "client.key")):
                text = new.read_text()
                for part in (text[: len(text) // 2], text):
                    (tmp_path / name).write_text(part)
                    time.sleep(0.03)
        ended.set()

    replacing = threading.Thread(target=replace)
    with Asker(colour, settings) as asker:
        replacing.start()
        while not ended.is_set():
            replies.append(asker.ask(RemoteQuery((len(replies),), b"{}", "r")))
        replacing.join()
        asker.pause(0.05)
        replies.append(asker.ask())
        last = x509.load_pem_x509_certificate((tmp_path / "client.pem").read_bytes())
        assert serial_shown(served) == last.serial_number
    assert set(map(type, replies)) == {RemoteAnswer}, replies
    assert len(replies) > 20


@pytest.mark.usefixtures("_quickly")
@pytest.mark.parametrize("damage", ["half a certificate", "another's key", "no file", "not readable", "no authority"])
def test_files_that_cannot_be_used_change_nothing_and_ring(
    colour: str, served: ScriptedServer, tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    client = AUTHORITY.issue("client")
    with Asker(colour, trusting(served, tmp_path, client)) as asker:
        assert asker.ask() == PERMITTED
        match damage:
            case "half a certificate":
                (tmp_path / "client.pem").write_text(client.pem[:200])
            case "another's key":
                AUTHORITY.issue("other").save(tmp_path, "other")[1].rename(tmp_path / "client.key")
            case "no file":
                (tmp_path / "client.pem").unlink()
            case "not readable":
                (tmp_path / "client.pem").unlink()
                (tmp_path / "client.pem").mkdir()
            case "no authority":
                (tmp_path / "root.pem").write_text("")
        with caplog.at_level(logging.ERROR, "authz"):
            for _ in range(3):
                asker.pause(0.05)
                assert asker.ask() == PERMITTED
        assert served.connections == 1
        (line,) = [record.getMessage() for record in caplog.records if "last good ones" in record.getMessage()]
        assert "remote." in line
        assert "PRIVATE" not in line
        if damage in ("no file", "not readable"):
            return
        repaired = AUTHORITY.issue("client")
        repaired.save(tmp_path, "client")
        (tmp_path / "root.pem").write_text(AUTHORITY.root.pem)
        asker.pause(0.05)
        assert asker.ask() == PERMITTED
        assert serial_shown(served) == repaired.certificate.serial_number


@pytest.mark.usefixtures("_quickly")
def test_an_error_of_ours_changes_nothing_and_is_not_quoted(
    served: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tls = ClientTLS(trusting(served, tmp_path, AUTHORITY.issue("client")).tls)
    before = tls.context()

    def fail(*_: object) -> ssl.SSLContext:
        raise RuntimeError("what a file holds")

    with monkeypatch.context() as broken:
        broken.setattr(client_tls, "_context_of", fail)
        AUTHORITY.issue("client").save(tmp_path, "client")
        time.sleep(0.05)
        assert tls.context() is before
    (line,) = [record.getMessage() for record in caplog.records]
    assert "last good ones" in line
    assert "holds" not in line
    time.sleep(0.05)
    assert tls.context() is not before


@pytest.mark.usefixtures("_quickly")
def test_replaced_authorities_count_from_the_next_question_on(colour: str, tmp_path: Path) -> None:
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    theirs.load_cert_chain(*STRANGER.issue("server", addresses=("127.0.0.1",)).save(tmp_path, "theirs"))
    with ScriptedServer(tls=theirs) as server, Asker(colour, trusting(server, tmp_path)) as asker:
        assert asker.ask() == WRONG_SERVER
        (tmp_path / "root.pem").write_text(STRANGER.root.pem)
        asker.pause(0.05)
        assert asker.ask() == PERMITTED
        (tmp_path / "root.pem").write_text(AUTHORITY.root.pem)
        asker.pause(0.05)
        assert asker.ask() == WRONG_SERVER, (
            "a connection is used that was made by the word of an authority of yesterday"
        )


@pytest.mark.usefixtures("_quickly")
@pytest.mark.promise("P9")
def test_no_file_is_read_on_an_event_loop(served: ScriptedServer, tmp_path: Path) -> None:
    settings = trusting(served, tmp_path, AUTHORITY.issue("client"))
    with Asker("async", settings) as asker:
        assert asker.ask() == PERMITTED
        AUTHORITY.issue("client").save(tmp_path, "client")
        asker.pause(0.05)
        with blockbuster_ctx(["authz_middleware"]):
            assert asker.ask() == PERMITTED
    assert served.connections == 2


@pytest.mark.usefixtures("_quickly")
@pytest.mark.capability("C34")
def test_a_file_system_that_hangs_holds_up_nobody(colour: str, served: ScriptedServer, tmp_path: Path) -> None:
    """A named pipe that nobody writes to: opening it takes for ever."""
    with Asker(colour, trusting(served, tmp_path, AUTHORITY.issue("client"))) as asker:
        assert asker.ask() == PERMITTED
        (tmp_path / "root.pem").unlink()
        os.mkfifo(tmp_path / "root.pem")
        asker.pause(0.05)
        took = []
        for _ in range(5):
            began = time.monotonic()
            assert asker.ask() == PERMITTED
            took.append(time.monotonic() - began)
        assert max(took) < 1.0
        assert sorted(took)[2] < client_tls.PATIENCE_S, "everybody waits for a thread that hangs"
        with (tmp_path / "root.pem").open("w") as pipe:  # lets the thread go on
            pipe.write(AUTHORITY.root.pem)


@pytest.mark.usefixtures("_quickly")
def test_a_check_is_shared_by_all_who_wait_and_outlives_those_who_give_up(
    served: ScriptedServer, tmp_path: Path
) -> None:
    tls = ClientTLS(trusting(served, tmp_path, AUTHORITY.issue("client")).tls)
    before = tls.context()
    AUTHORITY.issue("client").save(tmp_path, "client")
    time.sleep(0.05)

    async def run() -> list[ssl.SSLContext]:
        given_up = [asyncio.create_task(tls.acontext()) for _ in range(3)]
        waiting = [asyncio.create_task(tls.acontext()) for _ in range(3)]
        await asyncio.sleep(0)
        for task in given_up:
            task.cancel()
        return await asyncio.gather(*waiting)

    contexts = asyncio.run(run())
    assert len(set(contexts)) == 1
    assert contexts[0] is not before
    assert tls.context() is contexts[0]


FORKING = """
import os, sys, time
from pathlib import Path
from authz_middleware.remote.transport import client_tls
from authz_middleware.settings.remote.tls import TlsSettings

client_tls.CHECK_S = 0.0
root, other = map(Path, sys.argv[1:])
tls = client_tls.ClientTLS(TlsSettings(root))
before = tls.context()
root.rename(root.with_suffix(".old"))
os.mkfifo(root)
assert tls.context() is before  # a check is under way, and stays so
tls._lock.acquire()
pid = os.fork()
if not pid:
    os.replace(other, root)
    for _ in range(100):
        if tls.context() is not before:
            os._exit(0)
        time.sleep(0.02)
    os._exit(1)
for _ in range(500):
    done, status = os.waitpid(pid, os.WNOHANG)
    if done:
        os._exit(os.waitstatus_to_exitcode(status))
    time.sleep(0.01)
os.kill(pid, 9)
os._exit(2)
"""


def test_a_forked_child_waits_for_no_check_of_its_parent(tmp_path: Path) -> None:
    root, other = tmp_path / "root.pem", tmp_path / "other.pem"
    root.write_text(AUTHORITY.root.pem)
    other.write_text(STRANGER.root.pem)
    done = subprocess.run([sys.executable, "-c", FORKING, str(root), str(other)], timeout=30, check=False)
    assert done.returncode == 0


def test_all_that_cannot_be_used_is_told_at_the_start(tmp_path: Path) -> None:
    certificate, _ = AUTHORITY.issue("client").save(tmp_path, "client")
    _, key = AUTHORITY.issue("other").save(tmp_path, "other")
    settings = TlsSettings(tmp_path / "absent.pem", KeyPair(certificate, key))
    with pytest.raises(SettingsError) as raised:
        ClientTLS(settings)
    assert [problem.where for problem in raised.value.problems] == ["remote.ca_file", "remote.client_certificate"]
    with pytest.raises(SettingsError, match=r"remote\.ca_file"):
        ClientTLS(TlsSettings(Path("a\0b")))
    spiffe = TlsSettings(key, KeyPair(certificate, tmp_path / "absent.key"), SpiffeId.parse("spiffe://a.example/pdp"))
    with pytest.raises(SettingsError) as raised:
        ClientTLS(spiffe)
    assert [problem.where for problem in raised.value.problems] == ["remote.spiffe.bundle_file", "remote.spiffe"]
    assert "PRIVATE" not in str(raised.value)


ENCRYPTED = """
import sys
from pathlib import Path
from authz_middleware.errors import SettingsError
from authz_middleware.remote.transport.client_tls import ClientTLS
from authz_middleware.settings.remote.tls import KeyPair, TlsSettings
try:
    ClientTLS(TlsSettings(None, KeyPair(*map(Path, sys.argv[1:]))))
except SettingsError:
    sys.exit(7)
"""


def test_nobody_is_asked_for_the_password_of_a_key(tmp_path: Path) -> None:
    """OpenSSL would, at the terminal, and wait."""
    holder = AUTHORITY.issue("client")
    certificate, key = holder.save(tmp_path, "client")
    lock = serialization.BestAvailableEncryption(b"secret")
    key.write_bytes(
        holder.key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, lock)
    )
    pid, terminal = pty.fork()
    if not pid:
        os.execv(sys.executable, [sys.executable, "-c", ENCRYPTED, str(certificate), str(key)])
    try:
        for _ in range(1000):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                break
            time.sleep(0.02)
        else:
            os.kill(pid, 9)
            _, status = os.waitpid(pid, 0)
    finally:
        os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 7


DOMAIN = SvidAuthority()
PDP = f"{DOMAIN.id}/pdp"


def by_spiffe(server: ScriptedServer, folder: Path, **more: object) -> RemoteSettings:
    return RemoteSettings(
        url=server.url,
        deadline=5.0,
        ca_file=DOMAIN.bundle(folder),
        client_certificate=KeyPair(*DOMAIN.issue(f"{DOMAIN.id}/billing").save(folder, "svid")),
        server_id=SpiffeId.parse(PDP),
        **more,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("local", [False, True], ids=["network", "unix socket"])
def test_a_point_is_known_by_its_spiffe_id_and_not_by_its_host(colour: str, tmp_path: Path, local: bool) -> None:
    path = tmp_path / "pdp.sock" if local else None
    context = DOMAIN.server_context(tmp_path, DOMAIN.issue(PDP))
    with (
        ScriptedServer(tls=context, unix=path) as server,
        Asker(colour, by_spiffe(server, tmp_path, unix_socket=path)) as asker,
    ):
        assert [asker.ask(), asker.ask()] == [PERMITTED] * 2
        assert server.connections == 1
        shown = x509.load_pem_x509_certificate((tmp_path / "svid.pem").read_bytes())
        assert serial_shown(server) == shown.serial_number


def test_a_point_whose_certificate_is_for_servers_only_is_known_by_it(colour: str, tmp_path: Path) -> None:
    shown = DOMAIN.issue(PDP, purposes=(ExtendedKeyUsageOID.SERVER_AUTH,))
    context = DOMAIN.server_context(tmp_path, shown)
    with ScriptedServer(tls=context) as server, Asker(colour, by_spiffe(server, tmp_path)) as asker:
        assert asker.ask() == PERMITTED


@pytest.mark.capability("C30")
@pytest.mark.parametrize("local", [False, True], ids=["network", "unix socket"])
@pytest.mark.parametrize(
    "who",
    ["another id", "another trust domain", "an id that begins alike", "two ids", "no id", "another's word", "expired"],
)
def test_nobody_else_is_told_the_question(colour: str, tmp_path: Path, who: str, local: bool) -> None:
    other = SvidAuthority(DOMAIN.id.removeprefix("spiffe://"))
    shown = {
        "another id": DOMAIN.issue(f"{DOMAIN.id}/billing"),
        "another trust domain": DOMAIN.issue("spiffe://other.example.org/pdp"),
        "an id that begins alike": DOMAIN.issue(f"{PDP}/canary"),
        "two ids": DOMAIN.issue(PDP, f"{DOMAIN.id}/billing"),
        "no id": DOMAIN.issue(dns=("pdp.test", "localhost")),
        "another's word": other.issue(PDP),
        "expired": DOMAIN.issue(PDP, days=-0.5),
    }[who]
    path = tmp_path / "pdp.sock" if local else None
    context = DOMAIN.server_context(tmp_path, shown)
    context.verify_mode = ssl.CERT_NONE
    with ScriptedServer(tls=context, unix=path) as server:
        settings = by_spiffe(server, tmp_path, unix_socket=path)
        with Asker(colour, settings) as asker:
            assert [asker.ask(), asker.ask()] == [WRONG_SERVER] * 2
    assert not server.requests


@pytest.mark.usefixtures("_quickly")
def test_a_replaced_bundle_counts_from_the_next_question_on(colour: str, tmp_path: Path) -> None:
    renewed = SvidAuthority(DOMAIN.id.removeprefix("spiffe://"))
    context = renewed.server_context(tmp_path, renewed.issue(PDP))
    context.verify_mode = ssl.CERT_NONE
    with ScriptedServer(tls=context) as server, Asker(colour, by_spiffe(server, tmp_path)) as asker:
        assert asker.ask() == WRONG_SERVER
        renewed.bundle(tmp_path)
        asker.pause(0.05)
        assert asker.ask(QUERY) == PERMITTED
