"""A bearer token that lies in a file or in the environment, read again and again: somebody may replace it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import date
from math import inf
from typing import Final

from authz_middleware.remote.credentials.bearer import bearer_header, expiry_of
from authz_middleware.remote.credentials.held import Held
from authz_middleware.remote.credentials.reminder import reminder
from authz_middleware.remote.credentials.steady import SteadySecret
from authz_middleware.remote.failure import FailureKind, RemoteFailure
from authz_middleware.settings.remote.credential import StaticToken, TokenFile
from authz_middleware.settings.remote.rotation import day_of
from authz_middleware.settings.secret import Secret

logger = logging.getLogger("authz")

REREAD_S: Final = 1.0
"""A token that was replaced counts within this time."""
STALE_S: Final = 5.0
"""One that nobody has looked after for so long is read before it is shown."""
GRACE_S: Final = 60.0
"""For how long the last good token is shown while its file is absent, empty or malformed."""
FIXED_S: Final = 60.0
"""The environment of a process hardly changes."""
PAUSE_S: Final = 0.25
IDLE_S: Final = 30.0


class TokenSecret:
    """The source of a token by reference. Once a day somebody is reminded of one that stays where it should not.

    Past its day such a secret goes on being shown: a running application does not end by a date.
    """

    grace = GRACE_S

    def __init__(
        self,
        settings: TokenFile | StaticToken,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        clock: Callable[[], float] = time.time,
    ) -> None:
        secret = settings.secret if isinstance(settings, StaticToken) else Secret(file=settings.path)
        self.name = secret.where
        self.idle = inf if isinstance(settings, StaticToken) else IDLE_S
        self._settings = settings
        self._secret = SteadySecret(secret)
        self._is_fixed = secret.env is not None
        self._monotonic = monotonic
        self._clock = clock
        self._reminded: date | None = None

    def __repr__(self) -> str:
        return f"<TokenSecret {self.name}>"

    def pause(self, failures: int) -> float:  # noqa: ARG002 - a file that is away is no burden to anybody
        """How many seconds until the next look."""
        return PAUSE_S

    def obtain(self) -> Held | RemoteFailure:
        """The token as it is now, unless it is malformed or says itself that its time is over."""
        self.remind()
        now = self._monotonic()
        token = self._secret.read()
        if token is None:
            return RemoteFailure(FailureKind.CONFIG, "credential.unavailable")
        header, expires_at = bearer_header(token), expiry_of(token)
        if header is None:
            return RemoteFailure(FailureKind.CONFIG, "credential.malformed")
        if self._clock() >= expires_at:
            return RemoteFailure(FailureKind.CONFIG, "credential.expired")
        if self._is_fixed:
            return Held(header, renew_at=now + FIXED_S, expires_at=expires_at)
        return Held(header, renew_at=now + REREAD_S, wait_from=now + STALE_S, expires_at=expires_at)

    def remind(self) -> None:
        """Log what has to be told, at most once a day. May read the file."""
        today = day_of(self._clock())
        if today != self._reminded:
            self._reminded = today
            warning = reminder(self._settings, self._clock())
            if warning is not None:
                logger.warning("%s", warning)
