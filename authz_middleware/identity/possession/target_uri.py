"""Whether two ways to write an address are the same address (RFC 3986 section 6.2), for the `htu` of a proof.

Equal are only those that every server treats alike: case of scheme, host and percent-encodings, the default port, an
unreserved character spelt as itself or encoded. A slash more, or an encoded one, is another address.
"""

from __future__ import annotations

import re
from typing import Final

from authz_middleware.identity.connection.credentials import Target

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
# RFC 3986 appendix B, for addresses with an authority.
_PARTS: Final = re.compile(r"([A-Za-z]+)://([^/?#]*)([^?#]*)(?:\?[^#]*)?(?:#.*)?", re.ASCII)
# No user information, no percent-encoded host: no address of a resource has them, and they are read in several ways.
_AUTHORITY: Final = re.compile(r"([A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{0,5}))?", re.ASCII)
_PATH: Final = re.compile(r"(?:/(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})*)*", re.ASCII)
_ENCODED: Final = re.compile(r"%[0-9A-Fa-f]{2}", re.ASCII)
_UNRESERVED: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


def normalise_uri(uri: str) -> str | None:
    """An http or https URI in the one form of all its spellings, without query and fragment; None for anything else."""
    parts = _PARTS.fullmatch(uri)
    if parts is None:
        return None
    scheme, authority, path = parts.groups()
    origin, spelt = _origin(scheme, authority), _path(path)
    return None if origin is None or spelt is None else origin + _without_dots(spelt)


def normalise_target(target: Target) -> str | None:
    """The same for where a request was sent to; None where that is no address a proof could name.

    A path with dot segments is none: clients resolve them before they send, and what servers make of them differs.
    """
    origin, path = _origin(target.scheme, target.authority), _path(target.path)
    if origin is None or path is None or _without_dots(path) != path:
        return None
    return origin + path


def _origin(scheme: str, authority: str) -> str | None:
    scheme = scheme.lower()
    parts = _AUTHORITY.fullmatch(authority)
    if parts is None or scheme not in _DEFAULT_PORTS:
        return None
    host, digits = parts.groups()
    port = int(digits) if digits else _DEFAULT_PORTS[scheme]
    if not 0 < port <= 65_535:
        return None
    return f"{scheme}://{host.lower()}:{port}"


def _path(path: str) -> str | None:
    if not _PATH.fullmatch(path):
        return None
    return _ENCODED.sub(_decode_unreserved, path) or "/"


def _decode_unreserved(encoded: re.Match[str]) -> str:
    character = chr(int(encoded[0][1:], 16))
    return character if character in _UNRESERVED else encoded[0].upper()


def _without_dots(path: str) -> str:
    """RFC 3986 section 5.2.4, for a path that begins with a slash."""
    kept: list[str] = []
    segments = path[1:].split("/")
    for segment in segments:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    if segments[-1] in (".", ".."):
        kept.append("")
    return "/" + "/".join(kept)
