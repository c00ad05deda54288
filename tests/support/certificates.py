"""A throw-away certificate authority: certificates for servers and clients, the unfit ones included."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

DAY: Final = 86_400.0


class Holder:
    """A certificate with its private key."""

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self.certificate = certificate
        self.key = key

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    @property
    def begins(self) -> float:
        return self.certificate.not_valid_before_utc.timestamp()

    @property
    def ends(self) -> float:
        return self.certificate.not_valid_after_utc.timestamp()

    def save(self, folder: Path, name: str) -> tuple[Path, Path]:
        """The files of certificate and key, in PEM."""
        certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
        certificate.write_text(self.pem)
        form = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        key.write_bytes(self.key.private_bytes(serialization.Encoding.PEM, *form))
        return certificate, key


class Authority:
    """Signs certificates; the root of trust is `root`."""

    def __init__(self, name: str = "throw-away authority") -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        self._key = key
        self.root = self.issue(name, ca=True, key=key)

    def issue(
        self,
        name: str,
        *,
        days: float = 1,
        began: float = 1,
        addresses: tuple[str, ...] = (),
        uri: str | None = None,
        ca: bool | None = False,
        bulk: int = 0,
        key: ec.EllipticCurvePrivateKey | None = None,
    ) -> Holder:
        """A certificate that began some days ago and holds for as many more; `addresses` make it a server's, and
        `bulk` bytes make it long. With `ca=None` it does not say whether it is an authority's."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC).replace(microsecond=0)
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        names: list[x509.GeneralName] = [x509.IPAddress(ip_address(address)) for address in addresses]
        if uri is not None:
            names.append(x509.UniformResourceIdentifier(uri))
        builder = (
            x509.CertificateBuilder(self._name, subject, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - timedelta(days=began))
            .not_valid_after(now + timedelta(days=days))
        )
        if ca is not None:
            builder = builder.add_extension(x509.BasicConstraints(ca, 0 if ca else None), critical=True)
        if bulk:
            padding = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.55738.1"), bytes(bulk))
            builder = builder.add_extension(padding, critical=False)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return Holder(builder.sign(self._key, hashes.SHA256()), key)

    def server_context(self, folder: Path, verify: ssl.VerifyMode = ssl.CERT_REQUIRED) -> ssl.SSLContext:
        """For a server on loopback that asks its clients for a certificate of this authority."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.issue("server", addresses=("127.0.0.1",)).save(folder, "server"))
        context.load_verify_locations(cadata=self.root.pem)
        context.verify_mode = verify
        return context

    def client_context(self, folder: Path, holder: Holder | None) -> ssl.SSLContext:
        """For a client that shows this certificate, or none."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=self.root.pem)
        if holder is not None:
            context.load_cert_chain(*holder.save(folder, f"client-{holder.certificate.serial_number}"))
        return context
