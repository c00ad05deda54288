"""Which kind of credential the settings ask for."""

from __future__ import annotations

import time
from collections.abc import Callable

from authz_middleware.errors import SettingsError
from authz_middleware.remote.credentials.client_credentials import ClientCredentialsGrant
from authz_middleware.remote.credentials.held import Source
from authz_middleware.remote.credentials.protocol import Credential
from authz_middleware.remote.credentials.renewal import RenewedCredential
from authz_middleware.remote.credentials.token_secret import TokenSecret
from authz_middleware.settings.remote.credential import ClientCredentials, CredentialSettings, StaticToken
from authz_middleware.settings.remote.rotation import day_of, rotation_problem


def credential_for(
    settings: CredentialSettings | None,
    *,
    monotonic: Callable[[], float] = time.monotonic,
    clock: Callable[[], float] = time.time,
) -> Credential | None:
    """The credential to show, or None: then the decision point knows us by our certificate, or not at all.

    Raises SettingsError for a secret whose day has passed, and for certificates to trust that cannot be read.
    """
    if settings is None:
        return None
    problem = rotation_problem(settings, day_of(clock()))
    if problem is not None:
        raise SettingsError([problem])
    return RenewedCredential(_source_for(settings, monotonic, clock), monotonic=monotonic, clock=clock)


def _source_for(settings: CredentialSettings, monotonic: Callable[[], float], clock: Callable[[], float]) -> Source:
    if isinstance(settings, ClientCredentials):
        return ClientCredentialsGrant(settings, monotonic=monotonic, clock=clock)
    source = TokenSecret(settings, monotonic=monotonic, clock=clock)
    if isinstance(settings, StaticToken):
        source.remind()  # at the start already; this reads no file
    return source
