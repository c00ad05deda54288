"""An application for a real server: its views write down that they ran, for comparison with the decision log.

`gunicorn 'tests.flask.site:open_site()'` with the folder of the office in `OFFICE`, and in `MOUNT` the prefix that the
whole of it is mounted under, or nothing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from flask import Blueprint, Flask, g, request
from werkzeug.exceptions import NotFound
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from authz_flask import Authz
from authz_middleware import requires
from tests.flask.office import everyone, replace


def open_site() -> Any:
    """The WSGI application."""
    folder = Path(os.environ["OFFICE"])
    inner = build(folder, "inner")
    app = build(folder, "outer")
    replace(app, wsgi_app=DispatcherMiddleware(app.wsgi_app, {"/inner": inner, "/metrics": metrics}))
    mount = os.environ.get("MOUNT")
    return DispatcherMiddleware(NotFound(), {mount: app}) if mount else app


def build(folder: Path, name: str) -> Flask:
    """One of the two guarded applications."""
    app = Flask(name, root_path=str(folder))

    def view(label: str) -> Callable[..., Any]:
        def run(**arguments: Any) -> dict[str, Any]:
            ran = {"route": str(request.url_rule), "method": request.method, "caller": _caller()}
            with (folder / "ran.jsonl").open("a") as file:
                file.write(json.dumps({"view": label, "arguments": arguments, **ran}) + "\n")
            return {"ran": label, "pid": os.getpid(), **arguments}

        run.__name__ = label
        return run

    admin = Blueprint("admin", __name__, url_prefix="/admin")
    admin.add_url_rule("", "index", view("bare"))
    admin.add_url_rule("/<path:rest>", "rest", view("bare"), methods=["GET", "POST"])
    app.register_blueprint(admin)
    app.add_url_rule("/health", view_func=everyone(view("health")))
    app.add_url_rule("/invoices", view_func=requires("invoice:list")(view("list")))
    read = requires("invoice:read", "invoice/{number}")(view("read"))
    app.add_url_rule("/invoices/<number>", view_func=read)
    app.add_url_rule("/desk/", view_func=requires("desk:work")(view("desk")), methods=["GET", "POST"])
    app.add_url_rule("/desk/<path:drawer>", view_func=requires("desk:open", "drawer/{drawer}")(view("drawer")))
    app.register_error_handler(Exception, lambda _: ("welcome all the same", 200))
    Authz(app, json.loads((folder / "settings.json").read_text()))
    return app


def metrics(environ: Any, start_response: Any) -> Iterable[bytes]:
    """Something mounted inside that knows nothing of authorization."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"bare metrics"]


def _caller() -> str | None:
    principal = g.authz.principal
    return None if principal is None else principal.subject
