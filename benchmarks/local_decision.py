"""The local decision against a hand-written check, and its growth with the number of rules.

Everything is measured in one run, the contestants in turn, and the best of many repeats counts: what the ratios show
is the code, not the machine's other work. Run it with `python benchmarks/local_decision.py`.
"""

from __future__ import annotations

import gc
import random
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable

from authz_middleware.facts import RequestFacts
from authz_middleware.identity.principal import Principal
from authz_middleware.permission import Permission
from authz_middleware.policy.compiler import compile_policy
from authz_middleware.policy.memory import give_back
from authz_middleware.policy.model import AllOf, Equals, Has, Match, Policy, Rule
from authz_middleware.policy.snapshot import Snapshot
from authz_middleware.policy.store import SnapshotStore
from authz_middleware.question import Question
from authz_middleware.resource import Resource

FEW, MANY = 10, 100_000
ROUNDS, CALLS, QUESTIONS, TRIES = 60, 2_000, 10, 3
SCOPE, TENANT = "invoices.read", "acme"

Check = Callable[[Question], object]


def measure() -> dict[str, float]:
    """The figures, by the names under which they are published."""
    few, many = compile_policy(policy_of(FEW)), compile_policy(policy_of(MANY))
    floor = hand_written(FEW)
    times = best_times(
        {
            "floor": (floor, questions_for(FEW)),
            "few": (few.evaluate, questions_for(FEW)),
            "many": (many.evaluate, questions_for(MANY)),
        }
    )
    return {
        "local_decision_us": times["few"],
        "floor_us": times["floor"],
        "local_decision_vs_floor": times["few"] / times["floor"],
        "rules_100k_vs_10": times["many"] / times["few"],
        "bytes_per_rule_100k": bytes_per_rule(MANY),
    }


def policy_of(count: int) -> Policy:
    """A policy of `count` rules, each for an action of its own, all under equal conditions."""

    def condition() -> AllOf:
        return AllOf((Match("subject.scopes", Has(SCOPE)), Match("subject.tenant", Equals(TENANT))))

    rules = tuple(Rule(f"rule-{i}", "permit", (f"item-{i}:read",), condition()) for i in range(count))
    return Policy(name="benchmark", owner="benchmarks", rules=rules)


def hand_written(count: int) -> Check:
    """What one would write by hand for the same rules: a dictionary of closures that answer true or false.

    It makes no Decision, takes no missing claim into account and has neither deny rules nor patterns.
    """

    def may_read(scope: str, tenant: str) -> Callable[[Question], bool]:
        def check(question: Question) -> bool:
            return scope in question.principal.scopes and question.principal.tenant == tenant

        return check

    rules = {f"item-{i}:read": may_read(SCOPE, TENANT) for i in range(count)}

    def decide(question: Question) -> bool:
        check = rules.get(question.permission.action)
        return check is not None and check(question)

    return decide


def questions_for(count: int) -> list[Question]:
    """As many questions for each number of rules, about actions drawn from all of them; each is permitted."""
    principal = Principal(issuer="i", subject="s", scopes=frozenset({SCOPE, "other"}), tenant=TENANT)
    facts = RequestFacts(method="GET", route="/items/{id}", endpoint="benchmark:item")
    return [
        Question(
            principal=principal,
            permission=Permission(action=f"item-{i}:read"),
            resource=Resource("item", str(i)),
            facts=facts,
            environment="production",
            now=1_772_452_800.0,
        )
        for i in random.Random(1).sample(range(count), QUESTIONS)
    ]


def best_times(contestants: dict[str, tuple[Check, list[Question]]]) -> dict[str, float]:
    """The best time of a call in µs, of rounds in which every contestant takes its turn."""
    best = dict.fromkeys(contestants, float("inf"))
    for check, questions in contestants.values():
        assert all(getattr(check(question), "permit", True) is True for question in questions)
    gc.disable()
    try:
        for _ in range(ROUNDS):
            for name, (check, questions) in contestants.items():
                best[name] = min(best[name], time_of(check, questions))
    finally:
        gc.enable()
    return best


def time_of(check: Check, questions: list[Question]) -> float:
    rounds = range(CALLS // len(questions))
    start = time.perf_counter()
    for _ in rounds:
        for question in questions:
            check(question)
    return (time.perf_counter() - start) / (len(rounds) * len(questions)) * 1e6


def bytes_per_rule(count: int) -> float:
    """What a snapshot keeps in memory for each rule: names, actions and all, after the policy itself is gone."""
    compile_policy(policy_of(FEW))
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    snapshot = compile_policy(policy_of(count))
    gc.collect()
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert isinstance(snapshot, Snapshot)
    return (after - before) / count


def activation_stall(count: int) -> float:
    """The longest time (ms) that a request has to wait while a policy of `count` rules is compiled in another thread,
    put in force, and replaced again. The best of several tries: what the machine adds is not the policy's.

    The interpreter's switch interval (5 ms) is part of what a waiting thread sees; it is lowered to see past it.
    """
    interval = sys.getswitchinterval()
    sys.setswitchinterval(0.0005)
    try:
        return min(longest_wait(lambda: activate_and_replace(count)) for _ in range(TRIES))
    finally:
        sys.setswitchinterval(interval)


def activate_and_replace(count: int) -> None:
    store, policy = SnapshotStore(), policy_of(count)
    store.activate(compile_policy(policy))
    rules = [*policy.rules]
    del policy
    give_back(rules)
    store.activate(compile_policy(policy_of(FEW)))


def longest_wait(work: Callable[[], None]) -> float:
    """The longest time (ms) for which this thread got no turn while another one did its work."""
    worker = threading.Thread(target=work)
    longest = 0.0
    worker.start()
    while worker.is_alive():
        start = time.perf_counter()
        time.sleep(0)
        longest = max(longest, (time.perf_counter() - start) * 1e3)
    worker.join()
    return longest


def main() -> None:
    targets = {"local_decision_vs_floor": 3.0, "rules_100k_vs_10": 1.3, "bytes_per_rule_100k": 250.0}
    for name, value in measure().items():
        target = f"   target <= {targets[name]:g}" if name in targets else ""
        print(f"{name:26} {value:9.3f}{target}")
    print(f"{'activation_stall_ms':26} {activation_stall(MANY):9.3f}   target <= 10")


if __name__ == "__main__":
    main()
