"""`authz serve`: this project's own decision point, for a sidecar, for tests and for a first try."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from authz_middleware.cli.output import err, fail, needs_extra, tell
from authz_middleware.errors import AuthzError, SettingsError

NEEDS = frozenset({"httptools", "uvicorn"})


def serve(
    context: typer.Context,
    policy: Annotated[Path | None, typer.Option(help="The policy to decide by.", show_default=False)] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="A settings file (TOML), instead of all other options.", show_default=False),
    ] = None,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port to listen on.", min=1, max=65535)] = 8181,
    base_url: Annotated[
        str | None, typer.Option(help="The URL that callers know this decision point by.", show_default="host and port")
    ] = None,
    allow_remote: Annotated[
        bool,
        typer.Option(
            "--allow-remote",
            help="Listen without TLS where other machines can reach it. Without --token-file, anyone may ask.",
        ),
    ] = False,
    token_file: Annotated[
        Path | None, typer.Option(help="Bearer tokens, one a line, of those who may ask.", show_default=False)
    ] = None,
    decision_log: Annotated[
        str | None,
        typer.Option(help="Where decisions are recorded: stdout, stderr or file:PATH.", show_default="nowhere"),
    ] = None,
    workers: Annotated[int, typer.Option(help="How many processes.", min=1, max=64)] = 1,
) -> None:
    """Answer AuthZEN requests by a policy that is followed while it changes, until interrupted."""
    _check_call(context, policy, config)
    try:
        from authz_middleware.server import process, settings  # noqa: PLC0415 - the extra may be absent
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in NEEDS:
            raise
        needs_extra("server")
    try:
        if config is not None:
            chosen = settings.ServerSettings.from_toml(config)
        else:
            server = {"host": host, "port": port, "workers": workers, "base_url": base_url, "plain_http": allow_remote}
            chosen = settings.ServerSettings.from_mapping(
                {
                    "server": {name: value for name, value in server.items() if value is not None},
                    "policy": {"source": str(policy), "allow_unsigned": True},
                    **_callers(token_file, allow_remote),
                    **({"decision_log": {"sink": decision_log}} if decision_log else {}),
                }
            )
        tell("authz serve", "bold", f"{policy or chosen.policy.source} on {chosen.base_url}", err)
        process.serve(chosen)
    except SettingsError as error:
        fail(error, config)
    except AuthzError as error:
        fail(error, policy)


def _check_call(context: typer.Context, policy: Path | None, config: Path | None) -> None:
    """Refuse a call that leaves something unsaid, or says what would not be heard."""
    if policy is None and config is None:
        raise typer.BadParameter("give a policy, or a settings file with --config", param_hint="--policy")
    given = (name for name in context.params if str(context.get_parameter_source(name)).endswith("COMMANDLINE"))
    others = [f"--{name.replace('_', '-')}" for name in given if name != "config"]
    if config is not None and others:
        raise typer.BadParameter(f"{', '.join(others)} must be in the settings file instead", param_hint="--config")


def _callers(token_file: Path | None, allow_remote: bool) -> dict[str, Any]:
    if token_file is not None:
        return {"callers": {"tokens": {"caller": str(token_file)}}}
    return {"callers": {"anyone": True}} if allow_remote else {}
