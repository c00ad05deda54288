"""One table of requests, the same decisions and the same records in every framework."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.support.decision_point import DecisionPointProcess
from tests.support.surfaces.all import FRAMEWORKS, open_surface
from tests.support.surfaces.surface import Surface
from tests.support.treasury import STRANGER, records, settings, token, wait_for_records

NOBODY: dict[str, Any] = {"nobody": True}


class Case(msgspec.Struct, frozen=True):
    """A request and all that must come of it. `decided` lists `reason` or `reason rule` of each record, in order;
    `ran` the handlers that ran."""

    name: str
    capabilities: tuple[str, ...]
    request: str
    claims: dict[str, Any]
    status: int
    decided: list[str]
    ran: list[str] = []


CASES = (
    Case("public", ("C47",), "GET /health", NOBODY, 200, ["public"], ["health"]),
    Case("no token", ("C47",), "GET /invoices", NOBODY, 401, ["credential.missing"]),
    Case("no token, undeclared", ("C47",), "GET /undeclared", NOBODY, 401, ["credential.missing"]),
    Case("forged", ("C2",), "GET /invoices", {"issuer": STRANGER}, 401, ["credential.invalid"]),
    Case("expired", ("C14",), "GET /invoices", {"now": time.time() - 400}, 401, ["credential.invalid"]),
    Case("undeclared", ("C47",), "GET /undeclared", {}, 403, ["permission.missing"]),
    Case("by name", (), "GET /third-party", {}, 200, ["permitted notes"], ["third_party"]),
    Case("permitted", ("C1", "C28"), "GET /invoices", {}, 200, ["permitted list-invoices"], ["list_invoices"]),
    Case("no scope", ("C2",), "GET /invoices", {"scope": "openid"}, 403, ["rule.none"]),
    Case("own tenant", ("C11",), "GET /invoices/1", {}, 200, ["permitted read-invoices"], ["read_invoice"]),
    Case("other tenant", ("C11",), "GET /invoices/2", {}, 403, ["rule.none"]),
    Case("no tenant", ("C27",), "GET /invoices/1", {"tenant": None}, 403, ["input.missing"]),
    Case("too sensitive", ("C6",), "GET /invoices/3", {}, 403, ["rule.none"]),
    Case("no label", ("C6", "C27"), "GET /invoices/4", {}, 403, ["input.missing"]),
    Case("no such invoice", ("C27",), "GET /invoices/99", {}, 403, ["input.missing"]),
    Case("hidden id", ("C8",), "GET /invoices/1%E2%80%8B", {}, 403, ["resource.invalid"]),
    Case("environment", ("C5",), "GET /invoices", {"env": "staging"}, 403, ["environment.mismatch"]),
    Case("no environment", ("C5",), "GET /invoices", {"env": None}, 403, ["environment.mismatch"]),
    Case("purpose", ("C4",), "GET /notes", {}, 200, ["permitted notes"], ["notes"]),
    Case("other purpose", ("C4",), "GET /notes", {"purpose": "marketing"}, 403, ["purpose.mismatch"]),
    Case("no purpose", ("C4",), "GET /notes", {"purpose": None}, 403, ["purpose.mismatch"]),
    Case("task", ("C3",), "POST /close", {}, 200, ["permitted notes"], ["close_books"]),
    Case("other task", ("C3",), "POST /close", {"task": "refund-desk"}, 403, ["task.mismatch"]),
    Case("human", ("C22",), "DELETE /users/7", {}, 200, ["permitted notes"], ["delete_user"]),
    Case("agent for a human", ("C22",), "DELETE /users/7", {"act": {"sub": "bot"}}, 403, ["kind.refused"]),
    Case("agent", ("C22",), "DELETE /users/7", {"kind": "agent"}, 403, ["kind.refused"]),
    Case("nobody says who", ("C22",), "DELETE /users/7", {"kind": None}, 403, ["kind.refused"]),
    Case("accountable", ("C21",), "GET /vault", {}, 200, ["permitted notes"], ["open_vault"]),
    Case("shared", ("C21",), "GET /vault", {"jti": None, "client_id": None}, 403, ["actor.required"]),
    Case(
        "actor chain too deep",
        ("C20",),
        "GET /vault",
        {"act": functools.reduce(lambda chain, n: {"sub": f"a{n}", "act": chain}, range(5), {"sub": "root"})},
        403,
        ["actor.depth"],
    ),
    Case("actor holds less", ("C20",), "GET /invoices", {"act": {"sub": "bot", "scope": "x"}}, 403, ["input.missing"]),
    Case("deny overrides", ("C44",), "GET /notes", {"roles": ["suspended"]}, 403, ["rule.deny no-suspended-callers"]),
    Case(
        "remote permits",
        ("C12", "C29"),
        "POST /invoices/1/approve",
        {"roles": ["manager"]},
        200,
        ["permitted approve-invoices remote"],
        ["approve"],
    ),
    Case(
        "remote denies",
        ("C12", "C29"),
        "POST /invoices/2/approve",
        {"roles": ["manager"]},
        403,
        ["remote.deny approve-invoices remote"],
    ),
    Case("local deny asks nobody", ("C12",), "POST /invoices/1/approve", {}, 403, ["rule.none"]),
    Case(
        "check holds",
        ("C8",),
        "GET /amend/1",
        {},
        200,
        ["permitted list-invoices", "permitted amend-small-invoices"],
        ["amend"],
    ),
    Case("check fails", ("C8",), "GET /amend/2", {}, 403, ["permitted list-invoices", "rule.none"]),
    Case(
        "check fails, swallowed",
        ("C2",),
        "GET /swallow/2",
        {},
        403,
        ["permitted list-invoices", "rule.none"],
        ["swallowed"],
    ),
    Case(
        "asked whether",
        (),
        "GET /may-amend/2",
        {},
        200,
        ["permitted list-invoices", "rule.none"],
        ["may_amend:False"],
    ),
    Case("not found", (), "GET /nowhere", {}, 404, []),
)

CASE_PARAMS = [
    pytest.param(case, id=case.name, marks=pytest.mark.capability(*case.capabilities) if case.capabilities else ())
    for case in CASES
]


@pytest.fixture(scope="module")
def point(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DecisionPointProcess]:
    with DecisionPointProcess(tmp_path_factory.mktemp("point")) as process:
        yield process


@pytest.fixture(scope="session")
def first_records() -> dict[str, Any]:
    """The records of each case, as the first framework wrote them."""
    return {}


class Served(msgspec.Struct):
    """A surface, and the folder with its decision log."""

    surface: Surface
    folder: Path


@pytest.fixture(scope="module", params=FRAMEWORKS)
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, point: DecisionPointProcess
) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp(request.param)
    with open_surface(request.param, settings(folder, remote=point.url)) as surface:
        yield Served(surface, folder)


def send(served: Served, request: str, claims: dict[str, Any]) -> tuple[Any, list[dict[str, Any]]]:
    """The reply to one request, and the records it left."""
    before = len(records(served.folder))
    served.surface.ran.clear()
    method, path = request.split()
    headers = {} if claims is NOBODY else {"Authorization": f"Bearer {token(**claims)}"}
    reply = served.surface.request(method, path, headers)
    return reply, wait_for_records(served.folder, before + 1, 0.0)[before:]


def told(record: dict[str, Any]) -> str:
    """A record in a few words, as `Case.decided` has them."""
    authz = record["authz"]
    words = [authz["reason"], authz.get("rule"), None if authz["decided_by"] == "local" else authz["decided_by"]]
    return " ".join(word for word in words if word)


def comparable(record: dict[str, Any]) -> dict[str, Any]:
    """A record without what must differ: ids, times, the writer, and how a framework names its routes."""
    subject = record["input"].get("subject", {})
    for name in ("token_id", "issued_at", "expires_at"):
        subject.get("properties", {}).pop(name, None)
    for name in ("time", "route", "endpoint", "client", "resource_as_of"):
        record["input"]["context"].pop(name, None)
    if record["input"]["resource"]["type"] == "route":
        del record["input"]["resource"]["id"]
    for name in ("writer", "seq", "prev"):
        record["authz"].pop(name, None)
    return {name: record[name] for name in ("path", "input", "result", "bundles", "authz", "labels")}


@pytest.mark.promise("P8")
@pytest.mark.capability("C52")
@pytest.mark.parametrize("case", CASE_PARAMS)
def test_a_request_is_recorded_alike_in_every_framework(
    served: Served, case: Case, first_records: dict[str, Any]
) -> None:
    _, made = send(served, case.request, case.claims)
    made = [comparable(record) for record in made]
    assert first_records.setdefault(case.name, made) == made


@pytest.mark.promise("P6")
@pytest.mark.parametrize("case", CASE_PARAMS)
def test_a_request_is_answered_recorded_and_run_as_the_table_says(served: Served, case: Case) -> None:
    reply, made = send(served, case.request, case.claims)
    assert (reply.status, [told(record) for record in made], served.surface.ran) == (
        case.status,
        case.decided,
        case.ran,
    ), reply.body
    assert all(record["result"] is (record["authz"]["outcome"] == "permit") for record in made)


def test_a_method_that_no_handler_has_runs_nothing(served: Served) -> None:
    # Django's router knows no methods: there the class is decided about first, and then answers 405.
    reply, made = send(served, "PATCH /invoices", {})
    assert (reply.status, served.surface.ran) == (405, [])
    assert [told(record) for record in made] in ([], ["permitted list-invoices"])
