"""What the headers `X-Forwarded-For` and `Forwarded` say, without believing any of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from authz_middleware.identity.connection.credentials import canonical_address

_IPV4_WITH_PORT: Final = re.compile(r"([0-9.]+):[0-9]{1,5}")
_BRACKETED: Final = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::[0-9]{1,5})?")
_PAIR: Final = re.compile(
    r"""[ \t]*([!#$%&'*+.^_`|~0-9A-Za-z-]+)=([!#$%&'*+.^_`|~0-9A-Za-z-]+|"(?:[^"\\]|\\.)*")[ \t]*([;,]|$)"""
)
_ESCAPED: Final = re.compile(r"\\(.)")


def parse_node(text: str) -> str | None:
    """The IP address of one hop: bare, IPv6 in brackets, perhaps with a port (RFC 7239 section 6).

    None for `unknown`, for an obfuscated identifier, and for everything else: who that was is not known.
    """
    found = _BRACKETED.fullmatch(text) or _IPV4_WITH_PORT.fullmatch(text)
    return canonical_address(found[1] if found else text)


def parse_addresses(values: Sequence[str], hops: int) -> list[str | None]:
    """The last hops of `X-Forwarded-For`, so many or fewer; the proxy next to us has written the very last.

    Several headers are one list (RFC 9110 section 5.3); some proxies add a header instead of appending to it.
    """
    return [parse_node(item.strip(" \t")) for item in ",".join(values).split(",")[-hops:]] if values else []


def parse_forwarded(values: Sequence[str]) -> list[dict[str, str]]:
    """The elements of `Forwarded` (RFC 7239 section 4); the proxy next to us has written the last.

    Raises ValueError unless all of it is well-formed: a quote that a client leaves open must not swallow what the proxy
    appends.
    """
    return [element for value in values for element in _elements(value)]


def _elements(value: str) -> list[dict[str, str]]:
    elements: list[dict[str, str]] = []
    position, separator = 0, ","
    while separator:
        found = _PAIR.match(value, position)
        if found is None:
            raise ValueError("not a list of forwarded elements")
        if separator == ",":
            elements.append({})
        name, text, separator = found[1].lower(), found[2], found[3]
        if name in elements[-1]:
            raise ValueError("a parameter that occurs twice")
        elements[-1][name] = _ESCAPED.sub(r"\1", text[1:-1]) if text.startswith('"') else text
        position = found.end()
    return elements
