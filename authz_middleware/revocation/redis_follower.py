"""Keeps a replica up to date with a Redis server, from a thread of its own.

It subscribes to the changes, then takes a snapshot, then applies change after change; one whose number does not follow
starts it all over. Over the subscribed connection it also sends PINGs: whatever was published before the server
answers one has arrived before the answer does. So the replica is complete as of the moment that an answered PING was
sent at, and a server that has stopped, or a line that is dead, shows in its age.

With each answer it also looks whether the server still has what is known here. One that was flushed or short of memory
loses it without a word, and whoever starts then would believe that nothing is revoked.

Needs the extra `redis`.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Any, Final

from authz_middleware.revocation.redis_records import Records, decode_change, explain
from authz_middleware.revocation.redis_replica import Moment, Replica
from authz_middleware.revocation.store import StoreUnavailableError, Trouble

logger = logging.getLogger("authz")

FIRST_PAUSE_S: Final = 0.05
LAST_PAUSE_S: Final = 1.0


class Follower:
    """Follows until it is stopped, whatever happens. `beat` is the time between two PINGs, `patience` that for which an
    answer may be awaited; both in seconds."""

    def __init__(self, records: Records, replica: Replica, *, beat: float, patience: float) -> None:
        self._records = records
        self._replica = replica
        self._beat = beat
        self._patience = patience
        self._stopping = threading.Event()
        self._said: str | None = None
        self._thread = threading.Thread(target=self._run, name="authz-revocations", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, and wait for that."""
        self._stopping.set()
        self._thread.join(self._beat + 2 * self._patience)

    def _run(self) -> None:
        pause = FIRST_PAUSE_S
        while not self._stopping.wait(pause if pause > FIRST_PAUSE_S else 0):
            try:
                self._follow()
            except Exception as error:  # noqa: BLE001 - the thread must outlive any fault; its text stays out of the log
                self._say(explain(error))
                # Something was heard since the last fault: the next one may come at once.
                pause = FIRST_PAUSE_S * 2 if self._said is None else min(pause * 2, LAST_PAUSE_S)

    def _follow(self) -> None:
        with self._records.listen() as channel:
            channel.subscribe(self._records.channel)
            _expect_subscription(channel, self._patience)
            moment = self._replica.moment()
            snapshot = self._records.snapshot()
            lost = self._replica.take(snapshot.seq, snapshot.there, snapshot.withdrawn)
            if lost:
                logger.error("the Redis server had lost %d revocations; they are put back", len(lost))
                self._records.add(lost)
            self._confirm(moment)
            stream = _Stream(self._replica, snapshot.seq)
            while not self._stopping.is_set():
                self._ping(channel, stream)
                message = channel.get_message(timeout=self._beat / 2)
                if message is not None:
                    self._take(message, stream)

    def _ping(self, channel: Any, stream: _Stream) -> None:
        now = time.monotonic()
        if stream.pinged is None and now >= stream.ping_at:
            stream.pinged, stream.ping_at = self._replica.moment(), now + self._beat
            channel.ping()
        elif stream.pinged is not None and now - stream.pinged[1] > self._patience:
            raise StoreUnavailableError(Trouble.LAG, "it does not answer")

    def _take(self, message: dict[str, Any], stream: _Stream) -> None:
        if message["type"] == "message":
            stream.take(message["data"])
        elif message["type"] == "pong" and stream.pinged is not None:
            moment, stream.pinged = stream.pinged, None
            stream.settle()
            if self._replica.exceeds(*self._records.extent()):
                raise StoreUnavailableError(Trouble.LAG, "it has lost revocations; all is read again")
            self._confirm(moment)
        else:
            # The library has connected anew by itself; what was published in between is not known.
            raise StoreUnavailableError(Trouble.LAG, "the connection was lost")

    def _confirm(self, moment: Moment) -> None:
        self._replica.confirm(moment)
        self._say(None)

    def _say(self, what: str | None) -> None:
        """Log each distinct trouble once, until all is well again."""
        if what is not None and what != self._said:
            logger.error("revocations cannot be followed on the Redis server: %s", what)
        self._said = what


class _Stream:
    """The changes of one subscription, which follow upon a snapshot."""

    def __init__(self, replica: Replica, snapshot: int) -> None:
        self._replica = replica
        self._snapshot = snapshot
        self._last: int | None = None
        self.pinged: Moment | None = None
        self.ping_at = 0.0

    def take(self, data: bytes) -> None:
        """Apply a change. Raises StoreUnavailableError when one before it was missed."""
        change = decode_change(data)
        # What was published between the subscription and the snapshot is in both. It is applied again, up to where
        # the snapshot was: the result is the same.
        follows = change.seq <= self._snapshot + 1 if self._last is None else change.seq == self._last + 1
        if not follows:
            raise StoreUnavailableError(Trouble.LAG, "changes were missed; all is read again")
        self._last = change.seq
        self._replica.apply(change.seq, change.there, change.withdrawn)

    def settle(self) -> None:
        """Nothing from before the snapshot comes any more. Raises StoreUnavailableError when some of it never came."""
        if self._last is None:
            self._last = self._snapshot
        if self._last < self._snapshot:
            raise StoreUnavailableError(Trouble.LAG, "changes were missed; all is read again")


def _expect_subscription(channel: Any, patience: float) -> None:
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        message = channel.get_message(timeout=patience)
        if message is not None and message["type"] == "subscribe":
            return
    raise StoreUnavailableError(Trouble.UNREACHABLE, "it does not answer")
