"""Decides what one request asks: all of it by the same policy and the same clock, and each decision with its record."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from authz_middleware.decision import Decision, Reason
from authz_middleware.facts import RequestFacts
from authz_middleware.question import Question
from authz_middleware.record.recorder import Receipt, Recorder
from authz_middleware.remote.messages.evaluation import MessageError, question_of
from authz_middleware.server.exchange import RefusedError, Reply, Scope, encode
from authz_middleware.server.lenience import known_part
from authz_middleware.server.policy import InForce, ServedPolicy

MALFORMED: Final = Decision(permit=False, reason=Reason.ERROR, detail="question.malformed")


class Outcome(NamedTuple):
    """A decision as it is answered: whether it is a permit, and its JSON."""

    permit: bool
    body: bytes


def _outcome(permit: bool, reason: Reason) -> Outcome:
    return Outcome(permit, encode({"decision": permit, "context": {"reason": reason.value}}))


# There are only so many answers. A caller learns a code, and nothing of the rules.
_OUTCOMES: Final = {(permit, reason): _outcome(permit, reason) for permit in (True, False) for reason in Reason}
_REPLIES: Final = {outcome: Reply(200, outcome.body) for outcome in _OUTCOMES.values()}


class Asker(NamedTuple):
    """Who asks: the name of the caller, and the request (ASGI), of which the record tells how it came."""

    name: str | None
    scope: Scope

    @property
    def facts(self) -> RequestFacts:
        """The facts of the request itself. Those of the request that it asks about are in the question."""
        traces = [value for name, value in self.scope["headers"] if name == b"traceparent"]
        return RequestFacts(
            method="POST",
            route=self.scope["path"],
            endpoint="authzen",
            client=self.name,
            tls=self.scope.get("scheme") == "https",
            traceparent=traces[0].decode("latin-1") if len(traces) == 1 else None,
        )


class Decider:
    """What a decision point decides by. `clock` gives seconds since the epoch, for requests that tell no time; with
    `lenient`, members of a request that we have no word for are no mistake."""

    def __init__(
        self, policy: ServedPolicy, recorder: Recorder | None, clock: Callable[[], float], *, lenient: bool = False
    ) -> None:
        self.is_lenient = lenient
        self._policy = policy
        self._clock = clock
        self.recorder = recorder

    def sitting(self, asker: Asker) -> Sitting:
        """For the questions of one request. Raises RefusedError where there is no policy."""
        in_force = self._policy.in_force
        if in_force is None:
            raise RefusedError(503, "there is no policy to decide by", [(b"retry-after", b"1")])
        return Sitting(in_force, self._clock(), self, asker)


class Sitting:
    """Decides the questions of one request. Nothing of it may be answered before `settled`."""

    __slots__ = ("_asker", "_pending", "_recorder", "in_force", "is_lenient", "now")

    def __init__(self, in_force: InForce, now: float, decider: Decider, asker: Asker) -> None:
        self.in_force = in_force
        self.now = now
        self.is_lenient = decider.is_lenient
        self._recorder = decider.recorder
        self._asker = asker
        self._pending: list[Receipt] = []

    def decide(self, asked: Mapping[str, Any]) -> Outcome:
        """The decision on one AuthZEN evaluation request. Raises MessageError when it is not one."""
        question = self.question_of(asked)
        decision = self.in_force.snapshot.evaluate(question)
        if self._recorder is not None:
            self.record(question, decision)
        return _OUTCOMES[decision.permit is True, decision.reason]

    def question_of(self, asked: Mapping[str, Any]) -> Question:
        """The question of an evaluation request. Raises MessageError."""
        try:
            return question_of(asked, now=self.now)
        except MessageError:
            if not self.is_lenient:
                raise
        return question_of(known_part(asked), now=self.now)

    def record(self, question: Question | None, decision: Decision, action: str | None = None) -> None:
        """Leave a record of a decision; of one that no question led to, where none could be read."""
        if self._recorder is None:
            return
        receipt = self._recorder.submit(question, self._asker.facts, decision, action=action)
        if receipt.pending is not None:
            self._pending.append(receipt)

    @property
    def is_settled(self) -> bool:
        """Whether there is no record to wait for."""
        return not self._pending

    async def settle(self) -> None:
        """Wait until every decision has its record. Raises RefusedError: without one, nothing is answered."""
        for receipt in self._pending:
            if self._recorder is None or not await self._recorder.await_(receipt):
                raise RefusedError(503, "the decision could not be recorded", [(b"retry-after", b"1")])


def reply_of(outcome: Outcome) -> Reply:
    """The answer to a single evaluation."""
    return _REPLIES[outcome]
