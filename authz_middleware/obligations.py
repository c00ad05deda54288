"""What an application has to do before it may act on a permit of the decision point, and who does it.

@authz.obligation("log-access")
def log_access(obligation, question): ...

A permit holds only once every one of its obligations has been carried out: an id that nobody registered, an exception,
or an answer other than None or True makes it a refusal. Those of a deny are not carried out; the record names them.

How long a handler takes is the application's affair: the decision point's deadline does not bound it, and a request
waits for as long as its handlers do.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any, Final, TypeVar

import msgspec

from authz_middleware.advice import ACCEPTED_ID, Obligation, is_obligation_id
from authz_middleware.alarm import Alarm
from authz_middleware.decision import Decision, Reason
from authz_middleware.errors import AuthzError, describe
from authz_middleware.question import Question

UNKNOWN: Final = "obligation.unknown"
FAILED: Final = "obligation.failed"

Handler = Callable[[Obligation, Question], Any]
H = TypeVar("H", bound=Handler)


class ObligationError(AuthzError):
    """A handler is registered twice, or under an id that no obligation can have."""


class Obligations:
    """The handlers of an application, by obligation id."""

    def __init__(self) -> None:
        self.handlers: dict[str, Handler] = {}
        self.unfulfilled: Final = Alarm("an obligation was not carried out, and its permit was refused: %r %s")

    def register(self, id_: str) -> Callable[[H], H]:
        """Register a handler: a function, sync or async, of the obligation and the question that was permitted. It
        answers None or True once the obligation has been carried out, and else raises or answers False.

        Raises ObligationError for an id that already has one, or is not 1 to 128 visible ASCII characters without
        quote and backslash.
        """
        if not is_obligation_id(id_):
            raise ObligationError(f"obligation id {id_!r} must be {ACCEPTED_ID}")

        def remember(handler: H) -> H:
            if id_ in self.handlers:
                raise ObligationError(f"obligation {id_!r} already has a handler: {self.handlers[id_]!r}")
            self.handlers[id_] = handler
            return handler

        return remember

    def due(self, decision: Decision, question: Question) -> Fulfilment | None:
        """What is to be done before this decision may be acted on, as a job; None where nothing is."""
        if decision.permit is not True or decision.advice is None or not decision.advice.obligations:
            return None
        return Fulfilment(self, decision, question)


class Fulfilment:
    """Carries out the obligations of one permit, in the order of the decision point. Answered by the decision itself,
    or by the refusal that takes its place. Raises nothing but what ends the request, such as its cancellation."""

    def __init__(self, registered: Obligations, decision: Decision, question: Question) -> None:
        self._alarm = registered.unfulfilled
        self._handlers = registered.handlers
        self._decision = decision
        self._question = question
        self._due = decision.advice.obligations if decision.advice else ()

    def perform(self) -> Decision:
        """Carry them out, blocking. A handler that is async fails: this application needs a plain function."""
        refused = self.unknown()
        if refused is not None:
            return refused
        for obligation in self._due:
            fault = self._fault(obligation)
            if fault is not None:
                return self._refused(obligation, FAILED, fault)
        return self._decision

    async def aperform(self) -> Decision:
        """`perform` on an event loop; a plain function runs in a worker thread, never on the loop."""
        refused = self.unknown()
        if refused is not None:
            return refused
        for obligation in self._due:
            fault = await self._afault(obligation)
            if fault is not None:
                return self._refused(obligation, FAILED, fault)
        return self._decision

    def unknown(self) -> Decision | None:
        """The refusal where a handler is missing. Nothing is carried out for a request that is refused anyway."""
        for obligation in self._due:
            if obligation.id not in self._handlers:
                return self._refused(obligation, UNKNOWN, "has no handler; register one with authz.obligation")
        return None

    def _fault(self, obligation: Obligation) -> str | None:
        """Why it was not carried out, or None when it was. Exceptions end here: some, such as StopIteration, cannot be
        carried from a thread to an event loop, and whoever waits for them there waits for ever."""
        try:
            return _fault_of(self._handlers[obligation.id](obligation, self._question))
        except Exception as error:  # noqa: BLE001 - whatever it was, the obligation is not known to be fulfilled
            return f"failed: {describe(error)}"

    async def _afault(self, obligation: Obligation) -> str | None:
        handler = self._handlers[obligation.id]
        if not _is_async(handler):
            return await asyncio.to_thread(self._fault, obligation)
        try:
            return _fault_of(await handler(obligation, self._question))
        except Exception as error:  # noqa: BLE001 - likewise
            return f"failed: {describe(error)}"

    def _refused(self, obligation: Obligation, detail: str, what: str) -> Decision:
        self._alarm.ring(obligation.id, what, kind=detail)
        return unfulfilled(self._decision, obligation.id, detail)


def unfulfilled(decision: Decision, id_: str, detail: str) -> Decision:
    """The refusal that a permit becomes when this obligation of it was not carried out. `detail` is a stable code."""
    return msgspec.structs.replace(
        decision, permit=False, reason=Reason.OBLIGATION_UNFULFILLED, detail=detail, unfulfilled=id_
    )


def _is_async(handler: Handler) -> bool:
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(type(handler).__call__)


def _fault_of(answer: object) -> str | None:
    if answer is None or answer is True:
        return None
    if inspect.iscoroutine(answer):
        answer.close()  # never awaited, and nobody should be warned of that as well
        return "has an async handler; this application needs a plain function, and no wrapper that hides one"
    return f"was not carried out: its handler answered {type(answer).__name__}, not None or True"
