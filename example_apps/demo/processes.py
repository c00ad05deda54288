"""The processes of the demo: started on loopback, waited for, and stopped, whatever happens in between."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

ROOT = Path(__file__).parents[2]
START_WAIT_S = 30.0
STOP_WAIT_S = 5.0


class NotStartedError(Exception):
    """A process did not come up; the message holds the end of its log."""


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on at the moment."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


class Server:
    """One server process in a session of its own, so that Ctrl-C reaches the demo alone, which then stops it.

    `command` starts with the name of a Python module or with `authz`, or with the path of any other program.
    """

    def __init__(
        self, name: str, command: Sequence[str], port: int, folder: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self.port = port
        self._command = _whole(command)
        self._environment = {**os.environ, **(environment or {})}
        self._log = folder / f"{name}.log"
        self._pids = folder / "pids"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - the commands are those of this demo
                self._command,
                cwd=ROOT,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        with self._pids.open("a", encoding="utf-8") as pids:
            pids.write(f"{self._process.pid} {self.name}\n")

    def wait(self) -> None:
        """Wait until the port accepts connections. Raises NotStartedError."""
        deadline = time.monotonic() + START_WAIT_S
        while time.monotonic() < deadline:
            if self._process is None or self._process.poll() is not None:
                raise self.not_started("ended while it was starting")
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                time.sleep(0.05)
            else:
                return
        raise self.not_started(f"did not listen on port {self.port} within {START_WAIT_S:.0f} seconds")

    def not_started(self, what: str) -> NotStartedError:
        """The error that says what happened, with the end of the log."""
        log = self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-40:]
        return NotStartedError("\n".join([f"{self.name} {what}; its log ({self._log}):", *log]))

    def stop(self) -> None:
        """Ask the process to end, and end what is left of its session when it does not. Safe to call twice."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(STOP_WAIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # workers that outlived their parent


def run_program(command: Sequence[str]) -> str:
    """Run a program beside the interpreter to its end; what it printed. Raises CalledProcessError."""
    done = subprocess.run(  # noqa: S603 - the commands are those of this demo
        _program(command),
        check=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return done.stdout


def _whole(command: Sequence[str]) -> list[str]:
    if Path(command[0]).is_absolute():
        return list(command)
    return _program(command) if command[0] == "authz" else [sys.executable, "-m", *command]


def _program(command: Sequence[str]) -> list[str]:
    return [str(Path(sys.executable).with_name(command[0])), *command[1:]]
