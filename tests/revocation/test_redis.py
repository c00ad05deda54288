"""The Redis store against a real server: what one host revokes the others know, and nothing that happens to the server
or the line passes for "nothing is revoked"."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, Self

import msgspec
import pytest
import redis

from authz_middleware.errors import SettingsError
from authz_middleware.revocation import redis_follower, redis_records
from authz_middleware.revocation.entry import Scope
from authz_middleware.revocation.redis import RedisStore
from authz_middleware.revocation.redis_records import Records
from authz_middleware.revocation.redis_replica import Replica
from authz_middleware.revocation.store import StoreUnavailableError, Trouble
from authz_middleware.settings.secret import Secret
from tests.support.redis_server import RedisServer
from tests.support.revocations import DAY, NOW, caller, revocation, subject

LAG = 1.0
CHANNEL = "{authz:revocations}:changes"

_BEGAN: Final = time.monotonic()


def ticking() -> float:
    """A clock that began at NOW."""
    return NOW + time.monotonic() - _BEGAN


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path) as server:
        yield server


@pytest.fixture
def open_store(server: RedisServer) -> Iterator[Callable[..., RedisStore]]:
    """Makes started stores, each as another host would."""
    stores: list[RedisStore] = []

    def make(port: int | None = None, clock: Callable[[], float] = lambda: NOW, max_lag: float = LAG) -> RedisStore:
        store = RedisStore(server.settings(port=port), max_lag=max_lag, clock=clock)
        stores.append(store)
        store.start()
        return store

    yield make
    for store in stores:
        store.close()


@pytest.fixture
def store(open_store: Callable[..., RedisStore]) -> RedisStore:
    return open_store()


def eventually(holds: Callable[[], bool], seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def trouble(store: RedisStore, now: float = NOW) -> Trouble | None:
    return store.reading(now).trouble


def known(store: RedisStore) -> list[str]:
    index = store.reading(NOW).index
    return [] if index is None else sorted(str(entry.value) for entry in index.entries.values())


# ---- sharing


@pytest.mark.capability("C18", "C51")
@pytest.mark.promise("P5")
def test_what_one_host_revokes_and_lifts_the_others_know(open_store: Callable[..., RedisStore]) -> None:
    here, there = open_store(), open_store()
    before = there.reading(NOW)
    assert before.trouble is None
    here.add([subject(), subject("bob")])
    assert eventually(lambda: known(there) == ["alice", "bob"])
    after = there.reading(NOW)
    assert after.index is not None
    assert after.index.find(caller(), NOW) == subject()
    assert after.epoch != before.epoch
    assert there.withdraw([subject().id, "nothing"]) == 1
    assert eventually(lambda: known(here) == ["bob"])
    assert list(here.entries()) == [subject("bob")]


@pytest.mark.promise("P5")
def test_one_s_own_revocation_counts_as_soon_as_it_is_acknowledged(store: RedisStore) -> None:
    for number in range(50):
        store.add([subject(str(number))])
        assert str(number) in known(store)


def test_who_comes_later_knows_all_of_it(open_store: Callable[..., RedisStore]) -> None:
    open_store().add([subject(str(number)) for number in range(1_200)])
    late = open_store()
    assert trouble(late) is None
    assert len(known(late)) == 1_200


def test_a_revocation_never_ends_sooner_for_being_made_again(store: RedisStore) -> None:
    long = subject(expires_at=NOW + 9 * DAY)
    store.add([long])
    store.add([subject()])
    store.add([subject("bob"), subject("bob", expires_at=NOW + 9 * DAY), subject("bob")])
    ends = {entry.value: entry.expires_at for entry in store.entries()}
    assert ends == {"alice": NOW + 9 * DAY, "bob": NOW + 9 * DAY}


def test_writing_what_is_there_already_changes_nothing(store: RedisStore, server: RedisServer) -> None:
    store.add([subject()])
    with server.client() as client:
        before = client.get("{authz:revocations}:seq")
        epoch = store.reading(NOW).epoch
        store.add([subject()])
        store.withdraw(["nothing"])
        assert client.get("{authz:revocations}:seq") == before
    assert store.reading(NOW).epoch == epoch


def test_hosts_that_write_at_once_lose_nothing(open_store: Callable[..., RedisStore]) -> None:
    stores = [open_store() for _ in range(3)]

    def write(number: int) -> None:
        for i in range(30):
            stores[number].add([subject(f"{number}-{i}")])

    writers = [threading.Thread(target=write, args=(number,)) for number in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(stores[0].entries()) == 90
    assert all(eventually(lambda store=store: len(known(store)) == 90) for store in stores)


def test_what_is_long_gone_leaves_the_server(open_store: Callable[..., RedisStore], server: RedisServer) -> None:
    now = [NOW]
    store = open_store(clock=lambda: now[0])
    store.add(
        [subject("ends"), subject("lifted", expires_at=NOW + 30 * DAY), subject("stays", expires_at=NOW + 30 * DAY)]
    )
    store.withdraw([subject("lifted").id])
    now[0] += 3 * DAY
    store.add([subject("new", now=now[0])])
    assert sorted(str(entry.value) for entry in store.entries()) == ["new", "stays"]
    with server.client() as client:
        assert client.zcard("{authz:revocations}:withdrawn") == 0
        assert client.zcard("{authz:revocations}:ends") == 2


# ---- not knowing


@pytest.mark.promise("P3")
def test_before_the_first_snapshot_nothing_is_known(server: RedisServer) -> None:
    server.kill()
    store = RedisStore(server.settings(), max_lag=LAG, clock=ticking)
    assert trouble(store) is Trouble.NOT_STARTED
    store.start()
    reading = store.reading(ticking())
    assert (reading.trouble, reading.index, store.lag(ticking())) == (Trouble.UNREACHABLE, None, None)
    server.start()
    assert eventually(lambda: trouble(store, ticking()) is None)
    store.close()
    assert trouble(store) is Trouble.NOT_STARTED


@pytest.mark.capability("C18")
@pytest.mark.promise("P3", "P5")
@pytest.mark.parametrize("fault", ["freeze", "kill"])
def test_a_server_that_falls_silent_is_noticed_within_the_lag(
    open_store: Callable[..., RedisStore], server: RedisServer, fault: str
) -> None:
    store = open_store(clock=ticking)
    store.add([subject()])
    began = time.monotonic()
    getattr(server, fault)()
    assert eventually(lambda: trouble(store, ticking()) is Trouble.LAG)
    assert time.monotonic() - began < LAG + 0.5
    assert known(store) == ["alice"]
    if fault == "freeze":
        server.thaw()
    else:
        server.start()
    assert eventually(lambda: trouble(store, ticking()) is None)
    assert known(store) == ["alice"]


@pytest.mark.promise("P10")
def test_a_check_waits_for_nobody_while_the_server_is_frozen(store: RedisStore, server: RedisServer) -> None:
    server.freeze()
    longest = 0.0
    end = time.monotonic() + 1.5 * LAG
    while time.monotonic() < end:
        began = time.perf_counter()
        store.reading(NOW)
        longest = max(longest, time.perf_counter() - began)
        time.sleep(0.001)
    server.thaw()
    assert longest < 0.1


def test_writing_to_a_frozen_server_fails_and_says_so(store: RedisStore, server: RedisServer) -> None:
    server.freeze()
    with pytest.raises(StoreUnavailableError) as caught:
        store.add([subject()])
    server.thaw()
    assert caught.value.trouble is Trouble.UNREACHABLE
    assert f"127.0.0.1:{server.port}" in str(caught.value)


@pytest.mark.promise("P5")
@pytest.mark.parametrize(("wall", "late"), [(0.0, None), (LAG + 0.5, Trouble.LAG), (-3600.0, None)])
def test_both_clocks_tell_how_old_the_knowledge_is(wall: float, late: Trouble | None) -> None:
    """A machine that was suspended finds an hour gone by one clock only; a clock that is set back makes nothing new."""
    replica = Replica(lambda: NOW)
    replica.take(1, [], [])
    replica.confirm(replica.moment())
    assert replica.reading(NOW + wall, LAG).trouble is late
    replica.confirm((NOW, time.monotonic() - LAG - 0.5))
    assert replica.reading(NOW + wall, LAG).trouble is Trouble.LAG


@pytest.mark.promise("P3")
@pytest.mark.parametrize("damage", [b"{}", b"garbage", b"\xff"])
def test_a_revocation_that_cannot_be_read_is_not_passed_over(
    open_store: Callable[..., RedisStore], server: RedisServer, damage: bytes
) -> None:
    with server.client() as client:
        client.hset("{authz:revocations}:entries", "x", damage)
    store = open_store()
    assert trouble(store) is Trouble.UNREACHABLE
    with pytest.raises(StoreUnavailableError) as caught:
        store.entries()
    assert caught.value.trouble is Trouble.CORRUPT


@pytest.mark.promise("P5")
@pytest.mark.parametrize("message", [b"garbage", b'{"seq": 99}', b'{"seq": 1}', b"{}"])
def test_a_change_that_does_not_follow_has_everything_read_again(
    store: RedisStore, server: RedisServer, message: bytes
) -> None:
    store.add([subject("1")])
    store.add([subject("2")])
    with server.client() as client:
        # Nobody is told of this one, as if the message had been lost.
        client.hset("{authz:revocations}:entries", subject().id, msgspec.json.encode(subject()))
        client.publish(CHANNEL, message)
    assert eventually(lambda: known(store) == ["1", "2", "alice"])
    assert trouble(store) is None


# ---- what the server loses


@pytest.mark.promise("P5")
@pytest.mark.parametrize("how", ["killed", "flushed"])
def test_what_the_server_has_lost_is_put_back_by_who_knew_it(
    open_store: Callable[..., RedisStore], server: RedisServer, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = open_store()
    store.add([subject(), subject("bob"), subject("lifted")])
    store.withdraw([subject("lifted").id])
    if how == "killed":
        server.kill()
        server.start()
    else:
        with server.client() as client:
            client.flushall()
        other = Records(server.settings(), timeout=LAG, clock=lambda: NOW)
        other.add([subject("new")])  # by which the loss is noticed
        other.close()
    expected = ["alice", "bob", *(["new"] if how == "flushed" else [])]
    assert eventually(lambda: sorted(str(entry.value) for entry in _listed(store)) == expected)
    assert eventually(lambda: trouble(store) is None and known(store) == expected)
    assert "had lost 2 revocations" in caplog.text
    late = open_store()
    assert known(late) == expected


def _listed(store: RedisStore) -> list[Any]:
    try:
        return list(store.entries())
    except StoreUnavailableError:
        return []


@pytest.mark.promise("P5")
def test_what_others_lifted_meanwhile_is_not_put_back(
    open_store: Callable[..., RedisStore], server: RedisServer
) -> None:
    with Line(server.port) as line:
        store = open_store(port=line.port)
        store.add([subject(), subject("bob")])
        line.cut()
        other = open_store()
        other.withdraw([subject().id])
        other.add([subject("carol")])
        line.mend()
        assert eventually(lambda: known(store) == ["bob", "carol"])
        assert sorted(str(entry.value) for entry in other.entries()) == ["bob", "carol"]


# ---- the line


class Line:
    """A TCP proxy that can be cut (connections end), silenced (bytes stay where they are), or made to forget (bytes of
    the connections there are go nowhere, for good). Each is in effect when the call returns."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._forgotten: list[tuple[socket.socket, socket.socket]] = []
        self._broken = threading.Event()
        self._paused = threading.Event()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._carry, daemon=True)

    def silence(self) -> None:
        self._broken.set()
        self._paused.wait(5)

    def cut(self) -> None:
        self.silence()
        self._drop_all()

    def mend(self) -> None:
        self._paused.clear()
        self._broken.clear()

    def forget(self) -> None:
        self.silence()
        self._forgotten += self._pairs
        self._pairs = []
        self.mend()

    def _carry(self) -> None:
        while not self._done.is_set():
            if self._broken.is_set():
                self._paused.set()
                time.sleep(0.01)
                continue
            ends = {end: other for a, b in self._pairs for end, other in ((a, b), (b, a))}
            ready, _, _ = select.select([self._listener, *ends], [], [], 0.01)
            for end in ready:
                if end is self._listener:
                    client, _ = self._listener.accept()
                    self._pairs.append((client, socket.create_connection(("127.0.0.1", self._target))))
                else:
                    self._pass_on(end, ends[end])

    def _pass_on(self, end: socket.socket, other: socket.socket) -> None:
        try:
            data = end.recv(65536)
            other.sendall(data)
        except OSError:
            data = b""
        if not data:
            self._pairs = [pair for pair in self._pairs if end not in pair]
            end.close()
            other.close()

    def _drop_all(self) -> None:
        for pair in (*self._pairs, *self._forgotten):
            for end in pair:
                end.close()
        self._pairs, self._forgotten = [], []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self._drop_all()
        self._listener.close()


