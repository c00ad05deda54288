"""A sensitive question that is answered without asking the decision point, beside one that a rule alone decides.

All of it is `Engine.begin`, in µs: borders, rules, and for a sensitive action the breaker, and where answers are
remembered the question's key and the cache. Each call gets a question of its own, as each request does, of a principal
that is known already. The contestants take turns and the best round counts. Run it with `python -m benchmarks.unasked`.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from authz_middleware.decision import Decision, Source
from authz_middleware.engine import Attempt, Engine
from authz_middleware.pep import EnforcementPoint
from authz_middleware.policy.snapshot import Snapshot
from authz_middleware.question import Question
from authz_middleware.remote.failure import FailureKind, RemoteAnswer, RemoteFailure
from authz_middleware.resource import Resource
from authz_middleware.settings.remote.decision_point import BreakerSettings
from benchmarks.decision_point import READ, TOKEN, Round, best, facts, settings
from tests.support.tokens import bearer

ROUNDS, CALLS = 60, 1_000
TARGETS: Final = {"breaker_open_vs_local": 3.0, "cache_hit_us": 6.0}


def measure() -> dict[str, float]:
    """The figures, by the names under which they are published."""
    logging.getLogger("authz").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as name:
        seconds = best(rounds_of(Path(name)), ROUNDS)
    return {
        "local_begin_us": seconds["local"] * 1e6,
        "cache_hit_us": seconds["cache"] * 1e6,
        "breaker_open_us": seconds["open"] * 1e6,
        "breaker_open_after_cache_us": seconds["open_after_cache"] * 1e6,
        "breaker_open_vs_local": seconds["open"] / seconds["local"],
    }


def rounds_of(folder: Path) -> dict[str, Round]:
    nowhere = "http://127.0.0.1:9"
    forgetful = settings(folder, nowhere, breaker={"pause": "10m"})
    mindful = settings(folder, nowhere, breaker={"pause": "10m"}, permit_ttl="5m")
    point = EnforcementPoint(forgetful)
    point.start()
    authorization = point.enforce(facts(1), bearer(TOKEN), READ)
    local = authorization.question("invoice:read", "invoice/1")
    sensitive = authorization.question("invoice:export", "invoice/1")
    snapshot = point.policy.current
    point.close()
    assert snapshot is not None
    permit, outage = RemoteAnswer(True), RemoteFailure(FailureKind.CONNECT)
    knowing = told(Engine(mindful), sensitive, snapshot, permit)
    broken, broken_mindful = (told(Engine(each), sensitive, snapshot, outage) for each in (forgetful, mindful))
    return {
        "local": beginning(Engine(forgetful), local, snapshot, Source.LOCAL),
        "cache": beginning(knowing, sensitive, snapshot, Source.CACHE),
        "open": beginning(broken, sensitive, snapshot, Source.FALLBACK),
        "open_after_cache": beginning(broken_mindful, sensitive, snapshot, Source.FALLBACK),
    }


def told(engine: Engine, question: Question, snapshot: Snapshot, reply: RemoteAnswer | RemoteFailure) -> Engine:
    """The engine after this reply to this question, as often as it still asks."""
    for _ in range(BreakerSettings().failures):
        step = engine.begin(question, snapshot)
        if isinstance(step, Attempt):
            with step:
                step.answer(reply)
    return engine


def beginning(engine: Engine, question: Question, snapshot: Snapshot, source: Source) -> Round:
    """A round of questions that are equal and not the same, each a moment later than the one before."""

    def questions() -> Iterator[Question]:
        for number in range(CALLS):
            resource = Resource(question.resource.type, question.resource.id)
            yield msgspec.structs.replace(question, resource=resource, now=question.now + number / 1e6)

    def run() -> float:
        asked, begin = list(questions()), engine.begin
        start = time.perf_counter()
        for one in asked:
            begin(one, snapshot)
        return (time.perf_counter() - start) / CALLS

    decision = engine.begin(question, snapshot)
    assert isinstance(decision, Decision)
    assert decision.source is source
    assert decision.permit is (source is not Source.FALLBACK)
    return run


def main() -> None:
    for name, value in measure().items():
        bound = f"   target <= {TARGETS[name]:g}" if name in TARGETS else ""
        print(f"{name:38} {value:10.2f}{bound}")


if __name__ == "__main__":
    main()
