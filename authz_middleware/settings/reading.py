"""Reads each table of the settings into its model, collecting every problem."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

from authz_middleware.decision import FallbackMode
from authz_middleware.errors import AnnotationError, Problem, SettingsError
from authz_middleware.identity.claims import CLAIM_NAMES, PRESETS, path_of
from authz_middleware.permission import ACTION_NAME, Annotation, annotations_of, public, requires
from authz_middleware.settings.model import (
    AppSettings,
    BreakerSettings,
    DecisionLogSettings,
    FallbackChoice,
    FallbackSettings,
    IssuerSettings,
    PolicySettings,
    RemoteSettings,
)
from authz_middleware.settings.secret import Secret
from authz_middleware.settings.section import Section

ALGORITHMS = (
    *("ES256", "ES384", "ES512", "EdDSA"),
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("HS256", "HS384", "HS512"),
)

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


def read_tables(values: Mapping[str, Any], base: Path) -> dict[str, Any]:
    """The tables of the settings, each read into its model, by the names of the fields of `Settings`.

    Raises SettingsError with every problem found.
    """
    problems: list[Problem] = []
    root = Section(values, "", problems, base)
    remote = root.optional_table("remote")
    tables = {
        "app": _app(root.table("app")),
        "issuers": tuple(_issuer(section) for section in root.array("issuers")),
        "policy": _policy(root.table("policy")),
        "remote": None if remote is None else _remote(remote),
        "fallback": _fallback(root.table("fallback")),
        "decision_log": _decision_log(root.table("decision_log")),
        "handlers": dict(_handler(name, section) for name, section in root.tables("handlers")),
    }
    root.done()
    issuers = [issuer.issuer for issuer in tables["issuers"]]  # type: ignore[attr-defined]
    for issuer in sorted({issuer for issuer in issuers if issuer and issuers.count(issuer) > 1}):
        root.problem("issuers", f"names {issuer!r} twice; one entry an issuer, its audience may be a list")
    if problems:
        raise SettingsError(problems)
    return tables


def _app(section: Section) -> AppSettings:
    sensitive = section.texts("sensitive", ())
    for pattern in sensitive:
        _check_action_pattern(section, "sensitive", pattern)
    app = AppSettings(
        name=section.text("name"),
        environment=section.text("environment"),
        mode=section.choice("mode", ("enforce", "observe"), "enforce"),
        sensitive=sensitive,
    )
    section.done()
    return app


def _issuer(section: Section) -> IssuerSettings:
    preset, overrides = _claim_map(section)
    jwks_uri, jwks_file, jwks = _key_source(section)
    settings = IssuerSettings(
        issuer=section.text("issuer"),
        audience=section.texts("audience"),
        algorithms=_algorithms(section),
        jwks_uri=jwks_uri,
        jwks_file=jwks_file,
        jwks=jwks,
        token_types=section.texts("token_types", ("at+jwt",)),
        max_lifetime=section.duration("max_lifetime", "15m", least="1s", most="1d"),
        leeway=section.duration("leeway", "10s", most="60s"),
        max_actors=section.whole("max_actors", 4, least=0, most=16),
        single_audience=section.flag("single_audience", False),
        claims=preset,
        claim_overrides=overrides,
        environment=section.text("environment", None),
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


def _key_source(section: Section) -> tuple[str | None, Path | None, Mapping[str, Any] | None]:
    uri, file, inline = section.text("jwks_uri", None), section.file("jwks_file", None), section.raw("jwks")
    if sum(source is not None for source in (uri, file, inline)) != 1:
        section.problem("", "needs exactly one of jwks_uri, jwks_file, jwks")
    if uri is not None:
        _check_url(section, "jwks_uri", uri)
    if inline is not None and not isinstance(inline, Mapping):
        section.problem("jwks", "must be a JSON Web Key Set: a table with the key 'keys'")
        inline = None
    if inline is not None and _holds_secret(inline):
        section.problem("jwks", "must hold public keys only; a shared secret (kty 'oct') belongs into jwks_file")
        inline = None
    return uri, file, inline


def _holds_secret(jwks: Mapping[str, Any]) -> bool:
    keys = jwks.get("keys")
    return isinstance(keys, list | tuple) and any(
        isinstance(key, Mapping) and (key.get("kty") == "oct" or "d" in key) for key in keys
    )


def _algorithms(section: Section) -> tuple[str, ...]:
    algorithms = section.texts("algorithms")
    for algorithm in algorithms:
        if algorithm not in ALGORITHMS:
            section.problem("algorithms", f"has {algorithm!r}; accepted: {', '.join(ALGORITHMS)}")
    if len({algorithm.startswith("HS") for algorithm in algorithms}) > 1:
        section.problem("algorithms", "must not mix HMAC (HS…) and public-key algorithms in one issuer")
    return algorithms


def _policy(section: Section) -> PolicySettings:
    settings = PolicySettings(
        source=section.file("source"),
        allow_unsigned=section.flag("allow_unsigned", False),
        refresh=section.duration("refresh", None, least="100ms", most="1d"),
    )
    if not settings.allow_unsigned:
        section.problem("allow_unsigned", "must be true: a plain file carries no signature, and somebody has to say so")
    section.done()
    return settings


def _remote(section: Section) -> RemoteSettings:
    url = section.text("url")
    if isinstance(url, str):
        _check_url(section, "url", url)
    breaker = section.table("breaker")
    credential = section.optional_table("credential")
    settings = RemoteSettings(
        url=url,
        deadline=section.duration("deadline", "200ms", least="1ms", most="30s"),
        credential=None if credential is None else _credential(credential),
        ca_file=section.file("ca_file", None),
        max_connections=section.whole("max_connections", 64, least=1, most=4096),
        permit_ttl=section.duration("permit_ttl", "0s", most="5m"),
        deny_ttl=section.duration("deny_ttl", "0s", most="5m"),
        cache_size=section.whole("cache_size", 10_000, least=1, most=1_000_000),
        breaker=BreakerSettings(
            failures=breaker.whole("failures", 5, least=1, most=1000),
            pause=breaker.duration("pause", "5s", least="10ms", most="10m"),
        ),
    )
    breaker.done()
    section.done()
    return settings


def _credential(section: Section) -> Secret | None:
    """The bearer token shown to the decision point: in a file that may be rotated under us, or by reference."""
    path, token = section.file("token_file", None), section.secret("token")
    section.done()
    if ("token_file" in section) is ("token" in section):
        section.problem("", 'needs exactly one of token_file = "path" and token = { env = "NAME" }')
    return Secret(file=path) if path is not None else token


def _fallback(section: Section) -> FallbackSettings:
    default = section.choice("default", [mode.value for mode in FallbackMode], None)
    if default in (FallbackMode.DEGRADE, FallbackMode.CACHED):
        section.problem("default", 'must be "deny": the others have bounds and are chosen action by action')
    for pattern, entry in section.tables("actions"):
        _check_action_pattern(entry, "", pattern)
    settings = FallbackSettings(
        default=None if default is None else FallbackChoice(FallbackMode(default)),
        actions={name: _fallback_choice(entry) for name, entry in section.tables("actions")},
    )
    section.done()
    return settings


def _fallback_choice(section: Section) -> FallbackChoice:
    mode = section.choice("mode", [mode.value for mode in FallbackMode])
    max_stale, rules = 0.0, None
    if mode == FallbackMode.CACHED:
        max_stale = section.duration("max_stale", least="1ms", most="1d")
    elif mode == FallbackMode.DEGRADE:
        rules = section.text("rules")
    section.done()
    return FallbackChoice(FallbackMode(mode or FallbackMode.DENY), max_stale, rules)


def _decision_log(section: Section) -> DecisionLogSettings:
    sink = section.text("sink")
    if isinstance(sink, str):
        kind, _, path = sink.partition(":")
        if kind == "file" and path:
            sink = f"file:{section.base / path}"
        elif sink not in ("stdout", "stderr"):
            section.problem("sink", f'must be "stdout", "stderr" or "file:PATH", not {sink!r}')
    settings = DecisionLogSettings(
        mode=section.choice("mode", ("best_effort", "blocking", "required"), "blocking"),
        sink=sink,
        queue=section.whole("queue", 10_000, least=1, most=10_000_000),
        max_wait=section.duration("max_wait", "1s", most="30s"),
    )
    section.done()
    return settings


def _handler(name: str, section: Section) -> tuple[str, tuple[Annotation, ...]]:
    """One entry of the by-name table: the arguments of `@requires`, or `public = {reason, owner}`."""
    annotations: tuple[Annotation, ...] = ()
    if "*" in name[:-1]:
        section.problem("", "has a star within the name; it covers what begins so, and stands at the end")
    opening = section.optional_table("public")
    try:
        if opening is not None:
            annotations = _annotated(public(reason=opening.text("reason"), owner=opening.text("owner")))
            opening.done()
            if not name.strip("*"):
                section.problem("public", "cannot open every endpoint; name them, or a namespace such as 'docs:*'")
        else:
            annotations = _annotated(
                requires(
                    section.text("action"),
                    section.text("resource", None),
                    sensitive=section.flag("sensitive", False),
                    task=section.texts("task", ()) or None,
                    purpose=section.texts("purpose", ()) or None,
                    kinds=section.texts("kinds", ()) or None,  # type: ignore[arg-type]  # requires() checks them
                    accountable=section.flag("accountable", False),
                    owner=section.text("owner", None),
                )
            )
    except AnnotationError as error:
        section.problem("", str(error))
    section.done()
    return name, annotations


def _annotated(decorate: Any) -> tuple[Annotation, ...]:
    def holder() -> None:
        """Carries the annotation for a moment, so that the table and the decorator cannot differ."""

    return annotations_of(decorate(holder))


def _check_url(section: Section, key: str, url: str) -> None:
    parts = _split(url)
    if parts is None or parts.username or parts.password or parts.query or parts.fragment:
        section.problem(key, "must have a host, perhaps a port, and neither credentials, query nor fragment")
    elif parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        section.problem(key, "must be an https URL; plain http is for loopback addresses only")


def _split(url: str) -> SplitResult | None:
    """The parts of a URL that has a host and, if any, a port that there is."""
    try:
        parts = urlsplit(url)
        return parts if parts.hostname and parts.port != 0 else None
    except ValueError:
        return None


def _check_action_pattern(section: Section, key: str, pattern: str) -> None:
    if pattern != "*" and not ACTION_NAME.fullmatch(pattern.removesuffix(":*")):
        section.problem(key, f"has {pattern!r}; accepted: an action (invoice:read), all below one (invoice:*), or *")
