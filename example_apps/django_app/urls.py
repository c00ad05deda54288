"""The routes of the treasury API on Django."""

from django.urls import path

from example_apps.django_app import views

urlpatterns = [
    path("health", views.health),
    path("invoices", views.list_invoices),
    path("invoices/<invoice_id>", views.read_invoice),
    path("invoices/<invoice_id>/approve", views.approve_invoice),
    path("invoices/<invoice_id>/export", views.export_invoice),
    path("refunds", views.create_refund),
    path("reports/<name>", views.run_report),
    path("payouts/<office>", views.release_payouts),
    path("backup", views.backup),
]
