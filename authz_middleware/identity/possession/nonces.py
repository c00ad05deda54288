"""Nonces for proofs (RFC 9449 section 9): proof that a proof was made lately, whatever the client's clock says.

They are a keyed hash of the time, so that all workers with one secret accept each other's and none remembers any.
"""

from __future__ import annotations

import hmac
import math
from base64 import urlsafe_b64encode
from typing import Final

PERIOD_S: Final = 120.0
"""How long one nonce is handed out, in seconds. It is accepted for as long again after that."""

_SKEW_S: Final = 5.0
"""How far ahead the clock of another worker may be whose nonce is accepted."""

_PURPOSE: Final = b"DPoP-Nonce 1\0"


class Nonces:
    """Makes and recognises nonces. `secret` is shared by all workers and shows in no `repr`."""

    __slots__ = ("_secret",)

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def current(self, now: float) -> str:
        """The nonce to hand out at `now` (seconds since the epoch)."""
        return self._nonce(_period(now))

    def accepts(self, nonce: object, now: float) -> bool:
        """Whether this nonce was handed out in this period or in the one before."""
        if not isinstance(nonce, str) or not nonce.isascii():
            return False
        periods = {_period(now) - 1, _period(now), _period(now + _SKEW_S)}
        return any(hmac.compare_digest(nonce, self._nonce(period)) for period in periods)

    def _nonce(self, period: int) -> str:
        message = _PURPOSE + str(period).encode()
        return urlsafe_b64encode(hmac.digest(self._secret, message, "sha256")).rstrip(b"=").decode()


def _period(now: float) -> int:
    return math.floor(now / PERIOD_S)
