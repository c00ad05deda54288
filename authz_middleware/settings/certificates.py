"""The table `[certificates]`: workloads that are known by their client certificate alone, without a token."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Final

import msgspec

from authz_middleware.identity.principal import KINDS, Kind
from authz_middleware.policy.times import parse_instant
from authz_middleware.settings.section import Section

_HEX: Final = re.compile(r"[0-9A-Fa-f]{64}|[0-9A-Fa-f]{2}(?::[0-9A-Fa-f]{2}){31}")


class CertificateSettings(msgspec.Struct, frozen=True, kw_only=True):
    """One certificate, and the workload that holds it. Several may name the same subject, so that they can be rotated.

    `not_after` (seconds since the epoch) ends the entry before the certificate itself does.
    """

    subject: str
    environment: str
    owner: str
    kind: Kind = "workload"
    scopes: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    tenant: str | None = None
    not_after: float | None = None


def read_certificates(root: Section) -> Mapping[str, CertificateSettings]:
    """The certificates by their thumbprint in base64url, however it is written in the table."""
    certificates: dict[str, CertificateSettings] = {}
    for name, section in root.tables("certificates"):
        thumbprint = _thumbprint(name)
        if thumbprint is None:
            section.problem("", "must be the SHA-256 of a certificate in DER: 43 characters of base64url, or 64 of hex")
        elif thumbprint in certificates:
            section.problem("", "is the same certificate as another entry; one entry a certificate")
        certificates[thumbprint or name] = _certificate(section)
    return certificates


def _certificate(section: Section) -> CertificateSettings:
    settings = CertificateSettings(
        subject=section.text("subject"),
        environment=section.text("environment"),
        owner=section.text("owner"),
        kind=section.choice("kind", KINDS, "workload"),
        scopes=section.texts("scopes", ()),
        roles=section.texts("roles", ()),
        tenant=section.text("tenant", None),
        not_after=_instant(section, "not_after"),
    )
    section.done()
    return settings


def _instant(section: Section, key: str) -> float | None:
    value = section.raw(key)
    if value is None:
        return None
    text = value.isoformat() if isinstance(value, datetime) else value
    instant = parse_instant(text) if isinstance(text, str) else None
    if instant is None:
        section.problem(key, "must be a date and time with its offset, such as 2027-01-31T12:00:00Z")
    return instant


def _thumbprint(text: str) -> str | None:
    """A SHA-256 as `x5t#S256` writes it (RFC 8705 section 3.1), from that, or from what `openssl x509 -fingerprint
    -sha256` prints."""
    try:
        digest = bytes.fromhex(text.replace(":", "")) if _HEX.fullmatch(text) else base64.urlsafe_b64decode(f"{text}=")
    except ValueError:
        return None
    # In base64url the last character has bits that mean nothing: only one spelling is ever compared equal.
    canonical = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    return canonical if len(digest) == 32 and (canonical == text or _HEX.fullmatch(text)) else None
