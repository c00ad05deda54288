"""Runs the decision point as a process of its own, under uvicorn."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

import uvicorn

from authz_middleware.errors import AuthzError
from authz_middleware.policy.store import SnapshotStore
from authz_middleware.server.app import Record, create_app


class ServeError(AuthzError):
    """The decision point must not be started like this."""


def serve(
    policy: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8181,
    base_url: str | None = None,
    allow_remote: bool = False,
    record: Record | None = None,
) -> None:
    """Serve decisions by the policy in a file until the process is told to stop.

    Raises PolicyError for a policy that cannot be used, and ServeError for an address that other machines can
    reach unless `allow_remote` says that this is meant: the decision point authenticates nobody.
    """
    if not allow_remote and not is_loopback(host):
        raise ServeError(
            f"{host} can be reached by other machines and the decision point authenticates nobody: "
            "serve on 127.0.0.1, or say that remote callers are allowed"
        )
    store = SnapshotStore(policy)
    store.reload()
    app = create_app(store, base_url=base_url or base_url_of(host, port), record=record)
    uvicorn.run(app, host=host, port=port, access_log=False, server_header=False, log_level="warning", lifespan="off")


def is_loopback(host: str) -> bool:
    """Whether an address to bind is one that only this machine reaches. A name is none, `localhost` excepted:
    what it resolves to is decided elsewhere."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def base_url_of(host: str, port: int) -> str:
    """The base URL of a server at this address."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
