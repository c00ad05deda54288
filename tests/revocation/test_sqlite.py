"""The SQLite store: what one process writes the next check of another one finds, and nothing that happens to the file
passes for "nothing is revoked"."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from authz_middleware.revocation import database
from authz_middleware.revocation.entry import Revocation, Scope
from authz_middleware.revocation.index import KEPT_S
from authz_middleware.revocation.sqlite import SqliteStore
from authz_middleware.revocation.store import StoreUnavailableError, Trouble
from tests.support.revocations import DAY, NOW, caller, revocation, subject

ROOT = Path(__file__).parents[2]

PRELUDE = """
import os, signal, sys, time
from pathlib import Path
from authz_middleware.revocation.entry import Scope
from authz_middleware.revocation.sqlite import SqliteStore
from authz_middleware.revocation.store import StoreUnavailableError
from tests.support.revocations import NOW, caller, revocation, subject
path = Path(sys.argv[1])
clock = lambda: NOW
"""


class Clock:
    """The time, by both clocks."""

    def __init__(self) -> None:
        self.now = NOW
        self.monotonic = 100.0

    def pass_(self, seconds: float) -> None:
        self.now += seconds
        self.monotonic += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "revocations.db"


@pytest.fixture
def store(path: Path, clock: Clock) -> Iterator[SqliteStore]:
    store = SqliteStore(path, clock=lambda: clock.now, monotonic=lambda: clock.monotonic)
    store.start()
    yield store
    store.close()


def start_elsewhere(path: Path, code: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PRELUDE + code, str(path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )


def elsewhere(path: Path, code: str) -> str:
    """Run code in another process."""
    done = start_elsewhere(path, code)
    out, _ = done.communicate(timeout=60)
    assert done.returncode == 0
    return out.strip()


def revoke_elsewhere(path: Path, value: str = "alice") -> None:
    elsewhere(path, f"SqliteStore(path, clock=clock).add([subject({value!r})])")


def known(store: SqliteStore, now: float = NOW) -> list[str | None]:
    """Whom the next check would find revoked; a store in trouble is a failure."""
    reading = store.reading(now)
    assert reading.trouble is None
    assert reading.index is not None
    assert reading.as_of == now
    return sorted(str(entry.value) for entry in reading.index.entries.values())


# ---- sharing


@pytest.mark.capability("C18", "C51")
@pytest.mark.promise("P5")
def test_the_next_check_finds_what_another_process_has_revoked(store: SqliteStore, path: Path) -> None:
    before = store.reading(NOW)
    assert before.index is not None
    assert before.index.find(caller(), NOW) is None
    revoke_elsewhere(path)
    after = store.reading(NOW)
    assert after.index is not None
    assert after.index.find(caller(), NOW) == subject()
    assert after.epoch != before.epoch


def test_the_next_check_passes_whom_another_process_has_lifted(store: SqliteStore, path: Path) -> None:
    store.add([subject(), subject("bob")])
    assert known(store) == ["alice", "bob"]
    assert elsewhere(path, "print(SqliteStore(path, clock=clock).withdraw([subject().id, 'nothing']))") == "1"
    assert known(store) == ["bob"]


def test_what_is_lifted_can_be_revoked_again(store: SqliteStore) -> None:
    store.add([subject()])
    store.withdraw([subject().id])
    assert known(store) == []
    store.add([subject()])
    assert known(store) == ["alice"]


def test_an_epoch_stays_while_others_write_what_changes_nothing(store: SqliteStore, path: Path) -> None:
    store.add([subject()])
    before = store.reading(NOW).epoch
    revoke_elsewhere(path)
    assert store.reading(NOW).epoch == before


def test_a_revocation_never_ends_sooner_for_being_made_again(store: SqliteStore) -> None:
    long = subject(expires_at=NOW + 9 * DAY)
    store.add([long])
    store.add([subject()])
    assert store.entries() == (long,) or list(store.entries()) == [long]


def test_of_several_revocations_all_are_written_or_none(store: SqliteStore) -> None:
    broken: Any = object()
    with pytest.raises(AttributeError):
        store.add([subject(), broken])
    assert known(store) == []
    assert list(store.entries()) == []


def test_processes_that_start_together_share_one_store(path: Path) -> None:
    code = "s = SqliteStore(path, clock=clock); s.start(); s.add([subject(str(os.getpid()))]); print(os.getpid())"
    running = [start_elsewhere(path, code) for _ in range(4)]
    pids = {process.communicate(timeout=60)[0].strip() for process in running}
    late = SqliteStore(path, clock=lambda: NOW)
    late.start()
    assert {*known(late)} == pids
    assert [file.name for file in path.parent.iterdir() if file.name.startswith(".")] == []
    late.close()


def test_a_process_that_comes_second_does_not_replace_the_store(
    store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had looked before the first one was done."""
    store.add([subject()])
    monkeypatch.setattr(Path, "exists", lambda _: False)
    assert database.create(path) is False
    assert known(store) == ["alice"]


