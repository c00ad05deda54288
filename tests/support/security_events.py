"""A transmitter of security events (RFC 8417, Shared Signals Framework): signs and pushes them, in any shape."""

from __future__ import annotations

import http.client
import json
import time
import uuid
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from authz_middleware.answer import Answer
from tests.support.status_lists import document
from tests.support.tokens import Issuer

TRANSMITTER: Final = Issuer("https://idp.example/", kid="ssf", alg="RS256")
AUDIENCE: Final = "https://billing.example/events"
TOKEN_ISSUER: Final = "https://issuer.example/"
CONTENT_TYPE: Final = "application/secevent+jwt"
HEADERS: Final = (("content-type", CONTENT_TYPE),)

CAEP: Final = "https://schemas.openid.net/secevent/caep/event-type/"
RISC: Final = "https://schemas.openid.net/secevent/risc/event-type/"
SSF: Final = "https://schemas.openid.net/secevent/ssf/event-type/"
SESSION_REVOKED: Final = CAEP + "session-revoked"
TOKEN_CLAIMS_CHANGE: Final = CAEP + "token-claims-change"
CREDENTIAL_CHANGE: Final = CAEP + "credential-change"
VERIFICATION: Final = SSF + "verification"
STREAM_UPDATED: Final = SSF + "stream-updated"

ALICE: Final = {"format": "iss_sub", "iss": TOKEN_ISSUER, "sub": "alice"}


def event_claims(
    type_: str = SESSION_REVOKED,
    subject: Any = ALICE,
    *,
    event: Mapping[str, Any] | None = None,
    now: float | None = None,
    **claims: Any,
) -> dict[str, Any]:
    """The claims of a SET; each can be replaced, or left out with None."""
    return {
        "iss": TRANSMITTER.url,
        "aud": AUDIENCE,
        "jti": uuid.uuid4().hex,
        "iat": int(time.time() if now is None else now),
        "txn": "8675309",
        "sub_id": subject,
        "events": {type_: dict(event or {})},
        **claims,
    }


def security_event(
    type_: str = SESSION_REVOKED,
    subject: Any = ALICE,
    *,
    signer: Issuer = TRANSMITTER,
    header: Mapping[str, Any] | None = None,
    **claims: Any,
) -> bytes:
    """A signed SET."""
    return document(signer, event_claims(type_, subject, **claims), typ="secevent+jwt", header=header)


def err(answer: Answer) -> tuple[int, str | None]:
    """The status of an answer, and its RFC 8935 error code."""
    return answer.status, json.loads(answer.body)["err"] if answer.body else None


def push(
    url: str, body: bytes, *, headers: Mapping[str, str] | None = None, method: str = "POST", chunked: bool = False
) -> tuple[int, bytes]:
    """Push a body over a real connection."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)
    try:
        full = {"Content-Type": CONTENT_TYPE, **(headers or {})}
        pieces = iter([body[:100], body[100:]]) if chunked else body
        connection.request(method, parts.path, pieces, full, encode_chunked=chunked)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()
