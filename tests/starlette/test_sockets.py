"""P1 over real sockets: however a path is spelt, a handler that runs has its permit in the decision log."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import websockets
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.starlette.guarded import ISSUER, token

pytestmark = pytest.mark.promise("P1")

ROOT = Path(__file__).parents[2]


class Server:
    """A uvicorn process on a loopback port of its own."""

    def __init__(self, folder: Path, *options: str, environment: dict[str, str] | None = None) -> None:
        self.folder = folder
        (folder / "jwks.json").write_text(json.dumps(ISSUER.jwks()))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        command = [sys.executable, "-m", "uvicorn", "tests.starlette.served:app", "--no-access-log"]
        self.process = subprocess.Popen(
            [*command, "--fd", str(self._listener.fileno()), *options],
            cwd=ROOT,
            env={**os.environ, "AUTHZ_TEST_FOLDER": str(folder), **(environment or {})},
            pass_fds=[self._listener.fileno()],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def wait_until_ready(self) -> None:
        """Send one request; the listening socket holds it until the server is up."""
        status, _ = self.send("GET", "/nowhere", who=None, timeout=60)
        assert status == 404

    def stop(self) -> str:
        """Stop it and hand back what it printed."""
        self.process.send_signal(signal.SIGINT)
        output = self.process.communicate(timeout=30)[0]
        self._listener.close()
        return output

    def send(
        self,
        method: str,
        target: str,
        *,
        who: str | None = "",
        timeout: float = 10,
        headers: dict[str, str] | None = None,
    ) -> tuple[int, str]:
        """One request whose target goes out exactly as it is written."""
        sent = {"Host": "app.example", **({} if who is None else {"Authorization": f"Bearer {who or token()}"})}
        lines = [f"{method} {target} HTTP/1.1", *(f"{n}: {v}" for n, v in {**sent, **(headers or {})}.items())]
        with socket.create_connection(("127.0.0.1", self.port), timeout=timeout) as connection:
            connection.sendall("\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1"))
            response = http.client.HTTPResponse(connection, method=method)
            try:
                response.begin()
                return response.status, response.read().decode("latin-1")
            except (http.client.HTTPException, ConnectionError):
                return 0, ""

    @property
    def ran(self) -> Counter[str]:
        """How often each handler ran."""
        path = self.folder / "ran"
        return Counter(path.read_text().split()) if path.exists() else Counter()

    @property
    def records(self) -> list[dict[str, Any]]:
        """The decision records. Mode `required` writes those of permits before the handler runs."""
        path = self.folder / "decisions.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def check(self) -> None:
        """Fail when a handler ran more often than it was permitted."""
        permits = Counter(record["path"].removeprefix("authz/run/") for record in self.records if record["result"])
        for name, runs in self.ran.items():
            assert permits[name] >= runs, f"{name} ran {runs} times"


@pytest.fixture(scope="module", params=["h11", "httptools"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("server"), "--http", request.param)
    try:
        running.wait_until_ready()
        yield running
        running.check()
    finally:
        running.stop()


@pytest.fixture(scope="module")
def rooted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("rooted"), "--root-path", "/api")
    try:
        running.wait_until_ready()
        yield running
        running.check()
    finally:
        running.stop()


REFUSED = ["/admin", "/admin/7", "/closed", "/mount/admin", "/static/page.txt", "/opaque/x"]
REFUSED += ["/fast/outer/inner/closed", "/fast/docs", "/fast/openapi.json"]


SUFFIXES = (
    "|/|//|%0A|%0a%0A|%0D%0A|%00|%20|.|/.|/..|;|;x=1|/;x|?|#|?admin|.json"
    "|%2f|%2F|%5C|\\|%3F|%23|%2e|%C0%AF|%EF%BF%BD|%E2%80%8B"
)


def spellings(path: str) -> Iterator[str]:
    """A path in the ways an attacker writes it."""
    first, _, rest = path[1:].partition("/")
    rest = f"/{rest}" if rest else ""
    yield from (path + suffix for suffix in SUFFIXES.split("|"))
    yield f"/{path}"
    yield f"/.{path}"
    yield f"/open/..{path}"
    yield f"/open/%2e%2e{path}"
    yield f"/x/../..{path}"
    yield f"/%2f{path[1:]}"
    yield f"/{first.upper()}{rest}"
    yield "/" + "".join(f"%{ord(character):02X}" for character in first) + rest
    yield "/" + "".join(f"%25{ord(character):02X}" for character in first) + rest
    yield "/" + first[0] + "%09" + first[1:] + rest
    yield f"http://app.example{path}"
    yield f"http://other.example{path}"
    yield f"http://tenant.example{path}"
    yield f"HTTP://user@app.example:80{path}"
    yield f"//app.example{path}"
    yield path[1:]
    yield f"/open;{path}"
    yield f"/open%3f{path}"
    yield f"/open?{path}"
    yield f"/mount/..{path}"
    yield f"/mount{path}"
    yield f"/api{path}"
    yield f"/api/..{path}"


@pytest.mark.capability("C44")
@pytest.mark.parametrize("path", REFUSED)
def test_no_spelling_of_a_refused_path_runs_its_handler(server: Server, path: str) -> None:
    for spelling in spellings(path):
        for method in ("GET", "HEAD", "POST"):
            status, body = server.send(method, spelling)
            permitted = status == 200 and body.startswith(("ran open", "ran m-open"))
            assert permitted or status in (0, 307, 400, 403, 404, 405) or (method == "HEAD" and "open" in spelling), (
                method,
                spelling,
                status,
                body,
            )
    server.check()
    assert set(server.ran) <= {"open", "open-item", "number", "deep", "m-open", "included", "talk"}


@pytest.mark.capability("C44")
@pytest.mark.parametrize("path", ["/admin", "/closed", "/mount/admin", "/opaque/x", "/fast/outer/inner/closed"])
def test_no_spelling_gets_past_a_root_path(rooted: Server, path: str) -> None:
    for prefix in ("", "/api", "/api/api", "//api", "/api/", "/%61pi", "/api%2f", "/API"):
        for spelling in (path, f"{path}/", f"{path}%0A", f"/{path}", f"/..{path}"):
            status, body = rooted.send("GET", prefix + spelling)
            assert status in (307, 400, 403, 404, 405), (prefix, spelling, status, body)
    assert rooted.ran == {}


def test_what_is_permitted_is_served_under_a_root_path(rooted: Server) -> None:
    assert rooted.send("GET", "/open")[1] == "ran open"
    rooted.check()
    (rooted.folder / "ran").unlink()


@pytest.mark.parametrize(
    ("path", "answers"),
    [
        ("/open", "ran open"),
        ("/open%0A", "ran open"),
        ("/%6Fpen", "ran open"),
        ("/open/7", "ran open-item"),
        ("/open/number/007", "ran number"),
        ("/open/deep/a/b", "ran deep"),
        ("/mount/open", "ran m-open"),
        ("/fast/outer/inner/open/7", "ran included"),
    ],
)
def test_what_is_permitted_runs_and_is_recorded(server: Server, path: str, answers: str) -> None:
    before = len(server.records)
    assert server.send("GET", path) == (200, answers)
    assert [record["authz"]["reason"] for record in server.records[before:]] == ["permitted"]


@pytest.mark.capability("C8")
@pytest.mark.parametrize("item", ["7%0A", "7%00", "%EF%BF%BD", "7%E2%80%AE", "%FF", "%0A"])
def test_an_id_that_hides_something_is_refused(server: Server, item: str) -> None:
    assert server.send("GET", f"/open/{item}")[0] == 403


@pytest.mark.capability("C44")
@pytest.mark.parametrize("name", ["X-Forwarded-User", "X-Original-URL", "X-Rewrite-URL", "X-HTTP-Method-Override"])
def test_headers_do_not_change_what_is_decided(server: Server, name: str) -> None:
    for value in ("/open", "GET", "alice"):
        assert server.send("GET", "/admin", headers={name: value})[0] == 403
        assert server.send("GET", "/open", who=None, headers={name: value})[0] == 401


@pytest.mark.capability("C44")
def test_a_host_header_leads_to_no_closed_handler(server: Server) -> None:
    for host in ("tenant.example", "TENANT.example", "tenant.example:80", "tenant.example."):
        assert server.send("GET", "/admin", headers={"Host": host})[0] in (400, 403)
    assert "hosted" not in server.ran


def test_a_preflight_passes_and_runs_nothing(server: Server) -> None:
    headers = {"Origin": "https://shop.example", "Access-Control-Request-Method": "GET"}
    assert server.send("OPTIONS", "/closed", who=None, headers=headers) == (200, "")
    assert server.send("OPTIONS", "/closed", who=None)[0] == 401
    assert "closed" not in server.ran


@given(
    prefix=st.sampled_from(["", "/", "/.", "/mount", "/open", "/fast/outer", "/%2f"]),
    path=st.sampled_from(REFUSED),
    noise=st.text(st.sampled_from("/.;%?#\\0aA2fF5eE\t ~:@&=+"), max_size=6),
    at=st.integers(0, 20),
)
@hypothesis_settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_generated_spelling_runs_a_refused_handler(
    server: Server, prefix: str, path: str, noise: str, at: int
) -> None:
    noise = noise.replace(" ", "%20").replace("\t", "%09")
    server.send("GET", prefix + path[:at] + noise + path[at:])
    assert set(server.ran) <= {"open", "open-item", "number", "deep", "m-open", "included", "talk"}
    server.check()


@pytest.fixture(scope="module", params=["websockets", "websockets-sansio"])
def websocket_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("server"), "--ws", request.param)
    try:
        running.wait_until_ready()
        yield running
        running.check()
    finally:
        running.stop()


async def handshake(server: Server, path: str, who: str | None = "") -> str | int:
    """What a websocket client hears first: a greeting, or the status of the refusal."""
    headers = {} if who is None else {"Authorization": f"Bearer {who or token()}"}
    try:
        async with websockets.connect(f"ws://127.0.0.1:{server.port}{path}", additional_headers=headers) as connection:
            return str(await asyncio.wait_for(connection.recv(), 10))
    except websockets.InvalidStatus as refused:
        return refused.response.status_code


@pytest.mark.parametrize(
    ("path", "who", "hears"),
    [
        ("/talk", "", "ran talk"),
        ("/talk", None, 401),
        ("/talk", "forged", 401),
        ("/secret-talk", "", 403),
        ("/secret-talk%0A", "", 403),
        ("/secret%2Dtalk", "", 403),
    ],
)
async def test_a_websocket_is_refused_as_a_response_or_greeted(
    websocket_server: Server, path: str, who: str | None, hears: Any
) -> None:
    assert await handshake(websocket_server, path, who) == hears
    websocket_server.check()


def waited_for(server: Server) -> tuple[int, str]:
    output = server.process.communicate(timeout=60)[0]
    return server.process.returncode, output


@pytest.mark.parametrize(
    ("mistake", "says"), [("settings", "app.modus: is not a known key"), ("policy", "the policy cannot be used")]
)
def test_a_mistake_stops_the_server_with_a_readable_message(tmp_path: Path, mistake: str, says: str) -> None:
    server = Server(tmp_path, environment={"AUTHZ_TEST_MISTAKE": mistake})
    code, output = waited_for(server)
    assert code != 0
    assert says in output
    assert "Traceback" not in output
    server._listener.close()


@pytest.mark.parametrize("mistake", ["settings", "policy"])
def test_a_server_without_a_lifespan_serves_nothing_with_a_mistake(tmp_path: Path, mistake: str) -> None:
    server = Server(tmp_path, "--lifespan", "off", environment={"AUTHZ_TEST_MISTAKE": mistake})
    try:
        assert [server.send("GET", "/open", timeout=60)[0] for _ in range(2)] == [503, 503]
    finally:
        output = server.stop()
    assert "cannot be used" in output
    assert server.ran == {}


def test_stopping_the_server_leaves_every_record(tmp_path: Path) -> None:
    server = Server(tmp_path)
    server.wait_until_ready()
    for _ in range(20):
        assert server.send("GET", "/closed")[0] == 403
    output = server.stop()
    assert len(server.records) == 20
    assert "Traceback" not in output
    assert ".eyJ" not in output


@pytest.mark.capability("C41")
def test_clients_that_hang_up_leave_one_record_each(tmp_path: Path) -> None:
    server = Server(tmp_path)
    server.wait_until_ready()
    try:
        request = f"GET /admin HTTP/1.1\r\nHost: app.example\r\nAuthorization: Bearer {token()}\r\n\r\n".encode()
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", server.port)) as connection:
                connection.sendall(request)
        end = time.monotonic() + 10
        while len(server.records) < 20 and time.monotonic() < end:
            time.sleep(0.05)
        time.sleep(0.2)
        assert len(server.records) == 20
    finally:
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.stop()
