"""Credentials of a request that a WSGI server hands over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from authz_middleware.identity.credentials import Credentials, Target


class WSGICredentials(Credentials):
    """Reads a WSGI environment (PEP 3333).

    There a header's hyphens have become underscores, so that a header written with underscores cannot be told apart:
    servers drop those (gunicorn and werkzeug do so unless told otherwise). Several headers of one name are joined by
    commas.
    """

    __slots__ = ("_environ",)

    def __init__(self, environ: Mapping[str, Any]) -> None:
        self._environ = environ

    @property
    def method(self) -> str:
        """The method of the request."""
        method: str = self._environ["REQUEST_METHOD"]
        return method.upper()

    @property
    def peer(self) -> str | None:
        """`REMOTE_ADDR`, unless it is empty, as on a unix socket."""
        return self._environ.get("REMOTE_ADDR") or None

    def values(self, name: str) -> Sequence[str]:
        """The value of a header, or the values, joined by a comma."""
        value = self._environ.get("HTTP_" + name.upper().replace("-", "_"))
        return () if value is None else (value,)

    def target(self) -> Target:
        """Scheme and `Host`, and the path as the server received it where it tells (`RAW_URI`, `REQUEST_URI`)."""
        environ = self._environ
        hosts = self.values("host")
        if len(hosts) != 1:
            raise ValueError("not exactly one Host header")
        raw = environ.get("RAW_URI") or environ.get("REQUEST_URI") or ""
        path = raw.partition("?")[0]
        if not path.startswith("/"):
            whole = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
            path = quote(whole.encode("latin-1"), safe="/:@!$&'()*+,;=~")
        return Target(environ["wsgi.url_scheme"], hosts[0], path)

    def certificate(self) -> bytes | None:
        """The peer's certificate, where the server shares its TLS socket."""
        return None
