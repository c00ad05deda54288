"""The `Authorization` header of a bearer token (RFC 6750 section 2.1), and until when the token says it is good."""

from __future__ import annotations

import re
from math import inf
from typing import Any, Final

from authz_middleware.identity.compact import MAX_TOKEN, parse_token
from authz_middleware.identity.problem import TokenRefusedError

# Anything else, a line break above all, does not belong into a header.
_B64TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*", re.ASCII)


def bearer_header(token: str) -> str | None:
    """`Bearer` and the token; None for what is no bearer token."""
    return f"Bearer {token}" if len(token) <= MAX_TOKEN and _B64TOKEN.fullmatch(token) else None


def expiry_of(token: str) -> float:
    """The `exp` of a signed token, in seconds since the epoch; infinity where it states none that can be read.

    Nothing is verified: it is our own token, and all that follows from this is that we stop showing it.
    """
    try:
        expiry: Any = parse_token(token).unverified_claims.get("exp")
    except TokenRefusedError:
        return inf
    return float(expiry) if type(expiry) in (int, float) else inf
