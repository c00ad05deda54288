"""What becomes of a token under some settings, check by check: for people who wonder why it is refused.

The checks are those of `tokens.verify`, made by the same functions. Where one refuses the others go on, as far as they
can without it, so that all that is wrong with a token is known at once. Nothing is fetched.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any, Final, TypeVar

import msgspec

from authz_middleware.identity.claims.principals import principal_of
from authz_middleware.identity.compact import RawClaims, RawHeader, RawToken, parse_token
from authz_middleware.identity.keys.download import MAX_DOCUMENT
from authz_middleware.identity.keys.jwk import Keyring, KeySetError, read_jwks
from authz_middleware.identity.possession.binding import Binding, binding_of, check_possession
from authz_middleware.identity.principal import Principal
from authz_middleware.identity.problem import CredentialDetail, TokenRefusedError
from authz_middleware.identity.tokens import (
    IssuerRules,
    check_audience,
    check_header,
    check_issuer,
    check_kind,
    check_subject,
    check_times,
    check_use,
)
from authz_middleware.settings.issuers import IssuerSettings
from authz_middleware.strict_json import parse_object

T = TypeVar("T")


class Outcome(StrEnum):
    """How a token fared in one check."""

    OK = "ok"
    REFUSED = "refused"
    UNKNOWN = "unknown"
    """It could not be made here; `Check.why` says what it would take."""


class Check(msgspec.Struct, frozen=True):
    """One check: what it looks at, how the token fared, and which code a record would have. Holds nothing of the
    token."""

    subject: str
    outcome: Outcome
    detail: CredentialDetail | None = None
    why: str = ""


class Inspection(msgspec.Struct, frozen=True):
    """All that is known of a token. `header` and `claims` are as it states them, verified or not; None: unreadable.

    `issuer` is the one whose settings were applied, `principal` whom the token would establish.
    """

    checks: tuple[Check, ...]
    header: RawHeader | None = None
    claims: RawClaims | None = None
    issuer: IssuerSettings | None = None
    principal: Principal | None = None
    binding: Binding | None = None

    @property
    def refusals(self) -> tuple[Check, ...]:
        """The checks that refuse the token."""
        return tuple(check for check in self.checks if check.outcome is Outcome.REFUSED)

    @property
    def is_accepted(self) -> bool:
        """Whether every check was made, and passed."""
        return all(check.outcome is Outcome.OK for check in self.checks)


_UNREADABLE: Final = frozenset({CredentialDetail.ISSUER, CredentialDetail.CLAIM_MISSING, CredentialDetail.CLAIM_TYPE})


class _Trial:
    """Makes checks and keeps their outcomes."""

    def __init__(self) -> None:
        self.checks: list[Check] = []

    def run(self, subject: str, check: Callable[[], T]) -> T | None:
        """What the check answers, or None where it refuses."""
        try:
            answer = check()
        except TokenRefusedError as refusal:
            self.checks.append(Check(subject, Outcome.REFUSED, refusal.detail))
            return None
        except KeySetError as error:
            self.checks.append(Check(subject, Outcome.REFUSED, CredentialDetail.KEYS_UNAVAILABLE, str(error)))
            return None
        except Exception as error:  # noqa: BLE001 - as in the authenticator, what nobody foresaw is a refusal
            self.checks.append(Check(subject, Outcome.REFUSED, CredentialDetail.UNEXPECTED, type(error).__name__))
            return None
        self.checks.append(Check(subject, Outcome.OK))
        return answer

    def skip(self, subject: str, why: str) -> None:
        self.checks.append(Check(subject, Outcome.UNKNOWN, why=why))


def inspect_token(
    text: str,
    issuers: Sequence[IssuerSettings],
    now: float,
    *,
    jwks: bytes | None = None,
    has_trust_domains: bool = False,
) -> Inspection:
    """Judge a token as at `now` (seconds since the epoch). `jwks` is a key set to use where the settings name an
    address; without it a signature that needs one is not checked. `has_trust_domains` says whether a workload's token
    may be none of the issuers'. Never raises for anything in the token."""
    trial = _Trial()
    token = trial.run("form", lambda: parse_token(text))
    if token is None:
        if any(issuer.introspection is not None for issuer in issuers):
            trial.skip("introspection", "if this is an opaque token, only its issuer can tell; nobody was asked")
        return Inspection(tuple(trial.checks))
    claims = trial.run("claims", lambda: token.unverified_claims)
    if has_trust_domains and _is_svid(claims, issuers):
        trial.skip("trust domain", "a JWT-SVID is checked by the rules of its trust domain, which is not done here")
        return Inspection(tuple(trial.checks), token.unverified_header, claims)
    settings = _issuer_of(claims, issuers)
    if settings is None:
        trial.checks.append(Check("issuer", Outcome.REFUSED, CredentialDetail.ISSUER))
        return Inspection(tuple(trial.checks), token.unverified_header, claims)
    rules = IssuerRules(settings)
    if settings.introspection is not None:
        trial.skip("introspection", "its issuer is asked about each of its tokens; nobody was asked")
    else:
        _check_signature(trial, token, rules, jwks)
    principal, binding = (None, None) if claims is None else _check_claims(trial, claims, rules, now)
    return Inspection(tuple(trial.checks), token.unverified_header, claims, settings, principal, binding)


