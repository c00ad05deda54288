"""One pipeline for both colours: a generator that yields whatever needs I/O, and two drivers that perform it.

    reply = yield Ask(query)

is a blocking call under `run` and an `await` under `arun`. An exception of the performed I/O, cancellation
included, is raised at the `yield`, so `with` and `finally` around it hold in both. (httpx drives its
authentication flows this way.)
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from typing import Any, Protocol, TypeVar

import msgspec

from authz_middleware.record.recorder import Receipt
from authz_middleware.remote.query import RemoteQuery
from authz_middleware.resource import Resource


class Load(msgspec.Struct, frozen=True):
    """Look up the attributes of a resource. Answered by the resource with attributes."""

    resource: Resource
    now: float


class Ask(msgspec.Struct, frozen=True):
    """Put a question to the decision point. Answered by a RemoteAnswer or a RemoteFailure."""

    query: RemoteQuery


class AskAll(msgspec.Struct, frozen=True):
    """Put several questions to the decision point. Answered by a list of as many replies, in order."""

    queries: tuple[RemoteQuery, ...]


class Await(msgspec.Struct, frozen=True):
    """Wait until a record is accepted or written. Answered by whether it was."""

    receipt: Receipt


class Job(Protocol):
    """Something that takes a while, in both colours."""

    def perform(self) -> object:
        """Do it, blocking."""
        ...

    async def aperform(self) -> object:
        """Do it on an event loop, without blocking that."""
        ...


class Work(msgspec.Struct, frozen=True):
    """Have a job done. Answered by what it answers."""

    job: Job


Effect = Load | Ask | AskAll | Await | Work
R = TypeVar("R")
Flow = Generator[Effect, Any, R]


def run(flow: Flow[R], perform: Callable[[Effect], object]) -> R:
    """Drive a flow where blocking is fine."""
    try:
        effect = next(flow)
        while True:
            try:
                result = perform(effect)
            except BaseException as error:  # noqa: BLE001 - it belongs to the flow, which raises it again
                effect = flow.throw(error)
            else:
                effect = flow.send(result)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]  # a generator's return value is untyped here
    finally:
        flow.close()


async def arun(flow: Flow[R], perform: Callable[[Effect], Awaitable[object]]) -> R:
    """Drive a flow on an event loop."""
    try:
        effect = next(flow)
        while True:
            try:
                result = await perform(effect)
            except BaseException as error:  # noqa: BLE001 - it belongs to the flow, which raises it again
                effect = flow.throw(error)
            else:
                effect = flow.send(result)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]  # a generator's return value is untyped here
    finally:
        flow.close()
