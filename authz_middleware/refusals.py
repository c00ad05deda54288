"""The refusals of one application: with the challenges of its issuers, and rendered as it likes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from authz_middleware.alarm import Alarm
from authz_middleware.answer import Answer, answer_for
from authz_middleware.decision import Decision, Reason, Source
from authz_middleware.errors import describe
from authz_middleware.identity.authenticator import Authenticator
from authz_middleware.record.masking import is_secret_value
from authz_middleware.remote.verdict import CONDITIONAL
from authz_middleware.resource_metadata import metadata_url
from authz_middleware.settings import Settings

Render = Callable[[Decision, Answer], Answer]

_ITS_OWN: Final = (Source.REMOTE, Source.CACHE)
_ITS_REFUSALS: Final = (Reason.REMOTE_DENY, Reason.AUTHENTICATION_INSUFFICIENT)


class Refusals:
    """Turns decisions that refuse into answers. `render` may replace their body and headers, never their refusing."""

    def __init__(self, settings: Settings, authenticator: Authenticator, render: Render | None) -> None:
        self._authenticator = authenticator
        self._render = render
        self._shows_reason = settings.remote is not None and settings.remote.show_reason
        self._retry_after = settings.remote.breaker.pause if settings.remote else 1.0
        described = settings.protected_resource
        self._metadata_url = None if described is None else metadata_url(described.resource)
        self._unrendered = Alarm("render failed, and the refusal was answered in its plain form: %s")

    def answer(self, decision: Decision, decision_id: str | None) -> Answer:
        """The answer to a request that this decision refuses; without an id where nothing could be recorded."""
        answer = answer_for(
            decision,
            decision_id,
            retry_after=self._retry_after,
            challenges=self._authenticator.challenges(decision.detail),
            resource_metadata=self._metadata_url,
            detail=reason_for_caller(decision) if self._shows_reason else None,
        )
        if self._render is None:
            return answer
        try:
            own = self._render(decision, answer)
        except Exception as error:  # noqa: BLE001 - a refusal is answered, whatever its rendering does
            self._unrendered.ring(describe(error))
            return answer
        return own if isinstance(own, Answer) and own.status >= 400 else answer


def reason_for_caller(decision: Decision) -> str | None:
    """The decision point's `reason_user` for a refusal that it made itself, just now or when it was last asked. What it
    says of a permit, or of what we refuse, is not for the caller; nor is what looks like a secret."""
    if decision.advice is None or decision.permit or decision.source not in _ITS_OWN:
        return None
    if decision.reason not in _ITS_REFUSALS or decision.detail == CONDITIONAL:
        return None
    text = decision.advice.reason_user
    return None if text is None or is_secret_value(text) else text
