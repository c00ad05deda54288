"""Judges an authorization server's answer to our request for a token (RFC 6749 sections 5.1 and 5.2)."""

from __future__ import annotations

from typing import Final

from authz_middleware.identity.keys.download import media_type
from authz_middleware.remote.credentials.bearer import bearer_header
from authz_middleware.remote.failure import FailureKind, RemoteFailure
from authz_middleware.remote.transport.protocol import RawAnswer
from authz_middleware.strict_json import StrictJSONError, parse_object

MAX_LIFETIME_S: Final = 86_400
"""A token that is good for longer is none that is short-lived."""

_KINDS: Final = {3: FailureKind.REDIRECT, 4: FailureKind.CONFIG, 5: FailureKind.STATUS_5XX}
# RFC 6749 section 5.2, RFC 8707 section 2: what may be told of a refusal without telling text from the wire.
_ERRORS: Final = frozenset(
    {
        "invalid_client",
        "invalid_grant",
        "invalid_request",
        "invalid_scope",
        "invalid_target",
        "unauthorized_client",
        "unsupported_grant_type",
    }
)


class Grant:
    """A token's header and its lifetime in seconds. Its `repr` does not show it."""

    __slots__ = ("header", "lifetime")

    def __init__(self, header: str, lifetime: int) -> None:
        self.header = header
        self.lifetime = lifetime

    def __repr__(self) -> str:
        return f"<Grant for {self.lifetime} s>"


def parse_grant(raw: RawAnswer) -> Grant | RemoteFailure:
    """The token in a response. A refusal is a fault of our configuration; 5xx and 429 are an outage."""
    if raw.status in (400, 401):
        return RemoteFailure(FailureKind.CONFIG, _refusal(raw))
    if raw.status != 200:
        kind = FailureKind.THROTTLED if raw.status == 429 else _KINDS.get(raw.status // 100, FailureKind.MALFORMED)
        return RemoteFailure(kind, f"credential.status.{raw.status}")
    try:
        members = _members(raw)
    except StrictJSONError as error:
        return _malformed(error.code)
    token_type, token, lifetime = (members.get(name) for name in ("token_type", "access_token", "expires_in"))
    if not isinstance(token_type, str) or token_type.lower() != "bearer":
        # A token that is bound to a key (RFC 9449 section 5) would be of no use without a proof.
        return _malformed("token_type")
    header = bearer_header(token) if isinstance(token, str) else None
    if header is None:
        return _malformed("access_token")
    if type(lifetime) is not int or not 0 < lifetime <= MAX_LIFETIME_S:
        return _malformed("expires_in")
    return Grant(header, lifetime)


def _members(raw: RawAnswer) -> dict[str, object]:
    types = raw.values("content-type")
    if len(types) != 1 or media_type(types[0]) != "application/json":
        raise StrictJSONError("header.content_type")
    if any(value.lower() != "identity" for value in raw.values("content-encoding")):
        raise StrictJSONError("header.content_encoding")
    return parse_object(raw.body)


def _refusal(raw: RawAnswer) -> str:
    try:
        error = _members(raw).get("error")
    except StrictJSONError:
        error = None
    return f"credential.refused.{error}" if isinstance(error, str) and error in _ERRORS else "credential.refused"


def _malformed(what: str) -> RemoteFailure:
    return RemoteFailure(FailureKind.MALFORMED, f"credential.{what}")
