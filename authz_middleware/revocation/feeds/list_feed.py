"""Follows one signed list: reads it again and again, beside the requests, and tells what it names.

Each process follows it by itself and keeps it in memory: nothing is written to the store, so that a list replaces the
one before it at once and whole, whatever other processes have read so far.
"""

from __future__ import annotations

import logging
import os
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from authz_middleware.alarm import Alarm
from authz_middleware.forking import renew_in_children
from authz_middleware.identity.keys.download import DownloadError, download
from authz_middleware.identity.keys.jwk import Keyring
from authz_middleware.identity.keys.key_set import KeySet
from authz_middleware.revocation.entry import Revocation
from authz_middleware.revocation.feeds.jws import DocumentRefusedError
from authz_middleware.revocation.feeds.reading import FeedReading
from authz_middleware.revocation.feeds.signed_list import (
    MAX_DOCUMENT,
    TYPE,
    SignedList,
    check_follows,
    check_times,
    read_signed_list,
)
from authz_middleware.revocation.index import RevocationIndex
from authz_middleware.revocation.store import Reading, Trouble
from authz_middleware.settings.revocation_feeds import SignedListSettings
from authz_middleware.worker import Worker

logger = logging.getLogger("authz")

_DEADLINE: float = 5.0
# Static file servers do not know the type; the signed header does.
_MEDIA_TYPES = (f"application/{TYPE}", "application/jose", "application/octet-stream", "text/plain", "")


