"""One decision point in one process: its parts put together, started and stopped."""

from __future__ import annotations

import asyncio
import time

from authz_middleware.identity.authenticator import Authenticator
from authz_middleware.policy.watch import PolicyWatcher
from authz_middleware.record.recorder import Recorder
from authz_middleware.server.api import Limits
from authz_middleware.server.app import DecisionPointApp
from authz_middleware.server.callers import Anyone, Callers, KnownCallers
from authz_middleware.server.client_certificates import ClientCertificates
from authz_middleware.server.following import Follower
from authz_middleware.server.metadata import authority_of
from authz_middleware.server.policy import ServedPolicy
from authz_middleware.server.readiness import Readiness
from authz_middleware.server.settings import ServerSettings, is_loopback
from authz_middleware.server.tls import ServerTLS
from authz_middleware.server.token_files import TokenFiles

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")


class Service:
    """The parts. Making one reads every file that the settings name and opens the decision log, but starts nothing.

    Raises SettingsError and PolicyError for what cannot be used.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._authenticator: Authenticator | None = None
        self._followers: list[Follower] = []
        self.tls = self._tls()
        callers = self._callers()
        policy = ServedPolicy(settings.policy.source)
        policy.reload()
        refresh = settings.policy.refresh
        self._watcher = None if refresh is None else PolicyWatcher(policy, refresh)
        log = settings.decision_log
        self._recorder = None if log is None else Recorder(log, settings.app)
        is_needed = log is not None and log.mode != "best_effort"
        self.app = DecisionPointApp(
            policy,
            base_url=settings.base_url,
            callers=callers,
            recorder=self._recorder,
            readiness=Readiness(policy, self._recorder if is_needed else None),
            lifecycle=self,
            lenient=settings.unknown_members == "ignore",
            limits=Limits(settings.max_body, settings.max_batch, settings.max_page),
        )

    async def start(self) -> None:
        """Start what keeps policy, keys and files fresh, before the first request."""
        if self._authenticator is not None:
            await asyncio.to_thread(self._authenticator.start)
        for follower in self._followers:
            follower.start()
        if self._watcher is not None:
            self._watcher.start()

    async def stop(self) -> None:
        """Stop all that, and write what is still to be written, after the last request."""
        if self._authenticator is not None:
            await self._authenticator.aclose()
        await asyncio.to_thread(self.close)

    def close(self) -> None:
        """Stop threads, close files and connections."""
        if self._watcher is not None:
            self._watcher.stop()
        for follower in self._followers:
            follower.stop()
        if self._authenticator is not None:
            self._authenticator.close()
        if self._recorder is not None:
            self._recorder.close()

    def _tls(self) -> ServerTLS | None:
        if self._settings.tls is None:
            return None
        tls = ServerTLS(self._settings.tls)
        self._followers.append(Follower(tls.files, tls.look))
        return tls

    def _callers(self) -> Callers:
        settings, callers = self._settings, self._settings.callers
        if not settings.knows_callers:
            return Anyone(_own_names(settings) if is_loopback(settings.host) and not callers.anyone else None)
        tokens = None
        if callers.tokens:
            tokens = TokenFiles(callers.tokens)
            self._followers.append(Follower(tokens.files, tokens.look))
        if callers.issuers:
            self._authenticator = Authenticator(callers.issuers)
        has_certificates = settings.tls is not None and settings.tls.client_ca is not None
        return KnownCallers(
            tokens=tokens,
            authenticator=self._authenticator,
            certificates=ClientCertificates(callers.certificates) if has_certificates else None,
            clock=time.time,
        )


def _own_names(settings: ServerSettings) -> frozenset[bytes]:
    """The Host headers that a caller on this machine sends."""
    names = {settings.host, *LOOPBACK_NAMES}
    own = {f"{name}:{settings.port}" for name in names} | ({*names} if settings.port == 80 else set())
    return frozenset(name.lower().encode() for name in (*own, authority_of(settings.base_url)))
