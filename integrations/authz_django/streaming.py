"""A response that is made while it leaves: a check that is refused midway ends it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

from django.http import StreamingHttpResponse

from authz_middleware.errors import AuthzError
from authz_middleware.ledger import Ledger


class RefusedMidwayError(AuthzError):
    """Ends a response that has begun, where nothing else can take it back."""


def watch(response: StreamingHttpResponse, ledger: Ledger) -> None:
    """Let no further piece of the response leave once a check of its request has been refused. The server then breaks
    the connection, so that the client sees that the response is not whole."""
    before = ledger.refusal
    content: Any = response.streaming_content
    if response.is_async:
        response.streaming_content = _awatched(content, ledger, before)
    else:
        response.streaming_content = _watched(content, ledger, before)


def _watched(content: Iterator[bytes], ledger: Ledger, before: object) -> Iterator[bytes]:
    for piece in content:
        _stop_if_refused(ledger, before)
        yield piece


async def _awatched(content: AsyncIterator[bytes], ledger: Ledger, before: object) -> AsyncIterator[bytes]:
    async for piece in content:
        _stop_if_refused(ledger, before)
        yield piece


def _stop_if_refused(ledger: Ledger, before: object) -> None:
    if ledger.refusal is not before:
        raise RefusedMidwayError("a check was refused after the response had begun")
