"""A real decision point in a second process: `authz serve` with a policy of its own."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Final, Self

POLICY: Final = """
policy: approvals
owner: treasury@example.com
rules:
  - rule: small-invoices
    permit: invoice:approve
    when:
      resource.id: {in: ["1"]}
  - rule: exports-and-reports
    permit: [invoice:export, report:*]
    when: always
"""


def free_port() -> int:
    """A port of the loopback address that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class DecisionPointProcess:
    """The process, started on entry; it can be stopped and started again at the same address.

    `settings` are TOML, in which `PORT` stands for the port; without them the command line's options are used.
    `context` is what it takes to ask for its health over TLS.
    """

    def __init__(
        self,
        folder: Path,
        policy: str = POLICY,
        *,
        settings: str | None = None,
        options: tuple[str, ...] = (),
        context: ssl.SSLContext | None = None,
    ) -> None:
        self.policy = folder / "approvals.yaml"
        self.policy.write_text(policy)
        self.port = free_port()
        self._context = context
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"{'http' if context is None else 'https'}://127.0.0.1:{self.port}"
        if settings is None:
            self._arguments = ("--policy", str(self.policy), "--port", str(self.port), *options)
        else:
            file = folder / "pdp.toml"
            common = '[policy]\nsource = "approvals.yaml"\nallow_unsigned = true\nrefresh = "100ms"\n'
            file.write_text(common + settings.replace("PORT", str(self.port)))
            self._arguments = ("--config", str(file), *options)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The id of the process that was started, be it the supervisor of others."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start the process and wait until it answers."""
        authz = Path(sys.executable).with_name("authz")
        command = [str(authz), "serve", *self._arguments]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=os.environ)
        end = time.monotonic() + 30
        while True:
            try:
                with urllib.request.urlopen(f"{self.url}/healthz", timeout=1, context=self._context):
                    return
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                if self._process.poll() is not None or time.monotonic() > end:
                    output = self._process.communicate()[0] if self._process.poll() is not None else b"no answer"
                    raise RuntimeError(output.decode()) from None
                time.sleep(0.05)

    def tell_to_stop(self) -> None:
        """Send SIGTERM, and do not wait."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)

    def stop(self) -> str:
        """Stop the process, wait until it is gone, and answer what it has printed."""
        if self._process is None:
            return ""
        self._process.terminate()
        try:
            output = self._process.communicate(timeout=20)[0]
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
            raise
        self._process = None
        return output.decode()
