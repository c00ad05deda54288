"""Over real sockets: however a request is spelled, a view that runs has its permit in the decision log."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.flask.office import bearer, clerk
from tests.flask.server import Gunicorn

pytestmark = pytest.mark.promise("P1")

WORDS = ("admin", "admin/panel", "invoices", "invoices/7", "desk/", "desk/top", "metrics", "inner/admin", "inner/desk/")

SPELLINGS = (
    "/{0}",
    "//{0}",
    "///{0}",
    "/%2f{0}",
    "/%2F%2f{0}",
    "/./{0}",
    "/x/../{0}",
    "/health/../{0}",
    "/health/%2e%2e/{0}",
    "/health%2f..%2f{0}",
    "/health/..;/{0}",
    "/health;/{0}",
    "/health%00/{0}",
    "/health%0A/{0}",
    "/health?/{0}",
    "/health#/{0}",
    "/\\{0}",
    "/%5c{0}",
    "/health\\..\\{0}",
    "/{0}/",
    "/{0}//",
    "/{0}/.",
    "/{0}/..",
    "/{0}%0A",
    "/{0}%0D%0A",
    "/{0}%00",
    "/{0}%20",
    "/{0}%09",
    "/{0};x=1",
    "/{0};/health",
    "/{0}?x",
    "/{0}#x",
    "/{0}%3f",
    "/{0}%23",
    "/{0}%ff",
    "/{0}%c0%af",
    "/{0}%e2%80%8b",
    "/%{1:x}{2}",
    "/%25{1:x}{2}",
    "/%u00{1:x}{2}",
    "/{3}",
    "/static/../{0}",
    "/inner/../{0}",
    "/metrics/../{0}",
    "/office/{0}",
    "/office//{0}",
    "/office/../{0}",
    "//office/{0}",
    "http://office.example/{0}",
    "http://evil.example/{0}",
    "http://evil.example//{0}",
    "https://office.example/office/{0}",
    "//evil.example/{0}",
    "{0}",
    "*",
)

HEADERS = (
    (),
    ("SCRIPT_NAME: /health",),
    ("SCRIPT_NAME: /office",),
    ("SCRIPT-NAME: /health",),
    ("PATH_INFO: /health",),
    ("X-Original-URL: /health", "X-Rewrite-URL: /health", "X-Forwarded-Prefix: /health"),
    ("X-HTTP-Method-Override: OPTIONS", "X-Forwarded-User: root", "X-Forwarded-For: 192.0.2.1"),
)


def targets() -> Iterator[str]:
    for word in WORDS:
        for spelling in SPELLINGS:
            yield spelling.format(word, ord(word[0]), word[1:], word.upper())


@pytest.mark.capability("C44", "C49")
@pytest.mark.parametrize("mount", ["", "/office"])
def test_a_view_that_runs_has_its_permit_in_the_log_however_its_path_is_spelled(tmp_path: Path, mount: str) -> None:
    callers: list[tuple[str, ...]] = [(), (f"Authorization: {bearer()['Authorization']}",)]
    with _site(tmp_path, mount) as site:
        for target in targets():
            for caller in callers:
                reply = site.send(target, *caller)
                assert reply is None or b"bare" not in reply.body, target
        for headers in HEADERS[1:]:
            for word in WORDS:
                for target in (f"/{word}", f"/health/{word}", f"/health{mount}/{word}", f"{mount}/{word}"):
                    site.send(target, *callers[1], *headers)

        assert site.unpermitted() == []
        views = {run["view"] for run in site.ran}
        assert views - {"health"} == {"list", "read"}, "and what a reader may read was read"
        assert {run["caller"] for run in site.ran if run["view"] != "health"} == {"alice"}
    assert "Traceback" not in site.output


@pytest.mark.capability("C44")
def test_spellings_that_the_router_takes_for_a_path_are_decided_for_where_they_lead(tmp_path: Path) -> None:
    """What gunicorn and Flask make of some spellings; a change here is worth knowing about."""
    authorization = f"Authorization: {clerk()['Authorization']}"
    leads = {
        "/invoices": "list",
        "//invoices": "list",
        "/%2finvoices": "list",
        "/%69nvoices": "list",
        "http://evil.example/invoices": "list",
        "/inner//invoices": "list",
        "/desk/": "desk",
        "/desk/../invoices": None,  # the drawer's view, asked for a drawer that names nothing safe
        "/invoices%0A": None,
        "/invoices;x": None,
        "/x/../invoices": None,
        "/INVOICES": None,
    }
    with _site(tmp_path) as site:
        for target, view in leads.items():
            before = len(site.ran)
            site.send(target, authorization)
            assert [run["view"] for run in site.ran[before:]] == ([] if view is None else [view]), target
        assert site.unpermitted() == []


@pytest.mark.capability("C44")
def test_a_prefix_that_a_loopback_client_claims_leads_to_decided_views_only(tmp_path: Path) -> None:
    """gunicorn believes `SCRIPT_NAME` from loopback: `/health/invoices` is then routed as `/invoices`."""
    authorization = f"Authorization: {bearer()['Authorization']}"
    with _site(tmp_path) as site:
        assert site.get("/health/invoices", "SCRIPT_NAME: /health").status == 401
        assert site.get("/health/invoices", "SCRIPT_NAME: /health", authorization).status == 200
        assert site.get("/health/admin", "SCRIPT_NAME: /health", authorization).status == 403
        assert [run["view"] for run in site.ran] == ["health", "list"]
        assert site.unpermitted() == []


CREDENTIALS = (
    ("Authorization: {0}", "Authorization: {0}"),  # gunicorn joins them with a comma
    ("Authorization: {0}", "authorization: Basic Zm9vOmJhcg=="),
    ("Authorization: {0}, {0}",),
    ("HTTP_AUTHORIZATION: {0}",),  # gunicorn drops names with an underscore
    ("Authorization_: {0}",),
    ("HTTP-AUTHORIZATION: {0}",),
    ("Proxy-Authorization: {0}",),
    ("X-Authorization: {0}",),
)


@pytest.mark.capability("C44")
def test_a_credential_comes_in_one_authorization_header_or_not_at_all(tmp_path: Path) -> None:
    value = bearer()["Authorization"]
    with _site(tmp_path) as site:
        assert site.get("/invoices", f"Authorization: {value}").status == 200
        for headers in CREDENTIALS:
            assert site.get("/invoices", *(header.format(value) for header in headers)).status == 401, headers
        assert [run["view"] for run in site.ran] == ["health", "list"]


def test_head_options_and_errors_of_the_router_look_as_they_should_on_the_wire(tmp_path: Path) -> None:
    authorization = f"Authorization: {bearer()['Authorization']}"
    with _site(tmp_path) as site:
        refused = site.send("/invoices", method="HEAD")
        assert refused is not None
        assert (refused.status, refused.body) == (401, b"")
        assert int(refused.headers["content-length"]) > 0
        permitted = site.send("/invoices", authorization, method="HEAD")
        assert permitted is not None
        assert (permitted.status, permitted.body) == (200, b"")
        options = site.send("/invoices", method="OPTIONS")
        assert options is not None
        assert (options.status, set(options.headers["allow"].split(", "))) == (200, {"GET", "HEAD", "OPTIONS"})
        redirect = site.get("/desk")
        assert (redirect.status, redirect.headers["location"]) == (308, "http://office.example/desk/")
        # This application answers every error with 200: what a 404 becomes, nobody has opened.
        assert site.get("/nowhere", authorization).status == 403


def test_workers_forked_from_a_preloaded_application_decide_and_record_apart(tmp_path: Path) -> None:
    authorization = f"Authorization: {bearer()['Authorization']}"
    with _site(tmp_path, "", "--preload", "--workers", "2") as site:
        processes = set()
        for _ in range(200):
            reply = site.get("/invoices", authorization)
            assert reply.status == 200
            processes.add(reply.body.partition(b'"pid":')[2].partition(b",")[0])
            if len(processes) == 2:
                break
        assert len(processes) == 2
        assert site.unpermitted() == []
        records = site.records
        assert len({record["authz"]["writer"] for record in records}) == 2
        assert len({record["decision_id"] for record in records}) == len(records)
    assert "Traceback" not in site.output


@pytest.mark.capability("C1")
def test_forked_workers_follow_the_policy_file(tmp_path: Path) -> None:
    authorization = f"Authorization: {bearer()['Authorization']}"
    with _site(tmp_path, "", "--preload") as site:
        assert site.get("/invoices", authorization).status == 200
        policy = tmp_path / "office.yaml"
        policy.write_text(policy.read_text().replace("invoices.read", "invoices.audit"))
        end = time.monotonic() + 10
        while site.get("/invoices", authorization).status != 403:
            assert time.monotonic() < end
            time.sleep(0.05)


def _site(folder: Path, mount: str = "", *options: str) -> Gunicorn:
    return Gunicorn(folder, *options, MOUNT=mount)
