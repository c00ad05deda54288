"""Runs a decision point under uvicorn: in this process, or in several that share its sockets."""

from __future__ import annotations

import logging
import socket
import sys
from typing import Final

import uvicorn
from uvicorn.supervisors import Multiprocess

from authz_middleware.errors import AuthzError
from authz_middleware.server.protocol import DecisionPointProtocol
from authz_middleware.server.service import Service
from authz_middleware.server.settings import ServerSettings

logger = logging.getLogger("authz.server")

KEEP_ALIVE_S: Final = 75
"""Longer than callers keep idle connections, so that they close them: a request never meets a closing server."""
BACKLOG: Final = 2048
TRY_AGAIN: Final = 1


class ServeError(AuthzError):
    """The decision point cannot be started like this."""


class WorkerConfig(uvicorn.Config):
    """The configuration of one worker. It is sent to each worker process, and makes the `Service` there."""

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self.arrival = settings.arrival
        super().__init__(
            "made in each process by load",
            http=DecisionPointProtocol,
            ws="none",
            lifespan="on",
            interface="asgi3",
            workers=settings.workers,
            log_level="error",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            backlog=BACKLOG,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=max(1, round(settings.drain)),
        )

    def load(self) -> None:
        """Make the application. A worker of several that cannot ends, and the supervisor tries again: its siblings may
        well go on with the last good policy."""
        try:
            service = Service(self._settings)
        except AuthzError as error:
            if self.workers == 1:
                raise
            logger.error("%s", error)  # noqa: TRY400 - a traceback tells a person nothing more
            sys.exit(TRY_AGAIN)
        self.app = service.app
        super().load()
        if service.tls is not None:
            self.ssl = service.tls.context


def serve(settings: ServerSettings) -> None:
    """Serve decisions until the process is told to stop; then requests that are under way are answered.

    Raises SettingsError and PolicyError for what cannot be used, and ServeError for an address that cannot be had.
    """
    config = WorkerConfig(settings)
    if settings.workers == 1:
        config.load()
        try:
            uvicorn.Server(config).run(_listen(settings.host, settings.port))
        except KeyboardInterrupt:
            return
    else:
        Service(settings).close()  # every mistake in the settings is found before there are workers
        Multiprocess(config, _listen(settings.host, settings.port)).run()


def _listen(host: str, port: int) -> list[socket.socket]:
    """A socket for each address of a host. Raises ServeError."""
    sockets: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            opened = socket.socket(family, kind, protocol)
            sockets.append(opened)
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            opened.bind(address)
            opened.set_inheritable(True)
    except (OSError, UnicodeError) as error:  # the second for what cannot be a host name
        for opened in sockets:
            opened.close()
        reason = (getattr(error, "strerror", None) or "this is no host name").lower()
        raise ServeError(f"cannot listen on {host} port {port}: {reason}") from None
    return sockets
