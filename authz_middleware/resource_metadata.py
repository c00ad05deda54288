"""What a client can learn about this application before it has a token: protected resource metadata (RFC 9728).

It is public. It holds what the settings say and the names of scopes, and nothing of a rule.
"""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from authz_middleware.answer import Answer
from authz_middleware.challenge import is_word
from authz_middleware.identity.possession.binding import AcceptedBindings
from authz_middleware.policy.snapshot import Snapshot
from authz_middleware.settings import Settings
from authz_middleware.settings.protected_resource import ProtectedResourceSettings

WELL_KNOWN: Final = "/.well-known/oauth-protected-resource"


def metadata_path(resource: str) -> str:
    """The path of the metadata: the well-known one, and then that of the resource (RFC 9728 section 3.1)."""
    path = urlsplit(resource).path
    return WELL_KNOWN if path == "/" else WELL_KNOWN + path


def metadata_url(resource: str) -> str:
    """The URL of the metadata, on the host of the resource: what a challenge names as `resource_metadata`."""
    parts = urlsplit(resource)
    return f"{parts.scheme}://{parts.netloc}{metadata_path(resource)}"


def metadata_of(settings: Settings, snapshot: Snapshot | None, bindings: AcceptedBindings) -> dict[str, Any] | None:
    """The members of the metadata (RFC 9728 section 2), or None where the settings have no `[protected_resource]`.

    Members without a value are left out (section 3.2).
    """
    described = settings.protected_resource
    if described is None:
        return None
    members: dict[str, Any] = {
        "resource": described.resource,
        "authorization_servers": _servers(described, settings),
        "scopes_supported": _scopes(described, snapshot),
        "bearer_methods_supported": ["header"],
        "resource_name": described.resource_name,
        "resource_documentation": described.resource_documentation,
        "resource_policy_uri": described.resource_policy_uri,
        "resource_tos_uri": described.resource_tos_uri,
        "tls_client_certificate_bound_access_tokens": bindings.certificates,
        "dpop_signing_alg_values_supported": list(bindings.proof_algorithms),
        "dpop_bound_access_tokens_required": bindings.proof_required,
    }
    return {name: value for name, value in members.items() if value}


def metadata_answer(settings: Settings, snapshot: Snapshot | None, bindings: AcceptedBindings) -> Answer | None:
    """The response to a GET of `metadata_path`, or None where nothing is to be told."""
    members, described = metadata_of(settings, snapshot, bindings), settings.protected_resource
    if members is None or described is None:
        return None
    headers = (
        ("content-type", "application/json"),
        ("cache-control", f"public, max-age={int(described.max_age)}"),
    )
    return Answer(200, headers, msgspec.json.encode(members))


def _servers(described: ProtectedResourceSettings, settings: Settings) -> list[str]:
    """The issuers that are authorization servers by their names: URLs (RFC 8414 section 2)."""
    if described.authorization_servers is not None:
        return list(described.authorization_servers)
    return [issuer.issuer for issuer in settings.issuers if issuer.issuer.startswith(("https://", "http://"))]


def _scopes(described: ProtectedResourceSettings, snapshot: Snapshot | None) -> list[str]:
    if described.scopes_supported is not None:
        return list(described.scopes_supported)
    return sorted(filter(is_word, snapshot.scopes)) if snapshot is not None else []
