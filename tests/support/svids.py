"""A throw-away trust domain on files: X.509-SVIDs, and the bundle that vouches for them."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.support.certificates import Holder

_SIGNING: Final = x509.KeyUsage(True, False, False, False, False, False, False, False, False)
_AUTHORITY: Final = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
BOTH: Final = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)


class SvidAuthority:
    """The authority of one trust domain."""

    def __init__(self, trust_domain: str = "prod.example.org") -> None:
        self.id = f"spiffe://{trust_domain}"
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, f"{trust_domain} {id(self)}")])
        builder = (
            self._builder(self._name, self._key, 1)
            .add_extension(x509.BasicConstraints(True, None), critical=True)
            .add_extension(_AUTHORITY, critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(self.id)]), critical=False)
        )
        self.root = Holder(builder.sign(self._key, hashes.SHA256()), self._key)

    def issue(
        self,
        *uris: str,
        days: float = 1,
        dns: tuple[str, ...] = (),
        purposes: tuple[x509.ObjectIdentifier, ...] | None = BOTH,
    ) -> Holder:
        """A leaf with these URIs, those of SPIFFE IDs if nothing is amiss."""
        key = ec.generate_private_key(ec.SECP256R1())
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri) for uri in uris]
        names += [x509.DNSName(name) for name in dns]
        builder = (
            self._builder(x509.Name([]), key, days)
            .add_extension(x509.BasicConstraints(False, None), critical=True)
            .add_extension(_SIGNING, critical=True)
            .add_extension(x509.SubjectAlternativeName(names), critical=True)
        )
        if purposes is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        return Holder(builder.sign(self._key, hashes.SHA256()), key)

    def bundle(self, folder: Path, name: str = "bundle") -> Path:
        """The file of the trust bundle."""
        path = folder / f"{name}.pem"
        path.write_text(self.root.pem)
        return path

    def server_context(self, folder: Path, holder: Holder) -> ssl.SSLContext:
        """For a server that shows this SVID and asks for one of this trust domain."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*holder.save(folder, f"server-{holder.certificate.serial_number}"))
        context.load_verify_locations(cadata=self.root.pem)
        context.verify_mode = ssl.CERT_REQUIRED
        return context

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, days: float) -> x509.CertificateBuilder:
        now = datetime.now(UTC).replace(microsecond=0)
        return (
            x509.CertificateBuilder(self._name, subject, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - timedelta(days=9))
            .not_valid_after(now + timedelta(days=days))
        )
