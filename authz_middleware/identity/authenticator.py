"""From the credentials of a request to a principal, or to the reason why there is none."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from hashlib import sha256
from typing import Final, NamedTuple, Self

import msgspec
from cachetools import LRUCache

from authz_middleware.alarm import Alarm
from authz_middleware.challenge import BEARER, Header
from authz_middleware.flow import Effect, Flow, Work, run
from authz_middleware.forking import renew_in_children
from authz_middleware.identity.compact import MAX_TOKEN, parse_token
from authz_middleware.identity.connection.certificate import CertificateIdentities, check_bound, thumbprint_of
from authz_middleware.identity.connection.credentials import Credentials
from authz_middleware.identity.connection.proxies import Proxies
from authz_middleware.identity.issuers import AnsweringIssuer, Issuers
from authz_middleware.identity.keys.jwk import Keyring
from authz_middleware.identity.keys.key_set import KeySet
from authz_middleware.identity.possession.binding import AcceptedBindings, Binding, binding_of, check_possession
from authz_middleware.identity.possession.dpop import DPoP
from authz_middleware.identity.principal import Principal
from authz_middleware.identity.problem import PROBLEMS, CredentialDetail, CredentialProblem, TokenRefusedError
from authz_middleware.settings import Settings
from authz_middleware.settings.certificates import CertificateSettings
from authz_middleware.settings.dpop import DPoPSettings
from authz_middleware.settings.issuers import IssuerSettings
from authz_middleware.settings.key_sources import RefreshTimes
from authz_middleware.settings.proxies import ProxySettings
from authz_middleware.settings.trust_domains import TrustDomainSettings

Known = Principal | CredentialProblem

_BEARER: Final = "bearer"
_DPOP: Final = "dpop"
_LONGEST: Final = len("Bearer ") + MAX_TOKEN
_NO_CERTIFICATES: Final[Mapping[str, CertificateSettings]] = {}


class _Shown(NamedTuple):
    """What a request shows: its Authorization headers, and their digest where there is one of bounded length."""

    credentials: Credentials
    headers: Sequence[str]
    digest: bytes | None


class _Verified(msgspec.Struct, frozen=True, gc=False):
    """A token that was verified: whom it stands for, what it is bound to, and the keys that said so."""

    principal: Principal
    binding: Binding | None
    keys: KeySet | None
    keyring: Keyring | None

    def holds(self, now: float) -> bool:
        """Whether it may be relied on: without leeway, and as long as the issuer's keys are the very same, so that any
        change of them ends what the old ones have verified."""
        return now < self.principal.expires_at and (self.keys is None or self.keyring is self.keys.current)


class Authenticator:
    """Establishes who sends a request: by a token (RFC 6750) of a configured issuer or trust domain, bound to its
    sender or not, or by a client certificate that the settings know.

    One object serves all threads of a process. Verified tokens are remembered, by the digest of their header, until
    `exp` (without leeway) or until the issuer's keys change, whichever comes first; refused ones are not remembered,
    and a proof of possession never is. `clock` gives seconds since the epoch and dates key sets and nonces; a token is
    judged by the `now` of each call.
    """

    def __init__(
        self,
        issuers: Sequence[IssuerSettings],
        *,
        trust_domains: Sequence[TrustDomainSettings] = (),
        certificates: Mapping[str, CertificateSettings] = _NO_CERTIFICATES,
        dpop: DPoPSettings = DPoPSettings(),  # noqa: B008 - frozen
        proxies: ProxySettings | None = None,
        clock: Callable[[], float] = time.time,
        cache_size: int = 10_000,
        times: RefreshTimes | None = None,
    ) -> None:
        """Raise SettingsError, with all problems, for keys or claim maps that cannot be used."""
        self._clock = clock
        self.proxies = Proxies(proxies)
        self._dpop = DPoP(dpop, target_of=self.proxies.target_of)
        self._wants_dpop = any(issuer.proof == "dpop" for issuer in issuers)
        self._wants_nothing_else = bool(issuers) and all(issuer.proof == "dpop" for issuer in issuers)
        self._issuers = Issuers(issuers, trust_domains, clock=clock, times=times)
        self._certificates = CertificateIdentities(certificates)
        self._thumbprints = frozenset(certificates)
        self._takes_svids = any(domain.x509 for domain in trust_domains)
        self._unforeseen = Alarm("a token check failed unexpectedly (%s)")
        self._cache_size = cache_size
        self.renew_after_fork()
        renew_in_children(self)

    @classmethod
    def of(cls, settings: Settings, *, clock: Callable[[], float] = time.time) -> Self:
        """The authenticator of an application. Raises SettingsError, with all problems."""
        return cls(
            settings.issuers,
            trust_domains=settings.trust_domains,
            certificates=settings.certificates,
            dpop=settings.dpop,
            proxies=settings.proxies,
            clock=clock,
        )

    def start(self) -> None:
        """Load the keys of every issuer, one after the other, each within its deadline.

        An issuer that cannot be reached is tried again in the background; its tokens are refused until then. No
        thread is started here, so that a server may fork afterwards. Raises SettingsError where spent proofs of
        possession cannot be remembered.
        """
        self._dpop.start()
        self._issuers.start()

    def close(self) -> None:
        """Stop refreshing keys, and let go of files and connections."""
        self._issuers.close()
        self._dpop.close()

    async def aclose(self) -> None:
        """Close the connections of the running event loop."""
        await self._issuers.aclose()

    def authenticate(self, credentials: Credentials, now: float) -> Known:
        """Who sends a request with these credentials at `now` (seconds since the epoch), waiting where that must be.
        Never raises."""
        known = self.authenticating(credentials, now)
        return run(known, _perform) if isinstance(known, Generator) else known

    def authenticating(self, credentials: Credentials, now: float) -> Known | Flow[Known]:
        """Who sends a request with these credentials at `now` (seconds since the epoch). Never raises, never waits.

        A token that was verified before and is bound to nothing is answered at once. Everything else is a flow that
        leads to the answer, and may have to wait on the way.
        """
        digest = verified = None
        try:
            headers = credentials.values("authorization")
            if len(headers) == 1 and len(headers[0]) <= _LONGEST:
                digest = sha256(headers[0].encode("utf-8", "surrogatepass")).digest()
                verified = self._recall(digest, now)
                if verified is not None and verified.binding is None:
                    return verified.principal
        except Exception as error:  # noqa: BLE001 - an unforeseen failure is a refusal
            return self._unexpected(error)
        return self._answering(_Shown(credentials, headers, digest), verified, now)

    def keys_of(self, issuer: str) -> KeySet | None:
        """The keys that the tokens of an issuer are verified with; None where there are none."""
        return self._issuers.keys_of(issuer)

    def vouches_for(self, principal: Principal) -> bool:
        """Whether the key that signed for a principal some time ago is still one of its issuer's. Of certificates,
        of keys without an id and of opaque tokens there is nothing to say."""
        keys = None if principal.key_id is None else self._issuers.keys_of(principal.issuer)
        if keys is None or principal.key_id is None:
            return True
        keyring = keys.current
        return keyring is not None and keyring.holds(principal.key_id)

    @property
    def bindings(self) -> AcceptedBindings:
        """How tokens may be bound to their senders."""
        return AcceptedBindings(self._dpop.algorithms, self._wants_nothing_else, certificates=True)

    def challenges(self, detail: str | None) -> Sequence[Header]:
        """How a client may authenticate here, for the answer to one whose credential was refused for `detail`.

        DPoP is offered where an issuer asks for it and to clients that have tried it or should have: most others would
        not know what it is.
        """
        if not (self._wants_dpop or _is_about_proofs(detail)):
            return BEARER
        offered = self._dpop.challenge(detail, self._clock())
        return offered if self._wants_nothing_else else (*BEARER, *offered)

    def _answering(self, shown: _Shown, verified: _Verified | None, now: float) -> Flow[Known]:
        try:
            return (yield from self._establishing(shown, verified, now))
        except TokenRefusedError as refusal:
            return PROBLEMS[refusal.detail]
        except Exception as error:  # noqa: BLE001 - likewise
            return self._unexpected(error)

    def _establishing(self, shown: _Shown, verified: _Verified | None, now: float) -> Flow[Principal]:
        if not shown.headers and (self._thumbprints or self._takes_svids):
            return self._workload(shown.credentials, now)
        scheme, token = _credential(_only(shown.headers))
        is_new = verified is None
        if verified is None:
            verified = yield from self._verifying(token, now)
        if scheme == _DPOP or verified.binding is not None:
            yield from self._proving(verified.binding, scheme, token, shown.credentials, now)
        # Not before the proof: under DPoP a token that is bound to nothing must be refused each time. An issuer that
        # answers for its tokens remembers its answers itself.
        if is_new and verified.keys is not None and shown.digest is not None:
            self._remember(shown.digest, verified)
        return verified.principal

    def _verifying(self, token: str, now: float) -> Flow[_Verified]:
        answering = self._issuers.answering(token)
        if answering is not None:
            return (yield from self._asking(answering, token, now))
        raw = parse_token(token)
        issuer = self._issuers.claimed(raw)
        if isinstance(issuer, AnsweringIssuer):
            return (yield from self._asking(issuer, token, now))
        keys = issuer.keys
        if keys.needs_worker:
            keys.look_after()
        # Read once: what is remembered must be bound to the very keys that it was verified with.
        keyring = keys.current
        try:
            checked = issuer.verify(raw, _current(keyring), now)
        except TokenRefusedError as refusal:
            if refusal.detail in (CredentialDetail.KEY_UNKNOWN, CredentialDetail.KEYS_UNAVAILABLE):
                self._issuers.named(raw)  # a stranger's token is no reason to look for new keys
                keys.ask(raw.unverified_header.get("kid"))
            raise
        binding = binding_of(checked.claims)
        check_possession(binding, issuer.settings.proof)
        return _Verified(issuer.principal_of(checked.claims, key_id=checked.key.kid), binding, keys, keyring)

    def _asking(self, issuer: AnsweringIssuer, token: str, now: float) -> Flow[_Verified]:
        """Ask the issuer, which remembers its own answers."""
        claims = yield from issuer.introspector.introspect(token, now)
        binding = binding_of(claims)
        check_possession(binding, issuer.settings.proof)
        return _Verified(issuer.principal_of(claims), binding, None, None)

    def _proving(
        self, binding: Binding | None, scheme: str, token: str, credentials: Credentials, now: float
    ) -> Flow[None]:
        """Check what a token that is verified is bound to, with every request anew. Raises TokenRefusedError."""
        if scheme == _DPOP:
            yield from self._dpop.check(credentials, token, binding, now)
        elif binding is not None and binding.jkt is not None:
            # Taken as plain Bearer, a stolen one would be worth as much as its owner's (RFC 9449 section 7.2).
            raise TokenRefusedError(CredentialDetail.BOUND)
        if binding is not None and binding.x5t_s256 is not None:
            check_bound(binding.x5t_s256, self.proxies.certificate_of(credentials))

    def _workload(self, credentials: Credentials, now: float) -> Principal:
        """Whoever shows a client certificate and no token. Raises TokenRefusedError."""
        certificate = self.proxies.certificate_of(credentials)
        if certificate is None:
            raise TokenRefusedError(CredentialDetail.AUTHORIZATION_MISSING)
        digest = sha256(b"certificate:" + certificate).digest()
        known = self._recall(digest, now)
        if known is not None:
            return known.principal
        if thumbprint_of(certificate) in self._thumbprints or not self._takes_svids:
            principal = self._certificates.principal_of(certificate, now)
        else:
            principal = self._issuers.trust_domains.principal_of_certificate(certificate, now)
        self._remember(digest, _Verified(principal, None, None, None))
        return principal

    def _unexpected(self, error: Exception) -> CredentialProblem:
        """An unforeseen failure is a refusal, and tells nothing of the token: no text of it, no traceback."""
        name = type(error).__name__
        self._unforeseen.ring(name, kind=name)
        return PROBLEMS[CredentialDetail.UNEXPECTED]

    def _recall(self, digest: bytes, now: float) -> _Verified | None:
        with self._lock:
            try:
                known = self._cache[digest]
            except KeyError:
                return None
        return known if known.holds(now) else None

    def _remember(self, digest: bytes, verified: _Verified) -> None:
        with self._lock:
            self._cache[digest] = verified

    def renew_after_fork(self) -> None:
        """Nothing remembered, and a lock that nobody holds: the state at first, and in a forked child.

        There the first token finds that no thread refreshes the keys in this process, and has one started.
        """
        self._lock = threading.Lock()
        self._cache: LRUCache[bytes, _Verified] = LRUCache(self._cache_size)


def _is_about_proofs(detail: str | None) -> bool:
    return detail is not None and (detail.startswith("dpop.") or detail == CredentialDetail.BOUND)


def _perform(effect: Effect) -> object:
    if isinstance(effect, Work):
        return effect.job.perform()
    raise AssertionError("to establish who calls takes nothing else")


def _only(headers: Sequence[str]) -> str:
    """The one header there must be, of bounded length. Raises TokenRefusedError."""
    if len(headers) != 1:
        missing = CredentialDetail.AUTHORIZATION_MISSING
        raise TokenRefusedError(CredentialDetail.AUTHORIZATION_MULTIPLE if headers else missing)
    if len(headers[0]) > _LONGEST:
        raise TokenRefusedError(CredentialDetail.TOO_LONG)
    return headers[0]


def _credential(header: str) -> tuple[str, str]:
    """The scheme, in lower case, and the one token in a header (RFC 6750 section 2.1, RFC 9449 section 7.1).

    Raises TokenRefusedError.
    """
    if "," in header:
        # Two headers that a server or proxy has joined (RFC 9110 section 5.3) must not become one.
        raise TokenRefusedError(CredentialDetail.AUTHORIZATION_MULTIPLE)
    scheme, _, token = header.partition(" ")
    scheme = scheme.lower()
    if scheme not in (_BEARER, _DPOP) or not token or " " in token:
        raise TokenRefusedError(CredentialDetail.AUTHORIZATION_SCHEME)
    return scheme, token


def _current(keyring: Keyring | None) -> Keyring:
    if keyring is None:
        raise TokenRefusedError(CredentialDetail.KEYS_UNAVAILABLE)
    return keyring
