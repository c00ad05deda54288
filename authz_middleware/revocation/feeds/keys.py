"""The keys that a feed is signed with."""

from __future__ import annotations

import time
from collections.abc import Callable

from authz_middleware.identity.keys.key_set import FileKeys, InlineKeys, KeySet, RemoteKeys
from authz_middleware.settings.revocation_feeds import KeySource


def key_set_of(source: KeySource, *, name: str, clock: Callable[[], float] = time.time) -> KeySet:
    """The key set that the settings of a feed name. Raises KeySetError for inline keys that cannot be used."""
    if source.jwks is not None:
        return InlineKeys(source.jwks, source.algorithms, name=name)
    if source.jwks_file is not None:
        return FileKeys(source.jwks_file, source.algorithms, name=name, clock=clock)
    assert source.jwks_uri is not None  # the settings have exactly one of the three
    return RemoteKeys(source.jwks_uri, source.algorithms, name=name, clock=clock)
