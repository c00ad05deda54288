"""A real decision point on loopback whose metadata says where its APIs are, truthfully or not."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from tests.support.authorization_server import reply

Behaviour = Callable[[BaseHTTPRequestHandler], object]


class _QuietServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that breaks off is what the tests are about


class DiscoveredPoint:
    """A context manager. `identifier` ends with `path`, its metadata is served as `metadata` is at the moment unless
    `behave` answers in its place. Every question is permitted; `asked` has the path of each."""

    def __init__(self, path: str = "", *, tls: ssl.SSLContext | None = None) -> None:
        point = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                point.fetched.append(self.path)
                try:
                    (point.behave or point._describe)(self)
                except OSError:
                    self.close_connection = True  # the client has left, as it should when it is kept waiting

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                point.asked.append(self.path)
                items = body.get("evaluations")
                permit = {"decision": True}
                reply(self, permit if items is None else {"evaluations": [permit] * len(items)})

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name in the base
                pass

        self._server = _QuietServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_port
        self.origin = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.identifier = self.origin + path
        self.metadata: dict[str, Any] = {
            "policy_decision_point": self.identifier,
            "access_evaluation_endpoint": f"{self.origin}/ask/one",
            "access_evaluations_endpoint": f"{self.origin}/ask/many",
        }
        self.behave: Behaviour | None = None
        self.fetched: list[str] = []
        self.asked: list[str] = []
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    def _describe(self, handler: BaseHTTPRequestHandler) -> None:
        reply(handler, self.metadata)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
