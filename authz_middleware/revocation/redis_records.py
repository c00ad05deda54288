"""What a Redis server holds of revocations, and how it is changed: by optimistic transactions, each with a number.

Needs the extra `redis`. All keys share a hash tag, so that one transaction reaches them in a cluster too.
"""

from __future__ import annotations

import functools
import random
import ssl
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

import msgspec
from redis import Redis
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider
from redis.exceptions import OutOfMemoryError, WatchError
from redis.retry import Retry

from authz_middleware.errors import ProblemsError
from authz_middleware.revocation.entry import Revocation
from authz_middleware.revocation.index import KEPT_S
from authz_middleware.revocation.store import StoreUnavailableError, Trouble
from authz_middleware.settings.revocations import RedisSettings
from authz_middleware.settings.secret import Secret, SecretUnavailableError

CHUNK: Final = 500
"""Revocations written in one transaction, so that no message becomes large."""

_TRIES: Final = 50


class Change(msgspec.Struct, frozen=True):
    """One change: its number, the revocations that are there since, the ids of those that are not."""

    seq: int
    there: tuple[Revocation, ...] = ()
    withdrawn: tuple[str, ...] = ()


class Snapshot(msgspec.Struct, frozen=True):
    """All that there is at one moment: the last change, the revocations, and what was withdrawn lately."""

    seq: int
    there: tuple[Revocation, ...]
    withdrawn: frozenset[str]


_decode_entry: Final = msgspec.json.Decoder(Revocation).decode
_decode_change: Final = msgspec.json.Decoder(Change).decode


class Records:
    """The revocations on one server. `timeout` (seconds) bounds each exchange."""

    def __init__(self, settings: RedisSettings, *, timeout: float, clock: Callable[[], float] = time.time) -> None:
        self._client = connect(settings, timeout)
        self._clock = clock
        base = f"{{{settings.prefix}}}"
        self.channel = f"{base}:changes"
        self._seq, self._entries, self._ends, self._withdrawn = (
            f"{base}:{name}" for name in ("seq", "entries", "ends", "withdrawn")
        )

    def close(self) -> None:
        """Close every connection."""
        self._client.close()

    def listen(self) -> Any:
        """A connection of its own that hears of changes (a redis-py PubSub), subscribed to nothing yet."""
        return self._client.pubsub()  # type: ignore[no-untyped-call]  # the library's gap

    def snapshot(self) -> Snapshot:
        """Everything, as of one moment. Raises StoreUnavailableError and RedisError."""
        with self._client.pipeline(transaction=True) as pipe:
            pipe.get(self._seq)
            pipe.hgetall(self._entries)
            pipe.zrange(self._withdrawn, 0, -1)
            seq, entries, withdrawn = pipe.execute()
        return Snapshot(
            int(seq or 0),
            tuple(decode_entry(text) for text in entries.values()),
            frozenset(id_.decode() for id_ in withdrawn),
        )

    def extent(self) -> tuple[int, int]:
        """The number of the last change, and how many revocations there are, as of one moment. Raises RedisError, and
        ValueError where somebody else has written there."""
        with self._client.pipeline(transaction=True) as pipe:
            pipe.get(self._seq)
            pipe.hlen(self._entries)
            seq, count = pipe.execute()
        return int(seq or 0), count

    def add(self, entries: Iterable[Revocation]) -> int:
        """Add revocations; the number of the last change. Raises StoreUnavailableError and RedisError."""
        added, seq = tuple(entries), 0
        for start in range(0, len(added), CHUNK):
            seq, _ = self._change(functools.partial(self._adding, added[start : start + CHUNK]))
        return seq

    def withdraw(self, ids: Iterable[str]) -> tuple[int, int]:
        """Take revocations back: the number of the last change, and that of those that were there. Raises
        StoreUnavailableError and RedisError."""
        taken, seq, count = tuple(dict.fromkeys(ids)), 0, 0
        for start in range(0, len(taken), CHUNK):
            seq, change = self._change(functools.partial(self._withdrawing, taken[start : start + CHUNK]))
            count += len(change.withdrawn)
        return seq, count

    def _change(self, plan: Callable[[Any], Change]) -> tuple[int, Change]:
        """Watch the number of the last change, plan the next one by what is there, and write it if nobody else has.

        The number of the last change, and what was planned; with nothing to change nothing is written.
        """
        for attempt in range(_TRIES):
            pipe: Any  # the library types the methods of a pipeline for every way of using one at once
            with self._client.pipeline(transaction=True) as pipe:
                pipe.watch(self._seq)
                seq = int(pipe.get(self._seq) or 0)
                planned = plan(pipe)
                if not planned.there and not planned.withdrawn:
                    return seq, planned
                change = msgspec.structs.replace(planned, seq=seq + 1)
                now = self._clock()
                old = pipe.zrangebyscore(self._ends, "-inf", now - KEPT_S, start=0, num=CHUNK)
                pipe.multi()
                self._write(pipe, change, old, now)
                try:
                    pipe.execute()
                except WatchError:
                    time.sleep(random.uniform(0, 0.002 * attempt))  # noqa: S311 - to part company, not to be secret
                    continue
            return change.seq, change
        raise StoreUnavailableError(Trouble.LOCKED, "too many others write at the same time; try again")

    def _adding(self, entries: tuple[Revocation, ...], pipe: Any) -> Change:
        ids = [entry.id for entry in entries]
        known = dict(zip(ids, pipe.hmget(self._entries, ids), strict=True))
        kept: dict[str, Revocation] = {}
        for entry in entries:
            text = known[entry.id]
            other = kept.get(entry.id) or (None if text is None else decode_entry(text))
            stays = entry if other is None else entry.strengthened(other)
            if stays != other:
                kept[entry.id] = stays
        return Change(0, tuple(kept.values()))

    def _withdrawing(self, ids: tuple[str, ...], pipe: Any) -> Change:
        known = pipe.hmget(self._entries, ids)
        return Change(0, (), tuple(id_ for id_, text in zip(ids, known, strict=True) if text is not None))

    def _write(self, pipe: Any, change: Change, old: list[bytes], now: float) -> None:
        for entry in change.there:
            pipe.hset(self._entries, entry.id, msgspec.json.encode(entry))
            pipe.zadd(self._ends, {entry.id: entry.expires_at})
            pipe.zrem(self._withdrawn, entry.id)
        for id_ in change.withdrawn:
            pipe.hdel(self._entries, id_)
            pipe.zrem(self._ends, id_)
            pipe.zadd(self._withdrawn, {id_: now})
        for gone in set(old).difference(entry.id.encode() for entry in change.there):
            pipe.hdel(self._entries, gone)
            pipe.zrem(self._ends, gone)
        pipe.zremrangebyscore(self._withdrawn, "-inf", now - KEPT_S)
        pipe.set(self._seq, change.seq)
        pipe.publish(self.channel, msgspec.json.encode(change))


