"""What a revocation check costs: with nothing, little and much revoked, in memory and in a file that workers share.

Everything is measured in one run, the contestants in turn, and the best of many repeats counts. Run it with
`python -m benchmarks.revocations`.
"""

from __future__ import annotations

import gc
import logging
import tempfile
import time
from pathlib import Path

from authz_middleware.identity.principal import Actor, Principal
from authz_middleware.revocation.entry import Revocation, Scope, new_revocation
from authz_middleware.revocation.guard import Revocations
from authz_middleware.revocation.memory import MemoryStore
from authz_middleware.revocation.sqlite import SqliteStore
from authz_middleware.settings.revocations import OnUnavailable, RevocationSettings, UnavailableSettings

NONE, FEW, MANY = 0, 10, 100_000
ISSUER = "https://issuer.example/"
ROUNDS, CALLS = 40, 1_000
SCOPES = tuple(scope for scope in Scope if scope not in (Scope.ISSUER, Scope.EVERYTHING))

TARGETS = {"revocations_file_100k_us": 10.0, "revocations_100k_vs_10": 1.3}


def measure() -> dict[str, float]:
    """The figures, by the names under which they are published."""
    logging.getLogger("authz").setLevel(logging.ERROR)  # that a new store was made is no news here
    with tempfile.TemporaryDirectory() as folder:
        guards = {f"memory_{count}": guard(MemoryStore(), count) for count in (NONE, FEW, MANY)}
        for count in (NONE, FEW, MANY):
            guards[f"file_{count}"] = guard(SqliteStore(Path(folder, f"{count}.db")), count)
        times = best_times(guards)
        news = news_us(guards[f"file_{MANY}"])
        for one in guards.values():
            one.close()
    return {
        "revocations_memory_0_us": times[f"memory_{NONE}"],
        "revocations_memory_10_us": times[f"memory_{FEW}"],
        "revocations_memory_100k_us": times[f"memory_{MANY}"],
        "revocations_file_0_us": times[f"file_{NONE}"],
        "revocations_file_10_us": times[f"file_{FEW}"],
        "revocations_file_100k_us": times[f"file_{MANY}"],
        "revocations_file_news_us": news,
        "revocations_100k_vs_10": times[f"memory_{MANY}"] / times[f"memory_{FEW}"],
    }


def guard(store: MemoryStore | SqliteStore, count: int) -> Revocations:
    """A started guard with so many revocations in its store, of every kind, none of which is the caller's."""
    revocations = Revocations(RevocationSettings(UnavailableSettings(OnUnavailable("deny"))), store)
    revocations.start()
    store.add([revocation(number) for number in range(count)])
    return revocations


def revocation(number: int) -> Revocation:
    scope = SCOPES[number % len(SCOPES)]
    why = {"reason": "benchmark", "owner": "benchmarks", "source": "benchmark"}
    return new_revocation(scope, issuer=ISSUER, value=f"value-{number}", now=time.time(), **why)


def caller() -> Principal:
    """A token with everything in it that a revocation can name."""
    now = time.time()
    return Principal(
        issuer=ISSUER,
        subject="alice",
        actors=(Actor("agent-7"),),
        client="web-shop",
        task="audit-42",
        transaction="txn-1",
        token_id="jti-1",
        key_id="key-1",
        issued_at=now - 10,
        expires_at=now + 290,
    )


def best_times(guards: dict[str, Revocations]) -> dict[str, float]:
    """The best time of a check in µs, of rounds in which every guard takes its turn."""
    principal, best = caller(), dict.fromkeys(guards, float("inf"))
    assert all(one.check(principal, "invoice:read", time.time()).refusal is None for one in guards.values())
    gc.disable()
    try:
        for _ in range(ROUNDS):
            for name, one in guards.items():
                best[name] = min(best[name], time_of(one, principal))
    finally:
        gc.enable()
    return best


def time_of(one: Revocations, principal: Principal) -> float:
    check, now = one.check, time.time()
    start = time.perf_counter()
    for _ in range(CALLS):
        check(principal, "invoice:read", now)
    return (time.perf_counter() - start) / CALLS * 1e6


def news_us(one: Revocations) -> float:
    """The time of the one check that finds what somebody else has just revoked, in µs; the best of a few."""
    best, principal = float("inf"), caller()
    for number in range(10):
        one.store.add([revocation(MANY + number)])
        start = time.perf_counter()
        one.check(principal, "invoice:read", time.time())
        best = min(best, (time.perf_counter() - start) * 1e6)
    return best


def main() -> None:
    for name, value in measure().items():
        target = f"   target <= {TARGETS[name]:g}" if name in TARGETS else ""
        print(f"{name:28} {value:9.3f}{target}")


if __name__ == "__main__":
    main()
