"""A decision point that permits everything at once, in a process of its own, for measuring who asks it.

It reads as much of a request as it takes to find its end, and answers with what a decision point sends. Run as a
module it serves on a free port of the loopback address, prints it, and ends with its standard input.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
BODY: Final = b'{"decision":true}'
HEAD: Final = (
    b"HTTP/1.1 200 OK\r\nDate: Sat, 31 Jan 2026 09:00:00 GMT\r\nServer: permitting\r\n"
    b"Content-Type: application/json\r\nCache-Control: no-store\r\nContent-Length: %d\r\n" % len(BODY)
)


class Permitting(asyncio.Protocol):
    """One connection, kept alive; the id of a request comes back in its answer."""

    def __init__(self) -> None:
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        while True:
            head, found, rest = self._received.partition(b"\r\n\r\n")
            if not found:
                return
            headers = dict(line.split(b": ", 1) for line in head.lower().split(b"\r\n")[1:])
            length = int(headers[b"content-length"])
            if len(rest) < length:
                return
            self._received = rest[length:]
            given_back = b"X-Request-ID: %b\r\n\r\n" % headers[b"x-request-id"]
            self._transport.write(HEAD + given_back + BODY)  # type: ignore[attr-defined]  # a Transport, really


@contextlib.contextmanager
def permitting_server() -> Iterator[str]:
    """The base URL of a running one."""
    command = [sys.executable, "-m", "benchmarks.permitting_server"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.stdin.close()


async def serve() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Permitting, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(serve())
