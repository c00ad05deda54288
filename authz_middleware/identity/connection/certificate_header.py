"""A certificate as text: in PEM, or in the header in which a proxy passes its client's certificate on.

Every reader takes the one value of the header, gives one certificate in DER, and raises ValueError for anything else.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Final, Literal
from urllib.parse import unquote_to_bytes

CertificateFormat = Literal["rfc9440", "pem-escaped", "base64", "xfcc"]

MAX_CERTIFICATE: Final = 16 * 1024
"""The longest certificate in DER; those in use have one to four KiB."""
MAX_HEADER: Final = 64 * 1024
"""The longest header that is read; Envoy's may have a chain in it."""

_PEM: Final = re.compile(r"-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----\s*")
_DETAIL: Final = re.compile(r' ?([A-Za-z]+)=("(?:[^"\\]|\\.)*"|[^",;]*)([;,]|$)')
_DETAILS: Final = frozenset({"By", "Hash", "Cert", "Chain", "Subject"})


def der_of_pem(text: str) -> bytes:
    """The one certificate in PEM (RFC 7468), its lines broken anywhere. Raises ValueError."""
    # A server's variable may have tabs in it (nginx), and two certificates must not become one.
    found = _PEM.fullmatch(text)
    if found is None:
        raise ValueError("not one certificate in PEM")
    return _der("".join(found[1].split()))


def read_rfc9440(value: str) -> bytes:
    """`Client-Cert` (RFC 9440 section 2.2): a byte sequence between colons, without parameters."""
    if len(value) < 2 or value[0] != ":" or value[-1] != ":":
        raise ValueError("not a byte sequence")
    return _der(value[1:-1])


def read_escaped_pem(value: str) -> bytes:
    """Percent-encoded PEM: nginx's `$ssl_client_escaped_cert`, Apache's `%{escape:...}`. A plus is a plus."""
    return der_of_pem(unquote_to_bytes(value).decode("ascii"))


def read_base64(value: str) -> bytes:
    """Base64 of DER and nothing around it, as Traefik and HAProxy pass it on. A chain is refused: a comma may as well
    stand between two headers."""
    return _der(value)


def read_xfcc(value: str) -> bytes:
    """Envoy's `X-Forwarded-Client-Cert`: elements by comma, the proxy next to us has written the last one.

    Earlier elements are what it was sent. An element with URI or DNS is refused: Envoy writes these without quotes, so
    that a name in a certificate could pass for another element. A `Hash` must be that of the certificate.
    """
    last = _last_element(value)
    der = read_escaped_pem(last.get("Cert", ""))
    if last.get("Hash", "").lower() not in ("", sha256(der).hexdigest()):
        raise ValueError("a hash of another certificate")
    return der


READERS: Final[Mapping[CertificateFormat, Callable[[str], bytes]]] = {
    "rfc9440": read_rfc9440,
    "pem-escaped": read_escaped_pem,
    "base64": read_base64,
    "xfcc": read_xfcc,
}


def _last_element(value: str) -> dict[str, str]:
    element: dict[str, str] = {}
    position, separator = 0, ","
    while separator:
        found = _DETAIL.match(value, position)
        if found is None:
            raise ValueError("not a list of certificate details")
        if separator == ",":
            element = {}
        name, text, separator = found.groups()
        if name not in _DETAILS or (name in element and name != "By"):
            raise ValueError("a detail that may not be there")
        element[name] = text[1:-1] if text.startswith('"') else text
        position = found.end()
    return element


def _der(text: str) -> bytes:
    try:
        der = base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ValueError("not base64") from None
    if not 0 < len(der) <= MAX_CERTIFICATE:
        raise ValueError("not of the length of a certificate")
    return der
