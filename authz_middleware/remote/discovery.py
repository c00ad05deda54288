"""Endpoints that are looked up in the decision point's own metadata: beforehand, and beside the questions.

A question reads what is known and nothing else. As long as nothing is known it is not put, and what it fails with says
whether the metadata could not be had (an outage) or must not be used (a fault). What was once known stays until there
is something newer that can be used.
"""

from __future__ import annotations

import logging
import ssl
import time
from collections.abc import Callable, Mapping
from typing import Final

from authz_middleware.identity.keys.download import DownloadError, download
from authz_middleware.identity.keys.key_set import FileKeys
from authz_middleware.remote.endpoints import NOT_OFFERED, Endpoints, FixedEndpoints
from authz_middleware.remote.failure import FailureKind, RemoteFailure
from authz_middleware.remote.messages.metadata import (
    MetadataError,
    metadata_url,
    read_metadata,
    read_signed_metadata,
)
from authz_middleware.settings.remote.decision_point import RemoteSettings
from authz_middleware.settings.remote.endpoints import Api, DiscoverySettings
from authz_middleware.strict_json import MAX_BODY
from authz_middleware.worker import Worker

logger = logging.getLogger("authz")

RETRY_S: Final = 1.0
"""After a failure, doubled with each further one; and between two looks that questions may cause."""
PENDING: Final = RemoteFailure(FailureKind.CONNECT, "discovery.pending", is_news=False)
UNREACHABLE: Final = RemoteFailure(FailureKind.CONNECT, "discovery.unreachable", is_news=False)

_MEDIA_TYPES: Final = ("application/json",)


def endpoints_of(settings: RemoteSettings, *, monotonic: Callable[[], float] = time.monotonic) -> Endpoints:
    """The endpoints that the settings ask for: fixed ones, or those that the metadata names."""
    discovery = settings.endpoints.discovery
    if discovery is None:
        return FixedEndpoints(settings.url, settings.endpoints.given)
    return DiscoveredEndpoints(settings, discovery, monotonic=monotonic)


class DiscoveredEndpoints:
    """The endpoints in the metadata of the decision point (AuthZEN 1.0, section 9); those in the settings count more.

    `clock` gives seconds since the epoch, for the times of signed metadata.
    """

    def __init__(
        self,
        settings: RemoteSettings,
        discovery: DiscoverySettings,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._identifier = settings.url
        self._ca_file = settings.ca_file
        self._given = settings.endpoints.given
        self._settings = discovery
        self._monotonic = monotonic
        self._clock = clock
        self._keys = None
        if discovery.keys is not None:
            name = f"metadata of {settings.url}"
            self._keys = FileKeys(discovery.keys.jwks_file, discovery.keys.algorithms, name=name, clock=clock)
        self._urls: Mapping[Api, str] = self._given
        self._absent = PENDING
        self._failures = 0
        self._looked_at = self._due_at = float("-inf")
        self._complaint: RemoteFailure | None = None
        self._worker = Worker(self._step, name="authz-discovery")

    def url(self, api: Api) -> str | RemoteFailure:
        """The URL of an API as it is known now. Never waits; sees to it that somebody looks where nobody has."""
        if self._worker.is_needed:
            self._worker.start()
        url = self._urls.get(api)
        if url is not None:
            return url
        if self._absent is not NOT_OFFERED:
            self._look_soon()
        return self._absent

    def start(self) -> None:
        """Look now, on this thread. No other one is started: a server may still fork its workers."""
        self._look()

    def close(self) -> None:
        """Look no more."""
        self._worker.close()

    def _look_soon(self) -> None:
        now = self._monotonic()
        if now - self._looked_at >= RETRY_S and self._due_at > now:
            self._due_at = now
            self._worker.wake()

    def _step(self) -> float:
        if self._due_at <= self._monotonic():
            self._look()
        return self._due_at - self._monotonic()

    def _look(self) -> None:
        self._looked_at = self._monotonic()
        try:
            urls: Mapping[Api, str] = {**self._found(), **self._given}
            if "evaluation" not in urls:
                raise MetadataError("discovery.no_evaluation")  # noqa: TRY301 - the same report as for all the rest
        except MetadataError as error:
            self._fail(RemoteFailure(FailureKind.CONFIG, error.code, is_news=False))
        except DownloadError as error:
            self._fail(_failure_of(error))
        except Exception:  # noqa: BLE001 - the worker must outlive what nobody foresaw
            self._fail(RemoteFailure(FailureKind.INTERNAL, "discovery", is_news=False))
        else:
            self._take(urls)

    def _found(self) -> Mapping[Api, str]:
        """What the metadata says now. Raises DownloadError, MetadataError."""
        document = download(
            metadata_url(self._identifier),
            deadline=self._settings.deadline,
            limit=MAX_BODY,
            media_types=_MEDIA_TYPES,
            ca_file=self._ca_file,
        )
        hosts, signer = self._settings.allowed_hosts, self._settings.keys
        if self._keys is None or signer is None:
            return read_metadata(document, self._identifier, hosts)
        self._keys.load()
        if self._keys.current is None:
            raise MetadataError("discovery.keys")
        return read_signed_metadata(
            document,
            self._identifier,
            hosts,
            keys=self._keys.current,
            issuer=signer.issuer,
            now=self._clock(),
        )

    def _take(self, urls: Mapping[Api, str]) -> None:
        if urls != self._urls or self._complaint is not None:
            logger.info("metadata of %s: in force, with %d endpoints", self._identifier, len(urls))
        # In this order: a question in between must not be told that an API is not offered which is.
        self._urls, self._absent = urls, NOT_OFFERED
        self._failures, self._complaint = 0, None
        self._due_at = self._monotonic() + self._settings.refresh

    def _fail(self, failure: RemoteFailure) -> None:
        if failure != self._complaint:
            # Once for each cause, however often it is looked for.
            kept = "what was known stays in force" if self._absent is NOT_OFFERED else "nothing is known"
            logger.warning("metadata of %s: %s %s; %s", self._identifier, failure.kind, failure.detail, kept)
        self._complaint = failure
        if self._absent is not NOT_OFFERED:
            self._absent = failure
        self._failures += 1
        pause = RETRY_S * 2.0 ** min(self._failures - 1, 16)
        self._due_at = self._monotonic() + min(pause, self._settings.refresh)


def _failure_of(error: DownloadError) -> RemoteFailure:
    """Nobody there is an outage. Whoever answers with something else than a document, or cannot prove to be the
    decision point, must not choose the fallback."""
    cause = error.__context__  # what the download met
    if isinstance(cause, ssl.SSLCertVerificationError):
        return RemoteFailure(FailureKind.CONFIG, "discovery.certificate", is_news=False)
    if isinstance(cause, OSError):  # a time-out and every other error of TLS are such errors as well
        return UNREACHABLE
    return RemoteFailure(FailureKind.CONFIG, "discovery.answer", is_news=False)
