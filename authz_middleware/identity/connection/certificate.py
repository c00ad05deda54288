"""Client certificates: what a token is bound to, and who a workload is that shows nothing else (RFC 8705).

Whoever hands a certificate over here (`Proxies.certificate_of`) has seen its holder prove possession in a TLS
handshake. Nothing here verifies a chain: a certificate is known by the digest of all its bytes, or not at all.
"""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Mapping
from hashlib import sha256
from hmac import compare_digest
from typing import Final, NamedTuple

from cryptography import x509

from authz_middleware.identity.claims.values import FrozenMapping
from authz_middleware.identity.connection.certificate_header import MAX_CERTIFICATE
from authz_middleware.identity.principal import Principal
from authz_middleware.identity.problem import CredentialDetail, TokenRefusedError
from authz_middleware.settings.certificates import CertificateSettings

X509_ISSUER: Final = "x509"
"""The `issuer` of principals that the settings know by their certificate."""


class Validity(NamedTuple):
    """When a certificate holds: from `begins` on, and before `ends`; seconds since the epoch."""

    begins: float
    ends: float


def thumbprint_of(der: bytes) -> str:
    """The SHA-256 of a certificate in DER, in base64url without padding: `x5t#S256` (RFC 8705 section 3.1)."""
    return base64.urlsafe_b64encode(sha256(der).digest()).rstrip(b"=").decode()


def check_bound(x5t: object, certificate: bytes | None) -> None:
    """Check that whoever presents a token holds the certificate that it is bound to (RFC 8705 section 3).

    `x5t` is the token's `cnf.x5t#S256`, of whatever type it is; `certificate` is in DER. Raises TokenRefusedError.
    """
    if certificate is None:
        raise TokenRefusedError(CredentialDetail.CERTIFICATE_MISSING)
    # As bytes: compare_digest refuses text that is not ASCII. Only the one canonical spelling of a digest is equal.
    named = x5t.encode("utf-8", "surrogatepass") if isinstance(x5t, str) else b""
    if not compare_digest(named, thumbprint_of(certificate).encode()):
        raise TokenRefusedError(CredentialDetail.CERTIFICATE_MISMATCH)


def validity_of(der: bytes) -> Validity:
    """When this certificate holds.

    Raises TokenRefusedError for anything but one certificate in DER, and for that of an authority: a key that vouches
    for others is not one to call with.
    """
    validity = None
    with contextlib.suppress(Exception):  # the parser raises several families, and tells what it read
        validity = _validity(der)
    if validity is None:
        raise TokenRefusedError(CredentialDetail.CERTIFICATE_MALFORMED)
    return validity


class CertificateIdentities:
    """The workloads that the settings know by their certificate. One object serves all threads."""

    def __init__(self, certificates: Mapping[str, CertificateSettings]) -> None:
        self._certificates = certificates
        # Of known certificates only, so it grows no larger than the settings.
        self._validities: dict[str, Validity] = {}

    def principal_of(self, der: bytes, now: float) -> Principal:
        """The workload that holds this certificate at `now` (seconds since the epoch).

        Its `token_id` is the thumbprint, so that revocations can name one certificate of several. Raises
        TokenRefusedError.
        """
        thumbprint = thumbprint_of(der)
        known = self._certificates.get(thumbprint)
        if known is None:
            raise TokenRefusedError(CredentialDetail.CERTIFICATE_UNKNOWN)
        validity = self._validities.get(thumbprint)
        if validity is None:
            validity = self._validities[thumbprint] = validity_of(der)
        ends = validity.ends if known.not_after is None else min(validity.ends, known.not_after)
        if not now < ends:
            raise TokenRefusedError(CredentialDetail.CERTIFICATE_EXPIRED)
        if now < validity.begins:
            raise TokenRefusedError(CredentialDetail.CERTIFICATE_NOT_YET_VALID)
        return Principal(
            issuer=X509_ISSUER,
            subject=known.subject,
            kind=known.kind,
            subject_kind=known.kind,
            scopes=frozenset(known.scopes),
            roles=frozenset(known.roles),
            tenant=known.tenant,
            environment=known.environment,
            token_id=thumbprint,
            issued_at=validity.begins,
            expires_at=ends,
            claims=FrozenMapping(owner=known.owner),
        )


def _validity(der: bytes) -> Validity | None:
    if len(der) > MAX_CERTIFICATE:
        return None
    certificate = x509.load_der_x509_certificate(der)
    if _is_authority(certificate):
        return None
    return Validity(certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp())


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False
