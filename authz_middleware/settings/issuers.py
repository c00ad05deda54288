"""The table `[[issuers]]`: whose tokens are accepted, how they are checked, and what their claims mean."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import msgspec

from authz_middleware.address import Place
from authz_middleware.identity.claims.principals import CLAIM_NAMES, PRESETS, path_of
from authz_middleware.identity.connection.certificate import X509_ISSUER
from authz_middleware.identity.possession.binding import Possession
from authz_middleware.settings.key_sources import Discovery, IntrospectionSettings, RefreshTimes, read_key_source
from authz_middleware.settings.section import Section


class IssuerSettings(msgspec.Struct, frozen=True):
    """One token issuer. Exactly one of its five key sources is set; with `introspection` there are no keys, and no
    algorithms."""

    issuer: str
    audience: tuple[str, ...]
    algorithms: tuple[str, ...] = ()
    jwks_uri: str | None = None
    jwks_file: Path | None = None
    jwks: Mapping[str, Any] | None = None
    token_types: tuple[str, ...] = ("at+jwt",)
    max_lifetime: float = 900.0
    leeway: float = 10.0
    max_actors: int = 4
    single_audience: bool = False
    claims: str = "rfc9068"
    """Name of the claim-map preset."""
    claim_overrides: Mapping[str, str] = {}
    """Entries of the claim map that differ from the preset: a claim name, or a JSON pointer when it starts with '/'."""
    environment: str | None = None
    """The environment of every token of this issuer, where its tokens do not carry one."""
    discovery: Discovery | None = None
    """Which metadata names the key set: OpenID Connect Discovery 1.0, or RFC 8414."""
    introspection: IntrospectionSettings | None = None
    key_hosts: tuple[Place, ...] = ()
    """The hosts that keys may be fetched from; empty: that of `jwks_uri`, or with `discovery` that of the issuer."""
    ca_file: Path | None = None
    """The authorities that vouch for those hosts, instead of the system's."""
    refresh: RefreshTimes = RefreshTimes()
    proof: Possession | None = None
    """What every token of this issuer must be bound to; None: a token may be bound or not."""


def read_issuers(root: Section) -> tuple[IssuerSettings, ...]:
    """Every entry of the array. Each names another issuer; one of them may introspect."""
    issuers = tuple(_issuer(section) for section in root.array("issuers"))
    names = [issuer.issuer for issuer in issuers]
    for name in sorted({name for name in names if name and names.count(name) > 1}):
        root.problem("issuers", f"names {name!r} twice; one entry an issuer, its audience may be a list")
    if X509_ISSUER in names:
        root.problem("issuers", f"must not name {X509_ISSUER!r}, which principals of [certificates] have for an issuer")
    if sum(issuer.introspection is not None for issuer in issuers) > 1:
        root.problem("issuers", "has several entries with introspection; an opaque token does not say whose it is")
    return issuers


def _issuer(section: Section) -> IssuerSettings:
    preset, overrides = _claim_map(section)
    settings = IssuerSettings(
        issuer=section.text("issuer"),
        audience=section.texts("audience"),
        max_lifetime=section.duration("max_lifetime", "15m", least="1s", most="1d"),
        leeway=section.duration("leeway", "10s", most="60s"),
        max_actors=section.whole("max_actors", 4, least=0, most=16),
        single_audience=section.flag("single_audience", False),
        claims=preset,
        claim_overrides=overrides,
        environment=section.text("environment", None),
        proof=section.choice("proof", get_args(Possession), None),
        **read_key_source(section),
    )
    section.done()
    return settings


def _claim_map(section: Section) -> tuple[str, dict[str, str]]:
    """A preset's name, or a table of claim names that may name the preset it starts from."""
    claims = section.raw("claims")
    table = {"preset": claims} if isinstance(claims, str) else {} if claims is None else claims
    if not isinstance(table, Mapping):
        section.problem("claims", "must be the name of a preset or a table of claim names")
        return "rfc9068", {}
    preset = table.get("preset", "rfc9068")
    if not isinstance(preset, str) or preset not in PRESETS:
        section.problem("claims", f"has no preset {preset!r}; accepted: {', '.join(sorted(PRESETS))}")
    overrides = {str(name): claim for name, claim in table.items() if name != "preset"}
    for name, claim in overrides.items():
        if name not in CLAIM_NAMES:
            section.problem(f"claims.{name}", f"is not part of a claim map; accepted: {', '.join(sorted(CLAIM_NAMES))}")
        elif not _is_place(claim):
            section.problem(f"claims.{name}", "must be the name of a claim, or a JSON pointer that starts with '/'")
    return preset, overrides


def _is_place(claim: object) -> bool:
    if not isinstance(claim, str) or not claim:
        return False
    try:
        path_of(claim)
    except ValueError:
        return False
    return True