@pytest.mark.promise("P5")
@pytest.mark.parametrize("fault", ["cut", "silence"])
def test_a_host_that_is_cut_off_knows_that_it_does_not_know(
    open_store: Callable[..., RedisStore], server: RedisServer, fault: str
) -> None:
    with Line(server.port) as line:
        store = open_store(port=line.port, clock=ticking)
        assert trouble(store, ticking()) is None
        getattr(line, fault)()
        open_store().add([subject()])
        assert eventually(lambda: trouble(store, ticking()) is Trouble.LAG)
        assert known(store) == []
        line.mend()
        assert eventually(lambda: trouble(store, ticking()) is None)
        assert known(store) == ["alice"]


@pytest.mark.promise("P5")
def test_a_connection_that_is_dead_without_an_end_is_given_up(
    open_store: Callable[..., RedisStore], server: RedisServer
) -> None:
    """As when a router between has forgotten it."""
    with Line(server.port) as line:
        store = open_store(port=line.port, clock=ticking)
        line.forget()
        open_store().add([subject()])
        assert eventually(lambda: known(store) == ["alice"] and trouble(store, ticking()) is None)


@pytest.mark.promise("P5")
def test_an_answer_proves_what_was_known_when_it_was_asked_for(server: RedisServer) -> None:
    records, replica = Records(server.settings(), timeout=LAG), Replica(lambda: NOW)
    follower = redis_follower.Follower(records, replica, beat=LAG, patience=LAG)
    stream = redis_follower._Stream(replica, 0)
    stream.pinged = (NOW - 0.3, time.monotonic() - 0.3)
    follower._take({"type": "pong"}, stream)
    age = replica.age(NOW)
    assert age is not None
    assert age >= 0.3
    records.close()


