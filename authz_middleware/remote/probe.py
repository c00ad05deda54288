"""Finds out whether the decision point weighs what it is told: two requests whose answers are known beforehand.

Until both have been answered as they must, no answer of the decision point is believed. A wrong answer is a mistake
that somebody has to mend; no answer is an outage, after which the next question tries again.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable
from typing import Final, Literal
from uuid import uuid4

import msgspec

from authz_middleware.alarm import Alarm
from authz_middleware.errors import Problem, SettingsError
from authz_middleware.forking import renew_in_children
from authz_middleware.remote.endpoints import Endpoints
from authz_middleware.remote.exchange import Conversation, Exchange, Request
from authz_middleware.remote.failure import FailureKind, RemoteAnswer, RemoteFailure
from authz_middleware.remote.flights import AsyncFlights, Flights, Reply
from authz_middleware.remote.messages.answer import parse_answer
from authz_middleware.settings.remote.probe import ProbeSettings

logger = logging.getLogger("authz")

RETRY_S: Final = 60.0
"""Between a wrong answer and the next try: it takes a person to mend what makes it wrong."""

Outcome = Literal["permit", "deny"]
OUTCOMES: Final[tuple[Outcome, ...]] = ("permit", "deny")

_KEY: Final = ("probe",)
_PASSED: Final = RemoteAnswer(permit=True)
_OURS: Final = frozenset({FailureKind.BUSY, FailureKind.UNASKABLE, FailureKind.INTERNAL})
_WRONG: Final[dict[Outcome, str]] = {
    "permit": "was denied and must be permitted: the policy there does not know the probe, or the decision point "
    "ignores what it is permitted by; this differs in the two probes",
    "deny": "was permitted and must be denied: the decision point probably ignores what differs in the two probes",
}
_ADVICE: Final = "see to it that its policy is loaded and reads them where remote.dialect puts them"


class Probe:
    """The two requests to one decision point. `monotonic` gives seconds, and an `end` is a reading of it."""

    def __init__(
        self,
        settings: ProbeSettings,
        exchange: Exchange,
        endpoints: Endpoints,
        *,
        url: str,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._exchange = exchange
        self._endpoints = endpoints
        self._url = url
        self._monotonic = monotonic
        self._open: tuple[Outcome, ...] = OUTCOMES
        self._asked_at: str | None = None
        """Where what is not open any more was answered. Metadata may name another place later, and who is there has
        shown nothing yet."""
        self._wrong: RemoteFailure | None = None
        self._wrong_until = float("-inf")
        self._alarm = Alarm("a probe of the decision point %s failed: remote.probe.%s %s", monotonic=monotonic)
        self.renew_after_fork()
        renew_in_children(self)

    def start(self, end: float) -> None:
        """Ask, blocking, before the application takes requests.

        Raises SettingsError for a wrong answer, and where something answers that is no decision point. One that is
        away does not keep the application from starting.
        """
        try:
            reply = self._exchange.hold(self._putting(), end)
        except Exception:  # noqa: BLE001 - a transport may raise anything; none of it is an answer
            reply = RemoteFailure(FailureKind.INTERNAL, "client")
        if not isinstance(reply, RemoteFailure):
            return
        if reply is self._wrong:
            raise SettingsError([Problem(f"remote.{reply.detail}", self._explained(reply))])
        if not reply.is_outage and reply.kind not in _OURS:
            what = f"what answers at {self._url} does not answer as a decision point does: {reply.kind} {reply.detail}"
            raise SettingsError([Problem("remote.probe", what)])
        logger.warning(
            "the decision point %s did not answer its probe (%s %s); nothing is permitted by it until it has",
            self._url,
            reply.kind.value,
            reply.detail,
        )

    def ensure(self, end: float) -> RemoteFailure | None:
        """None when the decision point may be believed, else why not; found out, blocking, where it is not known."""
        if self._is_proven:
            return None
        reply = self._flights.join(_KEY, end, functools.partial(self._ask, end))
        return reply if isinstance(reply, RemoteFailure) else None

    async def ensure_async(self, end: float) -> RemoteFailure | None:
        """`ensure` for an event loop."""
        if self._is_proven:
            return None
        reply = await self._async_flights.join(_KEY, end, functools.partial(self._ask_async, end))
        return reply if isinstance(reply, RemoteFailure) else None

    def renew_after_fork(self) -> None:
        """Follow no probe that only the parent waits for."""
        self._flights = Flights(self._monotonic)
        self._async_flights = AsyncFlights(self._monotonic)

    @property
    def _is_proven(self) -> bool:
        return not self._open and self._endpoints.url("evaluation") == self._asked_at

    def _ask(self, end: float) -> Reply:
        return self._known() or self._rung(self._exchange.hold(self._putting(), end))

    async def _ask_async(self, end: float) -> Reply:
        return self._known() or self._rung(await self._exchange.hold_async(self._putting(), end))

    def _known(self) -> RemoteFailure | None:
        """What need not be asked: it went wrong just now, perhaps while this question waited."""
        if self._wrong is None or self._monotonic() >= self._wrong_until:
            return None
        return msgspec.structs.replace(self._wrong, is_news=False)

    def _putting(self) -> Conversation[Reply]:
        """Put what is still open. What was answered well once need not be asked again: a slow decision point may have
        time for one of them only."""
        url = self._endpoints.url("evaluation")
        if isinstance(url, RemoteFailure):
            return url
        if url != self._asked_at:
            self._open, self._asked_at = OUTCOMES, url
        for outcome in self._open:
            reply = yield from self._exchanging(outcome, url)
            if isinstance(reply, RemoteFailure):
                return reply
            if reply.permit is not (outcome == "permit"):
                return self._fail(outcome)
            if url == self._asked_at:
                self._open = tuple(each for each in self._open if each != outcome)
        return _PASSED

    def _exchanging(self, outcome: Outcome, url: str) -> Conversation[Reply]:
        body = self._settings.permit if outcome == "permit" else self._settings.deny
        request = Request(url, body, uuid4().hex)
        raw = yield request
        return raw if isinstance(raw, RemoteFailure) else parse_answer(raw, request.request_id)

    def _fail(self, outcome: Outcome) -> RemoteFailure:
        self._open = OUTCOMES
        self._wrong = RemoteFailure(FailureKind.CONFIG, f"probe.{outcome}")
        self._wrong_until = self._monotonic() + RETRY_S
        return self._wrong

    def _rung(self, reply: Reply) -> Reply:
        if reply is self._wrong and isinstance(reply, RemoteFailure):
            self._alarm.ring(self._url, reply.detail.removeprefix("probe."), self._explained(reply), kind=reply.detail)
        return reply

    def _explained(self, wrong: RemoteFailure) -> str:
        text = _WRONG["permit" if wrong.detail == "probe.permit" else "deny"]
        return f"{text}: {', '.join(self._settings.differences)}; {_ADVICE}"


def told_to_each(failure: RemoteFailure, count: int) -> list[Reply]:
    """The same failure to each of several questions that were put together: it is news once."""
    again = msgspec.structs.replace(failure, is_news=False)
    return [again if number else failure for number in range(count)]
