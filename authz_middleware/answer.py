"""What a refused client is told: RFC 9457 problem details with a decision id, and no word about why.

The reason is in the record. A client learns the status, what it may try next (authenticate, another scope,
later), and the id to quote when it asks a person.
"""

from __future__ import annotations

import math
from typing import Final

import msgspec

from authz_middleware.decision import Decision, Reason

CREDENTIALS: Final = frozenset({Reason.CREDENTIAL_MISSING, Reason.CREDENTIAL_INVALID})
UNABLE: Final = frozenset(
    {
        Reason.KEYS_UNAVAILABLE,
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


def answer_for(decision: Decision, decision_id: str | None, *, retry_after: float) -> Answer:
    """The refusal of this decision; without an id where nothing could be recorded. `retry_after` is in seconds and only
    said where waiting can help."""
    status = _status_of(decision.reason)
    problem: dict[str, str | int] = {
        "type": f"urn:problem-type:authz:{_TYPES[status]}",
        "title": _TITLES[status],
        "status": status,
    }
    if decision_id is not None:
        problem["decision_id"] = decision_id
    headers = [("content-type", "application/problem+json"), ("cache-control", "no-store")]
    challenge = _challenge(decision)
    if challenge is not None:
        headers.append(("www-authenticate", challenge))
    if status == 503:
        headers.append(("retry-after", str(max(1, math.ceil(retry_after)))))
    return Answer(status, tuple(headers), msgspec.json.encode(problem))


def _status_of(reason: Reason) -> int:
    if reason in CREDENTIALS:
        return 401
    return 503 if reason in UNABLE else 403


def _challenge(decision: Decision) -> str | None:
    """`WWW-Authenticate` per RFC 6750 section 3: bare when no credential was shown, the same `invalid_token`
    for whatever was wrong with one, `insufficient_scope` where a scope would have helped."""
    if decision.reason is Reason.CREDENTIAL_MISSING:
        return "Bearer"
    if decision.reason is Reason.CREDENTIAL_INVALID:
        return 'Bearer error="invalid_token"'
    scopes = [scope for scope in decision.helpful_scopes if _is_scope(scope)]
    return f'Bearer error="insufficient_scope", scope="{" ".join(scopes)}"' if scopes else None


def _is_scope(text: str) -> bool:
    """A scope-token of RFC 6749 section 3.3, so that a policy cannot break the header."""
    return bool(text) and all("\x21" <= character <= "\x7e" and character not in '"\\' for character in text)
