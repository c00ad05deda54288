"""The table `[[trust_domains]]`: which workloads are known by their SPIFFE ID, and by which kind of SVID."""

from __future__ import annotations

from typing import Final

import msgspec

from authz_middleware.identity.principal import Kind
from authz_middleware.identity.spiffe.spiffe_id import TRUST_DOMAIN, PathPattern
from authz_middleware.settings.issuers import IssuerSettings
from authz_middleware.settings.key_sources import read_key_source
from authz_middleware.settings.section import Section

SVID_ALGORITHMS: Final = tuple(f"{family}{bits}" for family in ("ES", "RS", "PS") for bits in (256, 384, 512))
"""Those of JWT-SVID section 2.1."""

SVID_TYPES: Final = ("JWT", "JOSE")
"""What `typ` may be, where it is given at all (JWT-SVID section 2.3)."""

_BUNDLES: Final = ("jwks_uri", "jwks_file", "jwks")
_FOR_TOKENS: Final = ("audience", "max_lifetime", "leeway", "single_audience", "algorithms")
_PATTERN: Final = "accepted: paths such as /ns/billing/sa/* (one segment) or /ns/billing/** (whatever is below)"


class TrustDomainSettings(msgspec.Struct, frozen=True):
    """One SPIFFE trust domain, and those of its workloads that may call.

    `tokens` says how its JWT-SVIDs are checked, None that it has none; `x509` whether its X.509-SVIDs are taken.
    """

    name: str
    paths: tuple[PathPattern, ...]
    tokens: IssuerSettings | None = None
    x509: bool = False
    x509_max_lifetime: float = 86_400.0
    """For how long, in seconds, a certificate may be made out."""
    kind: Kind = "workload"
    environment: str | None = None
    environments: tuple[tuple[PathPattern, str], ...] = ()
    """The environment by path, before that of the trust domain."""


def read_trust_domains(root: Section) -> tuple[TrustDomainSettings, ...]:
    """Every entry of the array; each names another trust domain."""
    domains = tuple(_trust_domain(section) for section in root.array("trust_domains"))
    names = [domain.name for domain in domains]
    for name in sorted({name for name in names if name and names.count(name) > 1}):
        root.problem("trust_domains", f"names {name!r} twice; one entry a trust domain")
    return domains


def _trust_domain(section: Section) -> TrustDomainSettings:
    name: str = section.text("name")
    _check_name(section, name)
    settings = TrustDomainSettings(
        name=name,
        paths=tuple(pattern for text in section.texts("paths") for pattern in _pattern(section, "paths", text)),
        tokens=_tokens(section, name) if any(key in section for key in _BUNDLES) else None,
        x509=section.flag("x509", False),
        x509_max_lifetime=section.duration("x509_max_lifetime", "1d", least="1m", most="90d"),
        kind=section.choice("kind", ("workload", "agent"), "workload"),
        environment=section.text("environment", None),
        environments=_environments(section.table("environments")),
    )
    if settings.tokens is None:
        for key in _FOR_TOKENS:
            if key in section:
                section.problem(key, f"is for JWT-SVIDs, which need exactly one of {', '.join(_BUNDLES)}")
                section.raw(key)
        if not settings.x509:
            section.problem("", f"accepts nothing: it needs x509 = true, or one of {', '.join(_BUNDLES)}")
    section.done()
    return settings


def _check_name(section: Section, name: object) -> None:
    if isinstance(name, str) and not TRUST_DOMAIN.fullmatch(name):
        section.problem("name", f"must be of lower-case letters, digits, '.', '-' and '_', not {name!r}")


def _tokens(section: Section, name: str) -> IssuerSettings:
    """How JWT-SVIDs are checked. Their keys are found by the trust domain, never by `iss`."""
    source = read_key_source(section)
    for key in ("discovery", "introspection", "token_types"):
        if key in section:
            section.problem(key, "is not for trust domains; keys come from a SPIFFE bundle")
    for algorithm in source.get("algorithms", ()):
        if algorithm not in SVID_ALGORITHMS:
            section.problem("algorithms", f"has {algorithm!r}; SVIDs are signed with {', '.join(SVID_ALGORITHMS)}")
    return IssuerSettings(
        issuer=f"spiffe://{name}",
        audience=section.texts("audience"),
        max_lifetime=section.duration("max_lifetime", "15m", least="1s", most="1d"),
        leeway=section.duration("leeway", "10s", most="60s"),
        single_audience=section.flag("single_audience", False),
        claims="spiffe",
        **{**source, "token_types": SVID_TYPES},
    )


def _environments(section: Section) -> tuple[tuple[PathPattern, str], ...]:
    found = []
    for text in section.keys():  # noqa: SIM118 - a Section is not a mapping
        environment = section.text(text)
        found += [(pattern, environment) for pattern in _pattern(section, text, text) if environment is not None]
    return tuple(found)


def _pattern(section: Section, key: str, text: str) -> tuple[PathPattern, ...]:
    try:
        return (PathPattern.parse(text),)
    except ValueError:
        section.problem(key, f"has {text!r}, which is no path pattern; {_PATTERN}")
        return ()
