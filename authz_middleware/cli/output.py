"""What people read: plain lines, coloured on a terminal, never folded, so that editors find `file:line` in them."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import typer
from rich.console import Console
from rich.text import Text

from authz_middleware.errors import AuthzError, Problem, ProblemsError

out = Console(soft_wrap=True, highlight=False)
err = Console(soft_wrap=True, highlight=False, stderr=True)


def tell(label: str, style: str, text: str, console: Console = out) -> None:
    """One line: a coloured word, and what there is to say. Nothing in `text` is taken for markup."""
    console.print(Text.assemble((label, style), ": ", text))


def complain(problem: Problem, path: Path | None = None) -> None:
    """One mistake in a document, as `file:line: what`, the file as the caller named it."""
    where = problem.where
    if path is not None and (where == path.name or where.startswith(f"{path.name}:")):
        where = f"{path}{where[len(path.name) :]}"
    tell(where, "bold red", problem.what, err)


def fail(error: AuthzError, path: Path | None = None) -> NoReturn:
    """Say what is wrong and how to mend it, and end with status 1."""
    if isinstance(error, ProblemsError):
        for problem in error.problems:
            complain(problem, path)
    else:
        tell("error", "bold red", str(error), err)
    raise typer.Exit(1)


def needs_extra(name: str) -> NoReturn:
    """Say which part of the package is not installed, and end with status 2."""
    tell("error", "bold red", f"this command is not installed; install authz-middleware[{name}]", err)
    raise typer.Exit(2)
