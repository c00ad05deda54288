"""Has an access token from an authorization server (RFC 6749 section 4.4), for as long as that says that it is good."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from math import inf
from typing import Final
from urllib.parse import urlencode

from authz_middleware import __version__
from authz_middleware.remote.credentials.assertion import Signer
from authz_middleware.remote.credentials.grant import parse_grant
from authz_middleware.remote.credentials.held import Held
from authz_middleware.remote.failure import RemoteFailure
from authz_middleware.remote.transport.client_tls import ClientTLS
from authz_middleware.remote.transport.http_transport import HttpTransport
from authz_middleware.settings.remote.credential import ClientCredentials
from authz_middleware.settings.remote.tls import TlsSettings

RENEWED_AFTER: Final = (0.65, 0.8)
"""The part of its lifetime after which a token is renewed; at random, so that many processes do not do it at once."""
MARGIN: Final = 0.1
"""The last part of its lifetime, in which it is not used: it has to arrive, and clocks differ. At most MARGIN_S."""
MARGIN_S: Final = 10.0
FIRST_PAUSE_S: Final = 0.2
LONGEST_PAUSE_S: Final = 10.0

_HEADERS: Final = {
    "Accept": "application/json",
    "Accept-Encoding": "identity",
    "Content-Type": "application/x-www-form-urlencoded",
    "User-Agent": f"authz-middleware/{__version__}",
}


class ClientCredentialsGrant:
    """The source of such a token. Raises SettingsError when the certificates to trust cannot be read."""

    grace = inf
    idle = 3600.0

    def __init__(
        self,
        settings: ClientCredentials,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.name = f"client credentials of {settings.client_id} at {settings.token_endpoint}"
        self._settings = settings
        self._monotonic = monotonic
        self._clock = clock
        self._signer = Signer(settings)
        is_secure, where = settings.token_endpoint.lower().startswith("https:"), "remote.credential.client_credentials"
        tls = ClientTLS(TlsSettings(settings.ca_file), where=where) if is_secure else None
        self._transport = HttpTransport(max_connections=1, tls=tls)

    def __repr__(self) -> str:
        return f"<ClientCredentialsGrant {self.name}>"

    def pause(self, failures: int) -> float:
        """Seconds: few at first, doubled with each further failure, jittered."""
        longest = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(failures - 1, 10))
        return random.uniform(longest / 2, longest)  # noqa: S311 - only so that not all ask at once

    def obtain(self) -> Held | RemoteFailure:
        """Ask for a token. Its lifetime counts from when it was asked for."""
        asked, now = self._monotonic(), self._clock()
        assertion = self._signer.assertion(now)
        if isinstance(assertion, RemoteFailure):
            return assertion
        settings = self._settings
        raw = self._transport.post(settings.token_endpoint, _HEADERS, self._form(assertion), settings.deadline)
        # Nothing is kept alive: a stale connection would have a statement posted twice that is good for once.
        self._transport.close()
        if isinstance(raw, RemoteFailure):
            return RemoteFailure(raw.kind, f"credential.{raw.detail}")
        grant = parse_grant(raw)
        if isinstance(grant, RemoteFailure):
            return grant
        used = grant.lifetime - min(MARGIN_S, grant.lifetime * MARGIN)
        renewed = grant.lifetime * random.uniform(*RENEWED_AFTER)  # noqa: S311 - likewise
        return Held(grant.header, renew_at=asked + renewed, until=asked + used, expires_at=now + used)

    def _form(self, assertion: str) -> bytes:
        settings = self._settings
        fields = [
            ("grant_type", "client_credentials"),
            ("client_id", settings.client_id),
            ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
            ("client_assertion", assertion),
            *((("scope", " ".join(settings.scope)),) if settings.scope else ()),
            *((("audience", settings.audience),) if settings.audience is not None else ()),
            *(("resource", resource) for resource in settings.resource),
        ]
        return urlencode(fields).encode("ascii")
