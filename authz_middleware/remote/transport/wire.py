"""One connection that knows its deadline.

A socket's time-out starts anew with every byte that drips in. This one gives each system call only what is left
of the whole, so the exchange ends when it has to.
"""

from __future__ import annotations

import io
import select
import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from authz_middleware.remote.transport.resolving import resolve

FULL_QUEUE_PAUSE_S: Final = 0.005
# A whole record of TLS: of less than one the rest would lie where `is_readable` does not see it.
_READ_AHEAD: Final = 16 * 1024


class Wire:
    """A connected socket. `deadline` is a reading of the monotonic clock; past it every call is a TimeoutError.

    `received` counts the bytes of the exchange under way: with none of them, a connection that turns out to be
    closed has not begun to answer. `has_ended` tells that the other side has closed it. `idle_since` is when it was
    last put aside.
    """

    def __init__(self, connected: socket.socket, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._socket = connected
        self._monotonic = monotonic
        self._outgoing = bytearray()
        self.deadline = self.idle_since = 0.0
        self.received = 0
        self.has_ended = False

    @property
    def certificate(self) -> bytes | None:
        """The certificate (DER) that the other side has proved to hold; None without TLS."""
        return self._socket.getpeercert(binary_form=True) if isinstance(self._socket, ssl.SSLSocket) else None

    def send(self, data: bytes) -> None:
        """Send all of it."""
        self._socket.settimeout(self._left())
        self._socket.sendall(data)

    def receive(self, most: int = _READ_AHEAD) -> bytes:
        """Some bytes that arrive before the deadline; none at the end of the stream."""
        self._socket.settimeout(self._left())
        data = self._socket.recv(most)
        self.received += len(data)
        self.has_ended = not data
        return data

    def is_quiet(self) -> bool:
        """Whether nothing waits to be read that nobody asked for: neither a byte nor the end of the stream."""
        return not is_readable(self._socket)

    def hang_up(self) -> None:
        """Close the connection."""
        self._socket.close()

    # What `http.client` uses of a socket:

    def sendall(self, data: bytes) -> None:
        """Hold bytes back until `flush`, so that head and body leave together."""
        self._outgoing += data

    def flush(self) -> None:
        """Send what was held back."""
        data, self._outgoing = bytes(self._outgoing), bytearray()
        self.send(data)

    def makefile(self, mode: str = "rb") -> io.BufferedReader:  # noqa: ARG002 - the signature of a socket
        """A reader of what comes in."""
        return io.BufferedReader(_Incoming(self), _READ_AHEAD)

    def close(self) -> None:
        """Nothing: `http.client` closes its socket as soon as it has a response to read."""

    def _left(self) -> float:
        left = self.deadline - self._monotonic()
        if left <= 0:
            raise TimeoutError
        return left


class _Incoming(io.RawIOBase):
    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._wire.receive(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def connect(
    host: str, port: int, deadline: float, tls: ssl.SSLContext | None, monotonic: Callable[[], float] = time.monotonic
) -> Wire:
    """Connect, and shake hands where it is TLS, before the deadline. Raises OSError, TimeoutError included.

    Each address gets an equal part of the time that is left, so that one black hole does not use up all of it.
    """
    addresses = resolve(host, port, deadline - monotonic())
    for others, (family, address) in zip(range(len(addresses) - 1, -1, -1), addresses, strict=True):
        left = deadline - monotonic()
        if left <= 0:
            break
        try:
            connected = _connected(family, address, left / (others + 1))
        except OSError:
            if not others:
                raise
            continue
        return Wire(_secured(connected, host, deadline - monotonic(), tls), monotonic)
    raise TimeoutError


def connect_local(
    path: Path,
    host: str,
    deadline: float,
    tls: ssl.SSLContext | None,
    monotonic: Callable[[], float] = time.monotonic,
) -> Wire:
    """`connect` to a Unix socket; `host` is whom TLS expects there."""
    while (left := deadline - monotonic()) > 0:
        try:
            connected = _connected(socket.AF_UNIX, str(path), left)
        except BlockingIOError:  # too many wait to be accepted, and nothing tells when it is fewer
            time.sleep(min(left, FULL_QUEUE_PAUSE_S))
            continue
        return Wire(_secured(connected, host, deadline - monotonic(), tls), monotonic)
    raise TimeoutError


def _connected(family: int, address: Any, left: float) -> socket.socket:
    connecting = socket.socket(family, socket.SOCK_STREAM)
    try:
        if family in (socket.AF_INET, socket.AF_INET6):
            connecting.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connecting.settimeout(left)
        connecting.connect(address)
    except BaseException:
        connecting.close()
        raise
    return connecting


def _secured(connected: socket.socket, host: str, left: float, tls: ssl.SSLContext | None) -> socket.socket:
    if tls is None:
        return connected
    securing = connected
    try:
        connected.settimeout(max(left, 0.001))  # zero would mean not to block at all
        securing = secured = tls.wrap_socket(connected, server_hostname=host, do_handshake_on_connect=False)
        secured.do_handshake()
    except BaseException:
        securing.close()
        raise
    return secured


def is_readable(connected: socket.socket) -> bool:
    """Whether a byte, or the end of the stream, is waiting to be read."""
    if not hasattr(select, "poll"):  # Windows, where select() takes any socket
        return bool(select.select([connected], [], [], 0)[0])
    watch = select.poll()
    watch.register(connected, select.POLLIN)
    return bool(watch.poll(0))
