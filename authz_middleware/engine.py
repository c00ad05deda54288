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
from collections.abc import Callable, Hashable
from types import TracebackType
from typing import Final, Self

import msgspec

from authz_middleware.boundary import crossed, is_underauthenticated, underauthenticated
from authz_middleware.decision import Decision, Reason, Source
from authz_middleware.policy.snapshot import Snapshot
from authz_middleware.question import Question
from authz_middleware.remote.breaker import Breaker
from authz_middleware.remote.cache import DecisionCache
from authz_middleware.remote.failure import FailureKind, RemoteAnswer, RemoteFailure
from authz_middleware.remote.fallback import fall_back
from authz_middleware.remote.query import RemoteQuery
from authz_middleware.settings import Settings
from authz_middleware.settings.model import covers

ERROR: Final = Decision(permit=False, reason=Reason.ERROR)
CANCELLED: Final = Decision(permit=False, reason=Reason.CANCELLED)
NOT_CONFIGURED: Final = RemoteFailure(FailureKind.CONFIG, "remote.not_configured")
POLICY_UNAVAILABLE: Final = Decision(permit=False, reason=Reason.POLICY_UNAVAILABLE)


class Engine:
    """Turns questions into decisions, with the settings of one application.

    `monotonic` gives seconds for the breaker; the wall clock is the question's own `now`.
    """

    def __init__(self, settings: Settings, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._fallback = settings.fallback
        self._sensitive = settings.app.sensitive
        self._remote = settings.remote
        self._monotonic = monotonic
        self._snapshot: Snapshot | None = None
        self.breaker = Breaker(settings.remote.breaker) if settings.remote else None
        self.cache = DecisionCache(settings.remote.cache_size) if settings.remote else None

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
        return bool(self._sensitive) and any(covers(pattern, question.action) for pattern in self._sensitive)

    def _begin_remote(
        self, question: Question, snapshot: Snapshot, local: Decision, epoch: Hashable
    ) -> Decision | Attempt:
        if self._remote is None or self.breaker is None or self.cache is None:
            return fall_back(
                choice=None,
                failure=NOT_CONFIGURED,
                question=question,
                local=local,
                snapshot=snapshot,
                cache=None,
                key=(),
            )
        query = RemoteQuery.of(question, snapshot.revision, epoch)
        known = self.cache.fresh(query.key, question.now, self._remote.permit_ttl, self._remote.deny_ttl)
        if known is not None:
            return _answered(local, permit=known.permit, source=Source.CACHE)
        attempt = Attempt(self, question, snapshot, local, query, self._monotonic())
        if not self.breaker.admit(self._monotonic()):
            attempt.fail(RemoteFailure(FailureKind.BREAKER_OPEN))
            return attempt.decision
        return attempt

    def conclude(self, attempt: Attempt, reply: RemoteAnswer | RemoteFailure) -> Decision:
        """The decision that a reply of the decision point leads to, with breaker and cache brought up to date."""
        if self.breaker is None or self.cache is None:
            return ERROR
        moment = self._monotonic()
        if isinstance(reply, RemoteFailure):
            if not reply.is_news:
                self.breaker.abandon(moment)
            elif reply.is_outage:
                self.breaker.fail(moment)
            else:
                self.breaker.succeed(moment)  # a fault: see Breaker
            return self.fall_back(attempt, reply)
        self.breaker.succeed(moment)
        question = attempt.question
        if attempt.snapshot is self._snapshot:  # what was asked under an older policy is no answer for later
            self.cache.remember(attempt.query.key, reply, question.now, question.principal.expires_at)
        return _answered(attempt.local, permit=reply.permit, source=Source.REMOTE)

    def abandon(self) -> None:
        """Give a question up unanswered."""
        if self.breaker is not None:
            self.breaker.abandon(self._monotonic())

    def fall_back(self, attempt: Attempt, failure: RemoteFailure) -> Decision:
        """What was chosen beforehand for the case that the decision point does not answer."""
        return fall_back(
            choice=self._fallback.choice_for(attempt.question.action),
            failure=failure,
            question=attempt.question,
            local=attempt.local,
            snapshot=attempt.snapshot,
            cache=self.cache,
            key=attempt.query.key,
            now=attempt.question.now + self._monotonic() - attempt.begun,
        )


class Attempt:
    """The one question to the decision point. After the `with` block `decision` is always set."""

    __slots__ = ("_answered", "_engine", "begun", "decision", "local", "query", "question", "snapshot")

    def __init__(
        self,
        engine: Engine,
        question: Question,
        snapshot: Snapshot,
        local: Decision,
        query: RemoteQuery,
        begun: float,
    ) -> None:
        self._engine = engine
        self._answered = False
        self.question = question
        self.snapshot = snapshot
        self.local = local
        self.query = query
        self.begun = begun
        self.decision = ERROR

    def answer(self, reply: RemoteAnswer | RemoteFailure) -> None:
        """Take what the decision point said, or that it said nothing."""
        self._answered = True
        self.decision = self._engine.conclude(self, reply)

    def fail(self, failure: RemoteFailure) -> None:
        """Take it that the decision point is not asked at all: the breaker is open."""
        self._answered = True
        self.decision = self._engine.fall_back(self, failure)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if error is None and self._answered:
            return False
        if not self._answered:
            # A caller that went away says nothing about the decision point, but a probe must not be lost.
            self._engine.abandon()
        if error is None or isinstance(error, Exception):
            self.decision = ERROR
            return True
        self.decision = CANCELLED
        return False


def versioned(decision: Decision, snapshot: Snapshot | None) -> Decision:
    """A decision that no rule made, with the policy version it was made under."""
    if snapshot is None:
        return decision
    return msgspec.structs.replace(
        decision, policy=snapshot.name, owner=snapshot.owner, revision=snapshot.revision, serial=snapshot.serial
    )


def _answered(local: Decision, *, permit: bool, source: Source) -> Decision:
    permit = permit is True
    reason = Reason.PERMITTED if permit else Reason.REMOTE_DENY
    return msgspec.structs.replace(local, permit=permit, reason=reason, source=source, sensitive=True)
