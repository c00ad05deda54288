"""Credentials of a request that a WSGI server hands over."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Hashable, MutableMapping, Sequence
from typing import Any, Final
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

_VERIFYING: Final = (ssl.CERT_OPTIONAL, ssl.CERT_REQUIRED)


class WSGICredentials(Credentials):
    """Reads a WSGI environment (PEP 3333).

    There a header's hyphens have become underscores, so that a header written with underscores cannot be told apart:
    servers drop those (gunicorn and werkzeug do so unless told otherwise). Several headers of one name are joined by
    commas.
    """

    __slots__ = ("_environ",)

    def __init__(self, environ: MutableMapping[str, Any]) -> None:
        self._environ = environ

    @property
    def method(self) -> str:
        """The method of the request."""
        method: str = self._environ["REQUEST_METHOD"]
        return method.upper()

    @property
    def peer(self) -> str | None:
        """The other end of the connection itself, where the server shares it (gunicorn, werkzeug); else `REMOTE_ADDR`,
        unless a server or a middleware may have taken that from a header."""
        connection = self._connection()
        # With the PROXY protocol the load balancer at the other end passes connections on unseen, not requests.
        if connection is not None and "PROXY_PROTOCOL" not in self._environ:
            return _other_end(connection)
        address = self._received("REMOTE_ADDR")
        if not address or is_quoted(address, self.values("x-forwarded-for"), with_port=False):
            return None
        return canonical_address(address)

    def values(self, name: str) -> Sequence[str]:
        """The value of a header, or the values, joined by a comma."""
        value = self._environ.get("HTTP_" + name.upper().replace("-", "_"))
        return () if value is None else (value,)

    def spent_proofs(self) -> set[Hashable]:
        """Kept in the environ, of which whoever passes the request on passes on this very one or a copy."""
        spent: set[Hashable] = self._environ.setdefault(SPENT_PROOFS, set())
        return spent

    def target(self) -> Target:
        """Scheme and `Host`, and the path as the server received it where it tells (`RAW_URI`, `REQUEST_URI`)."""
        environ = self._environ
        host = self._received("HTTP_HOST")
        authority = only_authority(() if host is None else (host,))
        raw = environ.get("RAW_URI") or environ.get("REQUEST_URI") or ""
        path = raw.partition("?")[0]
        if not path.startswith("/"):
            whole = (self._received("SCRIPT_NAME") or "") + environ.get("PATH_INFO", "")
            path = quote(whole.encode("latin-1"), safe="/:@!$&'()*+,;=~")
        scheme = self._received("wsgi.url_scheme")
        if scheme is None:
            raise ValueError("no scheme")
        return Target(scheme, authority, path)

    def certificate(self) -> bytes | None:
        """The peer's certificate from the TLS socket that the server shares (gunicorn, werkzeug), or from the variables
        of a server that has verified it (mod_wsgi with `SSLOptions +StdEnvVars +ExportCertData`, uWSGI)."""
        try:
            connection = self._connection()
            if connection is not None:
                return _verified_certificate(connection)
            # Variables are the server's: what a client sends begins with HTTP_. Apache and nginx say SUCCESS only
            # for a certificate whose chain they have verified (not GENEROUS, FAILED or NONE).
            if self._environ["SSL_CLIENT_VERIFY"] == "SUCCESS":
                return der_of_pem(self._environ["SSL_CLIENT_CERT"])
        except Exception:  # noqa: BLE001 - what cannot be read proves nothing
            return None
        return None

    def _connection(self) -> Any:
        """The server's own socket, where it shares it."""
        return self._environ.get("gunicorn.socket") or self._environ.get("werkzeug.socket")

    def _received(self, key: str) -> str | None:
        """A variable as the server set it, before werkzeug's `ProxyFix` replaced it from a header."""
        replaced = self._environ.get("werkzeug.proxy_fix.orig", {})
        value: str | None = replaced[key] if key in replaced else self._environ.get(key)
        return value


def _other_end(connection: Any) -> str | None:
    try:
        # The family says so: the other end of a unix socket may have bound any name, one like an address included.
        return UNIX if connection.family == socket.AF_UNIX else canonical_address(connection.getpeername()[0])
    except (AttributeError, IndexError, OSError):
        return None


def _verified_certificate(connection: Any) -> bytes | None:
    # Python's ssl verifies a certificate in these modes, or there is no connection; in the third it asks for none.
    if connection.context.verify_mode not in _VERIFYING:
        return None
    certificate: bytes | None = connection.getpeercert(binary_form=True)
    return certificate
