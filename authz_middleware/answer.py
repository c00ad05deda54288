"""What a refused client is told: RFC 9457 problem details with a decision id, and no word of ours about why.

The reason is in the record. A client learns the status, what it may try next (authenticate, another scope,
later), the id to quote when it asks a person, and, where the settings say so, what the decision point wants it to read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import msgspec

from authz_middleware.challenge import BEARER, Header, Parameters, challenge_headers, is_word
from authz_middleware.decision import Decision, Reason
from authz_middleware.step_up import StepUp

CREDENTIALS: Final = frozenset({Reason.CREDENTIAL_MISSING, Reason.CREDENTIAL_INVALID, Reason.CREDENTIAL_REVOKED})
UNABLE: Final = frozenset(
    {
        Reason.KEYS_UNAVAILABLE,
        Reason.ISSUER_UNAVAILABLE,
        Reason.REVOCATIONS_UNAVAILABLE,
        Reason.POLICY_UNAVAILABLE,
        Reason.REMOTE_UNAVAILABLE,
        Reason.RECORD_UNAVAILABLE,
        Reason.ERROR,
        Reason.CANCELLED,
    }
)

_WEBSOCKET_CODES: Final = {401: 4401, 403: 4403, 503: 1013}
_TITLES: Final = {401: "Authentication required", 403: "Not permitted", 503: "Cannot decide at the moment"}
_TYPES: Final = {401: "unauthenticated", 403: "denied", 503: "undecidable"}


class Answer(msgspec.Struct, frozen=True):
    """A response in neutral form; adapters copy it into their framework's own."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    @property
    def websocket_code(self) -> int:
        """The close code for a refused handshake or a socket that must end (RFC 6455 section 7.4.2)."""
        return _WEBSOCKET_CODES.get(self.status, 4403)


def answer_for(
    decision: Decision,
    decision_id: str | None,
    *,
    retry_after: float,
    challenges: Sequence[Header] = BEARER,
    resource_metadata: str | None = None,
    detail: str | None = None,
) -> Answer:
    """The refusal of this decision; without an id where nothing could be recorded.

    `retry_after` is in seconds and only said where waiting can help. `challenges` are the schemes that a client may
    authenticate with, as headers, and what else they send along (`DPoP-Nonce`); they are only sent where authenticating
    can help. `resource_metadata` is the URL of the metadata that tells where to get a token (RFC 9728 section 5.1).
    `detail` is a text for people (RFC 9457 section 3.1.4); it never gets into a header.
    """
    status = _status_of(decision)
    problem: dict[str, str | int] = {
        "type": f"urn:problem-type:authz:{_TYPES[status]}",
        "title": _TITLES[status],
        "status": status,
    }
    if detail is not None:
        problem["detail"] = detail
    if decision_id is not None:
        problem["decision_id"] = decision_id
    headers = [("content-type", "application/problem+json"), ("cache-control", "no-store")]
    told = _told(decision)
    if told is not None:
        common = {} if resource_metadata is None else {"resource_metadata": resource_metadata}
        headers.extend(challenge_headers(challenges, told, common))
    if status == 503:
        headers.append(("retry-after", str(max(1, math.ceil(retry_after)))))
    return Answer(status, tuple(headers), msgspec.json.encode(problem))


def _status_of(decision: Decision) -> int:
    reason = decision.reason
    if reason in CREDENTIALS or (reason is Reason.AUTHENTICATION_INSUFFICIENT and decision.step_up is not None):
        return 401
    return 503 if reason in UNABLE else 403


def _told(decision: Decision) -> Parameters | None:
    """What a challenge tells, or None where there is none (RFC 6750 section 3): nothing when no credential was shown,
    the same `invalid_token` for whatever was wrong with one, and else what would have helped."""
    if decision.reason is Reason.CREDENTIAL_MISSING:
        return {}
    if decision.reason in CREDENTIALS:
        return {"error": "invalid_token"}
    if decision.reason is Reason.AUTHENTICATION_INSUFFICIENT and decision.step_up is not None:
        return _step_up(decision.step_up)
    scopes = " ".join(filter(is_word, decision.helpful_scopes))
    return {"error": "insufficient_scope", "scope": scopes} if scopes else None


def _step_up(asked: StepUp) -> Parameters:
    """RFC 9470 section 3."""
    told: dict[str, str | int] = {
        "error": "insufficient_user_authentication",
        "error_description": "A different or more recent authentication is required",
    }
    acr_values = " ".join(filter(is_word, asked.acr_values))
    if acr_values:
        told["acr_values"] = acr_values
    if asked.max_age is not None:
        told["max_age"] = asked.max_age
    return told
