"""`authz token …`: what becomes of a token under some settings, and why."""

from __future__ import annotations

import io
import re
import sys
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.text import Text

from authz_middleware.cli.output import err, fail, out, tell
from authz_middleware.cli.token_advice import advice_for
from authz_middleware.errors import SettingsError
from authz_middleware.identity.compact import MAX_TOKEN
from authz_middleware.identity.inspection import Check, Inspection, Outcome, inspect_token
from authz_middleware.identity.keys.download import MAX_DOCUMENT
from authz_middleware.identity.principal import Principal
from authz_middleware.identity.tokens import MAX_TIME
from authz_middleware.settings import Settings

app = typer.Typer(help="Tokens.", no_args_is_help=True)

_LONGEST: Final = 200
_MOST: Final = 4 * MAX_TOKEN
_LOOKS_LIKE_TOKEN: Final = re.compile(r"[A-Za-z0-9_=+/-]{8,}(?:\.[A-Za-z0-9_=+/-]*){2,}")
_BEARER: Final = re.compile(r"(?i)(?:authorization:\s*)?bearer\s+")
_HEADER: Final = ("alg", "typ", "kid")
_IGNORED: Final = frozenset({"jku", "x5u", "jwk", "x5c", "x5t", "x5t#S256"})
_CLAIMS: Final = ("iss", "sub", "aud", "client_id", "azp", "scope", "scp", "roles", "jti", "txn", "acr")
_TIMES: Final = ("iat", "nbf", "exp", "auth_time")
_STYLES: Final = {Outcome.OK: "green", Outcome.REFUSED: "bold red", Outcome.UNKNOWN: "yellow"}


@app.callback()
def tokens() -> None:
    """Tokens."""


