"""`authz serve`: this project's own decision point, for a sidecar, for tests and for a first try."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from authz_middleware.cli.output import err, fail, needs_extra, tell
from authz_middleware.errors import AuthzError

NEEDS = frozenset({"starlette", "uvicorn"})


def serve(
    policy: Annotated[Path, typer.Option(help="The policy to decide by.", show_default=False)],
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port to listen on.", min=1, max=65535)] = 8181,
    base_url: Annotated[
        str | None, typer.Option(help="The URL that callers know this decision point by.", show_default="host and port")
    ] = None,
    allow_remote: Annotated[
        bool, typer.Option("--allow-remote", help="Listen where other machines can reach it. Nobody is authenticated.")
    ] = False,
) -> None:
    """Answer AuthZEN evaluation requests by a policy, until interrupted."""
    try:
        from authz_middleware.server import process  # noqa: PLC0415 - the extra may be absent
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in NEEDS:
            raise
        needs_extra("server")
    address = base_url or process.base_url_of(host, port)
    tell("authz serve", "bold", f"{policy} on {address}", err)
    try:
        process.serve(policy, host=host, port=port, base_url=base_url, allow_remote=allow_remote)
    except AuthzError as error:
        fail(error, policy)
