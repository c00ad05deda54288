"""The key set of one issuer: loaded beforehand, refreshed beside the requests and never within one.

A request reads `KeySet.current` and nothing else. When it needs a key that is not there it is refused, and a
refresh is asked for; asking is limited, so that a storm of made-up key ids costs one fetch a cooldown.
"""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from authz_middleware.address import Place
from authz_middleware.forking import renew_in_children
from authz_middleware.identity.keys.download import MAX_DOCUMENT, DownloadError, download
from authz_middleware.identity.keys.jwk import Keyring, KeySetError, read_jwks
from authz_middleware.settings.key_sources import RefreshTimes
from authz_middleware.strict_json import parse_object

__all__ = ["REGULAR", "FileKeys", "InlineKeys", "KeySet", "RefreshTimes", "RefreshedKeys", "RemoteKeys"]

logger = logging.getLogger("authz")


REGULAR: Final = RefreshTimes()


class KeySet:
    """The keys of one issuer from a file or an address. Base: `InlineKeys`, which never change, is the plain case."""

    current: Keyring | None = None
    """The keys in force, or None where none could be loaded. Another object whenever a key was added or removed."""

    needs_worker = False
    """Whether keys can change and nobody is looking after them; see `look_after`."""

    def load(self) -> None:
        """Look for newer keys now, on this thread, within the deadline. Never raises."""

    def look_after(self) -> None:
        """See to it that a background thread of this process refreshes the keys. Never waits."""

    def ask(self, kid: object = None) -> None:
        """Ask for a refresh because a key is missing: the one with this id, or any at all. Never waits.

        The id is a token's own word, which nobody has checked where there were no keys to check with.

        At most one a cooldown is granted, and for one and the same id fewer than that.
        """

    def close(self) -> None:
        """Stop refreshing."""


class InlineKeys(KeySet):
    """Keys that stand in the settings themselves. Raises KeySetError when they cannot be used."""

    def __init__(self, document: Mapping[str, Any], algorithms: Sequence[str], *, name: str) -> None:
        self.current = read_jwks(document, algorithms, secrets=False, name=name)


