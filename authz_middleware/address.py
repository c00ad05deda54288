"""An address that something trusted is fetched from, read in one way only.

Whoever compares the host of an address with a list, and whoever connects to it, must see the same host. So what
two readers of URLs could tell apart is no address here: credentials, backslashes, a Unicode or percent-encoded
host, a trailing dot, white space (RFC 3986 section 7.6).
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

Place = tuple[str, int]
"""A host, lower case and without brackets, and a port."""

_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_ADDRESS: Final = re.compile(
    r"(https?)://"
    r"((?:[a-z0-9_-]+\.)*[a-z0-9_-]+|\[[0-9a-f:.]+\])"
    r"(?::([1-9][0-9]{0,4}))?"
    r"((?:/[\w.~!$&'()*+,;=:@%/-]*)?(?:\?[\w.~!$&'()*+,;=:@%/?-]*)?)",
    # Without ASCII, U+017F (long s) and U+212A (kelvin) would match "s" and "k" where case is ignored.
    re.ASCII | re.IGNORECASE,
)


class Address(msgspec.Struct, frozen=True):
    """Where a document is and how it is asked for. `target` is path and query, `authority` the `Host` header."""

    secure: bool
    place: Place
    authority: str
    target: str


def parse_address(url: str) -> Address:
    """The parts of an https URL, or of an http URL on this machine. Raises ValueError, which shows nothing of it."""
    parts = _ADDRESS.fullmatch(url)
    if parts is None:
        raise ValueError("is not a plain URL: https, an ASCII host, perhaps a port, a path, a query")
    scheme, written_host, written_port, target = parts.groups()
    secure, host = scheme.lower() == "https", written_host.lower()
    port = int(written_port or (443 if secure else 80))
    name = host.strip("[]")
    if port > 65_535:
        raise ValueError("has a port that there is not")
    if not secure and name not in _LOOPBACK:
        raise ValueError("must be an https URL; plain http is for loopback addresses only")
    authority = f"{host}:{written_port}" if written_port else host
    return Address(secure, (name, port), authority, target if target.startswith("/") else f"/{target}")


def parse_place(text: str) -> Place:
    """A host, or host and port; without one it is that of https. Raises ValueError."""
    address = parse_address(f"https://{text}")
    if address.target != "/" or text.endswith("/"):
        raise ValueError("is not a host, perhaps with a port")
    return address.place
