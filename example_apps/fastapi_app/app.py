"""The treasury API on FastAPI.

uvicorn example_apps.fastapi_app.app:app
"""

import os
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI, WebSocket
from pydantic import BaseModel

from authz_middleware import authz, public, requires
from authz_starlette import AuthzMiddleware
from example_apps import books

SETTINGS = os.environ.get("AUTHZ_SETTINGS") or Path(__file__).with_name("authz.toml")

app = FastAPI()
app.add_middleware(AuthzMiddleware, settings=SETTINGS)

invoices = APIRouter(prefix="/invoices")


class RefundRequest(BaseModel):
    invoice: str


@authz.resource("invoice")
def load_invoice(invoice_id: str) -> books.Invoice | None:
    return books.invoice(invoice_id)


@app.get("/health")
@public(reason="liveness probe", owner="platform@example.com")
async def health() -> dict[str, Any]:
    return {"status": "ok"}


@invoices.get("")
@requires("invoice:list")
async def list_invoices() -> list[books.Invoice]:
    return books.invoices_of(authz.principal)


@invoices.get("/{invoice_id}")
@requires("invoice:read", resource="invoice/{invoice_id}", purpose=["payments", "audit"])
async def read_invoice(invoice_id: str) -> books.Invoice | None:
    return books.invoice(invoice_id)


@invoices.post("/{invoice_id}/approve")
@requires("invoice:approve", resource="invoice/{invoice_id}", kinds="human", sensitive=True)
async def approve_invoice(invoice_id: str) -> books.Invoice | None:
    return books.mark(invoice_id, "approved")


@invoices.get("/{invoice_id}/export")
@requires("invoice:export", resource="invoice/{invoice_id}")
async def export_invoice(invoice_id: str) -> dict[str, Any]:
    return {"export": books.invoice(invoice_id)}


@app.post("/refunds", status_code=201)
@requires("refund:request", accountable=True)
async def create_refund(refund: RefundRequest) -> dict[str, Any]:
    # Which invoice, only the body tells.
    await authz.acheck("refund:create", resource=f"invoice/{refund.invoice}")
    return {"refunded": books.mark(refund.invoice, "refunded")}


@app.api_route("/reports/{name}", methods=["GET", "POST"])
@requires("report:run", resource="report/{name}", task="monthly-close")
async def run_report(name: str) -> dict[str, Any]:
    return {**books.report(name, authz.principal), "degraded": authz.degraded}


@app.post("/payouts/{office}")
@requires("payout:release", resource="office/{office}")
async def release_payouts(office: str) -> dict[str, Any]:
    return {"released": office}


@app.get("/backup")
async def backup() -> list[books.Invoice]:
    """Nobody said who may call this, so nobody may."""
    return books.all_invoices()


@app.websocket("/feed")
@requires("feed:watch")
async def feed(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_json(books.invoices_of(authz.principal))
    await websocket.close()


app.include_router(invoices)