class RefreshedKeys(KeySet, ABC):
    """What files and addresses share: the last good set, the worker thread, and the limits on asking."""

    secrets = False

    def __init__(
        self, algorithms: Sequence[str], *, name: str, times: RefreshTimes, interval: float, clock: Callable[[], float]
    ) -> None:
        self._algorithms = tuple(algorithms)
        self._name = name
        self._times = times
        self._interval = interval
        self._clock = clock
        self._document: bytes | None = None
        self._refused: tuple[bytes, str] | None = None
        self._complaint: str | None = None
        self._loaded_at = 0.0
        self._looked_at = float("-inf")
        self._sought: dict[str, float] = {}
        self._failures = 0
        self._closed = False
        self.renew_after_fork()
        renew_in_children(self)

    def renew_after_fork(self) -> None:
        """No worker, and locks that nobody holds: the state after a fork, where only the forking thread lives on."""
        self._guard = threading.Lock()
        self._loading = threading.Lock()
        self._wanted = threading.Event()
        self._worker: threading.Thread | None = None
        self.needs_worker = not self._closed

    @abstractmethod
    def _read(self) -> bytes:
        """The document as it is now. Raises KeySetError or DownloadError."""

    def load(self) -> None:
        """Look now. What is found comes into force only when all of it can be used."""
        with self._loading:
            self._looked_at = self._clock()
            try:
                self._take(self._read())
            except (DownloadError, KeySetError) as error:
                self._fail(str(error))
            except Exception as error:  # noqa: BLE001 - the worker must outlive what nobody foresaw
                self._fail(f"could not be loaded ({type(error).__name__})")

    def _take(self, document: bytes) -> None:
        if document != self._document or self.current is None:
            self.current = self._keyring(document)
            self._document = document
            logger.info("key set of %s: %d keys in force", self._name, len(self.current.keys))
        self._loaded_at = self._clock()
        self._failures = 0
        self._complaint = None

    def _keyring(self, document: bytes) -> Keyring:
        if self._refused is not None and self._refused[0] == document:
            raise KeySetError(self._refused[1])
        try:
            return read_jwks(_members(document), self._algorithms, secrets=self.secrets, name=self._name)
        except KeySetError as error:
            self._refused = (document, str(error))
            raise

    def _fail(self, what: str) -> None:
        self._failures += 1
        if what != self._complaint:
            # Once for each cause: a file is looked at every second.
            kept = "the last good one stays in force" if self.current else "none is in force"
            logger.warning("key set of %s: %s; %s", self._name, what, kept)
        self._complaint = what
        self._forget_if_old()

    def _forget_if_old(self) -> None:
        if self.current is not None and self._clock() - self._loaded_at > self._times.max_age:
            self.current = None
            logger.error("key set of %s: too old to be used any longer", self._name)

    def look_after(self) -> None:
        """Start the one thread that refreshes these keys in this process."""
        with self._guard:
            if self._closed or self._worker is not None:
                return
            # Nobody looked since the keys were loaded, which may be long ago in a process that stood idle.
            self._forget_if_old()
            self._worker = threading.Thread(target=self._work, args=(self._wanted,), name="authz-keys", daemon=True)
            self._worker.start()
            self.needs_worker = False

    def ask(self, kid: object = None) -> None:
        """Have the thread look before its time, within the limits."""
        with self._guard:
            now = self._clock()
            # A clock that was set back must not silence the asking for as long.
            if 0 <= now - self._looked_at < self._times.cooldown:
                return
            # Only ids that were granted a look are kept, so there are as few of them as there were looks.
            self._sought = {name: at for name, at in self._sought.items() if 0 <= now - at < self._times.missing}
            if isinstance(kid, str):
                if kid in self._sought:
                    return
                self._sought[kid] = now
            self._looked_at = now
            self._wanted.set()

    def close(self) -> None:
        """End the thread, within a second even where it is waiting for an answer."""
        with self._guard:
            self._closed = True
            self.needs_worker = False
            self._wanted.set()
            worker = self._worker
        if worker is not None and worker is not threading.current_thread():
            worker.join(timeout=1.0)

    def _work(self, wanted: threading.Event) -> None:
        while not self._closed:
            wanted.wait(self._pause())
            wanted.clear()
            if not self._closed:
                self.load()

    def _pause(self) -> float:
        since = self._clock() - self._loaded_at
        if not self._failures:
            return max(0.0, min(self._interval - since, self._interval))
        pause = self._times.retry * 2.0 ** min(self._failures - 1, 16)
        if self.current is not None:
            # Not to sleep past the moment from which the last good set is too old.
            pause = min(pause, max(self._times.retry, self._times.max_age - since))
        return min(pause, self._interval)


class FileKeys(RefreshedKeys):
    """Keys from a file, the only source that may hold symmetric ones. The file is read again every `poll` seconds."""

    secrets = True

    def __init__(
        self,
        path: Path,
        algorithms: Sequence[str],
        *,
        name: str,
        times: RefreshTimes = REGULAR,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._path = path
        super().__init__(algorithms, name=name, times=times, interval=times.poll, clock=clock)

    def _read(self) -> bytes:
        try:
            with self._path.open("rb") as file:
                document = file.read(MAX_DOCUMENT + 1)
        except OSError as error:
            raise KeySetError(f"the file cannot be read ({type(error).__name__})") from None
        if len(document) > MAX_DOCUMENT:
            raise KeySetError(f"the file has more than {MAX_DOCUMENT} bytes")
        return document


class RemoteKeys(RefreshedKeys):
    """Keys from the issuer's `jwks_uri`, which is on one of `hosts` where they are given.

    `ca_file` holds the authorities that vouch for those, instead of the system's.
    """

    def __init__(
        self,
        url: str,
        algorithms: Sequence[str],
        *,
        name: str,
        times: RefreshTimes = REGULAR,
        clock: Callable[[], float] = time.time,
        hosts: Collection[Place] | None = None,
        ca_file: Path | None = None,
    ) -> None:
        self._url = url
        self._hosts = hosts
        self._ca_file = ca_file
        super().__init__(algorithms, name=name, times=times, interval=times.interval, clock=clock)

    def _read(self) -> bytes:
        return download(self._url, deadline=self._times.deadline, hosts=self._hosts, ca_file=self._ca_file)


def _members(document: bytes) -> dict[str, Any]:
    try:
        return parse_object(document, max_bytes=MAX_DOCUMENT)
    except ValueError:
        raise KeySetError("is not a JSON object in strict UTF-8 without duplicate members") from None
