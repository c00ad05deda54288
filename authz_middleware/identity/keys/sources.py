"""Which kind of key set the settings of an issuer ask for."""

from __future__ import annotations

import time
from collections.abc import Callable

from authz_middleware.address import parse_address
from authz_middleware.identity.keys.discovery import DiscoveredKeys
from authz_middleware.identity.keys.download import DownloadError, tls_context
from authz_middleware.identity.keys.jwk import KeySetError
from authz_middleware.identity.keys.key_set import FileKeys, InlineKeys, KeySet, RemoteKeys
from authz_middleware.settings.issuers import IssuerSettings
from authz_middleware.settings.key_sources import RefreshTimes


def key_set_of(
    settings: IssuerSettings, *, clock: Callable[[], float] = time.time, times: RefreshTimes | None = None
) -> KeySet:
    """The key set of an issuer, not loaded yet; `times` replaces those of its settings.

    Raises KeySetError for inline keys, addresses or certificates that cannot be used.
    """
    name, algorithms = settings.issuer, settings.algorithms
    when = times or settings.refresh
    if settings.jwks is not None:
        return InlineKeys(settings.jwks, algorithms, name=name)
    if settings.jwks_file is not None:
        return FileKeys(settings.jwks_file, algorithms, name=name, times=when, clock=clock)
    try:
        tls_context(settings.ca_file)
        return _fetched(settings, when, clock)
    except (DownloadError, ValueError) as error:
        raise KeySetError(str(error)) from None


def _fetched(settings: IssuerSettings, times: RefreshTimes, clock: Callable[[], float]) -> KeySet:
    name, algorithms, hosts, ca_file = settings.issuer, settings.algorithms, settings.key_hosts, settings.ca_file
    if settings.discovery is not None:
        return DiscoveredKeys(
            name, settings.discovery, algorithms, times=times, clock=clock, hosts=hosts, ca_file=ca_file
        )
    if settings.jwks_uri is not None:
        url = settings.jwks_uri
        return RemoteKeys(
            url,
            algorithms,
            name=name,
            times=times,
            clock=clock,
            hosts=hosts or (parse_address(url).place,),
            ca_file=ca_file,
        )
    raise KeySetError("is absent: one of jwks_uri, jwks_file, jwks, discovery is needed")
