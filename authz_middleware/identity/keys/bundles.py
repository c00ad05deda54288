"""SPIFFE bundles: the keys of a trust domain, of which those for JWT-SVIDs are taken (JWT-SVID section 6).

A bundle is a JSON Web Key Set that holds certificates of X.509-SVIDs as well. One without a usable key says that the
trust domain has revoked what it published before (SPIFFE Trust Domain and Bundle, section 4.1.3), so it is not a fault
that leaves the last good set in force.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from authz_middleware.address import parse_address
from authz_middleware.identity.keys.download import MAX_DOCUMENT, DownloadError, tls_context
from authz_middleware.identity.keys.jwk import Keyring, KeySetError, read_key
from authz_middleware.identity.keys.key_set import FileKeys, InlineKeys, KeySet, RemoteKeys
from authz_middleware.settings.issuers import IssuerSettings
from authz_middleware.settings.key_sources import RefreshTimes
from authz_middleware.strict_json import parse_object

_USE: Final = "jwt-svid"


def bundle_of(
    settings: IssuerSettings, *, clock: Callable[[], float] = time.time, times: RefreshTimes | None = None
) -> KeySet:
    """The key set of a trust domain, not loaded yet; `times` replaces those of its settings.

    Raises KeySetError for an inline bundle, an address or certificates that cannot be used.
    """
    name, algorithms, when = settings.issuer, settings.algorithms, times or settings.refresh
    if settings.jwks is not None:
        return InlineKeys(svid_keys(settings.jwks), algorithms, name=name)
    if settings.jwks_file is not None:
        return BundleFile(settings.jwks_file, algorithms, name=name, times=when, clock=clock)
    if settings.jwks_uri is None:
        raise KeySetError("is absent: one of jwks_uri, jwks_file, jwks is needed")
    try:
        tls_context(settings.ca_file)
        hosts = settings.key_hosts or (parse_address(settings.jwks_uri).place,)
    except (DownloadError, ValueError) as error:
        raise KeySetError(str(error)) from None
    return RemoteBundle(
        settings.jwks_uri,
        algorithms,
        name=name,
        times=when,
        clock=clock,
        hosts=hosts,
        ca_file=settings.ca_file,
    )


class BundleFile(FileKeys):
    """The bundle of a trust domain in a file, which is read again when it changes."""

    def _read(self) -> bytes:
        return _svid_document(super()._read())

    def _keyring(self, document: bytes) -> Keyring:
        return super()._keyring(document) if _is_usable(document, self._algorithms) else Keyring(())


class RemoteBundle(RemoteKeys):
    """The bundle that a trust domain publishes (the profile `https_web` of SPIFFE Federation)."""

    def _read(self) -> bytes:
        return _svid_document(super()._read())

    def _keyring(self, document: bytes) -> Keyring:
        return super()._keyring(document) if _is_usable(document, self._algorithms) else Keyring(())


def svid_keys(bundle: Mapping[str, Any]) -> dict[str, Any]:
    """The key set that a bundle has for JWT-SVIDs. Raises KeySetError for what is no bundle."""
    entries = bundle.get("keys")
    if not isinstance(entries, list | tuple):
        raise KeySetError("has no list 'keys'")
    # `use` is another word here for what a key set calls a signature.
    kept = [{**entry, "use": "sig"} for entry in entries if isinstance(entry, Mapping) and entry.get("use") == _USE]
    return {"keys": kept}


def _svid_document(document: bytes) -> bytes:
    try:
        bundle = parse_object(document, max_bytes=MAX_DOCUMENT)
    except ValueError:
        raise KeySetError("is not a JSON object in strict UTF-8 without duplicate members") from None
    return msgspec.json.encode(svid_keys(bundle))


def _is_usable(document: bytes, algorithms: Sequence[str]) -> bool:
    return any(_is_key(entry, algorithms) for entry in msgspec.json.decode(document)["keys"])


def _is_key(entry: object, algorithms: Sequence[str]) -> bool:
    try:
        read_key(entry, algorithms)
    except KeySetError:
        return False
    return True