def test_the_files_are_for_their_owner_only(store: SqliteStore, path: Path) -> None:
    store.add([subject()])
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert modes == dict.fromkeys((path.name, f"{path.name}-wal", f"{path.name}-shm"), 0o600)


@pytest.mark.promise("P10")
def test_a_check_opens_no_file(store: SqliteStore, path: Path) -> None:
    revoke_elsewhere(path)
    events: list[str] = []
    watching = [True]

    def note(event: str, _: tuple[Any, ...]) -> None:
        if watching[0] and (event == "open" or event.startswith(("sqlite3.", "socket."))):
            events.append(event)

    sys.addaudithook(note)
    assert known(store) == ["alice"]
    watching[0] = False
    assert events == []


# ---- what is acknowledged is safe


@pytest.mark.promise("P5")
def test_what_was_acknowledged_survives_the_death_of_the_writer(store: SqliteStore, path: Path) -> None:
    code = """
store = SqliteStore(path, clock=clock)
for number in range(100_000):
    store.add([subject(str(number))])
    print(number, flush=True)
"""
    writer = start_elsewhere(path, code)
    assert writer.stdout is not None
    acknowledged = [writer.stdout.readline().strip() for _ in range(30)]
    os.kill(writer.pid, signal.SIGKILL)
    acknowledged += writer.communicate()[0].split()
    assert len(acknowledged) >= 30
    assert {*acknowledged} <= {*known(store)}
    fresh = SqliteStore(path, clock=lambda: NOW)
    fresh.start()
    assert {*acknowledged} <= {*known(fresh)}
    fresh.close()


def test_writers_have_the_disk_confirm_every_commit(path: Path) -> None:
    database.create(path)
    connection = database.connect(path, wait=0)
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


@pytest.mark.promise("P5")
def test_what_was_revoked_is_still_revoked_after_a_restart(store: SqliteStore, path: Path) -> None:
    store.add([subject()])
    store.close()
    assert store.reading(NOW).trouble is Trouble.NOT_STARTED
    store.start()
    assert known(store) == ["alice"]


# ---- what happens to the file


def expect(store: SqliteStore, trouble: Trouble, known_before: list[str]) -> None:
    """A reading that says it is in trouble, and still has what was known."""
    reading = store.reading(NOW)
    assert reading.trouble is trouble
    assert reading.index is not None
    assert sorted(str(entry.value) for entry in reading.index.entries.values()) == known_before
    assert reading.as_of == NOW


@pytest.mark.capability("C18")
@pytest.mark.promise("P3", "P5")
def test_a_file_that_is_gone_is_no_empty_list(store: SqliteStore, path: Path, clock: Clock) -> None:
    store.add([subject()])
    assert known(store) == ["alice"]
    aside = path.with_name("aside")
    path.rename(aside)
    expect(store, Trouble.MISSING, ["alice"])
    aside.rename(path)
    expect(store, Trouble.MISSING, ["alice"])  # left alone for a moment
    clock.pass_(1)
    assert known(store) == ["alice"]


