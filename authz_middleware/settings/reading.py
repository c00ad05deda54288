"""Reads each table of the settings into its model, collecting every problem."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from authz_middleware.errors import AnnotationError, Problem, SettingsError
from authz_middleware.permission import Annotation, annotations_of, public, requires
from authz_middleware.settings.action_patterns import check_action_pattern
from authz_middleware.settings.certificates import read_certificates
from authz_middleware.settings.dpop import read_dpop
from authz_middleware.settings.fallback import read_fallback
from authz_middleware.settings.issuers import read_issuers
from authz_middleware.settings.model import (
    AppSettings,
    DecisionLogSettings,
    PolicySettings,
)
from authz_middleware.settings.protected_resource import read_protected_resource
from authz_middleware.settings.proxies import read_proxies
from authz_middleware.settings.remote.decision_point import read_remote
from authz_middleware.settings.revocations import read_revocations
from authz_middleware.settings.section import Section
from authz_middleware.settings.trust_domains import read_trust_domains


def read_tables(values: Mapping[str, Any], base: Path) -> dict[str, Any]:
    """The tables of the settings, each read into its model, by the names of the fields of `Settings`.

    Raises SettingsError with every problem found.
    """
    problems: list[Problem] = []
    root = Section(values, "", problems, base)
    tables = {
        "app": _app(root.table("app")),
        "issuers": read_issuers(root),
        "policy": _policy(root.table("policy")),
        "remote": read_remote(root),
        "fallback": read_fallback(root),
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
        check_action_pattern(section, "sensitive", pattern)
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
