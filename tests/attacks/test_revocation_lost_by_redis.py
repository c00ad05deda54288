"""A Redis server that loses revocations without a word: nobody who starts later may believe that there are none."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import redis

from authz_middleware.revocation.redis import RedisStore
from tests.support.redis_server import RedisServer
from tests.support.revocations import NOW, subject

LAG: Final = 1.0
SOON_S: Final = 3 * LAG
PREFIX: Final = "{authz:revocations}"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path) as server:
        yield server


@pytest.fixture
def open_store(server: RedisServer) -> Iterator[Callable[[], RedisStore]]:
    """Makes started stores, each as another host would."""
    stores: list[RedisStore] = []

    def make() -> RedisStore:
        store = RedisStore(server.settings(), max_lag=LAG, clock=lambda: NOW)
        stores.append(store)
        store.start()
        return store

    yield make
    for store in stores:
        store.close()


def _known(store: RedisStore) -> list[str | None]:
    index = store.reading(NOW).index
    return [] if index is None else [entry.value for entry in index.entries.values()]


def _put_back(server: RedisServer) -> bool:
    with server.client() as client:
        deadline = time.monotonic() + SOON_S
        while not client.hlen(f"{PREFIX}:entries"):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
    return True


def _flush(client: redis.Redis) -> None:
    client.flushall()


def _evict(client: redis.Redis) -> None:
    client.delete(f"{PREFIX}:entries")


def _evict_all(client: redis.Redis) -> None:
    client.delete(*(f"{PREFIX}:{name}" for name in ("entries", "ends", "seq")))


@pytest.mark.capability("C51")
@pytest.mark.promise("P5")
@pytest.mark.parametrize("lose", [_flush, _evict, _evict_all])
def test_what_a_server_loses_in_silence_is_there_again_before_the_next_change(
    open_store: Callable[[], RedisStore], server: RedisServer, lose: Callable[[Any], None]
) -> None:
    store = open_store()
    store.add([subject("mallory")])
    with server.client() as client:
        lose(client)
    assert _put_back(server)
    assert _known(open_store()) == ["mallory"]


@pytest.mark.promise("P5")
def test_a_number_of_changes_that_went_back_is_no_reason_to_miss_the_next_one(
    open_store: Callable[[], RedisStore], server: RedisServer
) -> None:
    store, other = open_store(), open_store()
    store.add([subject("mallory")])
    with server.client() as client:
        client.set(f"{PREFIX}:seq", 0)
    time.sleep(LAG)
    other.add([subject("bob")])
    deadline = time.monotonic() + SOON_S
    while _known(store) != ["mallory", "bob"] and time.monotonic() < deadline:
        time.sleep(0.02)
    assert _known(store) == ["mallory", "bob"]
    assert store.reading(NOW).trouble is None
