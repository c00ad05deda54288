"""The demo's decision point: Cerbos where it is installed, else this project's own, `authz serve`."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from example_apps.demo.processes import ROOT, NotStartedError, Server, free_ports

EXAMPLES: Final = ROOT / "example_apps"
PACKAGE: Final = "@cerbos/cerbos-linux-x64@0.55.0"
HOW: Final = f"npm install --prefix .cache/cerbos {PACKAGE}"
CHOICES: Final = ("auto", "cerbos", "authz")

_CONFIG: Final = """\
server:
  httpListenAddr: 127.0.0.1:{http}
  grpcListenAddr: 127.0.0.1:{grpc}
telemetry:
  disabled: true
storage:
  driver: disk
  disk:
    directory: {policies}
    watchForChanges: false
"""


class Point(NamedTuple):
    """A decision point that can be started: what it is, in words, and the dialect in which it is asked."""

    server: Server
    told: str
    dialect: str


def point_of(choice: str, state: Path) -> Point:
    """The decision point that was chosen. Raises NotStartedError for a Cerbos that is not there."""
    if choice == "authz":
        return _own(state, "authz serve, of this project")
    for program in _candidates():
        version = _version(program)
        if version is not None:
            return _cerbos(state, program, version)
    if choice == "cerbos":
        raise NotStartedError(f"Cerbos is neither in .cache/cerbos nor on the PATH; this installs it:\n    {HOW}")
    return _own(state, f"authz serve, of this project; Cerbos is not installed, and would be used instead:\n    {HOW}")


def _own(state: Path, told: str) -> Point:
    (port,) = free_ports(1)
    command = ["authz", "serve", "--policy", str(EXAMPLES / "pdp.yaml"), "--port", str(port)]
    return Point(Server("point", command, port, state), told, "authzen")


def _cerbos(state: Path, program: str, version: str) -> Point:
    port, grpc = free_ports(2)
    config = state / "point.yaml"
    config.write_text(_CONFIG.format(http=port, grpc=grpc, policies=EXAMPLES / "cerbos"), encoding="utf-8")
    command = [program, "server", f"--config={config}", "--debug-listen-addr="]
    return Point(Server("point", command, port, state), f"Cerbos {version} ({_shown(program)})", "cerbos")


def _candidates() -> Iterator[str]:
    """Programs that may be Cerbos."""
    for path in sorted((ROOT / ".cache" / "cerbos" / "node_modules" / "@cerbos").glob("cerbos-*/cerbos*")):
        if path.is_file() and os.access(path, os.X_OK):
            yield str(path)
    found = shutil.which("cerbos")
    if found is not None:
        yield str(Path(found).absolute())


def _version(program: str) -> str | None:
    """The version that a program tells; None for one that does not run here."""
    try:
        done = subprocess.run([program, "--version"], check=True, capture_output=True, text=True, timeout=20)  # noqa: S603 - Cerbos
    except (OSError, subprocess.SubprocessError):
        return None
    return next(iter(done.stdout.split()), None)


def _shown(program: str) -> str:
    """A path as short as it is clear."""
    path = Path(program)
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else program
