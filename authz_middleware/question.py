"""One question to decide: may this subject do this action on this resource, here and now?

The four parts are those of the OpenID AuthZEN Authorization API 1.0 (`subject`, `action`, `resource`,
`context`), and the same names serve annotations, policy conditions, PDP messages and records.
"""

from __future__ import annotations

import msgspec

from authz_middleware.facts import RequestFacts
from authz_middleware.identity.principal import Principal
from authz_middleware.permission import Permission
from authz_middleware.resource import Resource


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """A question, complete: nothing else is read to decide it. `now` is the one reading of the clock, in
    seconds since the epoch; `environment` is where this application runs, from the settings."""

    principal: Principal
    permission: Permission
    resource: Resource
    facts: RequestFacts
    environment: str
    now: float

    @property
    def action(self) -> str:
        """The name of the action, as the permission asks for it."""
        return self.permission.action
