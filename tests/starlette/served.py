"""The application that real servers serve in these tests: `uvicorn tests.starlette.served:app`.

Its folder is named by AUTHZ_TEST_FOLDER. Every handler appends its name to the file `ran` in there. A permitted
handler asks for `run:NAME`.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Final

from fastapi import APIRouter, FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Host, Mount, Route, Router, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from authz_middleware import requires
from authz_starlette import AuthzMiddleware
from tests.starlette.guarded import settings

FOLDER: Final = Path(os.environ["AUTHZ_TEST_FOLDER"])


def ran(name: str) -> None:
    """Tell that a handler runs, in one atomic append."""
    descriptor = os.open(FOLDER / "ran", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, f"{name}\n".encode())
    os.close(descriptor)


def handler(name: str, *, action: str | None = "run", resource: str | None = None) -> Any:
    """A handler; without an action it is closed, with `deny` nobody may."""

    async def handle(request: Request) -> Response:
        ran(name)
        return PlainTextResponse(f"ran {name}")

    return handle if action is None else requires(f"{action}:{name}", resource)(handle)


def socket(name: str, *, action: str) -> Any:
    """A websocket that greets."""

    async def talk(websocket: WebSocket) -> None:
        ran(name)
        await websocket.accept()
        await websocket.send_text(f"ran {name}")
        await websocket.close()

    return requires(f"{action}:{name}")(talk)


async def opaque(scope: Scope, receive: Receive, send: Send) -> None:
    """An ASGI application of which nobody knows what is inside."""
    ran("opaque")
    await PlainTextResponse("ran opaque")(scope, receive, send)


def fastapi_part() -> FastAPI:
    """A FastAPI application with included routers."""
    inner = APIRouter(prefix="/inner")
    inner.add_api_route("/closed", handler("included-closed", action=None))
    inner.add_api_route("/open/{item}", handler("included", resource="item/{item}"))
    outer = APIRouter(prefix="/outer")
    outer.include_router(inner)
    part = FastAPI()
    part.include_router(outer)
    return part


(FOLDER / "static").mkdir(exist_ok=True)
(FOLDER / "static" / "page.txt").write_text("ran static")

app = Starlette(
    routes=[
        Route("/open", handler("open")),
        Route("/admin", handler("admin", action="deny")),
        Route("/admin/{item}", handler("item", action="deny", resource="item/{item}")),
        Route("/closed", handler("closed", action=None), methods=["GET", "POST", "OPTIONS"]),
        Route("/open/{item}", handler("open-item", resource="item/{item}")),
        Route("/open/number/{item:int}", handler("number", resource="item/{item}")),
        Route("/open/deep/{item:path}", handler("deep", resource="item/{item}")),
        Mount("/mount", routes=[Route("/admin", handler("mounted", action="deny")), Route("/open", handler("m-open"))]),
        Mount("/static", app=StaticFiles(directory=FOLDER / "static")),
        Mount("/opaque", app=opaque),
        Mount("/fast", app=fastapi_part()),
        Host("tenant.example", app=Router([Route("/admin", handler("hosted", action=None))])),
        WebSocketRoute("/talk", socket("talk", action="run")),
        WebSocketRoute("/secret-talk", socket("secret-talk", action="deny")),
    ],
    middleware=[Middleware(CORSMiddleware, allow_origins=["*"])],
)
changes = {"handlers": {"static": {"action": "deny:static"}}}
if "AUTHZ_TEST_MISTAKE" in os.environ:
    changes = {"app": {"modus": "observe"}} if os.environ["AUTHZ_TEST_MISTAKE"] == "settings" else changes
values = settings(FOLDER, **changes)
values["issuers"][0]["jwks"] = json.loads((FOLDER / "jwks.json").read_text())
if os.environ.get("AUTHZ_TEST_MISTAKE") == "policy":
    (FOLDER / "policy.yaml").write_text("policy: broken\nrules: [{rule: x, permit: 7}]\n")
app.add_middleware(AuthzMiddleware, settings=values)
