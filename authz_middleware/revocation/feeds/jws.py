"""Signed documents that are no credentials: status lists, revocation lists, security events.

All are JSON Web Signatures in compact form (RFC 7515 section 7.1), larger than a token may be, and read as strictly:
one spelling of each part, strict JSON, a `typ` of their own (RFC 8725 section 3.11), a key that brings its algorithm.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Collection, Mapping
from typing import Any, Final

from authz_middleware.identity.keys.jwk import KEY_ID, Keyring
from authz_middleware.identity.problem import CredentialDetail, TokenRefusedError
from authz_middleware.strict_json import parse_object

_MAX_HEADER: Final = 4 * 1024
_COMPACT: Final = re.compile(rb"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")
_UNDERSTOOD_BY_NOBODY_HERE: Final = frozenset({"crit", "zip", "b64"})
# The end of the year 9999; what lies beyond breaks date arithmetic elsewhere.
_MAX_TIME: Final = 253_402_300_799


class DocumentRefusedError(Exception):
    """A document cannot be used. `code` is stable and names the check; it holds nothing of the document."""

    def __init__(self, code: str) -> None:
        self.code = code
        super().__init__(code)


class SignedDocument:
    """A document in its parts. Nothing in it is verified before `check_signature` has returned."""

    __slots__ = ("_algorithm", "_kid", "_signature", "_signed", "unverified_claims")

    def __init__(self, header: Mapping[str, Any], claims: dict[str, Any], signed: bytes, signature: bytes) -> None:
        kid, algorithm = header.get("kid"), header.get("alg")
        if "kid" in header and not (isinstance(kid, str) and KEY_ID.fullmatch(kid)):
            raise DocumentRefusedError("document.header")
        if not isinstance(algorithm, str):
            raise DocumentRefusedError("document.algorithm")
        self._kid = kid
        self._algorithm = algorithm
        self._signed = signed
        self._signature = signature
        self.unverified_claims = claims

    def check_signature(self, keys: Keyring, algorithms: Collection[str]) -> None:
        """Raise DocumentRefusedError unless one of these keys, with its own algorithm, has signed the exact bytes."""
        if self._algorithm not in algorithms:
            raise DocumentRefusedError("document.algorithm")
        try:
            key = keys.select(self._kid, self._algorithm)
        except TokenRefusedError as refusal:
            known = refusal.detail is not CredentialDetail.KEY_UNKNOWN
            raise DocumentRefusedError("document.algorithm" if known else "document.key_unknown") from None
        if not key.verifies(self._signed, self._signature):
            raise DocumentRefusedError("document.signature")

    def forget_claims(self) -> None:
        """Keep only what a later `check_signature` needs."""
        self.unverified_claims = {}


def parse_document(data: bytes, *, typ: str, limit: int) -> SignedDocument:
    """A document of at most `limit` bytes and of this type (without `application/`), taken apart but not believed.

    Raises DocumentRefusedError.
    """
    if len(data) > limit:
        raise DocumentRefusedError("document.too_long")
    parts = _COMPACT.fullmatch(data)
    if parts is None:
        raise DocumentRefusedError("document.malformed")
    header = _object(parts[1], _MAX_HEADER)
    if not _UNDERSTOOD_BY_NOBODY_HERE.isdisjoint(header):
        raise DocumentRefusedError("document.header")
    if _kind_of(header.get("typ")) != typ:
        raise DocumentRefusedError("document.type")
    try:
        signature = decode_base64url(parts[3])
    except ValueError:
        raise DocumentRefusedError("document.malformed") from None
    return SignedDocument(header, _object(parts[2], limit), data[: parts.end(2)], signature)


def decode_base64url(part: bytes) -> bytes:
    """The bytes of an unpadded base64url text in its one canonical spelling (RFC 4648 sections 3.5 and 5).

    Raises ValueError for any other.
    """
    try:
        decoded = base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4))
    except binascii.Error:
        raise ValueError("not base64url") from None
    # The standard library passes over characters outside the alphabet and bits beyond the last byte.
    if base64.urlsafe_b64encode(decoded).rstrip(b"=") != part:
        raise ValueError("not canonical")
    return decoded


def time_of(claims: Mapping[str, Any], name: str) -> float:
    """A NumericDate that must be there (RFC 7519 section 2). Raises DocumentRefusedError."""
    value: Any = claims.get(name)
    # An exact type: true is an int in Python.
    if type(value) not in (int, float) or not 0 <= value <= _MAX_TIME:
        raise DocumentRefusedError(f"document.{name}")
    return float(value)


def _object(part: bytes, limit: int) -> dict[str, Any]:
    try:
        return parse_object(decode_base64url(part), max_bytes=limit)
    except ValueError:
        raise DocumentRefusedError("document.malformed") from None


def _kind_of(typ: object) -> str | None:
    """The media type in `typ`, without regard to case or to `application/` (RFC 7515 section 4.1.9)."""
    if not isinstance(typ, str) or not typ.isascii():
        return None
    return typ.lower().removeprefix("application/")
