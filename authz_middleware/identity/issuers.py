"""The configured issuers, and which of them a token has to be checked with.

A token's own word about its issuer chooses whose keys are tried, and is compared again once the signature holds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol

from authz_middleware.errors import Problem, SettingsError
from authz_middleware.identity.claims.principals import principal_of
from authz_middleware.identity.compact import RawClaims, RawToken
from authz_middleware.identity.introspection.introspector import Introspector, is_opaque
from authz_middleware.identity.keys.jwk import Keyring, KeySetError
from authz_middleware.identity.keys.key_set import KeySet
from authz_middleware.identity.keys.sources import key_set_of
from authz_middleware.identity.principal import Principal
from authz_middleware.identity.problem import CredentialDetail, TokenRefusedError
from authz_middleware.identity.spiffe.trust_domains import TrustDomains
from authz_middleware.identity.tokens import IssuerRules, Verified, verify
from authz_middleware.settings.issuers import IssuerSettings
from authz_middleware.settings.key_sources import IntrospectionSettings, RefreshTimes
from authz_middleware.settings.trust_domains import TrustDomainSettings


class Signer(Protocol):
    """Whoever signs tokens: an issuer of access tokens, or a trust domain of JWT-SVIDs."""

    keys: KeySet
    settings: IssuerSettings

    def verify(self, token: RawToken, keys: Keyring, now: float) -> Verified:
        """The claims of a token, verified at `now`. Raises TokenRefusedError."""
        ...

    def principal_of(self, claims: RawClaims, *, key_id: str | None = None) -> Principal:
        """Whom verified claims stand for. Raises TokenRefusedError."""
        ...


class SigningIssuer(IssuerRules):
    """An issuer of signed access tokens."""

    __slots__ = ("keys",)

    def __init__(self, settings: IssuerSettings, keys: KeySet) -> None:
        super().__init__(settings)
        self.keys = keys

    def verify(self, token: RawToken, keys: Keyring, now: float) -> Verified:
        """See `tokens.verify`."""
        return verify(token, self, keys, now)

    def principal_of(self, claims: RawClaims, *, key_id: str | None = None) -> Principal:
        """See `claims.principal_of`."""
        return principal_of(claims, self.settings, self.claim_map, key_id=key_id)


class AnsweringIssuer(IssuerRules):
    """An issuer of opaque tokens, which is asked about each (RFC 7662)."""

    __slots__ = ("introspector",)

    def __init__(self, settings: IssuerSettings, introspection: IntrospectionSettings, *, where: str) -> None:
        super().__init__(settings)
        self.introspector = Introspector(self, introspection, where=where)

    def principal_of(self, claims: RawClaims) -> Principal:
        """See `claims.principal_of`."""
        return principal_of(claims, self.settings, self.claim_map)


class Issuers:
    """Every configured issuer and trust domain, by what their tokens say of them."""

    def __init__(
        self,
        issuers: Sequence[IssuerSettings],
        trust_domains: Sequence[TrustDomainSettings] = (),
        *,
        clock: Callable[[], float] = time.time,
        times: RefreshTimes | None = None,
    ) -> None:
        """Raise SettingsError, with all problems, for keys or claim maps that cannot be used."""
        problems: list[Problem] = []
        self._answering: AnsweringIssuer | None = None
        self._signing: dict[str, SigningIssuer] = {}
        for position, settings in enumerate(issuers):
            try:
                self._add(settings, f"issuers[{position}]", clock, times)
            except SettingsError as error:
                problems.extend(error.problems)
        try:
            names = [settings.issuer for settings in issuers]
            self.trust_domains = TrustDomains(trust_domains, issuers=names, clock=clock, times=times)
        except SettingsError as error:
            problems.extend(error.problems)
        if problems:
            raise SettingsError(problems)
        self._has_trust_domains = bool(trust_domains)
        # Where there is one issuer only its keys can verify a token: no need to ask the token first.
        alone = len(issuers) == 1 and not trust_domains
        self._sole = next(iter(self._signing.values()), None) if alone else None

    def start(self) -> None:
        """Load the keys of everyone, one after the other, each within its deadline. Starts no thread."""
        for issuer in self._signing.values():
            issuer.keys.load()
        self.trust_domains.start()

    def close(self) -> None:
        """Stop refreshing keys, and close connections of blocking code."""
        for issuer in self._signing.values():
            issuer.keys.close()
        self.trust_domains.close()
        if self._answering is not None:
            self._answering.introspector.close()

    async def aclose(self) -> None:
        """Close the connections of the running event loop."""
        if self._answering is not None:
            await self._answering.introspector.aclose()

    def keys_of(self, name: str) -> KeySet | None:
        """The keys of an issuer of signed tokens, or of the trust domain that principals have for their issuer."""
        issuer = self._signing.get(name)
        return self.trust_domains.keys_of(name) if issuer is None else issuer.keys

    def answering(self, token: str) -> AnsweringIssuer | None:
        """The issuer to ask about an opaque token; None for one that says itself whose it is."""
        return self._answering if is_opaque(token) else None

    def claimed(self, token: RawToken) -> Signer | AnsweringIssuer:
        """The issuer to check a signed token with. Raises TokenRefusedError where there is none."""
        return self._sole or self.named(token)

    def named(self, token: RawToken) -> Signer | AnsweringIssuer:
        """The issuer that a signed token names itself. Raises TokenRefusedError where that is no configured one."""
        name = token.claimed_issuer()
        if name is not None and name in self._signing:
            return self._signing[name]
        if self._answering is not None and name == self._answering.settings.issuer:
            return self._answering
        workload = self.trust_domains.svid_rules(token) if self._has_trust_domains else None
        if workload is None:
            raise TokenRefusedError(CredentialDetail.ISSUER)
        return workload

    def _add(
        self, settings: IssuerSettings, where: str, clock: Callable[[], float], times: RefreshTimes | None
    ) -> None:
        try:
            if settings.introspection is not None:
                self._answering = AnsweringIssuer(settings, settings.introspection, where=where)
            else:
                self._signing[settings.issuer] = SigningIssuer(settings, key_set_of(settings, clock=clock, times=times))
        except KeySetError as error:
            raise SettingsError([Problem(where, f"has keys that cannot be used: {error}")]) from None
        except ValueError:
            raise SettingsError([Problem(f"{where}.claims", "has a JSON pointer that is not one (RFC 6901)")]) from None
