"""Security events (SET, RFC 8417) as the Shared Signals Framework 1.0 profiles them, and what they revoke.

An event takes back what was issued before it, and never gives anything again: events may come late, twice and in any
order, and leave the same behind.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from authz_middleware.identity.claims.values import MAX_WORDS as MOST_AUDIENCES
from authz_middleware.identity.claims.values import is_text
from authz_middleware.revocation.entry import LONGEST_LIFE_S, MAX_WORDS, Revocation, Scope, new_revocation
from authz_middleware.revocation.feeds.jws import DocumentRefusedError, time_of
from authz_middleware.revocation.feeds.subjects import SubjectError, Target, targets_of
from authz_middleware.settings.revocation_feeds import TransmitterSettings

TYPE: Final = "secevent+jwt"
MAX_DOCUMENT: Final = 64 * 1024
LEEWAY_S: Final = 60.0
"""How far ahead a transmitter's clock may be."""

_CAEP: Final = "https://schemas.openid.net/secevent/caep/event-type/"
_RISC: Final = "https://schemas.openid.net/secevent/risc/event-type/"
_SSF: Final = "https://schemas.openid.net/secevent/ssf/event-type/"
_CREDENTIAL_CHANGE: Final = _CAEP + "credential-change"
VERIFICATION: Final = _SSF + "verification"
STREAM_UPDATED: Final = _SSF + "stream-updated"

_REVOKING: Final = {
    _CAEP + "session-revoked": "session revoked",
    _CAEP + "token-claims-change": "token claims changed",
    _CREDENTIAL_CHANGE: "credential changed",
    _RISC + "account-disabled": "account disabled",
    _RISC + "account-purged": "account purged",
    _RISC + "account-credential-change-required": "credential change required",
    _RISC + "credential-compromise": "credential compromised",
    _RISC + "sessions-revoked": "sessions revoked",
}
_CHANGES: Final = {"create": False, "revoke": True, "update": True, "delete": True}
"""Whether such a change of a credential ends what was issued before (CAEP 1.0 section 3.3.1): one that is added does
not make the others worth less."""


class EventRefusedError(Exception):
    """An event that is not taken. `err` is a code of RFC 8935 section 2.4; `what` says why, in our words."""

    def __init__(self, err: str, what: str) -> None:
        self.err = err
        self.what = what
        super().__init__(what)


class SecurityEvent(msgspec.Struct, frozen=True):
    """What one event says: the revocations it asks for, and the stream's new status where it tells one."""

    revocations: tuple[Revocation, ...]
    stream_status: str | None
    passed_over: tuple[str, ...]
    """Types of event that nobody here acts on."""


def read_event(claims: Mapping[str, Any], transmitter: TransmitterSettings, now: float) -> SecurityEvent:
    """What the verified claims of a SET of this transmitter ask for, at `now` (seconds since the epoch).

    Raises EventRefusedError.
    """
    issued = _check_claims(claims, transmitter, now)
    events = _events(claims)
    revocations: dict[str, Revocation] = {}
    for type_, event in events.items():
        if type_ in _REVOKING and _ends_something(type_, event):
            for target in _targets(claims, event, transmitter):
                entry = _revocation(target, type_, _moment(event, issued), transmitter, now)
                revocations[entry.id] = entry
    passed_over = tuple(type_ for type_ in events if type_ not in _REVOKING and not type_.startswith(_SSF))
    return SecurityEvent(tuple(revocations.values()), _stream_status(events), passed_over)


def _check_claims(claims: Mapping[str, Any], transmitter: TransmitterSettings, now: float) -> float:
    """Check what every SET must have (RFC 8417 section 2.2); answers its `iat`."""
    audience = claims.get("aud")
    named = [audience] if isinstance(audience, str) else audience
    if not isinstance(named, list) or len(named) > MOST_AUDIENCES or not all(map(is_text, named)):
        raise EventRefusedError("invalid_audience", "aud is absent or not text")
    if set(named).isdisjoint(transmitter.audience):
        raise EventRefusedError("invalid_audience", "aud names nobody here")
    if not is_text(claims.get("jti")):
        raise EventRefusedError("invalid_request", "jti is absent or not printable text")
    # Shared Signals Framework 1.0 sections 4.1.2 and 4.1.7: what has one of them is another kind of token.
    if "sub" in claims or "exp" in claims:
        raise EventRefusedError("invalid_request", "a security event has neither sub nor exp; its subject is in sub_id")
    try:
        issued = time_of(claims, "iat")
    except DocumentRefusedError:
        raise EventRefusedError("invalid_request", "iat is absent or no time") from None
    # There is no lower bound: a late event still ends what is older than it, and a replayed one ends nothing new.
    if issued > now + LEEWAY_S:
        raise EventRefusedError("invalid_request", "iat lies in the future")
    return issued


def _events(claims: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    events = claims.get("events")
    if not isinstance(events, dict) or not events or not all(isinstance(event, dict) for event in events.values()):
        raise EventRefusedError("invalid_request", "events is not an object of objects")
    return events


def _ends_something(type_: str, event: Mapping[str, Any]) -> bool:
    if type_ != _CREDENTIAL_CHANGE:
        return True
    change = event.get("change_type")
    if not isinstance(change, str) or change not in _CHANGES:
        raise EventRefusedError("invalid_request", f"change_type is not one of {', '.join(_CHANGES)}")
    return _CHANGES[change]


def _targets(
    claims: Mapping[str, Any], event: Mapping[str, Any], transmitter: TransmitterSettings
) -> tuple[Target, ...]:
    """Whom the event is about: `sub_id`, and in events of older drafts `subject` (Framework section 3.1)."""
    subjects = [holder[name] for holder, name in ((claims, "sub_id"), (event, "subject")) if name in holder]
    if not subjects:
        raise EventRefusedError("invalid_request", "there is no sub_id")
    if len(subjects) == 2 and subjects[0] != subjects[1]:
        raise EventRefusedError("invalid_request", "sub_id and the subject of the event differ")
    try:
        return targets_of(subjects[0], transmitter)
    except SubjectError as error:
        raise EventRefusedError(error.err, error.what) from None


def _moment(event: Mapping[str, Any], issued: float) -> float:
    """When it happened: `event_timestamp` (CAEP 1.0 section 2), else `iat`.

    A timestamp that is later, in milliseconds for instance, would end what is issued from now on as well; one so old
    that nothing issued then is left would end nothing. Then `iat` counts.
    """
    stated = event.get("event_timestamp", issued)
    if type(stated) not in (int, float) or not issued - LONGEST_LIFE_S <= stated <= issued:
        return issued
    return float(stated)


def _revocation(target: Target, type_: str, moment: float, transmitter: TransmitterSettings, now: float) -> Revocation:
    return new_revocation(
        target.scope,
        issuer=target.issuer,
        value=target.value,
        issued_before=None if target.scope is Scope.TOKEN else moment,
        reason=_REVOKING[type_],
        owner=transmitter.issuer[:MAX_WORDS],
        source=source_of(transmitter),
        now=now,
    )


def source_of(transmitter: TransmitterSettings) -> str:
    """The source of revocations that this transmitter asks for."""
    return f"events:{transmitter.issuer}"[:MAX_WORDS]


def _stream_status(events: Mapping[str, Mapping[str, Any]]) -> str | None:
    status = events.get(STREAM_UPDATED, {}).get("status")
    return status if isinstance(status, str) and status in ("enabled", "paused", "disabled") else None
