"""Finds a secret that stays: one whose day comes near, and one that was declared as replaced by others and is not."""

from __future__ import annotations

from math import inf
from typing import Final

from authz_middleware.remote.credentials.bearer import expiry_of
from authz_middleware.settings.remote.credential import CredentialSettings, TokenFile
from authz_middleware.settings.remote.rotation import day_of, rotation_warning
from authz_middleware.settings.secret import Secret, SecretUnavailableError

STAYS_S: Final = 30 * 86_400.0
"""A token without a stated end, in a file that nobody has written for so long, is not one that others replace."""


def reminder(settings: CredentialSettings | None, now: float) -> str | None:
    """What somebody has to be told at this time, in seconds since the epoch; None: nothing. May read a file."""
    if isinstance(settings, TokenFile):
        return _staying(settings, now)
    return rotation_warning(settings, day_of(now))


def _staying(settings: TokenFile, now: float) -> str | None:
    try:
        age = now - settings.path.stat().st_mtime
        if age <= STAYS_S or expiry_of(Secret(file=settings.path).reveal()) < inf:
            return None
    except (OSError, SecretUnavailableError):
        return None
    return (
        f"the decision point's token in {settings.path} has not been replaced for {int(age // 86_400)} days and does "
        "not say when it ends: a secret that stays is given as `token`, with `owner` and `rotate_by`"
    )
