"""Imports every module of the core where no extra can be imported, from an installed package.

What is in an extra stays out: the decision point (`server`), the command line (`cli`), Redis.
"""

import importlib
import pkgutil
import sys

EXTRAS = ("django", "fastapi", "flask", "redis", "rich", "starlette", "typer", "uvicorn", "werkzeug")
NEED_AN_EXTRA = (
    "authz_middleware.server",
    "authz_middleware.cli.",
    "authz_middleware.revocation.redis_follower",
    "authz_middleware.revocation.redis_records",
)

for name in EXTRAS:
    sys.modules[name] = None

import authz_middleware  # noqa: E402 - after the extras are out of reach

assert authz_middleware.__file__.startswith(sys.prefix), f"not the installed package: {authz_middleware.__file__}"
names = [module.name for module in pkgutil.walk_packages(authz_middleware.__path__, "authz_middleware.", onerror=print)]
core = [name for name in names if not name.startswith(NEED_AN_EXTRA)]
for name in core:
    importlib.import_module(name)
sys.stdout.write(f"{len(core)} modules of the core import without any extra\n")
