"""Somebody who pushes security events: how it is recognised, and what was last heard of it."""

from __future__ import annotations

import hmac
import threading
from collections.abc import Callable
from typing import Final

import msgspec

from authz_middleware.forking import renew_in_children
from authz_middleware.identity.keys.key_set import KeySet
from authz_middleware.revocation.feeds.jws import DocumentRefusedError, SignedDocument
from authz_middleware.revocation.feeds.reading import FeedReading
from authz_middleware.revocation.feeds.security_event import EventRefusedError
from authz_middleware.settings.revocation_feeds import TransmitterSettings

_LOOK_AGAIN_S: Final = 10.0


class Transmitter(msgspec.Struct, frozen=True):
    """A configured transmitter and its keys."""

    settings: TransmitterSettings
    keys: KeySet


class NotNowError(Exception):
    """It cannot be told whether the event is good, or it could not be kept: the transmitter is to send it again."""


class KnownTransmitter:
    """A transmitter, how it is recognised, and what was last heard of it."""

    def __init__(self, transmitter: Transmitter, monotonic: Callable[[], float]) -> None:
        self.settings = transmitter.settings
        self.keys = transmitter.keys
        self.heard_at: float | None = None
        self.status = "enabled"
        self._monotonic = monotonic
        self._looked_at = float("-inf")
        self.renew_after_fork()
        renew_in_children(self)

    def renew_after_fork(self) -> None:
        """A lock that nobody holds."""
        self._looking = threading.Lock()

    def reading(self, now: float) -> FeedReading:
        """When it was last heard by this process, and whether its events could be verified now."""
        if self.keys.needs_worker:
            self.keys.look_after()
        lag = None if self.heard_at is None else max(0.0, now - self.heard_at)
        problem = None if self.status == "enabled" else f"stream.{self.status}"
        if self.keys.current is None:
            problem = "keys.unavailable"
        return FeedReading(self.settings.issuer, problem is None, lag, problem)

    def trusts(self, shown: str | None) -> bool:
        """Whether this is the credential it must show, or it need not show one. While a credential is being replaced
        the secret holds both, with white space between. Raises SecretUnavailableError."""
        secret = self.settings.credential
        if secret is None:
            return True
        accepted = [word.encode() for word in secret.reveal().split()]
        given = (shown or "").encode()
        # All of them, whatever the first ones say: the time tells nothing of which is which.
        return sum(hmac.compare_digest(given, word) for word in accepted) > 0

    def check_signature(self, document: SignedDocument) -> None:
        """Raise EventRefusedError for a signature that does not hold, NotNowError where the keys that would tell are
        not at hand: a transmitter that has changed its key must not lose an event over it."""
        if self._holds(document):
            return
        if not self._look_again():
            raise NotNowError("its keys were looked for only just now")
        if not self._holds(document):
            if self.keys.current is None:
                raise NotNowError("its keys cannot be had")
            raise EventRefusedError("invalid_key", "the event names a key that the transmitter does not have")

    def _holds(self, document: SignedDocument) -> bool:
        """Whether the signature was verified; False where the key is not known (yet)."""
        if self.keys.needs_worker:
            self.keys.look_after()
        keyring = self.keys.current
        if keyring is None:
            return False
        try:
            document.check_signature(keyring, self.settings.keys.algorithms)
        except DocumentRefusedError as refusal:
            if refusal.code == "document.key_unknown":
                return False
            raise EventRefusedError("invalid_key", f"the signature is not accepted ({refusal.code})") from None
        return True

    def _look_again(self) -> bool:
        """Look for the keys here and now, once in a while: made-up key ids must not make this process hammer the key
        server, nor hold its threads."""
        if not self._looking.acquire(blocking=False):
            return False
        try:
            if self._monotonic() - self._looked_at < _LOOK_AGAIN_S:
                return False
            self.keys.load()
            self._looked_at = self._monotonic()
            return True
        finally:
            self._looking.release()
