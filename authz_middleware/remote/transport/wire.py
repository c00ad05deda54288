"""One connection that knows its deadline, in the shape of a socket that `http.client` can use.

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
from typing import Any, Final

from authz_middleware.remote.transport.resolving import resolve

_READ_AHEAD: Final = 16 * 1024


class Wire:
    """A connected socket. `deadline` is a reading of the monotonic clock; past it every call is a TimeoutError.

    `received` counts the bytes of the exchange under way: with none of them, a connection that turns out to be
    closed has not begun to answer. `has_ended` tells that the other side has closed it.
    """

    def __init__(self, connected: socket.socket, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._socket = connected
        self._monotonic = monotonic
        self._outgoing = bytearray()
        self._incoming = _Incoming(self)
        self._reader = _Reader(self._incoming, _READ_AHEAD)
        self.deadline = 0.0
        self.received = 0
        self.has_ended = False

    def sendall(self, data: bytes) -> None:
        """Hold bytes back until `flush`, so that head and body leave together."""
        self._outgoing += data

    def flush(self) -> None:
        """Send what was held back."""
        data, self._outgoing = bytes(self._outgoing), bytearray()
        self._socket.settimeout(self._left())
        self._socket.sendall(data)

    def makefile(self, mode: str = "rb") -> io.BufferedReader:  # noqa: ARG002 - the signature of a socket
        """The one reader of this connection: what it read ahead is not lost between two responses."""
        return self._reader

    def receive(self, buffer: Any) -> int:
        """Fill a buffer with bytes that arrive before the deadline."""
        self._socket.settimeout(self._left())
        count = self._socket.recv_into(buffer)
        self.received += count
        self.has_ended = not count
        return count

    def is_quiet(self) -> bool:
        """Whether nothing has come in that nobody asked for: neither a byte nor the end of the stream."""
        self._incoming.is_held = True
        try:
            if self._reader.peek(1):
                return False
        finally:
            self._incoming.is_held = False
        if isinstance(self._socket, ssl.SSLSocket) and self._socket.pending():
            return False
        return not is_readable(self._socket)

    def close(self) -> None:
        """Nothing: `http.client` closes its socket as soon as it has a response to read."""

    def hang_up(self) -> None:
        """Close the connection."""
        self._socket.close()

    def _left(self) -> float:
        left = self.deadline - self._monotonic()
        if left <= 0:
            raise TimeoutError
        return left


class _Incoming(io.RawIOBase):
    """What the buffered reader reads from. While held it has nothing to give."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self.is_held = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        return None if self.is_held else self._wire.receive(buffer)


class _Reader(io.BufferedReader):
    def close(self) -> None:
        """Stay open for the next response on this connection."""


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
        connected = socket.socket(family, socket.SOCK_STREAM)
        try:
            connected.settimeout(left / (others + 1))
            connected.connect(address)
        except OSError:
            connected.close()
            if not others:
                raise
            continue
        return Wire(_secured(connected, host, deadline - monotonic(), tls), monotonic)
    raise TimeoutError


def _secured(connected: socket.socket, host: str, left: float, tls: ssl.SSLContext | None) -> socket.socket:
    try:
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls is None:
            return connected
        connected.settimeout(max(left, 0.001))  # zero would mean not to block at all
        return tls.wrap_socket(connected, server_hostname=host)
    except BaseException:
        connected.close()
        raise


def is_readable(connected: socket.socket) -> bool:
    """Whether a byte, or the end of the stream, is waiting to be read."""
    if not hasattr(select, "poll"):  # Windows, where select() takes any socket
        return bool(select.select([connected], [], [], 0)[0])
    watch = select.poll()
    watch.register(connected, select.POLLIN)
    return bool(watch.poll(0))
