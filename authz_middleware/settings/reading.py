"""Reads each table of the settings into its model, collecting every problem."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from authz_middleware.decision import FallbackMode
from authz_middleware.errors import AnnotationError, Problem, SettingsError
from authz_middleware.permission import ACTION_NAME, Annotation, annotations_of, public, requires
from authz_middleware.settings.certificates import read_certificates
from authz_middleware.settings.dpop import read_dpop
from authz_middleware.settings.issuers import read_issuers
from authz_middleware.settings.model import (
    AppSettings,
    BreakerSettings,
    DecisionLogSettings,
    FallbackChoice,
    FallbackSettings,
    PolicySettings,
    RemoteSettings,
)
from authz_middleware.settings.protected_resource import read_protected_resource
from authz_middleware.settings.proxies import read_proxies
from authz_middleware.settings.revocations import read_revocations
from authz_middleware.settings.secret import Secret
from authz_middleware.settings.section import Section
from authz_middleware.settings.trust_domains import read_trust_domains
from authz_middleware.settings.urls import check_url


def read_tables(values: Mapping[str, Any], base: Path) -> dict[str, Any]:
    """The tables of the settings, each read into its model, by the names of the fields of `Settings`.

    Raises SettingsError with every problem found.
    """
    problems: list[Problem] = []
    root = Section(values, "", problems, base)
    remote = root.optional_table("remote")
    tables = {
        "app": _app(root.table("app")),
        "issuers": read_issuers(root),
        "policy": _policy(root.table("policy")),
        "remote": None if remote is None else _remote(remote),
        "fallback": _fallback(root.table("fallback")),
        "dpop": read_dpop(root.table("dpop")),
        "proxies": read_proxies(root),
        "certificates": read_certificates(root),
        "trust_domains": read_trust_domains(root),
        "protected_resource": read_protected_resource(root),
        "revocations": read_revocations(root),
        "decision_log": _decision_log(root.table("decision_log")),
        "handlers": dict(_handler(name, section) for name, section in root.tables("handlers")),
    }
    root.done()
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
        check_url(section, "url", url)
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
                    acr=section.texts("acr", ()) or None,
                    max_age=section.text("max_age", None),
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


def _check_action_pattern(section: Section, key: str, pattern: str) -> None:
    if pattern != "*" and not ACTION_NAME.fullmatch(pattern.removesuffix(":*")):
        section.problem(key, f"has {pattern!r}; accepted: an action (invoice:read), all below one (invoice:*), or *")
