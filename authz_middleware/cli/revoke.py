"""`authz revoke …`: take back what was given.

Whoever runs it may be in a hurry: it says what it has done, where, until when, and how to undo it.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Final

import typer

from authz_middleware.cli.output import err, fail, out, tell
from authz_middleware.cli.revocation_store import SOURCE, FileOption, Place, SettingsOption, misuse, open_place, stop
from authz_middleware.cli.revocation_words import describe, parse_end, parse_time, reach, show_time, span
from authz_middleware.errors import AuthzError
from authz_middleware.revocation.entry import Revocation, RevocationError, Scope, new_revocation
from authz_middleware.revocation.store import RevocationStore

_OPTIONS: Final = {"issuer": "--issuer", "value": "ID", "issued_before": "--before", "expires_at": "--for or --until"}

_OF_ONE_ISSUER: Final = frozenset({Scope.TOKEN, Scope.SUBJECT, Scope.CLIENT, Scope.KEY})


def revoke(
    scope: Annotated[Scope, typer.Argument(help="What to revoke.", show_default=False)],
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[ID]",
            help="Which: a token's jti, a subject, actor, client, task, transaction, issuer or key id.",
            show_default=False,
        ),
    ] = None,
    *,
    reason: Annotated[str, typer.Option(help="Why.", show_default=False)],
    owner: Annotated[str, typer.Option(help="Who answers for it.", show_default=False)],
    issuer: Annotated[
        str | None, typer.Option(help="Whose (iss).", show_default="the only issuer of the settings; any, for an actor")
    ] = None,
    before: Annotated[
        str | None,
        typer.Option(
            help="Only tokens issued until then: now, or 2026-03-02T09:00Z. Later tokens are accepted.",
            show_default="all tokens",
        ),
    ] = None,
    for_: Annotated[
        str | None, typer.Option("--for", help="For how long: 7d.", show_default="30d, or what outlives the tokens")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Until when: 2026-03-02T09:00Z.", show_default=False)] = None,
    settings: SettingsOption = Path("authz.toml"),
    file: FileOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask, not even about everything.")] = False,
) -> None:
    """Revoke tokens, by what they say. It counts from the next decision of every process that shares the store.

    token ID, subject ID, client ID, key ID: of one issuer. actor ID, task ID, transaction ID: of any issuer, or of
    --issuer. issuer URL: all of its tokens. everything: all tokens of all issuers.
    """
    now = time.time()
    place = open_place(settings, file)
    try:
        entry = new_revocation(
            scope,
            issuer=_issuer(scope, name, issuer, place),
            value=None if scope is Scope.ISSUER else name,
            issued_before=parse_time(before, now) if before is not None else None,
            reason=reason,
            owner=owner,
            source=SOURCE,
            now=now,
            expires_at=parse_end(for_, until, now, is_block=before is None and scope is not Scope.TOKEN),
        )
    except RevocationError as error:
        misuse([f"{_OPTIONS.get(problem.where, f'--{problem.where}')} {problem.what}" for problem in error.problems])
    except ValueError as error:
        misuse([str(error)])
    if scope is Scope.EVERYTHING and not yes:
        _confirm(entry, place)
    _report(_write(place.store, entry), place, now)


def _issuer(scope: Scope, name: str | None, issuer: str | None, place: Place) -> str | None:
    """The issuer that is meant: the one that is named, or the only one there is. A name that no token can carry would
    revoke nothing, and say that it did."""
    if scope is Scope.ISSUER:
        if issuer is not None:
            raise ValueError("--issuer is for what belongs to an issuer; here the issuer itself is the ID")
        issuer = name
    if scope is Scope.EVERYTHING or place.issuers is None:
        return issuer
    known = f"the settings have {', '.join(place.issuers)}"
    if issuer is None and scope in _OF_ONE_ISSUER:
        if len(place.issuers) != 1:
            raise ValueError(f"--issuer is required to revoke a {scope.value}; {known}")
        return place.issuers[0]
    if issuer is not None and issuer not in place.issuers and scope is not Scope.ACTOR:
        raise ValueError(f"{issuer!r} is not an issuer whose tokens are accepted; {known}")
    return issuer


def _confirm(entry: Revocation, place: Place) -> None:
    tell("everything", "bold red", f"{reach(entry)}, of every issuer, for all who use {place.name}", err)
    try:
        confirmed = typer.confirm("Refuse every request that needs a token?", err=True)
    except typer.Abort:
        confirmed = False
    if not confirmed:
        stop("nothing was revoked; say yes, or give --yes")


def _write(store: RevocationStore, entry: Revocation) -> Revocation:
    """Write it, and read it back: an earlier one of the same kind may last longer."""
    try:
        store.add([entry])
    except AuthzError as error:
        tell("NOT revoked", "bold red", describe(entry), err)
        fail(error)
    try:
        return next((known for known in store.entries() if known.id == entry.id), entry)
    except AuthzError:
        return entry
    finally:
        store.close()


def _report(entry: Revocation, place: Place, now: float) -> None:
    tell("revoked", "bold red", describe(entry))
    rows = (
        ("id", entry.id),
        ("reaches", reach(entry)),
        ("until", f"{show_time(entry.expires_at)}, {span(entry, now)}"),
        ("reason", entry.reason),
        ("owner", entry.owner),
        ("store", place.name),
        ("to undo", f"authz revocations lift {entry.id} {place.option}"),
    )
    for label, value in rows:
        out.print(f"  {label:<9}{value}", markup=False)
