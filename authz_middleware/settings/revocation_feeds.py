"""Below the table `revocations`: where revocations are learned from, beside people.

`[[revocations.status_lists]]`, `[[revocations.lists]]` and `[[revocations.transmitters]]`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import msgspec

from authz_middleware.address import Place, parse_address, parse_place
from authz_middleware.errors import Problem
from authz_middleware.settings.secret import Secret
from authz_middleware.settings.section import Section
from authz_middleware.settings.urls import check_address

PUBLIC_KEY_ALGORITHMS: Final = (
    *("ES256", "ES384", "ES512", "EdDSA"),
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
)
"""Whoever can check a feed must not be able to write it."""

SubjectFormat = Literal["opaque", "email"]
SUBJECT_FORMATS: Final[tuple[SubjectFormat, ...]] = ("opaque", "email")
_AT_HAND: Final = ("jwks_file", "jwks")
_SOURCES: Final = ("jwks_uri", *_AT_HAND)
_MAX_NAME: Final = 190


class KeySource(msgspec.Struct, frozen=True):
    """Whose signature a feed carries. Exactly one of the three is set."""

    algorithms: tuple[str, ...]
    jwks_uri: str | None = None
    jwks_file: Path | None = None
    jwks: Mapping[str, Any] | None = None


class StatusListSettings(msgspec.Struct, frozen=True):
    """The status lists of one issuer's tokens; all times in seconds."""

    issuer: str
    hosts: tuple[Place, ...] = ()
    """Where its lists may be fetched from."""
    uris: tuple[str, ...] = ()
    """Lists that are fetched before the first request names them."""
    refresh: float = 60.0
    """Between two fetches of one list; its own `ttl` may shorten it."""
    max_age: float = 900.0
    """For how long a list serves when no newer one can be had."""
    max_lifetime: float = 86_400.0
    """For how long after its `iat` a list serves, whatever its `exp`."""
    max_lists: int = 16
    ca_file: Path | None = None
    ignore: str | None = None
    """Why the status of this issuer's tokens is not looked at, where somebody has chosen so."""


class SignedListSettings(msgspec.Struct, frozen=True):
    """A signed list of revocations at a path or an https address; all times in seconds."""

    name: str
    issuer: str
    keys: KeySource
    path: Path | None = None
    url: str | None = None
    refresh: float = 10.0
    max_age: float = 300.0
    """For how long the last list serves when none can be read or verified."""
    kept: Path | None = None
    """Where the last good list is kept, so that a restart does not forget how far the serial had come."""
    ca_file: Path | None = None


class TransmitterSettings(msgspec.Struct, frozen=True):
    """Somebody who pushes security events: the `iss` and `aud` of the events, and whose subjects they may be about."""

    issuer: str
    audience: tuple[str, ...]
    about: tuple[str, ...]
    """Token issuers whose subjects, sessions and tokens this transmitter may revoke."""
    keys: KeySource
    credential: Secret | None = None
    """The bearer token that it must show."""
    subjects: frozenset[SubjectFormat] = frozenset()
    """Subject formats without an issuer that hold the `sub` of the tokens of `about`, word for word."""


class FeedSettings(msgspec.Struct, frozen=True):
    """Every feed of revocations."""

    status_lists: tuple[StatusListSettings, ...] = ()
    lists: tuple[SignedListSettings, ...] = ()
    transmitters: tuple[TransmitterSettings, ...] = ()


def read_feeds(section: Section) -> FeedSettings:
    """The feeds in the table `revocations`, whose other keys are left to the caller."""
    feeds = FeedSettings(
        status_lists=tuple(map(_status_list, section.array("status_lists"))),
        lists=tuple(map(_signed_list, section.array("lists"))),
        transmitters=tuple(map(_transmitter, section.array("transmitters"))),
    )
    _check_once(section, "status_lists", "issuer", (entry.issuer for entry in feeds.status_lists))
    _check_once(section, "lists", "name", (entry.name for entry in feeds.lists))
    _check_once(section, "transmitters", "issuer", (entry.issuer for entry in feeds.transmitters))
    return feeds


def feed_problems(feeds: FeedSettings, issuers: Iterable[str]) -> list[Problem]:
    """What feeds say of token issuers that the settings do not have."""
    known = frozenset(issuers)
    named = [
        *((f"revocations.status_lists[{i}].issuer", entry.issuer) for i, entry in enumerate(feeds.status_lists)),
        *(
            (f"revocations.transmitters[{i}].about", issuer)
            for i, entry in enumerate(feeds.transmitters)
            for issuer in entry.about
        ),
    ]
    return [
        Problem(where, f"names {issuer!r}, which no entry of issuers has")
        for where, issuer in named
        if issuer not in known
    ]


