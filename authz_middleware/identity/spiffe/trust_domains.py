"""Workloads that are known by their SPIFFE ID: JWT-SVIDs and X.509-SVIDs of the configured trust domains.

An SVID is believed for the sake of its trust domain, which its id names; `iss`, where it has one, says nothing. So it
is checked with the keys of that trust domain and no others, and an issuer's access token with those of its issuer and
no others: a token whose `iss` is a configured issuer is never looked at here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final

from authz_middleware.errors import Problem, SettingsError
from authz_middleware.identity.claims.status_reference import status_reference_of
from authz_middleware.identity.claims.values import text_at
from authz_middleware.identity.compact import RawClaims, RawHeader, RawToken
from authz_middleware.identity.keys.bundles import bundle_of
from authz_middleware.identity.keys.jwk import Keyring, KeySetError
from authz_middleware.identity.keys.key_set import KeySet
from authz_middleware.identity.principal import Principal
from authz_middleware.identity.problem import CredentialDetail, TokenRefusedError
from authz_middleware.identity.spiffe.spiffe_id import SpiffeId
from authz_middleware.identity.spiffe.x509_svid import X509Svid
from authz_middleware.identity.tokens import IssuerRules, Verified, check_claims, check_header
from authz_middleware.settings.key_sources import RefreshTimes
from authz_middleware.settings.trust_domains import TrustDomainSettings

_SCHEME: Final = "spiffe:"
_HEADER: Final = frozenset({"alg", "kid", "typ"})
_ACTORS: Final = frozenset({"act", "may_act"})


class SvidRules(IssuerRules):
    """What the JWT-SVIDs of one trust domain must be, and the keys that they are checked with."""

    __slots__ = ("_domain", "_issuers", "keys")

    def __init__(self, domain: TrustDomainSettings, keys: KeySet, issuers: Collection[str]) -> None:
        assert domain.tokens is not None
        super().__init__(domain.tokens)
        self.keys = keys
        self._domain = domain
        self._issuers = issuers

    def verify(self, token: RawToken, keys: Keyring, now: float) -> Verified:
        """The claims of a JWT-SVID of this trust domain at `now` (seconds since the epoch).

        Of the claims that JWT-SVID section 3 leaves open `iat` is required, as the lifetime cannot be told without it.
        Raises TokenRefusedError at the first check that fails: header, key, signature, then claims.
        """
        kid, algorithm = self._check_header(token.unverified_header)
        key = keys.select(kid, algorithm)
        if not key.verifies(token.signed, token.signature):
            raise TokenRefusedError(CredentialDetail.SIGNATURE)
        claims = token.unverified_claims
        check_claims(claims, self, now)
        self._check_id(claims)
        return Verified(claims, key)

    def principal_of(self, claims: RawClaims, *, key_id: str | None = None) -> Principal:
        """The workload that these verified claims name; what else they say is not read. Raises TokenRefusedError."""
        audience = claims["aud"]
        return _principal(
            self._domain,
            _parse(claims["sub"]),
            audience=(audience,) if isinstance(audience, str) else tuple(audience),
            token_id=text_at(claims, (("jti",),)),
            issued_at=float(claims["iat"]),
            expires_at=float(claims["exp"]),
            status=status_reference_of(claims),
            key_id=key_id,
        )

    def _check_header(self, header: RawHeader) -> tuple[str, str]:
        """JWT-SVID section 2 allows these three members and no other; `kid` is required here, to name one key."""
        kid, algorithm = check_header(header, self)
        if kid is None or not _HEADER.issuperset(header):
            raise TokenRefusedError(CredentialDetail.HEADER)
        if "typ" in header and header["typ"] not in self.settings.token_types:
            raise TokenRefusedError(CredentialDetail.TYPE)
        return kid, algorithm

    def _check_id(self, claims: RawClaims) -> None:
        issuer = claims.get("iss", "")
        if not isinstance(issuer, str) or issuer in self._issuers:
            raise TokenRefusedError(CredentialDetail.ISSUER)
        if _parse(claims["sub"]).trust_domain != self._domain.name:
            raise TokenRefusedError(CredentialDetail.SPIFFE_TRUST_DOMAIN)
        if not _ACTORS.isdisjoint(claims):
            # An SVID says who a workload is. That somebody acts through it is not to be overlooked.
            raise TokenRefusedError(CredentialDetail.ACTOR)


class TrustDomains:
    """The configured trust domains. One object serves all threads."""

    def __init__(
        self,
        domains: Sequence[TrustDomainSettings],
        *,
        issuers: Collection[str] = (),
        clock: Callable[[], float] = time.time,
        times: RefreshTimes | None = None,
    ) -> None:
        """`issuers` are the configured issuers of tokens, whose tokens are never SVIDs; `clock` and `times` are for
        the key sets.

        Raise SettingsError, with all problems, for bundles that cannot be used or an issuer that passes for a trust
        domain.
        """
        problems: list[Problem] = []
        self._issuers = frozenset(issuers)
        self._domains = {domain.name: domain for domain in domains}
        self._rules: dict[str, SvidRules] = {}
        for position, domain in enumerate(domains):
            where = f"trust_domains[{position}]"
            if f"spiffe://{domain.name}" in self._issuers:
                problems.append(Problem(where, f"is also an issuer; leave one of them out: {domain.name}"))
            if domain.tokens is None:
                continue
            try:
                self._rules[domain.name] = SvidRules(
                    domain, bundle_of(domain.tokens, clock=clock, times=times), self._issuers
                )
            except KeySetError as error:
                problems.append(Problem(where, f"has keys that cannot be used: {error}"))
        if problems:
            raise SettingsError(problems)

    def start(self) -> None:
        """Load the keys of every trust domain, one after the other, each within its deadline. Starts no thread."""
        for rules in self._rules.values():
            rules.keys.load()

    def close(self) -> None:
        """Stop refreshing keys."""
        for rules in self._rules.values():
            rules.keys.close()

    def keys_of(self, issuer: str) -> KeySet | None:
        """The keys of the JWT-SVIDs of a trust domain, by the issuer that its principals have."""
        rules = self._rules.get(issuer.removeprefix("spiffe://")) if issuer.startswith("spiffe://") else None
        return None if rules is None else rules.keys

    def svid_rules(self, token: RawToken) -> SvidRules | None:
        """The rules for a token that is to be taken for a JWT-SVID, by the unverified `sub`; None where it is none.

        What is chosen here is compared again once the signature holds (`SvidRules.verify`). Raises TokenRefusedError
        for a SPIFFE ID that is not one, or whose trust domain has no JWT-SVIDs here.
        """
        subject = token.claimed_subject()
        if token.claimed_issuer() in self._issuers or subject is None or not subject.startswith(_SCHEME):
            return None
        rules = self._rules.get(_parse(subject).trust_domain)
        if rules is None:
            raise TokenRefusedError(CredentialDetail.SPIFFE_TRUST_DOMAIN)
        return rules

    def principal_of_certificate(self, der: bytes, now: float) -> Principal:
        """The workload that holds this X.509-SVID (DER) at `now` (seconds since the epoch).

        Whoever hands it over has verified its chain up to an authority of its own trust domain, and has seen proof of
        possession. Its `token_id` is the certificate's serial number. Raises TokenRefusedError.
        """
        svid = X509Svid.parse(der)
        domain = self._domains.get(svid.id.trust_domain)
        if domain is None or not domain.x509:
            raise TokenRefusedError(CredentialDetail.SPIFFE_TRUST_DOMAIN)
        svid.check_times(now, domain.x509_max_lifetime)
        return _principal(domain, svid.id, token_id=svid.serial, issued_at=svid.not_before, expires_at=svid.not_after)


def _parse(subject: str) -> SpiffeId:
    try:
        return SpiffeId.parse(subject)
    except ValueError:
        raise TokenRefusedError(CredentialDetail.SPIFFE_ID) from None


def _principal(domain: TrustDomainSettings, id_: SpiffeId, **parts: Any) -> Principal:
    if not any(pattern.covers(id_) for pattern in domain.paths):
        raise TokenRefusedError(CredentialDetail.SPIFFE_PATH)
    return Principal(
        issuer=f"spiffe://{domain.name}",
        subject=str(id_),
        kind=domain.kind,
        subject_kind=domain.kind,
        environment=_environment(domain, id_),
        **parts,
    )


def _environment(domain: TrustDomainSettings, id_: SpiffeId) -> str | None:
    """The environment of a path; none where two patterns put it into different ones."""
    named = {environment for pattern, environment in domain.environments if pattern.covers(id_)}
    if not named:
        return domain.environment
    return named.pop() if len(named) == 1 else None
