"""What a request shows of whoever sends it: headers, the connection's other end, a client certificate.

Kept apart from `RequestFacts`, which are logged whole: nothing here is ever logged, and its `repr` shows none of it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import msgspec


class Target(msgspec.Struct, frozen=True, gc=False):
    """The address a request was sent to, as the server received it: scheme and authority (host, perhaps port) of the
    request, and the path with its percent-encoding, without query."""

    scheme: str
    authority: str
    path: str


class Credentials(ABC):
    """The credentials of one request, read only as far as a check needs them.

    `identity.asgi` and `identity.wsgi` read them from a server's interface.
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
        """The address of the connection's other end, which may be a proxy; None where the server tells none, as on a
        unix socket."""

    @abstractmethod
    def values(self, name: str) -> Sequence[str]:
        """Every value of a header, by its lower-case name with hyphens; never of one written with underscores."""

    @abstractmethod
    def target(self) -> Target:
        """Where the request was sent to. Raises ValueError where the server does not tell."""

    @abstractmethod
    def certificate(self) -> bytes | None:
        """The certificate (DER) that the connection's other end has proven to hold in the TLS handshake, where the
        server ends TLS itself, asked for one, verified it and tells; else None."""
