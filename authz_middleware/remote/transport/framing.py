"""Refuses a response whose length is too much, or can be read in two ways, whichever of them the HTTP client chose."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from authz_middleware.remote.failure import FailureKind, RemoteFailure
from authz_middleware.strict_json import MAX_BODY

_DIGITS: Final = re.compile(r"\d{1,18}", re.ASCII)


FRAMING: Final = frozenset({"content-length", "transfer-encoding", "connection"})
"""The headers that say where a response ends, and whether another one may follow."""


def framing_failure(told: Mapping[str, Sequence[str]], *, knows_codings: bool) -> RemoteFailure | None:
    """What is wrong with `Content-Length` and `Transfer-Encoding` (RFC 9112 section 6.3), or None. `told` are the
    values of the headers named in `FRAMING`; `knows_codings` is not so of HTTP/1.0 (section 6.1)."""
    lengths, codings = told.get("content-length", ()), told.get("transfer-encoding", ())
    if len(lengths) > 1 or (lengths and not _DIGITS.fullmatch(lengths[0])):
        return RemoteFailure(FailureKind.MALFORMED, "header.content_length")
    if lengths and int(lengths[0]) > MAX_BODY:
        return RemoteFailure(FailureKind.MALFORMED, "body.too_large")
    if len(codings) > 1 or (codings and not (knows_codings and codings[0].lower() == "chunked")):
        return RemoteFailure(FailureKind.MALFORMED, "header.transfer_encoding")
    if lengths and codings:
        return RemoteFailure(FailureKind.MALFORMED, "header.two_lengths")
    return None
