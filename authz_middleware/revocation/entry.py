"""One revocation: what it names, why, who answers for it, and until when.

A revocation names claims (RFC 7519), never the text of a token: the same claims in another encoding or under another
signature are revoked with it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from enum import StrEnum
from typing import Final

import msgspec

from authz_middleware.boundary import LEEWAY_S
from authz_middleware.errors import Problem, ProblemsError
from authz_middleware.identity.claims.values import MAX_TEXT, is_text

LONGEST_LIFE_S: Final = 86_400.0
"""The most that an issuer's `max_lifetime` may be."""

OUTLIVES_S: Final = LONGEST_LIFE_S + 2 * LEEWAY_S
"""Whatever token exists at a moment is over this many seconds later: it was issued by a clock that may run ahead by the
leeway, and is accepted for the leeway after its `exp`."""

LAST_MOMENT: Final = 253_402_300_799.0
"""The end of the year 9999: nobody who lists revocations could show a later time."""

MAX_WORDS: Final = 200
"""The most characters of a reason, an owner or a source."""


class Scope(StrEnum):
    """What a revocation names."""

    TOKEN = "token"  # noqa: S105 - a word, no secret
    """One token, by issuer and `jti`."""
    SUBJECT = "subject"
    """Whoever the issuer calls so (`sub`)."""
    ACTOR = "actor"
    """A party anywhere in the chain of actors (`act`), or acting on its own."""
    CLIENT = "client"
    """An OAuth client of the issuer."""
    TASK = "task"
    """A task."""
    TRANSACTION = "transaction"
    """A transaction (`txn`)."""
    ISSUER = "issuer"
    """Every token of an issuer."""
    KEY = "key"
    """Every token that a key of the issuer has signed (`kid`)."""
    EVERYTHING = "everything"
    """Every token there is: the kill switch."""


class _Form(msgspec.Struct, frozen=True):
    """What a revocation of one scope has to say: True, it must; False, it may; None, it cannot."""

    issuer: bool | None
    value: bool | None
    issued_before: bool | None = False


_FORMS: Final = {
    Scope.TOKEN: _Form(issuer=True, value=True, issued_before=None),
    Scope.SUBJECT: _Form(issuer=True, value=True),
    Scope.ACTOR: _Form(issuer=False, value=True),
    Scope.CLIENT: _Form(issuer=True, value=True),
    Scope.TASK: _Form(issuer=False, value=True),
    Scope.TRANSACTION: _Form(issuer=False, value=True),
    Scope.ISSUER: _Form(issuer=True, value=None),
    Scope.KEY: _Form(issuer=True, value=True),
    Scope.EVERYTHING: _Form(issuer=None, value=None),
}


class RevocationError(ProblemsError):
    """A revocation that cannot mean anything, or would end before the tokens it names."""

    heading = "this revocation cannot be made"


