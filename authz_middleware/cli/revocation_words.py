"""Revocations in words: times as people write and read them, and what an entry means."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from authz_middleware.boundary import LEEWAY_S
from authz_middleware.duration import parse_duration
from authz_middleware.revocation.entry import Revocation, Scope

BLOCK_S: Final = 30 * 86_400.0
"""How long what is not a cut-off lasts by default."""


def parse_time(text: str, now: float) -> float:
    """Seconds since the epoch of `now` or of an ISO 8601 time with its zone. Raises ValueError, which says what is
    accepted, also for a cut-off in the future: it is a slip, and would reach tokens that do not exist yet."""
    moment = now if text == "now" else _parse(text, "--before")
    if moment > now + LEEWAY_S:
        raise ValueError(
            f"--before is in the future; leave it out to revoke tokens that are yet to be issued: {text!r}"
        )
    return moment


def parse_end(for_: str | None, until: str | None, now: float, *, is_block: bool) -> float | None:
    """When a revocation ends: after a duration, at a time, by default after 30 days for a block, and None, the
    earliest end that is safe, for everything else. Raises ValueError, which says what is accepted."""
    if for_ is not None and until is not None:
        raise ValueError("--for and --until say the same; give one of them")
    if for_ is not None:
        seconds = parse_duration(for_)
        if seconds is None:
            raise ValueError(f"--for must be a duration such as 36h or 7d, not {for_!r}")
        return now + seconds
    if until is not None:
        return _parse(until, "--until")
    return now + BLOCK_S if is_block else None


def show_time(moment: float) -> str:
    """A time, as everybody on call reads it."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def describe(entry: Revocation) -> str:
    """What a revocation names: `actor 'agent-7' of any issuer`."""
    if entry.scope is Scope.EVERYTHING:
        return "everything"
    if entry.scope is Scope.ISSUER:
        return f"issuer {entry.issuer!r}"
    return f"{entry.scope.value} {entry.value!r} of {'any issuer' if entry.issuer is None else repr(entry.issuer)}"


def reach(entry: Revocation) -> str:
    """Which of the tokens that it names a revocation reaches."""
    if entry.scope is Scope.TOKEN:
        return "this one token"
    if entry.issued_before is None:
        return "all tokens, those yet to be issued too"
    return f"tokens issued until {show_time(entry.issued_before)}"


def span(entry: Revocation, now: float) -> str:
    """How much longer a revocation lasts, roughly."""
    left = entry.expires_at - now
    if left <= 0:
        return "ended"
    for unit, seconds in (("day", 86_400.0), ("hour", 3600.0), ("minute", 60.0)):
        count = int(left / seconds)
        if count:
            return f"{count} {unit}{'' if count == 1 else 's'} from now"
    return "less than a minute from now"


def _parse(text: str, option: str) -> float:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{option} must be a time such as 2026-03-02T09:00Z, not {text!r}") from None
    if moment.tzinfo is None:
        raise ValueError(f"{option} needs a time zone: {text}Z for UTC, {text}+01:00, …")
    return moment.timestamp()
