"""What a request shows of whoever sends it: headers, the connection's other end, a client certificate.

Kept apart from `RequestFacts`, which are logged whole: nothing here is ever logged, and its `repr` shows none of it.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Sequence
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from typing import Final

import msgspec

UNIX: Final = "unix"
"""The peer of a connection over a unix socket, where the server says that it is one."""

SPENT_PROOFS: Final = "authz.spent_proofs"
"""Where the interfaces of servers keep `Credentials.spent_proofs`: beside the request, where no client can write."""

_LONGEST_ADDRESS: Final = 64
_AUTHORITY: Final = re.compile(r"(?:[0-9A-Za-z._~!$&'()*+;=%-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")


class Target(msgspec.Struct, frozen=True, gc=False):
    """The address a request was sent to, as the server received it: scheme and authority (host, perhaps port) of the
    request, and the path with its percent-encoding, without query."""

    scheme: str
    authority: str
    path: str


class Credentials(ABC):
    """The credentials of one request, read only as far as a check needs them.

    `identity.connection.asgi` and `identity.connection.wsgi` read them from a server's interface. None of them believes
    a header about the connection; `Proxies` does so for the proxies that are configured.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    @property
    @abstractmethod
    def method(self) -> str:
        """The method of the request, upper case."""

    @property
    @abstractmethod
    def peer(self) -> str | None:
        """Who is at the connection's other end, which may be a proxy: an IP address, or `UNIX`.

        None where the server does not tell, or may have taken what it tells out of a header.
        """

    @abstractmethod
    def values(self, name: str) -> Sequence[str]:
        """Every value of a header, by its lower-case name with hyphens; never of one written with underscores."""

    def spent_proofs(self) -> set[Hashable]:
        """The proofs of possession that this request itself has spent so far. It may meet several gates, such as those
        of an application and of one mounted in it, and a proof is for all of it."""
        return set()

    @abstractmethod
    def target(self) -> Target:
        """Where the request was sent to. Raises ValueError where the server does not tell."""

    @abstractmethod
    def certificate(self) -> bytes | None:
        """The certificate (DER) that the connection's other end has proven to hold in the TLS handshake, where the
        server ends TLS itself, asked for one, verified it and tells; else None."""


def canonical_address(text: str | None) -> str | None:
    """An IP address as it is commonly written, IPv4 in IPv6 as IPv4; None for anything else."""
    return _canonical(text) if text and len(text) <= _LONGEST_ADDRESS else None


# The same clients call again and again, and reading an address costs more than all else that is done with it.
@lru_cache(maxsize=4096)
def _canonical(text: str) -> str | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(address)


def only_authority(hosts: Sequence[str]) -> str:
    """The one host, perhaps with a port, that there must be (RFC 9112 section 3.2).

    Raises ValueError for none, for several, also when a server has joined them, and for what is no host.
    """
    if len(hosts) != 1 or not _AUTHORITY.fullmatch(hosts[0]):
        raise ValueError("not exactly one host")
    return hosts[0]


def is_quoted(address: str, forwarded: Iterable[str], *, with_port: bool) -> bool:
    """Whether values of `X-Forwarded-For` hold this address (with a port, where asked for): then a server or a
    middleware may have taken it from there."""
    beginnings = (f"{address}:", f"{address}]")
    items = (item.strip().removeprefix("[") for value in forwarded for item in value.split(","))
    return any(item.startswith(beginnings) or (item == address and not with_port) for item in items)
