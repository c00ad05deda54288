"""What is acted on: a type, an id, and the attributes the application knows about it.

A permission names its resource as a template (`invoice/{invoice_id}`) that is filled from the path parameters
the router resolved. An id that a person could not tell from another one is refused, not cleaned.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from string import Formatter
from typing import Any, Final

import msgspec

from authz_middleware.errors import AnnotationError

NO_ATTRIBUTES: Final[Mapping[str, Any]] = {}
MAX_ID_LENGTH: Final = 1024

# Cc control, Cf invisible format (zero-width, bidi overrides), Cs lone surrogate, Zl/Zp line separators.
_REFUSED_CATEGORIES: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


class Resource(msgspec.Struct, frozen=True, gc=False):
    """One resource. `attributes` is None until somebody has looked: policies then see every attribute as
    missing. `as_of` is when the attributes were read, in seconds since the epoch."""

    type: str
    id: str
    attributes: Mapping[str, Any] | None = None
    as_of: float | None = None


def is_clear_id(value: str) -> bool:
    """Whether an id is safe to decide on, to log and to show: 1 to 1024 characters, none of them a control,
    invisible or line-separating character, a lone surrogate, or U+FFFD (what a decoder puts where it had to guess)."""
    if value.isascii():
        return value.isprintable() and 0 < len(value) <= MAX_ID_LENGTH
    return (
        len(value) <= MAX_ID_LENGTH
        and "\ufffd" not in value
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
        if not slash or not type_ or not id_ or "{" in type_:
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
        return cls(text, type_, tuple(parts), frozenset(c for literal, _ in parts[1:] for c in literal))

    @property
    def parameters(self) -> tuple[str, ...]:
        """The path parameters that the template reads."""
        return tuple(name for _, name in self.parts if name is not None)

    def fill(self, params: Mapping[str, str]) -> Resource | None:
        """The resource these path parameters name, or None when they name none that is safe to decide on.

        With several fields no value may hold a character that separates them: two paths could give one id.
        """
        filled = []
        for literal, name in self.parts:
            filled.append(literal)
            if name is not None:
                value = params.get(name)
                if not value or not self.separators.isdisjoint(value):
                    return None
                filled.append(value)
        id_ = "".join(filled)
        return Resource(self.type, id_) if is_clear_id(id_) else None
