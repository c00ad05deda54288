"""Tokens that are worth nothing without a key: DPoP (RFC 9449) at a protected resource."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from typing import Final

from authz_middleware.alarm import Alarm
from authz_middleware.errors import Problem, SettingsError
from authz_middleware.flow import Flow, Work
from authz_middleware.identity.connection.credentials import Credentials, Target
from authz_middleware.identity.possession.binding import Binding, digest_of
from authz_middleware.identity.possession.nonces import Nonces
from authz_middleware.identity.possession.proof import AHEAD_S, Proof, Showing, verify_proof
from authz_middleware.identity.possession.replay import MemoryReplay, ReplayStore, ReplayUnavailableError
from authz_middleware.identity.possession.replay_file import FileReplay
from authz_middleware.identity.possession.target_uri import normalise_target, normalise_uri
from authz_middleware.identity.problem import CredentialDetail, TokenRefusedError
from authz_middleware.settings.dpop import DPoPSettings
from authz_middleware.settings.secret import SecretUnavailableError

SECRET_BYTES: Final = 32

# RFC 9449 section 7.1. What is wrong with a proof is not told; that a nonce is missing has to be. The other two are the
# token's fault, and no error of this scheme alone.
_ERRORS: Final = {
    CredentialDetail.DPOP_NONCE.value: "use_dpop_nonce",
    CredentialDetail.DPOP_UNBOUND.value: None,
    CredentialDetail.DPOP_MISMATCH.value: None,
}


class DPoP:
    """Checks the proofs that come with tokens bound to a key, and says what a proof must be.

    One object serves all threads of a process. `target_of` tells where the client sent a request to; it raises
    ValueError where that cannot be told.
    """

    def __init__(
        self,
        settings: DPoPSettings,
        *,
        target_of: Callable[[Credentials], Target] = lambda credentials: credentials.target(),
    ) -> None:
        """Raise SettingsError where the secret for nonces cannot be used."""
        self.algorithms = settings.algorithms
        self._accepted = frozenset(settings.algorithms)
        self._origins = frozenset(map(normalise_uri, settings.origins))
        self._max_age = settings.max_age
        self._target_of = target_of
        self._nonces = _nonces(settings)
        self._replay: ReplayStore = MemoryReplay()
        if settings.replay is not None:
            self._replay = FileReplay(settings.replay, window=settings.max_age + AHEAD_S)
        self._unavailable = Alarm("proofs of possession are refused, because spent ones cannot be remembered: %s")

    def start(self) -> None:
        """See that spent proofs can be remembered. Raises SettingsError."""
        try:
            self._replay.start()
        except ReplayUnavailableError as error:
            raise SettingsError([Problem("dpop.replay", f"cannot be used: {error}")]) from None

    def close(self) -> None:
        """Let go of files."""
        self._replay.close()

    def check(self, credentials: Credentials, token: str, binding: Binding | None, now: float) -> Flow[None]:
        """Check that whoever sent this request holds the key that its token is bound to.

        The token has been verified, and `binding` is its. `now` is in seconds since the epoch. Raises
        TokenRefusedError.
        """
        jkt = binding.jkt if binding else None
        if jkt is None:
            raise TokenRefusedError(CredentialDetail.DPOP_UNBOUND)
        text = _only(credentials)
        showing = Showing(credentials.method, self._target(credentials), digest_of(token), jkt, now)
        nonces = self._nonces
        proof = verify_proof(
            text,
            showing,
            algorithms=self._accepted,
            max_age=self._max_age,
            accepts_nonce=None if nonces is None else lambda nonce: nonces.accepts(nonce, now),
        )
        yield from self._spend(proof, credentials.spent_proofs(), now)

    def challenge(self, detail: str | None, now: float) -> tuple[tuple[str, str], ...]:
        """What a 401 answer offers (see `challenge.challenge_headers`): the scheme DPoP (RFC 9449 section 7.1), with an
        error where it was the proof that was refused, and, where proofs need one, the nonce to use next (section 9).

        `detail` is why the credential was refused, a `CredentialDetail` value, or None.
        """
        algorithms = f'algs="{" ".join(self.algorithms)}"'
        error = _error(detail)
        parameters = algorithms if error is None else f'error="{error}", {algorithms}'
        headers = [("www-authenticate", f"DPoP {parameters}")]
        if self._nonces is not None:
            headers.append(("dpop-nonce", self._nonces.current(now)))
        return tuple(headers)

    def _target(self, credentials: Credentials) -> Target:
        try:
            target = self._target_of(credentials)
        except ValueError:
            raise TokenRefusedError(CredentialDetail.DPOP_TARGET) from None
        # `Host` is the sender's word: without this, a proof that was made for another server passes under its name.
        if self._origins and normalise_target(Target(target.scheme, target.authority, "/")) not in self._origins:
            raise TokenRefusedError(CredentialDetail.DPOP_TARGET)
        return target

    def _spend(self, proof: Proof, spent: set[Hashable], now: float) -> Flow[None]:
        """Spend a proof, once for all gates of a request that remember in the same place."""
        here = (self._replay.place, proof.key)
        if here in spent:
            return
        spending = _Spending(self._replay, proof, now)
        try:
            first = (yield Work(spending)) if self._replay.waits else spending.perform()
        except ReplayUnavailableError as error:
            self._unavailable.ring(error)
            raise TokenRefusedError(CredentialDetail.DPOP_REPLAY_UNAVAILABLE) from None
        if first is not True:
            raise TokenRefusedError(CredentialDetail.DPOP_REPLAYED)
        spent.add(here)


class _Spending:
    """A `flow.Job`: spend a proof."""

    __slots__ = ("_now", "_proof", "_store")

    def __init__(self, store: ReplayStore, proof: Proof, now: float) -> None:
        self._store = store
        self._proof = proof
        self._now = now

    def perform(self) -> bool:
        return self._store.spend(self._proof.key, self._proof.until, self._now)

    async def aperform(self) -> bool:
        return await asyncio.to_thread(self.perform)


def _only(credentials: Credentials) -> str:
    """The one proof of a request. Raises TokenRefusedError."""
    proofs = credentials.values("dpop")
    if not proofs:
        raise TokenRefusedError(CredentialDetail.DPOP_MISSING)
    # A comma: two headers that a server or proxy has joined (RFC 9110 section 5.3).
    if len(proofs) != 1 or "," in proofs[0]:
        raise TokenRefusedError(CredentialDetail.DPOP_MULTIPLE)
    return proofs[0]


def _error(detail: str | None) -> str | None:
    if detail is None or not detail.startswith("dpop."):
        return None
    return _ERRORS.get(detail, "invalid_dpop_proof")


def _nonces(settings: DPoPSettings) -> Nonces | None:
    if settings.nonce_secret is None:
        return None
    try:
        secret = settings.nonce_secret.reveal().encode()
    except SecretUnavailableError as error:
        raise SettingsError([Problem("dpop.nonce_secret", f"cannot be read: {error}")]) from None
    if len(secret) < SECRET_BYTES:
        raise SettingsError([Problem("dpop.nonce_secret", f"must be at least {SECRET_BYTES} bytes, drawn at random")])
    return Nonces(secret)
