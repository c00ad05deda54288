"""The outer line: what may leave an application for one request.

Adapters decide where the handler is known, deep inside the framework. The ledger stands at the outermost point
they reach and compares what was decided with what is about to leave: a refusal that somebody turned into
something else is restored, and a response nobody decided about is replaced.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

from authz_middleware.answer import Answer
from authz_middleware.authorization import Authorization
from authz_middleware.facts import RequestFacts

if TYPE_CHECKING:
    from authz_middleware.pep import EnforcementPoint

DEGRADED_HEADER: Final = ("authz-degraded", "true")

_SLASH_REDIRECTS: Final = frozenset({301, 302, 307, 308})
_PREFLIGHT_HEADERS: Final = ("access-control-", "vary", "allow", "server-timing")


class Ledger:
    """What has been decided about one request so far.

    `taken` holds every authorization of the request, in order: a handler may dispatch to others. `routed` says that
    the router itself answers (405, automatic OPTIONS): no handler can run any more.
    """

    __slots__ = ("_pep", "routed", "taken")

    def __init__(self, pep: EnforcementPoint) -> None:
        self._pep = pep
        self.taken: list[Authorization] = []
        self.routed = False

    @property
    def refusal(self) -> Answer | None:
        """The first refusal of the request: a permit for something else does not undo it."""
        for authorization in self.taken:
            if authorization.refusal is not None:
                return authorization.refusal
        return None

    @property
    def degraded(self) -> bool:
        """Whether the response must say that it was permitted by a fallback's narrower rules."""
        return self._pep.settings.fallback.degraded_header and any(each.degraded for each in self.taken)

    def replacement(self, outgoing: Outgoing, facts: Callable[[], RequestFacts]) -> Answer | None:
        """What must leave instead of this response, or None when it may leave as it is. Never raises.

        `facts` is called only where a decision has to be recorded that nobody made.
        """
        if self.taken:
            refusal = self.refusal
            return None if refusal is None or refusal.status == outgoing.status else refusal
        outgoing.headers = tuple(outgoing.headers)  # read more than once from here on
        if outgoing.is_the_routers_own(self.routed):
            return None
        if outgoing.is_preflight:
            return outgoing.bare_preflight()
        self.taken.append(self._pep.refuse_undecided(facts()))
        return self.refusal


class Outgoing:
    """A response about to leave, and as much of its request as tells whether a router made it."""

    __slots__ = ("headers", "method", "origin", "path", "requested_method", "status")

    def __init__(
        self,
        *,
        status: int,
        headers: Iterable[tuple[str, str]],
        method: str,
        path: str,
        origin: str | None,
        requested_method: str | None,
    ) -> None:
        self.status = status
        self.headers = headers
        self.method = method
        self.path = path
        self.origin = origin
        self.requested_method = requested_method

    def is_the_routers_own(self, routed: bool) -> bool:
        """Whether it is what a router answers without running anything: 404, 405, the redirect to the same path
        with or without its last slash, or whatever it answers once it has said that it will."""
        if routed or self.status in (404, 405):
            return True
        if self.status not in _SLASH_REDIRECTS:
            return False
        target = next((value for name, value in self.headers if name.lower() == "location"), "")
        path = unquote(urlsplit(target).path)
        return path != self.path and path.rstrip("/") == self.path.rstrip("/")

    @property
    def is_preflight(self) -> bool:
        """Whether the request is a CORS preflight (Fetch standard, section 4.8): it never reaches a handler."""
        return self.method == "OPTIONS" and self.origin is not None and self.requested_method is not None

    def bare_preflight(self) -> Answer:
        """The preflight's answer without a body, so that nothing else can leave under its name."""
        kept = tuple((name, value) for name, value in self.headers if name.lower().startswith(_PREFLIGHT_HEADERS))
        return Answer(self.status, kept, b"")
