"""The treasury API on Starlette.

uvicorn example_apps.starlette_app.app:app
"""

# ruff: noqa: ARG001 - a handler is given the request, whether it reads it or not

import os
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from authz_middleware import authz, public, requires
from authz_starlette import AuthzMiddleware
from example_apps import books

SETTINGS = os.environ.get("AUTHZ_SETTINGS") or Path(__file__).with_name("authz.toml")


@authz.resource("invoice")
def load_invoice(invoice_id: str) -> books.Invoice | None:
    return books.invoice(invoice_id)


@public(reason="liveness probe", owner="platform@example.com")
async def health(request: Request) -> JSONResponse:
    return JSONResponse({"status": "ok"})


@requires("invoice:list")
async def list_invoices(request: Request) -> JSONResponse:
    return JSONResponse(books.invoices_of(authz.principal))


@requires("invoice:read", resource="invoice/{invoice_id}", purpose=["payments", "audit"])
async def read_invoice(request: Request) -> JSONResponse:
    return JSONResponse(books.invoice(request.path_params["invoice_id"]))


@requires("invoice:approve", resource="invoice/{invoice_id}", kinds="human", sensitive=True)
async def approve_invoice(request: Request) -> JSONResponse:
    return JSONResponse(books.mark(request.path_params["invoice_id"], "approved"))


@requires("invoice:export", resource="invoice/{invoice_id}")
async def export_invoice(request: Request) -> JSONResponse:
    return JSONResponse({"export": books.invoice(request.path_params["invoice_id"])})


@requires("refund:request", accountable=True)
async def create_refund(request: Request) -> JSONResponse:
    invoice_id = str((await request.json())["invoice"])
    await authz.acheck("refund:create", resource=f"invoice/{invoice_id}")  # which invoice, only the body tells
    return JSONResponse({"refunded": books.mark(invoice_id, "refunded")}, status_code=201)


@requires("report:run", resource="report/{name}", task="monthly-close")
async def run_report(request: Request) -> JSONResponse:
    report = books.report(request.path_params["name"], authz.principal)
    return JSONResponse({**report, "degraded": authz.degraded})


@requires("payout:release", resource="office/{office}")
async def release_payouts(request: Request) -> JSONResponse:
    return JSONResponse({"released": request.path_params["office"]})


async def backup(request: Request) -> JSONResponse:
    """Nobody said who may call this, so nobody may."""
    return JSONResponse(books.all_invoices())


@requires("feed:watch")
async def feed(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_json(books.invoices_of(authz.principal))
    await websocket.close()


routes = [
    Route("/health", health),
    Route("/invoices", list_invoices),
    Route("/invoices/{invoice_id}", read_invoice),
    Route("/invoices/{invoice_id}/approve", approve_invoice, methods=["POST"]),
    Route("/invoices/{invoice_id}/export", export_invoice),
    Route("/refunds", create_refund, methods=["POST"]),
    Route("/reports/{name}", run_report, methods=["GET", "POST"]),
    Route("/payouts/{office}", release_payouts, methods=["POST"]),
    Route("/backup", backup),
    WebSocketRoute("/feed", feed),
]

app = Starlette(routes=routes)
app.add_middleware(AuthzMiddleware, settings=SETTINGS)
