"""The table `[remote]` itself: which decision point, how long it may take, how often it is asked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, get_args

import msgspec

from authz_middleware.identity.spiffe.spiffe_id import SpiffeId
from authz_middleware.settings.action_patterns import check_action_pattern
from authz_middleware.settings.model import covers
from authz_middleware.settings.remote.credential import CredentialSettings, read_credential
from authz_middleware.settings.remote.endpoints import EndpointSettings, read_endpoints
from authz_middleware.settings.remote.probe import ProbeSettings, read_probe
from authz_middleware.settings.remote.tls import KeyPair, TlsSettings, read_tls, read_unix_socket
from authz_middleware.settings.section import Section
from authz_middleware.settings.urls import check_url

Dialect = Literal["authzen", "cerbos"]


class BreakerSettings(msgspec.Struct, frozen=True):
    """After `failures` failures in a row the decision point is left alone for `pause` seconds."""

    failures: int = 5
    pause: float = 5.0


class RemoteSettings(msgspec.Struct, frozen=True):
    """The decision point. `deadline` is the whole time, in seconds, that one question may take."""

    url: str
    dialect: Dialect = "authzen"
    """Where this decision point looks for attributes."""
    deadline: float = 0.2
    deadlines: Mapping[str, float] = {}
    """Deadlines of their own, by action pattern."""
    credential: CredentialSettings | None = None
    ca_file: Path | None = None
    client_certificate: KeyPair | None = None
    server_id: SpiffeId | None = None
    """The SPIFFE ID of the decision point, where it is known by that and not by the host name of its URL."""
    unix_socket: Path | None = None
    max_connections: int = 64
    permit_ttl: float = 0.0
    deny_ttl: float = 0.0
    cache_size: int = 10_000
    show_reason: bool = False
    """Whether a refused client is told the decision point's `reason_user`."""
    breaker: BreakerSettings = BreakerSettings()
    endpoints: EndpointSettings = EndpointSettings()
    probe: ProbeSettings | None = None

    @property
    def tls(self) -> TlsSettings:
        """How TLS connections to the decision point are made."""
        return TlsSettings(self.ca_file, self.client_certificate, self.server_id)

    def deadline_for(self, action: str) -> float:
        """The deadline of the longest pattern that covers this action, else the common one."""
        if not self.deadlines:
            return self.deadline
        fitting = [pattern for pattern in self.deadlines if covers(pattern, action)]
        return self.deadlines[max(fitting, key=len)] if fitting else self.deadline


def read_remote(root: Section) -> RemoteSettings | None:
    """The table, or None where there is none: then no action can be sensitive."""
    section = root.optional_table("remote")
    if section is None:
        return None
    url = section.text("url")
    if isinstance(url, str):
        check_url(section, "url", url, is_local="unix_socket" in section)
    tls = read_tls(section, url)
    settings = RemoteSettings(
        url=url,
        dialect=section.choice("dialect", get_args(Dialect), "authzen"),
        deadline=section.duration("deadline", "200ms", least="1ms", most="30s"),
        deadlines=_deadlines(section.table("deadlines")),
        credential=read_credential(section),
        ca_file=tls.ca_file,
        client_certificate=tls.client_certificate,
        server_id=tls.server_id,
        unix_socket=read_unix_socket(section),
        max_connections=section.whole("max_connections", 64, least=1, most=4096),
        permit_ttl=section.duration("permit_ttl", "0s", most="5m"),
        deny_ttl=section.duration("deny_ttl", "0s", most="5m"),
        cache_size=section.whole("cache_size", 10_000, least=1, most=1_000_000),
        show_reason=section.flag("show_reason", False),
        breaker=_breaker(section.table("breaker")),
        endpoints=read_endpoints(section),
        probe=read_probe(section),
    )
    section.done()
    return settings


def _deadlines(section: Section) -> dict[str, float]:
    for pattern in section.keys():  # noqa: SIM118 - a Section is not a mapping
        check_action_pattern(section, pattern, pattern)
    return {pattern: section.duration(pattern, least="1ms", most="30s") for pattern in section.keys()}  # noqa: SIM118 - likewise


def _breaker(section: Section) -> BreakerSettings:
    settings = BreakerSettings(
        failures=section.whole("failures", 5, least=1, most=1000),
        pause=section.duration("pause", "5s", least="10ms", most="10m"),
    )
    section.done()
    return settings
