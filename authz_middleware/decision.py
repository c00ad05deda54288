"""The outcome of one question: permit or deny, why, by whose rule, and where the answer came from."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from authz_middleware.advice import Advice
from authz_middleware.step_up import StepUp


class Reason(StrEnum):
    """Why a decision came out as it did. The values are stable: they appear in records and in the docs."""

    # permits
    PERMITTED = "permitted"
    PUBLIC = "public"
    DEGRADED = "fallback.degraded"
    CACHED = "fallback.cached"
    # who calls is not established (401)
    CREDENTIAL_MISSING = "credential.missing"
    CREDENTIAL_INVALID = "credential.invalid"
    CREDENTIAL_REVOKED = "credential.revoked"
    AUTHENTICATION_INSUFFICIENT = "authentication.insufficient"
    # the caller is known and may not (403)
    PERMISSION_MISSING = "permission.missing"
    NO_RULE = "rule.none"
    RULE_DENY = "rule.deny"
    INPUT_MISSING = "input.missing"
    INPUT_STALE = "input.stale"
    ENVIRONMENT_MISMATCH = "environment.mismatch"
    TASK_MISMATCH = "task.mismatch"
    PURPOSE_MISMATCH = "purpose.mismatch"
    KIND_REFUSED = "kind.refused"
    ACTOR_REQUIRED = "actor.required"
    ACTOR_DEPTH = "actor.depth"
    RESOURCE_INVALID = "resource.invalid"
    REMOTE_DENY = "remote.deny"
    OBLIGATION_UNFULFILLED = "obligation.unfulfilled"
    UNDECIDED = "guard.undecided"
    # it could not be decided (503)
    KEYS_UNAVAILABLE = "keys.unavailable"
    ISSUER_UNAVAILABLE = "issuer.unavailable"
    REVOCATIONS_UNAVAILABLE = "revocations.unavailable"
    POLICY_UNAVAILABLE = "policy.unavailable"
    REMOTE_UNAVAILABLE = "remote.unavailable"
    RECORD_UNAVAILABLE = "record.unavailable"
    ERROR = "error"
    CANCELLED = "cancelled"


class Source(StrEnum):
    """Where the answer came from."""

    LOCAL = "local"
    REMOTE = "remote"
    CACHE = "cache"
    FALLBACK = "fallback"


class FallbackMode(StrEnum):
    """What was chosen, beforehand, for the case that the decision point does not answer."""

    DENY = "deny"
    DEGRADE = "degrade"
    CACHED = "cached"


class Fallback(msgspec.Struct, frozen=True, gc=False):
    """Which fallback produced a decision: what went wrong (`trigger`, a `FailureKind` value), the mode that
    was chosen for it, and for `cached` the age in seconds of the decision that was served again."""

    trigger: str
    mode: FallbackMode
    age_s: float | None = None


class Decision(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One decision.

    `permit` is the only field to act on. `rule`, `policy`, `owner`, `revision` and `serial` name the rule and
    the policy version that decided; they are empty where no rule did. `detail` is a stable code that refines
    `reason` for the record (which token check failed, say) and never reaches the client.
    """

    permit: bool
    reason: Reason
    source: Source = Source.LOCAL
    rule: str | None = None
    policy: str | None = None
    owner: str | None = None
    revision: str | None = None
    serial: int | None = None
    sensitive: bool = False
    degraded: bool = False
    fallback: Fallback | None = None
    missing_inputs: tuple[str, ...] = ()
    stale_inputs: tuple[str, ...] = ()
    helpful_scopes: tuple[str, ...] = ()
    """Scopes that, had the token carried them, would have made a permit rule apply (RFC 6750 `scope`), be it after the
    person behind it has authenticated anew."""
    step_up: StepUp | None = None
    """With AUTHENTICATION_INSUFFICIENT, how the person behind the token would have to authenticate (RFC 9470); None
    where no person is, or no authentication could suffice."""
    detail: str | None = None
    advice: Advice | None = None
    """What the decision point said beside its decision; None where it was not asked, or said nothing else."""
    unfulfilled: str | None = None
    """With OBLIGATION_UNFULFILLED, the id of the obligation that was not carried out."""
