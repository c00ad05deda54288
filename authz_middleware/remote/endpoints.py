"""Where each API of a decision point is (AuthZEN 1.0, section 10.1), as far as that is known at the moment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol

from authz_middleware.remote.failure import FailureKind, RemoteFailure
from authz_middleware.settings.remote.endpoints import Api

DEFAULT_PATHS: Final[Mapping[Api, str]] = {
    "evaluation": "/access/v1/evaluation",
    "evaluations": "/access/v1/evaluations",
    "search_subject": "/access/v1/search/subject",
    "search_resource": "/access/v1/search/resource",
    "search_action": "/access/v1/search/action",
}
NOT_OFFERED: Final = RemoteFailure(FailureKind.CONFIG, "endpoint.not_offered", is_news=False)
"""The metadata names no such endpoint, by which the decision point says that it does not have that API."""


class Endpoints(Protocol):
    """Where the APIs are. `url` never waits and never does I/O."""

    def url(self, api: Api) -> str | RemoteFailure:
        """The URL of an API now, or why it cannot be asked."""
        ...

    def start(self) -> None:
        """Look up, blocking, what has to be looked up. Never raises, and starts no thread."""
        ...

    def close(self) -> None:
        """Look nothing up any more."""
        ...


class FixedEndpoints:
    """The default paths below the base URL, or what the settings give in their place."""

    def __init__(self, base: str, given: Mapping[Api, str]) -> None:
        self._urls = {api: base.rstrip("/") + path for api, path in DEFAULT_PATHS.items()} | dict(given)

    def url(self, api: Api) -> str | RemoteFailure:
        """The URL of an API."""
        return self._urls[api]

    def start(self) -> None:
        """Nothing has to be looked up."""

    def close(self) -> None:
        """Likewise."""
