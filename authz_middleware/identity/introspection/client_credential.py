"""How we show an issuer's endpoint who asks: client authentication (RFC 6749 section 2.3.1) or a bearer token."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from typing import Final
from urllib.parse import quote_plus

from authz_middleware.remote.credentials.bearer import bearer_header
from authz_middleware.remote.failure import FailureKind, RemoteFailure
from authz_middleware.settings.key_sources import IntrospectionSettings
from authz_middleware.settings.secret import Secret, SecretUnavailableError

REREAD_S: Final = 1.0
"""For how long a secret is used before it is read again: one that was replaced counts within this time."""


class ClientCredential:
    """The `Authorization` header of the settings. What it holds never shows in its `repr`."""

    def __init__(self, settings: IntrospectionSettings, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._client_id = settings.client_id
        self._secret: Secret | None = settings.token or settings.client_secret
        self._monotonic = monotonic
        self._known: tuple[float, str] | None = None

    def __repr__(self) -> str:
        return f"<ClientCredential {self._secret!r}>"

    def remembered(self) -> str | None:
        """The header where it was read a moment ago; without a file being looked at."""
        known = self._known
        return known[1] if known is not None and self._monotonic() - known[0] < REREAD_S else None

    def header(self) -> str | RemoteFailure:
        """The header as it is now, or why there is none. Reads a file."""
        remembered = self.remembered()
        if remembered is not None:
            return remembered
        now = self._monotonic()
        if self._secret is None:
            return RemoteFailure(FailureKind.CONFIG, "credential.missing")
        try:
            secret = self._secret.reveal()
        except SecretUnavailableError:
            return RemoteFailure(FailureKind.CONFIG, "credential.unavailable")
        header = bearer_header(secret) if self._client_id is None else f"Basic {_basic(self._client_id, secret)}"
        if header is None:
            return RemoteFailure(FailureKind.CONFIG, "credential.malformed")
        self._known = (now, header)
        return header


def _basic(client_id: str, secret: str) -> str:
    """Both are form-encoded first, so that a colon in either is no separator."""
    pair = f"{quote_plus(client_id, safe='')}:{quote_plus(secret, safe='')}"
    return base64.b64encode(pair.encode("ascii")).decode("ascii")
