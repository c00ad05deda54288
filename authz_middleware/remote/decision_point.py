"""The remote decision point (PDP): puts questions over a transport and judges what comes back.

No answer is a value; nothing but cancellation leaves these methods as an exception.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from authz_middleware.alarm import Alarm
from authz_middleware.errors import describe
from authz_middleware.forking import renew_in_children
from authz_middleware.remote.batching import put_all
from authz_middleware.remote.discovery import endpoints_of
from authz_middleware.remote.exchange import Conversation, Exchange, Request
from authz_middleware.remote.failure import FailureKind, RemoteFailure
from authz_middleware.remote.flights import AsyncFlights, Flights, Reply
from authz_middleware.remote.messages.answer import parse_answer
from authz_middleware.remote.messages.search import Found, SearchQuery
from authz_middleware.remote.probe import Probe, told_to_each
from authz_middleware.remote.query import RemoteQuery
from authz_middleware.remote.searching import search_pages
from authz_middleware.remote.transport.protocol import AsyncTransport, Transport
from authz_middleware.settings.remote.decision_point import RemoteSettings

CLIENT_FAILED: Final = RemoteFailure(FailureKind.INTERNAL, "client")

E = TypeVar("E")
R = TypeVar("R")


class DecisionPoint:
    """One decision point. Without given transports, those of `remote.transport` carry the questions.

    Raises SettingsError when the certificates to trust cannot be read.
    """

    def __init__(
        self,
        settings: RemoteSettings,
        *,
        transport: Transport | None = None,
        async_transport: AsyncTransport | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = settings.url
        self._deadline = settings.deadline
        self._max_batch = settings.endpoints.max_batch
        self._monotonic = monotonic
        self._endpoints = endpoints_of(settings, monotonic=monotonic)
        self._exchange = Exchange(settings, transport=transport, async_transport=async_transport, monotonic=monotonic)
        self._probe = self._probe_of(settings)
        self._faults = Alarm("a question to the decision point %s ended in a fault: %s %s", monotonic=monotonic)
        self.renew_after_fork()
        renew_in_children(self)

    def start(self) -> None:
        """Look up where the decision point's APIs are, where that has to be looked up, and probe it. Blocks.

        Raises SettingsError where it does not answer the probe as it must.
        """
        self._endpoints.start()
        if self._probe is not None:
            self._probe.start(self._end(2 * self._deadline))  # two questions

    def ask(self, query: RemoteQuery) -> Reply:
        """Put a question by blocking calls; the answer is there, or is not, within the deadline."""
        try:
            end = self._end(query.deadline)
            return self._told(self._flights.join(query.key, end, functools.partial(self._ask, query, end)))
        except Exception as error:  # noqa: BLE001 - a transport may raise anything; none of it is an answer
            return self._failed(error)

    async def ask_async(self, query: RemoteQuery) -> Reply:
        """`ask` for an event loop."""
        try:
            end = self._end(query.deadline)
            join = self._async_flights.join(query.key, end, functools.partial(self._ask_async, query, end))
            return self._told(await join)
        except Exception as error:  # noqa: BLE001 - likewise
            return self._failed(error)

    def ask_all(self, queries: Sequence[RemoteQuery]) -> list[Reply]:
        """Put several questions together by blocking calls: as many replies as questions, in order, each with a status
        of its own. All of it is over within the shortest of their deadlines."""
        if len(queries) == 1:
            return [self.ask(queries[0])]
        try:
            end = self._end_of_all(queries)
            unproven = None if self._probe is None else self._probe.ensure(end)
            if unproven is not None:
                return self._told_each(told_to_each(unproven, len(queries)))
            return self._told_each(self._exchange.hold(self._batches(queries), end))
        except Exception as error:  # noqa: BLE001 - likewise
            return [self._failed(error)] * len(queries)

    async def ask_all_async(self, queries: Sequence[RemoteQuery]) -> list[Reply]:
        """`ask_all` for an event loop."""
        if len(queries) == 1:
            return [await self.ask_async(queries[0])]
        try:
            end = self._end_of_all(queries)
            unproven = None if self._probe is None else await self._probe.ensure_async(end)
            if unproven is not None:
                return self._told_each(told_to_each(unproven, len(queries)))
            return self._told_each(await self._exchange.hold_async(self._batches(queries), end))
        except Exception as error:  # noqa: BLE001 - likewise
            return [self._failed(error)] * len(queries)

    def search(self, query: SearchQuery[E]) -> Found[E] | RemoteFailure:
        """Look for what is permitted, by blocking calls and within one deadline. A hint of what to show and never a
        decision: whatever is done with it is decided on all the same."""
        try:
            return self._told(self._exchange.hold(search_pages(query, self._endpoints), self._end(query.deadline)))
        except Exception as error:  # noqa: BLE001 - likewise
            return self._failed(error)

    async def search_async(self, query: SearchQuery[E]) -> Found[E] | RemoteFailure:
        """`search` for an event loop."""
        try:
            end = self._end(query.deadline)
            return self._told(await self._exchange.hold_async(search_pages(query, self._endpoints), end))
        except Exception as error:  # noqa: BLE001 - likewise
            return self._failed(error)

    def close(self) -> None:
        """Close the connections of blocking code."""
        self._endpoints.close()
        self._exchange.close()

    async def aclose(self) -> None:
        """Close the connections of the running event loop."""
        await self._exchange.aclose()

    def renew_after_fork(self) -> None:
        """Follow no question that only the parent waits for."""
        self._flights = Flights(self._monotonic)
        self._async_flights = AsyncFlights(self._monotonic)

    def _probe_of(self, settings: RemoteSettings) -> Probe | None:
        if settings.probe is None:
            return None
        return Probe(settings.probe, self._exchange, self._endpoints, url=settings.url, monotonic=self._monotonic)

    def _ask(self, query: RemoteQuery, end: float) -> Reply:
        unproven = None if self._probe is None else self._probe.ensure(end)
        if unproven is not None:
            return unproven
        url = self._endpoints.url("evaluation")
        if isinstance(url, RemoteFailure):
            return url
        raw = self._exchange.post(Request(url, query.body, query.request_id), end)
        return raw if isinstance(raw, RemoteFailure) else parse_answer(raw, query.request_id, query.read_context)

    async def _ask_async(self, query: RemoteQuery, end: float) -> Reply:
        unproven = None if self._probe is None else await self._probe.ensure_async(end)
        if unproven is not None:
            return unproven
        url = self._endpoints.url("evaluation")
        if isinstance(url, RemoteFailure):
            return url
        raw = await self._exchange.post_async(Request(url, query.body, query.request_id), end)
        return raw if isinstance(raw, RemoteFailure) else parse_answer(raw, query.request_id, query.read_context)

    def _batches(self, queries: Sequence[RemoteQuery]) -> Conversation[list[Reply]]:
        return put_all(queries, self._endpoints, self._max_batch)

    def _end(self, deadline: float | None) -> float:
        return self._monotonic() + (deadline or self._deadline)

    def _end_of_all(self, queries: Sequence[RemoteQuery]) -> float:
        return min((self._end(query.deadline) for query in queries), default=0.0)

    def _told(self, reply: R) -> R:
        """The reply; a fault rings, because somebody has to mend something."""
        if isinstance(reply, RemoteFailure) and not reply.is_outage:
            self._faults.ring(self._url, reply.kind.value, reply.detail, kind=reply.kind.value)
        return reply

    def _failed(self, error: Exception) -> RemoteFailure:
        self._faults.ring(self._url, FailureKind.INTERNAL.value, describe(error), kind=FailureKind.INTERNAL.value)
        return CLIENT_FAILED

    def _told_each(self, replies: list[Reply]) -> list[Reply]:
        return [self._told(reply) for reply in replies]
