"""The table `[protected_resource]`: what clients are told about this application (RFC 9728)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import msgspec

from authz_middleware.challenge import is_word
from authz_middleware.settings.section import Section
from authz_middleware.settings.urls import check_address

# Segments that no server, proxy or client writes in another way, so that the path of the metadata is one string.
_PATH: Final = re.compile(r"https?://[^/]+((?:/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._~-]+)*/?)")
_PAGE: Final = re.compile(r"https://[!-~]+")


class ProtectedResourceSettings(msgspec.Struct, frozen=True):
    """What the metadata of this application says; the names are those of RFC 9728 section 2.

    `authorization_servers` are the issuers that clients may go to, None for all; `scopes_supported` None for all that
    the policy's permit rules name. `max_age` is for how many seconds the metadata may be kept.
    """

    resource: str
    authorization_servers: tuple[str, ...] | None = None
    scopes_supported: tuple[str, ...] | None = None
    resource_name: str | None = None
    resource_documentation: str | None = None
    resource_policy_uri: str | None = None
    resource_tos_uri: str | None = None
    max_age: float = 3600.0


def read_protected_resource(root: Section) -> ProtectedResourceSettings | None:
    """The table, or None where the settings do not have it."""
    section = root.optional_table("protected_resource")
    if section is None:
        return None
    settings = ProtectedResourceSettings(
        resource=_resource(section),
        authorization_servers=_servers(section, root),
        scopes_supported=_scopes(section),
        resource_name=section.text("resource_name", None),
        resource_documentation=_page(section, "resource_documentation"),
        resource_policy_uri=_page(section, "resource_policy_uri"),
        resource_tos_uri=_page(section, "resource_tos_uri"),
        max_age=section.duration("max_age", "1h", most="1d"),
    )
    section.done()
    return settings


def _resource(section: Section) -> str:
    resource = section.text("resource")
    if isinstance(resource, str) and check_address(section, "resource", resource) and not _PATH.fullmatch(resource):
        section.problem("resource", "must have a path of plain segments: letters, digits, '.', '_', '~' and '-'")
    return str(resource)


def _servers(section: Section, root: Section) -> tuple[str, ...] | None:
    servers = section.texts("authorization_servers", ())
    issuers = root.raw("issuers")
    entries = issuers if isinstance(issuers, list | tuple) else ()
    known = [each.get("issuer") for each in entries if isinstance(each, Mapping)]
    for server in servers:
        if server not in known:
            section.problem("authorization_servers", f"has {server!r}, which is not the issuer of any [[issuers]]")
    return servers or None


def _scopes(section: Section) -> tuple[str, ...] | None:
    """A list of scopes; an empty one says that none is told."""
    scopes = section.raw("scopes_supported")
    if scopes is None:
        return None
    if not isinstance(scopes, list | tuple) or not all(isinstance(scope, str) and is_word(scope) for scope in scopes):
        section.problem("scopes_supported", "must be a list of scopes without spaces; an empty one tells none")
        return None
    return tuple(dict.fromkeys(scopes))


def _page(section: Section, key: str) -> str | None:
    page = section.text(key, None)
    if page is not None and not _PAGE.fullmatch(page):
        section.problem(key, "must be an https URL, in ASCII and without spaces")
    return page if isinstance(page, str) else None
