"""What a configured proxy says of its client, and nothing that anyone else says.

A forwarded header is as good as whoever has written it. It is read when the other end of the connection is a proxy of
the settings, and only a header that this proxy is known to set. Everyone else is taken for what the connection shows.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from typing import Final

import msgspec

from authz_middleware.alarm import Alarm
from authz_middleware.facts import RequestFacts
from authz_middleware.identity.connection.certificate_header import MAX_HEADER, READERS
from authz_middleware.identity.connection.credentials import UNIX, Credentials, Target, only_authority
from authz_middleware.identity.connection.forwarded import parse_addresses, parse_forwarded, parse_node
from authz_middleware.settings.proxies import FORWARDED, CertificateHeader, ProxySettings

_SCHEMES: Final = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
_PORTS: Final = {"http": "80", "https": "443"}
_PORT: Final = re.compile(r"[1-9][0-9]{0,4}")
_PREFIX: Final = re.compile(r"(?:/[0-9A-Za-z._~!$&'()*+;=:@-]+)*/?")


class Proxies:
    """The proxies of the settings; without settings nobody is one. One object serves all threads."""

    def __init__(self, settings: ProxySettings | None) -> None:
        self._settings = settings or ProxySettings()
        self._none = settings is None
        self._trusted = lru_cache(maxsize=1024)(self._is_in_a_network)
        self._no_peer = Alarm(
            "no address of a connection's other end, so no header of a proxy was read: the server does not tell it, or "
            "tells what a header says (uvicorn: start it with --no-proxy-headers)"
        )
        self._bad_certificate = Alarm(
            "a trusted proxy passed on a client certificate that cannot be read; compare proxies.client_certificate "
            "with what it sends"
        )

    def is_trusted(self, peer: str | None) -> bool:
        """Whether this other end of a connection (`Credentials.peer`) is a configured proxy. Unknown is not."""
        if peer is None:
            return False
        return self._settings.unix if peer == UNIX else self._trusted(peer)

    def client_of(self, credentials: Credentials) -> str | None:
        """The address of whoever sent the request to the outermost configured proxy; of the connection's other end,
        where that is no proxy or where proxies tell no addresses. None where it is not known."""
        peer = credentials.peer
        return self._client(credentials) if self._speaks_for_others(peer) else _address(peer)

    def _client(self, credentials: Credentials) -> str | None:
        try:
            if FORWARDED in self._settings.forwarded:
                return parse_node(self._element(credentials).get("for", ""))
            if "x-forwarded-for" not in self._settings.forwarded:
                return _address(credentials.peer)
            addresses = parse_addresses(credentials.values("x-forwarded-for"), self._settings.hops)
            return addresses[self._outermost(addresses)] if addresses else None
        except ValueError:
            return None

    def target_of(self, credentials: Credentials) -> Target:
        """Where the request was sent to as its sender sees it, before configured proxies passed it on.

        Raises ValueError where a configured header is absent, ambiguous or malformed, and where it is not known whether
        there is a proxy at all.
        """
        if not self._settings.forwarded:
            return credentials.target()
        peer = credentials.peer
        if self._speaks_for_others(peer):
            return self._target(credentials)
        if peer is None:
            raise ValueError("not known who is at the other end")
        return credentials.target()

    def _target(self, credentials: Credentials) -> Target:
        target, names = credentials.target(), self._settings.forwarded
        if FORWARDED in names:
            element = self._element(credentials)
            authority = only_authority([element["host"]]) if "host" in element else target.authority
            return Target(_scheme(element.get("proto", "")), authority, target.path)
        scheme = _scheme(_single(credentials, "x-forwarded-proto")) if "x-forwarded-proto" in names else target.scheme
        authority = target.authority
        if "x-forwarded-host" in names:
            authority = only_authority([_single(credentials, "x-forwarded-host")])
        if "x-forwarded-port" in names:
            authority = _with_port(authority, _single(credentials, "x-forwarded-port"), scheme)
        path = target.path
        if "x-forwarded-prefix" in names and credentials.values("x-forwarded-prefix"):
            path = _prefix(_single(credentials, "x-forwarded-prefix")) + path
        return Target(scheme, authority, path)

    def certificate_of(self, credentials: Credentials) -> bytes | None:
        """The certificate (DER) of whoever sent the request, or None.

        Of the connection's own TLS, unless a configured proxy is at its other end: that certificate is the proxy's, and
        the client's is in the configured header.
        """
        peer = credentials.peer
        if not self._speaks_for_others(peer):
            # Of an unknown other end it may be a proxy's own. Whoever could make it unknown would be lent that.
            return credentials.certificate() if peer is not None or self._none else None
        header = self._settings.client_certificate
        values = credentials.values(header.name) if header is not None else ()
        if header is None or not values:
            return None
        try:
            return _certificate_in(values, header)
        except ValueError:
            self._bad_certificate.ring()
            return None

    def facts(self, facts: RequestFacts, credentials: Credentials) -> RequestFacts:
        """The facts, with the client and the TLS of the connection that the client itself opened. Never raises for
        what a client sends: what cannot be read is no client, and no TLS."""
        if self._none:
            return facts
        peer, tls = credentials.peer, facts.tls
        if not self._speaks_for_others(peer):
            return msgspec.structs.replace(facts, client=_address(peer), tls=tls and peer is not None)
        if FORWARDED in self._settings.forwarded or "x-forwarded-proto" in self._settings.forwarded:
            try:
                tls = self._target(credentials).scheme == "https"
            except ValueError:
                tls = False
        return msgspec.structs.replace(facts, client=self._client(credentials), tls=tls)

    def _speaks_for_others(self, peer: str | None) -> bool:
        if self._none:
            return False
        if peer is None:
            self._no_peer.ring()
        return self.is_trusted(peer)

    def _element(self, credentials: Credentials) -> dict[str, str]:
        """The element of `Forwarded` that the outermost configured proxy has written. Raises ValueError."""
        elements = parse_forwarded(credentials.values(FORWARDED))[-self._settings.hops :]
        if not elements:
            raise ValueError("no Forwarded header")
        return elements[self._outermost([parse_node(element.get("for", "")) for element in elements])]

    def _outermost(self, addresses: Sequence[str | None]) -> int:
        """Which of these hops, `hops` at most, the outermost configured proxy has written; the last is by the one next
        to us. Each is the word of whoever the next one names, so it counts only when that is a proxy itself."""
        position = len(addresses) - 1
        while position > 0 and self.is_trusted(addresses[position]):
            position -= 1
        return position

    def _is_in_a_network(self, peer: str) -> bool:
        try:
            address = ip_address(peer)
        except ValueError:
            return False
        if isinstance(address, IPv6Address) and address.scope_id is not None:
            return False  # the same address is another host on another link
        return any(address in network for network in self._settings.networks)


def _address(peer: str | None) -> str | None:
    return None if peer == UNIX else peer


def _certificate_in(values: Sequence[str], header: CertificateHeader) -> bytes:
    if len(values) != 1 or len(values[0]) > MAX_HEADER:
        raise ValueError("not exactly one value")
    return READERS[header.format](values[0].strip(" \t"))


def _single(credentials: Credentials, name: str) -> str:
    values = credentials.values(name)
    if len(values) != 1:
        raise ValueError("not exactly one value")
    return values[0].strip(" \t")  # nothing that is read by this may hold a comma, so joined values fail later


def _scheme(text: str) -> str:
    scheme = _SCHEMES.get(text.lower())
    if scheme is None:
        raise ValueError("not a scheme of HTTP")
    return scheme


def _with_port(authority: str, port: str, scheme: str) -> str:
    if not _PORT.fullmatch(port):
        raise ValueError("not a port")
    host, colon, named = authority.rpartition(":")
    if not colon or authority.endswith("]"):
        return authority if port == _PORTS.get(scheme) else f"{authority}:{port}"
    if named != port:
        raise ValueError("two ports")
    return f"{host}:{port}"


def _prefix(text: str) -> str:
    if not _PREFIX.fullmatch(text) or {".", ".."} & set(text.split("/")):
        raise ValueError("not the beginning of a path")
    return text.rstrip("/")
