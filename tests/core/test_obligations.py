"""Obligations of a permit: every one of them is carried out, in either colour, or there is no permit."""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from blockbuster import blockbuster_ctx

from authz_middleware.advice import Advice, Obligation
from authz_middleware.decision import Decision, Reason, Source
from authz_middleware.flow import Flow, Work, arun, run
from authz_middleware.obligations import FAILED, UNKNOWN, ObligationError, Obligations
from authz_middleware.question import Question
from tests.support.alice import asks

pytestmark = [pytest.mark.capability("C29"), pytest.mark.promise("P3")]

QUESTION = asks("invoice:pay")


def permit(*ids: str, **attributes: Any) -> Decision:
    obligations = tuple(Obligation(id_, attributes) for id_ in ids)
    return Decision(
        permit=True, reason=Reason.PERMITTED, source=Source.REMOTE, rule="pay", advice=Advice(obligations=obligations)
    )


def fulfilling(obligations: Obligations, decision: Decision) -> Flow[Decision]:
    due = obligations.due(decision, QUESTION)
    assert due is not None
    return (yield Work(due))


def fulfil(obligations: Obligations, decision: Decision) -> Decision:
    return run(fulfilling(obligations, decision), lambda effect: effect.job.perform())  # type: ignore[union-attr]


def fulfil_on_a_loop(obligations: Obligations, decision: Decision) -> Decision:
    return asyncio.run(arun(fulfilling(obligations, decision), lambda effect: effect.job.aperform()))  # type: ignore[union-attr]


BOTH = pytest.mark.parametrize("colour", [fulfil, fulfil_on_a_loop], ids=["sync", "async"])
Colour = Callable[[Obligations, Decision], Decision]


@pytest.fixture
def obligations() -> Obligations:
    return Obligations()


@BOTH
@pytest.mark.parametrize("answer", [None, True])
def test_a_permit_stands_once_all_is_done_in_the_order_told(
    obligations: Obligations, colour: Colour, answer: object
) -> None:
    done: list[tuple[str, Any, Question]] = []

    @obligations.register("log")
    @obligations.register("notify")
    def handle(obligation: Obligation, question: Question) -> Any:
        done.append((obligation.id, obligation.attributes, question))
        return answer

    decision = permit("notify", "log", "notify", level=1)
    assert colour(obligations, decision) is decision
    assert done == [(id_, {"level": 1}, QUESTION) for id_ in ("notify", "log", "notify")]


def test_an_async_handler_runs_on_its_loop(obligations: Obligations) -> None:
    ran: list[threading.Thread] = []

    @obligations.register("log")
    async def handle(obligation: Obligation, question: Question) -> bool:
        await asyncio.sleep(0)
        ran.append(threading.current_thread())
        return True

    decision = permit("log")
    assert fulfil_on_a_loop(obligations, decision) is decision
    assert ran == [threading.main_thread()]


@pytest.mark.promise("P9")
def test_a_plain_handler_never_blocks_the_loop(obligations: Obligations) -> None:
    ran: list[threading.Thread] = []

    @obligations.register("log")
    def handle(obligation: Obligation, question: Question) -> None:
        time.sleep(0.01)  # blockbuster raises on a loop
        ran.append(threading.current_thread())

    async def fulfilled() -> Decision:
        with blockbuster_ctx():
            return await arun(fulfilling(obligations, permit("log")), lambda effect: effect.job.aperform())  # type: ignore[union-attr]

    assert asyncio.run(fulfilled()).permit
    assert ran != [threading.main_thread()]


def raises(error: BaseException) -> Callable[..., Any]:
    def handle(obligation: Obligation, question: Question) -> None:
        raise error

    return handle


def araises(error: BaseException) -> Callable[..., Any]:
    async def handle(obligation: Obligation, question: Question) -> None:
        raise error

    return handle


def answers(value: object) -> Callable[..., Any]:
    return lambda obligation, question: value


def aanswers(value: object) -> Callable[..., Any]:
    async def handle(obligation: Obligation, question: Question) -> object:
        return value

    return handle


def generator(obligation: Obligation, question: Question) -> Iterator[None]:
    yield None


async def async_generator(obligation: Obligation, question: Question) -> Any:
    yield None


def hides_a_coroutine(obligation: Obligation, question: Question) -> Any:
    return aanswers(True)(obligation, question)


ERRORS: list[BaseException] = [
    ValueError("hush"),
    StopIteration(),
    StopAsyncIteration(),
    TimeoutError(),
    concurrent.futures.CancelledError(),
    AssertionError(),
    ExceptionGroup("several", [KeyError("hush")]),
    RecursionError(),
]
FAILING: dict[str, Callable[..., Any]] = {
    **{f"raises {type(error).__name__}": raises(error) for error in ERRORS},
    **{f"answers {value!r}": answers(value) for value in (False, 0, 1, "True", [], {}, "", NotImplemented)},
    "wants no arguments": lambda: None,
    "wants another": lambda obligation, question, more: None,
    "generator": generator,
    "async generator": async_generator,
    "hides a coroutine": hides_a_coroutine,
}
AFAILING: dict[str, Callable[..., Any]] = {
    **{f"raises {type(error).__name__}": araises(error) for error in ERRORS},
    **{f"answers {value!r}": aanswers(value) for value in (False, 0, 1, "True", [])},
}


