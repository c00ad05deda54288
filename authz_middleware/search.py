"""What the decision point knows to be permitted, for lists and menus: `request.authz.search` (AuthZEN 1.0, section 8).

What is found is a hint of what to show, and never a decision. It leaves no record; whatever is done with it is decided
on, and recorded, as if nobody had searched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from authz_middleware.errors import AuthzError, Problem, SettingsError
from authz_middleware.remote.failure import RemoteFailure
from authz_middleware.remote.messages.search import (
    Found,
    SearchQuery,
    Subject,
    action_search,
    resource_search,
    subject_search,
)
from authz_middleware.resource import Resource

if TYPE_CHECKING:
    from authz_middleware.question import Question

__all__ = ["Found", "Search", "SearchError", "Subject"]

ANY_ACTION: Final = "any"

E = TypeVar("E")
NOT_CONFIGURED: Final = Problem("remote", "is absent: without a decision point nothing can be searched for")


class SearchError(AuthzError):
    """The decision point did not answer a search. `failure` says why, in stable codes."""

    def __init__(self, failure: RemoteFailure) -> None:
        self.failure = failure
        super().__init__(f"the decision point did not answer a search: {failure.kind.value} {failure.detail}".rstrip())


class Seeker(Protocol):
    """What searches are put to: the decision point."""

    def search(self, query: SearchQuery[E]) -> Found[E] | RemoteFailure:
        """Search by blocking calls."""
        ...

    async def search_async(self, query: SearchQuery[E]) -> Found[E] | RemoteFailure:
        """Search on an event loop."""
        ...


class Asker(Protocol):
    """Whoever asks: an `Authorization`."""

    def question(self, action: str, resource: object = None) -> Question:
        """The question about this action and resource."""
        ...


class Search:
    """The searches of one caller. A method beginning with `a` is that of an asynchronous handler.

    `limit` bounds what is found (1 to 10,000); `Found.is_complete` says whether there is more. All raise NoRequestError
    on a public endpoint, SettingsError without a decision point, MessageError for what cannot be said, and SearchError
    where the decision point does not answer.
    """

    __slots__ = ("_asker", "_point")

    def __init__(self, asker: Asker, point: Seeker | None) -> None:
        self._asker = asker
        self._point = point

    def resources(self, action: str, type_: str, *, limit: int = 1000) -> Found[Resource]:
        """Which resources of a type the caller may do this action on."""
        return _found(self._seeker.search(self._resources(action, type_, limit)))

    async def aresources(self, action: str, type_: str, *, limit: int = 1000) -> Found[Resource]:
        """`resources` for an asynchronous handler."""
        return _found(await self._seeker.search_async(self._resources(action, type_, limit)))

    def actions(self, resource: object, *, limit: int = 1000) -> Found[str]:
        """Which actions the caller may do on a resource, given as for `authz.check`."""
        return _found(self._seeker.search(self._actions(resource, limit)))

    async def aactions(self, resource: object, *, limit: int = 1000) -> Found[str]:
        """`actions` for an asynchronous handler."""
        return _found(await self._seeker.search_async(self._actions(resource, limit)))

    def subjects(self, action: str, resource: object, type_: str, *, limit: int = 1000) -> Found[Subject]:
        """Which subjects of a type may do this action on a resource. The caller's own rights play no part: who may
        learn this is for a permission of yours to say."""
        return _found(self._seeker.search(self._subjects(action, resource, type_, limit)))

    async def asubjects(self, action: str, resource: object, type_: str, *, limit: int = 1000) -> Found[Subject]:
        """`subjects` for an asynchronous handler."""
        return _found(await self._seeker.search_async(self._subjects(action, resource, type_, limit)))

    @property
    def _seeker(self) -> Seeker:
        if self._point is None:
            raise SettingsError([NOT_CONFIGURED])
        return self._point

    def _resources(self, action: str, type_: str, limit: int) -> SearchQuery[Resource]:
        return resource_search(self._asker.question(action), type_, limit=limit)

    def _actions(self, resource: object, limit: int) -> SearchQuery[str]:
        return action_search(self._asker.question(ANY_ACTION, resource), limit=limit)

    def _subjects(self, action: str, resource: object, type_: str, limit: int) -> SearchQuery[Subject]:
        return subject_search(self._asker.question(action, resource), type_, limit=limit)


def _found(told: Found[E] | RemoteFailure) -> Found[E]:
    if isinstance(told, RemoteFailure):
        raise SearchError(told)
    return told
