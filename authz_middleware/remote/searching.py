"""Asks the decision point for what is permitted, page after page."""

from __future__ import annotations

from itertools import islice
from typing import Final, TypeVar
from uuid import uuid4

from authz_middleware.remote.endpoints import Endpoints
from authz_middleware.remote.exchange import Conversation, Request
from authz_middleware.remote.failure import FailureKind, RemoteFailure
from authz_middleware.remote.messages.search import Found, SearchQuery, parse_page, search_body

MAX_PAGES: Final = 100

E = TypeVar("E")


def search_pages(query: SearchQuery[E], endpoints: Endpoints) -> Conversation[Found[E] | RemoteFailure]:
    """All that is found, up to the limit of the query. A failure on any page is the failure of the search."""
    url = endpoints.url(query.api)
    if isinstance(url, RemoteFailure):
        return url
    found: dict[E, None] = {}
    tokens = {""}
    token = ""
    for _ in range(MAX_PAGES):
        request = Request(url, search_body(query, token), uuid4().hex)
        raw = yield request
        page = raw if isinstance(raw, RemoteFailure) else parse_page(raw, request.request_id, query)
        if isinstance(page, RemoteFailure):
            return page
        found.update(dict.fromkeys(page.entities))
        token = page.next_token
        if not token or len(found) >= query.limit:
            return Found(tuple(islice(found, query.limit)), is_complete=not token and len(found) <= query.limit)
        if token in tokens:
            return RemoteFailure(FailureKind.MALFORMED, "search.token_repeated")
        tokens.add(token)
    return RemoteFailure(FailureKind.MALFORMED, "search.too_many_pages")
