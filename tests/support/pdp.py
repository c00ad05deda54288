"""Decision points that do what a test tells them: in memory behind the transport protocol, and on a real socket.

`ScriptedPoint` speaks both colours. `ScriptedServer` accepts connections on loopback and hands each request to a
behaviour, a function of one `Exchange`, that may answer, drip, lie, hang or hang up.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from authz_middleware.remote.failure import RemoteFailure
from authz_middleware.remote.transport.protocol import RawAnswer

PERMIT = b'{"decision":true}'
DENY = b'{"decision":false}'
JSON = (("content-type", "application/json"),)


def raw(body: bytes | object = PERMIT, status: int = 200, headers: tuple[tuple[str, str], ...] = JSON) -> RawAnswer:
    return RawAnswer(status, headers, body if isinstance(body, bytes) else json.dumps(body).encode())


@dataclass
class Posted:
    """One question as it reached a transport."""

    url: str
    headers: Mapping[str, str]
    body: bytes
    deadline: float


@dataclass
class ScriptedPoint:
    """A transport, in both colours, whose answers are given beforehand: an answer, a failure, an exception to raise,
    or a number of seconds to take before the next one. The last is repeated."""

    script: list[RawAnswer | RemoteFailure | BaseException | float] = field(default_factory=lambda: [raw()])
    posted: list[Posted] = field(default_factory=list)
    closed: int = 0

    def _steps(self, posted: Posted) -> Iterator[RawAnswer | RemoteFailure | float]:
        self.posted.append(posted)
        while True:
            step = self.script.pop(0) if len(self.script) > 1 else self.script[0]
            if isinstance(step, BaseException):
                raise step
            yield step
            if not isinstance(step, float):
                return

    def post(self, url: str, headers: Mapping[str, str], body: bytes, deadline: float) -> RawAnswer | RemoteFailure:
        for step in self._steps(Posted(url, headers, body, deadline)):
            if not isinstance(step, float):
                return step
            time.sleep(step)
        raise AssertionError

    def close(self) -> None:
        self.closed += 1

    def asynchronous(self) -> AsyncScriptedPoint:
        return AsyncScriptedPoint(self)


@dataclass
class AsyncScriptedPoint:
    """The other colour of a ScriptedPoint."""

    point: ScriptedPoint

    async def post(
        self, url: str, headers: Mapping[str, str], body: bytes, deadline: float
    ) -> RawAnswer | RemoteFailure:
        for step in self.point._steps(Posted(url, headers, body, deadline)):
            if not isinstance(step, float):
                return step
            await asyncio.sleep(step)
        raise AssertionError

    async def aclose(self) -> None:
        self.point.closed += 1


@dataclass
class Exchange:
    """One request on one connection of a ScriptedServer."""

    connection: socket.socket
    stopping: threading.Event
    head: bytes
    body: bytes
    number: int
    """Of the request on its connection, from 1."""

    def send(self, data: bytes) -> None:
        self.connection.sendall(data)

    def header(self, name: str) -> str | None:
        for line in self.head.split(b"\r\n")[1:]:
            key, _, value = line.partition(b":")
            if key.decode().lower() == name:
                return value.strip().decode()
        return None


Behaviour = Callable[[Exchange], bool]
"""Answers one exchange; True to keep the connection."""


def response(
    body: bytes = PERMIT,
    *,
    status: str = "200 OK",
    headers: str = "Content-Type: application/json\r\n",
    length: int = -1,
) -> bytes:
    length = len(body) if length < 0 else length
    return f"HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\n\r\n".encode() + body


def answer(body: bytes = PERMIT, **options: object) -> Behaviour:
    return reply(response(body, **options))  # type: ignore[arg-type]


def reply(data: bytes, *, keep: bool = True) -> Behaviour:
    def behave(exchange: Exchange) -> bool:
        exchange.send(data)
        return keep

    return behave


def drip(data: bytes, *, pause: float = 0.03) -> Behaviour:
    def behave(exchange: Exchange) -> bool:
        for byte in data:
            exchange.send(bytes([byte]))
            if exchange.stopping.wait(pause):
                break
        return False

    return behave


def hang(exchange: Exchange) -> bool:
    exchange.stopping.wait(30)
    return False


def hang_up(_: Exchange) -> bool:
    return False


def reset(exchange: Exchange) -> bool:
    exchange.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return False


def then_reset(data: bytes) -> Behaviour:
    """Send some bytes, and end the connection without a goodbye."""

    def behave(exchange: Exchange) -> bool:
        exchange.send(data)
        exchange.stopping.wait(0.05)  # so that they are not overtaken
        return reset(exchange)

    return behave


def then_half_close(data: bytes) -> Behaviour:
    """Send some bytes and say that there are no more, but keep the other direction open."""

    def behave(exchange: Exchange) -> bool:
        exchange.send(data)
        exchange.connection.shutdown(socket.SHUT_WR)
        return hang(exchange)

    return behave


def take(seconds: float, then: Behaviour) -> Behaviour:
    def behave(exchange: Exchange) -> bool:
        exchange.stopping.wait(seconds)
        return then(exchange)

    return behave


Greeting = Callable[[socket.socket, threading.Event], bool]
"""What happens to a connection before anything is read from it, TLS included; False to end it there."""


def reset_at_once(connection: socket.socket, _: threading.Event) -> bool:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return False


def stall(_: socket.socket, stopping: threading.Event) -> bool:
    return stopping.wait(30) and False


def say_first(data: bytes) -> Greeting:
    """Send bytes nobody has asked for, and end."""

    def greet(connection: socket.socket, _: threading.Event) -> bool:
        connection.recv(1)  # as the other side has begun to speak, it is told of these and not of a reset
        connection.sendall(data)
        return False

    return greet


class ScriptedServer:
    """A real server on loopback, or at a Unix socket. `behaviours` are used one a request, in the order of arrival;
    the last is repeated. `tls` may be replaced while it runs."""

    def __init__(
        self,
        *behaviours: Behaviour,
        tls: ssl.SSLContext | None = None,
        unix: Path | None = None,
        greet: Greeting | None = None,
    ) -> None:
        self.tls = tls
        self._greet = greet
        self._behaviours = list(behaviours) or [answer()]
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self._open: list[socket.socket] = []
        self.requests: list[Exchange] = []
        self.connections = 0
        scheme = "https" if tls else "http"
        if unix is None:
            self._listener = socket.create_server(("127.0.0.1", 0))
            self.port: int = self._listener.getsockname()[1]
            self.url = f"{scheme}://127.0.0.1:{self.port}"
        else:
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(str(unix))
            self._listener.listen()
            self.url = f"{scheme}://pdp.test"

    def __enter__(self) -> Self:
        self._listener.settimeout(0.05)
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in list(self._threads):
            thread.join(5)
        self._listener.close()

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._stopping.is_set():
            with contextlib.suppress(TimeoutError):
                connection, _ = self._listener.accept()
                connection.settimeout(30)
                self.connections += 1
                self._open.append(connection)
                self._start(self._serve, connection)

    def _secured(self, connection: socket.socket) -> socket.socket:
        if self.tls is None:
            return connection
        secured = self.tls.wrap_socket(connection, server_side=True)
        self._open.append(secured)
        return secured

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            if self._greet is None or self._greet(connection, self._stopping):
                self._converse(connection)

    def _converse(self, connection: socket.socket) -> None:
        with self._secured(connection) as secured:
            number = 0
            while request := _read_request(secured):
                number += 1
                exchange = Exchange(secured, self._stopping, *request, number)
                with self._lock:
                    self.requests.append(exchange)
                    behave = self._behaviours.pop(0) if len(self._behaviours) > 1 else self._behaviours[0]
                if not behave(exchange):
                    return


def _read_request(connection: socket.socket) -> tuple[bytes, bytes] | None:
    data = b""
    while b"\r\n\r\n" not in data:
        chunk = connection.recv(65536)
        if not chunk:
            return None
        data += chunk
    head, _, body = data.partition(b"\r\n\r\n")
    length = next(int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
    while len(body) < length:
        body += connection.recv(65536)
    return head, body


def _name_of(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def certificate(folder: Path, address: str = "127.0.0.1", days: int = 1) -> tuple[Path, ssl.SSLContext]:
    """A certificate for an address, or a name, that vouches for itself, and the server's context that shows it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "throw-away")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=9))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([_name_of(address)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate_file, key_file = folder / "certificate.pem", folder / "key.pem"
    certificate_file.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate_file, key_file)
    return certificate_file, context


@contextlib.contextmanager
def black_hole() -> Iterator[int]:
    """A loopback port that answers no attempt to connect: its queue is full, and nobody takes from it."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(64):
            waiting = stack.enter_context(socket.socket())
            waiting.settimeout(0.2)
            try:
                waiting.connect(listener.getsockname())
            except TimeoutError:
                yield listener.getsockname()[1]
                return
        raise AssertionError("the queue of connections does not fill on this system")


def refused_port() -> int:
    """A loopback port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
