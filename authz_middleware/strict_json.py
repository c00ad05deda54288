"""JSON that means one thing to everybody who reads it (RFC 8259 with the MUST of RFC 7493), for tokens, key sets,
answers and questions.

Two parsers that disagree about a duplicate member, a NaN or a byte that is not UTF-8 are a way around a check
(RFC 8725 section 2.4): to show one token to an issuer, or one answer to a proxy, and another to us. So a text with
any of them is not read at all.
"""

from __future__ import annotations

import json
from typing import Any, Final

import msgspec

MAX_BODY: Final = 64 * 1024
MAX_DEPTH: Final = 32
MAX_DIGITS: Final = 19
MAX_FLOAT: Final = 64
"""Characters of a number with a fraction or an exponent; the longest that a double needs has 24."""


class StrictJSONError(ValueError):
    """The bytes are not one strict JSON object. `code` is stable and holds nothing from the wire."""

    def __init__(self, code: str) -> None:
        self.code = code
        super().__init__(code)


def parse_object(body: bytes, *, max_bytes: int = MAX_BODY, max_items: int | None = None) -> dict[str, Any]:
    """One JSON object from the whole of `body`. Raises StrictJSONError.

    `max_items` bounds what there is to build before it is built: the commas and opening brackets in the text, those
    within strings included. A few KiB of them cost a hundred times as much to read as the same length of text.
    """
    if len(body) > max_bytes:
        raise StrictJSONError("body.too_large")
    if max_items is not None and body.count(b",") + body.count(b"[") + body.count(b"{") > max_items:
        raise StrictJSONError("body.too_many_items")
    value = _plain(body)
    if value is None:
        value = _careful(body)
    # Both faults are only possible where these bytes are, and the walk costs more than the parsing.
    if b"\\u" in body or body.count(b"[") + body.count(b"{") > MAX_DEPTH:
        _walk(value)
    return value


def _plain(body: bytes) -> dict[str, Any] | None:
    """The object, where `body` is what an encoder writes of what a decoder reads in it, white space apart; else None.

    Then no member was read twice, no number in two ways and no text by way of an escape: whatever the decoder took for
    another, or left out, the encoder would have written otherwise. White space stands between two tokens only where
    another character does as well, so that nothing grows together when it is taken away, and a line break or a tab
    within a text is written as an escape. Nearly all that is sent is of this form, and it is read three times as fast.
    """
    try:
        value = _READ(body)
        written = _WRITE(value)
    except Exception:  # noqa: BLE001 - whatever it was, the careful reader says what is wrong
        return None
    if written != body and written.translate(None, _WHITE_SPACE) != body.translate(None, _WHITE_SPACE):
        return None
    return value if isinstance(value, dict) and _TOO_MANY_DIGITS not in body.translate(_DIGITS_AS_ZEROS) else None


def _careful(body: bytes) -> dict[str, Any]:
    """The object in any other spelling, or what is wrong with it."""
    try:
        value = _DECODER.decode(body.decode("utf-8"))
    except StrictJSONError:
        raise
    except UnicodeDecodeError:
        raise StrictJSONError("body.not_utf8") from None
    except RecursionError:
        raise StrictJSONError("body.too_deep") from None
    except ValueError:
        raise StrictJSONError("body.not_json") from None
    if not isinstance(value, dict):
        raise StrictJSONError("body.not_an_object")
    return value


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise StrictJSONError("body.duplicate_member")
    return members


def _no_constant(_: str) -> Any:
    raise StrictJSONError("body.not_finite")


def _short(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise StrictJSONError("body.number_too_long")
    return int(digits)


def _finite(text: str) -> float:
    if len(text) > MAX_FLOAT:
        raise StrictJSONError("body.number_too_long")
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise StrictJSONError("body.not_finite")
    return number


_READ: Final = msgspec.json.Decoder().decode
_WRITE: Final = msgspec.json.Encoder().encode
_WHITE_SPACE: Final = b" \t\r\n"
_DIGITS_AS_ZEROS: Final = bytes.maketrans(b"123456789", b"000000000")
_TOO_MANY_DIGITS: Final = b"0" * MAX_DIGITS  # with a sign before it, one too many

# Made once: json.loads makes one at each call with hooks, which takes longer than to read a token's claims.
_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_members, parse_constant=_no_constant, parse_float=_finite, parse_int=_short
)


def _walk(value: Any) -> None:
    """Refuse nesting beyond the limit, and escapes that spell half a character."""
    level, depth = [value], 0
    while level:
        depth += 1
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                below += item
                below += item.values()
            elif isinstance(item, list):
                below += item
            elif isinstance(item, str) and not _is_unicode(item):
                raise StrictJSONError("body.lone_surrogate")
        level = below
        if depth == MAX_DEPTH and any(isinstance(item, dict | list) for item in level):
            raise StrictJSONError("body.too_deep")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
