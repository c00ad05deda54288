"""A list of revocations that somebody signs and puts in a file or at an address: an out-of-band switch.

What it names is revoked for as long as it names it. A list that cannot be read, verified or understood whole changes
nothing; one that is older than the last is never taken again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from authz_middleware.boundary import LEEWAY_S
from authz_middleware.identity.keys.jwk import Keyring
from authz_middleware.revocation.entry import OUTLIVES_S, Revocation, RevocationError, Scope, new_revocation
from authz_middleware.revocation.feeds.jws import DocumentRefusedError, SignedDocument, parse_document, time_of
from authz_middleware.settings.revocation_feeds import SignedListSettings

TYPE: Final = "authz-revocations+jwt"
MAX_DOCUMENT: Final = 4 * 1024 * 1024

_MEMBERS: Final = frozenset({"iss", "iat", "exp", "serial", "entries"})


class ListedRevocation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One entry of a signed list, in the words of `authz revoke`. Times are seconds since the epoch."""

    scope: Scope
    issuer: str | None = None
    value: str | None = None
    issued_before: float | None = None
    reason: str
    owner: str
    created_at: float | None = None
    """When it was first listed; by default when the list was issued."""
    expires_at: float | None = None
    """By default it is revoked for as long as it is listed."""


class SignedList(msgspec.Struct, frozen=True):
    """A verified list: `document` is what it rests on."""

    serial: int
    issued_at: float
    expires_at: float
    entries: tuple[Revocation, ...]
    keyring: Keyring
    document: SignedDocument


def read_signed_list(data: bytes, keyring: Keyring, settings: SignedListSettings) -> SignedList:
    """The list in these bytes, its signature and form verified, its times not yet (`check_times`).

    Raises DocumentRefusedError.
    """
    document = parse_document(data.strip(), typ=TYPE, limit=MAX_DOCUMENT)
    document.check_signature(keyring, settings.keys.algorithms)
    claims = document.unverified_claims
    # Strict both ways: a member that a newer publisher means something by must not be passed over.
    if claims.keys() != _MEMBERS:
        raise DocumentRefusedError("list.members")
    if claims["iss"] != settings.issuer:
        raise DocumentRefusedError("document.iss")
    serial = claims["serial"]
    if type(serial) is not int or serial < 0:  # an exact type: true is an int in Python
        raise DocumentRefusedError("list.serial")
    issued, expires = time_of(claims, "iat"), time_of(claims, "exp")
    entries = _entries(claims["entries"], settings.name, issued, expires)
    document.forget_claims()
    return SignedList(serial, issued, expires, entries, keyring, document)


def check_times(signed: SignedList, now: float) -> None:
    """Raise DocumentRefusedError unless the list is valid at `now` (seconds since the epoch)."""
    if signed.issued_at > now + LEEWAY_S:
        raise DocumentRefusedError("document.not_yet_valid")
    if not now < signed.expires_at:
        raise DocumentRefusedError("document.expired")


def check_follows(signed: SignedList, former: SignedList | None) -> None:
    """Raise DocumentRefusedError where a list would take back what a later one says.

    The same serial may be signed again, for a longer life, as long as it lists the same.
    """
    if former is None or signed.serial > former.serial:
        return
    if signed.serial < former.serial:
        raise DocumentRefusedError("list.older")
    if _names(signed.entries) != _names(former.entries):
        raise DocumentRefusedError("list.serial_used_twice")


def _names(entries: Sequence[Revocation]) -> frozenset[str]:
    return frozenset(entry.id for entry in entries)


def _entries(member: object, source: str, issued: float, expires: float) -> tuple[Revocation, ...]:
    """Every entry, or none: half a list would be another list."""
    if not isinstance(member, list):
        raise DocumentRefusedError("list.entries")
    try:
        listed = msgspec.convert(member, list[ListedRevocation])
        return tuple(_revocation(entry, source, issued, expires) for entry in listed)
    except (msgspec.ValidationError, RevocationError, OverflowError):
        raise DocumentRefusedError("list.entries") from None


def _revocation(entry: ListedRevocation, source: str, issued: float, expires: float) -> Revocation:
    created = issued if entry.created_at is None else entry.created_at
    ends = entry.expires_at
    if ends is None:
        # It counts for as long as it is listed, and until the tokens that exist then are over.
        ends = max(expires, issued, created, entry.issued_before or 0.0) + OUTLIVES_S
    return new_revocation(
        entry.scope,
        issuer=entry.issuer,
        value=entry.value,
        issued_before=entry.issued_before,
        reason=entry.reason,
        owner=entry.owner,
        source=source,
        now=created,
        expires_at=ends,
    )
