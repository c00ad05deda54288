"""The table `[remote.credential]`: what the decision point is shown to know who asks.

Either a token that others keep short-lived, or one that we fetch; a secret that stays needs a person who replaces it
(RFC 9700 section 2.5 recommends asymmetric client authentication over any shared secret).
"""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path
from typing import Any, Final, Literal, get_args
from urllib.parse import urlsplit

import msgspec

from authz_middleware.settings.secret import Secret
from authz_middleware.settings.section import Section
from authz_middleware.settings.urls import check_address

SigningAlgorithm = Literal["ES256", "ES384", "ES512", "EdDSA", "PS256", "PS384", "PS512", "RS256", "RS384", "RS512"]
AssertionType = Literal["client-authentication+jwt", "JWT"]

_KINDS: Final = ("token_file", "token", "client_credentials")
# RFC 6749 section 3.3 and appendix A.1; RFC 7515 puts no bound on a key id, and no server needs a longer one.
_SCOPE: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,256}")
_VISIBLE: Final = re.compile(r"[\x20-\x7e]{1,256}")


class TokenFile(msgspec.Struct, frozen=True):
    """A bearer token in a file that somebody replaces under us: a projected service-account token, a JWT-SVID."""

    path: Path


class StaticToken(msgspec.Struct, frozen=True):
    """A bearer token that stays until `owner` replaces it, on the day `rotate_by` (UTC) at the latest."""

    secret: Secret
    owner: str
    rotate_by: date


class ClientCredentials(msgspec.Struct, frozen=True):
    """An access token of an authorization server (RFC 6749 section 4.4), to which a private key shows who asks
    (RFC 7523 section 2.2)."""

    token_endpoint: str
    issuer: str
    """The authorization server's issuer identifier: the only audience of what we sign (RFC 7523bis section 4)."""
    client_id: str
    private_key: Secret
    """PEM, or a JSON Web Key that names its own `kid`."""
    algorithm: SigningAlgorithm = "ES256"
    key_id: str | None = None
    assertion_type: AssertionType = "client-authentication+jwt"
    scope: tuple[str, ...] = ()
    audience: str | None = None
    resource: tuple[str, ...] = ()
    ca_file: Path | None = None
    deadline: float = 5.0
    """For having one token altogether, in seconds."""


CredentialSettings = TokenFile | StaticToken | ClientCredentials


def read_credential(remote: Section) -> CredentialSettings | None:
    """Exactly one kind of credential; None where there is no table: the decision point is asked without one."""
    section = remote.optional_table("credential")
    if section is None:
        return None
    named = [kind for kind in _KINDS if kind in section]
    credential: CredentialSettings | None = None
    if len(named) != 1:
        for key in (*_KINDS, "owner", "rotate_by"):
            section.raw(key)
        what = 'needs exactly one of token_file = "path", token = { env = "NAME" } and client_credentials = { … }'
        section.problem("", what)
    elif named == ["token_file"]:
        path = section.file("token_file")
        credential = TokenFile(path) if path is not None else None
    elif named == ["token"]:
        credential = _static(section)
    else:
        credential = _client_credentials(section.table("client_credentials"))
    section.done()
    return credential


def _static(section: Section) -> StaticToken | None:
    secret, owner, rotate_by = section.secret("token"), section.text("owner", None), _day(section, "rotate_by")
    if "owner" not in section:
        section.problem("owner", "is required: a secret that stays needs somebody who replaces it")
    if secret is None or owner is None or rotate_by is None:
        return None
    return StaticToken(secret, owner, rotate_by)


def _day(section: Section, key: str) -> date | None:
    value = section.raw(key)
    try:
        day = date.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        day = None
    if type(day) is date:  # a date with a time is one of its subclasses
        return day
    accepted = "the last day on which this secret may be used, such as 2026-12-31"
    section.problem(key, f"must be {accepted}" if key in section else f"is required: {accepted}")
    return None


def _client_credentials(section: Section) -> ClientCredentials | None:
    addresses = {key: section.text(key) for key in ("token_endpoint", "issuer")}
    for key, address in addresses.items():
        if isinstance(address, str):
            check_address(section, key, address)
    private_key = section.secret("private_key")
    if "private_key" not in section:
        section.problem("private_key", 'is required: { file = "path" } or { env = "NAME" }')
    settings = {
        **addresses,
        "client_id": _fitting(section, "client_id", section.text("client_id")),
        "algorithm": section.choice("algorithm", get_args(SigningAlgorithm), "ES256"),
        "key_id": _fitting(section, "key_id", section.text("key_id", None)),
        "assertion_type": section.choice("assertion_type", get_args(AssertionType), "client-authentication+jwt"),
        "scope": _scope(section),
        "audience": section.text("audience", None),
        "resource": _resource(section),
        "ca_file": section.file("ca_file", None),
        "deadline": section.duration("deadline", "5s", least="10ms", most="30s"),
    }
    section.done()
    return None if private_key is None else ClientCredentials(private_key=private_key, **settings)


def _fitting(section: Section, key: str, value: Any) -> Any:
    if isinstance(value, str) and not _VISIBLE.fullmatch(value):
        section.problem(key, "must be 1 to 256 printable ASCII characters")
    return value


def _scope(section: Section) -> tuple[str, ...]:
    scope = section.texts("scope", ())
    if not all(_SCOPE.fullmatch(each) for each in scope):
        section.problem("scope", 'must be a list of single scopes, such as ["pdp.evaluate"]')
    return scope


def _resource(section: Section) -> tuple[str, ...]:
    """Where the token is to be used (RFC 8707 section 2): absolute URIs without fragment."""
    resources = section.texts("resource", ())
    for resource in resources:
        try:
            parts = urlsplit(resource)
        except ValueError:
            parts = urlsplit("")
        if not parts.scheme or "#" in resource or not _VISIBLE.fullmatch(resource):
            section.problem("resource", "must be absolute URIs without fragment (RFC 8707)")
    return resources
