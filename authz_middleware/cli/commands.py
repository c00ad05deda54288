"""The commands, and the groups they are in."""

from __future__ import annotations

import platform

import msgspec
import typer

from authz_middleware import __version__
from authz_middleware.cli import policy, revocations, revoke, serve, settings, tokens
from authz_middleware.cli.output import out
from authz_middleware.record.schema import json_schema

app = typer.Typer(
    name="authz",
    help="Check authorization policies and settings, and serve decisions.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # a stack trace shows values, and values may be secrets
)
record = typer.Typer(help="Decision records.", no_args_is_help=True)
app.add_typer(policy.app, name="policy")
app.add_typer(settings.app, name="settings")
app.add_typer(record, name="record")
app.command("serve")(serve.serve)
app.command("revoke")(revoke.revoke)
app.add_typer(revocations.app, name="revocations")
app.add_typer(tokens.app, name="token")


@app.command()
def version() -> None:
    """Print the version of this package and of the Python that runs it."""
    out.print(f"authz-middleware {__version__} (Python {platform.python_version()})")


@record.command()
def schema() -> None:
    """Print the JSON Schema of a decision record."""
    typer.echo(msgspec.json.format(msgspec.json.encode(json_schema())).decode())


def run() -> None:
    """Run the command that the process was called with, and end the process."""
    app()
