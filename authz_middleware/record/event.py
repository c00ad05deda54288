"""The record of one decision, shaped as OPA's decision-log event (EventV1) so that its tools can read it.

Two things meet here: a `Submission`, the references that the request thread leaves behind in about a microsecond,
and the `Event` that the writer thread makes of it. Between the two lies all that costs time: the AuthZEN request,
the text of the timestamp, masking, JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from typing import Annotated, Any, Final, Literal

import msgspec

from authz_middleware.decision import Decision, FallbackMode, Reason, Source
from authz_middleware.facts import RequestFacts
from authz_middleware.question import Question
from authz_middleware.record.identifiers import decision_id, trace_id
from authz_middleware.record.masking import mask
from authz_middleware.settings.model import Mode
from authz_middleware.step_up import StepUp

SCHEMA: Final = 1
"""Version of the `authz` member. It rises when a member changes its meaning or goes, not when one is added."""

NO_METRICS: Final[Mapping[str, int]] = {}


class Submission(msgspec.Struct, gc=False):
    """What the request thread hands over. `attributes` is a copy of the resource attributes as they were when the
    decision was made, since the application may change its objects before the record is written."""

    seq: int
    now: float
    question: Question | None
    facts: RequestFacts
    decision: Decision
    action: str | None
    policy_age: float | None
    req_id: int
    metrics: Mapping[str, int]
    attributes: Mapping[str, Any] | None
    pending: Future[bool] | None


class Revision(msgspec.Struct, frozen=True):
    """The version of one policy: SHA-256 of its content, in hex."""

    revision: str


class FallbackTaken(msgspec.Struct, frozen=True, omit_defaults=True):
    """What stood in for the decision point: what went wrong, the mode that was chosen for it beforehand, and for a
    cached answer its age in seconds."""

    trigger: str
    mode: FallbackMode
    age_s: float | None = None


class AdviceGiven(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the decision point said beside its decision: its reasons, how the person behind the token should have
    authenticated (told to the client or not), the ids of what it obliges the application to before a permit may be
    acted on, and which of these was not carried out. Not the attributes of obligations."""

    reason_user: str | None = None
    reason_admin: str | None = None
    step_up: StepUp | None = None
    obligations: tuple[str, ...] = ()
    unfulfilled: str | None = None


class Explanation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What OPA's event has no place for. Empty members are left out.

    `shadow` marks a refusal that was not carried out because the application only observes. `writer` names the
    process's stretch of records, `seq` counts its decisions from 1, `prev` is the SHA-256 of the line this writer
    wrote before (without its newline): a line changed or taken out later shows. `dropped` counts the decisions
    since that line whose records could not be kept. `step_up` is how the client was told that the person behind the
    token should authenticate.
    """

    schema: int
    outcome: Literal["permit", "deny"]
    reason: Reason
    detail: str | None = None
    step_up: StepUp | None = None
    rule: str | None = None
    owner: str | None = None
    serial: int | None = None
    decided_by: Source
    advice: AdviceGiven | None = None
    fallback: FallbackTaken | None = None
    missing_inputs: tuple[str, ...] = ()
    stale_inputs: tuple[str, ...] = ()
    policy_age_s: float | None = None
    mode: Mode
    shadow: bool = False
    writer: str
    seq: int
    prev: str | None = None
    dropped: int = 0


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One decision record. Member names, order and meaning are EventV1's; `authz` is ours.

    `path` is `authz/` and the action with its colons as slashes (`authz/invoice/read`), `authz` alone where no
    action is known. `input` is the AuthZEN request. `erased` and `masked` hold JSON pointers into the event.
    `metrics` are nanoseconds (`timer_…_ns`). `req_id` numbers the request within the process.
    """

    labels: dict[str, str]
    decision_id: str
    trace_id: str | None = None
    bundles: dict[str, Revision] = {}
    path: str
    input: Any
    result: bool
    erased: tuple[str, ...] = ()
    masked: tuple[str, ...] = ()
    requested_by: str | None = None
    timestamp: Annotated[str, msgspec.Meta(extra_json_schema={"format": "date-time"})]
    metrics: Mapping[str, int] = {}
    req_id: int = 0
    authz: Explanation


