"""Addresses in the settings: https, or plain http on this very machine, and nothing in them that is a secret."""

from __future__ import annotations

from typing import Final
from urllib.parse import SplitResult, urlsplit

from authz_middleware.address import Address, parse_address
from authz_middleware.settings.section import Section

_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


def check_url(section: Section, key: str, url: str, *, is_local: bool = False) -> bool:
    """Whether a URL is https with a host and holds no more than scheme, host, port and path; if not, it is reported.

    `is_local` says that it is reached without a network, where plain http will do.
    """
    parts = _split(url)
    if parts is None or parts.username or parts.password or parts.query or parts.fragment:
        section.problem(key, "must have a host, perhaps a port, and neither credentials, query nor fragment")
    elif parts.scheme != "https" and not (parts.scheme == "http" and (is_local or parts.hostname in _LOOPBACK)):
        section.problem(key, "must be an https URL; plain http is for loopback addresses only")
    else:
        return True
    return False


def check_address(section: Section, key: str, url: str) -> Address | None:
    """The parts of a URL that `check_url` accepts and of which there is only one reading; else it is reported."""
    try:
        return parse_address(url) if check_url(section, key, url) else None
    except ValueError:
        section.problem(key, "must be a plain URL: an ASCII host without a trailing dot, perhaps a port and a path")
        return None


def _split(url: str) -> SplitResult | None:
    """The parts of a URL that has a host and, if any, a port that there is."""
    try:
        parts = urlsplit(url)
        return parts if parts.hostname and parts.port != 0 else None
    except ValueError:
        return None
