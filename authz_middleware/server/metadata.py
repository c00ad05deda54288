"""What a decision point says of itself (AuthZEN 1.0, section 9), from its settings alone: no header is believed."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from authz_middleware.server.exchange import encode

WELL_KNOWN: Final = "/.well-known/authzen-configuration"
EVALUATION: Final = "/access/v1/evaluation"
EVALUATIONS: Final = "/access/v1/evaluations"
SEARCH_SUBJECT: Final = "/access/v1/search/subject"
SEARCH_RESOURCE: Final = "/access/v1/search/resource"
SEARCH_ACTION: Final = "/access/v1/search/action"

_ENDPOINTS: Final = {
    "access_evaluation_endpoint": EVALUATION,
    "access_evaluations_endpoint": EVALUATIONS,
    "search_subject_endpoint": SEARCH_SUBJECT,
    "search_resource_endpoint": SEARCH_RESOURCE,
    "search_action_endpoint": SEARCH_ACTION,
}


def metadata(base_url: str) -> bytes:
    """The metadata document. `base_url` is the identifier of the decision point, letter by letter."""
    endpoints = {name: base_url.rstrip("/") + path for name, path in _ENDPOINTS.items()}
    return encode({"policy_decision_point": base_url, **endpoints})


def path_of(base_url: str) -> str:
    """The path that the endpoints are below; empty where the base URL has none."""
    return urlsplit(base_url).path.rstrip("/")


def metadata_path(base_url: str) -> str:
    """Where the document is found: the well-known part stands between host and path (section 9.2)."""
    return WELL_KNOWN + path_of(base_url)


def authority_of(base_url: str) -> str:
    """Host and, if any, port: what callers send as Host."""
    return urlsplit(base_url).netloc
