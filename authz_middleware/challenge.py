"""The `WWW-Authenticate` header: how a client may try again (RFC 9110 section 11.6.1).

Whatever comes from a policy, an annotation or the settings is made harmless here, so that none of it can break out of
its quotes or out of the header.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

Header = tuple[str, str]
Parameters = Mapping[str, str | int]

NAME: Final = "www-authenticate"
BEARER: Final[tuple[Header, ...]] = ((NAME, "Bearer"),)


def challenge_headers(offered: Sequence[Header], told: Parameters, common: Parameters) -> Iterator[Header]:
    """One header for each scheme that is offered, each with what is told and then with what is common to all.

    `offered` are headers as the schemes write them: `Bearer`, `DPoP algs="ES256"`. A scheme that names an error of its
    own, such as the missing nonce of DPoP (RFC 9449 section 9), is told no other. Any other header stays as it is.
    """
    for name, value in offered:
        yield (name, _challenge(value, told, common)) if name == NAME else (name, value)


def is_word(text: str) -> bool:
    """Whether a text can stand within quotes in a list separated by spaces: a scope-token of RFC 6749 section 3.3."""
    return bool(text) and all("\x21" <= character <= "\x7e" and character not in '"\\' for character in text)


def _challenge(offered: str, told: Parameters, common: Parameters) -> str:
    scheme, _, own = offered.partition(" ")
    written = [] if own.startswith("error=") else _written(told)
    parameters = ", ".join([*written, *([own] if own else []), *_written(common)])
    return f"{scheme} {parameters}" if parameters else scheme


def _written(parameters: Parameters) -> list[str]:
    return [f"{name}={_value(value)}" for name, value in parameters.items()]


def _value(value: str | int) -> str:
    """A number as it is, a text as a quoted-string (RFC 9110 section 5.6.4) of visible ASCII and spaces."""
    if isinstance(value, int):
        return str(value)
    kept = "".join(character for character in value if "\x20" <= character <= "\x7e")
    return '"' + kept.replace("\\", "\\\\").replace('"', '\\"') + '"'
