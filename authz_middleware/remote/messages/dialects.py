"""Where a decision point looks for what a question says, and where it puts what it has to say beside its decision."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

import msgspec

from authz_middleware.remote.failure import RemoteFailure
from authz_middleware.remote.messages import cerbos
from authz_middleware.remote.messages.parts import Part


class Placement(msgspec.Struct, frozen=True):
    """One dialect.

    `check` raises MessageError for an object (see `object_part`) that cannot be said in it. `place` puts the members of
    a request, and its id, where the decision point looks. `read_context` makes the context of an answer one of the
    common form, given the request as it was before and the ids that the answer may be to. `batch_context` belongs at
    the top level of a batch.
    """

    check: Callable[[Part], None] | None = None
    place: Callable[[Part, str], Part] | None = None
    read_context: Callable[[Mapping[str, Any], Part, Collection[str]], Mapping[str, Any] | RemoteFailure] | None = None
    batch_context: Mapping[str, Any] = {}


PLACEMENTS: Final[Mapping[str, Placement]] = {
    "authzen": Placement(),
    "cerbos": Placement(cerbos.check, cerbos.place, cerbos.read_context, cerbos.BATCH_CONTEXT),
}
