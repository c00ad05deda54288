"""A real decision point in a second process: `authz serve` with a policy of its own."""

from __future__ import annotations

import os
import socket
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
    """The process, started on entry; it can be stopped and started again at the same address."""

    def __init__(self, folder: Path, policy: str = POLICY) -> None:
        self._policy = folder / "approvals.yaml"
        self._policy.write_text(policy)
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the process and wait until it answers."""
        authz = Path(sys.executable).with_name("authz")
        command = [str(authz), "serve", "--policy", str(self._policy), "--port", str(self._port)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=os.environ)
        end = time.monotonic() + 20
        while True:
            try:
                with urllib.request.urlopen(f"{self.url}/healthz", timeout=1):
                    return
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                if self._process.poll() is not None or time.monotonic() > end:
                    output = self._process.communicate()[0] if self._process.poll() is not None else b"no answer"
                    raise RuntimeError(output.decode()) from None
                time.sleep(0.05)

    def stop(self) -> None:
        """Stop the process and wait until it is gone."""
        if self._process is not None:
            self._process.terminate()
            self._process.communicate(timeout=10)
            self._process = None