@pytest.mark.promise("P3", "P5")
def test_a_new_file_in_its_place_is_not_believed_until_a_restart(
    store: SqliteStore, path: Path, clock: Clock, tmp_path: Path
) -> None:
    store.add([subject()])
    assert known(store) == ["alice"]
    database.create(tmp_path / "other.db")
    (tmp_path / "other.db").rename(path)
    for _ in range(3):
        expect(store, Trouble.REPLACED, ["alice"])
        clock.pass_(1)
    store.start()
    assert store.reading(NOW).trouble is None


@pytest.mark.promise("P3", "P5")
def test_a_new_file_after_one_that_was_gone_is_not_believed_either(
    store: SqliteStore, path: Path, clock: Clock
) -> None:
    store.add([subject()])
    assert known(store) == ["alice"]
    path.rename(path.with_name("aside"))
    expect(store, Trouble.MISSING, ["alice"])
    database.create(path)
    for _ in range(3):
        clock.pass_(1)
        expect(store, Trouble.REPLACED, ["alice"])


@pytest.mark.promise("P3", "P5")
@pytest.mark.parametrize("suffix", ["-wal", "-shm"])
def test_a_part_of_it_that_is_another_one_hides_nothing(
    store: SqliteStore, path: Path, clock: Clock, suffix: str
) -> None:
    """What others commit goes to the other one then, which this process has not open."""
    store.add([subject()])
    assert known(store) == ["alice"]
    shutil.copy(f"{path}{suffix}", f"{path}.copy")
    Path(f"{path}.copy").rename(f"{path}{suffix}")
    revoke_elsewhere(path, "bob")
    for _ in range(2):
        expect(store, Trouble.REPLACED, ["alice"])
        clock.pass_(1)


@pytest.mark.promise("P3", "P5")
def test_a_part_of_it_that_was_removed_hides_nothing(store: SqliteStore, path: Path) -> None:
    store.add([subject()])
    assert known(store) == ["alice"]
    Path(f"{path}-shm").unlink()
    expect(store, Trouble.REPLACED, ["alice"])


def _put_aside(store: SqliteStore, path: Path) -> Path:
    """Have the store without a connection, as it is after any trouble."""
    aside = path.with_name("aside")
    path.rename(aside)
    assert store.reading(NOW).trouble is Trouble.MISSING
    for part in path.parent.glob(f"{path.name}-*"):
        part.unlink()
    return aside


@pytest.mark.promise("P3", "P5")
@pytest.mark.parametrize("went_on", [False, True])
def test_an_older_state_of_it_is_not_believed(store: SqliteStore, path: Path, clock: Clock, went_on: bool) -> None:
    """Also when it has seen other changes since, and counts as many."""
    store.add([subject("kept")])
    copy = sqlite3.connect(path)
    with copy:
        copy.execute("VACUUM INTO ?", (f"{path}.old",))
    copy.close()
    store.add([subject("lost")])
    assert known(store) == ["kept", "lost"]
    if went_on:
        SqliteStore(Path(f"{path}.old"), clock=lambda: NOW).add([subject("other"), subject("another")])
    aside = _put_aside(store, path)
    shutil.copyfile(f"{path}.old", aside)
    aside.rename(path)
    clock.pass_(1)
    expect(store, Trouble.ROLLED_BACK, ["kept", "lost"])
    clock.pass_(1)
    expect(store, Trouble.ROLLED_BACK, ["kept", "lost"])


@pytest.mark.promise("P3", "P5")
def test_an_older_state_is_not_believed_though_it_has_lost_no_revocation(
    store: SqliteStore, path: Path, clock: Clock
) -> None:
    """It counts its changes from where it was: the next ones would be taken for known."""
    store.add([subject()])
    copy = sqlite3.connect(path)
    with copy:
        copy.execute("VACUUM INTO ?", (f"{path}.old",))
    copy.close()
    store.withdraw([subject().id])
    assert known(store) == []
    aside = _put_aside(store, path)
    shutil.copyfile(f"{path}.old", aside)
    aside.rename(path)
    clock.pass_(1)
    expect(store, Trouble.ROLLED_BACK, [])


