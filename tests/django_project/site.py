"""A Django project for one test: its URLconf, its middleware and its policy, asked in process in either colour."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Final, Literal
from urllib.parse import unquote

from django.conf import settings as django_settings
from django.test import AsyncClient, Client, override_settings

from authz_django import enforcement
from tests.support.tokens import Issuer

Colour = Literal["sync", "async"]

AUTHZ: Final = "authz_django.AuthzMiddleware"
ISSUER: Final = Issuer()

POLICY: Final = """\
policy: project
owner: project@example.com
rules:
{rules}
degrade:
  narrow:
    - rule: reading-goes-on
      permit: ask:degraded
      when: always
"""

RULE: Final = """\
  - rule: {name}
    permit: {action}
    when: {{subject.scopes: {{has: "{action}"}}}}
"""

ACTIONS: Final = (
    *("invoice:read", "invoice:amend", "invoice:pay", "billing:use", "admin:use", "ask:sensitive", "ask:degraded"),
    *(f"run:{name}" for name in ("plain", "secret", "async", "class.get", "class.post", "partial", "anchored")),
    *(f"run:{name}" for name in ("loose", "any", "leaf", "inner")),
)
"""Each is permitted to whoever has a scope of the same name."""


def write_policy(folder: Path, *, without: Sequence[str] = ()) -> Path:
    """The policy, with a rule for every action but those left out."""
    policy = folder / "policy.yaml"
    rules = [RULE.format(name=action.replace(":", "-").replace(".", "-"), action=action) for action in ACTIONS]
    kept = [rule for rule, action in zip(rules, ACTIONS, strict=True) if action not in without]
    policy.write_text(POLICY.format(rules="".join(kept)))
    return policy


def authz_settings(folder: Path, **tables: Any) -> dict[str, Any]:
    """`AUTHZ` of a project whose policy and decision log lie in `folder`; `tables` replace or add tables."""
    return {
        "app": {"name": "project", "environment": "production"},
        "issuers": [
            {"issuer": ISSUER.url, "audience": [ISSUER.audience], "jwks": ISSUER.jwks(), "algorithms": ["ES256"]}
        ],
        "policy": {"source": str(write_policy(folder)), "allow_unsigned": True},
        "decision_log": {"mode": "required", "sink": f"file:{folder / 'decisions.jsonl'}"},
        **tables,
    }


def token(*scopes: str, **claims: Any) -> str:
    """An Authorization header of somebody with these scopes."""
    return "Bearer " + ISSUER.mint(**{"scope": " ".join(scopes), "env": "production", **claims})


def records(folder: Path) -> list[dict[str, Any]]:
    """The decision records written so far."""
    log = folder / "decisions.jsonl"
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def urlconf(*patterns: Any, **members: Any) -> ModuleType:
    """A URLconf module of these patterns; `members` may be `handler404` and the like."""
    module = ModuleType(f"urlconf_{uuid.uuid4().hex}")
    module.urlpatterns = list(patterns)  # type: ignore[attr-defined]
    module.__dict__.update(members)
    return module


class Utf8AsyncClient(AsyncClient):
    """Decodes paths as ASGI servers do; Django's own decodes them as Latin-1."""

    def _get_path(self, parsed: Any) -> str:
        return unquote(parsed.path)


class Site:
    """The running project."""

    def __init__(self, folder: Path, colour: Colour) -> None:
        self.folder = folder
        self.colour = colour
        self._client: Any = (Client if colour == "sync" else Utf8AsyncClient)(raise_request_exception=False)

    def ask(self, method: str, path: str, *scopes: str, nobody: bool = False, **headers: Any) -> Any:
        """Send one request, with a token that has these scopes unless `nobody` sends it. Header names are written
        with underscores."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        if not nobody:
            given.setdefault("authorization", token(*scopes))
        return self.send(method, path, given)

    def send(self, method: str, path: str, headers: dict[str, str]) -> Any:
        """Send one request with exactly these headers."""
        reply = self._client.generic(method, path, headers=headers)
        return reply if self.colour == "sync" else asyncio.run(reply)

    @property
    def reasons(self) -> list[str]:
        """The reasons of the decisions recorded so far, in order."""
        return [record["authz"]["reason"] for record in self.records]

    @property
    def records(self) -> list[dict[str, Any]]:
        """The decision records so far, in order."""
        enforcement.current().pep.recorder.flush()
        return records(self.folder)


@contextmanager
def open_site(
    folder: Path,
    colour: Colour,
    *patterns: Any,
    before: Sequence[str] = (),
    after: Sequence[str] = (),
    tables: dict[str, Any] | None = None,
    members: dict[str, Any] | None = None,
    **overrides: Any,
) -> Iterator[Site]:
    """Run a project of these patterns with further middleware before and after ours."""
    chosen = {
        "ROOT_URLCONF": urlconf(*patterns, **(members or {})),
        "MIDDLEWARE": [*before, AUTHZ, *after],
        "AUTHZ": authz_settings(folder, **(tables or {})),
        **overrides,
    }
    with override_settings(**chosen):
        assert django_settings.configured
        yield Site(folder, colour)
