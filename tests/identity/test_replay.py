"""A proof is spent once: across threads, processes, forks and clocks, and never again after it was forgotten."""

from __future__ import annotations

import os
import signal
import sqlite3
import stat
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authz_middleware.identity.possession.replay import MemoryReplay, ReplayStore, ReplayUnavailableError
from authz_middleware.identity.possession.replay_file import FileReplay

pytestmark = [
    pytest.mark.capability("C19"),
    pytest.mark.promise("P3"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),  # tests that fork
]

NOW = 1_750_000_000.0
WINDOW = 65.0
UNTIL = NOW + 60


def key(number: int) -> bytes:
    return number.to_bytes(16, "big")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "dpop.db"


@pytest.fixture
def file(path: Path) -> Iterator[FileReplay]:
    store = FileReplay(path, window=WINDOW, wait=5.0)
    yield store
    store.close()


@pytest.fixture(params=["memory", "file"])
def store(request: pytest.FixtureRequest, file: FileReplay) -> ReplayStore:
    return MemoryReplay() if request.param == "memory" else file


def in_child(holds: Callable[[], bool]) -> bool:
    """Whether something holds in a forked child."""
    child = os.fork()
    if child == 0:
        signal.alarm(10)  # one that waits for a lock for ever must not outlive its test
        code = 2
        try:
            code = 0 if holds() else 1
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def rows(path: Path) -> int:
    connection = sqlite3.connect(path)
    (count,) = connection.execute("SELECT count(*) FROM spent").fetchone()
    connection.close()
    return int(count)


# Any store


def test_a_proof_is_spent_once(store: ReplayStore) -> None:
    store.start()
    assert store.spend(key(1), UNTIL, NOW) is True
    assert store.spend(key(1), UNTIL, NOW) is False
    assert store.spend(key(1), UNTIL + 5, NOW) is False
    assert store.spend(key(2), UNTIL, NOW) is True


def test_a_proof_is_remembered_until_it_ends(store: ReplayStore) -> None:
    assert store.spend(key(1), UNTIL, NOW)
    assert not store.spend(key(1), UNTIL, UNTIL - 0.001)


def test_nothing_is_taken_again_that_may_have_been_forgotten(store: ReplayStore) -> None:
    """Time has gone on far enough to forget a proof, and then jumps back (or another request was slower)."""
    assert store.spend(key(1), UNTIL, NOW)
    assert store.spend(key(2), UNTIL + 3600, NOW + 3600)
    assert not store.spend(key(1), UNTIL, NOW)
    assert not store.spend(key(3), UNTIL, NOW)
    assert store.spend(key(4), UNTIL + 0.001, NOW)


def test_a_clock_that_was_wrong_for_a_moment_does_not_refuse_for_long(store: ReplayStore) -> None:
    year = 365 * 86_400
    assert store.spend(key(1), UNTIL, NOW)
    assert store.spend(key(2), UNTIL + year, NOW + year)
    assert store.spend(key(3), UNTIL + 10, NOW + 10)


def test_of_many_threads_exactly_one_spends_a_proof(store: ReplayStore) -> None:
    threads, proofs = 8, 50
    barrier = threading.Barrier(threads)

    def spend_all(_: int) -> list[bool]:
        barrier.wait(10)
        return [store.spend(key(number), UNTIL, NOW) for number in range(proofs)]

    with ThreadPoolExecutor(threads) as pool:
        outcomes = list(pool.map(spend_all, range(threads)))
    assert [sum(won) for won in zip(*outcomes, strict=True)] == [1] * proofs


class _SlowKey(bytes):
    """Lets the other threads run whenever it is looked up."""

    def __hash__(self) -> int:
        time.sleep(0.002)
        return super().__hash__()


def test_between_looking_and_remembering_no_other_thread_gets_in() -> None:
    store = MemoryReplay()
    with ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(lambda _: store.spend(_SlowKey(b"one"), UNTIL, NOW), range(4)))
    assert sorted(outcomes) == [False, False, False, True]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 20), st.integers(-10, 30)), max_size=30))
