"""Credentials of a request that an ASGI server hands over."""

from __future__ import annotations

from collections.abc import Hashable, MutableMapping, Sequence
from typing import Any
from urllib.parse import quote

from authz_middleware.identity.connection.certificate_header import der_of_pem
from authz_middleware.identity.connection.credentials import (
    SPENT_PROOFS,
    UNIX,
    Credentials,
    Target,
    canonical_address,
    is_quoted,
    only_authority,
)

_HTTP_SCHEMES = {"ws": "http", "wss": "https"}


class ASGICredentials(Credentials):
    """Reads an ASGI connection scope (ASGI specification, HTTP and websocket)."""

    __slots__ = ("_scope",)

    def __init__(self, scope: MutableMapping[str, Any]) -> None:
        self._scope = scope

    @property
    def method(self) -> str:
        """The method of the request; a websocket handshake is a GET."""
        method: str = self._scope.get("method", "GET")
        return method.upper()

    @property
    def peer(self) -> str | None:
        """The address in `scope["client"]`, unless the server may have taken it from a header.

        uvicorn does so by default for connections from loopback, and for all with `--forwarded-allow-ips=*`; daphne
        does with `--proxy-headers`. The port is then a header's as well, or zero, which no connection has.
        """
        client = self._scope.get("client")
        if client is None:
            # No sign of a unix socket by itself: a TCP connection that was reset before the server took it has no
            # client either (uvicorn), and its request is handled all the same. The server's own end tells.
            server = self._scope.get("server")
            return UNIX if server is not None and server[1] is None else None
        host, port = client
        with_port = not self.values("x-forwarded-port")
        if not port or is_quoted(host, self.values("x-forwarded-for"), with_port=with_port):
            return None
        return canonical_address(host)

    def values(self, name: str) -> Sequence[str]:
        """Every value of a header. ASGI servers hand names over in lower case and leave underscores alone."""
        wanted, headers = name.encode("latin-1"), self._scope["headers"]
        return [value.decode("latin-1") for known, value in headers if known == wanted]

    def spent_proofs(self) -> set[Hashable]:
        """Kept in the scope, of which whoever passes the request on passes on this very one or a copy."""
        spent: set[Hashable] = self._scope.setdefault(SPENT_PROOFS, set())
        return spent

    def target(self) -> Target:
        """Scheme, `Host` and raw path of the scope."""
        authority = only_authority(self.values("host"))
        scheme: str = self._scope.get("scheme", "http")
        raw = self._scope.get("raw_path")
        path = raw.decode("latin-1").partition("?")[0] if raw else quote(self._scope["path"], safe="/:@!$&'()*+,;=~")
        return Target(_HTTP_SCHEMES.get(scheme, scheme), authority, path)

    def certificate(self) -> bytes | None:
        """The first certificate of the TLS extension (ASGI TLS extension 0.2), when the server has verified it.

        uvicorn and gunicorn's own ASGI worker do not offer the extension.
        """
        try:
            tls = self._scope["extensions"]["tls"]
            # The key must be there: where it is left out, nobody says that the certificate was verified.
            if tls["client_cert_error"] is not None:
                return None
            for leaf in tls["client_cert_chain"]:
                return der_of_pem(leaf)
        except Exception:  # noqa: BLE001 - what cannot be read proves nothing
            return None
        return None
