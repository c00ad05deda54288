"""What an answer of the decision point comes to for this question, whether it was given just now or is remembered.

A permit is one only for a token that meets what the answer asks of the authentication, and a deny that a better
authentication would help is told to the client only where a person is there who can authenticate anew, and where the
token that this would lead to would be let in: whoever is sent to authenticate in vain comes back, again and again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from authz_middleware.advice import NO_ADVICE, Advice
from authz_middleware.decision import Decision, Reason, Source
from authz_middleware.question import Question
from authz_middleware.step_up import StepUp, is_met, strictest, told_to

CONDITIONAL: Final = "remote.conditional"
"""The decision point would have permitted with another authentication, and did not deny."""

ANY_WAY: Final = (StepUp(),)


def decided(
    local: Decision,
    *,
    permit: bool,
    advice: Advice,
    question: Question,
    source: Source,
    now: float | None = None,
    ways: Iterable[StepUp] = ANY_WAY,
) -> Decision:
    """The decision that an answer with this advice leads to; a permit only when `permit` is exactly True.

    `local` is the local permit whose rule and policy version it keeps, `ways` are what the rules that permit ask of the
    authentication themselves. `now` is in seconds since the epoch, the question's own unless given.
    """
    unmet = _unmet(advice, question, question.now if now is None else now)
    told = None if unmet is None else _told(unmet, question, tuple(ways))
    detail = None
    if permit is True:
        reason = Reason.PERMITTED if unmet is None else Reason.AUTHENTICATION_INSUFFICIENT
        detail = None if unmet is None else CONDITIONAL
    else:
        reason = Reason.REMOTE_DENY if told is None else Reason.AUTHENTICATION_INSUFFICIENT
    return msgspec.structs.replace(
        local,
        permit=reason is Reason.PERMITTED,
        reason=reason,
        source=source,
        sensitive=True,
        step_up=told,
        detail=detail,
        advice=None if advice == NO_ADVICE else advice.copied(),
    )


def _unmet(advice: Advice, question: Question, now: float) -> StepUp | None:
    asked = advice.step_up
    return None if asked is None or is_met(asked, question.principal, now) else asked


def _told(unmet: StepUp, question: Question, ways: Sequence[StepUp]) -> StepUp | None:
    """What meets the decision point, the route and one of the rules at once; None where nobody could."""
    route = question.permission.step_up
    together = unmet if route is None else strictest((route, unmet))
    return None if together is None else told_to(question.principal, together, ways)
