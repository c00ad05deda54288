"""What can be known to be wrong before the first request; `manage.py check` shows it, and the middleware refuses to
start on what would open or break something."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from django.apps import AppConfig
from django.conf import settings as django_settings
from django.core.checks import CheckMessage, Error, Info, Warning  # noqa: A004 - Django's names for them
from django.utils.module_loading import import_string

from authz_django.configuration import read_render, read_settings, read_transports
from authz_django.endpoint import Target, methods_of
from authz_django.urlconf import Leaf, leaves
from authz_middleware.errors import AuthzError, PolicyError, Problem, SettingsError
from authz_middleware.permission import Requirement
from authz_middleware.policy.store import SnapshotStore
from authz_middleware.settings import Settings
from authz_middleware.startup import policy_problems, requirement_problems

Apps = Sequence[AppConfig] | None

MIDDLEWARE: Final = "authz_django.AuthzMiddleware"

HARMLESS_BEFORE: Final = frozenset(
    {
        "corsheaders.middleware.CorsMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.clickjacking.XFrameOptionsMiddleware",
        "django.middleware.common.BrokenLinkEmailsMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.csp.ContentSecurityPolicyMiddleware",
        "django.middleware.gzip.GZipMiddleware",
        "django.middleware.http.ConditionalGetMiddleware",
        "django.middleware.locale.LocaleMiddleware",
        "django.middleware.security.SecurityMiddleware",
    }
)
"""Middleware that redirects, refuses or adds headers, and serves no content of its own."""


def check_settings(app_configs: Apps, **_: Any) -> list[CheckMessage]:
    """`AUTHZ` and the functions beside it (authz.E001) and the policy (authz.E002)."""
    del app_configs
    try:
        settings = read_settings()
        read_render()
        read_transports()
    except SettingsError as error:
        return _errors(error.problems, "authz.E001", "The server does not start before AUTHZ can be used.")
    store = SnapshotStore(settings.policy.source)
    try:
        store.reload()
    except PolicyError as error:
        return _errors(error.problems, "authz.E002", "The server does not start with this policy.")
    return _errors(policy_problems(settings, store.current) if store.current else (), "authz.E004", None)


def check_middleware(app_configs: Apps, **_: Any) -> list[CheckMessage]:
    """That the middleware line is there, once (authz.E003), and that nothing before it serves content (authz.W001)."""
    del app_configs
    names = list(django_settings.MIDDLEWARE)
    ours = [position for position, name in enumerate(names) if _is_ours(name)]
    if len(ours) != 1:
        what = "is not in MIDDLEWARE: nothing is decided" if not ours else "is in MIDDLEWARE more than once"
        return [Error(f"{MIDDLEWARE} {what}.", hint=f"Put it into MIDDLEWARE once: {MIDDLEWARE!r}.", id="authz.E003")]
    before = [name for name in names[: ours[0]] if name not in HARMLESS_BEFORE]
    if not before:
        return []
    return [
        Warning(
            f"These stand before {MIDDLEWARE} and can answer without a decision: {', '.join(before)}.",
            hint=f"Move {names[ours[0]]!r} before them, or silence authz.W001 once each is known to be harmless.",
            id="authz.W001",
        )
    ]


def check_urlconf(app_configs: Apps, **_: Any) -> list[CheckMessage]:
    """Annotations that these settings cannot honour (authz.E004) or that nothing carries to a view (authz.E005), and
    the views that nobody can reach because they ask for nothing (authz.I001)."""
    del app_configs
    try:
        settings = read_settings()
    except AuthzError:
        return []  # authz.E001 tells
    found = list(leaves())
    messages = _errors(_unhonoured(found, settings), "authz.E004", None)
    messages += _errors(_uncarried(found), "authz.E005", None)
    closed = dict.fromkeys(name for name in _closed(found, settings))
    if closed:
        listed = "".join(f"\n\t{name}" for name in closed)
        hint = "Annotate with @requires or @public, wrap with protect(), or name them under [handlers] in AUTHZ."
        messages.append(Info(f"Closed, because nothing says what they require:{listed}", hint=hint, id="authz.I001"))
    return messages


def problems_of_urlconf(settings: Settings) -> list[Problem]:
    """What makes a URLconf unusable under these settings."""
    found = list(leaves())
    return [*_unhonoured(found, settings), *_uncarried(found)]


def _unhonoured(found: Iterable[Leaf], settings: Settings) -> list[Problem]:
    return [
        problem
        for leaf in found
        for _, target, requirement in _asked(leaf, settings)
        for problem in requirement_problems(settings, target.name, requirement)
    ]


def _uncarried(found: Iterable[Leaf]) -> list[Problem]:
    where = dict.fromkeys(str(pattern.pattern) for leaf in found for pattern in leaf.uncarried)
    what = "carries an annotation that no view would get; use authz_django.protect(path(...), requires(...))"
    return [Problem(f"URL pattern {pattern!r}", what) for pattern in where]


def _closed(found: Iterable[Leaf], settings: Settings) -> Iterable[str]:
    for leaf in found:
        for method, target, requirement in _asked(leaf, settings):
            if not requirement.permissions and requirement.public is None:
                yield f"{leaf.view_name} ({target.name}{f' {method}' if target.cls else ''})"


def _asked(leaf: Leaf, settings: Settings) -> Iterable[tuple[str, Target, Requirement]]:
    for method in methods_of(leaf.view):
        target = Target.of(leaf.view, method)
        yield method, target, target.requirement(settings, leaf.view_name, *leaf.patterns)


def _errors(problems: Iterable[Problem], code: str, hint: str | None) -> list[CheckMessage]:
    return [Error(str(problem), hint=hint, id=code) for problem in dict.fromkeys(problems)]


def _is_ours(name: str) -> bool:
    from authz_django.middleware import AuthzMiddleware  # noqa: PLC0415 - which imports this module

    try:
        middleware = import_string(name)
    except ImportError:
        return False  # Django itself reports it when it loads the middleware
    return middleware is AuthzMiddleware or (isinstance(middleware, type) and issubclass(middleware, AuthzMiddleware))