def decision_event(
    submission: Submission,
    *,
    input: Any,  # noqa: A002 - the member's name in EventV1
    timestamp: str,
    labels: dict[str, str],
    mode: Mode,
    writer: str,
    prev: str | None = None,
    dropped: int = 0,
    erased: tuple[str, ...] = (),
    masked: tuple[str, ...] = (),
) -> Event:
    """The event of one decision. `input` is the AuthZEN request or its JSON (`msgspec.Raw`), `timestamp` RFC 3339."""
    decision, facts = submission.decision, submission.facts
    policy, revision = decision.policy, decision.revision
    advice, advice_masked = _advice(decision)
    action = action_of(submission)
    return Event(
        labels=labels,
        decision_id=decision_id(writer, submission.seq),
        trace_id=trace_id(facts.traceparent),
        bundles={} if policy is None or revision is None else {policy: Revision(revision)},
        path="authz" if action is None else "authz/" + action.replace(":", "/"),
        input=input,
        result=decision.permit,
        erased=erased,
        masked=masked + advice_masked,
        requested_by=facts.client,
        timestamp=timestamp,
        metrics=submission.metrics,
        req_id=submission.req_id,
        authz=_explanation(submission, advice, mode, writer, prev, dropped),
    )


def action_of(submission: Submission) -> str | None:
    """The action that was asked about, or None when the request failed before one was known."""
    return submission.action if submission.question is None else submission.question.permission.action


def shown_request(submission: Submission) -> dict[str, Any]:
    """The AuthZEN request as far as the facts show it, where nobody is known who could be its subject."""
    facts = submission.facts
    context: dict[str, Any] = {
        "method": facts.method,
        "route": facts.route,
        "endpoint": facts.endpoint,
        "protocol": facts.protocol,
    }
    if facts.client is not None:
        context["client"] = facts.client
    context["tls"] = facts.tls
    return {
        "action": {"name": action_of(submission) or facts.method},
        "resource": {"type": "route", "id": facts.route},
        "context": context,
    }


def _advice(decision: Decision) -> tuple[AdviceGiven | None, tuple[str, ...]]:
    """The advice of a decision, and JSON pointers to what is masked in it."""
    advice = decision.advice
    if advice is None:
        return None, ()
    told = {
        "reason_user": advice.reason_user,
        "reason_admin": advice.reason_admin,
        "obligations": [obligation.id for obligation in advice.obligations],
        "unfulfilled": decision.unfulfilled,
    }
    shown, masked = mask(told, "/authz/advice")
    ids = tuple(shown.pop("obligations"))
    return AdviceGiven(**shown, step_up=advice.step_up, obligations=ids), masked


def _explanation(
    submission: Submission, advice: AdviceGiven | None, mode: Mode, writer: str, prev: str | None, dropped: int
) -> Explanation:
    decision = submission.decision
    fallback = decision.fallback
    return Explanation(
        schema=SCHEMA,
        outcome="permit" if decision.permit else "deny",
        reason=decision.reason,
        detail=decision.detail,
        step_up=decision.step_up,
        rule=decision.rule,
        owner=decision.owner,
        serial=decision.serial,
        decided_by=decision.source,
        advice=advice,
        fallback=None if fallback is None else FallbackTaken(fallback.trigger, fallback.mode, fallback.age_s),
        missing_inputs=decision.missing_inputs,
        stale_inputs=decision.stale_inputs,
        policy_age_s=submission.policy_age,
        mode=mode,
        shadow=mode == "observe" and not decision.permit,
        writer=writer,
        seq=submission.seq,
        prev=prev,
        dropped=dropped,
    )
