"""The Django application: it has no models, only the system checks."""

from __future__ import annotations

from django.apps import AppConfig
from django.core.checks import register

from authz_django import checks


class AuthzConfig(AppConfig):
    """Registers the checks that `manage.py check` runs, and every command before it starts."""

    name = "authz_django"
    verbose_name = "Authorization"

    def ready(self) -> None:
        """Called by Django once all applications are loaded."""
        register(checks.check_settings, "authz")
        register(checks.check_middleware, "authz")
        register(checks.check_urlconf, "authz")
