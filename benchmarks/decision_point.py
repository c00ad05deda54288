"""What it takes to ask the decision point through the enforcement point, beside a client that only posts.

The raw clients are `http.client` on a kept-alive connection a caller, and one aiohttp session; they send the same body
and headers, parse the answer as JSON and look whether it permits. The enforcement point does what it always does:
the token (remembered), borders and rules, the question, breaker, flights and deadline, a strict answer, and a record;
a round is long enough for its records to be written meanwhile, at its cost. No answer is ever shared: each question is
about another invoice.

The decision point permits everything, in a process of its own. The contestants take turns and the best round counts.
Run it with `python -m benchmarks.decision_point`.
"""

from __future__ import annotations

import asyncio
import gc
import http.client
import itertools
import json
import logging
import tempfile
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp

from authz_middleware import Settings, requires
from authz_middleware.decision import Source
from authz_middleware.facts import RequestFacts
from authz_middleware.pep import EnforcementPoint
from authz_middleware.permission import Requirement, annotations_of
from authz_middleware.remote.query import RemoteQuery
from benchmarks.permitting_server import permitting_server
from tests.support.tokens import Issuer, bearer

PATH: Final = "/access/v1/evaluation"
MANY: Final = 50
ROUNDS, CALLS_ALONE, CALLS_OF_EACH = 12, 600, 12
TARGETS: Final = {
    f"remote_{colour}_{callers}_throughput_vs_raw": 0.85 for colour in ("sync", "async") for callers in (1, MANY)
}

ISSUER = Issuer()
TOKEN: Final = ISSUER.mint(env="production", kind="human", tenant="acme")

Round = Callable[[], float]


def measure() -> dict[str, float]:
    """Questions a second, of one caller and of fifty, and what that is of the raw client's."""
    logging.getLogger("authz").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as name, permitting_server() as url:
        point = EnforcementPoint(settings(Path(name), url))
        point.start()
        threads, tasks = Threads(point, url), Tasks(point, url)
        try:
            seconds = best({**threads.rounds(), **tasks.rounds()}, ROUNDS, between=point.recorder.flush)
        finally:
            tasks.close()
            threads.close()
            point.close()
    figures: dict[str, float] = {}
    for contest in (f"{colour}_{callers}" for colour in ("sync", "async") for callers in (1, MANY)):
        raw, ours = seconds[f"{contest}_raw"], seconds[f"{contest}_ours"]
        figures[f"remote_{contest}_per_s"] = 1 / ours
        figures[f"remote_{contest}_raw_per_s"] = 1 / raw
        figures[f"remote_{contest}_throughput_vs_raw"] = raw / ours
    return figures


def settings(folder: Path, url: str, **remote: Any) -> Settings:
    """One rule, an action that is sensitive and one that is not."""
    policy = folder / "bench.yaml"
    policy.write_text(
        "policy: bench\nowner: bench@example.com\nrules:\n"
        "  - {rule: read, permit: ['invoice:read', 'invoice:export'], when: {subject.scopes: {has: invoices.read}}}\n"
    )
    return Settings.from_mapping(
        {
            "app": {"name": "bench", "environment": "production", "sensitive": ["invoice:export"]},
            "issuers": [
                {"issuer": ISSUER.url, "audience": [ISSUER.audience], "jwks": ISSUER.jwks(), "algorithms": ["ES256"]}
            ],
            "policy": {"source": str(policy), "allow_unsigned": True},
            "remote": {"url": url, "deadline": "5s", **remote},
            "fallback": {"default": "deny"},
            "decision_log": {"sink": f"file:{folder / 'decisions.jsonl'}", "queue": 1_000_000},
        }
    )


@requires("invoice:export", resource="invoice/{invoice_id}")
def export() -> None: ...


@requires("invoice:read", resource="invoice/{invoice_id}")
def read() -> None: ...


EXPORT: Final = Requirement.of(annotations_of(export))
READ: Final = Requirement.of(annotations_of(read))


def facts(invoice: int) -> RequestFacts:
    route, params = "/invoices/{invoice_id}", {"invoice_id": str(invoice)}
    return RequestFacts(method="GET", route=route, endpoint="bench:export", path_params=params)