@app.command()
def inspect(
    settings: Annotated[
        Path, typer.Option("--settings", envvar="AUTHZ_SETTINGS", help="authz.toml, or a pyproject.toml.")
    ] = Path("authz.toml"),
    file: Annotated[
        list[str] | None, typer.Argument(help="A file with the token; without it, standard input.", show_default=False)
    ] = None,
    at: Annotated[
        str | None, typer.Option("--at", help="Judge as at this time: 2026-03-02T09:00:00Z.", show_default="now")
    ] = None,
    jwks: Annotated[
        Path | None, typer.Option("--jwks", help="A key set, where the settings name an address.", show_default=False)
    ] = None,
) -> None:
    """Explain whether a token would be accepted, and if not, why. Nothing is fetched, and the token is not shown.

    Revocations and proofs of possession are not looked at. Ends with 0 if it would be accepted, 1 if not or if that
    cannot be told, 2 if called wrongly.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a token may hold what this terminal cannot show
    where = _only(file or [])
    now = _moment(at)
    keys = None if jwks is None else _content(jwks, MAX_DOCUMENT, "--jwks")
    text = _token(where)
    try:
        known = Settings.from_toml(settings)
    except SettingsError as error:
        fail(error)
    inspection = inspect_token(text, known.issuers, now, jwks=keys, has_trust_domains=bool(known.trust_domains))
    _show(inspection, now)
    if not inspection.is_accepted:
        raise typer.Exit(1)


def _moment(at: str | None) -> float:
    if at is None:
        return time.time()
    try:
        moment = datetime.fromisoformat(at)
        if moment.tzinfo is not None:
            return moment.timestamp()
    except (ValueError, OverflowError):
        pass
    raise typer.BadParameter("must be a time with its zone, such as 2026-03-02T09:00:00Z", param_hint="--at")


def _token(file: str | None) -> str:
    """The token as it was given, without white space around it and without `Bearer`."""
    data = _standard_input() if file is None else _content(Path(file), _MOST, "FILE")
    text = data.decode("utf-8", "replace").strip()
    return _BEARER.sub("", text, count=1) if _BEARER.match(text) else text


def _standard_input() -> bytes:
    if sys.stdin is None:
        raise typer.BadParameter("is missing, and standard input is closed", param_hint="FILE")
    if sys.stdin.isatty():
        tell("note", "yellow", "paste the token, then press Enter and Ctrl-D", err)
    return sys.stdin.buffer.read(_MOST)


def _only(arguments: list[str]) -> str | None:
    """The one file there may be. What was given instead is not repeated: it may be the token."""
    if any(_LOOKS_LIKE_TOKEN.search(argument) and not _is_file(argument) for argument in arguments):
        raise typer.BadParameter(
            "holds a token itself, which others on this machine can see and the shell keeps in its history; have that "
            "token revoked if it still counts, and hand tokens over on standard input or in a file",
            param_hint="the command line",
        )
    if len(arguments) > 1:
        raise typer.BadParameter("must be one file, or none for standard input", param_hint="FILE")
    return arguments[0] if arguments else None


def _is_file(argument: str) -> bool:
    try:
        return Path(argument).is_file()
    except (OSError, ValueError):
        return False


def _content(path: Path, most: int, hint: str) -> bytes:
    try:
        with path.open("rb") as opened:
            return opened.read(most + 1)
    except OSError as error:
        raise typer.BadParameter(f"cannot be read: {error.strerror}", param_hint=hint) from None
    except ValueError:
        raise typer.BadParameter("is not a path", param_hint=hint) from None


def _show(inspection: Inspection, now: float) -> None:
    if inspection.header is not None:
        _section("header", _header_rows(inspection.header))
    if inspection.claims is not None:
        _section("claims, as the token states them", _claim_rows(inspection.claims, now))
    if inspection.principal is not None:
        _section("whom it establishes", _principal_rows(inspection.principal))
    out.print("checks", style="bold")
    for check in inspection.checks:
        _show_check(check, inspection)
    tell(*_verdict(inspection))


def _verdict(inspection: Inspection) -> tuple[str, str, str]:
    refusals = inspection.refusals
    if refusals:
        return "refused", "bold red", ", ".join(dict.fromkeys(str(check.detail) for check in refusals))
    if not inspection.is_accepted:
        return "undecided", "bold yellow", "nothing speaks against it, but not every check could be made"
    if inspection.binding is not None:
        return "accepted", "bold green", "together with a proof of possession"
    return "accepted", "bold green", "unless it has been revoked"


def _show_check(check: Check, inspection: Inspection) -> None:
    line = Text.assemble("  ", (f"{check.outcome.value:<8}", _STYLES[check.outcome]), f"{check.subject:<14}")
    if check.detail is not None:
        line.append(f"{check.detail}: {advice_for(check, inspection.issuer)}")
    else:
        line.append(check.why)
    line.rstrip()
    out.print(line)


def _section(title: str, rows: Iterator[tuple[str, str]]) -> None:
    out.print(title, style="bold")
    for name, value in rows:
        out.print(Text(f"  {name:<10} {value}"))


def _header_rows(header: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name in _HEADER:
        if name in header:
            yield name, _shown(header[name])
    others = [name for name in header if name not in _HEADER]
    if others:
        yield "others", ", ".join(_shown(name) + (" (never used)" if name in _IGNORED else "") for name in others)


def _claim_rows(claims: Mapping[str, Any], now: float) -> Iterator[tuple[str, str]]:
    for name in _CLAIMS:
        if name in claims:
            yield name, _shown(claims[name])
    for name in _TIMES:
        if name in claims:
            yield name, _date(claims[name], now)
    if "act" in claims:
        yield "act", " < ".join(_chain(claims["act"]))
    if "cnf" in claims:
        members = claims["cnf"]
        yield "cnf", ", ".join(map(_shown, members)) if isinstance(members, Mapping) else "no object"
    others = [name for name in claims if name not in {*_CLAIMS, *_TIMES, "act", "cnf"}]
    if others:
        yield "others", ", ".join(map(_shown, others))


def _chain(actor: Any) -> Iterator[str]:
    """Who acts, the party that makes the call first."""
    while isinstance(actor, Mapping):
        yield _shown(actor.get("sub"))
        actor = actor.get("act")


def _principal_rows(principal: Principal) -> Iterator[tuple[str, str]]:
    yield "subject", _shown(principal.subject)
    for name in ("kind", "client", "tenant", "task", "purpose", "environment"):
        value = getattr(principal, name)
        if value is not None:
            yield name, _shown(value)
    for name, words in (("scopes", principal.scopes), ("roles", principal.roles)):
        yield name, ", ".join(map(_shown, sorted(words))) or "none"
    if principal.actors:
        dropped = f", and {principal.dropped_actors} more" if principal.dropped_actors else ""
        yield "actors", " < ".join(f"{_shown(actor.id)} ({actor.kind})" for actor in principal.actors) + dropped


def _date(value: object, now: float) -> str:
    """A time for people, with its distance from the moment that counts."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_TIME:
        return f"{_shown(value)} (no time)"
    moment = datetime.fromtimestamp(value, UTC).isoformat(timespec="seconds")
    return f"{moment} ({_span(abs(value - now))} {'ahead' if value > now else 'ago'})"


def _span(seconds: float) -> str:
    for unit, length in (("day", 86_400), ("hour", 3600), ("minute", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length:.0f} {unit}s"
    return f"{seconds:.0f} s"


def _shown(value: object) -> str:
    """A value of an unverified token on one line: what a terminal could take for a command is escaped."""
    if isinstance(value, list):
        text = ", ".join(_shown(item) for item in value[:20]) + (", …" if len(value) > 20 else "")
    elif isinstance(value, str):
        text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in value[: _LONGEST + 1])
    elif isinstance(value, bool | int | float) or value is None:
        text = str(value)
    else:
        text = "an object"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
