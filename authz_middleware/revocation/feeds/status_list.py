"""One status list: a signed array of a few bits for each of very many tokens (draft-ietf-oauth-status-list).

What a token says of its place in a list is `identity.claims.status_reference`; which lists are held, and how they are
refreshed, is `status_lists`.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from authz_middleware.revocation.feeds.jws import DocumentRefusedError, decode_base64url

MAX_BYTES: Final = 16 * 1024 * 1024
"""What a list may hold when decompressed: 134 million tokens of one bit each."""

_SHIFTS: Final = {1: 3, 2: 2, 4: 1, 8: 0}


class TokenStatus(StrEnum):
    """What can be said of one token. VALID may pass, UNAVAILABLE could not be found out, all others are refused."""

    VALID = "status.valid"
    """0x00."""
    INVALID = "status.invalid"
    """0x01: revoked, for good."""
    SUSPENDED = "status.suspended"
    """0x02: not valid at present."""
    OTHER = "status.other"
    """A value that nobody here understands; unknown is not valid."""
    OUT_OF_RANGE = "status.out_of_range"
    """The list has no such index, so that it makes no statement and the token must be refused (section 8.3)."""
    NOT_CONFIGURED = "status.not_configured"
    """The token has a status, and the settings do not say where its issuer publishes them."""
    NOT_ALLOWED = "status.not_allowed"
    """The list lies where the settings do not allow this issuer's lists to be."""
    UNAVAILABLE = "status.unavailable"
    """The list has not been fetched yet, or the last good one is too old."""


class StatusList:
    """Statuses by index, packed from the least significant bit of each byte on (section 4.1)."""

    __slots__ = ("_bits", "_mask", "_packed", "_places", "_shift", "size")

    def __init__(self, bits: int, packed: bytes) -> None:
        self._bits = bits
        self._packed = packed
        self._shift = _SHIFTS[bits]
        self._places = (1 << self._shift) - 1
        self._mask = (1 << bits) - 1
        self.size = len(packed) << self._shift

    @property
    def weight(self) -> int:
        """The bytes it takes."""
        return len(self._packed)

    def at(self, index: int) -> int | None:
        """The status of one token, or None where the list has no such index."""
        if not 0 <= index < self.size:
            return None
        return self._packed[index >> self._shift] >> (index & self._places) * self._bits & self._mask


def read_status_list(member: object) -> StatusList:
    """The list in the claim `status_list` of a status list token (section 4.2). Raises DocumentRefusedError."""
    if not isinstance(member, Mapping):
        raise DocumentRefusedError("status_list.form")
    bits, text = member.get("bits"), member.get("lst")
    if type(bits) is not int or bits not in _SHIFTS or not isinstance(text, str) or not text.isascii():
        raise DocumentRefusedError("status_list.form")
    try:
        return StatusList(bits, _inflated(decode_base64url(text.encode("ascii"))))
    except (ValueError, zlib.error):
        raise DocumentRefusedError("status_list.encoding") from None


def _inflated(data: bytes) -> bytes:
    """The one whole ZLIB stream (RFC 1950) in `data`, within bounds: a few kilobytes can stand for gigabytes."""
    stream = zlib.decompressobj()
    inflated = stream.decompress(data, MAX_BYTES + 1)
    if len(inflated) > MAX_BYTES:
        raise DocumentRefusedError("status_list.too_large")
    # Broken off, or followed by what another reader might take for the list.
    if not stream.eof or stream.unused_data:
        raise ValueError("not one whole stream")
    return inflated