@pytest.mark.promise("P3", "P5")
def test_another_store_is_not_believed_though_it_has_every_revocation(
    store: SqliteStore, path: Path, clock: Clock, tmp_path: Path
) -> None:
    """Its changes have other numbers: some of them would be taken for known."""
    store.add([subject()])
    assert known(store) == ["alice"]
    database.create(tmp_path / "other.db")
    SqliteStore(tmp_path / "other.db", clock=lambda: NOW).add([subject("bob"), subject()])
    aside = _put_aside(store, path)
    shutil.copyfile(tmp_path / "other.db", aside)
    aside.rename(path)
    clock.pass_(1)
    expect(store, Trouble.REPLACED, ["alice"])


@pytest.mark.promise("P3")
@pytest.mark.parametrize(
    ("content", "trouble"),
    [
        (b"", Trouble.CORRUPT),
        (b"garbage" * 1000, Trouble.CORRUPT),
        (b"SQLite format 3\0" + bytes(200), Trouble.CORRUPT),
    ],
)
def test_a_file_that_is_no_store_is_not_an_empty_one(path: Path, content: bytes, trouble: Trouble) -> None:
    path.write_bytes(content)
    store = SqliteStore(path)
    store.start()
    assert store.reading(NOW).trouble is trouble
    with pytest.raises(StoreUnavailableError):
        store.add([subject()])
    assert path.read_bytes() == content


def test_another_application_s_database_is_left_alone(path: Path) -> None:
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE revocations (id TEXT)")
    other.close()
    store = SqliteStore(path)
    store.start()
    assert store.reading(NOW).trouble is Trouble.CORRUPT
    with pytest.raises(StoreUnavailableError, match="no store of revocations"):
        store.add([subject()])


@pytest.mark.promise("P3", "P5")
@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE revocations SET entry = '{}', seq = seq + 10",
        "UPDATE revocations SET entry = replace(entry, 'alice', 'bob'), seq = seq + 10",
        "UPDATE revocations SET id = 'x', seq = seq + 10",
        "DELETE FROM store",
        "DROP TABLE store",
        "DROP TABLE revocations",
    ],
)
def test_a_revocation_that_cannot_be_read_is_not_passed_over(store: SqliteStore, path: Path, damage: str) -> None:
    store.add([subject()])
    assert known(store) == ["alice"]
    with sqlite3.connect(path) as other:
        other.execute(damage)
    other.close()
    expect(store, Trouble.CORRUPT, ["alice"])
    fresh = SqliteStore(path)
    fresh.start()
    assert fresh.reading(NOW).trouble is Trouble.CORRUPT


@pytest.mark.promise("P3")
def test_a_damaged_page_is_noticed_when_everything_is_read(store: SqliteStore, path: Path) -> None:
    store.add([subject(str(number)) for number in range(2_000)])
    store.close()
    content = bytearray(path.read_bytes())
    content[8 * 4096 : 40 * 4096] = bytes(32 * 4096)
    path.write_bytes(content)
    store.start()
    assert store.reading(NOW).trouble is Trouble.CORRUPT


@pytest.mark.promise("P3", "P5")
def test_a_damaged_index_hides_no_revocation(store: SqliteStore, path: Path) -> None:
    store.add([subject()])
    store.close()
    with sqlite3.connect(path) as raw:
        raw.execute("CREATE TABLE other (seq INTEGER UNIQUE)")
        raw.execute("PRAGMA writable_schema = ON")
        (empty,) = raw.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'sqlite_autoindex_other_1'").fetchone()
        update = "UPDATE sqlite_schema SET rootpage = ? WHERE name = 'sqlite_autoindex_revocations_2'"
        assert raw.execute(update, (empty,)).rowcount == 1
    raw.close()
    store.start()
    assert store.reading(NOW).trouble is Trouble.CORRUPT


