"""One question on its way to a decision and its record: what is revoked, what the policy says, what the decision point
says.

Written once, as flows: whatever takes I/O is yielded, and performed by the enforcement point in either colour.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Final

import msgspec

from authz_middleware.alarm import Alarm
from authz_middleware.answer import Answer
from authz_middleware.authorization import Authorization
from authz_middleware.decision import Decision, Reason
from authz_middleware.engine import CANCELLED, ERROR, Attempt, Engine, versioned
from authz_middleware.errors import AuthzError, describe
from authz_middleware.facts import RequestFacts
from authz_middleware.flow import Ask, AskAll, Await, Flow, Load, Work
from authz_middleware.obligations import Obligations
from authz_middleware.question import Question
from authz_middleware.record.event import NO_METRICS
from authz_middleware.record.recorder import Receipt, Recorder
from authz_middleware.refusals import Refusals
from authz_middleware.revocation.guard import STATUS_NOT_CONFIGURED, Revocations, Standing

Outcome = tuple[Decision, Answer | None]

UNREVOKED: Final = Standing(None, None)
UNLOOKED: Final = Standing(STATUS_NOT_CONFIGURED, None)
LAST_KNOWN: Final = "revocations.last_known"
RECORD_UNAVAILABLE: Final = Decision(permit=False, reason=Reason.RECORD_UNAVAILABLE)

LOADING: Final = "timer_resource_ns"
ASKING: Final = "timer_remote_ns"
FULFILLING: Final = "timer_obligations_ns"


class Inquiry:
    """A question, or what stands in for one that could not be put, and how far it has come.

    `timers` tell what was waited for, in nanoseconds.
    """

    __slots__ = ("action", "decision", "is_recorded", "question", "standing", "step", "timers")

    def __init__(self, question: Question | None, decision: Decision = CANCELLED, *, action: str | None = None) -> None:
        self.question = question
        self.decision = decision
        self.action = action
        self.standing = UNREVOKED
        self.step: Decision | Attempt = CANCELLED
        self.timers: Mapping[str, int] = NO_METRICS
        self.is_recorded = False

    def took(self, stage: str, began: int) -> None:
        """Add what a stage took that began at this reading of `perf_counter_ns`."""
        self.timers = {**self.timers, stage: time.perf_counter_ns() - began}


class Inquirer:
    """Answers the questions of one application. An error is a refusal."""

    def __init__(
        self,
        *,
        engine: Engine,
        revocations: Revocations | None,
        obligations: Obligations,
        recorder: Recorder,
        refusals: Refusals,
        clock: Callable[[], float],
        observes: bool,
    ) -> None:
        self._engine = engine
        self._revocations = revocations
        self._obligations = obligations
        self._recorder = recorder
        self._refusals = refusals
        self._clock = clock
        self._observes = observes
        self._errors = Alarm("deciding on %r failed and refused: %r")

    def settle(self, authorization: Authorization, inquiry: Inquiry) -> Flow[Outcome]:
        """Decide one question, and record it."""
        try:
            if inquiry.question is not None:
                yield from self._deciding(authorization, inquiry)
            return (yield from self.record(authorization, inquiry))
        except BaseException:
            self._record_cancelled(authorization, inquiry)
            raise

    def settle_each(self, authorization: Authorization, inquiries: Sequence[Inquiry]) -> Flow[list[Outcome]]:
        """Decide several questions, with one batch for those that the decision point has to be asked about. One record
        for each."""
        try:
            yield from self._deciding_each(authorization, [each for each in inquiries if each.question is not None])
            outcomes: list[Outcome] = []
            for inquiry in inquiries:
                outcome = yield from self.record(authorization, inquiry)
                outcomes.append(outcome)
            return outcomes
        except BaseException:
            for inquiry in inquiries:
                self._record_cancelled(authorization, inquiry)
            raise

    def record(self, authorization: Authorization, inquiry: Inquiry) -> Flow[Outcome]:
        """Record what was decided, and say how it ends."""
        decision = inquiry.decision
        receipt = self._submit(authorization, inquiry, decision)
        if receipt.pending is not None and not (yield Await(receipt)):
            decision = RECORD_UNAVAILABLE
        return decision, None if decision.permit else self._refusals.answer(decision, receipt.decision_id)

    def refuse(self, facts: RequestFacts, decision: Decision) -> Outcome:
        """Record and answer a refusal that no question can be put about."""
        receipt = self._recorder.submit(None, facts, decision)
        return decision, self._refusals.answer(decision, receipt.decision_id)

    def failed(self, error: Exception, facts: RequestFacts) -> Decision:
        """The refusal that an error ends in; the alarm tells what went wrong."""
        # The text of our own errors names members and types, never a value.
        name = type(error).__qualname__
        self._errors.ring(facts.endpoint, str(error) if isinstance(error, AuthzError) else describe(error), kind=name)
        return msgspec.structs.replace(ERROR, detail=name)

    def _deciding(self, authorization: Authorization, inquiry: Inquiry) -> Flow[None]:
        try:
            yield from self._opening(authorization, inquiry)
            if isinstance(inquiry.step, Attempt):
                began = time.perf_counter_ns()
                with inquiry.step as attempt:
                    attempt.answer((yield Ask(attempt.query)))
                inquiry.took(ASKING, began)
            yield from self._closing(authorization, inquiry)
        except Exception as error:  # noqa: BLE001 - a loader, say; nothing was permitted
            inquiry.decision = self.failed(error, authorization.facts)

    def _deciding_each(self, authorization: Authorization, inquiries: Sequence[Inquiry]) -> Flow[None]:
        with ExitStack() as under_way:
            for inquiry in inquiries:
                try:
                    yield from self._opening(authorization, inquiry)
                except Exception as error:  # noqa: BLE001 - likewise; the others are decided all the same
                    inquiry.step = self.failed(error, authorization.facts)
                if isinstance(inquiry.step, Attempt):  # from here on: the others' loaders may be what is cancelled
                    under_way.enter_context(inquiry.step)
            yield from self._asking_all(inquiries)
        for inquiry in inquiries:
            try:
                yield from self._closing(authorization, inquiry, after_others=True)
            except Exception as error:  # noqa: BLE001 - likewise
                inquiry.decision = self.failed(error, authorization.facts)

    def _asking_all(self, inquiries: Sequence[Inquiry]) -> Flow[None]:
        attempts = [inquiry.step for inquiry in inquiries if isinstance(inquiry.step, Attempt)]
        if not attempts:
            return
        began = time.perf_counter_ns()
        replies = yield AskAll(tuple(attempt.query for attempt in attempts))
        for attempt, reply in zip(attempts, replies, strict=True):
            attempt.answer(reply)
        for inquiry in inquiries:
            if isinstance(inquiry.step, Attempt):
                inquiry.took(ASKING, began)

    def _opening(self, authorization: Authorization, inquiry: Inquiry) -> Flow[None]:
        """Up to what the policy of this application says: a decision, or what to ask."""
        question, snapshot = inquiry.question, authorization.snapshot
        if question is None:
            raise AssertionError("what is no question is not decided")
        standing = self._standing(question)
        if standing.refusal is None and self._engine.wants_attributes(question, snapshot):
            question = inquiry.question = yield from self._looking_up(authorization, inquiry, question)
            standing = self._standing(question)  # that took its time
        inquiry.standing = standing
        if standing.refusal is None:
            inquiry.step = self._engine.begin(question, snapshot, standing.epoch)
        else:
            inquiry.step = versioned(standing.refusal, snapshot)

    def _closing(self, authorization: Authorization, inquiry: Inquiry, *, after_others: bool = False) -> Flow[None]:
        """The decision, now that everybody has been asked; a permit once its obligations have been carried out."""
        step, question = inquiry.step, inquiry.question
        if isinstance(step, Attempt):
            step = self._standing_by(authorization, inquiry, step.decision)
        elif after_others:  # it was made at once, and waited for the rest of the list
            step = self._standing_by(authorization, inquiry, step)
        due = None if step.advice is None or question is None else self._obligations.due(step, question)
        if due is not None and self._observes:  # where nothing is refused, nothing is done on its behalf either
            step = due.unknown() or step
        elif due is not None:
            began = time.perf_counter_ns()
            step = yield Work(due)
            inquiry.took(FULFILLING, began)
            step = self._standing_by(authorization, inquiry, step)
        inquiry.decision = _dated(step, inquiry.standing)

    def _standing_by(self, authorization: Authorization, inquiry: Inquiry, decision: Decision) -> Decision:
        """A decision that took its time: who was revoked meanwhile is not let in."""
        if inquiry.question is None:
            return decision
        standing = inquiry.standing = self._standing(inquiry.question)
        return decision if standing.refusal is None else versioned(standing.refusal, authorization.snapshot)

    def _looking_up(self, authorization: Authorization, inquiry: Inquiry, question: Question) -> Flow[Question]:
        """The question with the attributes of its resource."""
        resource, now = authorization.remembered(question.resource), question.now
        if resource is None:
            began = time.perf_counter_ns()
            resource = yield Load(question.resource, now)
            inquiry.took(LOADING, began)
            authorization.remember(resource)
            now = self._clock()  # what was fresh before the loader took its time may not be any longer
        return msgspec.structs.replace(question, resource=resource, now=now)

    def _standing(self, question: Question) -> Standing:
        """What is revoked about whoever asks, as it is known at this moment."""
        if self._revocations is None:
            return UNREVOKED if question.principal.status is None else UNLOOKED
        return self._revocations.check(question.principal, question.action, self._clock())

    def _submit(self, authorization: Authorization, inquiry: Inquiry, decision: Decision) -> Receipt:
        inquiry.is_recorded = True
        return self._recorder.submit(
            inquiry.question, authorization.facts, decision, action=inquiry.action, metrics=inquiry.timers
        )

    def _record_cancelled(self, authorization: Authorization, inquiry: Inquiry) -> None:
        if not inquiry.is_recorded:
            self._submit(authorization, inquiry, CANCELLED)


def _dated(decision: Decision, standing: Standing) -> Decision:
    """A permit that rests on what was known last of revocations says so in its record."""
    if standing.age_s is None or not decision.permit:
        return decision
    return msgspec.structs.replace(decision, detail=LAST_KNOWN)
