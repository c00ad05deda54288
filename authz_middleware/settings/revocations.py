"""The table `[revocations]`: where revocations are kept, and what happens to whom while they cannot be read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlsplit

import msgspec

from authz_middleware.permission import ACTION_NAME
from authz_middleware.settings.model import covers
from authz_middleware.settings.revocation_feeds import FeedSettings, read_feeds
from authz_middleware.settings.secret import Secret
from authz_middleware.settings.section import Section

_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_PORT: Final = 6379
_DATABASE: Final = re.compile(r"/?(?:[0-9]{1,4})?")
_PREFIX: Final = re.compile(r"[A-Za-z0-9_.:-]{1,100}")


class OnUnavailable(msgspec.Struct, frozen=True):
    """What happens while revocations cannot be read: `deny` refuses; `last_known` decides by what was known last, for
    at most `max_age` seconds, and refuses then."""

    mode: Literal["deny", "last_known"]
    max_age: float = 0.0


class UnavailableSettings(msgspec.Struct, frozen=True):
    """The choices by action pattern; `default` is for all others."""

    default: OnUnavailable
    actions: Mapping[str, OnUnavailable] = {}

    def choice_for(self, action: str) -> OnUnavailable:
        """The choice of the longest pattern that covers this action, else the default."""
        fitting = [pattern for pattern in self.actions if covers(pattern, action)]
        return self.actions[max(fitting, key=len)] if fitting else self.default


class RedisSettings(msgspec.Struct, frozen=True):
    """A Redis server. `prefix` begins the names of all keys and of the channel: who shares it shares revocations."""

    host: str
    port: int = _PORT
    database: int = 0
    tls: bool = True
    username: str | None = None
    password: Secret | None = None
    ca_file: Path | None = None
    prefix: str = "authz:revocations"


class RevocationSettings(msgspec.Struct, frozen=True):
    """Where revocations are kept: in `file`, in `redis`, or, with neither, in the memory of each process.

    `max_lag` is for how long, in seconds, what is known from Redis counts without a sign that it is complete.
    """

    on_unavailable: UnavailableSettings
    file: Path | None = None
    redis: RedisSettings | None = None
    max_lag: float = 5.0
    feeds: FeedSettings = FeedSettings()


def read_revocations(root: Section) -> RevocationSettings | None:
    """The table, or None where there is none: then nothing can be revoked."""
    section = root.optional_table("revocations")
    if section is None:
        return None
    store = section.text("store")
    kind, _, path = store.partition(":") if isinstance(store, str) else ("", "", "")
    redis = section.optional_table("redis")
    settings = RevocationSettings(
        on_unavailable=_on_unavailable(section.table("on_unavailable")),
        file=section.base / path if kind == "file" and path else None,
        redis=None if redis is None else _redis(redis),
        max_lag=section.duration("max_lag", "5s", least="500ms", most="5m"),
        feeds=read_feeds(section),
    )
    if isinstance(store, str) and not (store in ("memory", "redis") or settings.file):
        section.problem("store", 'must be "file:PATH", "redis" or "memory"')  # not shown: it may hold a password
    if (store == "redis") is (redis is None):
        section.problem("redis", 'is the table that store = "redis" needs, and that no other store has')
    if "max_lag" in section and store != "redis":
        section.problem("max_lag", 'is for store = "redis"; the others have no lag')
    _check_memory(section, store)
    section.done()
    return settings


def _check_memory(section: Section, store: object) -> None:
    alone = section.flag("per_process", False)
    if store == "memory" and not alone:
        section.problem(
            "per_process",
            "must be true: kept in memory, a revocation is known to one worker, reached by no command and gone with "
            'it, and somebody has to say so; store = "file:PATH" is shared by the workers of a host',
        )
    elif store != "memory" and alone:
        section.problem("per_process", 'is for store = "memory"; the others are shared')


def _on_unavailable(section: Section) -> UnavailableSettings:
    for pattern in section.table("actions").keys():  # noqa: SIM118 - a Section is not a mapping
        if pattern != "*" and not ACTION_NAME.fullmatch(pattern.removesuffix(":*")):
            accepted = "an action (invoice:read), all below one (invoice:*), or *"
            section.problem(f"actions.{pattern}", f"is no action pattern; accepted: {accepted}")
    settings = UnavailableSettings(
        default=_default(section),
        actions={name: _choice(entry) for name, entry in section.tables("actions")},
    )
    section.done()
    return settings


def _default(section: Section) -> OnUnavailable:
    if isinstance(section.raw("default"), Mapping):
        return _choice(section.table("default"))
    accepted = '"deny", or { mode = "last_known", max_age = "5m" }'
    if section.raw("default") != "deny":
        what = "must be" if "default" in section else "is required: while revocations cannot be read,"
        section.problem("default", f"{what} {accepted}")
    return OnUnavailable("deny")


def _choice(section: Section) -> OnUnavailable:
    mode = section.choice("mode", ("deny", "last_known"))
    max_age = 0.0
    if mode == "last_known":
        max_age = section.duration("max_age", least="1s", most="1d")
    section.done()
    return OnUnavailable(mode or "deny", max_age or 0.0)


def _redis(section: Section) -> RedisSettings:
    address = _address(section, section.text("url"))
    settings = RedisSettings(
        **address,
        username=section.text("username", None),
        password=section.secret("password"),
        ca_file=section.file("ca_file", None),
        prefix=section.text("prefix", "authz:revocations"),
    )
    if settings.username is not None and settings.password is None:
        section.problem("password", "is required with username")
    if not isinstance(settings.prefix, str) or not _PREFIX.fullmatch(settings.prefix):
        section.problem("prefix", "must be at most 100 letters, digits and any of _.:-")
    section.done()
    return settings


def _address(section: Section, url: Any) -> dict[str, Any]:
    """Host, port, database and TLS of `rediss://HOST:PORT/DATABASE`."""
    unknown = {"host": "", "port": _PORT, "database": 0, "tls": True}
    if not isinstance(url, str):
        return unknown
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        section.problem("url", "is not a URL")
        return unknown
    # The value is not shown: people put passwords there.
    if parts.scheme not in ("redis", "rediss") or not parts.hostname or not _DATABASE.fullmatch(parts.path):
        section.problem("url", "must be rediss://HOST, rediss://HOST:PORT or rediss://HOST:PORT/DATABASE")
    elif parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        section.problem("url", "must hold no credentials, query or fragment; name them in username and password")
    elif parts.scheme == "redis" and parts.hostname not in _LOOPBACK:
        section.problem("url", "must be a rediss URL (TLS); plain redis is for loopback addresses only")
    return {
        "host": parts.hostname or "",
        "port": port or _PORT,
        "database": int(parts.path.strip("/") or 0) if _DATABASE.fullmatch(parts.path) else 0,
        "tls": parts.scheme == "rediss",
    }
