"""Where a token says that its status is to be looked up (draft-ietf-oauth-status-list, section 6)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from authz_middleware.identity.claims.values import ABSENT, is_text
from authz_middleware.identity.problem import CredentialDetail, TokenRefusedError


class StatusReference(msgspec.Struct, frozen=True, gc=False):
    """Where the status of a token stands: which place in which list."""

    uri: str
    index: int


def status_reference_of(claims: Mapping[str, Any]) -> StatusReference | None:
    """The reference in the claim `status` of a verified token, or None where it has no such claim (section 6.2).

    Raises TokenRefusedError for a `status` that is anything but an object with a `status_list` of an `idx` and an
    https `uri`: a token that says its status must be looked up is not one to accept without.
    """
    status = claims.get("status", ABSENT)
    if status is ABSENT:
        return None
    reference = status.get("status_list") if isinstance(status, Mapping) else None
    if not isinstance(reference, Mapping):
        raise TokenRefusedError(CredentialDetail.CLAIM_TYPE)
    index, uri = reference.get("idx"), reference.get("uri")
    # An exact type: true is an int in Python.
    if type(index) is not int or index < 0 or not is_text(uri):
        raise TokenRefusedError(CredentialDetail.CLAIM_TYPE)
    return StatusReference(uri, index)