class Contest:
    """The enforcement point and its raw rival, in one colour."""

    def __init__(self, point: EnforcementPoint, url: str) -> None:
        self.point = point
        self.url = url
        self.credentials = bearer(TOKEN)
        self._invoices = itertools.count(1_000_000)
        authorization = point.enforce(self.next_facts(), self.credentials, EXPORT)
        assert authorization.decision.source is Source.REMOTE
        snapshot = point.policy.current
        assert snapshot is not None
        self.body = RemoteQuery.of(authorization.question("invoice:export", "invoice/1000000"), snapshot.revision).body
        self.headers = {
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "Content-Type": "application/json",
            "User-Agent": "raw",
            "X-Request-ID": "0123456789abcdef0123456789abcdef",
        }

    def next_facts(self) -> RequestFacts:
        return facts(next(self._invoices))


class Threads(Contest):
    """Blocking calls: by one thread, and by fifty at a time."""

    def __init__(self, point: EnforcementPoint, url: str) -> None:
        super().__init__(point, url)
        self._pool = ThreadPoolExecutor(MANY)
        address = urlsplit(url)
        self._connections = [http.client.HTTPConnection(address.hostname or "", address.port) for _ in range(MANY)]

    def rounds(self) -> dict[str, Round]:
        return {
            "sync_1_raw": lambda: self.alone(self.raw),
            "sync_1_ours": lambda: self.alone(self.ours),
            f"sync_{MANY}_raw": lambda: self.together(self.raw),
            f"sync_{MANY}_ours": lambda: self.together(self.ours),
        }

    def ours(self, _: int) -> None:
        authorization = self.point.enforce(self.next_facts(), self.credentials, EXPORT)
        assert authorization.decision.source is Source.REMOTE

    def raw(self, caller: int) -> None:
        connection = self._connections[caller]
        connection.request("POST", PATH, self.body, self.headers)
        assert json.loads(connection.getresponse().read())["decision"] is True

    def alone(self, call: Callable[[int], None]) -> float:
        start = time.perf_counter()
        for _ in range(CALLS_ALONE):
            call(0)
        return (time.perf_counter() - start) / CALLS_ALONE

    def together(self, call: Callable[[int], None]) -> float:
        def caller(number: int) -> None:
            for _ in range(CALLS_OF_EACH):
                call(number)

        start = time.perf_counter()
        list(self._pool.map(caller, range(MANY)))
        return (time.perf_counter() - start) / (MANY * CALLS_OF_EACH)

    def close(self) -> None:
        self._pool.shutdown()
        for connection in self._connections:
            connection.close()


class Tasks(Contest):
    """An event loop: with one task, and with fifty at a time."""

    def __init__(self, point: EnforcementPoint, url: str) -> None:
        super().__init__(point, url)
        self._loop = asyncio.new_event_loop()
        self._session = self._loop.run_until_complete(self._open())

    async def _open(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=64))

    def rounds(self) -> dict[str, Round]:
        return {
            "async_1_raw": lambda: self.run(self.raw, 1, CALLS_ALONE),
            "async_1_ours": lambda: self.run(self.ours, 1, CALLS_ALONE),
            f"async_{MANY}_raw": lambda: self.run(self.raw, MANY, CALLS_OF_EACH),
            f"async_{MANY}_ours": lambda: self.run(self.ours, MANY, CALLS_OF_EACH),
        }

    async def ours(self) -> None:
        authorization = await self.point.aenforce(self.next_facts(), self.credentials, EXPORT)
        assert authorization.decision.source is Source.REMOTE

    async def raw(self) -> None:
        async with self._session.post(self.url + PATH, data=self.body, headers=self.headers) as response:
            assert json.loads(await response.read())["decision"] is True

    def run(self, call: Callable[[], Awaitable[None]], callers: int, calls: int) -> float:
        async def caller() -> None:
            for _ in range(calls):
                await call()

        async def together() -> float:
            start = time.perf_counter()
            await asyncio.gather(*(caller() for _ in range(callers)))
            return (time.perf_counter() - start) / (callers * calls)

        return self._loop.run_until_complete(together())

    def close(self) -> None:
        self._loop.run_until_complete(self._session.close())
        self._loop.run_until_complete(self.point.aclose())
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()


def best(rounds: dict[str, Round], times: int, between: Callable[[], object] = bool) -> dict[str, float]:
    """The best round of each, of rounds in which every contestant takes its turn. `between` is what nobody pays for."""
    for run in rounds.values():
        run()
    shortest = dict.fromkeys(rounds, float("inf"))
    gc.collect()
    gc.disable()
    try:
        for _ in range(times):
            for name, run in rounds.items():
                between()
                shortest[name] = min(shortest[name], run())
    finally:
        gc.enable()
    return shortest


def main() -> None:
    for name, value in measure().items():
        print(f"{name:38} {value:10.2f}{'   target >= 0.85' if name in TARGETS else ''}")


if __name__ == "__main__":
    main()
