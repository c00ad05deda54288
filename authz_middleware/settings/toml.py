"""A settings file, as a mapping."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from authz_middleware.errors import Problem, SettingsError


def read_toml(path: Path) -> dict[str, Any]:
    """What stands in a TOML file. Raises SettingsError, naming the file."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError([Problem(str(path), f"cannot be read: {error.strerror}")]) from None
    except RecursionError:
        raise SettingsError([Problem(str(path), "is nested too deep")]) from None
    except ValueError as error:  # tomllib's own, bytes that are not UTF-8, a number of thousands of digits
        raise SettingsError([Problem(str(path), f"is not TOML: {error}")]) from None
