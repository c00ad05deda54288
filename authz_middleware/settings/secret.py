"""A secret by reference: where it lies, never what it is."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from authz_middleware.errors import AuthzError
from authz_middleware.regular_file import read_at_most

MAX_SECRET: Final = 64 * 1024
"""Bytes of a file that holds one."""


class SecretUnavailableError(AuthzError):
    """The environment variable or file that should hold a secret is absent, empty or beyond all size."""


class Secret(msgspec.Struct, frozen=True):
    """A reference to a secret in an environment variable or a file. Its `repr` shows the reference only."""

    env: str | None = None
    file: Path | None = None

    @property
    def where(self) -> str:
        """Where it lies, for people."""
        return f"environment variable {self.env}" if self.env is not None else f"file {self.file}"

    @classmethod
    def reference(cls, value: object, base: Path) -> Secret | None:
        """Read `{env = "NAME"}` or `{file = "path"}`; None for anything else, a literal secret included."""
        if not isinstance(value, Mapping) or len(value) != 1:
            return None
        ((kind, name),) = value.items()
        if kind not in ("env", "file") or not isinstance(name, str) or not name:
            return None
        return cls(env=name) if kind == "env" else cls(file=base / name)

    def reveal(self) -> str:
        """The secret itself, read anew each time so that a rotated one is picked up.

        Raises SecretUnavailableError, naming the reference, when there is none.
        """
        if self.env is not None:
            value = os.environ.get(self.env, "")
        elif self.file is not None:
            value = _content(self.file)
        else:
            value = ""
        value = value.strip()
        if not value:
            raise SecretUnavailableError(f"no secret in {self.where}")
        return value


def _content(path: Path) -> str:
    try:
        content = read_at_most(path, MAX_SECRET + 1)
        return content.decode("utf-8") if len(content) <= MAX_SECRET else ""
    except (OSError, ValueError):
        return ""
