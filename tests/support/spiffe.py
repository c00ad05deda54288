"""A throw-away trust domain: signs SVIDs of both kinds, of any shape, the forbidden ones included."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.support.tokens import REMOVED, Issuer

PATH: Final = "/ns/billing/sa/export"
LEAF: Final = x509.KeyUsage(True, False, False, False, False, False, False, False, False)
CLIENT: Final = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
NO_AUTHORITY: Final = x509.BasicConstraints(ca=False, path_length=None)


class TrustDomain:
    """A trust domain with one key for JWT-SVIDs and one authority for X.509-SVIDs."""

    def __init__(self, name: str = "prod.example.org", kid: str = "svid-1", alg: str = "ES256") -> None:
        self.name = name
        self.signer = Issuer(f"spiffe://{name}", kid, alg)
        self._authority = ec.generate_private_key(ec.SECP256R1())

    def id(self, path: str = PATH) -> str:
        """The SPIFFE ID of a workload."""
        return f"spiffe://{self.name}{path}"

    def bundle(self, *others: TrustDomain, **members: Any) -> dict[str, Any]:
        """The SPIFFE bundle: the key for JWT-SVIDs (those of `others` too) and one for X.509-SVIDs."""
        jwts = [domain.signer.jwk(use="jwt-svid", alg=REMOVED, **members) for domain in (self, *others)]
        x509_key = Issuer(kid=None).jwk(use="x509-svid", alg=REMOVED, x5c=["MIIB"])
        return {"spiffe_sequence": 1, "spiffe_refresh_hint": 300, "keys": [x509_key, *jwts]}

    def svid(
        self,
        *,
        now: float,
        header: Mapping[str, Any] | None = None,
        signer: Issuer | None = None,
        **claims: Any,
    ) -> str:
        """A JWT-SVID as SPIRE makes them, good for five minutes; each claim and header member can be replaced."""
        plain = {"iss": REMOVED, "sub": self.id(), "aud": ["billing-api"], "client_id": REMOVED, "scope": REMOVED}
        typ = {"typ": "JWT", **(header or {})}
        return (signer or self.signer).mint(header=typ, now=now, **{**plain, "jti": REMOVED, **claims})

    def certificate(
        self,
        *uris: str,
        now: float,
        lifetime: float = 3600.0,
        usage: x509.KeyUsage | None = LEAF,
        purposes: x509.ExtendedKeyUsage | None = CLIENT,
        constraints: x509.BasicConstraints | None = NO_AUTHORITY,
        names: list[x509.GeneralName] | None = None,
    ) -> bytes:
        """An X.509-SVID in DER, valid from ten seconds before `now`; without `uris` it has the domain's usual id."""
        uri_names = [x509.UniformResourceIdentifier(uri) for uri in (uris or (self.id(),))]
        all_names = names if names is not None else [*uri_names, x509.DNSName("export.billing.svc")]
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(x509.Name([x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "SPIRE")]))
            .public_key(ec.generate_private_key(ec.SECP256R1()).public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(datetime.fromtimestamp(now - 10, UTC))
            .not_valid_after(datetime.fromtimestamp(now - 10 + lifetime, UTC))
        )
        for extension in (usage, purposes, constraints):
            if extension is not None:
                builder = builder.add_extension(extension, critical=True)
        if all_names:
            builder = builder.add_extension(x509.SubjectAlternativeName(all_names), critical=True)
        return builder.sign(self._authority, SHA256()).public_bytes(Encoding.DER)
