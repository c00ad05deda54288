"""Which agent works on a transaction now (`agentic_ctx`, draft-araut-oauth-transaction-tokens-for-agents-02, 3.6).

There `act` names the agent that brought the transaction and never changes; who carries it on, and how many agents there
were, stands in this claim.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from authz_middleware.identity.claims.values import ABSENT, Path, lookup, text_at
from authz_middleware.identity.problem import CredentialDetail, TokenRefusedError


class AgentContext(msgspec.Struct, frozen=True):
    """The agent that acts now, the one that began, and the number of agents so far; None and 0 where it is not said."""

    current: str | None = None
    originator: str | None = None
    hops: int = 0

    def names(self, subject: str) -> bool:
        """Whether the subject is one of these agents itself: it acts for nobody else (section 3.2.2)."""
        return subject in (self.current, self.originator)


def read_agent_context(claims: Mapping[str, Any], places: tuple[Path, ...]) -> AgentContext | None:
    """The agent context of a token, or None where it has none. Raises TokenRefusedError for one that is not one."""
    value = lookup(claims, places)
    if value is ABSENT:
        return None
    chain = value.get("chain_metadata", {}) if isinstance(value, Mapping) else None
    if not isinstance(chain, Mapping):
        raise TokenRefusedError(CredentialDetail.CLAIM_TYPE)
    hops = chain.get("hop_count", 0)
    if type(hops) is not int or hops < 0:
        raise TokenRefusedError(CredentialDetail.CLAIM_TYPE)
    return AgentContext(
        current=text_at(value, (("current_actor",),)),
        originator=text_at(value, (("originator",),)),
        hops=hops,
    )
