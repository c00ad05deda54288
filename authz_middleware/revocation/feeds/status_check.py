"""What the status of a token means for one decision."""

from __future__ import annotations

from typing import Final

from authz_middleware.decision import Decision, Reason
from authz_middleware.identity.claims.status_reference import StatusReference
from authz_middleware.revocation.feeds.status_list import TokenStatus
from authz_middleware.revocation.feeds.status_lists import StatusLists
from authz_middleware.settings.revocations import UnavailableSettings

_REASONS: Final = {
    TokenStatus.INVALID: Reason.CREDENTIAL_REVOKED,
    TokenStatus.SUSPENDED: Reason.CREDENTIAL_REVOKED,
    TokenStatus.OTHER: Reason.CREDENTIAL_REVOKED,
    # No statement about the token can be made, so that it must be rejected (section 8.3).
    TokenStatus.OUT_OF_RANGE: Reason.CREDENTIAL_INVALID,
    TokenStatus.NOT_CONFIGURED: Reason.CREDENTIAL_INVALID,
    TokenStatus.NOT_ALLOWED: Reason.CREDENTIAL_INVALID,
    TokenStatus.UNAVAILABLE: Reason.REVOCATIONS_UNAVAILABLE,
}
_REFUSALS: Final = {
    status: Decision(permit=False, reason=reason, detail=status.value) for status, reason in _REASONS.items()
}


def status_refusal(
    lists: StatusLists,
    unavailable: UnavailableSettings,
    issuer: str,
    reference: StatusReference,
    action: str,
    now: float,
) -> Decision | None:
    """The refusal of a verified token because of its status at `now` (seconds since the epoch), or None.

    While the status cannot be told, `unavailable` says what happens to this action. Waits for nobody. It is asked for
    each decision anew: a status changes without notice.
    """
    status = lists.status(issuer, reference.uri, reference.index, now)
    if status is TokenStatus.VALID:
        return None
    if status is TokenStatus.UNAVAILABLE:
        choice = unavailable.choice_for(action)
        if choice.mode == "last_known":
            status = lists.last_known(issuer, reference.uri, reference.index, now, choice.max_age)
    return None if status is TokenStatus.VALID else _REFUSALS[status]