class Revocation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One revocation. Make it with `new_revocation`; one that is decoded passes the same checks.

    `value` is the token id, subject, actor, client, task, transaction or key id that `scope` speaks of; without
    `issuer`, where that is allowed, it means those of every issuer. With `issued_before` only tokens whose `iat` is not
    later are revoked. Times are seconds since the epoch. Raises RevocationError.
    """

    scope: Scope
    issuer: str | None = None
    value: str | None = None
    issued_before: float | None = None
    reason: str
    owner: str
    """Who answers for it."""
    source: str
    """Who put it there: `cli`, `api`, or the name of a feed."""
    created_at: float
    expires_at: float
    id: str
    """Stable: the same scope, issuer, value, cut-off and source have the same id."""

    def __post_init__(self) -> None:
        problems = [*_problems_of_form(self), *_problems_of_words(self), *_problems_of_times(self)]
        if not problems and self.id != _identify(self.scope, self.issuer, self.value, self.issued_before, self.source):
            problems.append(Problem("id", "is not the id of this revocation"))
        if problems:
            raise RevocationError(problems)

    def is_effective(self, now: float) -> bool:
        """Whether it counts at `now`."""
        return not now >= self.expires_at

    def covers(self, issued_at: float) -> bool:
        """Whether it reaches a token that was issued then; an unknown time (NaN) is reached."""
        return self.issued_before is None or not issued_at > self.issued_before

    def strengthened(self, other: Revocation) -> Revocation:
        """Of two revocations with one id, the one that stays: the one that ends later. The order does not matter."""
        return max(self, other, key=_strength)


def new_revocation(
    scope: Scope,
    *,
    issuer: str | None = None,
    value: str | None = None,
    issued_before: float | None = None,
    reason: str,
    owner: str,
    source: str,
    now: float,
    expires_at: float | None = None,
    token_expires_at: float | None = None,
) -> Revocation:
    """A revocation that is made at `now`.

    It ends at `expires_at`, by default as soon as every token it can name today is over. A shorter life would bring
    tokens back and is refused; only a single token whose own `exp` is given (`token_expires_at`) may end with that.
    Raises RevocationError with every problem.
    """
    issued_before = None if issued_before is None else float(issued_before)
    if expires_at is None:
        expires_at = _least_end(scope, issued_before, now, token_expires_at)
    elif scope is Scope.TOKEN and not expires_at >= _least_end(scope, issued_before, now, token_expires_at):
        raise RevocationError([Problem("expires_at", _TOO_SHORT)])
    return Revocation(
        scope=scope,
        issuer=issuer,
        value=value,
        issued_before=issued_before,
        reason=reason,
        owner=owner,
        source=source,
        created_at=float(now),
        expires_at=float(expires_at),
        id=_identify(scope, issuer, value, issued_before, source),
    )


_TOO_SHORT: Final = (
    "is too early: tokens that exist now, or may be issued up to the cut-off, would be good again; "
    f"it must be at least {OUTLIVES_S / 3600:.2f} h later than both (lift the revocation to end it sooner)"
)


def _least_end(scope: Scope, issued_before: float | None, now: float, token_expires_at: float | None) -> float:
    """The earliest end at which no token that is revoked could be good again."""
    if scope is Scope.TOKEN and token_expires_at is not None:
        return max(now, token_expires_at) + 2 * LEEWAY_S
    return (now if issued_before is None else max(now, issued_before)) + OUTLIVES_S


def _strength(entry: Revocation) -> tuple[float, float, str, str]:
    return entry.expires_at, entry.created_at, entry.owner, entry.reason


def _identify(scope: Scope, issuer: str | None, value: str | None, issued_before: float | None, source: str) -> str:
    parts = msgspec.json.encode((str(scope), issuer, value, issued_before, source))
    return hashlib.sha256(parts).hexdigest()[:16]


def _problems_of_form(entry: Revocation) -> Iterator[Problem]:
    form = _FORMS[entry.scope]
    for name in ("issuer", "value", "issued_before"):
        wanted, given = getattr(form, name), getattr(entry, name)
        if wanted and given is None:
            yield Problem(name, f"is required with scope {entry.scope.value!r}")
        if wanted is None and given is not None:
            yield Problem(name, f"means nothing where {_WHOLE[entry.scope]} is revoked; leave it out")
        if name != "issued_before" and given is not None and not is_text(given):
            yield Problem(name, f"must be printable text of at most {MAX_TEXT} characters")


_WHOLE: Final = {
    Scope.TOKEN: "a single token",
    Scope.ISSUER: "a whole issuer",
    Scope.EVERYTHING: "everything",
}


def _problems_of_words(entry: Revocation) -> Iterator[Problem]:
    for name in ("reason", "owner", "source"):
        text = getattr(entry, name)
        if not is_text(text) or len(text) > MAX_WORDS:
            yield Problem(name, f"is required: printable text of at most {MAX_WORDS} characters")


def _problems_of_times(entry: Revocation) -> Iterator[Problem]:
    times = (entry.created_at, entry.expires_at, *(() if entry.issued_before is None else (entry.issued_before,)))
    if not all(math.isfinite(moment) and 0 <= moment <= LAST_MOMENT for moment in times):
        what = "and the other times must be seconds since the epoch, up to the end of the year 9999"
        yield Problem("expires_at", what)
    elif entry.scope is Scope.TOKEN:
        if entry.expires_at <= entry.created_at:
            yield Problem("expires_at", "must be later than created_at")
    elif entry.expires_at < _least_end(entry.scope, entry.issued_before, entry.created_at, None):
        yield Problem("expires_at", _TOO_SHORT)
