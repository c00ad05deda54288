"""Several processes, one file: each decision leaves exactly one whole line (P6)."""

from __future__ import annotations

import collections
import gc
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from authz_middleware.record.recorder import Recorder
from authz_middleware.resource import Resource
from tests.support.records import FACTS, PERMIT, app, log_settings, question, read_records

pytestmark = [pytest.mark.capability("C41", "C49"), pytest.mark.promise("P6")]

WORKER = textwrap.dedent("""
    import sys
    from authz_middleware.record.recorder import Recorder
    from authz_middleware.resource import Resource
    from tests.support.records import FACTS, PERMIT, app, log_settings, question
    path, count, mode = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    log = Recorder(log_settings("file:" + path, mode, queue=100_000), app())
    for number in range(count):
        asked = question(resource=Resource("invoice", str(number), {"padding": "x" * (number % 50 * 100)}))
        assert log.wait(log.submit(asked, FACTS, PERMIT))
""")
"""Ends without closing its recorder: the end of the process has to see to that."""


def start(path: Path, count: int, mode: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", WORKER, str(path), str(count), mode], cwd=Path(__file__).parents[2])


@pytest.mark.parametrize(("mode", "count"), [("blocking", 1000), ("required", 200)])
def test_processes_that_share_a_file_leave_one_whole_line_for_each_decision(
    tmp_path: Path, mode: str, count: int
) -> None:
    path = tmp_path / "log"
    workers = [start(path, count, mode) for _ in range(4)]
    assert [worker.wait(60) for worker in workers] == [0] * 4
    records = read_records(path)
    by_writer = collections.defaultdict(list)
    for record in records:
        by_writer[record["authz"]["writer"]].append(record["authz"]["seq"])
    assert len(by_writer) == 4
    assert all(seqs == list(range(1, count + 1)) for seqs in by_writer.values())
    assert len({record["decision_id"] for record in records}) == 4 * count


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_records_under_its_own_name_and_the_parent_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = Recorder(log_settings(f"file:{path}", "blocking"), app())
    log._writer._linger = 0.05  # the parent's records are still queued when the child begins
    for _ in range(10):
        log.submit(question(), FACTS, PERMIT)
    children = []
    for _ in range(3):
        child = os.fork()
        if child == 0:
            try:
                for _ in range(20):
                    log.submit(question(resource=Resource("invoice", "child")), FACTS, PERMIT)
                log.close()
            finally:
                os._exit(0)
        children.append(child)
    for _ in range(10):
        log.submit(question(), FACTS, PERMIT)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 3
    log.close()
    counts = collections.Counter(record["authz"]["writer"] for record in read_records(path))
    assert sorted(counts.values()) == [20, 20, 20, 20]
    assert counts[log._writer_id] == 20
    assert len({record["decision_id"] for record in read_records(path)}) == 80


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_forked_while_the_log_is_busy_does_not_hang(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = Recorder(log_settings(f"file:{path}", "blocking"), app())
    log._lock.acquire()  # as if another thread were submitting at this very moment
    child = os.fork()
    if child == 0:
        log.submit(question(), FACTS, PERMIT)
        log.close()
        os._exit(0)
    log._lock.release()
    assert os.waitpid(child, 0)[1] == 0
    log.close()
    assert len(read_records(path)) == 1


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_that_forgets_its_recorder_writes_nothing_of_its_parent(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = Recorder(log_settings(f"file:{path}", "blocking"), app())
    log._writer.idle = False  # so that no thread is started, and the record stays where it is
    log.submit(question(), FACTS, PERMIT)
    child = os.fork()
    if child == 0:
        del log
        gc.collect()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert path.read_bytes() == b""
    log.close()
    assert len(read_records(path)) == 1


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_uses_no_descriptor_of_its_parent_which_may_be_somebody_elses_by_now(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = Recorder(log_settings(f"file:{path}", "blocking"), app())
    read, write = os.pipe()
    sink = log._writer._sink
    before, sink._fd, sink._check_at = sink._fd, write, float("inf")  # as if the file were just being opened anew
    child = os.fork()
    if child == 0:
        log.submit(question(), FACTS, PERMIT)
        log.close()
        os._exit(0)
    sink._fd = before
    assert os.waitpid(child, 0)[1] == 0
    os.close(write)
    assert os.read(read, 1) == b""
    os.close(read)
    log.close()
    assert len(read_records(path)) == 1


def test_records_that_wait_at_the_end_of_the_process_are_written(tmp_path: Path) -> None:
    path = tmp_path / "log"
    assert start(path, 7, "blocking").wait(30) == 0
    assert len(read_records(path)) == 7
