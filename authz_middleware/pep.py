"""The policy enforcement point: everything one application needs, behind `enforce` and its async twin.

An adapter builds facts, hands over the credentials and the requirement of the endpoint the framework has chosen,
and gets an `Authorization` back, with a refusal to render or without. The flows of the pipeline are driven here, in
either colour.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable, Sequence

from authz_middleware.alarm import Alarm
from authz_middleware.answer import Answer
from authz_middleware.authorization import UNDECIDED, Authorization
from authz_middleware.current import authz
from authz_middleware.engine import NOT_CONFIGURED, Engine
from authz_middleware.errors import NoRequestError, Problem, SettingsError
from authz_middleware.facts import RequestFacts
from authz_middleware.flow import Ask, AskAll, Effect, Load, Work, arun, run
from authz_middleware.health import Health, health_of
from authz_middleware.identity.authenticator import Authenticator
from authz_middleware.identity.connection.credentials import Credentials
from authz_middleware.inquiry import Inquirer, Outcome
from authz_middleware.loaders import ResourceLoaders
from authz_middleware.obligations import Obligations
from authz_middleware.permission import Requirement
from authz_middleware.pipeline import Pipeline
from authz_middleware.policy.store import SnapshotStore
from authz_middleware.policy.watch import PolicyWatcher
from authz_middleware.record.masking import MASK, is_secret_value
from authz_middleware.record.recorder import Recorder
from authz_middleware.refusals import Refusals, Render
from authz_middleware.remote.decision_point import DecisionPoint
from authz_middleware.remote.transport.protocol import AsyncTransport, Transport
from authz_middleware.resource_metadata import metadata_answer, metadata_path
from authz_middleware.revocation.feeds.event_receiver import EventReceiver
from authz_middleware.revocation.guard import Revocations
from authz_middleware.search import Search
from authz_middleware.settings import Settings
from authz_middleware.startup import policy_problems


class EnforcementPoint:
    """The enforcement point of one application.

    `loaders` and `obligations` are those registered with `authz.resource` and `authz.obligation` unless given; `render`
    may replace the body and headers of a refusal, never its being one; `transport` and `async_transport` carry the
    questions to the decision point in place of our own; `clock` gives seconds since the epoch.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        loaders: ResourceLoaders | None = None,
        obligations: Obligations | None = None,
        render: Render | None = None,
        transport: Transport | None = None,
        async_transport: AsyncTransport | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.settings = settings
        self.clock = clock
        self.observes = settings.app.mode == "observe"
        self.engine = Engine(settings)
        self.policy = SnapshotStore(settings.policy.source, check=functools.partial(policy_problems, settings))
        self.recorder = Recorder(settings.decision_log, settings.app)
        self._watch = PolicyWatcher(self.policy, settings.policy.refresh) if settings.policy.refresh else None
        self._authenticator = Authenticator.of(settings, clock=clock)
        self.revocations = Revocations.of(settings, self._authenticator.keys_of, clock=clock)
        self._point = (
            DecisionPoint(settings.remote, transport=transport, async_transport=async_transport)
            if settings.remote
            else None
        )
        described = settings.protected_resource
        self._metadata_path = None if described is None else metadata_path(described.resource)
        self._loaders = authz.loaders if loaders is None else loaders
        inquirer = Inquirer(
            engine=self.engine,
            revocations=self.revocations,
            obligations=authz.obligations if obligations is None else obligations,
            recorder=self.recorder,
            refusals=Refusals(settings, self._authenticator, render),
            clock=clock,
            observes=self.observes,
        )
        self._pipeline = Pipeline(settings.app, self._authenticator, inquirer, clock)
        self._undecided = Alarm(
            "a response of %r was about to leave without a decision; whatever answered it stands before the handlers "
            "that the authorization middleware guards"
        )

    def start(self) -> None:
        """Load the policy and the token keys, and start what keeps them fresh.

        Raises PolicyError or SettingsError where the application must not start. Keys that cannot be had yet do not
        stop it: until they can, every token is answered with 503; nor does a decision point that does not answer.
        """
        self.policy.reload()
        if self._point is not None:
            self._point.start()
        self._authenticator.start()
        if self.revocations is not None:
            self.revocations.start()
        if self._watch is not None:
            self._watch.start()

    def close(self) -> None:
        """Stop threads, write what is still to be written, close connections."""
        if self._watch is not None:
            self._watch.stop()
        self._authenticator.close()
        if self.revocations is not None:
            self.revocations.close()
        if self._point is not None:
            self._point.close()
        self.recorder.close()

    async def aclose(self) -> None:
        """`close`, and the asynchronous connections of the running event loop as well."""
        if self._point is not None:
            await self._point.aclose()
        await self._authenticator.aclose()
        await asyncio.to_thread(self.close)

    @property
    def policy_problem(self) -> str | None:
        """Why the policy file as it is now is not in force; None when it is, or when nobody follows it."""
        return None if self._watch is None else self._watch.problem

    def enforce(self, facts: RequestFacts, credentials: Credentials, requirement: Requirement) -> Authorization:
        """Decide on a request before its handler runs. Never raises: an error is a refusal."""
        authorization = self._authorization(facts, requirement)
        return run(self._pipeline.enforcing(authorization, credentials), self._perform)

    async def aenforce(self, facts: RequestFacts, credentials: Credentials, requirement: Requirement) -> Authorization:
        """`enforce` for an event loop."""
        authorization = self._authorization(facts, requirement)
        return await arun(self._pipeline.enforcing(authorization, credentials), self._aperform)

    def decide(self, authorization: Authorization, action: str, resource: object) -> Outcome:
        """Decide one more question of a request and record it; the answer is None for a permit."""
        return run(self._pipeline.checking(authorization, action, resource), self._perform)

    async def adecide(self, authorization: Authorization, action: str, resource: object) -> Outcome:
        """`decide` for an event loop."""
        return await arun(self._pipeline.checking(authorization, action, resource), self._aperform)

    def decide_each(self, authorization: Authorization, action: str, resources: Sequence[object]) -> list[Outcome]:
        """`decide` about each of several resources; the decision point is asked about all of them together."""
        return run(self._pipeline.checking_each(authorization, action, resources), self._perform)

    async def adecide_each(
        self, authorization: Authorization, action: str, resources: Sequence[object]
    ) -> list[Outcome]:
        """`decide_each` for an event loop."""
        return await arun(self._pipeline.checking_each(authorization, action, resources), self._aperform)

    def document(self, method: str, path: str) -> Answer | None:
        """The document at this path that anybody may read: the metadata of `[protected_resource]` (RFC 9728), or None.

        Nothing is decided on the path: no handler runs for it, and what it tells is public.
        """
        if path != self._metadata_path or method != "GET":
            return None
        return metadata_answer(self.settings, self.policy.current, self._authenticator.bindings)

    def stands(self, authorization: Authorization) -> bool:
        """Whether what was let in, and still goes on, may go on without being decided again: nothing it rests on has
        changed. For websockets, whose every message and every second is a moment of action of its own. Never raises."""
        principal = authorization.principal
        if principal is None or not authorization.decision.permit:  # public; or refused, and there is no more to refuse
            return True
        try:
            now = self.clock()
            if self._pipeline.ended(principal, now) is not None or self.policy.current is not authorization.affirmed:
                return False
            if self.revocations is None:
                return True
            actions = [permission.action for permission in authorization.requirement.permissions]
            return all(self.revocations.check(principal, action, now).refusal is None for action in actions)
        except Exception:  # noqa: BLE001 - what cannot be told does not stand; deciding again refuses and says why
            return False

    async def areaffirm(self, authorization: Authorization) -> None:
        """Decide again on what does not stand any longer. Afterwards it stands, or its `refusal` says how it ends.

        The token must not have expired, without any leeway, nor have been revoked, its key must still be its issuer's,
        and a policy that came into force since must permit the endpoint as well. Never raises.
        """
        await arun(self._pipeline.reaffirming(authorization), self._aperform)

    def health(self) -> Health:
        """How this enforcement point is, without any I/O; see `health_of`."""
        return health_of(self)

    def search(self, authorization: Authorization) -> Search:
        """What may be searched for on behalf of this caller."""
        return Search(authorization, self._point)

    @property
    def receiver(self) -> EventReceiver:
        """What takes pushed security events. Raises SettingsError where nobody may push any."""
        receiver = self.revocations.feeds.receiver if self.revocations and self.revocations.feeds else None
        if receiver is None:
            raise SettingsError([Problem("revocations.transmitters", "is absent: nobody may push events")])
        return receiver

    def complete_task(
        self, authorization: Authorization, *, task: str | None, transaction: str | None, reason: str
    ) -> None:
        """Revoke the tokens of a task or transaction; see `Authorization.complete_task`."""
        principal = authorization.principal
        if self.revocations is None:
            raise SettingsError([Problem("revocations", "is absent: without it nothing can be revoked")])
        if principal is None:
            raise NoRequestError(f"{authorization.facts.endpoint} is public: nobody's task is known")
        if task is None and transaction is None:
            transaction = principal.transaction
        self.revocations.complete_task(
            task=task, transaction=transaction, issuer=principal.issuer, reason=reason, owner=self.settings.app.name
        )

    def refuse_undecided(self, facts: RequestFacts) -> Authorization:
        """Refuse a response that was about to leave without a decision for its request, and raise the alarm."""
        shown = facts.endpoint or facts.route
        self._undecided.ring(MASK if is_secret_value(shown) else shown)
        authorization = Authorization(self, facts, None)
        self._pipeline.refuse(authorization, UNDECIDED)
        return authorization

    def refuse_failed(self, facts: RequestFacts, error: Exception) -> Authorization:
        """Refuse a request that an adapter cannot even put a question about."""
        authorization = Authorization(self, facts, None)
        self._pipeline.refuse_failed(authorization, error)
        return authorization

    def _authorization(self, facts: RequestFacts, requirement: Requirement) -> Authorization:
        authorization = Authorization(self, facts, self.policy.current)
        authorization.requirement = requirement
        return authorization

    def _perform(self, effect: Effect) -> object:
        if isinstance(effect, Load):
            return self._loaders.load(effect.resource, effect.now)
        if isinstance(effect, Ask):
            return self._point.ask(effect.query) if self._point else NOT_CONFIGURED
        if isinstance(effect, AskAll):
            return self._point.ask_all(effect.queries) if self._point else [NOT_CONFIGURED] * len(effect.queries)
        if isinstance(effect, Work):
            return effect.job.perform()
        return self.recorder.wait(effect.receipt)

    async def _aperform(self, effect: Effect) -> object:
        if isinstance(effect, Load):
            return await self._loaders.aload(effect.resource, effect.now)
        if isinstance(effect, Ask):
            return await self._point.ask_async(effect.query) if self._point else NOT_CONFIGURED
        if isinstance(effect, AskAll):
            return (
                await self._point.ask_all_async(effect.queries)
                if self._point
                else [NOT_CONFIGURED] * len(effect.queries)
            )
        if isinstance(effect, Work):
            return await effect.job.aperform()
        return await self.recorder.await_(effect.receipt)