class ListFeed:
    """One signed list. One object serves all threads of a process. `clock` gives seconds since the epoch."""

    def __init__(self, settings: SignedListSettings, keys: KeySet, *, clock: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._keys = keys
        self._clock = clock
        self._taken: SignedList | None = None
        self._index: RevocationIndex | None = None
        self._seen_at = self._looked_at = float("-inf")
        self._problem: str | None = None
        self._restored = False
        self._alarm = Alarm("revocation list %r: %s; %s")
        self._worker = Worker(self._step, name="authz-list")
        self.renew_after_fork()
        renew_in_children(self)

    def renew_after_fork(self) -> None:
        """A lock that nobody holds."""
        self._looking = threading.Lock()

    def start(self) -> None:
        """Read the list, within a deadline. No thread is started here, so that a server may fork afterwards."""
        self.look()

    def close(self) -> None:
        """Read it no more; a reading after this goes by what is known."""
        self._worker.close()

    def reading(self, now: float) -> Reading:
        """What the list names at `now`; in trouble where no good list was had for longer than `max_age`, or the last
        one has expired. Never waits and never raises."""
        if self._worker.is_needed:
            self._worker.start()
        taken, index = self._taken, self._index
        if taken is None or index is None:
            return Reading(None, None, None, Trouble.NOT_STARTED)
        seen_at = self._seen_at
        return Reading(index, index.epoch(now), seen_at, None if self._serves(taken, seen_at, now) else Trouble.LAG)

    def lag(self, now: float) -> float | None:
        """Seconds since the list was last read and verified; None where it never was."""
        return None if self._taken is None else max(0.0, now - self._seen_at)

    def entries(self) -> Sequence[Revocation]:
        """What the last good list names."""
        taken = self._taken
        return () if taken is None else taken.entries

    def health(self, now: float) -> FeedReading:
        """How far behind the list is."""
        if self._worker.is_needed:
            self._worker.start()
        taken = self._taken
        readable = taken is not None and self._serves(taken, self._seen_at, now)
        return FeedReading(self._settings.name, readable, self.lag(now), self._problem)

    def look(self) -> None:
        """Read the list now, on this thread. Never raises."""
        with self._looking:
            self._looked_at = now = self._clock()
            try:
                self._look(now)
            except DocumentRefusedError as refusal:
                self._fail(refusal.code, refusal.code)
            except (DownloadError, OSError) as error:
                what = str(error) if isinstance(error, DownloadError) else f"cannot be read ({type(error).__name__})"
                self._fail("list.unreachable", what)
            except Exception as error:  # noqa: BLE001 - the thread must outlive what nobody foresaw
                self._fail("list.unexpected", type(error).__name__)

    def _serves(self, taken: SignedList, seen_at: float, now: float) -> bool:
        age = now - seen_at
        # A clock that was set back by much makes an old list look new.
        return now < taken.expires_at and -self._settings.max_age <= age <= self._settings.max_age

    def _step(self) -> float:
        refresh = self._settings.refresh
        left = self._looked_at + refresh - self._clock()
        if 0 < left <= refresh:
            return left  # it was read at the start, or before a fork
        self.look()
        return refresh

    def _look(self, now: float) -> None:
        keyring = self._keyring()
        self._forget_unsigned(keyring)
        if not self._restored:
            self._restored = True
            self._restore(keyring)
        data = self._read()
        signed = read_signed_list(data, keyring, self._settings)
        check_follows(signed, self._taken)
        check_times(signed, now)
        news = self._taken is None or signed.serial > self._taken.serial
        self._take(signed)
        self._seen_at = now
        self._problem = None
        if news:
            name, size = self._settings.name, len(signed.entries)
            logger.info("revocation list %r: serial %d is in force, with %d entries", name, signed.serial, size)
            self._keep(data)

    def _keyring(self) -> Keyring:
        # Here and now: this thread waits for nobody, and a key that was withdrawn must not verify one list more.
        self._keys.load()
        keyring = self._keys.current
        if keyring is None:
            raise DocumentRefusedError("keys.unavailable")
        return keyring

    def _forget_unsigned(self, keyring: Keyring) -> None:
        """A key that was withdrawn takes its list with it, and the serial that whoever stole it may have used up."""
        taken = self._taken
        if taken is None or taken.keyring is keyring:
            return
        try:
            taken.document.check_signature(keyring, self._settings.keys.algorithms)
        except DocumentRefusedError:
            self._taken = self._index = None

    def _read(self) -> bytes:
        settings = self._settings
        if settings.path is not None:
            return _bytes_of(settings.path)
        assert settings.url is not None  # the settings have exactly one of the two
        return download(
            settings.url, deadline=_DEADLINE, limit=MAX_DOCUMENT, media_types=_MEDIA_TYPES, ca_file=settings.ca_file
        )

    def _take(self, signed: SignedList) -> None:
        index = self._index
        if index is None or dict(index.entries) != {entry.id: entry for entry in signed.entries}:
            # Another one, not a changed one: a request meets the old list or the new one, never half of each.
            self._index = RevocationIndex(signed.entries)
        self._taken = signed

    def _restore(self, keyring: Keyring) -> None:
        """Begin with the list that was kept, as old as it is: later ones must follow it, and what it names is known."""
        kept = self._settings.kept
        if kept is None or not kept.exists():
            return
        try:
            signed = read_signed_list(_bytes_of(kept), keyring, self._settings)
        except (OSError, DocumentRefusedError) as error:
            what = error.code if isinstance(error, DocumentRefusedError) else type(error).__name__
            self._alarm.ring(self._settings.name, f"the kept list cannot be used ({what})", "older ones may be taken")
            return
        self._take(signed)
        self._seen_at = signed.issued_at

    def _keep(self, data: bytes) -> None:
        kept = self._settings.kept
        if kept is None:
            return
        try:
            _replace(kept, data)
        except OSError as error:
            what = f"cannot be kept ({type(error).__name__})"
            self._alarm.ring(self._settings.name, what, "it is in force, but a restart may take an older one")

    def _fail(self, code: str, what: str) -> None:
        self._problem = code
        kept = "the last good one stays in force until it is too old" if self._taken else "nothing is known of it"
        self._alarm.ring(self._settings.name, what, kept)


def _bytes_of(path: Path) -> bytes:
    with path.open("rb") as file:
        # One more than may be, which the parser then refuses.
        return file.read(MAX_DOCUMENT + 1)


def _replace(path: Path, data: bytes) -> None:
    """Write a whole file or leave it as it is."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        try:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            Path(file.name).replace(path)
        except OSError:
            Path(file.name).unlink(missing_ok=True)
            raise