def is_refused(decision: Decision, detail: str, id_: str) -> bool:
    return (
        decision.permit is False
        and decision.reason is Reason.OBLIGATION_UNFULFILLED
        and decision.detail == detail
        and decision.unfulfilled == id_
        and decision.source is Source.REMOTE
        and decision.rule == "pay"
    )


@BOTH
@pytest.mark.parametrize("name", FAILING)
def test_whatever_a_handler_does_instead_is_a_refusal(obligations: Obligations, colour: Colour, name: str) -> None:
    obligations.register("log")(FAILING[name])
    assert is_refused(colour(obligations, permit("log")), FAILED, "log")


@pytest.mark.parametrize("name", AFAILING)
def test_whatever_an_async_handler_does_instead_is_a_refusal(obligations: Obligations, name: str) -> None:
    obligations.register("log")(AFAILING[name])
    assert is_refused(fulfil_on_a_loop(obligations, permit("log")), FAILED, "log")


class Handling:
    async def __call__(self, obligation: Obligation, question: Question) -> None:
        await asyncio.sleep(0)

    async def method(self, obligation: Obligation, question: Question) -> None:
        await asyncio.sleep(0)


async def with_more(more: int, obligation: Obligation, question: Question) -> None:
    await asyncio.sleep(0)


ASYNC: dict[str, Callable[..., Any]] = {
    "function": aanswers(None),
    "method": Handling().method,
    "object": Handling(),
    "partial": functools.partial(with_more, 1),
}


@pytest.mark.parametrize("name", ASYNC)
def test_an_async_handler_of_any_make_is_awaited_on_a_loop_and_refused_without_one(
    obligations: Obligations, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    obligations.register("log")(ASYNC[name])
    assert fulfil_on_a_loop(obligations, permit("log")).permit
    assert is_refused(fulfil(obligations, permit("log")), FAILED, "log")
    assert "async handler" in caplog.text


@BOTH
def test_an_obligation_that_nobody_knows_is_a_refusal_before_anything_is_done(
    obligations: Obligations, colour: Colour
) -> None:
    done: list[str] = []
    obligations.register("log")(lambda obligation, question: done.append(obligation.id))
    assert is_refused(colour(obligations, permit("log", "Log", "log")), UNKNOWN, "Log")
    assert done == []


@BOTH
def test_after_the_first_that_fails_no_other_is_done(obligations: Obligations, colour: Colour) -> None:
    done: list[str] = []
    obligations.register("log")(lambda obligation, question: done.append(obligation.id))
    obligations.register("fail")(raises(ValueError()))
    assert is_refused(colour(obligations, permit("log", "fail", "log")), FAILED, "fail")
    assert done == ["log"]


@pytest.mark.promise("P6")
@BOTH
def test_the_alarm_names_the_obligation_and_no_text_of_the_exception(
    obligations: Obligations, colour: Colour, caplog: pytest.LogCaptureFixture
) -> None:
    obligations.register("log")(raises(ValueError("hush")))
    for _ in range(3):
        colour(obligations, permit("log"))
        colour(obligations, permit("unheard-of"))
    failed, unknown = [record.getMessage() for record in caplog.records]
    assert "'log' failed: ValueError at " in failed
    assert "'unheard-of' has no handler; register one with authz.obligation" in unknown
    assert "hush" not in caplog.text


def test_nothing_is_due_of_a_refusal_or_where_nothing_is_obliged(obligations: Obligations) -> None:
    refused = Decision(permit=False, reason=Reason.REMOTE_DENY, advice=permit("log").advice)
    plain = Decision(permit=True, reason=Reason.PERMITTED)
    advised = Decision(permit=True, reason=Reason.PERMITTED, advice=Advice("welcome"))
    assert [obligations.due(decision, QUESTION) for decision in (refused, plain, advised)] == [None, None, None]


def test_a_request_that_is_cancelled_while_a_handler_runs_is_cancelled(obligations: Obligations) -> None:
    begun = asyncio.Event()

    @obligations.register("log")
    async def handle(obligation: Obligation, question: Question) -> None:
        begun.set()
        await asyncio.Event().wait()

    async def cancelled() -> None:
        job = obligations.due(permit("log"), QUESTION)
        assert job is not None
        task = asyncio.create_task(job.aperform())
        await begun.wait()
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(cancelled())


def test_an_obligation_has_one_handler(obligations: Obligations) -> None:
    handler = answers(None)
    assert obligations.register("log")(handler) is handler
    with pytest.raises(ObligationError, match="obligation 'log' already has a handler"):
        obligations.register("log")(answers(True))
    assert obligations.handlers == {"log": handler}


@pytest.mark.parametrize("id_", ["", "a b", "a" * 129, 'a"', "ä", "a\n", None, 7])
def test_an_id_that_no_obligation_can_have_is_refused_where_it_is_written(obligations: Obligations, id_: Any) -> None:
    with pytest.raises(ObligationError, match="must be 1 to 128 visible ASCII characters"):
        obligations.register(id_)
