"""Keys whose address is looked up in the issuer's own metadata: OpenID Connect Discovery 1.0, or RFC 8414.

The metadata is fetched together with the keys, off the request path, from the issuer's own host. It may name only
one thing that counts here, and that one is checked: a document that anybody could have put there must neither
speak for another issuer nor send us to another host.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from authz_middleware.address import Place, parse_address
from authz_middleware.identity.keys.download import DownloadError, download
from authz_middleware.identity.keys.jwk import KeySetError
from authz_middleware.identity.keys.key_set import REGULAR, RefreshedKeys
from authz_middleware.settings.key_sources import Discovery, RefreshTimes
from authz_middleware.strict_json import MAX_BODY, parse_object

_METADATA_TYPES: Final = ("application/json",)


class DiscoveredKeys(RefreshedKeys):
    """Keys from the `jwks_uri` that the metadata of an issuer names, on one of `hosts` (by default the issuer's own).

    Raises ValueError for an issuer that is no address.
    """

    def __init__(
        self,
        issuer: str,
        discovery: Discovery,
        algorithms: Sequence[str],
        *,
        times: RefreshTimes = REGULAR,
        clock: Callable[[], float] = time.time,
        hosts: Collection[Place] = (),
        ca_file: Path | None = None,
    ) -> None:
        self._issuer = issuer
        self._metadata = metadata_address(issuer, discovery)
        self._home = (parse_address(issuer).place,)
        self._hosts = tuple(hosts) or self._home
        self._ca_file = ca_file
        super().__init__(algorithms, name=issuer, times=times, interval=times.interval, clock=clock)

    def _read(self) -> bytes:
        ends = time.monotonic() + self._times.deadline
        url = self._key_address()
        left = ends - time.monotonic()
        return download(url, deadline=left, hosts=self._hosts, ca_file=self._ca_file)

    def _key_address(self) -> str:
        """The `jwks_uri` of the metadata as it is now. Raises KeySetError."""
        try:
            document = download(
                self._metadata,
                deadline=self._times.deadline,
                limit=MAX_BODY,
                media_types=_METADATA_TYPES,
                hosts=self._home,
                ca_file=self._ca_file,
            )
        except DownloadError as error:
            raise KeySetError(f"its metadata {error}") from None
        return key_address(document, self._issuer)


def metadata_address(issuer: str, discovery: Discovery) -> str:
    """Where an issuer publishes its metadata.

    Behind its path in OpenID Connect Discovery 1.0 (section 4.1); between its host and its path in RFC 8414
    (section 3.1). A terminating slash of the issuer is left out in both.
    """
    if discovery == "openid":
        return issuer.removesuffix("/") + "/.well-known/openid-configuration"
    parts = urlsplit(issuer)
    return f"{parts.scheme}://{parts.netloc}/.well-known/oauth-authorization-server{parts.path.removesuffix('/')}"


def key_address(document: bytes, issuer: str) -> str:
    """The `jwks_uri` in the metadata of exactly this issuer (RFC 8414 section 3.3). Raises KeySetError."""
    try:
        metadata: dict[str, Any] = parse_object(document)
    except ValueError:
        raise KeySetError("its metadata is not a JSON object in strict UTF-8 without duplicate members") from None
    if metadata.get("issuer") != issuer:
        raise KeySetError("its metadata is that of another issuer; the two must be equal, character for character")
    url = metadata.get("jwks_uri")
    if not isinstance(url, str):
        raise KeySetError("its metadata names no jwks_uri")
    return url
