"""A real Cerbos on loopback that tests start, stop, freeze and start again.

The server is one static binary in an npm package, installed once below the repository's `.cache`. What of Cerbos 0.55
matters to a client: AuthZEN is served on the HTTP port without being switched on (`/access/v1/evaluation`,
`/access/v1/evaluations`, metadata at `/.well-known/authzen-configuration`, whose address is taken from the Host
header; there is no search), an answer carries neither an `X-Request-ID` nor, for a plain rule, a `context`, and on
SIGTERM it stops listening at once. A frozen server still takes connections: the kernel does that.
"""

from __future__ import annotations

import atexit
import fcntl
import http.client
import os
import platform
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from typing import Final, Self

import pytest

from tests.support.pdp import certificate

VERSION: Final = "0.55.0"
PACKAGE: Final = "@cerbos/cerbos-linux-x64"
UNREACHABLE: Final = re.compile(
    r"\bcode:? '?(EAI_AGAIN|ECONNREFUSED|ECONNRESET|EHOSTUNREACH|ENETUNREACH|ENOTFOUND|ERR_SOCKET_TIMEOUT|ETIMEDOUT)\b"
)
"""What npm says of a registry that it cannot reach; every other failure of an installation is an error."""
START_WITHIN: Final = 20.0
STOP_WITHIN: Final = 10.0


def cerbos_binary() -> Path:
    """The server's file, installed if need be; skips the test where that is impossible.

    Raises:
        RuntimeError: the installation failed for another reason than a registry out of reach.
    """
    found = _binary_or_obstacle()
    if isinstance(found, str):
        pytest.skip(found)
    return found


@cache
def _binary_or_obstacle() -> Path | str:
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        return f"{PACKAGE} runs on Linux on x86-64 only"
    here = Path(__file__).resolve()
    # Tests that run from a copy of the tree below .cache share the repository's own installation.
    shared = next((folder for folder in here.parents if folder.name == ".cache"), here.parents[2] / ".cache")
    shared.mkdir(exist_ok=True)
    with (shared / "cerbos.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another pytest may be installing it
        return _installed(shared / "cerbos")


def _installed(folder: Path) -> Path | str:
    binary = folder / "node_modules" / PACKAGE / "cerbos-linux-x64"
    installed = folder / f"installed-{VERSION}"  # written last: an interrupted installation is done again
    if not installed.exists():
        if obstacle := _install(folder):
            return obstacle
        subprocess.run([binary, "--version"], check=True, capture_output=True, timeout=60)
        installed.touch()
    return binary


def _install(folder: Path) -> str | None:
    """None when it is installed, and else why it cannot be here."""
    npm = shutil.which("npm")
    if npm is None:
        return f"npm is not installed, and {PACKAGE} comes from its registry"
    options = ["--no-save", "--no-audit", "--no-fund", "--ignore-scripts", "--fetch-retries=1"]
    done = subprocess.run(
        [npm, "install", "--prefix", str(folder), *options, f"{PACKAGE}@{VERSION}"],
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )
    if done.returncode == 0:
        return None
    if code := UNREACHABLE.search(done.stderr):
        return f"npm cannot reach its registry to install {PACKAGE}: {code[1]}"
    raise RuntimeError(f"npm could not install {PACKAGE}@{VERSION}:\n{done.stderr}")


def _free_ports() -> tuple[int, int]:
    with socket.create_server(("127.0.0.1", 0)) as first, socket.create_server(("127.0.0.1", 0)) as second:
        return int(first.getsockname()[1]), int(second.getsockname()[1])


class CerbosServer:
    """A server with the policies of a folder; a context manager. `work` is a folder for what it needs itself.

    `url` is its base address, and `ca_file` the certificate to trust with `tls`.
    """

    def __init__(self, work: Path, policies: Path, *, tls: bool = False) -> None:
        self._binary = cerbos_binary()
        self._policies = policies
        self._work = work
        self.ca_file = certificate(work)[0] if tls else None
        self._choose_ports()
        self._process: subprocess.Popen[bytes] | None = None

    def _choose_ports(self) -> None:
        self.port, self._grpc_port = _free_ports()
        self.url = f"{'https' if self.ca_file else 'http'}://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        try:
            self.start()
        except _AddressInUseError:
            self._choose_ports()
            self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start it at its address and wait until it is healthy."""
        config = self._work / "cerbos.yaml"
        config.write_text(self._config())
        self._log = self._work / "cerbos.log"
        with self._log.open("wb") as log:
            command = [str(self._binary), "server", f"--config={config}", "--debug-listen-addr="]
            self._process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=self._work)
        atexit.register(self.kill)
        end = time.monotonic() + START_WITHIN
        while not self._is_healthy():
            if self._process.poll() is not None or time.monotonic() > end:
                self._fail()
            time.sleep(0.02)

    def stop(self) -> None:
        """Have it end by itself (SIGTERM), frozen or not, and wait until it is gone."""
        process = self._running()
        process.terminate()
        self.thaw()
        process.wait(STOP_WITHIN)
        self.kill()

    def terminate(self) -> None:
        """Send SIGTERM and do not wait."""
        self._running().terminate()

    def restart(self) -> None:
        """Stop it where it runs, and start it at the same address."""
        if self._process is not None:
            self.stop()
        self.start()

    def freeze(self) -> None:
        """Have it stop doing anything (SIGSTOP), with all its connections open."""
        os.kill(self._running().pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Have it go on (SIGCONT)."""
        os.kill(self._running().pid, signal.SIGCONT)

    def kill(self) -> None:
        """End it at once, where it runs."""
        atexit.unregister(self.kill)
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "it was not started"
        return self._process

    def _config(self) -> str:
        tls = f"\n  tls: {{cert: '{self.ca_file}', key: '{self._work / 'key.pem'}'}}" if self.ca_file else ""
        return (
            f"server:\n  httpListenAddr: 127.0.0.1:{self.port}\n  grpcListenAddr: 127.0.0.1:{self._grpc_port}{tls}\n"
            "telemetry: {disabled: true}\n"
            f"storage:\n  driver: disk\n  disk: {{directory: '{self._policies}', watchForChanges: false}}\n"
        )

    def _is_healthy(self) -> bool:
        if self.ca_file is None:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=2)
        else:
            trust = ssl.create_default_context(cafile=self.ca_file)
            connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=2, context=trust)
        try:
            connection.request("GET", "/_cerbos/health")
            return connection.getresponse().status == 200
        except (ConnectionError, TimeoutError):
            return False
        finally:
            connection.close()

    def _fail(self) -> None:
        self.kill()
        said = self._log.read_text()
        raise (_AddressInUseError if "address already in use" in said else RuntimeError)(said or "it never answered")


class _AddressInUseError(RuntimeError):
    """Somebody else was given the port between the choice and the start."""
