"""A small office in Flask: its policy, its settings, its callers, and its decision log read back."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from flask import Flask
from flask.testing import FlaskClient
from werkzeug.wrappers import Response

from authz_flask import Authz
from authz_middleware import ResourceLoaders, public
from authz_middleware.pep import EnforcementPoint
from tests.support.records import read_records
from tests.support.tokens import Issuer

POLICY: Final = """
policy: office
owner: office@example.com
inputs:
  resource.tenant: {from: application}
rules:
  - rule: readers
    permit: [invoice:read, invoice:list, static:read]
    when:
      subject.scopes: {has: invoices.read}
  - rule: clerks
    permit: [invoice:approve, "desk:*"]
    when:
      subject.roles: {has: clerk}
  - rule: admins
    permit: "admin:*"
    when:
      subject.roles: {has: admin}
  - rule: own-tenant
    permit: ledger:read
    when:
      resource.tenant: {same_as: subject.tenant}
  - rule: reports
    permit: report:*
    sensitive: true
    when: always
degrade:
  read-only:
    - rule: reports-may-be-read
      permit: report:read
      when: always
"""

ISSUER: Final = Issuer()
NOBODY_LISTENS: Final = "http://127.0.0.1:9"

everyone = public(reason="for the test", owner="office@example.com")


def settings(folder: Path, *, mode: str = "enforce", **tables: Any) -> dict[str, Any]:
    """The office's settings. Policy and decision log lie in `folder`; a table can be replaced or left out (None)."""
    (folder / "office.yaml").write_text(POLICY)
    values = {
        "app": {"name": "office", "environment": "production", "mode": mode},
        "issuers": [
            {
                "issuer": ISSUER.url,
                "audience": [ISSUER.audience],
                "jwks": ISSUER.jwks(),
                "algorithms": ["ES256"],
                "environment": "production",
            }
        ],
        "policy": {"source": str(folder / "office.yaml"), "allow_unsigned": True},
        "remote": {"url": NOBODY_LISTENS, "deadline": "500ms"},
        "fallback": {"default": "deny", "actions": {"report:*": {"mode": "degrade", "rules": "read-only"}}},
        "decision_log": {"mode": "required", "sink": f"file:{folder / 'decisions.jsonl'}"},
        **tables,
    }
    return {name: table for name, table in values.items() if table is not None}


def bearer(**claims: Any) -> dict[str, str]:
    """The headers of a caller; without claims one who may read invoices and nothing else."""
    return {"Authorization": f"Bearer {ISSUER.mint(**claims)}"}


def clerk(**claims: Any) -> dict[str, str]:
    """The headers of a clerk, who may read and approve invoices and work at the desk."""
    return bearer(roles=["clerk"], **claims)


def fail(*_: object, **__: object) -> Any:
    """A view or a hook with a mistake in it."""
    raise ZeroDivisionError


def replace(target: object, **members: Any) -> None:
    """Assign what a type checker would not let pass."""
    for name, value in members.items():
        setattr(target, name, value)


class Office:
    """Guards applications, calls them, and reads what was recorded about it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ran: list[str] = []
        """The views that ran, in order."""
        self._points: list[EnforcementPoint] = []

    def app(self, name: str = "office", **options: Any) -> Flask:
        """An application that answers errors as it would in production."""
        app = Flask(name, root_path=str(self.folder), **options)
        app.config["PROPAGATE_EXCEPTIONS"] = False
        return app

    def guard(
        self, app: Flask, *, loaders: ResourceLoaders | None = None, mode: str = "enforce", **tables: Any
    ) -> FlaskClient:
        """Guard the application with the office's settings, and a client for it."""
        authz = Authz(app, settings(self.folder, mode=mode, **tables), loaders=loaders or ResourceLoaders())
        self._points.append(authz.pep)
        return app.test_client()

    def view(self, name: str) -> Any:
        """A view that tells that it ran, with whatever arguments."""

        def run(**_: Any) -> str:
            self.ran.append(name)
            return name

        run.__name__ = run.__qualname__ = name
        return run

    @property
    def records(self) -> list[Any]:
        """The decisions recorded so far."""
        for point in self._points:
            assert point.recorder.flush()
        return read_records(self.folder / "decisions.jsonl")

    @property
    def reasons(self) -> list[str]:
        """Why they came out as they did."""
        return [record["authz"]["reason"] for record in self.records]

    def close(self) -> None:
        """Stop what was started."""
        for point in self._points:
            point.close()


def is_refusal(reply: Response, status: int = 403) -> bool:
    """Whether a reply is a refusal of this library, and nothing of the application's is left in it."""
    return (
        reply.status_code == status
        and reply.mimetype == "application/problem+json"
        and reply.get_json(silent=True) is not None
        and set(reply.get_json()) == {"type", "title", "status", "decision_id"}
        and reply.headers["cache-control"] == "no-store"
    )
