"""Promise P1 over real sockets: whatever spelling of a path a client finds, a handler that ran had its own permit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.django_project.server import COMMANDS, Server, run_server, traceparent
from tests.django_project.site import ACTIONS, token

pytestmark = pytest.mark.promise("P1")

FORBIDDEN = "run:secret"
GRANTED = [action for action in ACTIONS if action != FORBIDDEN]
METHODS = ["GET", "POST", "HEAD", "DELETE", "OPTIONS", "PROPFIND"]

PATHS = [
    *("/plain/", "/secret/", "/closed/", "/async/", "/class/7/", "/partial/", "/anchored", "/loose/a", "/any/a/b"),
    *("/inner/leaf/", "/admin/", "/admin/login/"),
]

SPELLINGS = [
    *("{p}", "{p}%0A", "{p}%0a/", "{p}%0D%0A", "{p}%00", "{p}%20", "{p}%09", "{p};x=1", "{p};/", "{p}.", "{p}%2e"),
    *("/{p}", "//{p}", "/%2f{p}", "/%2F{p}", "{p}/", "{p}%2f", "{p}?x=1", "{p}?/plain/", "{p}#x", "{p}%23", "{p}%3f"),
    *(
        "/.{p}",
        "/plain/..{p}",
        "/plain/%2e%2e{p}",
        "/plain/%2e%2e%2f{p}",
        "/any/..{p}",
        "/any/x/../..{p}",
        "/loose/..{p}",
    ),
    *("{p}../secret/", "{p}..%2fsecret/", "{p}%252e%252e/secret/", "/\\{p}", "/%5c{p}", "/%c0%af{p}", "/%ff{p}"),
    *("http://127.0.0.1{p}", "http://127.0.0.1/{p}", "http://other.example{p}", "https://127.0.0.1{p}", "http:{p}"),
    *("/mounted{p}", "/mounted//{p}", "/mounted/mounted{p}", "/MOUNTED{p}", "/mounted/..{p}", "/mounted%2f{p}"),
    *("{u}", "{u}%0A", "{h}", "{h}%0A", "/mounted{h}"),
]

HEADERS = [
    {"SCRIPT_NAME": "/plain"},
    {"SCRIPT_NAME": "/secret"},
    {"Script-Name": "/closed"},
    {"PATH_INFO": "/plain/"},
    {"X-Original-URL": "/plain/", "X-Rewrite-URL": "/plain/"},
    {"X-Forwarded-Prefix": "/plain", "X-Forwarded-For": "127.0.0.1"},
    {"X-HTTP-Method-Override": "GET", "X-Method-Override": "GET"},
    {"Host": "plain"},
]

GUNICORNS_OWN = b"<h1><p>Bad Request</p></h1>"
"""Its answer, with status 400 or 500, to what it does not hand on to the application."""


def spelled(path: str) -> Iterator[str]:
    """Ways to write a path that some server, proxy or router may take for it."""
    in_hex = "/" + "".join(f"%{ord(character):02x}" for character in path[1:])
    for spelling in SPELLINGS:
        yield spelling.format(p=path, u=path.upper(), h=in_hex)


def attack(server: Server, scopes: list[str]) -> dict[str, int]:
    """Send everything; the statuses of what reached Django, by trace id."""
    statuses: dict[str, int] = {}
    requests: list[tuple[str, str, dict[str, str]]]
    requests = [(METHODS[n % len(METHODS)], target, {}) for p in PATHS for n, target in enumerate(spelled(p))]
    requests += [(method, f"{mount}{path}", {}) for path in PATHS for method in METHODS for mount in ("", "/mounted")]
    for headers in HEADERS:
        requests += [("GET", f"{prefix}{path}", headers) for path in PATHS for prefix in ("", "/plain", "/secret")]
    authorization = token(*scopes)
    for method, target, headers in requests:
        trace, header = traceparent()
        given = {"Authorization": authorization, "traceparent": header, **headers}
        status, body = server.send(method, target, given)
        if GUNICORNS_OWN not in body:
            statuses[trace] = status
    return statuses


@pytest.mark.capability("C44", "C47", "C49")
@pytest.mark.parametrize("name", COMMANDS)
def test_a_handler_that_runs_has_its_own_permit(name: str, tmp_path: Path) -> None:
    with run_server(name, tmp_path) as server:
        statuses = attack(server, GRANTED)
    permitted = {(record["trace_id"], record["path"]) for record in server.records if record["result"]}
    decided = {record.get("trace_id") for record in server.records}
    # run:inner is asked for by the URLconf around run:leaf, and is no handler of its own.
    missing = [run for run in server.ran if (run["trace"], "authz/" + run["action"].replace(":", "/")) not in permitted]
    assert missing == []
    assert {run["action"] for run in server.ran} == {a for a in GRANTED if a.startswith("run:")} - {"run:inner"}
    assert {status for trace, status in statuses.items() if trace not in decided} <= {301, 400, 404, 405}


@pytest.mark.capability("C47")
@pytest.mark.parametrize("name", ["gunicorn", "uvicorn"])
def test_without_a_credential_no_handler_runs(name: str, tmp_path: Path) -> None:
    with run_server(name, tmp_path) as server:
        for path in PATHS:
            for target in spelled(path):
                status, body = server.send("GET", target, {})
                assert status in (301, 400, 401, 404), target
                assert b"ran " not in body
    assert server.ran == []


@pytest.mark.capability("C2")
@pytest.mark.parametrize("name", ["gunicorn", "uvicorn"])
def test_two_credentials_are_none(name: str, tmp_path: Path) -> None:
    good, other = token("run:plain"), token("run:secret")
    with run_server(name, tmp_path) as server:
        assert server.send("GET", "/plain/", [("Authorization", good)])[0] == 200
        for pair in ((good, other), (other, good), (good, good)):
            headers = [("Authorization", each) for each in pair]
            assert server.send("GET", "/plain/", headers)[0] == 401
    assert [run["action"] for run in server.ran] == ["run:plain"]


def test_a_forked_worker_records_under_a_name_of_its_own(tmp_path: Path) -> None:
    with run_server("gunicorn preloaded", tmp_path) as server:
        assert server.send("GET", "/plain/", {"Authorization": token("run:plain")})[0] == 200
        assert server.send("GET", "/plain/", {})[0] == 401
    assert [record["authz"]["reason"] for record in server.records] == ["permitted", "credential.missing"]


@pytest.mark.parametrize("name", ["gunicorn", "uvicorn"])
def test_a_server_with_unusable_settings_does_not_start(name: str, tmp_path: Path) -> None:
    with (
        pytest.raises(AssertionError, match=r"app\.environment"),
        run_server(name, tmp_path, app={"name": "project"}) as server,
    ):
        server.send("GET", "/plain/", {})
