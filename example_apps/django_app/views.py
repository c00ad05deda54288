"""The views of the treasury API on Django."""

# ruff: noqa: ARG001 - a handler is given the request, whether it reads it or not

import json

from django.http import JsonResponse
from django.views.decorators.http import require_GET, require_POST

from authz_middleware import authz, public, requires
from example_apps import books


@authz.resource("invoice")
def load_invoice(invoice_id):
    return books.invoice(invoice_id)


@require_GET
@public(reason="liveness probe", owner="platform@example.com")
def health(request):
    return JsonResponse({"status": "ok"})


@require_GET
@requires("invoice:list")
def list_invoices(request):
    return JsonResponse(books.invoices_of(authz.principal), safe=False)


@require_GET
@requires("invoice:read", resource="invoice/{invoice_id}", purpose=["payments", "audit"])
def read_invoice(request, invoice_id):
    return JsonResponse(books.invoice(invoice_id), safe=False)


@require_POST
@requires("invoice:approve", resource="invoice/{invoice_id}", kinds="human", sensitive=True)
def approve_invoice(request, invoice_id):
    return JsonResponse(books.mark(invoice_id, "approved"), safe=False)


@require_GET
@requires("invoice:export", resource="invoice/{invoice_id}")
def export_invoice(request, invoice_id):
    return JsonResponse({"export": books.invoice(invoice_id)})


@require_POST
@requires("refund:request", accountable=True)
def create_refund(request):
    invoice_id = str(json.loads(request.body)["invoice"])
    authz.check("refund:create", resource=f"invoice/{invoice_id}")  # which invoice, only the body tells
    return JsonResponse({"refunded": books.mark(invoice_id, "refunded")}, status=201)


@requires("report:run", resource="report/{name}", task="monthly-close")
def run_report(request, name):
    return JsonResponse({**books.report(name, authz.principal), "degraded": authz.degraded})


@require_POST
@requires("payout:release", resource="office/{office}")
def release_payouts(request, office):
    return JsonResponse({"released": office})


def backup(request):
    """Nobody said who may call this, so nobody may."""
    return JsonResponse(books.all_invoices(), safe=False)
