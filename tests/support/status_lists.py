"""Somebody who publishes signed documents: status lists, lists of revocations, of any shape, the forbidden ones too."""

from __future__ import annotations

import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, Self

from tests.support.tokens import Issuer, base64url

STATUS_LIST: Final = "application/statuslist+jwt"
REVOCATION_LIST: Final = "application/authz-revocations+jwt"
REMOVED: Final[Any] = None
"""As the value of a claim or header member: leave it out."""


def pack(statuses: Sequence[int], bits: int) -> bytes:
    """Statuses one after the other, from the least significant bit of each byte on, written out bit by bit."""
    digits = "".join(format(status, f"0{bits}b")[::-1] for status in statuses)
    digits += "0" * (-len(digits) % 8)
    return bytes(int(digits[i : i + 8][::-1], 2) for i in range(0, len(digits), 8))


def list_member(statuses: Sequence[int], bits: int = 1) -> dict[str, Any]:
    """The claim `status_list` of a status list token."""
    return {"bits": bits, "lst": base64url(zlib.compress(pack(statuses, bits), 9))}


def status_list_token(
    issuer: Issuer,
    uri: str,
    statuses: Sequence[int] = (0, 1),
    *,
    bits: int = 1,
    now: float | None = None,
    header: Mapping[str, Any] | None = None,
    **claims: Any,
) -> bytes:
    """A status list token, signed by the issuer; claims and header members can be replaced or REMOVED."""
    issued = int(time.time() if now is None else now)
    payload = {"sub": uri, "iat": issued, "exp": issued + 600, "ttl": 60, "status_list": list_member(statuses, bits)}
    return document(issuer, {**payload, **claims}, typ="statuslist+jwt", header=header)


def revocation_list(
    issuer: Issuer,
    serial: int,
    /,
    *entries: Mapping[str, Any],
    now: float | None = None,
    header: Mapping[str, Any] | None = None,
    **claims: Any,
) -> bytes:
    """A signed list of revocations."""
    issued = int(time.time() if now is None else now)
    payload = {"iss": issuer.url, "iat": issued, "exp": issued + 3600, "serial": serial, "entries": list(entries)}
    return document(issuer, {**payload, **claims}, typ="authz-revocations+jwt", header=header)


def listed(scope: str = "subject", **members: Any) -> dict[str, Any]:
    """One entry of a list of revocations: by default the subject alice of the issuer of tests."""
    about = {"issuer": "https://issuer.example/", "value": "alice"} if scope == "subject" else {}
    return {"scope": scope, **about, "reason": "stolen laptop", "owner": "soc@example.com", **members}


def document(issuer: Issuer, claims: Mapping[str, Any], *, typ: str, header: Mapping[str, Any] | None = None) -> bytes:
    """Any claims under any header, signed."""
    full = {"typ": typ, "alg": issuer.alg, "kid": issuer.kid, **(header or {})}
    return issuer.sign(base64url(_without_removed(full)), base64url(_without_removed(claims))).encode()


class DocumentServer:
    """A real HTTP server on loopback; a context manager.

    `documents` is what it serves, by path; `fetches` counts the requests by path. `behave`, when set, answers a request
    instead.
    """

    def __init__(self, content_type: str = STATUS_LIST) -> None:
        self.content_type = content_type
        self.documents: dict[str, bytes] = {}
        self.fetches: Counter[str] = Counter()
        self.behave: Callable[[BaseHTTPRequestHandler], object] | None = None
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.fetches[self.path] += 1
                try:
                    (server.behave or server.serve)(self)
                except OSError:
                    self.close_connection = True

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name in the base
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.place = ("127.0.0.1", self._server.server_port)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    def url(self, path: str = "/list") -> str:
        """The address of a document."""
        return f"http://127.0.0.1:{self.place[1]}{path}"

    def serve(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer with the document of that path."""
        body = self.documents.get(handler.path)
        if body is None:
            handler.send_error(404)
            return
        handler.send_response(200)
        handler.send_header("Content-Type", self.content_type)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def eventually(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    """Whether something becomes true before long."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        if condition():
            return True
        time.sleep(0.005)
    return False


def _without_removed(members: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not REMOVED}
