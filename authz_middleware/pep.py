"""The policy enforcement point: everything one application needs, behind `enforce` and its async twin.

An adapter builds facts, hands over the credentials and the requirement of the endpoint the framework has chosen,
and gets an `Authorization` back, with a refusal to render or without. The pipeline is written once, as flows;
the sync and the async methods drive it.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable, Generator
from typing import Final

import msgspec

from authz_middleware.alarm import Alarm
from authz_middleware.answer import Answer
from authz_middleware.authorization import UNDECIDED, Authorization
from authz_middleware.current import authz
from authz_middleware.decision import Decision, Reason
from authz_middleware.engine import CANCELLED, ERROR, NOT_CONFIGURED, Attempt, Engine, versioned
from authz_middleware.errors import AnnotationError, AuthzError, NoRequestError, Problem, SettingsError, describe
from authz_middleware.facts import RequestFacts
from authz_middleware.flow import Ask, Await, Effect, Flow, Load, Work, arun, run
from authz_middleware.identity.authenticator import Authenticator
from authz_middleware.identity.connection.credentials import Credentials
from authz_middleware.identity.principal import Principal
from authz_middleware.identity.problem import CredentialDetail
from authz_middleware.loaders import ResourceLoaders
from authz_middleware.permission import Permission, Requirement
from authz_middleware.policy.store import SnapshotStore
from authz_middleware.policy.watch import PolicyWatcher
from authz_middleware.question import Question
from authz_middleware.record.masking import MASK, is_secret_value
from authz_middleware.record.recorder import Recorder
from authz_middleware.refusals import Refusals, Render
from authz_middleware.remote.decision_point import DecisionPoint
from authz_middleware.resource import Resource
from authz_middleware.resource_metadata import metadata_answer, metadata_path
from authz_middleware.revocation.feeds.event_receiver import EventReceiver
from authz_middleware.revocation.guard import STATUS_NOT_CONFIGURED, Revocations, Standing
from authz_middleware.settings import Settings
from authz_middleware.startup import policy_problems

Outcome = tuple[Decision, Answer | None]

PUBLIC: Final = Decision(permit=True, reason=Reason.PUBLIC)
UNDECLARED: Final = Permission(action="route:undeclared")
EXPIRED: Final = Decision(permit=False, reason=Reason.CREDENTIAL_INVALID, detail=CredentialDetail.EXPIRED.value)
KEY_GONE: Final = Decision(permit=False, reason=Reason.CREDENTIAL_INVALID, detail=CredentialDetail.KEY_UNKNOWN.value)
NOT_DECLARED: Final = Decision(permit=False, reason=Reason.PERMISSION_MISSING)
UNREVOKED: Final = Standing(None, None)
UNLOOKED: Final = Standing(STATUS_NOT_CONFIGURED, None)
LAST_KNOWN: Final = "revocations.last_known"
RECORD_UNAVAILABLE: Final = Decision(permit=False, reason=Reason.RECORD_UNAVAILABLE)


class EnforcementPoint:
    """The enforcement point of one application.

    `loaders` are those registered with `authz.resource` unless given; `render` may replace the body and headers of
    a refusal, never its being one; `clock` gives seconds since the epoch.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        loaders: ResourceLoaders | None = None,
        render: Render | None = None,
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
        self._point = DecisionPoint(settings.remote) if settings.remote else None
        described = settings.protected_resource
        self._metadata_path = None if described is None else metadata_path(described.resource)
        self._loaders = authz.loaders if loaders is None else loaders
        self._refusals = Refusals(settings, self._authenticator, render)
        self._undecided = Alarm(
            "a response of %r was about to leave without a decision; whatever answered it stands before the handlers "
            "that the authorization middleware guards"
        )
        self._errors = Alarm("deciding on %r failed and refused: %r")

    def start(self) -> None:
        """Load the policy and the token keys, and start what keeps them fresh.

        Raises PolicyError where the application must not start. Keys that cannot be had yet do not stop it: until they
        can, every token is answered with 503.
        """
        self.policy.reload()
        self._authenticator.start()
        if self.revocations is not None:
            self.revocations.start()
        if self._watch is not None:
            self._watch.start()

    def prepare_async(self) -> None:
        """Get ready to ask the decision point and issuers from an event loop, before the first deadline runs.

        Raises SettingsError when what that takes is not installed.
        """
        if self._point is not None:
            self._point.prepare_async()
        self._authenticator.prepare_async()

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

    def enforce(self, facts: RequestFacts, credentials: Credentials, requirement: Requirement) -> Authorization:
        """Decide on a request before its handler runs. Never raises: an error is a refusal."""
        return run(self._enforcing(facts, credentials, requirement), self._perform)

    async def aenforce(self, facts: RequestFacts, credentials: Credentials, requirement: Requirement) -> Authorization:
        """`enforce` for an event loop."""
        return await arun(self._enforcing(facts, credentials, requirement), self._aperform)

    def decide(self, authorization: Authorization, action: str, resource: object) -> Outcome:
        """Decide one more question of a request and record it; the answer is None for a permit."""
        return run(self._checking(authorization, action, resource), self._perform)

    async def adecide(self, authorization: Authorization, action: str, resource: object) -> Outcome:
        """`decide` for an event loop."""
        return await arun(self._checking(authorization, action, resource), self._aperform)

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
            if self._ended(principal, now) is not None or self.policy.current is not authorization.affirmed:
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
        await arun(self._reaffirming(authorization), self._aperform)

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
        return self._refuse(facts, UNDECIDED)

    def refuse_failed(self, facts: RequestFacts, error: Exception) -> Authorization:
        """Refuse a request that an adapter cannot even put a question about."""
        return self._refuse(facts, self._failed(error, facts))

    def _refuse(self, facts: RequestFacts, decision: Decision) -> Authorization:
        authorization = Authorization(self, facts, None)
        receipt = self.recorder.submit(None, facts, decision)
        self._conclude(authorization, (decision, self._refusals.answer(decision, receipt.decision_id)))
        return authorization

    def _enforcing(
        self, facts: RequestFacts, credentials: Credentials, requirement: Requirement
    ) -> Flow[Authorization]:
        try:
            facts = self._authenticator.proxies.facts(facts, credentials)
            authorization = Authorization(self, facts, self.policy.current)
            authorization.requirement = requirement
            early = yield from self._identifying(authorization, credentials)
            if early is not None:
                early = versioned(early, authorization.snapshot)
                # Who asked for an endpoint that asks for nothing is known, and belongs into the record.
                asked = None if authorization.principal is None else self._question(authorization, UNDECLARED)
                action = requirement.permissions[0].action if requirement.permissions else None
                outcome = yield from self._recording(authorization, asked, early, action)
                self._conclude(authorization, outcome)
                return authorization
            yield from self._deciding_all(authorization)
        except Exception as error:  # noqa: BLE001 - whatever it was, nothing was permitted
            return self.refuse_failed(facts, error)
        return authorization

    def _reaffirming(self, authorization: Authorization) -> Flow[None]:
        try:
            authorization.renew()
            snapshot = authorization.snapshot
            principal = authorization.principal
            ended = None if principal is None else self._ended(principal, self.clock())
            if ended is not None:
                question = self._question(authorization, authorization.requirement.permissions[0])
                outcome = yield from self._recording(authorization, question, versioned(ended, snapshot))
                self._conclude(authorization, outcome)
                return
            yield from self._deciding_all(authorization)
            authorization.affirmed = snapshot
        except Exception as error:  # noqa: BLE001 - whatever it was, nothing was permitted
            failed = self._failed(error, authorization.facts)
            receipt = self.recorder.submit(None, authorization.facts, failed)
            self._conclude(authorization, (failed, self._refusals.answer(failed, receipt.decision_id)))

    def _ended(self, principal: Principal, now: float) -> Decision | None:
        """The refusal of a token that was accepted some time ago, and would not be now."""
        if now >= principal.expires_at:
            return EXPIRED
        return None if self._authenticator.vouches_for(principal) else KEY_GONE

    def _deciding_all(self, authorization: Authorization) -> Flow[None]:
        """Every question of the endpoint, up to the first that is refused."""
        for permission in authorization.requirement.permissions:
            outcome = yield from self._deciding(authorization, self._question(authorization, permission))
            self._conclude(authorization, outcome)
            if not authorization.decision.permit:
                break

    def _checking(self, authorization: Authorization, action: str, resource: object) -> Flow[Outcome]:
        """A question of the handler's own."""
        try:
            question = authorization.question(action, resource)
        except (AnnotationError, NoRequestError):
            raise
        except Exception as error:  # noqa: BLE001 - the application's object; nothing was permitted about it
            failed = self._failed(error, authorization.facts)
            return (yield from self._recording(authorization, None, failed, action))
        return (yield from self._deciding(authorization, question))

    def _deciding(self, authorization: Authorization, question: Question) -> Flow[Outcome]:
        """One question: decide, and record."""
        decision = CANCELLED
        try:
            standing = self._standing(question)
            if standing.refusal is None and self.engine.wants_attributes(question, authorization.snapshot):
                question = yield from self._looking_up(authorization, question)
                standing = self._standing(question)  # that took its time, and who was revoked meanwhile is not let in
            if standing.refusal is None:
                decision = yield from self._asking(authorization, question, standing)
            else:
                decision = versioned(standing.refusal, authorization.snapshot)
        except Exception as error:  # noqa: BLE001 - a loader, say; nothing was permitted
            decision = self._failed(error, question.facts)
        except BaseException:
            self.recorder.submit(question, question.facts, CANCELLED)
            raise
        return (yield from self._recording(authorization, question, decision))

    def _looking_up(self, authorization: Authorization, question: Question) -> Flow[Question]:
        """The question with the attributes of its resource."""
        resource = authorization.remembered(question.resource)
        if resource is None:
            resource = yield Load(question.resource, question.now)
            authorization.remember(resource)
        return msgspec.structs.replace(question, resource=resource)

    def _asking(self, authorization: Authorization, question: Question, standing: Standing) -> Flow[Decision]:
        """Decide, and ask the decision point where that has to be."""
        step = self.engine.begin(question, authorization.snapshot, standing.epoch)
        if isinstance(step, Attempt):
            with step:
                step.answer((yield Ask(step.query)))
            standing = self._standing(question)  # likewise
            step = step.decision if standing.refusal is None else versioned(standing.refusal, step.snapshot)
        return _dated(step, standing)

    def _standing(self, question: Question) -> Standing:
        """What is revoked about whoever asks, as it is known at this moment."""
        if self.revocations is None:
            return UNREVOKED if question.principal.status is None else UNLOOKED
        return self.revocations.check(question.principal, question.action, self.clock())

    def _recording(
        self, authorization: Authorization, question: Question | None, decision: Decision, action: str | None = None
    ) -> Flow[Outcome]:
        receipt = self.recorder.submit(question, authorization.facts, decision, action=action)
        if receipt.pending is not None and not (yield Await(receipt)):
            decision = RECORD_UNAVAILABLE
        return decision, None if decision.permit else self._refusals.answer(decision, receipt.decision_id)

    def _perform(self, effect: Effect) -> object:
        if isinstance(effect, Load):
            return self._loaders.load(effect.resource, effect.now)
        if isinstance(effect, Ask):
            return self._point.ask(effect.query) if self._point else NOT_CONFIGURED
        if isinstance(effect, Work):
            return effect.job.perform()
        return self.recorder.wait(effect.receipt)

    async def _aperform(self, effect: Effect) -> object:
        if isinstance(effect, Load):
            return await self._loaders.aload(effect.resource, effect.now)
        if isinstance(effect, Ask):
            return await self._point.ask_async(effect.query) if self._point else NOT_CONFIGURED
        if isinstance(effect, Work):
            return await effect.job.aperform()
        return await self.recorder.await_(effect.receipt)

    def _identifying(self, authorization: Authorization, credentials: Credentials) -> Flow[Decision | None]:
        """Establish who calls; a decision only where no permission is left to decide about."""
        if authorization.requirement.public is not None:
            return PUBLIC
        known = self._authenticator.authenticating(credentials, self.clock())
        if isinstance(known, Generator):
            known = yield from known
        if not isinstance(known, Principal):
            return Decision(permit=False, reason=known.reason, detail=known.detail)
        authorization.principal = known
        return None if authorization.requirement.permissions else NOT_DECLARED

    def _question(self, authorization: Authorization, permission: Permission) -> Question:
        principal, facts = authorization.principal, authorization.facts
        if principal is None:
            raise AssertionError("no question is put before the caller is known")
        template = permission.resource
        if template is None:
            resource = Resource("route", facts.route or facts.endpoint)
        else:
            resource = template.fill(facts.path_params) or Resource(template.type, "")
        return Question(
            principal=principal,
            permission=permission,
            resource=resource,
            facts=facts,
            environment=self.settings.app.environment,
            now=self.clock(),
        )

    def _conclude(self, authorization: Authorization, outcome: Outcome) -> None:
        authorization.decision, answer = outcome
        authorization.degraded |= authorization.decision.degraded
        authorization.refusal = None if self.observes else answer

    def _failed(self, error: Exception, facts: RequestFacts) -> Decision:
        # The text of our own errors names members and types, never a value.
        name = type(error).__qualname__
        self._errors.ring(facts.endpoint, str(error) if isinstance(error, AuthzError) else describe(error), kind=name)
        return msgspec.structs.replace(ERROR, detail=name)


def _dated(decision: Decision, standing: Standing) -> Decision:
    """A permit that rests on what was known last of revocations says so in its record."""
    if standing.age_s is None or not decision.permit:
        return decision
    return msgspec.structs.replace(decision, detail=LAST_KNOWN)
