"""Callers that are known by the client certificate of their connection (mutual TLS).

The TLS layer has verified the certificate against the authority of the settings; here it is only given a name. The
subject's common name is none: only the subject alternative names say who somebody is (RFC 9525 section 2).
"""

from __future__ import annotations

from collections.abc import MutableMapping
from functools import lru_cache
from typing import Any, Final, NamedTuple

from cryptography import x509

from authz_middleware.identity.connection.asgi import ASGICredentials

_NAMED: Final = (x509.UniformResourceIdentifier, x509.DNSName)


class _Holder(NamedTuple):
    names: tuple[str, ...]
    shown: str
    ends: float


class ClientCertificates:
    """Names the holders of client certificates. `names` are those that may ask, each a SAN of type URI or DNS; None:
    every holder of a certificate of the authority."""

    def __init__(self, names: tuple[str, ...] | None) -> None:
        self._allowed = None if names is None else frozenset(names)

    def name_of(self, scope: MutableMapping[str, Any], now: float) -> str | None:
        """The name of the holder of the connection's certificate at `now`; None where nobody may ask by it."""
        der = ASGICredentials(scope).certificate()
        holder = None if der is None else _holder(der)
        # A connection may outlive the certificate that it was opened with.
        if holder is None or now >= holder.ends:
            return None
        if self._allowed is None:
            return holder.shown
        return next((name for name in holder.names if name in self._allowed), None)


@lru_cache(maxsize=1024)
def _holder(der: bytes) -> _Holder | None:
    try:
        certificate = x509.load_der_x509_certificate(der)
        ends = certificate.not_valid_after_utc.timestamp()
        try:
            san = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            names: tuple[str, ...] = ()
        else:
            names = tuple(name for kind in _NAMED for name in san.get_values_for_type(kind))
        return _Holder(names, names[0] if names else certificate.subject.rfc4514_string(), ends)
    except ValueError:  # what the TLS library takes for a certificate and this one does not names nobody
        return None
