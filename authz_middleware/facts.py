"""What a request shows of itself, in words that no framework owns.

Facts are read from the transport and from the route the framework has already chosen. None of them is a
claim about who calls: credentials are handed to `identity` separately, so that facts can be logged whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

import msgspec

NO_PARAMS: Final[Mapping[str, str]] = {}


class RequestFacts(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The facts of one request.

    `route` is the template the framework matched (`/invoices/{invoice_id}`) or, where a framework has none,
    the endpoint's name; `endpoint` is the dotted name of the handler (`billing.views:export`). Neither is
    parsed to decide anything. `path_params` are the values the router resolved, as text. `client` is the
    address of the peer that opened the connection, or of whom a configured proxy speaks for.
    """

    method: str
    route: str
    endpoint: str
    path_params: Mapping[str, str] = NO_PARAMS
    protocol: Literal["http", "websocket"] = "http"
    client: str | None = None
    tls: bool = False
    traceparent: str | None = None
    """The W3C `traceparent` header as received, or None; records take the trace id from it."""