@pytest.mark.promise("P3")
def test_a_file_that_somebody_keeps_to_himself_is_unreadable_until_he_lets_go(path: Path) -> None:
    database.create(path)
    keeper = sqlite3.connect(path, isolation_level=None)
    keeper.execute("PRAGMA locking_mode = EXCLUSIVE")
    keeper.execute("BEGIN EXCLUSIVE")
    store = SqliteStore(path, monotonic=iter(range(1000)).__next__)
    store.start()
    began = time.perf_counter()
    assert store.reading(NOW).trouble is Trouble.LOCKED
    assert time.perf_counter() - began < 0.5  # it waited for nobody
    keeper.close()
    assert known(store) == []
    store.close()


@pytest.mark.promise("P5")
def test_what_was_new_while_it_was_locked_is_learned_afterwards(
    store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.add([subject()])
    real = database.changes_since

    def locked(*_: object) -> None:
        error = sqlite3.OperationalError("database is locked")
        error.sqlite_errorcode = sqlite3.SQLITE_BUSY
        raise error

    monkeypatch.setattr(database, "changes_since", locked)
    assert store.reading(NOW).trouble is Trouble.LOCKED
    monkeypatch.setattr(database, "changes_since", real)
    assert known(store) == ["alice"]


def test_a_writer_waits_for_another_one_and_then_says_so(
    store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "WAIT_S", 0.1)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailableError) as caught:
        store.add([subject()])
    assert caught.value.trouble is Trouble.LOCKED
    assert known(store) == []  # readers do not wait
    other.rollback()
    other.close()
    store.add([subject()])
    assert known(store) == ["alice"]


@pytest.mark.promise("P3")
def test_a_file_that_anybody_can_write_is_not_believed(path: Path) -> None:
    database.create(path)
    path.chmod(0o602)
    store = SqliteStore(path)
    store.start()
    assert store.reading(NOW).trouble is Trouble.EXPOSED
    with pytest.raises(StoreUnavailableError, match="chmod"):
        store.add([subject()])


def test_a_folder_is_no_store(path: Path) -> None:
    path.mkdir()
    store = SqliteStore(path)
    store.start()
    assert store.reading(NOW).trouble is Trouble.CORRUPT