class _Credentials(CredentialProvider):
    """User name and password for each new connection; the secret is read anew, so that a rotated one is picked up."""

    def __init__(self, username: str | None, password: Secret) -> None:
        self._username = username
        self._password = password

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        """As AUTH takes them. Raises SecretUnavailableError."""
        password = self._password.reveal()
        return (password,) if self._username is None else (self._username, password)


def connect(settings: RedisSettings, timeout: float) -> Redis:
    """A client that tries everything once: whoever calls it knows better when to try again."""
    ca_file: Path | None = settings.ca_file
    return Redis(
        host=settings.host,
        port=settings.port,
        db=settings.database,
        credential_provider=None if settings.password is None else _Credentials(settings.username, settings.password),
        ssl=settings.tls,
        ssl_ca_certs=None if ca_file is None else str(ca_file),
        ssl_min_version=ssl.TLSVersion.TLSv1_2,
        socket_timeout=timeout,
        socket_connect_timeout=timeout,
        retry=Retry(NoBackoff(), 0),
        protocol=2,  # in which a subscribed connection answers PING in order with what is published
        driver_info=None,
    )


def decode_entry(text: bytes) -> Revocation:
    """A revocation as it was written. Raises StoreUnavailableError: one that cannot be read is not passed over."""
    try:
        return _decode_entry(text)
    except _UNREADABLE:
        raise StoreUnavailableError(Trouble.CORRUPT, "a revocation in it cannot be read") from None


def decode_change(text: bytes) -> Change:
    """A change as it was published. Raises StoreUnavailableError."""
    try:
        return _decode_change(text)
    except _UNREADABLE:
        raise StoreUnavailableError(Trouble.CORRUPT, "a change of it cannot be read") from None


_UNREADABLE: Final = (msgspec.MsgspecError, ProblemsError, TypeError, ValueError)


def explain(error: Exception) -> str:
    """What is wrong, in words that hold no credential: the library's own text may."""
    if isinstance(error, StoreUnavailableError | SecretUnavailableError):
        return str(error)
    return type(error).__name__


def trouble_of(error: Exception) -> Trouble:
    """What an exception of this module means."""
    if isinstance(error, StoreUnavailableError):
        return error.trouble
    return Trouble.FULL if isinstance(error, OutOfMemoryError) else Trouble.UNREACHABLE
