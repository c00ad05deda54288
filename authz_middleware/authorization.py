"""One request's authorization: what was decided about it, and the way to ask more.

Handlers find it as `request.authz`, `scope["authz"]` or `flask.g.authz`. It is also the request's ledger: an
adapter lets no response leave whose ledger holds neither a permit nor a public endpoint.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

from authz_middleware.answer import Answer
from authz_middleware.decision import Decision, Reason
from authz_middleware.errors import AccessDenied, AnnotationError, NoRequestError
from authz_middleware.facts import RequestFacts
from authz_middleware.identity.principal import Principal
from authz_middleware.loaders import described
from authz_middleware.permission import ACTION_NAME, Permission, Requirement
from authz_middleware.question import Question
from authz_middleware.resource import Resource, is_clear_id

if TYPE_CHECKING:
    from authz_middleware.health import Health
    from authz_middleware.pep import EnforcementPoint
    from authz_middleware.policy.snapshot import Snapshot
    from authz_middleware.revocation.feeds.event_receiver import EventReceiver
    from authz_middleware.search import Search

UNDECIDED: Final = Decision(permit=False, reason=Reason.UNDECIDED)
NOTHING: Final = Requirement()


@runtime_checkable
class DescribesResource(Protocol):
    """An application object that tells which resource it is, so that it can be handed to `check` itself."""

    def __authz_resource__(self) -> Resource:
        """The resource, with whatever attributes the object already holds."""
        ...


class Authorization:
    """The decisions of one request, all made by the snapshot that was in force when it came in; on a websocket each
    check is made by the one in force then.

    `decision` is the one that let it in or refused it; `refusal` is the answer that the client must get, whatever
    the application answers itself. In observe mode `refusal` stays None.
    """

    __slots__ = (
        "_loaded",
        "_pep",
        "affirmed",
        "decision",
        "degraded",
        "facts",
        "principal",
        "refusal",
        "requirement",
        "snapshot",
    )

    def __init__(self, pep: EnforcementPoint, facts: RequestFacts, snapshot: Snapshot | None) -> None:
        self._pep = pep
        self._loaded: dict[tuple[str, str], Resource] | None = None
        self.facts = facts
        self.snapshot = snapshot
        self.requirement = NOTHING
        """What was asked of the endpoint."""
        self.affirmed = snapshot
        """The snapshot that last permitted it: on a websocket a later one may, see `EnforcementPoint.stands`."""
        self.principal: Principal | None = None
        self.decision = UNDECIDED
        self.degraded = False
        """Whether a permission of the request was decided by narrower rules while the decision point was away."""
        self.refusal: Answer | None = None

    def __repr__(self) -> str:
        return f"<Authorization {self.facts.endpoint} {self.decision.reason.value}>"

    def check(self, action: str, resource: object = None) -> Decision:
        """Ask for one more permission, in a synchronous handler.

        `resource` is `type/id`, a `Resource`, or an object with `__authz_resource__`; without it the route itself is
        meant. Raises AccessDenied when it is refused: that refusal is final for this response.
        """
        if self._observes_nobody:
            return self.decision
        return self._insist(self._pep.decide(self, action, resource))

    async def acheck(self, action: str, resource: object = None) -> Decision:
        """`check` for an asynchronous handler."""
        if self._observes_nobody:
            return self.decision
        return self._insist(await self._pep.adecide(self, action, resource))

    def permitted(self, action: str, resource: object = None) -> bool:
        """Whether one more permission holds, in a synchronous handler. The decision is recorded; a refusal has
        no other consequence. In observe mode the answer is always True."""
        if self._observes_nobody:
            return True
        return self._holds(self._pep.decide(self, action, resource))

    async def apermitted(self, action: str, resource: object = None) -> bool:
        """`permitted` for an asynchronous handler."""
        if self._observes_nobody:
            return True
        return self._holds(await self._pep.adecide(self, action, resource))

    def permitted_each(self, action: str, resources: Iterable[object]) -> list[bool]:
        """`permitted` for each of several resources, in order, in a synchronous handler: what a list is filtered by.

        Each decision is recorded. What the decision point has to be asked about is asked together (AuthZEN 1.0,
        Access Evaluations), within one deadline.
        """
        resources = list(resources)
        if self._observes_nobody:
            return [True] * len(resources)
        return [self._holds(outcome) for outcome in self._pep.decide_each(self, action, resources)]

    async def apermitted_each(self, action: str, resources: Iterable[object]) -> list[bool]:
        """`permitted_each` for an asynchronous handler."""
        resources = list(resources)
        if self._observes_nobody:
            return [True] * len(resources)
        return [self._holds(outcome) for outcome in await self._pep.adecide_each(self, action, resources)]

    @property
    def search(self) -> Search:
        """What the decision point knows to be permitted: hints of what to show, never decisions."""
        return self._pep.search(self)

    def health(self) -> Health:
        """How the enforcement point is: what a readiness endpoint answers by. Opens no socket and waits for nobody."""
        return self._pep.health()

    @property
    def receiver(self) -> EventReceiver:
        """What takes pushed security events (RFC 8935); for an endpoint of one's own, see `feeds.mounting`."""
        return self._pep.receiver

    def complete_task(self, *, task: str | None = None, transaction: str | None = None, reason: str) -> None:
        """Say that a task or a transaction of the caller's issuer is done: from the next decision on every token of it
        is refused, this one included. Blocks while that is written.

        Without either name it is the transaction of the caller's own token (`txn`). Raises SettingsError where there
        are no `[revocations]`, RevocationError where the token has no transaction, and StoreUnavailableError where it
        could not be written.
        """
        self._pep.complete_task(self, task=task, transaction=transaction, reason=reason)

    async def acomplete_task(self, *, task: str | None = None, transaction: str | None = None, reason: str) -> None:
        """`complete_task` for an asynchronous handler."""
        await asyncio.to_thread(self._pep.complete_task, self, task=task, transaction=transaction, reason=reason)

    def question(self, action: str, resource: object = None) -> Question:
        """The question that a check in a handler asks. Raises AnnotationError for an action or resource that
        cannot mean anything, NoRequestError where nobody is authenticated."""
        if not ACTION_NAME.fullmatch(action):
            raise AnnotationError(f"action {action!r} must be words joined by ':', such as 'invoice:read'")
        if self.facts.protocol == "websocket":
            # Each message is a moment of action of its own: today's policy, and the resource as it is now.
            self.renew()
        if self.principal is None:
            raise NoRequestError(f"{self.facts.endpoint} is public: there is no caller to decide {action!r} about")
        return Question(
            principal=self.principal,
            permission=Permission(action=action),
            resource=self._resource(resource),
            facts=self.facts,
            environment=self._pep.settings.app.environment,
            now=self._pep.clock(),
        )

    def renew(self) -> None:
        """Take today's policy for what is asked next, and forget resources as they were."""
        self.snapshot, self._loaded = self._pep.policy.current, None

    def stands(self) -> bool:
        """Whether what was let in may go on; see `EnforcementPoint.stands`."""
        return self._pep.stands(self)

    async def areaffirm(self) -> None:
        """Decide again; see `EnforcementPoint.areaffirm`."""
        await self._pep.areaffirm(self)

    def remembered(self, resource: Resource) -> Resource | None:
        """The resource as it was loaded earlier in this request."""
        return None if self._loaded is None else self._loaded.get((resource.type, resource.id))

    def remember(self, resource: Resource) -> None:
        """Keep a loaded resource for the rest of this request."""
        if self._loaded is None:
            self._loaded = {}
        self._loaded[resource.type, resource.id] = resource

    @property
    def _observes_nobody(self) -> bool:
        """Whether the handler only runs because nothing is refused here: nobody is known to ask further about."""
        return self.principal is None and self._pep.observes and self.decision.reason is not Reason.PUBLIC

    def _holds(self, outcome: tuple[Decision, Answer | None]) -> bool:
        return outcome[0].permit or self._pep.observes

    def _resource(self, resource: object) -> Resource:
        if resource is None:
            return Resource("route", self.facts.route or self.facts.endpoint)
        if isinstance(resource, str):
            type_, slash, id_ = resource.partition("/")
            if not slash or not type_:
                raise AnnotationError(f"resource {resource!r} must be a type, a slash and an id, such as 'invoice/17'")
            resource = Resource(type_, id_)
        elif isinstance(resource, DescribesResource):
            resource = resource.__authz_resource__()
        if not isinstance(resource, Resource):
            raise AnnotationError(f"resource must be 'type/id', a Resource or describe one, not {type(resource)!r}")
        if not is_clear_id(resource.type) or not is_clear_id(resource.id):
            return Resource("unclear", "")
        return described(resource)

    def _insist(self, outcome: tuple[Decision, Answer | None]) -> Decision:
        decision, answer = outcome
        if not decision.permit and not self._pep.observes:
            self.decision, self.refusal = decision, answer
            raise AccessDenied(decision)
        return decision
