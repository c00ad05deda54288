"""What is acted on: a type, an id, and the attributes the application knows about it.

A permission names its resource as a template (`invoice/{invoice_id}`) that is filled from the path parameters
the router resolved. An id that a person could not tell from another one is refused, not cleaned.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from string import Formatter
from typing import Any, Final

import msgspec

from authz_middleware.errors import AnnotationError

MAX_ID_LENGTH: Final = 1024

# Cc control, Cf invisible format (zero-width, bidi overrides), Cs lone surrogate, Zl/Zp line separators.
_REFUSED_CATEGORIES: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
# What is drawn as nothing or as a space without being one by its category: fillers, variation selectors, joiners.
_UNSEEN: Final = re.compile(
    "[\u00a0\u034f\u115f\u1160\u1680\u17b4\u17b5\u180b-\u180f\u2000-\u200a\u202f\u205f\u2800\u3000\u3164"
    "\ufe00-\ufe0f\uffa0\ufffd\U000e0100-\U000e01ef]"
)
_DOTS: Final = frozenset({"", ".", ".."})


class Resource(msgspec.Struct, frozen=True, gc=False):
    """One resource. `attributes` is None until somebody has looked: policies then see every attribute as
    missing. `as_of` is when the attributes were read, in seconds since the epoch."""

    type: str
    id: str
    attributes: Mapping[str, Any] | None = None
    as_of: float | None = None


def is_clear_id(value: str) -> bool:
    """Whether an id is safe to decide on, to log and to show: 1 to 1024 characters in Unicode's composed form (NFC),
    no space at either end, and none that is a control, invisible, a line separator, a lone surrogate, or U+FFFD (what a
    decoder puts where it had to guess)."""
    if not 0 < len(value) <= MAX_ID_LENGTH or value[0] == " " or value[-1] == " ":
        return False
    if value.isascii():
        return value.isprintable()
    return (
        unicodedata.is_normalized("NFC", value)
        and _UNSEEN.search(value) is None
        and not any(unicodedata.category(character) in _REFUSED_CATEGORIES for character in value)
    )


class ResourceTemplate(msgspec.Struct, frozen=True):
    """A parsed resource template: the literal type, and the id as literals and parameter names in turn."""

    text: str
    type: str
    parts: tuple[tuple[str, str | None], ...]
    separators: frozenset[str] = frozenset()
    """The characters that stand between fields, where there are several."""

    @classmethod
    def parse(cls, text: str) -> ResourceTemplate:
        """Parse `type/id`, where the id may hold `{parameter}` fields.

        Raises AnnotationError when the type is not literal or a field is more than a plain name.
        """
        type_, slash, id_ = text.partition("/")
        if not slash or not id_ or "{" in type_ or not is_clear_id(type_):
            raise AnnotationError(
                f"resource {text!r} must be a literal type, a slash and an id, such as 'invoice/{{invoice_id}}'"
            )
        try:
            fields = [tuple(field) for field in Formatter().parse(id_)]
        except ValueError as error:
            raise AnnotationError(f"resource {text!r}: {error}") from None
        parts: list[tuple[str, str | None]] = []
        for literal, name, spec, conversion in fields:
            if name is not None and (not name.isidentifier() or spec or conversion):
                raise AnnotationError(f"resource {text!r}: a field is the plain name of a path parameter, not {name!r}")
            if parts and not literal:
                raise AnnotationError(f"resource {text!r}: two fields need something between them, such as a slash")
            parts.append((literal or "", name))
        between = (literal for literal, name in parts[1:] if name is not None)
        return cls(text, type_, tuple(parts), frozenset(character for literal in between for character in literal))

    @property
    def parameters(self) -> tuple[str, ...]:
        """The path parameters that the template reads."""
        return tuple(name for _, name in self.parts if name is not None)

    def fill(self, params: Mapping[str, str]) -> Resource | None:
        """The resource these path parameters name, or None when they name none that is safe to decide on.

        With several fields no value may hold a character that separates them: two paths could give one id. Nor may one
        have an empty segment, `.` or `..`: what a file system makes of it is not what a rule compares.
        """
        filled = []
        for literal, name in self.parts:
            filled.append(literal)
            if name is not None:
                value = params.get(name)
                if not value or not self.separators.isdisjoint(value) or _climbs(value):
                    return None
                filled.append(value)
        id_ = "".join(filled)
        return Resource(self.type, id_) if is_clear_id(id_) else None


def _climbs(value: str) -> bool:
    return ("/" in value or "." in value) and not _DOTS.isdisjoint(value.split("/"))
