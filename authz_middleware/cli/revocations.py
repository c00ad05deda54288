"""`authz revocations …`: what has been revoked, and how to lift it again."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer

from authz_middleware.cli.output import err, fail, out, tell
from authz_middleware.cli.revocation_store import SOURCE, FileOption, SettingsOption, open_place, read_entries, stop
from authz_middleware.cli.revocation_words import describe, reach, show_time, span
from authz_middleware.errors import AuthzError
from authz_middleware.revocation.entry import Revocation
from authz_middleware.revocation.guard import API

app = typer.Typer(help="What has been revoked.", invoke_without_command=True)

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
AllOption = Annotated[bool, typer.Option("--all", help="Those that have ended lately too.")]

_SHORTEST: Final = 4
"""The fewest characters of an id that tell it apart."""


@app.callback()
def revocations(
    context: typer.Context,
    settings: SettingsOption = Path("authz.toml"),
    file: FileOption = None,
    json: JsonOption = False,
    all_: AllOption = False,
) -> None:
    """List what is revoked, the latest first."""
    if context.invoked_subcommand is None:
        list_(settings, file, json, all_)


@app.command("list")
def list_(
    settings: SettingsOption = Path("authz.toml"),
    file: FileOption = None,
    json: JsonOption = False,
    all_: AllOption = False,
) -> None:
    """List what is revoked, the latest first."""
    now = time.time()
    place = open_place(settings, file)
    entries = [entry for entry in read_entries(place.store) if all_ or entry.is_effective(now)]
    entries.sort(key=lambda entry: (-entry.created_at, entry.id))
    if json:
        typer.echo(msgspec.json.format(msgspec.json.encode([_plain(entry, now) for entry in entries])).decode())
        return
    for entry in entries:
        _show(entry, now)
    tell(place.name, "bold", f"{len(entries)} in force" if not all_ else f"{len(entries)} in force or lately ended")


@app.command()
def lift(
    ids: Annotated[list[str], typer.Argument(help="Ids of revocations, or how they begin.", show_default=False)],
    settings: SettingsOption = Path("authz.toml"),
    file: FileOption = None,
) -> None:
    """Take revocations back. Tokens that are still valid are accepted again from the next decision on."""
    now = time.time()
    place = open_place(settings, file)
    chosen = _choose(ids, read_entries(place.store))
    try:
        place.store.withdraw([entry.id for entry in chosen])
    except AuthzError as error:
        fail(error)
    finally:
        place.store.close()
    for entry in chosen:
        tell("lifted", "bold green", f"{entry.id}  {describe(entry)}")
        if entry.source not in (SOURCE, API) and entry.is_effective(now):
            tell("note", "yellow", f"it came from {entry.source!r}, which may put it back; lift it there too", err)


def _show(entry: Revocation, now: float) -> None:
    tell(entry.id, "bold" if entry.is_effective(now) else "dim", f"{describe(entry)}; {reach(entry)}")
    until = f"until {show_time(entry.expires_at)}, {span(entry, now)}"
    out.print(f"  {until}; {entry.owner} ({entry.source}): {entry.reason}", markup=False)


def _plain(entry: Revocation, now: float) -> dict[str, object]:
    members = {name: getattr(entry, name) for name in entry.__struct_fields__}
    return {**members, "in_force": entry.is_effective(now)}


def _choose(ids: Sequence[str], entries: Sequence[Revocation]) -> list[Revocation]:
    """The one entry that each of these begins; nothing is lifted unless all are found."""
    chosen: list[Revocation] = []
    for start in ids:
        found = [entry for entry in entries if entry.id.startswith(start) and len(start) >= _SHORTEST]
        if len(found) != 1:
            what = "is no revocation" if not found else f"begins {len(found)} of them"
            stop(f"{start!r} {what}; nothing was lifted. authz revocations lists them")
        chosen += found
    return chosen