def test_however_clocks_run_no_proof_is_spent_twice(steps: list[tuple[int, int, int]]) -> None:
    """A proof is a number and an end; the clock is wherever it likes to be."""
    store, spent, now = MemoryReplay(), set(), NOW
    for number, age, step in steps:
        now += step
        proof = (key(number), NOW + age)
        first = store.spend(*proof, now)
        assert not (first and proof in spent)
        if first:
            spent.add(proof)


# In memory


def test_memory_is_bounded_and_refuses_loudly_when_it_is_full() -> None:
    store = MemoryReplay(capacity=3)
    assert all(store.spend(key(number), UNTIL + number, NOW) for number in range(3))
    with pytest.raises(ReplayUnavailableError, match="3 proofs"):
        store.spend(key(9), UNTIL, NOW)
    assert not store.spend(key(0), UNTIL, NOW)
    assert store.spend(key(9), UNTIL + 60, UNTIL)
    assert len(store) == 3


def test_memory_is_given_back_when_proofs_have_ended() -> None:
    store = MemoryReplay()
    for number in range(1000):
        store.spend(key(number), NOW + number + 10, NOW + number)
    assert len(store) == 10


def test_a_forked_child_is_not_held_up_by_a_lock_of_its_parent() -> None:
    store = MemoryReplay()
    with store._lock:
        assert in_child(lambda: store.spend(key(1), UNTIL, NOW))


# In a file

WORKER = textwrap.dedent("""
    import pathlib, sys, time
    from authz_middleware.identity.possession.replay_file import FileReplay
    path, begin, count = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
    store = FileReplay(pathlib.Path(path), window=65.0, wait=10.0)
    while time.time() < begin:
        pass
    print(*[int(store.spend(number.to_bytes(16, "big"), 2e9, 1.9e9)) for number in range(count)])
    store.close()
""")
ROOT = Path(__file__).parents[2]


def test_of_two_processes_exactly_one_spends_a_proof(path: Path) -> None:
    """They meet at the very first use as well, when there is no file yet."""
    count, begin = 300, time.time() + 1.5
    command = [sys.executable, "-c", WORKER, str(path), str(begin), str(count)]
    workers = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [worker.communicate(timeout=60)[0].split() for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0]
    assert [len(output) for output in outputs] == [count, count]
    won = [int(one) + int(other) for one, other in zip(*outputs, strict=True)]
    assert won == [1] * count


def test_a_forked_child_and_its_parent_remember_the_same(path: Path, file: FileReplay) -> None:
    assert file.spend(key(1), UNTIL, NOW)

    def spend() -> bool:
        knows, first = not file.spend(key(1), UNTIL, NOW), file.spend(key(2), UNTIL, NOW)
        file.close()
        return knows and first

    with file._lock:  # another thread may hold it at the moment of the fork
        assert in_child(spend)
    assert not file.spend(key(2), UNTIL, NOW)
    assert file.spend(key(3), UNTIL, NOW)
    assert rows(path) == 3


def test_a_connection_never_crosses_a_fork(file: FileReplay) -> None:
    file.spend(key(1), UNTIL, NOW)
    parents = file._connection

    def leaves_it_alone() -> bool:
        spent = file._connection is None and file.spend(key(2), UNTIL, NOW)
        return spent and parents is not None and parents.total_changes >= 0  # raises where it has been closed

    assert in_child(leaves_it_alone)
    assert file._connection is parents


def test_starting_leaves_no_connection_that_a_fork_could_carry_over(path: Path, file: FileReplay) -> None:
    file.start()
    assert path.exists()
    assert file._connection is None


def test_what_is_spent_outlives_the_process(path: Path, file: FileReplay) -> None:
    assert file.spend(key(1), UNTIL, NOW)
    file.close()
    again = FileReplay(path, window=WINDOW)
    again.start()
    assert not again.spend(key(1), UNTIL, NOW)
    again.close()


