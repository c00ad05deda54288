"""The books of two fictitious companies, in memory: what the four example applications read and change."""

from __future__ import annotations

import sqlite3
from threading import Lock
from typing import Any

from authz_middleware import Principal

Invoice = dict[str, Any]

_INVOICES = [
    # id, tenant, amount, classification
    ("inv-1", "acme", 240, "internal"),
    ("inv-2", "acme", 90_000, "internal"),
    ("inv-3", "acme", 1_200, "restricted"),
    ("inv-9", "globex", 310, "internal"),
]
_COLUMNS = ("id", "tenant", "amount", "classification", "status")

_lock = Lock()
_database = sqlite3.connect(":memory:", check_same_thread=False)
_database.execute("create table invoices (id primary key, tenant, amount, classification, status default 'open')")
_database.executemany("insert into invoices (id, tenant, amount, classification) values (?, ?, ?, ?)", _INVOICES)


def invoice(invoice_id: str) -> Invoice | None:
    """One invoice, or None."""
    found = _select("where id = ?", invoice_id)
    return found[0] if found else None


def invoices_of(caller: Principal | None) -> list[Invoice]:
    """The invoices of the caller's company; none for nobody."""
    return _select("where tenant = ? order by id", caller.tenant) if caller else []


def all_invoices() -> list[Invoice]:
    """The invoices of every company."""
    return _select("order by id")


def mark(invoice_id: str, status: str) -> Invoice | None:
    """Note what became of an invoice, and return it."""
    with _lock, _database:
        _database.execute("update invoices set status = ? where id = ?", (status, invoice_id))
    return invoice(invoice_id)


def report(name: str, caller: Principal | None) -> dict[str, Any]:
    """A report over the invoices of the caller's company."""
    mine = invoices_of(caller)
    return {"report": name, "invoices": len(mine), "total": sum(one["amount"] for one in mine)}


def _select(where: str, *values: str | None) -> list[Invoice]:
    with _lock:
        rows = _database.execute(f"select {', '.join(_COLUMNS)} from invoices {where}", values).fetchall()  # noqa: S608
    return [dict(zip(_COLUMNS, row, strict=True)) for row in rows]