def change(seq: int) -> bytes:
    return msgspec.json.encode(redis_records.Change(seq))


@pytest.mark.promise("P5")
@pytest.mark.parametrize(
    ("seqs", "settled", "good"),
    [
        ([], True, True),
        ([5], False, True),
        ([3, 4, 5], False, True),  # published before the snapshot of change 4, and in it
        ([4], True, True),
        ([6], False, False),
        ([5, 7], False, False),
        ([5, 5], False, False),
        ([5, 4], False, False),
        ([1], True, False),  # the server was emptied and counts anew
        ([3], True, False),
    ],
)
def test_changes_that_do_not_follow_are_noticed(seqs: list[int], settled: bool, good: bool) -> None:
    stream = redis_follower._Stream(Replica(lambda: NOW), 4)
    try:
        for seq in seqs:
            stream.take(change(seq))
        if settled:
            stream.settle()
        happened = True
    except StoreUnavailableError:
        happened = False
    assert happened is good


@pytest.mark.promise("P5")
def test_what_is_published_between_the_subscription_and_the_snapshot_is_not_lost(
    open_store: Callable[..., RedisStore], server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first snapshot is held back; what others do around it must all be known."""
    other = Records(server.settings(), timeout=LAG, clock=lambda: NOW)
    other.add([subject("before")])
    real, first = Records.snapshot, [True]

    def slow(records: Records) -> Any:
        if not first[0]:
            return real(records)
        first[0] = False
        other.add([subject("1")])
        other.withdraw([subject("before").id])
        taken = real(records)
        other.add([subject("2")])
        other.withdraw([subject("1").id])
        return taken

    monkeypatch.setattr(redis_records.Records, "snapshot", slow)
    store = open_store()
    assert eventually(lambda: known(store) == ["2"])
    time.sleep(2 * LAG)
    assert (known(store), trouble(store)) == (["2"], None)
    other.close()


@pytest.mark.promise("P5")
def test_a_message_that_is_lost_is_missed_and_everything_read_again(
    store: RedisStore, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, lost = redis_follower.Follower._take, []

    def lossy(follower: Any, message: dict[str, Any], stream: Any) -> None:
        if message["type"] == "message" and not lost:
            lost.append(message)
        else:
            real(follower, message, stream)

    monkeypatch.setattr(redis_follower.Follower, "_take", lossy)
    other = Records(server.settings(), timeout=LAG, clock=lambda: NOW)
    other.add([subject("lost")])
    assert eventually(lambda: bool(lost))
    other.add([subject("seen")])
    other.close()
    assert eventually(lambda: known(store) == ["lost", "seen"])


@pytest.mark.promise("P5")
def test_a_connection_that_the_server_ends_is_made_anew(store: RedisStore, server: RedisServer) -> None:
    with server.client() as client:
        for round_ in range(3):
            client.client_kill_filter(_type="pubsub")
            store.add([subject(str(round_))])
            assert eventually(lambda round_=round_: str(round_) in known(store))
    assert trouble(store) is None


# ---- credentials


@pytest.mark.promise("P6")
def test_a_password_is_read_where_it_lies_and_shown_nowhere(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    secret = tmp_path / "password"
    secret.write_text("wrong-hunter2")
    with RedisServer(tmp_path, password="right-hunter2") as server:
        store = RedisStore(server.settings(password=Secret(file=secret)), max_lag=LAG, clock=lambda: NOW)
        store.start()
        assert trouble(store) is Trouble.UNREACHABLE
        with pytest.raises(StoreUnavailableError) as caught:
            store.add([subject()])
        secret.write_text("right-hunter2")
        assert eventually(lambda: trouble(store) is None)
        store.add([subject()])
        secret.unlink()
        with server.client() as client:
            client.client_kill_filter(_type="normal", skipme=True)
        shown = [repr(store), repr(vars(store)), repr(server.settings(password=Secret(file=secret))), caplog.text]
        store.close()
    shown += [repr(caught.value), str(caught.value), repr(caught.value.__cause__)]
    assert "hunter2" not in "".join(shown)
    assert "AuthenticationError" in caplog.text


def test_a_server_that_lets_nobody_write_is_said_to_be_so(tmp_path: Path) -> None:
    with RedisServer(tmp_path, "--maxmemory", "1", "--maxmemory-policy", "noeviction") as server:
        store = RedisStore(server.settings(), max_lag=LAG)
        with pytest.raises(StoreUnavailableError) as caught:
            store.add([revocation(Scope.EVERYTHING)])
        store.close()
    assert caught.value.trouble in (Trouble.FULL, Trouble.UNREACHABLE)


def test_without_the_extra_the_settings_are_wrong(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name == "redis" or name.startswith("redis.")]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("redis_records", "redis_follower"):
        monkeypatch.delitem(sys.modules, f"authz_middleware.revocation.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(SettingsError, match=r"install authz-middleware\[redis\]"):
        RedisStore(server.settings())


# ---- processes


def test_a_forked_worker_follows_by_itself(open_store: Callable[..., RedisStore]) -> None:
    store = open_store(clock=ticking)
    other = open_store()
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.write(writer, b"x")
            if eventually(lambda: known(store) == ["alice"]) and trouble(store, ticking()) is None:
                time.sleep(2 * LAG)
                store.add([subject("child")])
                code = 0 if trouble(store, ticking()) is None and "child" in known(store) else 2
        finally:
            os._exit(code)
    os.read(reader, 1)
    other.add([subject()])
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    os.close(reader)
    os.close(writer)
    assert eventually(lambda: known(store) == ["alice", "child"])


def test_the_process_ends_though_nobody_closed_the_store(server: RedisServer) -> None:
    code = (
        "import sys; from authz_middleware.revocation.redis import RedisStore\n"
        "from authz_middleware.settings.revocations import RedisSettings\n"
        f"s = RedisStore(RedisSettings('127.0.0.1', {server.port}, tls=False), max_lag=1.0); s.start()\n"
        "import time; print(s.reading(time.time()).trouble)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "None\n", "")


@pytest.mark.promise("P5")
def test_under_load_every_acknowledged_revocation_survives_faults_of_the_server(
    open_store: Callable[..., RedisStore], server: RedisServer
) -> None:
    """A server that keeps its data is frozen, and its followers are thrown out, while two hosts write."""
    stores = [open_store(clock=ticking) for _ in range(2)]
    acknowledged: list[str] = []
    stop = threading.Event()

    def write(number: int) -> None:
        count = 0
        while not stop.is_set():
            count += 1
            try:
                stores[number].add([subject(f"{number}-{count}")])
            except StoreUnavailableError:
                continue
            acknowledged.append(f"{number}-{count}")

    writers = [threading.Thread(target=write, args=(number,)) for number in range(2)]
    for writer in writers:
        writer.start()
    for _ in range(3):
        time.sleep(0.2)
        server.freeze()
        time.sleep(LAG * 0.8)
        server.thaw()
        with server.client() as client:
            client.client_kill_filter(_type="pubsub")
    time.sleep(0.2)
    stop.set()
    for writer in writers:
        writer.join()
    assert acknowledged
    for store in stores:
        assert eventually(lambda store=store: {*acknowledged} <= {*known(store)})
        assert eventually(lambda store=store: trouble(store, ticking()) is None)


def test_the_library_does_not_retry_behind_our_back(server: RedisServer) -> None:
    client = redis_records.connect(server.settings(), LAG)
    server.kill()
    began = time.monotonic()
    with pytest.raises(redis.exceptions.ConnectionError):
        client.ping()
    assert time.monotonic() - began < 0.5
    client.close()
