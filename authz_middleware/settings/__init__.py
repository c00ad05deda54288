"""Settings: one frozen object from a mapping or a TOML file, the same keys in every framework."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import msgspec

from authz_middleware.permission import Annotation
from authz_middleware.settings.certificates import CertificateSettings
from authz_middleware.settings.dpop import DPoPSettings
from authz_middleware.settings.fallback import FallbackChoice, FallbackSettings
from authz_middleware.settings.issuers import IssuerSettings
from authz_middleware.settings.model import (
    AppSettings,
    DecisionLogSettings,
    PolicySettings,
    covers,
)
from authz_middleware.settings.protected_resource import ProtectedResourceSettings
from authz_middleware.settings.proxies import ProxySettings
from authz_middleware.settings.reading import read_tables
from authz_middleware.settings.remote.decision_point import BreakerSettings, RemoteSettings
from authz_middleware.settings.revocations import RevocationSettings
from authz_middleware.settings.secret import Secret
from authz_middleware.settings.toml import read_toml
from authz_middleware.settings.trust_domains import TrustDomainSettings

__all__ = [
    "AppSettings",
    "BreakerSettings",
    "CertificateSettings",
    "DPoPSettings",
    "DecisionLogSettings",
    "FallbackChoice",
    "FallbackSettings",
    "IssuerSettings",
    "PolicySettings",
    "ProtectedResourceSettings",
    "ProxySettings",
    "RemoteSettings",
    "RevocationSettings",
    "Secret",
    "Settings",
    "SettingsSource",
    "TrustDomainSettings",
]


class Settings(msgspec.Struct, frozen=True):
    """Everything a person chose, checked once and never changed after."""

    app: AppSettings
    issuers: tuple[IssuerSettings, ...]
    policy: PolicySettings
    decision_log: DecisionLogSettings
    remote: RemoteSettings | None = None
    fallback: FallbackSettings = FallbackSettings()
    dpop: DPoPSettings = DPoPSettings()
    proxies: ProxySettings | None = None
    """Who may speak for others; None: nobody."""
    revocations: RevocationSettings | None = None
    """Where revocations are kept; None: nothing can be revoked."""
    certificates: Mapping[str, CertificateSettings] = {}
    """Workloads that are known by their client certificate alone, by its thumbprint."""
    trust_domains: tuple[TrustDomainSettings, ...] = ()
    """Workloads that are known by their SPIFFE ID."""
    protected_resource: ProtectedResourceSettings | None = None
    """What clients are told about this application; None: nothing."""
    handlers: Mapping[str, tuple[Annotation, ...]] = {}
    """Annotations by endpoint name (or `prefix*`), for handlers that one does not own."""

    @classmethod
    def of(cls, source: SettingsSource) -> Settings:
        """Settings from whatever an application hands over: themselves, a mapping, or the path of a TOML file.

        Raises SettingsError with every problem found.
        """
        if isinstance(source, Settings):
            return source
        if isinstance(source, Mapping):
            return cls.from_mapping(source)
        return cls.from_toml(Path(source))

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], base: Path | None = None) -> Self:
        """Settings from a mapping; relative paths in it start from `base`, by default the working folder.

        Raises SettingsError with every problem found.
        """
        return cls(**read_tables(values, base or Path.cwd()))

    @classmethod
    def from_toml(cls, path: Path) -> Self:
        """Settings from `authz.toml`, or from the table `[tool.authz]` of a `pyproject.toml`; relative paths in
        it start from its folder.

        Raises SettingsError with every problem found.
        """
        values: Any = read_toml(path)
        for table in ("tool", "authz") if path.name == "pyproject.toml" else ():
            values = values.get(table, {}) if isinstance(values, Mapping) else {}
        return cls.from_mapping(values, base=path.parent)

    def annotations_for(self, *names: str | None) -> tuple[Annotation, ...]:
        """What the by-name table asks of an endpoint known under these names."""
        return tuple(
            annotation
            for pattern, annotations in self.handlers.items()
            if any(name is not None and covers(pattern, name) for name in names)
            for annotation in annotations
        )


SettingsSource = Settings | Mapping[str, Any] | str | Path
