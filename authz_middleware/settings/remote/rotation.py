"""A secret that stays: refused when nobody is about to replace it, and announced a week before its day.

Reading the settings has no clock, so these are asked when an application starts, and by `authz settings check`.
"""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Final

from authz_middleware.errors import Problem
from authz_middleware.settings.remote.credential import CredentialSettings, StaticToken

WARNING_DAYS: Final = 7
MAX_DAYS: Final = 366
"""A day further away than this is no plan to replace a secret."""

WHERE: Final = "remote.credential.rotate_by"


def day_of(now: float) -> date:
    """The day, in UTC, of a time in seconds since the epoch."""
    return datetime.fromtimestamp(now, UTC).date()


def rotation_problem(credential: CredentialSettings | None, today: date) -> Problem | None:
    """Why an application must not start with this credential on this day."""
    if not isinstance(credential, StaticToken):
        return None
    left = (credential.rotate_by - today).days
    if left < 0:
        what = f"was {credential.rotate_by}: {credential.owner} has to replace the secret, and write the new date here"
        return Problem(WHERE, what)
    if left > MAX_DAYS:
        return Problem(WHERE, f"must be within {MAX_DAYS} days, not {credential.rotate_by}")
    return None


def rotation_warning(credential: CredentialSettings | None, today: date) -> str | None:
    """What its owner has to be told on this day, from a week before the secret may no longer be used."""
    if not isinstance(credential, StaticToken):
        return None
    left = (credential.rotate_by - today).days
    if left > WARNING_DAYS:
        return None
    day = credential.rotate_by
    passed = f"should have been replaced by {day}; the application will not start again with it"
    coming = f"must be replaced by {day}; after that day the application does not start with it"
    told = passed if left < 0 else coming
    return f"the decision point's secret in {credential.secret.where} {told} (owner: {credential.owner})"
