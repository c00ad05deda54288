"""The table `[proxies]`: which proxies are believed, and in what."""

from __future__ import annotations

import re
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Final, get_args

import msgspec

from authz_middleware.identity.connection.certificate_header import CertificateFormat
from authz_middleware.identity.connection.credentials import UNIX
from authz_middleware.settings.section import Section

X_FORWARDED: Final = tuple(f"x-forwarded-{what}" for what in ("for", "proto", "host", "port", "prefix"))
FORWARDED: Final = "forwarded"
CERTIFICATE_FORMATS: Final[tuple[CertificateFormat, ...]] = get_args(CertificateFormat)

_HEADERS: Final = {
    "rfc9440": "client-cert",
    "base64": "x-forwarded-tls-client-cert",
    "xfcc": "x-forwarded-client-cert",
}
_HEADER_NAME: Final = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_NOT_FOR_CERTIFICATES: Final = frozenset({"authorization", "cookie", "dpop", "host", FORWARDED, *X_FORWARDED})

Network = IPv4Network | IPv6Network


class CertificateHeader(msgspec.Struct, frozen=True):
    """The header, in lower case, in which the proxy passes its client's certificate on."""

    name: str
    format: CertificateFormat


class ProxySettings(msgspec.Struct, frozen=True):
    """The proxies that are believed, and the headers that they set themselves on every request.

    `forwarded` holds header names in lower case; none but these are read. At most `hops` proxies stand in a row.
    """

    networks: tuple[Network, ...] = ()
    unix: bool = False
    """Whether whatever connects over a unix socket is such a proxy."""
    forwarded: tuple[str, ...] = ()
    hops: int = 1
    client_certificate: CertificateHeader | None = None


def read_proxies(root: Section) -> ProxySettings | None:
    """The table, or None where there is none: then nobody is believed."""
    section = root.optional_table("proxies")
    if section is None:
        return None
    trusted = section.texts("trusted")
    forwarded = _forwarded(section)
    certificate = section.optional_table("client_certificate")
    settings = ProxySettings(
        networks=tuple(network for text in trusted if text != UNIX and (network := _network(section, text))),
        unix=UNIX in trusted,
        forwarded=forwarded,
        hops=section.whole("hops", 1, least=1, most=10),
        client_certificate=None if certificate is None else _certificate_header(certificate),
    )
    if not forwarded and certificate is None:
        section.problem("", "needs forwarded or client_certificate: nothing else is read of what a proxy says")
    section.done()
    return settings


def _network(section: Section, text: str) -> Network | None:
    accepted = f'an address ("10.0.0.7"), a network ("10.0.0.0/24", "fd00::/64") or "{UNIX}"'
    try:
        network = ip_network(text)
    except ValueError:
        section.problem("trusted", f"has {text!r}; accepted: {accepted}, no bit set behind the prefix")
        return None
    if network.prefixlen == 0:
        section.problem("trusted", f"has {text!r}, which is everybody: anyone could then speak for anyone")
        return None
    if isinstance(network, IPv6Network) and _never_met(network):
        section.problem(
            "trusted", f"has {text!r}; write an IPv4 address as such, and no link-local one, which every link has"
        )
        return None
    return network


def _never_met(network: IPv6Network) -> bool:
    """Link-local, or IPv4 in IPv6, which peers are never written as (`canonical_address`)."""
    return network.is_link_local or network.network_address.ipv4_mapped is not None


def _forwarded(section: Section) -> tuple[str, ...]:
    names = tuple(name.lower() for name in section.texts("forwarded", ()))
    for name in names:
        if name not in (FORWARDED, *X_FORWARDED):
            section.problem("forwarded", f"has {name!r}; accepted: {', '.join((FORWARDED, *X_FORWARDED))}")
    if FORWARDED in names and len(names) > 1:
        section.problem("forwarded", f'must be ["{FORWARDED}"] alone or x-forwarded-* headers: two could differ')
    if "hops" in section and not {FORWARDED, "x-forwarded-for"} & set(names):
        section.problem("hops", f'counts hops of "x-forwarded-for" or "{FORWARDED}"; name one in forwarded')
    return names


def _certificate_header(section: Section) -> CertificateHeader | None:
    form = section.choice("format", CERTIFICATE_FORMATS)
    default = _HEADERS.get(form)
    name = section.text("header", default) if default else section.text("header")
    section.done()
    if not isinstance(name, str) or form is None:
        return None
    name = name.lower()
    if not _HEADER_NAME.fullmatch(name) or name in _NOT_FOR_CERTIFICATES:
        section.problem("header", f"has {name!r}; accepted: letters, digits and hyphens, and no name with another use")
    return CertificateHeader(name, form)
