"""Where the commands about revocations find them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final, NoReturn

import msgspec
import typer

from authz_middleware.cli.output import err, fail, tell
from authz_middleware.errors import AuthzError, SettingsError
from authz_middleware.identity.connection.certificate import X509_ISSUER
from authz_middleware.revocation.entry import Revocation
from authz_middleware.revocation.guard import open_store
from authz_middleware.revocation.memory import MemoryStore
from authz_middleware.revocation.redis import RedisStore
from authz_middleware.revocation.sqlite import SqliteStore
from authz_middleware.revocation.store import RevocationStore
from authz_middleware.settings import Settings

SOURCE: Final = "cli"
"""The source of what people revoke by hand."""

SettingsOption = Annotated[
    Path,
    typer.Option("--settings", envvar="AUTHZ_SETTINGS", help="authz.toml, or a pyproject.toml."),
]
FileOption = Annotated[
    Path | None,
    typer.Option(
        "--file", help="The store's file itself, where the settings are not in a TOML file.", show_default=False
    ),
]


class Place(msgspec.Struct):
    """Where revocations are kept, in words too; whose tokens the application accepts (None: not known); and the option
    that leads here."""

    store: RevocationStore
    name: str
    issuers: tuple[str, ...] | None
    option: str


def open_place(path: Path, file: Path | None) -> Place:
    """The store that a file of settings names, or the one in `file`; without one, say so and end with status 1."""
    if file is not None:
        return _existing(SqliteStore(file), None, f"--file {file}")
    try:
        settings = Settings.from_toml(path)
        if settings.revocations is None:
            stop(f"{path} has no table [revocations]: the application looks at no revocations")
        store = open_store(settings.revocations)
    except SettingsError as error:
        if not path.exists():
            tell("note", "yellow", "name the settings with --settings, or the store with --file", err)
        fail(error)
    if isinstance(store, MemoryStore):
        stop(f'{path} has revocations.store = "memory": each process keeps its own, and no command reaches them')
    return _existing(store, _issuers_of(settings), f"--settings {path}")


def _issuers_of(settings: Settings) -> tuple[str, ...]:
    """Every issuer that a principal of the application can have: that of a workload need not issue any token."""
    return (
        *(issuer.issuer for issuer in settings.issuers),
        *(f"spiffe://{domain.name}" for domain in settings.trust_domains),
        *((X509_ISSUER,) if settings.certificates else ()),
    )


def _existing(store: RevocationStore, issuers: tuple[str, ...] | None, option: str) -> Place:
    """A file that is not there is not made: the application may be looking at another one."""
    name = store.url if isinstance(store, RedisStore) else ""
    if isinstance(store, SqliteStore):
        name = str(store.path.absolute())
        if not store.path.exists():
            stop(
                f"there is no store of revocations at {name}; check the path, or start the application, which makes one"
            )
    return Place(store, name, issuers, option)


def read_entries(store: RevocationStore) -> Sequence[Revocation]:
    """All that the store has, or the end with status 1."""
    try:
        return store.entries()
    except AuthzError as error:
        fail(error)
    finally:
        store.close()


def stop(what: str) -> NoReturn:
    """Say why it cannot be done, and end with status 1."""
    tell("error", "bold red", what, err)
    raise typer.Exit(1)


def misuse(problems: Sequence[str]) -> NoReturn:
    """Say what is wrong with the call, and end with status 2."""
    for problem in problems:
        tell("error", "bold red", problem, err)
    raise typer.Exit(2)
