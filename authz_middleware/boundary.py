"""What must hold before any policy rule is asked: the borders a token must not cross, whatever it may do inside.

They are checks of the request against the application's settings and the route's annotation alone, so no policy
can forget them. A claim that the token does not carry is a crossing, not a pass.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from authz_middleware.decision import Decision, Reason
from authz_middleware.question import Question
from authz_middleware.step_up import StepUp, is_met, told_to

LEEWAY_S: Final = 60.0
"""The most that an issuer's `leeway` may be. A request that goes on (a websocket, a stream) asks on behalf of a token
that was valid when it began; past this, it is no longer."""


def crossed(question: Question) -> Reason | None:
    """The first border that this request crosses, or None when it stays within all of them."""
    principal, permission = question.principal, question.permission
    if not question.resource.id:  # a template or an object that named nothing safe to decide on
        return Reason.RESOURCE_INVALID
    if question.now >= principal.expires_at + LEEWAY_S:
        return Reason.CREDENTIAL_INVALID
    if principal.environment != question.environment:
        return Reason.ENVIRONMENT_MISMATCH
    if principal.dropped_actors:
        return Reason.ACTOR_DEPTH
    if permission.kinds is not None and not _all_kinds_let_in(question):
        return Reason.KIND_REFUSED
    if permission.accountable and not principal.is_accountable:
        return Reason.ACTOR_REQUIRED
    if permission.tasks is not None and principal.task not in permission.tasks:
        return Reason.TASK_MISMATCH
    if permission.purposes is not None and principal.purpose not in permission.purposes:
        return Reason.PURPOSE_MISMATCH
    return None


def is_underauthenticated(question: Question) -> bool:
    """Whether the route asks for another authentication than there is behind the token.

    For what the policy permits only: nobody is sent to authenticate for what is denied all the same.
    """
    asked = question.permission.step_up
    return asked is not None and not is_met(asked, question.principal, question.now)


def underauthenticated(question: Question, ways: Iterable[StepUp]) -> Decision:
    """The refusal of such a question. `ways` are what the rules that permit it ask of the authentication."""
    step_up = told_to(question.principal, question.permission.step_up, ways)
    return Decision(permit=False, reason=Reason.AUTHENTICATION_INSUFFICIENT, step_up=step_up)


def _all_kinds_let_in(question: Question) -> bool:
    """Everyone in the chain must be of a kind that the route lets in: a person behind an agent does not make
    the agent a person (OWASP NHI10)."""
    principal, kinds = question.principal, question.permission.kinds or frozenset()
    chain = (principal.subject_kind, principal.kind, *(actor.kind for actor in principal.actors))
    return all(kind in kinds for kind in chain)
