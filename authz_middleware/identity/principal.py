"""Who acts, after verification. A `Principal` exists only once a credential has been verified."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec

from authz_middleware.identity.claims.status_reference import StatusReference

Kind = Literal["human", "workload", "agent"]
KINDS: Final = ("human", "workload", "agent")

NO_CLAIMS: Final[Mapping[str, Any]] = {}


class Actor(msgspec.Struct, frozen=True, gc=False):
    """One party that acts for another: an entry of the `act` chain (RFC 8693 section 4.1)."""

    id: str
    kind: Kind = "agent"
    issuer: str | None = None


class Principal(msgspec.Struct, frozen=True, kw_only=True, dict=True):  # a dict for what is derived from it
    """The verified caller.

    `subject` is unique within `issuer`, nowhere else. `actors` is the delegation chain, the party that makes
    this very call first; `dropped_actors` counts those beyond the configured depth. `subject_kind` is the kind of
    the subject, `kind` the kind of whoever really acts: a person's token in an agent's hands is an agent.
    None means that the token did not say; nothing is assumed. Times are seconds since the epoch.
    """

    issuer: str
    subject: str
    kind: Kind | None = None
    subject_kind: Kind | None = None
    actors: tuple[Actor, ...] = ()
    dropped_actors: int = 0
    client: str | None = None
    scopes: frozenset[str] = frozenset()
    roles: frozenset[str] = frozenset()
    tenant: str | None = None
    task: str | None = None
    purpose: str | None = None
    environment: str | None = None
    clearance: str | None = None
    audience: tuple[str, ...] = ()
    token_id: str | None = None
    transaction: str | None = None
    issued_at: float = 0.0
    expires_at: float = 0.0
    authenticated_at: float | None = None
    """When the person behind the token was last authenticated (`auth_time`, OpenID Connect Core section 2)."""
    acr: str | None = None
    """How (`acr`, authentication context class reference)."""
    status: StatusReference | None = None
    """Where the status of the token is to be looked up, with each decision anew."""
    key_id: str | None = None
    """The id of the key that the token was signed with; revocations may name it."""
    claims: Mapping[str, Any] = NO_CLAIMS
    """Further verified claims that the claim map names; policies read them as `subject.<name>`."""

    @property
    def is_accountable(self) -> bool:
        """Whether the token tells apart who used a shared identity: an actor or client that is not the subject itself,
        a token id, a transaction id, or the path of a SPIFFE ID (capability C21)."""
        return bool(
            any((actor.id, actor.issuer or self.issuer) != (self.subject, self.issuer) for actor in self.actors)
            or (self.client is not None and self.client != self.subject)
            or self.token_id
            or self.transaction
            or self._is_svid
        )

    @property
    def _is_svid(self) -> bool:
        # Only a trust domain vouches for the SPIFFE IDs below its own.
        return (self.issuer or "").startswith("spiffe://") and self.subject.startswith(f"{self.issuer}/")