def _status_list(section: Section) -> StatusListSettings:
    issuer, ignore = section.text("issuer"), section.text("ignore", None)
    if ignore is not None:
        section.done()
        return StatusListSettings(issuer, ignore=ignore)
    settings = StatusListSettings(
        issuer=issuer,
        hosts=_parsed(section, "hosts", section.texts("hosts"), parse_place, "a host, perhaps with a port"),
        uris=section.texts("uris", ()),
        refresh=section.duration("refresh", "1m", least="5s", most="1h"),
        max_age=section.duration("max_age", "15m", least="10s", most="1d"),
        max_lifetime=section.duration("max_lifetime", "1d", least="1m", most="30d"),
        max_lists=section.whole("max_lists", 16, least=1, most=1024),
        ca_file=section.file("ca_file", None),
    )
    _check_age(section, settings.refresh, settings.max_age)
    addresses = _parsed(section, "uris", settings.uris, parse_address, "https addresses")
    if any(address.place not in settings.hosts for address in addresses):
        section.problem("uris", "has an address on a host that is not in hosts")
    if len(settings.uris) > settings.max_lists:
        section.problem("uris", "has more addresses than max_lists")
    section.done()
    return settings


def _signed_list(section: Section) -> SignedListSettings:
    path, url = section.file("path", None), section.text("url", None)
    if (path is None) is (url is None):
        section.problem("", 'needs exactly one of path = "…" and url = "https://…"')
    if url is not None:
        check_address(section, "url", url)
    settings = SignedListSettings(
        name=_name(section, "name"),
        issuer=section.text("issuer"),
        # Not fetched: the list is for the hour in which nothing that is fetched can be trusted.
        keys=_keys(section, _AT_HAND),
        path=path,
        url=url,
        refresh=section.duration("refresh", "10s", least="1s", most="1h"),
        max_age=section.duration("max_age", "5m", least="5s", most="1d"),
        kept=section.file("kept", None),
        ca_file=section.file("ca_file", None),
    )
    _check_age(section, settings.refresh, settings.max_age)
    section.done()
    return settings


def _transmitter(section: Section) -> TransmitterSettings:
    settings = TransmitterSettings(
        issuer=_name(section, "issuer"),
        audience=section.texts("audience"),
        about=section.texts("about"),
        keys=_keys(section, _SOURCES),
        credential=section.secret("credential"),
        subjects=_subject_formats(section),
    )
    if settings.subjects and len(settings.about) != 1:
        section.problem(
            "subjects", "needs exactly one issuer in about: those formats do not say whose subject they mean"
        )
    section.done()
    return settings


def _name(section: Section, key: str) -> Any:
    """A text that revocations carry as their source."""
    name = section.text(key)
    if isinstance(name, str) and not (name.isprintable() and len(name) <= _MAX_NAME):
        section.problem(key, f"must be printable text of at most {_MAX_NAME} characters")
    return name


def _subject_formats(section: Section) -> frozenset[SubjectFormat]:
    named = section.texts("subjects", ())
    for format_ in named:
        if format_ not in SUBJECT_FORMATS:
            section.problem("subjects", f"has {format_!r}; accepted: {', '.join(SUBJECT_FORMATS)}")
    return frozenset(format_ for format_ in SUBJECT_FORMATS if format_ in named)


def _keys(section: Section, sources: tuple[str, ...]) -> KeySource:
    uri = section.text("jwks_uri", None) if "jwks_uri" in sources else None
    file, inline = section.file("jwks_file", None), section.raw("jwks")
    if sum(source is not None for source in (uri, file, inline)) != 1:
        section.problem("", f"needs exactly one of {', '.join(sources)}")
    if uri is not None:
        check_address(section, "jwks_uri", uri)
    if inline is not None and not isinstance(inline, Mapping):
        section.problem("jwks", "must be a JSON Web Key Set: a table with the key 'keys'")
        inline = None
    algorithms = section.texts("algorithms")
    for algorithm in algorithms:
        if algorithm not in PUBLIC_KEY_ALGORITHMS:
            section.problem("algorithms", f"has {algorithm!r}; accepted: {', '.join(PUBLIC_KEY_ALGORITHMS)}")
    return KeySource(algorithms, uri, file, inline)


def _check_age(section: Section, refresh: float, max_age: float) -> None:
    if max_age < refresh:
        section.problem("max_age", "must not be shorter than refresh")


def _check_once(section: Section, array: str, key: str, names: Iterable[str]) -> None:
    listed = [name for name in names if name]
    for name in sorted({name for name in listed if listed.count(name) > 1}):
        section.problem(array, f"has two entries with the {key} {name!r}")


T = TypeVar("T")


def _parsed(
    section: Section, key: str, texts: Iterable[str], parse: Callable[[str], T], accepted: str
) -> tuple[T, ...]:
    values = []
    for text in texts:
        try:
            values.append(parse(text))
        except ValueError:
            section.problem(key, f"has {text!r}; accepted: {accepted}")
    return tuple(values)