def test_nobody_else_may_read_or_write_the_file(path: Path, file: FileReplay) -> None:
    previous = os.umask(0)
    try:
        file.spend(key(1), UNTIL, NOW)
    finally:
        os.umask(previous)
    modes = {entry.name: stat.S_IMODE(entry.stat().st_mode) for entry in path.parent.iterdir()}
    assert set(modes) >= {"dpop.db", "dpop.db-wal"}
    assert set(modes.values()) == {0o600}


def test_ended_proofs_leave_the_file(path: Path, file: FileReplay) -> None:
    for number in range(100):
        file.spend(key(number), NOW + number + 10, NOW + number)
    assert rows(path) <= 11


def test_the_file_does_not_keep_everything_because_time_has_jumped_back(path: Path, file: FileReplay) -> None:
    file.spend(key(0), UNTIL + 1e6, NOW + 1e6)
    for number in range(1, 100):
        file.spend(key(number), NOW + number + 10, NOW + number)
    assert rows(path) <= 12


def test_forgetting_many_takes_several_turns(path: Path, file: FileReplay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("authz_middleware.identity.possession.replay_file._SWEEP_ROWS", 10)
    for number in range(35):
        file.spend(key(number), UNTIL + number / 100, NOW)
    later, counts = NOW + 1000, []
    for number in range(100, 105):
        assert file.spend(key(number), later + 60, later)
        counts.append(rows(path) - (number - 99))
    assert counts == [25, 15, 5, 0, 0]


def test_a_file_that_is_full_refuses_and_recovers(path: Path) -> None:
    store = FileReplay(path, window=WINDOW, max_bytes=64 * 1024)
    spent = 0
    with pytest.raises(ReplayUnavailableError, match="SQLITE_FULL"):  # noqa: PT012 - it is full at some time
        for number in range(10_000):
            assert store.spend(key(number), UNTIL, NOW)
            spent = number + 1
    assert spent > 100
    with pytest.raises(ReplayUnavailableError):
        store.spend(key(20_000), UNTIL, NOW)
    assert store.spend(key(20_000), UNTIL + 60, UNTIL)
    assert path.stat().st_size <= 64 * 1024
    store.close()


def test_a_file_that_another_process_holds_refuses_within_the_wait(path: Path) -> None:
    store = FileReplay(path, window=WINDOW, wait=0.2)
    assert store.spend(key(1), UNTIL, NOW)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    begin = time.monotonic()
    with pytest.raises(ReplayUnavailableError, match="SQLITE_BUSY"):
        store.spend(key(2), UNTIL, NOW)
    assert time.monotonic() - begin < 5
    other.execute("ROLLBACK")
    other.close()
    time.sleep(0.25)
    assert store.spend(key(2), UNTIL, NOW)
    store.close()


def test_not_every_request_waits_for_a_file_that_somebody_holds(path: Path) -> None:
    store = FileReplay(path, window=WINDOW, wait=0.2)
    store.start()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    begin = time.monotonic()
    for number in range(50):
        with pytest.raises(ReplayUnavailableError):
            store.spend(key(number), UNTIL, NOW)
    assert time.monotonic() - begin < 5
    other.close()
    store.close()


def test_a_thread_does_not_wait_for_ever_for_another(path: Path) -> None:
    store = FileReplay(path, window=WINDOW, wait=0.05)
    store._lock.acquire()
    other = threading.Timer(1.0, store._lock.release)
    other.start()
    with pytest.raises(ReplayUnavailableError, match="other threads"):
        store.spend(key(1), UNTIL, NOW)
    other.join()
    store.close()


def test_a_file_that_is_not_written_ahead_yet_is_waited_for(path: Path, file: FileReplay) -> None:
    """SQLite itself does not wait here."""
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    release = threading.Timer(0.3, other.close)
    release.start()
    assert file.spend(key(1), UNTIL, NOW)
    release.join()


def test_a_file_system_without_a_write_ahead_log_refuses(
    path: Path, file: FileReplay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that cannot share memory between processes; here by SQLite's own locks of that kind."""
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda at, **more: connect(f"file:{at}?vfs=unix-dotfile", uri=True, **more))
    with pytest.raises(ReplayUnavailableError, match="no write-ahead log"):
        file.spend(key(1), UNTIL, NOW)


def test_a_failure_halfway_holds_nobody_up(path: Path, file: FileReplay, monkeypatch: pytest.MonkeyPatch) -> None:
    assert file.spend(key(1), UNTIL, NOW)
    with monkeypatch.context() as patch:
        patch.setattr(
            "authz_middleware.identity.possession.replay_file._ENDED", "SELECT max(until), count(*) FROM nothing, ?, ?"
        )
        with pytest.raises(ReplayUnavailableError, match="SQLITE_ERROR"):
            file.spend(key(2), UNTIL, NOW + 2)
    other = FileReplay(path, window=WINDOW, wait=0.2)
    assert other.spend(key(2), UNTIL, NOW)
    other.close()
    assert not file.spend(key(2), UNTIL, NOW)


def test_an_interruption_halfway_holds_nobody_up(path: Path, file: FileReplay, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as a time limit that a server raises in its worker."""

    def interrupted(connection: sqlite3.Connection, now: float) -> None:
        connection.execute("BEGIN IMMEDIATE")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(file, "_sweep", interrupted)
        with pytest.raises(KeyboardInterrupt):
            file.spend(key(1), UNTIL, NOW)
    other = FileReplay(path, window=WINDOW, wait=0.2)
    assert other.spend(key(1), UNTIL, NOW)
    other.close()
    assert not file.spend(key(1), UNTIL, NOW)


@pytest.mark.parametrize("replaced", [False, True], ids=["removed", "replaced"])
def test_a_file_that_vanishes_is_made_anew_and_what_was_in_it_stays_spent(
    path: Path, file: FileReplay, replaced: bool
) -> None:
    """As a cleaner of temporary files does it."""
    assert file.spend(key(1), UNTIL, NOW)
    assert file.spend(key(2), NOW + WINDOW, NOW)
    for entry in list(path.parent.iterdir()):
        entry.rename(entry.with_name("old-" + entry.name)) if replaced else entry.unlink()
    if replaced:
        path.touch()
    assert not file.spend(key(1), UNTIL, NOW)
    assert not file.spend(key(2), NOW + WINDOW, NOW)
    assert file.spend(key(3), NOW + WINDOW + 1, NOW)
    other = FileReplay(path, window=WINDOW)
    assert not other.spend(key(3), NOW + WINDOW + 1, NOW)
    other.close()


def test_a_file_that_vanished_between_start_and_the_first_proof_counts_as_vanished(
    path: Path, file: FileReplay
) -> None:
    file.start()
    path.rename(path.with_name("old"))
    assert not file.spend(key(1), UNTIL, NOW)


@pytest.mark.parametrize("content", [b"not a database, and long enough to be read as one" * 100])
def test_a_file_that_is_something_else_refuses_and_stays_as_it_is(path: Path, file: FileReplay, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(ReplayUnavailableError, match="SQLITE_NOTADB"):
        file.start()
    with pytest.raises(ReplayUnavailableError, match="SQLITE_NOTADB"):
        file.spend(key(1), UNTIL, NOW)
    assert path.read_bytes() == content


def test_a_path_that_cannot_be_opened_refuses(tmp_path: Path) -> None:
    for path, why in ((tmp_path, "Is a directory"), (tmp_path / "absent" / "dpop.db", "No such file or directory")):
        with pytest.raises(ReplayUnavailableError, match=why):
            FileReplay(path, window=WINDOW).spend(key(1), UNTIL, NOW)
