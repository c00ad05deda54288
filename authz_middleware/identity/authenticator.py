"""From the Authorization headers of a request to a principal, or to the reason why there is none."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Final

from cachetools import LRUCache

from authz_middleware.errors import Problem, SettingsError
from authz_middleware.forking import renew_in_children
from authz_middleware.identity.claims import principal_of
from authz_middleware.identity.credentials import Credentials
from authz_middleware.identity.jwk import Keyring, KeySetError
from authz_middleware.identity.keys import REGULAR, FileKeys, InlineKeys, KeySet, RefreshTimes, RemoteKeys
from authz_middleware.identity.principal import Principal
from authz_middleware.identity.problem import PROBLEMS, CredentialDetail, CredentialProblem, TokenRefusedError
from authz_middleware.identity.tokens import MAX_TOKEN, IssuerRules, parse_token, verify
from authz_middleware.settings.model import IssuerSettings

logger = logging.getLogger("authz")

_BEARER: Final = "bearer "


class _Issuer:
    """One configured issuer: what its tokens must be, and its keys."""

    __slots__ = ("keys", "rules")

    def __init__(self, rules: IssuerRules, keys: KeySet) -> None:
        self.rules = rules
        self.keys = keys


class _Verified:
    """A token that was verified: whom it stands for, and the keys that said so."""

    __slots__ = ("keyring", "keys", "principal")

    def __init__(self, principal: Principal, keys: KeySet, keyring: Keyring) -> None:
        self.principal = principal
        self.keys = keys
        self.keyring = keyring


class Authenticator:
    """Verifies bearer tokens (RFC 6750) of the configured issuers.

    One object serves all threads of a process. Verified tokens are remembered, by the digest of their header, until
    `exp` (without leeway) or until the issuer's keys change, whichever comes first; refused ones are not remembered.
    `clock` gives seconds since the epoch and dates the key sets; a token is judged by the `now` of each call.
    """

    def __init__(
        self,
        issuers: Sequence[IssuerSettings],
        *,
        clock: Callable[[], float] = time.time,
        cache_size: int = 10_000,
        times: RefreshTimes = REGULAR,
    ) -> None:
        """Raise SettingsError, with all problems, for inline keys or claim maps that cannot be used."""
        problems: list[Problem] = []
        self._issuers: dict[str, _Issuer] = {}
        for position, settings in enumerate(issuers):
            issuer = _issuer(settings, f"issuers[{position}]", problems, clock, times)
            if issuer is not None:
                self._issuers[settings.issuer] = issuer
        if problems:
            raise SettingsError(problems)
        self._cache_size = cache_size
        self.renew_after_fork()
        renew_in_children(self)

    def start(self) -> None:
        """Load the keys of every issuer, one after the other, each within its deadline.

        An issuer that cannot be reached is tried again in the background; its tokens are refused until then. No
        thread is started here, so that a server may fork afterwards.
        """
        for issuer in self._issuers.values():
            issuer.keys.load()

    def close(self) -> None:
        """Stop refreshing keys."""
        for issuer in self._issuers.values():
            issuer.keys.close()

    def authenticate(self, credentials: Credentials, now: float) -> Principal | CredentialProblem:
        """Who sends a request with these credentials at `now` (seconds since the epoch). Never raises, never waits."""
        try:
            header = _only(credentials.values("authorization"))
            digest = sha256(header.encode("utf-8", "surrogatepass")).digest()
            with self._lock:
                try:
                    entry = self._cache[digest]
                except KeyError:
                    entry = None
            # Without leeway. The keys are compared by identity: any change of the issuer's keys ends what the old ones
            # have verified.
            if entry is not None and now < entry.principal.expires_at and entry.keyring is entry.keys.current:
                return entry.principal
            return self._verify(_bearer_token(header), digest, now)
        except TokenRefusedError as refusal:
            return PROBLEMS[refusal.detail]
        except Exception as error:  # noqa: BLE001 - an unforeseen failure is a refusal, and tells nothing of the token
            logger.error("a token check failed unexpectedly (%s)", type(error).__name__)  # noqa: TRY400 - no traceback
            return PROBLEMS[CredentialDetail.UNEXPECTED]

    def _verify(self, token: str, digest: bytes, now: float) -> Principal:
        raw = parse_token(token)
        named = raw.unverified_claims.get("iss")
        issuer = self._issuers.get(named) if isinstance(named, str) else None
        if issuer is None:
            raise TokenRefusedError(CredentialDetail.ISSUER)
        keys = issuer.keys
        if keys.needs_worker:
            keys.look_after()
        # Read once: what is remembered must be bound to the very keys that it was verified with.
        keyring = keys.current
        if keyring is None:
            keys.ask()
            raise TokenRefusedError(CredentialDetail.KEYS_UNAVAILABLE)
        try:
            claims = verify(raw, issuer.rules, keyring, now)
        except TokenRefusedError as refusal:
            if refusal.detail is CredentialDetail.KEY_UNKNOWN:
                keys.ask()
            raise
        principal = principal_of(claims, issuer.rules.settings, issuer.rules.claim_map)
        with self._lock:
            self._cache[digest] = _Verified(principal, keys, keyring)
        return principal

    def renew_after_fork(self) -> None:
        """Nothing remembered, and a lock that nobody holds: the state at first, and in a forked child.

        There the first token finds that no thread refreshes the keys in this process, and has one started.
        """
        self._lock = threading.Lock()
        self._cache: LRUCache[bytes, _Verified] = LRUCache(self._cache_size)


def _only(authorization: Sequence[str]) -> str:
    """The one header there must be, of bounded length. Raises TokenRefusedError."""
    if len(authorization) != 1:
        missing = CredentialDetail.AUTHORIZATION_MISSING
        raise TokenRefusedError(CredentialDetail.AUTHORIZATION_MULTIPLE if authorization else missing)
    header = authorization[0]
    if len(header) > MAX_TOKEN + len(_BEARER):
        raise TokenRefusedError(CredentialDetail.TOO_LONG)
    return header


def _bearer_token(header: str) -> str:
    """The one token in a header (RFC 6750 section 2.1). Raises TokenRefusedError."""
    if "," in header:
        # Two headers that a server or proxy has joined (RFC 9110 section 5.3) must not become one.
        raise TokenRefusedError(CredentialDetail.AUTHORIZATION_MULTIPLE)
    token = header[len(_BEARER) :]
    if header[: len(_BEARER)].lower() != _BEARER or not token or " " in token:
        raise TokenRefusedError(CredentialDetail.AUTHORIZATION_SCHEME)
    return token


def _issuer(
    settings: IssuerSettings, where: str, problems: list[Problem], clock: Callable[[], float], times: RefreshTimes
) -> _Issuer | None:
    try:
        rules = IssuerRules(settings)
    except ValueError:
        problems.append(Problem(f"{where}.claims", "has a JSON pointer that is not one (RFC 6901)"))
        return None
    try:
        return _Issuer(rules, _keys(settings, clock, times))
    except KeySetError as error:
        problems.append(Problem(f"{where}.jwks", f"cannot be used: it {error}"))
        return None


def _keys(settings: IssuerSettings, clock: Callable[[], float], times: RefreshTimes) -> KeySet:
    name, algorithms = settings.issuer, settings.algorithms
    if settings.jwks is not None:
        return InlineKeys(settings.jwks, algorithms, name=name)
    if settings.jwks_file is not None:
        return FileKeys(settings.jwks_file, algorithms, name=name, times=times, clock=clock)
    if settings.jwks_uri is not None:
        return RemoteKeys(settings.jwks_uri, algorithms, name=name, times=times, clock=clock)
    raise KeySetError("is absent, and so are jwks_file and jwks_uri")
