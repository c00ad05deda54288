"""A credential that is renewed ahead of its end, so that nobody waits for it and no call is lost while it changes.

One thread reads the file or asks the authorization server; both colours wait for that thread, each no longer than its
own time, and only where there is nothing that still serves. So no event loop ever touches a file, nothing is fetched
twice at a time, and whoever is cancelled takes nobody with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from math import inf
from typing import Final

import msgspec

from authz_middleware.alarm import Alarm
from authz_middleware.errors import describe
from authz_middleware.forking import renew_in_children
from authz_middleware.remote.credentials.held import Held, Source
from authz_middleware.remote.failure import FailureKind, RemoteFailure

LATE: Final = RemoteFailure(FailureKind.DEADLINE, "credential.late", is_news=False)
BROKEN: Final = RemoteFailure(FailureKind.INTERNAL, "credential.error")
NO_THREAD: Final = RemoteFailure(FailureKind.INTERNAL, "credential.thread")
REFUSED_S: Final = 10.0
"""At most so often (in seconds) a refusal by the decision point has a new credential fetched: one that refuses all of
them must not have us storm the authorization server."""
WAIT_SHARE: Final = 0.5
"""The part of the time that may go by waiting for a newer one where there is one that still serves."""
CLOSING_S: Final = 1.0


class RenewedCredential:
    """The `Credential` of a source, for all threads and event loops of a process."""

    def __init__(
        self,
        source: Source,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._source = source
        self._monotonic = monotonic
        self._clock = clock
        self._failed = Alarm("the credential for the decision point cannot be had anew (%s): %s")
        self._held: Held | None = None
        self._failure: RemoteFailure | None = None
        self._failures = 0
        self._retry_at = self._refused_at = -inf
        self._gives_up_at = inf
        self._used_at = -inf
        self._closed = False
        self.renew_after_fork()
        renew_in_children(self)

    def __repr__(self) -> str:
        return f"<RenewedCredential {self._source.name}>"

    def renew_after_fork(self) -> None:
        """Wait for no thread of the parent's. What is held goes on being used."""
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._keeper: threading.Thread | None = None
        self._look: Future[None] | None = None

    def remembered(self) -> str | None:
        """The header's value while it serves; looked for anew in the background when that is due."""
        held, now = self._held, self._monotonic()
        self._used_at = now
        if held is None or not self._serves(held, now):
            return None
        if now >= held.renew_at:
            if now >= held.wait_from and now >= self._retry_at:
                return None
            self._have_renewed(now)
        return held.header

    def header(self, left: float) -> str | RemoteFailure:
        """The header's value, waiting for it at most `left` seconds."""
        known = self.remembered()
        if known is not None:
            return known
        look = self._have_renewed(self._monotonic())
        if look is not None:
            with contextlib.suppress(TimeoutError):  # what is held may still serve
                look.result(self._patience(left))
        return self._outcome(look)

    async def aheader(self, left: float) -> str | RemoteFailure:
        """The same for an event loop."""
        known = self.remembered()
        if known is not None:
            return known
        look = self._have_renewed(self._monotonic())
        if look is not None:
            done = asyncio.wrap_future(look)
            try:
                await asyncio.wait([done], timeout=self._patience(left))
            finally:
                # Ends our waiting, not the look: that is under way, and others wait for it as well.
                done.cancel()
        return self._outcome(look)

    def refused(self, header: str) -> None:
        """The decision point did not accept this value: look for another one."""
        held, now = self._held, self._monotonic()
        if held is not None and held.header == header and now - self._refused_at >= REFUSED_S:
            self._refused_at = now
            self._have_renewed(now)

    def close(self) -> None:
        """End the thread; one that is in the middle of a look ends after it."""
        self._closed = True
        self._wake.set()
        keeper = self._keeper
        if keeper is not None:
            keeper.join(CLOSING_S)

    async def aclose(self) -> None:
        """The same without blocking the event loop."""
        await asyncio.to_thread(self.close)

    def _serves(self, held: Held, now: float) -> bool:
        return now < held.until and now < self._gives_up_at and self._clock() < held.expires_at

    def _patience(self, left: float) -> float:
        held = self._held
        serves = held is not None and self._serves(held, self._monotonic())
        return max(0.0, left * WAIT_SHARE if serves else left)

    def _outcome(self, look: Future[None] | None) -> str | RemoteFailure:
        held = self._held
        if held is not None and self._serves(held, self._monotonic()):
            return held.header
        if look is not None and not look.done():
            return LATE
        return self._failure or LATE

    def _have_renewed(self, now: float) -> Future[None] | None:
        """The look that is under way, or a new one; None while the source is left alone after a failure."""
        keeper = None
        with self._lock:
            if self._look is None:
                if now < self._retry_at:
                    return None
                self._look = _begun()
                if self._keeper is None:
                    keeper = self._keeper = threading.Thread(target=self._keep, name="authz-credential", daemon=True)
            look = self._look
        self._wake.set()
        if keeper is not None:
            try:
                keeper.start()
            except RuntimeError:  # no more threads, or the interpreter is ending
                self._settle(NO_THREAD)
                self._leave(keeper)
        return look

    def _keep(self) -> None:
        """The thread: a look when one is due or wanted, until nobody needs any."""
        try:
            while True:
                self._settle(self._obtain())
                if not self._wait():
                    return
        finally:
            self._leave(threading.current_thread())

    def _obtain(self) -> Held | RemoteFailure:
        try:
            return self._source.obtain()
        except Exception as error:  # noqa: BLE001 - the thread must outlive any fault, whose text may quote a secret
            self._failed.ring(self._source.name, describe(error), kind="error")
            return BROKEN

    def _settle(self, told: Held | RemoteFailure) -> None:
        now = self._monotonic()
        with self._lock:
            if isinstance(told, Held):
                self._held, self._failure, self._failures = told, None, 0
                self._retry_at, self._gives_up_at = -inf, inf
            else:
                if not self._failures:
                    self._gives_up_at = now + self._source.grace
                self._failures += 1
                # It says nothing of the decision point, whose breaker counts only what does.
                self._failure = msgspec.structs.replace(told, is_news=False)
                self._retry_at = now + self._source.pause(self._failures)
            look, self._look = self._look, None
        if isinstance(told, RemoteFailure) and told is not BROKEN:
            self._failed.ring(self._source.name, f"{told.kind} {told.detail}", kind=f"{told.kind} {told.detail}")
        if look is not None:
            look.set_result(None)

    def _wait(self) -> bool:
        """Until a look is wanted or due; False when it has not been needed for long."""
        while True:
            now = self._monotonic()
            with self._lock:
                if self._look is not None:
                    return True
                if self._closed or now - self._used_at > self._source.idle:
                    self._keeper = None
                    return False
                due = self._due()
                if now >= due:
                    self._look = _begun()
                    return True
                self._wake.clear()
            self._wake.wait(min(due - now, threading.TIMEOUT_MAX))

    def _due(self) -> float:
        renew_at = self._held.renew_at if self._held is not None else -inf
        return max(renew_at, self._retry_at)

    def _leave(self, keeper: threading.Thread) -> None:
        with self._lock:
            if self._keeper is keeper:
                self._keeper = None
                look, self._look = self._look, None
            else:
                look = None
        if look is not None:
            look.set_result(None)


def _begun() -> Future[None]:
    """A future that no waiting caller can cancel for the others."""
    look: Future[None] = Future()
    look.set_running_or_notify_cancel()
    return look