@pytest.mark.parametrize("folder", ["absent", "file"])
def test_a_place_where_nothing_can_be_made_is_reported_and_not_passed(
    tmp_path: Path, folder: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    store = SqliteStore(tmp_path / folder / "revocations.db")
    store.start()
    reading = store.reading(NOW)
    assert reading.trouble in (Trouble.MISSING, Trouble.UNREACHABLE)
    assert reading.index is None
    assert store.lag(NOW) is None
    assert "no store of revocations could be made" in caplog.text


@pytest.mark.promise("P3")
def test_a_file_that_may_not_be_read_is_reported(path: Path) -> None:
    database.create(path)
    path.chmod(0o000)
    code = """
if os.geteuid() == 0:
    os.setuid(65534)  # root may read everything
store = SqliteStore(path)
store.start()
print(store.reading(NOW).trouble)
"""
    assert elsewhere(path, code) == Trouble.UNREACHABLE


@pytest.mark.promise("P5")
def test_a_disk_without_room_acknowledges_nothing(store: SqliteStore, path: Path) -> None:
    code = """
import resource
store = SqliteStore(path, clock=clock)
store.start()
store.add([subject("first")])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (70_000, 70_000))
try:
    store.add([subject(str(number)) for number in range(2_000)])
except StoreUnavailableError as error:
    print(error.trouble, store.reading(NOW).trouble, len(store.reading(NOW).index))
"""
    trouble, reading, count = elsewhere(path, code).split()
    assert trouble in (Trouble.FULL, Trouble.UNREACHABLE)
    assert (reading, count) == ("None", "1")
    assert known(store) == ["first"]


def test_each_trouble_is_logged_once(store: SqliteStore, path: Path, clock: Clock, caplog: Any) -> None:
    path.unlink()
    for _ in range(5):
        store.reading(NOW)
        clock.pass_(1)
    lines = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert lines == [f"the store of revocations {path} cannot be read: No such file or directory"]


def test_a_new_store_is_announced(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = SqliteStore(path)
    store.start()
    store.close()
    store.start()
    store.close()
    assert [record.getMessage() for record in caplog.records] == [f"a new, empty store of revocations was made: {path}"]


# ---- time


def test_what_is_long_gone_leaves_the_file_and_every_process(store: SqliteStore, path: Path, clock: Clock) -> None:
    behind = SqliteStore(path, clock=lambda: clock.now)
    behind.start()
    store.add(
        [subject("lifted", expires_at=NOW + 30 * DAY), subject("ends"), subject("stays", expires_at=NOW + 30 * DAY)]
    )
    assert known(behind) == ["ends", "lifted", "stays"]
    store.withdraw([subject("lifted").id])
    clock.pass_(2 * DAY + KEPT_S)
    store.add([subject("new", now=clock.now)])
    with sqlite3.connect(path) as raw:
        assert raw.execute("SELECT count(*) FROM revocations").fetchone() == (2,)
    raw.close()
    # No trace is left of what was lifted; who has not heard of it reads everything again.
    assert known(behind, clock.now) == ["new", "stays"]
    assert known(store, clock.now) == ["new", "stays"]
    behind.close()


def test_the_lag_is_that_of_the_last_good_look(store: SqliteStore, path: Path) -> None:
    assert store.lag(NOW) == 0.0
    path.unlink()
    assert store.lag(NOW + 7) == 7.0


# ---- forks and threads


def _in_child(work: Callable[[], object]) -> int:
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_forked_worker_sees_what_is_revoked_after_the_fork(store: SqliteStore, path: Path) -> None:
    store.add([subject()])
    assert known(store) == ["alice"]

    def work() -> None:
        assert known(store) == ["alice"]
        store.add([subject("child")])
        assert known(store) == ["alice", "child"]

    assert _in_child(work) == 0
    assert known(store) == ["alice", "child"]


@pytest.mark.promise("P5")
def test_a_worker_that_outlives_its_parent_sees_every_revocation(path: Path) -> None:
    """With the locks of a connection that crossed the fork, another process would take the files away under it."""
    code = """
store = SqliteStore(path, clock=clock)
store.start()
store.add([subject("first")])
assert len(store.reading(NOW).index) == 1
if os.fork():
    os._exit(0)
for _ in range(3):
    store.reading(NOW)
os.system(f'{sys.executable} -c "'
    'from pathlib import Path; from authz_middleware.revocation.sqlite import SqliteStore; '
    'from tests.support.revocations import subject, NOW; '
    f'SqliteStore(Path({str(path)!r}), clock=lambda: NOW).add([subject()])"')
reading = store.reading(NOW)
print(reading.trouble, len(reading.index))
"""
    assert elsewhere(path, code) == "None 2"


def test_a_fork_while_another_thread_writes_leaves_no_lock_behind(store: SqliteStore) -> None:
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            store.add([subject(str(number))])
            store.reading(NOW)
            time.sleep(0.02)  # SQLite does not queue writers: leave the others a gap

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(5):
            assert _in_child(lambda: (signal.alarm(60), known(store), store.add([subject("child")]))) == 0
    finally:
        stop.set()
        writer.join()
    assert "child" in known(store)


def test_threads_share_one_store(store: SqliteStore) -> None:
    faults: list[object] = []
    stop = threading.Event()

    def read() -> None:
        seen = 0
        while not stop.is_set():
            reading = store.reading(NOW)
            if reading.trouble is not None or reading.index is None or len(reading.index) < seen:
                faults.append(reading)
                return
            seen = len(reading.index)

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    for number in range(50):
        store.add([subject(str(number))])
        found = store.reading(NOW).index
        assert found is not None
        assert found.find(caller(subject=str(number)), NOW) is not None
    stop.set()
    for reader in readers:
        reader.join()
    assert faults == []


def test_a_store_that_was_never_started_can_be_written_and_listed_but_not_read(path: Path) -> None:
    database.create(path)
    store = SqliteStore(path, clock=lambda: NOW)
    entry: Revocation = revocation(Scope.EVERYTHING)
    store.add([entry])
    assert list(store.entries()) == [entry]
    assert store.reading(NOW).trouble is Trouble.NOT_STARTED
