"""The project behind a real server: a process of its own, asked over a socket, byte for byte as a test writes it."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tests.django_project.site import authz_settings, records

ROOT: Final = Path(__file__).parents[2]

COMMANDS: Final = {
    "gunicorn": ["gunicorn", "tests.django_project.wsgi", "--threads", "2", "--bind", "fd://{fd}"],
    "gunicorn preloaded": ["gunicorn", "tests.django_project.wsgi", "--preload", "--bind", "fd://{fd}"],
    "gunicorn mounted": [
        "gunicorn",
        "tests.django_project.wsgi",
        "--env",
        "SCRIPT_NAME=/mounted",
        "--bind",
        "fd://{fd}",
    ],
    "uvicorn": ["uvicorn", "tests.django_project.asgi:application", "--lifespan", "off", "--fd", "{fd}"],
    "uvicorn mounted": [
        *("uvicorn", "tests.django_project.asgi:application", "--lifespan", "off", "--fd", "{fd}"),
        *("--root-path", "/mounted"),
    ],
}


class Server:
    """A running server."""

    def __init__(self, folder: Path, address: tuple[str, int]) -> None:
        self.folder = folder
        self._address = address

    def send(self, method: str, target: str, headers: Mapping[str, str] | list[tuple[str, str]]) -> tuple[int, bytes]:
        """Send one request, its target exactly as written; the status (0 where the server hung up) and the body."""
        pairs = list(headers.items() if isinstance(headers, Mapping) else headers)
        lines = [f"{method} {target} HTTP/1.1", "Host: 127.0.0.1", "Connection: close", "Content-Length: 0"]
        request = "\r\n".join([*lines, *(f"{name}: {value}" for name, value in pairs), "", ""])
        with socket.create_connection(self._address, timeout=10) as connection:
            connection.sendall(request.encode("latin-1"))
            answer = b""
            while chunk := connection.recv(65536):
                answer += chunk
        head, _, body = answer.partition(b"\r\n\r\n")
        return int(head.split(b" ", 2)[1]) if head else 0, body

    @property
    def ran(self) -> list[dict[str, str]]:
        """The handlers that ran: the action each needs, and the trace id of its request."""
        log = self.folder / "ran.jsonl"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []

    @property
    def records(self) -> list[dict[str, Any]]:
        """The decision records written so far."""
        return records(self.folder)


def traceparent() -> tuple[str, str]:
    """A new trace id, and the header that carries it (W3C Trace Context)."""
    trace = secrets.token_hex(16)
    return trace, f"00-{trace}-{secrets.token_hex(8)}-01"


@contextmanager
def run_server(name: str, folder: Path, **tables: Any) -> Iterator[Server]:
    """Serve the project until the block ends, on a free port of the loopback address."""
    settings = folder / "authz.json"
    settings.write_text(json.dumps(authz_settings(folder, **tables)))
    with socket.socket() as listening, (folder / "server.log").open("wb") as log:
        listening.bind(("127.0.0.1", 0))
        listening.listen(128)
        address = listening.getsockname()
        process = subprocess.Popen(
            [sys.executable, "-m", *(word.format(fd=listening.fileno()) for word in COMMANDS[name])],
            cwd=ROOT,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
                "DJANGO_SETTINGS_MODULE": "tests.django_project.settings",
                "AUTHZ_TEST_SETTINGS": str(settings),
                "AUTHZ_TEST_RAN": str(folder / "ran.jsonl"),
            },
            pass_fds=[listening.fileno()],
            stdout=log,
            stderr=log,
        )
    server = Server(folder, address)
    try:
        _await_answer(server, process)
        yield server
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await_answer(server: Server, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 30
    while time.monotonic() < end and process.poll() is None:
        try:
            server.send("GET", "/nowhere", {})
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError(f"the server did not start:\n{(server.folder / 'server.log').read_text()}")
