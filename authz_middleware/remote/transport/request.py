"""A request as it is sent: where to, and the bytes. What cannot be said without beginning another one is not said."""

from __future__ import annotations

import functools
import ssl
from collections.abc import Mapping
from urllib.parse import urlsplit

import msgspec


class Target(msgspec.Struct, frozen=True):
    """Where a URL leads, and the lines that a request for it begins with."""

    is_secure: bool
    host: str
    port: int
    start: str | None
    """None where the URL is none that can be said."""


Place = tuple[bool, str, int, ssl.SSLContext | None]
"""What a kept-alive connection was made for, and with. Connections made with certificates that have been replaced are
not used again."""


@functools.lru_cache(maxsize=256)
def target_of(url: str) -> Target:
    """Where a URL leads."""
    parts = urlsplit(url)
    is_secure, host = parts.scheme == "https", parts.hostname or ""
    target = f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}"
    authority = parts.netloc.rpartition("@")[2]
    if not authority.isascii():
        authority = authority.encode("idna").decode("ascii")
    is_sayable = _is_sayable(target + authority) and url.isprintable() and " " not in url  # urlsplit leaves them out
    start = f"POST {target} HTTP/1.1\r\nHost: {authority}\r\n" if is_sayable else None
    return Target(is_secure, host, parts.port or (443 if is_secure else 80), start)


def request_of(target: Target, headers: Mapping[str, str], body: bytes) -> bytes | None:
    """The bytes of a request, or None for one that cannot be said: a line break in a header would begin another."""
    if target.start is None or not _is_sayable("".join((*headers, *headers.values()))):
        return None
    fields = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    return f"{target.start}{fields}Content-Length: {len(body)}\r\n\r\n".encode("ascii") + body


def _is_sayable(text: str) -> bool:
    return text.isascii() and text.isprintable()
