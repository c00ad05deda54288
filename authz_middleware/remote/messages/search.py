"""What the decision point knows to be permitted (AuthZEN 1.0, section 8): subjects, resources or actions.

What is found is a hint of what to show, and never a decision: between the search and the action everything may have
changed, the decision point need not weigh all that it would weigh for a decision, and nothing local was asked at all.
Whatever is done with what was found is decided on as if nobody had searched.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Generic, TypeVar

import msgspec

from authz_middleware.permission import ACTION_NAME
from authz_middleware.question import Question
from authz_middleware.remote.failure import FailureKind, RemoteFailure
from authz_middleware.remote.messages.answer import parse_body
from authz_middleware.remote.messages.evaluation import evaluation_request
from authz_middleware.remote.messages.values import MessageError
from authz_middleware.remote.transport.protocol import RawAnswer
from authz_middleware.resource import Resource, is_clear_id
from authz_middleware.settings.remote.endpoints import Api

MAX_FOUND: Final = 10_000
PAGE: Final = 200
"""Results a page, so that one fits into a response as long as ids are not longer than usual."""
MAX_TOKEN: Final = 4096

# What tells of the caller's own situation, which says nothing of the other subjects that are looked for.
_OF_SURROUNDINGS: Final = ("time", "environment", "resource_as_of")
_ANY: Final = "any"

E = TypeVar("E")


class Subject(msgspec.Struct, frozen=True):
    """A subject that was found."""

    type: str
    id: str


class Found(msgspec.Struct, Generic[E], frozen=True):
    """What was found, each once, in the order of the decision point. A hint, never a decision."""

    entities: tuple[E, ...]
    is_complete: bool
    """Whether there is no more than this."""


class SearchQuery(msgspec.Struct, Generic[E], frozen=True, kw_only=True):
    """A search: `request` is sent to `api`, `read` makes of one result what it is here, or None of what is none.

    At most `limit` results are asked for. `deadline` is the whole time, in seconds, that all pages may take; None
    stands for that of the decision point.
    """

    api: Api
    request: Mapping[str, Any]
    read: Callable[[Mapping[str, Any]], E | None]
    limit: int = 1000
    deadline: float | None = None


class Page(msgspec.Struct, Generic[E], frozen=True):
    """One page of results, and the token of the next one; empty on the last."""

    entities: tuple[E, ...]
    next_token: str


def resource_search(
    question: Question, type_: str, *, limit: int = 1000, deadline: float | None = None
) -> SearchQuery[Resource]:
    """Which resources of this type the caller may do the question's action on. Its own resource plays no part.

    The attributes of what is found are not known: they are this application's to look up, and no hint's to tell.
    Raises MessageError as `evaluation_request` does, and for a limit that is not from 1 to 10,000.
    """
    request = evaluation_request(msgspec.structs.replace(question, resource=Resource(type_, _ANY)))
    return SearchQuery(
        api="search_resource",
        request={**request, "resource": {"type": type_}},
        read=lambda entity: Resource(type_, entity["id"]) if _is_entity(entity, type_) else None,
        limit=_checked(limit),
        deadline=deadline,
    )


def subject_search(
    question: Question, type_: str, *, limit: int = 1000, deadline: float | None = None
) -> SearchQuery[Subject]:
    """Which subjects of this type may do the question's action on its resource. The caller plays no part.

    Raises MessageError, likewise.
    """
    request = evaluation_request(question)
    if not is_clear_id(type_):
        raise MessageError("subject.type", "must be 1 to 1024 characters, none of them invisible or a control")
    context = {name: value for name, value in request["context"].items() if name in _OF_SURROUNDINGS}
    return SearchQuery(
        api="search_subject",
        request={**request, "subject": {"type": type_}, "context": context},
        read=lambda entity: Subject(type_, entity["id"]) if _is_entity(entity, type_) else None,
        limit=_checked(limit),
        deadline=deadline,
    )


def action_search(question: Question, *, limit: int = 1000, deadline: float | None = None) -> SearchQuery[str]:
    """Which actions the caller may do on the question's resource. Its own action plays no part.

    Raises MessageError, likewise.
    """
    request = evaluation_request(question)
    return SearchQuery(
        api="search_action",
        request={name: value for name, value in request.items() if name != "action"},
        read=_action,
        limit=_checked(limit),
        deadline=deadline,
    )


def search_body(query: SearchQuery[Any], token: str) -> bytes:
    """The request for the page of this token, or for the first. All the rest stays the same from page to page."""
    page: dict[str, Any] = {"limit": min(query.limit, PAGE)}
    if token:
        page["token"] = token
    return msgspec.json.encode({**query.request, "page": page})


def parse_page(raw: RawAnswer, request_id: str, query: SearchQuery[E]) -> Page[E] | RemoteFailure:
    """The page in a response. One result that is not what was searched for is a fault of all of them."""
    body = parse_body(raw, request_id)
    if isinstance(body, RemoteFailure):
        return body
    results, page = body.get("results"), body.get("page", {})
    if not isinstance(results, list):
        return RemoteFailure(FailureKind.MALFORMED, "search.results")
    entities = tuple(query.read(result) if isinstance(result, Mapping) else None for result in results)
    if None in entities:
        return RemoteFailure(FailureKind.MALFORMED, "search.entity")
    # An example of the specification has a page object without the token that its text requires.
    token = page.get("next_token", "") if isinstance(page, Mapping) else None
    if not isinstance(token, str) or len(token) > MAX_TOKEN:
        return RemoteFailure(FailureKind.MALFORMED, "search.page")
    return Page(entities, token)  # type: ignore[arg-type]  # none of them is None


def _is_entity(entity: Mapping[str, Any], type_: str) -> bool:
    id_ = entity.get("id")
    return entity.get("type") == type_ and isinstance(id_, str) and is_clear_id(id_)


def _action(entity: Mapping[str, Any]) -> str | None:
    name = entity.get("name")
    return name if isinstance(name, str) and ACTION_NAME.fullmatch(name) else None


def _checked(limit: int) -> int:
    if type(limit) is not int or not 1 <= limit <= MAX_FOUND:  # an exact type: true is an int in Python
        raise MessageError("limit", f"must be a whole number from 1 to {MAX_FOUND}")
    return limit
