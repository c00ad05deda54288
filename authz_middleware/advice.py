"""What a decision point says beside permit or deny: why, how to authenticate, and what a permit obliges us to.

AuthZEN 1.0 leaves the form of its answer context open (section 5.5.1 has examples); `remote.messages.advice` says which
form is read. None of it turns a deny into a permit. An obligation is part of its permit: see `obligations`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Final, TypeGuard

import msgspec

from authz_middleware.challenge import is_word
from authz_middleware.step_up import StepUp

MAX_ID: Final = 128
ACCEPTED_ID: Final = f"1 to {MAX_ID} visible ASCII characters without space, quote or backslash"

NO_ATTRIBUTES: Final[Mapping[str, Any]] = {}


class Obligation(msgspec.Struct, frozen=True):
    """Something the application has to do before it may act on a permit. `attributes` is whatever else the decision
    point says of it, as JSON."""

    id: str
    attributes: Mapping[str, Any] = NO_ATTRIBUTES

    def __repr__(self) -> str:
        return f"<Obligation {self.id!r}>"  # attributes may hold what nobody should read in a log


class Advice(msgspec.Struct, frozen=True):
    """The context of an answer.

    `reason_user` may be shown to the caller, `reason_admin` must not be. Both are one line of visible text of at most
    512 characters, as written by the decision point: plain text, to be escaped wherever it becomes part of a page.
    `step_up` is how the person behind the token should have authenticated.
    """

    reason_user: str | None = None
    reason_admin: str | None = None
    step_up: StepUp | None = None
    obligations: tuple[Obligation, ...] = ()

    def __repr__(self) -> str:
        return f"<Advice {[obligation.id for obligation in self.obligations]}>"  # likewise

    def copied(self) -> Advice:
        """The same, for one request. An answer is shared by all that ask the same, and what one of them does to the
        attributes of an obligation must not change the others'."""
        if not self.obligations:
            return self
        own = tuple(Obligation(each.id, copy.deepcopy(each.attributes)) for each in self.obligations)
        return msgspec.structs.replace(self, obligations=own)


NO_ADVICE: Final = Advice()


def is_obligation_id(value: object) -> TypeGuard[str]:
    """Whether this can be the id of an obligation: one that can stand in a record and in a log line as it is."""
    return isinstance(value, str) and len(value) <= MAX_ID and is_word(value)
