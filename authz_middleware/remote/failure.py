"""What the decision point said, or why it said nothing. Both are values: a caller that forgets the second
case does not type-check, and no exception can be mistaken for an answer.

An *outage* is the decision point's absence: the fallback that was chosen for it beforehand may apply. A *fault*
is a mistake of configuration or protocol: something answered, but not as a decision point does. A fault
refuses, because whoever can cause one must not be able to choose the fallback; unless a person chose otherwise, and
then only where it is the other side's doing.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

import msgspec

from authz_middleware.advice import NO_ADVICE, Advice

if TYPE_CHECKING:
    from authz_middleware.settings.fallback import FallbackChoice

NO_CONTEXT: Final[Mapping[str, Any]] = {}


class FailureKind(StrEnum):
    """Why there is no answer. The values are stable: they are the `trigger` of a fallback in the record."""

    # outages
    CONNECT = "connect"
    DEADLINE = "deadline"
    CLOSED = "closed"
    STATUS_5XX = "status_5xx"
    THROTTLED = "throttled"
    BREAKER_OPEN = "breaker_open"
    # faults
    BUSY = "busy"
    """No connection of ours was free in time: whoever keeps them busy must not choose the fallback by it."""
    STATUS_4XX = "status_4xx"
    REDIRECT = "redirect"
    MALFORMED = "malformed"
    MISMATCHED = "mismatched"
    CONFIG = "config"
    UNASKABLE = "unaskable"
    INTERNAL = "internal"


# Named the safe way round: a kind that somebody adds and forgets here is a fault, and a fault refuses.
_OUTAGES: Final = frozenset(
    {
        FailureKind.CONNECT,
        FailureKind.DEADLINE,
        FailureKind.CLOSED,
        FailureKind.STATUS_5XX,
        FailureKind.THROTTLED,
        FailureKind.BREAKER_OPEN,
    }
)

_THEIR_FAULTS: Final = frozenset(
    {
        FailureKind.STATUS_4XX,
        FailureKind.REDIRECT,
        FailureKind.MALFORMED,
        FailureKind.MISMATCHED,
        FailureKind.CONFIG,
    }
)


class RemoteFailure(msgspec.Struct, frozen=True, gc=False):
    """No answer. `detail` is a stable code for the record (`body.duplicate_member`), never text from the wire
    or from a library's exception."""

    kind: FailureKind
    detail: str = ""
    is_news: bool = True
    """Whether it says something of the decision point that nobody has counted: not so for one that only waited for
    another's answer, or for a connection of ours."""

    @property
    def is_outage(self) -> bool:
        """Whether the decision point is away, and the chosen fallback may apply."""
        return self.kind in _OUTAGES

    def reaches(self, choice: FallbackChoice) -> bool:
        """Whether this fallback may apply. What a caller can bring about (that we are busy, that the question cannot be
        said) and errors of our own refuse whatever was chosen."""
        return self.is_outage or (choice.on_faults and self.kind in _THEIR_FAULTS)


class RemoteAnswer(msgspec.Struct, frozen=True):
    """A well-formed answer of the decision point itself. `permit` is exactly its `decision`; `context` is its
    answer context as parsed, which nothing here acts on, and `advice` what is acted on of it."""

    permit: bool
    context: Mapping[str, Any] = NO_CONTEXT
    advice: Advice = NO_ADVICE

    def __repr__(self) -> str:
        return f"<RemoteAnswer permit={self.permit} {self.advice!r}>"  # the context may hold what no log should
