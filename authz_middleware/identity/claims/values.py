"""Reading one value out of a token: found or absent, and refused when it is not what it must be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NoReturn, TypeAlias, TypeGuard

from authz_middleware.identity.problem import CredentialDetail, TokenRefusedError

Path: TypeAlias = tuple[str, ...]

ABSENT: Final[Any] = object()
"""Told apart from null, which is a value and of the wrong type everywhere."""

MAX_TEXT: Final = 2048
MAX_WORDS: Final = 256


class FrozenMapping(dict[str, Any]):
    """A mapping that stays as it was made. It is a dict, so that it can be copied and encoded like one."""

    __slots__ = ()

    def _refuse(self, *_args: object, **_kwargs: object) -> NoReturn:
        raise TypeError("this mapping cannot be changed")

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse  # pyright: ignore[reportAssignmentType] - a set of overloads that all refuse

    def __reduce__(self) -> tuple[type[FrozenMapping], tuple[dict[str, Any]]]:
        return FrozenMapping, (dict(self),)


def lookup(claims: Mapping[str, Any], places: tuple[Path, ...]) -> Any:
    """The value at the first of these places that the token has, or ABSENT."""
    for path in places:
        if len(path) == 1:
            value: Any = claims.get(path[0], ABSENT)
            if value is not ABSENT:
                return value
            continue
        value = claims
        for name in path:
            # Nearly always a dict, as JSON is read; a call, or asking for the abstract type, costs as much as all else.
            value = value.get(name, ABSENT) if type(value) is dict else _member(value, name)
            if value is ABSENT:
                break
        else:
            return value
    return ABSENT


def _member(value: object, name: str) -> Any:
    if isinstance(value, Mapping):
        return value.get(name, ABSENT)
    if isinstance(value, list) and name.isascii() and name.isdigit() and int(name) < len(value):
        return value[int(name)]
    return ABSENT


def text_at(claims: Mapping[str, Any], places: tuple[Path, ...]) -> str | None:
    """The text at the first of these places, or None where the token has none of them.

    Raises TokenRefusedError for anything that `is_text` does not accept.
    """
    value = lookup(claims, places)
    if value is ABSENT:
        return None
    if not is_text(value):
        raise TokenRefusedError(CredentialDetail.CLAIM_TYPE)
    return value


def words_at(claims: Mapping[str, Any], places: tuple[Path, ...]) -> frozenset[str]:
    """The set at the first of these places: words separated by spaces (RFC 6749 section 3.3), or a list of texts.

    Absent means the empty set. Raises TokenRefusedError for anything else.
    """
    value = lookup(claims, places)
    return frozenset() if value is ABSENT else words_of(value)


def words_of(value: object) -> frozenset[str]:
    """A set of words from a claim; see `words_at`."""
    words = [word for word in value.split(" ") if word] if isinstance(value, str) else value
    if not isinstance(words, list) or len(words) > MAX_WORDS or not all(map(is_text, words)):
        raise TokenRefusedError(CredentialDetail.CLAIM_TYPE)
    return frozenset(words)


def is_text(value: object) -> TypeGuard[str]:
    """Whether this is a non-blank string of bounded length in which every character can be shown.

    Control characters, line separators and bidirectional overrides could make a record say what it does not.
    """
    return isinstance(value, str) and 0 < len(value) <= MAX_TEXT and value.isprintable() and not value.isspace()
