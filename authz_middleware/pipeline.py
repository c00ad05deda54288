"""From a request to its authorization: who calls, and whether each permission of the endpoint holds.

Written once, as flows: whatever takes I/O is yielded, and performed by the enforcement point in either colour.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Final

import msgspec

from authz_middleware.authorization import Authorization
from authz_middleware.decision import Decision, Reason
from authz_middleware.engine import versioned
from authz_middleware.errors import AnnotationError, NoRequestError
from authz_middleware.flow import Flow
from authz_middleware.identity.authenticator import Authenticator
from authz_middleware.identity.connection.credentials import Credentials
from authz_middleware.identity.principal import Principal
from authz_middleware.identity.problem import CredentialDetail
from authz_middleware.inquiry import Inquirer, Inquiry, Outcome
from authz_middleware.permission import Permission
from authz_middleware.question import Question
from authz_middleware.resource import Resource
from authz_middleware.settings.model import AppSettings

PUBLIC: Final = Decision(permit=True, reason=Reason.PUBLIC)
UNDECLARED: Final = Permission(action="route:undeclared")
EXPIRED: Final = Decision(permit=False, reason=Reason.CREDENTIAL_INVALID, detail=CredentialDetail.EXPIRED.value)
KEY_GONE: Final = Decision(permit=False, reason=Reason.CREDENTIAL_INVALID, detail=CredentialDetail.KEY_UNKNOWN.value)
NOT_DECLARED: Final = Decision(permit=False, reason=Reason.PERMISSION_MISSING)


class Pipeline:
    """The flows of one application. What goes wrong in one ends in a refusal."""

    def __init__(
        self, app: AppSettings, authenticator: Authenticator, inquirer: Inquirer, clock: Callable[[], float]
    ) -> None:
        self._app = app
        self._authenticator = authenticator
        self._inquirer = inquirer
        self._clock = clock

    def enforcing(self, authorization: Authorization, credentials: Credentials) -> Flow[Authorization]:
        """Decide on a request before its handler runs."""
        try:
            authorization.facts = self._authenticator.proxies.facts(authorization.facts, credentials)
            early = yield from self._identifying(authorization, credentials)
            if early is None:
                yield from self._deciding_all(authorization)
            else:
                yield from self._ending(authorization, early)
        except Exception as error:  # noqa: BLE001 - whatever it was, nothing was permitted
            self.refuse_failed(authorization, error)
        return authorization

    def reaffirming(self, authorization: Authorization) -> Flow[None]:
        """Decide again on what was let in and still goes on."""
        try:
            authorization.renew()
            snapshot, principal = authorization.snapshot, authorization.principal
            ended = None if principal is None else self.ended(principal, self._clock())
            if ended is None:
                yield from self._deciding_all(authorization)
                authorization.affirmed = snapshot
            else:
                yield from self._ending(authorization, ended)
        except Exception as error:  # noqa: BLE001 - whatever it was, nothing was permitted
            self.refuse_failed(authorization, error)

    def checking(self, authorization: Authorization, action: str, resource: object) -> Flow[Outcome]:
        """A question of the handler's own. Raises AnnotationError and NoRequestError for one that cannot be meant."""
        return (yield from self._inquirer.settle(authorization, self._asked(authorization, action, resource)))

    def checking_each(
        self, authorization: Authorization, action: str, resources: Sequence[object]
    ) -> Flow[list[Outcome]]:
        """The same question about each of several resources. Raises likewise, before any of them is decided."""
        inquiries = [self._asked(authorization, action, resource) for resource in resources]
        now = self._clock()
        for inquiry in inquiries:  # one moment for all: what differs in it cannot be asked about in one request
            if inquiry.question is not None:
                inquiry.question = msgspec.structs.replace(inquiry.question, now=now)
        return (yield from self._inquirer.settle_each(authorization, inquiries))

    def ended(self, principal: Principal, now: float) -> Decision | None:
        """The refusal of a token that was accepted some time ago, and would not be now."""
        if now >= principal.expires_at:
            return EXPIRED
        return None if self._authenticator.vouches_for(principal) else KEY_GONE

    def refuse(self, authorization: Authorization, decision: Decision) -> None:
        """Refuse what no question can be put about."""
        self._conclude(authorization, self._inquirer.refuse(authorization.facts, decision))

    def refuse_failed(self, authorization: Authorization, error: Exception) -> None:
        """Refuse what could not be decided."""
        self.refuse(authorization, self._inquirer.failed(error, authorization.facts))

    def _identifying(self, authorization: Authorization, credentials: Credentials) -> Flow[Decision | None]:
        """Establish who calls; a decision only where no permission is left to decide about."""
        if authorization.requirement.public is not None:
            return PUBLIC
        known = self._authenticator.authenticating(credentials, self._clock())
        if isinstance(known, Generator):
            known = yield from known
        if not isinstance(known, Principal):
            return Decision(permit=False, reason=known.reason, detail=known.detail)
        authorization.principal = known
        return None if authorization.requirement.permissions else NOT_DECLARED

    def _deciding_all(self, authorization: Authorization) -> Flow[None]:
        """Every question of the endpoint, up to the first that is refused."""
        for permission in authorization.requirement.permissions:
            inquiry = Inquiry(self._question(authorization, permission))
            self._conclude(authorization, (yield from self._inquirer.settle(authorization, inquiry)))
            if not authorization.decision.permit:
                break

    def _ending(self, authorization: Authorization, decision: Decision) -> Flow[None]:
        """Record what needs no question to be decided."""
        permissions = authorization.requirement.permissions
        asked = None
        if authorization.principal is not None:
            # Who asked for an endpoint that asks for nothing is known, and belongs into the record.
            asked = self._question(authorization, permissions[0] if permissions else UNDECLARED)
        action = permissions[0].action if permissions else None
        inquiry = Inquiry(asked, versioned(decision, authorization.snapshot), action=action)
        self._conclude(authorization, (yield from self._inquirer.record(authorization, inquiry)))

    def _asked(self, authorization: Authorization, action: str, resource: object) -> Inquiry:
        try:
            return Inquiry(authorization.question(action, resource))
        except (AnnotationError, NoRequestError):
            raise
        except Exception as error:  # noqa: BLE001 - the application's object; nothing was permitted about it
            return Inquiry(None, self._inquirer.failed(error, authorization.facts), action=action)

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
            environment=self._app.environment,
            now=self._clock(),
        )

    def _conclude(self, authorization: Authorization, outcome: Outcome) -> None:
        authorization.decision, answer = outcome
        authorization.degraded |= authorization.decision.degraded
        authorization.refusal = None if self._app.mode == "observe" else answer
