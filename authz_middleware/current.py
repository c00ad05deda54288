"""`authz`: the current request's authorization, from anywhere in a handler.

from authz_middleware import authz

@authz.resource("invoice")
def load_invoice(invoice_id): ...

authz.check("invoice:approve", resource=f"invoice/{invoice_id}")        # in a sync handler
await authz.acheck("invoice:approve", resource=f"invoice/{invoice_id}") # in an async one
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextvars import ContextVar
from typing import Any, Final, TypeVar

from authz_middleware.advice import Obligation
from authz_middleware.authorization import Authorization
from authz_middleware.decision import Decision
from authz_middleware.errors import NoRequestError
from authz_middleware.health import Health
from authz_middleware.identity.principal import Principal
from authz_middleware.loaders import ResourceLoaders
from authz_middleware.obligations import Obligations
from authz_middleware.question import Question
from authz_middleware.revocation.feeds.event_receiver import EventReceiver
from authz_middleware.search import Search

H = TypeVar("H", bound=Callable[[Obligation, Question], Any])
L = TypeVar("L", bound=Callable[[str], Any])

current_authorization: Final[ContextVar[Authorization]] = ContextVar("authz")


class CurrentAuthz:
    """Forwards to the `Authorization` of the request being handled. Outside of one, everything but `resource`
    and `obligation` raises NoRequestError."""

    def __init__(self) -> None:
        self.loaders = ResourceLoaders()
        self.obligations = Obligations()

    def resource(self, type_: str) -> Callable[[L], L]:
        """Register a loader of the attributes of one resource type; see `ResourceLoaders.register`."""
        return self.loaders.register(type_)

    def obligation(self, id_: str) -> Callable[[H], H]:
        """Register what carries out one kind of obligation of a permit; see `Obligations.register`."""
        return self.obligations.register(id_)

    @property
    def current(self) -> Authorization:
        """The authorization of the request being handled."""
        try:
            return current_authorization.get()
        except LookupError:
            raise NoRequestError("no request that the authorization middleware has seen is being handled") from None

    @property
    def principal(self) -> Principal:
        """Who calls. Raises NoRequestError on a public endpoint, where nobody was asked."""
        principal = self.current.principal
        if principal is None:
            raise NoRequestError(f"{self.current.facts.endpoint} is public: nobody was asked who calls")
        return principal

    @property
    def decision(self) -> Decision:
        """The decision that let this request in."""
        return self.current.decision

    @property
    def degraded(self) -> bool:
        """Whether that decision was made by a narrower rule set while the decision point was away."""
        return self.current.degraded

    @property
    def search(self) -> Search:
        """See `Authorization.search`."""
        return self.current.search

    def health(self) -> Health:
        """See `Authorization.health`."""
        return self.current.health()

    @property
    def receiver(self) -> EventReceiver:
        """See `Authorization.receiver`."""
        return self.current.receiver

    def check(self, action: str, resource: object = None) -> Decision:
        """See `Authorization.check`."""
        return self.current.check(action, resource)

    def permitted(self, action: str, resource: object = None) -> bool:
        """See `Authorization.permitted`."""
        return self.current.permitted(action, resource)

    def permitted_each(self, action: str, resources: Iterable[object]) -> list[bool]:
        """See `Authorization.permitted_each`."""
        return self.current.permitted_each(action, resources)

    async def acheck(self, action: str, resource: object = None) -> Decision:
        """See `Authorization.acheck`."""
        return await self.current.acheck(action, resource)

    async def apermitted(self, action: str, resource: object = None) -> bool:
        """See `Authorization.apermitted`."""
        return await self.current.apermitted(action, resource)

    async def apermitted_each(self, action: str, resources: Iterable[object]) -> list[bool]:
        """See `Authorization.apermitted_each`."""
        return await self.current.apermitted_each(action, resources)

    def complete_task(self, *, task: str | None = None, transaction: str | None = None, reason: str) -> None:
        """See `Authorization.complete_task`."""
        self.current.complete_task(task=task, transaction=transaction, reason=reason)

    async def acomplete_task(self, *, task: str | None = None, transaction: str | None = None, reason: str) -> None:
        """See `Authorization.acomplete_task`."""
        await self.current.acomplete_task(task=task, transaction=transaction, reason=reason)


authz: Final = CurrentAuthz()
