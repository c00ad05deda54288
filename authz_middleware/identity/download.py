"""A small document over HTTPS, within a total time and a size, from exactly the address given.

The standard library's time-outs bound one read, not the whole exchange: a server that drips one byte a second
holds them for ever. Here each read gets what is left of one deadline. No proxy of the environment is used and
no redirect followed: whoever answers for the key set decides who may sign.
"""

from __future__ import annotations

import http.client
import io
import socket
import ssl
import time
from typing import Any, Final
from urllib.parse import urlsplit

MAX_DOCUMENT: Final = 512 * 1024
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


class DownloadError(Exception):
    """There is no document. The text is ours and names no part of what was received."""


def download(url: str, *, deadline: float, limit: int = MAX_DOCUMENT) -> bytes:
    """The body of a 200 answer from `url` within `deadline` seconds and `limit` bytes.

    Raises DownloadError for everything else. Looking up the host name is bounded by the system's resolver only.
    """
    ends = time.monotonic() + deadline
    try:
        return _fetch(url, ends, limit)
    except DownloadError:
        raise
    except TimeoutError:
        raise DownloadError("did not answer in time") from None
    except ssl.SSLError:
        raise DownloadError("could not be reached over TLS with a trusted certificate") from None
    except OSError as error:
        raise DownloadError(f"could not be reached ({type(error).__name__})") from None
    except Exception:  # noqa: BLE001 - http.client raises ValueError and more on hostile input
        raise DownloadError("did not answer in well-formed HTTP") from None


def _fetch(url: str, ends: float, limit: int) -> bytes:
    parts = urlsplit(url)
    host, secure = parts.hostname or "", parts.scheme == "https"
    if not secure and not (parts.scheme == "http" and host in _LOOPBACK):
        raise DownloadError("must have an https address; plain http is for loopback addresses only")
    kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
    connection = kind(host, parts.port)
    sock = _dial(connection.host, connection.port, ends)
    try:
        if secure:
            sock.settimeout(_left(ends))
            sock = ssl.create_default_context().wrap_socket(sock, server_hostname=host)
        connection.sock = _Timed(sock, ends)
        return _exchange(connection, (parts.path or "/") + (f"?{parts.query}" if parts.query else ""), limit)
    finally:
        connection.close()
        sock.close()


def _exchange(connection: http.client.HTTPConnection, target: str, limit: int) -> bytes:
    connection.request("GET", target, headers={"Accept": "application/jwk-set+json, application/json"})
    with connection.getresponse() as response:
        if response.status != http.client.OK:
            raise DownloadError(f"answered with status {response.status}")
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise DownloadError("answered with a compressed body, which was not asked for")
        # A declared length above the limit, or a body without end, is cut off by reading one byte too many.
        body = response.read(limit + 1)
        if len(body) > limit:
            raise DownloadError(f"answered with more than {limit} bytes")
        if response.length:
            raise DownloadError("answered with less than it announced")
        return body


def _dial(host: str, port: int, ends: float) -> socket.socket:
    """A connection to the first address of the host that takes one; all of them share the one deadline."""
    failure: OSError = OSError("no address")
    for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(_left(ends))
            sock.connect(address)
        except OSError as error:
            sock.close()
            failure = error
        else:
            return sock
    raise failure


def _left(ends: float) -> float:
    left = ends - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


class _Timed:
    """A connected socket whose every operation ends at one moment; as much of a socket as http.client uses."""

    def __init__(self, sock: socket.socket, ends: float) -> None:
        self._sock = sock
        self._ends = ends

    def sendall(self, data: Any) -> None:
        self._sock.settimeout(_left(self._ends))
        self._sock.sendall(data)

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_TimedReader(self._sock, self._ends))

    def close(self) -> None:
        self._sock.close()


class _TimedReader(io.RawIOBase):
    def __init__(self, sock: socket.socket, ends: float) -> None:
        self._sock = sock
        self._ends = ends
        # Keeps the connection open after http.client has let go of the socket and still reads the body.
        self._raw = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(_left(self._ends))
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()