def _binding(claims: RawClaims, settings: IssuerSettings) -> Binding | None:
    binding = binding_of(claims)
    check_possession(binding, settings.proof)
    return binding


def _is_svid(claims: RawClaims | None, issuers: Sequence[IssuerSettings]) -> bool:
    """Whether a trust domain is to vouch for this token, and no issuer."""
    subject = (claims or {}).get("sub")
    named = (claims or {}).get("iss")
    return isinstance(subject, str) and subject.startswith("spiffe:") and all(one.issuer != named for one in issuers)


def _issuer_of(claims: RawClaims | None, issuers: Sequence[IssuerSettings]) -> IssuerSettings | None:
    """The issuer that the token names; where there is only one, that one in any case."""
    named = None if claims is None else claims.get("iss")
    sole = issuers[0] if len(issuers) == 1 else None
    return next((issuer for issuer in issuers if issuer.issuer == named), sole)


def _check_signature(trial: _Trial, token: RawToken, rules: IssuerRules, jwks: bytes | None) -> None:
    header = token.unverified_header
    chosen = trial.run("header", lambda: check_header(header, rules))
    trial.run("type", lambda: check_kind(header, rules))
    if rules.settings.jwks is None and rules.settings.jwks_file is None and jwks is None:
        trial.skip("signature", "the issuer's keys are fetched from an address, and nothing is fetched here")
        return
    keys = trial.run("keys", lambda: _keys(rules.settings, jwks))
    if keys is None or chosen is None:
        trial.skip("signature", "it takes a key and an algorithm")
        return
    key = trial.run("key", lambda: keys.select(*chosen))
    if key is None:
        trial.skip("signature", "it takes a key")
    elif key.verifies(token.signed, token.signature):
        trial.checks.append(Check("signature", Outcome.OK))
    else:
        trial.checks.append(Check("signature", Outcome.REFUSED, CredentialDetail.SIGNATURE))


def _keys(settings: IssuerSettings, jwks: bytes | None) -> Keyring:
    document: Any = settings.jwks
    if document is None:
        document = _members(_content(settings) if jwks is None else jwks)
    is_file = settings.jwks_file is not None
    return read_jwks(document, settings.algorithms, secrets=is_file, name=settings.issuer)


def _content(settings: IssuerSettings) -> bytes:
    assert settings.jwks_file is not None
    try:
        with settings.jwks_file.open("rb") as file:
            return file.read(MAX_DOCUMENT + 1)
    except OSError as error:
        raise KeySetError(f"cannot be read from {settings.jwks_file}: {error.strerror}") from None


def _members(document: bytes) -> dict[str, Any]:
    try:
        return parse_object(document, max_bytes=MAX_DOCUMENT)
    except ValueError:
        raise KeySetError("is not a JSON object in strict UTF-8 without duplicate members") from None


def _check_claims(
    trial: _Trial, claims: RawClaims, rules: IssuerRules, now: float
) -> tuple[Principal | None, Binding | None]:
    first = len(trial.checks)
    trial.run("issuer", lambda: check_issuer(claims, rules))
    trial.run("times", lambda: check_times(claims, rules.settings, now))
    trial.run("audience", lambda: check_audience(claims, rules))
    trial.run("subject", lambda: check_subject(claims))
    unreadable = any(check.detail in _UNREADABLE for check in trial.checks[first:])
    trial.run("use", lambda: check_use(claims))
    binding = trial.run("binding", lambda: _binding(claims, rules.settings))
    if unreadable:
        trial.skip("meaning", "it takes an issuer, times, an audience and a subject that can be read")
        return None, binding
    return trial.run("meaning", lambda: principal_of(claims, rules.settings, rules.claim_map)), binding
