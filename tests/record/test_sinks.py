"""Sinks: whole lines, in order, and an exact account of those that did not make it."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from authz_middleware.errors import SettingsError
from authz_middleware.record.sinks import FileSink, SinkError, StderrSink, StdoutSink, StreamSink, open_sink

pytestmark = pytest.mark.capability("C41")

LINES = [b'{"n":1}\n', b'{"n":2}\n', b'{"n":3}\n']


def test_a_file_is_made_for_its_owner_only_and_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "decisions.jsonl"
    for _ in range(2):
        sink = FileSink(path)
        sink.write(LINES)
        sink.close()
    assert path.read_bytes() == b"".join(LINES * 2)
    assert path.stat().st_mode & 0o777 == 0o600


def test_all_lines_given_at_once_are_one_append(tmp_path: Path) -> None:
    script = textwrap.dedent(f"""
        import os
        from pathlib import Path
        from authz_middleware.record.sinks import FileSink
        writes = []
        real = os.write
        os.write = lambda fd, data: (writes.append(bytes(data)), real(fd, data))[1]
        sink = FileSink(Path({str(tmp_path / "log")!r}))
        sink.write([b"1\\n", b"2\\n"])
        assert writes == [b"1\\n2\\n"], writes
    """)
    subprocess.run([sys.executable, "-c", script], check=True)


def test_a_rotated_file_is_opened_anew(tmp_path: Path) -> None:
    path, clock = tmp_path / "log", [0.0]
    sink = FileSink(path, check_every=1.0, clock=lambda: clock[0])
    sink.write([b"1\n"])
    path.rename(tmp_path / "log.1")
    sink.write([b"2\n"])
    clock[0] = 1.0
    sink.write([b"3\n"])
    sink.close()
    assert (tmp_path / "log.1").read_bytes() == b"1\n2\n"
    assert path.read_bytes() == b"3\n"


def test_a_file_that_another_process_has_made_meanwhile_is_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "log"
    sink = FileSink(path, check_every=0.0)
    sink.write([b"1\n"])
    path.rename(tmp_path / "log.1")
    path.write_bytes(b"other\n")
    sink.write([b"2\n"])
    sink.write([b"3\n"])
    sink.close()
    assert path.read_bytes() == b"other\n2\n3\n"


def test_a_file_that_stays_is_kept_open(tmp_path: Path) -> None:
    sink = FileSink(tmp_path / "log", check_every=0.0)
    sink.write([b"1\n"])
    first = sink._fd
    sink.write([b"2\n"])
    assert sink._fd == first
    sink.close()


def test_a_full_disk_is_reported_with_the_lines_that_made_it_and_no_record_is_torn(tmp_path: Path) -> None:
    """A file size limit stands in for the full disk: the kernel answers both with a short write, then an error."""
    script = textwrap.dedent(f"""
        import resource
        from pathlib import Path
        from authz_middleware.record.sinks import FileSink, SinkError
        path = Path({str(tmp_path / "log")!r})
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (20, hard))
        sink = FileSink(path)
        lines = [b"11111111\\n", b"22222222\\n", b"33333333\\n"]
        for expected in ((2, "SHORT_WRITE"), (0, "EFBIG")):
            try:
                sink.write(lines)
            except SinkError as error:
                assert (error.written, error.reason) == expected, (error.written, error.reason)
                lines = lines[error.written:]
            else:
                raise SystemExit("the write was expected to fail")
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        sink.write(lines)
        assert path.read_bytes() == b"11111111\\n22222222\\n33\\n33333333\\n", path.read_bytes()
    """)
    subprocess.run([sys.executable, "-c", script], check=True)


def test_a_file_that_cannot_be_opened_stops_the_start_and_says_why(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"decision_log.sink: cannot be opened for appending \(ENOENT\)"):
        open_sink(f"file:{tmp_path / 'absent' / 'log'}")
    assert isinstance(open_sink(f"file:{tmp_path / 'absent' / 'log'}", now=False), FileSink)


def test_a_file_that_cannot_be_opened_later_is_a_failure_of_the_write(tmp_path: Path) -> None:
    sink = open_sink(f"file:{tmp_path / 'absent' / 'log'}", now=False)
    with pytest.raises(SinkError) as caught:
        sink.write(LINES)
    assert (caught.value.written, caught.value.reason) == (0, "ENOENT")


@pytest.mark.parametrize("name", ["", "file:", "syslog", "STDOUT", "stdout:x"])
def test_a_sink_that_does_not_exist_is_refused(name: str) -> None:
    with pytest.raises(SettingsError, match="must be"):
        open_sink(name)


def test_standard_streams_are_written_by_descriptor(capfd: pytest.CaptureFixture[str]) -> None:
    for sink in (open_sink("stdout"), open_sink("stderr")):
        sink.write(LINES)
        sink.close()
    assert isinstance(open_sink("stdout"), StdoutSink)
    assert isinstance(open_sink("stderr"), StderrSink)
    captured = capfd.readouterr()
    assert captured.out == captured.err == b"".join(LINES).decode()


def test_writers_that_share_a_pipe_do_not_mix_their_lines() -> None:
    read, write = os.pipe()
    lines = {mark: [(mark * 700 + "\n").encode()] * 150 for mark in "abcd"}
    threads = [threading.Thread(target=StreamSink(write).write, args=(some,)) for some in lines.values()]
    collected: list[bytes] = []

    def collect() -> None:
        while data := os.read(read, 5000):
            collected.append(data)

    reader = threading.Thread(target=collect)
    for thread in threads:
        thread.start()
    time.sleep(0.1)  # the pipe is full by now, and all of them wait for room
    reader.start()
    for thread in threads:
        thread.join(10)
    os.close(write)
    reader.join(10)
    os.close(read)
    assert sorted(b"".join(collected).splitlines(keepends=True)) == sorted(
        line for some in lines.values() for line in some
    )


def test_a_pipe_that_takes_no_more_is_reported_and_the_torn_line_comes_again_whole() -> None:
    read, write = os.pipe()
    os.set_blocking(write, False)
    sink = StreamSink(write)
    lines = [(str(n) * 6000 + "\n").encode() for n in range(10)] * 3
    got, reasons = bytearray(), set()
    while lines:
        try:
            sink.write(lines)
            lines = []
        except SinkError as error:
            reasons.add(error.reason)
            lines = lines[error.written :]
            got += os.read(read, 100_000)
    os.close(write)
    while data := os.read(read, 65536):
        got += data
    os.close(read)
    assert reasons == {"EAGAIN"}
    whole = [line for line in got.split(b"\n") if len(line) == 6000 and len(set(line)) == 1]
    assert whole == [(str(n) * 6000).encode() for n in range(10)] * 3


def test_a_reader_that_went_away_is_reported() -> None:
    read, write = os.pipe()
    os.close(read)
    with pytest.raises(SinkError) as caught:
        StreamSink(write).write(LINES)
    os.close(write)
    assert (caught.value.written, caught.value.reason) == (0, "EPIPE")
