"""The command line, `authz …`. Needs the extra `cli`."""

from __future__ import annotations

import sys
from typing import Final

NEEDS: Final = frozenset({"typer", "rich", "click"})


def main() -> None:
    """The console script. Ends the process: 0 done, 1 the document or the environment is wrong, 2 the call is."""
    try:
        from authz_middleware.cli.commands import run  # noqa: PLC0415 - typer may be absent
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in NEEDS:
            raise
        print("the command line is not installed; install authz-middleware[cli]", file=sys.stderr)
        sys.exit(2)
    run()
