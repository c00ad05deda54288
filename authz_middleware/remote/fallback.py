"""What happens to a locally permitted, sensitive question that the decision point did not answer.

Only what a person chose beforehand for this action, only for a failure that the choice is meant for, and only within
its bounds. Everything else, exceptions included, refuses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from authz_middleware.decision import Decision, Fallback, FallbackMode, Reason, Source
from authz_middleware.question import Question
from authz_middleware.remote.cache import DecisionCache, Key
from authz_middleware.remote.failure import RemoteFailure
from authz_middleware.remote.verdict import decided
from authz_middleware.settings.fallback import FallbackChoice

if TYPE_CHECKING:
    from authz_middleware.policy.snapshot import Snapshot


def fall_back(
    *,
    choice: FallbackChoice | None,
    failure: RemoteFailure,
    question: Question,
    local: Decision,
    snapshot: Snapshot,
    cache: DecisionCache | None,
    key: Key,
    now: float | None = None,
) -> Decision:
    """The decision that takes the place of the missing answer. Never raises.

    `local` is the local permit whose rule and policy version the result keeps; `key` is that of the query that
    was not answered; `now` is the time of the fallback, in seconds since the epoch, when it is later than the
    question's own.
    """
    if choice is None or choice.mode is FallbackMode.DENY:
        return refused(local, failure)
    # Where a failure does not reach the choice, the record must not say that it did.
    mode = choice.mode if failure.reaches(choice) else FallbackMode.DENY
    try:
        permit = _permit(choice, failure, question, local, snapshot, cache, key, question.now if now is None else now)
    except Exception:  # noqa: BLE001 - whatever went wrong, nothing was permitted
        return msgspec.structs.replace(refused(local, failure, mode), detail="fallback.error")
    return permit or refused(local, failure, mode)


def _permit(
    choice: FallbackChoice,
    failure: RemoteFailure,
    question: Question,
    local: Decision,
    snapshot: Snapshot,
    cache: DecisionCache | None,
    key: Key,
    now: float,
) -> Decision | None:
    if local.permit is not True or not failure.reaches(choice):
        return None
    if now >= question.principal.expires_at:  # without the leeway that its verification may have had
        return None
    if choice.mode is FallbackMode.DEGRADE and choice.rules is not None:
        if snapshot.rule_sets[choice.rules].evaluate(question).permit is not True:
            return None
        return _served(local, Reason.DEGRADED, Fallback(failure.kind.value, choice.mode), failure, degraded=True)
    if choice.mode is FallbackMode.CACHED and cache is not None:
        known = cache.stale(key, now, choice.max_stale)
        if known is None:
            return None
        permit = decided(
            local, permit=known.permit, advice=known.advice, question=question, source=Source.FALLBACK, now=now
        )
        if permit.permit is not True:
            return None
        age = round(known.age(now), 3)
        return _served(permit, Reason.CACHED, Fallback(failure.kind.value, choice.mode, age), failure)
    return None


def _served(
    local: Decision, reason: Reason, fallback: Fallback, failure: RemoteFailure, *, degraded: bool = False
) -> Decision:
    return msgspec.structs.replace(
        local,
        permit=True,
        reason=reason,
        source=Source.FALLBACK,
        sensitive=True,
        degraded=degraded,
        fallback=fallback,
        detail=failure.detail or None,
    )


def refused(local: Decision, failure: RemoteFailure, mode: FallbackMode = FallbackMode.DENY) -> Decision:
    """The refusal of a question that was not answered, where `mode` did not stand in for the answer."""
    return msgspec.structs.replace(
        local,
        permit=False,
        reason=Reason.REMOTE_UNAVAILABLE,
        source=Source.FALLBACK,
        sensitive=True,
        degraded=False,
        fallback=Fallback(failure.kind.value, mode),
        detail=failure.detail or None,
    )
