"""The treasury API on Flask.

gunicorn --threads 4 example_apps.flask_app.app:app
"""

import os
from pathlib import Path

from flask import Blueprint, Flask, jsonify, request

from authz_flask import Authz
from authz_middleware import authz, public, requires
from example_apps import books

app = Flask(__name__)
app.config["AUTHZ"] = os.environ.get("AUTHZ_SETTINGS") or Path(__file__).with_name("authz.toml")

invoices = Blueprint("invoices", __name__, url_prefix="/invoices")


@authz.resource("invoice")
def load_invoice(invoice_id):
    return books.invoice(invoice_id)


@app.get("/health")
@public(reason="liveness probe", owner="platform@example.com")
def health():
    return {"status": "ok"}


@invoices.get("")
@requires("invoice:list")
def list_invoices():
    return jsonify(books.invoices_of(authz.principal))


@invoices.get("/<invoice_id>")
@requires("invoice:read", resource="invoice/{invoice_id}", purpose=["payments", "audit"])
def read_invoice(invoice_id):
    return jsonify(books.invoice(invoice_id))


@invoices.post("/<invoice_id>/approve")
@requires("invoice:approve", resource="invoice/{invoice_id}", kinds="human", sensitive=True)
def approve_invoice(invoice_id):
    return jsonify(books.mark(invoice_id, "approved"))


@invoices.get("/<invoice_id>/export")
@requires("invoice:export", resource="invoice/{invoice_id}")
def export_invoice(invoice_id):
    return {"export": books.invoice(invoice_id)}


@app.post("/refunds")
@requires("refund:request", accountable=True)
def create_refund():
    invoice_id = str(request.get_json()["invoice"])
    authz.check("refund:create", resource=f"invoice/{invoice_id}")  # which invoice, only the body tells
    return {"refunded": books.mark(invoice_id, "refunded")}, 201


@app.route("/reports/<name>", methods=["GET", "POST"])
@requires("report:run", resource="report/{name}", task="monthly-close")
def run_report(name):
    return {**books.report(name, authz.principal), "degraded": authz.degraded}


@app.post("/payouts/<office>")
@requires("payout:release", resource="office/{office}")
def release_payouts(office):
    return {"released": office}


@app.get("/backup")
def backup():
    """Nobody said who may call this, so nobody may."""
    return jsonify(books.all_invoices())


app.register_blueprint(invoices)
Authz(app)
