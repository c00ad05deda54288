"""Decides. No socket, no file, no thread, no event loop.

`begin` answers a question with a `Decision`, or, when the decision point has to be asked as well, with an
`Attempt`: a context manager around that one exchange, whose exit (by answer, by exception or by cancellation)
always leaves a decision behind. The shells around it differ in one `await`:

    step = engine.begin(question, snapshot)
    if isinstance(step, Attempt):
        with step:
            step.answer(await point.ask_async(step.query))
        decision = step.decision

Local and remote are combined with *and*: a local deny never asks, a local permit of a sensitive action is not
a permit yet.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterable
from functools import lru_cache, partial
from types import TracebackType
from typing import Final, Self

import msgspec

from authz_middleware.boundary import crossed, is_underauthenticated, underauthenticated
from authz_middleware.decision import Decision, FallbackMode, Reason, Source
from authz_middleware.policy.snapshot import Snapshot
from authz_middleware.question import Question
from authz_middleware.remote.breaker import Breaker
from authz_middleware.remote.cache import CachedAnswer, DecisionCache, Key
from authz_middleware.remote.failure import FailureKind, RemoteAnswer, RemoteFailure
from authz_middleware.remote.fallback import fall_back, refused
from authz_middleware.remote.query import RemoteQuery
from authz_middleware.remote.verdict import ANY_WAY, decided
from authz_middleware.settings import Settings
from authz_middleware.settings.model import covers
from authz_middleware.settings.remote.decision_point import RemoteSettings

MAX_ACTIONS: Final = 1024

ERROR: Final = Decision(permit=False, reason=Reason.ERROR)
CANCELLED: Final = Decision(permit=False, reason=Reason.CANCELLED)
NOT_CONFIGURED: Final = RemoteFailure(FailureKind.CONFIG, "remote.not_configured")
LEFT_ALONE: Final = RemoteFailure(FailureKind.BREAKER_OPEN)
POLICY_UNAVAILABLE: Final = Decision(permit=False, reason=Reason.POLICY_UNAVAILABLE)


class Engine:
    """Turns questions into decisions, with the settings of one application.

    `monotonic` gives seconds for the breaker; the wall clock is the question's own `now`.
    """

    def __init__(self, settings: Settings, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        # Of few actions, each of them many times; and the settings never change.
        self._choice_for = lru_cache(MAX_ACTIONS)(settings.fallback.choice_for)
        self._is_sensitive_action = lru_cache(MAX_ACTIONS)(partial(_is_covered, settings.app.sensitive))
        self._remote = remote = settings.remote
        self._monotonic = monotonic
        self._snapshot: Snapshot | None = None
        self._remembers = remote is not None and max(remote.permit_ttl, remote.deny_ttl) > 0.0
        self.breaker = Breaker(remote.breaker, name=f"the decision point {remote.url}") if remote else None
        self.cache = DecisionCache(remote.cache_size) if remote else None

    def wants_attributes(self, question: Question, snapshot: Snapshot | None) -> bool:
        """Whether the outcome still hangs on attributes of the resource that nobody has looked up."""
        return snapshot is not None and snapshot.needs_attributes(question) and crossed(question) is None

    def begin(self, question: Question, snapshot: Snapshot | None, epoch: Hashable = None) -> Decision | Attempt:
        """Decide locally, or say what to ask. Never raises: an error is a refusal.

        `epoch` is that of the revocations: an answer that was had under another one is not served again.
        """
        try:
            return self._begin(question, snapshot, epoch)
        except Exception:  # noqa: BLE001 - whatever went wrong while deciding, nothing was permitted
            return ERROR

    def _begin(self, question: Question, snapshot: Snapshot | None, epoch: Hashable) -> Decision | Attempt:
        if snapshot is None:
            return POLICY_UNAVAILABLE
        if snapshot is not self._snapshot:
            self._take(snapshot)
        border = crossed(question)
        if border is not None:
            return versioned(Decision(permit=False, reason=border), snapshot)
        local = snapshot.evaluate(question)
        if local.permit and is_underauthenticated(question):
            return versioned(underauthenticated(question, snapshot.ways_in(question)), snapshot)
        if not local.permit or not self._is_sensitive(question, local):
            return local
        return self._begin_remote(question, snapshot, local, epoch)

    def _take(self, snapshot: Snapshot) -> None:
        # By identity: content that comes back after a rollback does not bring back what was decided under it before.
        if self.cache is not None:
            self.cache.forget_all()
        self._snapshot = snapshot

    def _is_sensitive(self, question: Question, local: Decision) -> bool:
        if local.sensitive or question.permission.sensitive:
            return True
        return self._is_sensitive_action(question.permission.action)

    def _begin_remote(
        self, question: Question, snapshot: Snapshot, local: Decision, epoch: Hashable
    ) -> Decision | Attempt:
        remote, breaker, cache = self._remote, self.breaker, self.cache
        if remote is None or breaker is None or cache is None:
            return self._fall_back(NOT_CONFIGURED, question, snapshot, local)
        query = None
        if self._remembers:
            query = self._query(remote, question, snapshot, epoch)
            known = cache.fresh(query.key, question.now, remote.permit_ttl, remote.deny_ttl)
            if known is not None:
                return _decided(local, known, question, snapshot, Source.CACHE)
        begun = self._monotonic()
        ticket = breaker.admit(begun)
        if not ticket:
            choice = self._choice_for(question.permission.action)
            if choice is None or choice.mode is FallbackMode.DENY:
                return refused(local, LEFT_ALONE)
            # What is not asked need not be said: making a message costs more than deciding.
            if query is None and choice.mode is FallbackMode.CACHED:
                query = self._query(remote, question, snapshot, epoch)
            return self._fall_back(LEFT_ALONE, question, snapshot, local, query.key if query else ())
        try:
            query = query or self._query(remote, question, snapshot, epoch)
        except Exception:
            breaker.abandon(begun, ticket)
            raise
        return Attempt(self, question, snapshot, local, query, begun, ticket)

    def _query(self, remote: RemoteSettings, question: Question, snapshot: Snapshot, epoch: Hashable) -> RemoteQuery:
        deadline = remote.deadline_for(question.action)
        return RemoteQuery.of(question, snapshot.revision, epoch, remote.dialect, deadline)

    def _falls_back_on_memory(self, question: Question) -> bool:
        choice = self._choice_for(question.action)
        return choice is not None and choice.mode is FallbackMode.CACHED

    def _fall_back(
        self,
        failure: RemoteFailure,
        question: Question,
        snapshot: Snapshot,
        local: Decision,
        key: Key = (),
        now: float | None = None,
    ) -> Decision:
        """What was chosen beforehand for the case that the decision point does not answer."""
        return fall_back(
            choice=self._choice_for(question.action),
            failure=failure,
            question=question,
            local=local,
            snapshot=snapshot,
            cache=self.cache,
            key=key,
            now=now,
        )

    def conclude(self, attempt: Attempt, reply: RemoteAnswer | RemoteFailure) -> Decision:
        """The decision that a reply of the decision point leads to, with breaker and cache brought up to date."""
        if self.breaker is None or self.cache is None:
            return ERROR
        moment, ticket = self._monotonic(), attempt.ticket
        if isinstance(reply, RemoteFailure):
            if not reply.is_news:
                self.breaker.abandon(moment, ticket)
            elif reply.is_outage:
                self.breaker.fail(moment, ticket, reply.kind.value)
            else:
                self.breaker.succeed(moment, ticket)  # a fault: see Breaker
            now = attempt.question.now + moment - attempt.begun
            return self._fall_back(reply, attempt.question, attempt.snapshot, attempt.local, attempt.query.key, now)
        self.breaker.succeed(moment, ticket)
        question = attempt.question
        is_asked_for = self._remembers or self._falls_back_on_memory(question)
        # What was asked under an older policy is no answer for later.
        if is_asked_for and attempt.snapshot is self._snapshot:
            self.cache.remember(attempt.query.key, reply, question.now, question.principal.expires_at)
        return _decided(attempt.local, reply, question, attempt.snapshot, Source.REMOTE)

    def abandon(self, attempt: Attempt) -> None:
        """Give a question up unanswered."""
        if self.breaker is not None:
            self.breaker.abandon(self._monotonic(), attempt.ticket)


class Attempt:
    """The one question to the decision point. After the `with` block `decision` is always set."""

    __slots__ = ("_answered", "_engine", "begun", "decision", "local", "query", "question", "snapshot", "ticket")

    def __init__(
        self,
        engine: Engine,
        question: Question,
        snapshot: Snapshot,
        local: Decision,
        query: RemoteQuery,
        begun: float,
        ticket: int,
    ) -> None:
        self._engine = engine
        self._answered = False
        self.question = question
        self.snapshot = snapshot
        self.local = local
        self.query = query
        self.begun = begun
        self.ticket = ticket
        self.decision = ERROR

    def answer(self, reply: RemoteAnswer | RemoteFailure) -> None:
        """Take what the decision point said, or that it said nothing."""
        self._answered = True
        self.decision = self._engine.conclude(self, reply)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if error is None and self._answered:
            return False
        if not self._answered:
            # A caller that went away says nothing about the decision point, but a probe must not be lost.
            self._engine.abandon(self)
        if error is None or isinstance(error, Exception):
            self.decision = ERROR
            return True
        self.decision = CANCELLED
        return False


def _is_covered(patterns: Iterable[str], action: str) -> bool:
    return any(covers(pattern, action) for pattern in patterns)


def versioned(decision: Decision, snapshot: Snapshot | None) -> Decision:
    """A decision that no rule made, with the policy version it was made under."""
    if snapshot is None:
        return decision
    return msgspec.structs.replace(
        decision, policy=snapshot.name, owner=snapshot.owner, revision=snapshot.revision, serial=snapshot.serial
    )


def _decided(
    local: Decision, answer: RemoteAnswer | CachedAnswer, question: Question, snapshot: Snapshot, source: Source
) -> Decision:
    # What the rules ask of the authentication only matters where the answer asks for one as well.
    ways = ANY_WAY if answer.advice.step_up is None else snapshot.ways_in(question)
    return decided(local, permit=answer.permit, advice=answer.advice, question=question, source=source, ways=ways)
