"""gunicorn in a process of its own, and a client that sends exactly the bytes it is given."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import msgspec

from tests.flask.office import settings
from tests.support.records import read_records


class Reply(msgspec.Struct):
    """What came back: the status, the headers with lower-case names, and the body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Gunicorn:
    """A server on loopback, with the office's policy and decision log in `folder`."""

    def __init__(self, folder: Path, *options: str, **environment: str) -> None:
        self.folder = folder
        tables: dict[str, Any] = {"policy": {"source": "office.yaml", "allow_unsigned": True, "refresh": "100ms"}}
        (folder / "settings.json").write_text(json.dumps(settings(folder, **tables)))
        self._options = options
        self._environment = {**os.environ, "OFFICE": str(folder), **environment}
        self._output = folder / "gunicorn.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._address = ("", 0)

    def __enter__(self) -> Self:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self._address = listener.getsockname()
            command = [sys.executable, "-m", "gunicorn", "--bind", f"fd://{listener.fileno()}", "--workers", "1"]
            command += ["--timeout", "20", "--log-level", "warning", *self._options, "tests.flask.site:open_site()"]
            with self._output.open("wb") as output:
                self._process = subprocess.Popen(
                    command,
                    pass_fds=[listener.fileno()],
                    env=self._environment,
                    cwd=Path(__file__).parents[2],
                    stdout=output,
                    stderr=output,
                )
        try:
            self.get("/health")  # the kernel queues it until a worker is there
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(timeout=20)

    def send(self, target: str, *headers: str, method: str = "GET") -> Reply | None:
        """Send one request with this very target; None when the server hangs up without a word."""
        lines = [f"{method} {target} HTTP/1.1", "Host: office.example", "Connection: close", *headers, "", ""]
        with socket.create_connection(self._address, timeout=20) as connection:
            connection.sendall("\r\n".join(lines).encode("latin-1"))
            connection.shutdown(socket.SHUT_WR)
            raw = b"".join(iter(lambda: connection.recv(65536), b""))
        return _parsed(raw) if raw else None

    def get(self, target: str, *headers: str) -> Reply:
        """Send a request that is answered."""
        reply = self.send(target, *headers)
        assert reply is not None
        return reply

    @property
    def output(self) -> str:
        """What the server has said so far."""
        return self._output.read_text()

    @property
    def ran(self) -> list[Any]:
        """The views that ran, in order."""
        path = self.folder / "ran.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    @property
    def records(self) -> list[Any]:
        """The decisions recorded so far."""
        return read_records(self.folder / "decisions.jsonl")

    def unpermitted(self) -> Sequence[Any]:
        """The runs that no permit in the decision log covers: each run needs one of its own, for its route, its method
        and its caller."""
        permits = [
            (record["input"]["context"]["route"], record["input"]["context"]["method"], _subject(record))
            for record in self.records
            if record["result"]
        ]
        left = []
        for run in self.ran:
            wanted = (run["route"], run["method"], run["caller"])
            if wanted in permits:
                permits.remove(wanted)
            else:
                left.append(run)
        return left


def _subject(record: Any) -> str | None:
    subject: str | None = record["input"].get("subject", {}).get("id")
    return subject


def _parsed(raw: bytes) -> Reply:
    head, _, body = raw.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    match = re.fullmatch(r"HTTP/1\.1 (\d{3}).*", status)
    assert match, status
    pairs = (line.split(": ", 1) for line in lines)
    return Reply(int(match[1]), {name.lower(): value for name, value in pairs}, body)
