"""A status list token: what has to be right about it before the list in it is believed, and for how long it is."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

import msgspec

from authz_middleware.identity.keys.jwk import Keyring
from authz_middleware.identity.keys.key_set import KeySet
from authz_middleware.revocation.feeds.jws import DocumentRefusedError, SignedDocument, time_of
from authz_middleware.revocation.feeds.status_list import StatusList, read_status_list
from authz_middleware.settings.revocation_feeds import StatusListSettings

TYPE: Final = "statuslist+jwt"


class StatusIssuer(msgspec.Struct, frozen=True):
    """An issuer whose tokens have a status, and the very keys that its tokens are verified with."""

    settings: StatusListSettings
    algorithms: tuple[str, ...]
    keys: KeySet
    leeway: float = 10.0


class GoodList:
    """A list that was verified: from when until when it may be read (seconds since the epoch), and what it rests on."""

    __slots__ = ("_document", "_keyring", "fetched_at", "issued_at", "list", "since", "ttl", "until")

    def __init__(self, document: SignedDocument, keyring: Keyring, list_: StatusList, ttl: float) -> None:
        self._document = document
        self._keyring = keyring
        self.list = list_
        self.ttl = ttl
        self.issued_at = self.fetched_at = self.since = self.until = 0.0

    def is_signed_by(self, keyring: Keyring | None, algorithms: Collection[str]) -> bool:
        """Whether the keys as they are now, which may be others, would verify it too: a key that was withdrawn takes
        its lists with it."""
        if keyring is None or keyring is self._keyring:
            return keyring is not None
        try:
            self._document.check_signature(keyring, algorithms)
        except DocumentRefusedError:
            return False
        self._keyring = keyring
        return True


def read_status_token(
    document: SignedDocument, keyring: Keyring, issuer: StatusIssuer, uri: str, now: float
) -> GoodList:
    """The list at `uri`, fetched at `now` (seconds since the epoch), signed with one of these keys (section 5.1).

    Raises DocumentRefusedError.
    """
    document.check_signature(keyring, issuer.algorithms)
    claims, settings = document.unverified_claims, issuer.settings
    if claims.get("sub") != uri:
        raise DocumentRefusedError("document.sub")
    if claims.get("iss", settings.issuer) != settings.issuer:
        raise DocumentRefusedError("document.iss")
    issued = time_of(claims, "iat")
    begins = time_of(claims, "nbf") if "nbf" in claims else issued
    # Many lists have no `exp`, and would be believed for ever by whoever gets no newer one.
    ends = min(issued + settings.max_lifetime, now + settings.max_age)
    if "exp" in claims:
        ends = min(ends, time_of(claims, "exp"))
    if max(issued, begins) > now + issuer.leeway:
        raise DocumentRefusedError("document.not_yet_valid")
    if ends <= now:
        raise DocumentRefusedError("document.expired")
    good = GoodList(document, keyring, read_status_list(claims.get("status_list")), _ttl_of(claims))
    good.issued_at, good.fetched_at = issued, now
    # A clock that was set back by much makes an old list look new.
    good.since, good.until = now - issuer.leeway - settings.max_age, ends
    document.forget_claims()
    return good


def _ttl_of(claims: Mapping[str, Any]) -> float:
    """How long a copy may be kept, in seconds; unlimited where the list does not say (section 5.1)."""
    ttl: Any = claims.get("ttl", float("inf"))
    if type(ttl) not in (int, float) or ttl <= 0:
        raise DocumentRefusedError("status_list.ttl")
    return float(ttl)
