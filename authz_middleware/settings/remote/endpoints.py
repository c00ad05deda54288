"""Where the APIs of the decision point are: at the default paths, where `[remote]` says, or where its metadata says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, get_args

import msgspec

from authz_middleware.address import Place, parse_place
from authz_middleware.settings.key_sources import ALGORITHMS
from authz_middleware.settings.section import Section
from authz_middleware.settings.urls import check_address, check_url

Api = Literal["evaluation", "evaluations", "search_subject", "search_resource", "search_action"]
APIS: Final[tuple[Api, ...]] = get_args(Api)

_KEYS_OF_DISCOVERY: Final = ("allowed_hosts", "discovery_deadline", "discovery_refresh", "metadata_keys")
_PUBLIC: Final = tuple(algorithm for algorithm in ALGORITHMS if not algorithm.startswith("HS"))


class MetadataKeys(msgspec.Struct, frozen=True):
    """Who signs the metadata: `issuer` is its `iss`. With them, metadata that they did not sign is not used."""

    jwks_file: Path
    algorithms: tuple[str, ...]
    issuer: str


class DiscoverySettings(msgspec.Struct, frozen=True):
    """The metadata of the decision point (AuthZEN 1.0, Policy Decision Point Metadata); times in seconds."""

    allowed_hosts: tuple[Place, ...] = ()
    """Where its endpoints may be beside the decision point's own host: the credential is sent there."""
    keys: MetadataKeys | None = None
    refresh: float = 300.0
    """Between two looks at the metadata."""
    deadline: float = 5.0
    """For one look altogether."""


class EndpointSettings(msgspec.Struct, frozen=True):
    """`given` are the endpoints that stand in the settings, which count more than what any metadata says. At most
    `max_batch` questions are put in one request; with 1 each is put by itself."""

    given: Mapping[Api, str] = {}
    discovery: DiscoverySettings | None = None
    max_batch: int = 50


def read_endpoints(remote: Section) -> EndpointSettings:
    """The keys about endpoints in `[remote]`."""
    return EndpointSettings(
        given=_given(remote),
        discovery=_discovery(remote),
        max_batch=remote.whole("max_batch", 50, least=1, most=1000),
    )


def _given(remote: Section) -> dict[Api, str]:
    given: dict[Api, str] = {}
    for api in APIS:
        key = f"{api}_endpoint"
        url = remote.text(key, None)
        if isinstance(url, str) and check_address(remote, key, url) is not None:
            given[api] = url
    return given


def _discovery(remote: Section) -> DiscoverySettings | None:
    if not remote.flag("discovery", False):
        for key in _KEYS_OF_DISCOVERY:
            if remote.raw(key) is not None:
                remote.problem(key, "means nothing without discovery = true")
        return None
    _check_reachable(remote)
    return DiscoverySettings(
        allowed_hosts=_hosts(remote),
        keys=_keys(remote),
        refresh=remote.duration("discovery_refresh", "5m", least="10s", most="1d"),
        deadline=remote.duration("discovery_deadline", "5s", least="100ms", most="30s"),
    )


def _check_reachable(remote: Section) -> None:
    url: Any = remote.raw("url")
    elsewhere = Section({}, "", [], remote.base)  # what else is wrong with it is told where it is read
    if isinstance(url, str) and check_url(elsewhere, "url", url):
        check_address(remote, "url", url)
    for key in ("unix_socket", "spiffe"):
        if key in remote:
            remote.problem("discovery", f"fetches metadata from the host of the url, not by {key}: name the endpoints")


def _hosts(remote: Section) -> tuple[Place, ...]:
    places = []
    for host in remote.texts("allowed_hosts", ()):
        try:
            places.append(parse_place(host))
        except ValueError:
            what = f'has {host!r}; accepted: a host in ASCII such as "pdp.example.com", perhaps with ":port"'
            remote.problem("allowed_hosts", what)
    return tuple(places)


def _keys(remote: Section) -> MetadataKeys | None:
    section = remote.optional_table("metadata_keys")
    if section is None:
        return None
    algorithms = section.texts("algorithms")
    for algorithm in algorithms:
        if algorithm not in _PUBLIC:
            section.problem("algorithms", f"has {algorithm!r}; accepted: {', '.join(_PUBLIC)}")
    keys = MetadataKeys(section.file("jwks_file"), algorithms, section.text("issuer", remote.raw("url")))
    section.done()
    return keys
