"""X.509-SVIDs: what a certificate must be to name a workload (X509-SVID sections 2 to 5.2).

The path up to a trusted authority is the business of whoever ended TLS.
"""

from __future__ import annotations

from typing import Self

import msgspec
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from authz_middleware.identity.connection.certificate_header import MAX_CERTIFICATE
from authz_middleware.identity.problem import CredentialDetail, TokenRefusedError
from authz_middleware.identity.spiffe.spiffe_id import SpiffeId


class X509Svid(msgspec.Struct, frozen=True, gc=False):
    """A leaf certificate that names a workload. It holds from `not_before` on and before `not_after`, both in seconds
    since the epoch.

    `serial` tells one certificate of its trust domain from another, as `openssl x509 -serial` prints it. A thumbprint
    does not: whoever holds a certificate can make another of it, whose ECDSA signature holds as well (s becomes n - s).
    """

    id: SpiffeId
    serial: str
    not_before: float
    not_after: float

    @classmethod
    def parse(cls, der: bytes, purpose: x509.ObjectIdentifier = ExtendedKeyUsageOID.CLIENT_AUTH) -> Self:
        """Read a certificate in DER. Raises TokenRefusedError for one that is no X.509-SVID of a leaf, or that states
        purposes of which this is none."""
        try:
            certificate = x509.load_der_x509_certificate(der) if len(der) <= MAX_CERTIFICATE else None
            names = None if certificate is None else _names_of_leaf(certificate, purpose)
        except Exception:  # noqa: BLE001 - no library text, which may quote the certificate, leaves here
            certificate = names = None
        if certificate is None or names is None or len(names) != 1:
            raise TokenRefusedError(CredentialDetail.SPIFFE_CERTIFICATE)
        try:
            id_ = SpiffeId.parse(names[0])
        except ValueError:
            raise TokenRefusedError(CredentialDetail.SPIFFE_ID) from None
        return cls(
            id_,
            _serial_of(certificate),
            certificate.not_valid_before_utc.timestamp(),
            certificate.not_valid_after_utc.timestamp(),
        )

    def check_times(self, now: float, max_lifetime: float) -> None:
        """The certificate holds at `now` and is not made out for longer than `max_lifetime` (both in seconds).

        Raises TokenRefusedError.
        """
        if not now < self.not_after:
            raise TokenRefusedError(CredentialDetail.CERTIFICATE_EXPIRED)
        if now < self.not_before:
            raise TokenRefusedError(CredentialDetail.CERTIFICATE_NOT_YET_VALID)
        if self.not_after - self.not_before > max_lifetime:
            raise TokenRefusedError(CredentialDetail.LIFETIME)


def _serial_of(certificate: x509.Certificate) -> str:
    digits = f"{certificate.serial_number:X}"
    return digits if len(digits) % 2 == 0 else f"0{digits}"


def _names_of_leaf(certificate: x509.Certificate, purpose: x509.ObjectIdentifier) -> list[str] | None:
    """Its URIs, or None where the certificate is not one for this. May raise whatever the library does."""
    extensions = certificate.extensions
    usage = extensions.get_extension_for_class(x509.KeyUsage).value
    if not usage.digital_signature or usage.key_cert_sign or usage.crl_sign:
        return None
    if _is_authority(extensions) or not _is_for(extensions, purpose):
        return None
    names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return names.get_values_for_type(x509.UniformResourceIdentifier)


def _is_authority(extensions: x509.Extensions) -> bool:
    try:
        return extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _is_for(extensions: x509.Extensions, purpose: x509.ObjectIdentifier) -> bool:
    try:
        purposes = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return True
    return purpose in purposes
