"""The console script as a person runs it: another process, its output and its exit status."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import jsonschema
import pytest

from authz_middleware import __version__
from tests.support.records import PERMIT, Memory, question, recorder

POLICY = """\
policy: billing
owner: payments@example.com
rules:
  - rule: read-invoices
    permit: invoice:read
    when:
      subject.scopes: {has: invoices.read}
tests:
  - name: a reader may read
    at: "2026-03-02T09:00:00Z"
    action: invoice:read
    subject: {scopes: [invoices.read]}
    expect: permit
  - name: nobody else may
    at: "2026-03-02T09:00:00Z"
    action: invoice:read
    expect: deny
"""
WRONG_POLICY = POLICY.replace("{has: invoices.read}", "{hsa: invoices.read}").replace("owner:", "ownr:")
WRONG_TEST = POLICY.replace("expect: deny", "expect: permit")

SETTINGS = """\
[app]
name = "billing"
environment = "production"
[[issuers]]
issuer = "https://idp.example.com/"
audience = ["billing-api"]
jwks_uri = "https://idp.example.com/jwks"
algorithms = ["ES256"]
[policy]
source = "billing.yaml"
allow_unsigned = true
[fallback]
default = "deny"
[fallback.actions."invoice:export"]
mode = "cached"
max_stale = "60s"
[decision_log]
sink = "file:decisions.jsonl"
"""

AUTHZ = Path(sys.executable).with_name("authz")


def authz(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(AUTHZ), *arguments], cwd=cwd, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "billing.yaml").write_text(POLICY)
    (tmp_path / "wrong.yaml").write_text(WRONG_POLICY)
    (tmp_path / "failing.yaml").write_text(WRONG_TEST)
    (tmp_path / "authz.toml").write_text(SETTINGS)
    return tmp_path


def test_version_is_that_of_the_package(folder: Path) -> None:
    done = authz("version", cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert __version__ in done.stdout


def test_without_a_command_the_commands_are_listed(folder: Path) -> None:
    done = authz(cwd=folder)
    assert all(command in done.stdout + done.stderr for command in ("serve", "policy", "settings", "version"))


def test_a_usable_policy_is_summed_up_in_one_line(folder: Path) -> None:
    done = authz("policy", "check", "billing.yaml", cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("billing.yaml: policy 'billing' of payments@example.com, 1 rule, 2 tests, revision ")
    assert done.stdout.count("\n") == 1


def test_every_mistake_of_a_policy_is_reported_with_its_file_and_line(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "wrong.yaml").rename(folder / "sub" / "wrong.yaml")
    done = authz("policy", "check", "billing.yaml", "sub/wrong.yaml", cwd=folder)
    assert done.returncode == 1
    assert done.stdout.startswith("billing.yaml: policy")
    assert "sub/wrong.yaml:2: " in done.stderr
    assert "sub/wrong.yaml:7: " in done.stderr
    assert "Traceback" not in done.stderr


def test_a_file_that_is_not_there_is_a_mistake_not_a_crash(folder: Path) -> None:
    done = authz("policy", "check", "absent.yaml", cwd=folder)
    assert done.returncode == 1
    assert done.stderr == "absent.yaml: cannot be read: No such file or directory\n"


def test_a_long_mistake_is_not_folded_into_several_lines(folder: Path) -> None:
    (folder / "long.yaml").write_text(POLICY.replace("invoice:read", "x" * 150 + "?", 1))
    done = authz("policy", "check", "long.yaml", cwd=folder)
    assert done.returncode == 1
    assert all(line.startswith("long.yaml:") for line in done.stderr.splitlines())


def test_what_looks_like_markup_is_printed_as_it_is(folder: Path) -> None:
    (folder / "[bold]x[bold].yaml").write_text(WRONG_POLICY)
    done = authz("policy", "check", "[bold]x[bold].yaml", cwd=folder)
    assert "[bold]x[bold].yaml:2: " in done.stderr


def test_the_cases_of_a_policy_are_run_and_counted(folder: Path) -> None:
    done = authz("policy", "test", "billing.yaml", cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "pass: a reader may read\npass: nobody else may\n2 tests, 2 passed, 0 failed\n"


def test_a_case_that_fails_names_its_line_and_ends_with_status_1(folder: Path) -> None:
    done = authz("policy", "test", "failing.yaml", cwd=folder)
    assert done.returncode == 1
    assert done.stdout == "pass: a reader may read\nFAIL: nobody else may\n2 tests, 1 passed, 1 failed\n"
    assert done.stderr.startswith("failing.yaml:14: test 'nobody else may': expected permit, got deny")


def test_a_policy_without_cases_is_told_so(folder: Path) -> None:
    (folder / "bare.yaml").write_text(POLICY.partition("tests:")[0])
    done = authz("policy", "test", "bare.yaml", cwd=folder)
    assert done.returncode == 0
    assert "has no tests" in done.stderr


def test_the_cases_of_a_policy_that_cannot_be_used_are_not_run(folder: Path) -> None:
    done = authz("policy", "test", "wrong.yaml", cwd=folder)
    assert (done.returncode, done.stdout) == (1, "")
    assert "wrong.yaml:2: " in done.stderr


def test_the_policy_schema_is_a_json_schema(folder: Path) -> None:
    done = authz("policy", "schema", cwd=folder)
    jsonschema.Draft202012Validator.check_schema(json.loads(done.stdout))
    assert json.loads(done.stdout)["title"].startswith("Policy")


@pytest.mark.capability("C41")
def test_the_record_schema_that_is_printed_fits_the_records_that_are_written(folder: Path) -> None:
    done = authz("record", "schema", cwd=folder)
    sink = Memory()
    log = recorder(sink)
    log.submit(question(), question().facts, PERMIT)
    log.close()
    jsonschema.validate(json.loads(sink.lines[0]), json.loads(done.stdout))


def test_usable_settings_are_shown(folder: Path) -> None:
    done = authz("settings", "check", "authz.toml", cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert "billing in production, mode enforce" in done.stdout
    assert "https://idp.example.com/ for billing-api" in done.stdout
    assert "cached for invoice:export" in done.stdout
    assert not (folder / "decisions.jsonl").exists()


def test_every_mistake_of_the_settings_is_reported_with_its_path(folder: Path) -> None:
    (folder / "authz.toml").write_text(SETTINGS.replace('"ES256"', '"none"').replace("name =", "nmae ="))
    done = authz("settings", "check", "authz.toml", cwd=folder)
    assert done.returncode == 1
    assert "app.nmae: " in done.stderr
    assert "issuers[0].algorithms: " in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["policy", "check"],
        ["serve"],
        ["no-such"],
        ["serve", "--policy", "x", "--port", "0"],
        ["policy", "check", "--x"],
    ],
)
def test_a_command_that_is_called_wrongly_is_explained_with_status_2(folder: Path, arguments: list[str]) -> None:
    done = authz(*arguments, cwd=folder)
    assert done.returncode == 2
    assert "Usage" in done.stderr
    assert "Traceback" not in done.stderr


BLOCKED = "import sys; sys.modules[{name!r}] = None; from authz_middleware.cli import main; main()"


@pytest.mark.parametrize(
    ("name", "arguments", "extra"), [("typer", ["version"], "cli"), ("rich", ["version"], "cli"),
                                     ("uvicorn", ["serve", "--policy", "billing.yaml"], "server")]
)  # fmt: skip
def test_a_part_that_is_not_installed_is_named_in_one_line(
    folder: Path, name: str, arguments: list[str], extra: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED.format(name=name), *arguments],
        cwd=folder, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert f"install authz-middleware[{extra}]" in done.stderr


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("authz_middleware.record.schema", ["version"]),
        ("authz_middleware.server.app", ["serve", "--policy", "billing.yaml"]),
    ],
)
def test_a_part_that_is_broken_is_not_taken_for_one_that_is_missing(
    folder: Path, name: str, arguments: list[str]
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED.format(name=name), *arguments],
        cwd=folder, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert name in done.stderr


# ---- serving


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ask(port: int, scopes: list[str]) -> bool:
    body = {
        "subject": {"type": "human", "id": "alice", "properties": {"scopes": scopes}},
        "action": {"name": "invoice:read"},
        "resource": {"type": "invoice", "id": "42"},
    }
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/access/v1/evaluation",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=5) as response:
        return bool(json.load(response)["decision"])


@pytest.mark.capability("C29")
def test_serve_decides_by_the_policy_until_it_is_told_to_stop(folder: Path) -> None:
    port = free_port()
    server = subprocess.Popen(
        [str(AUTHZ), "serve", "--policy", "billing.yaml", "--port", str(port)],
        cwd=folder, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert server.stderr is not None
        assert server.stderr.readline() == f"authz serve: billing.yaml on http://127.0.0.1:{port}\n"
        deadline = time.monotonic() + 20
        while True:
            try:
                assert ask(port, ["invoices.read"]) is True
                break
            except OSError:
                assert server.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
        assert ask(port, []) is False
    finally:
        server.send_signal(signal.SIGTERM)
        _, rest = server.communicate(timeout=20)
    assert "Traceback" not in rest


def test_serve_with_a_policy_that_cannot_be_used_does_not_start(folder: Path) -> None:
    done = authz("serve", "--policy", "wrong.yaml", "--port", str(free_port()), cwd=folder)
    assert done.returncode == 1
    assert "wrong.yaml:2: " in done.stderr
    assert "Traceback" not in done.stderr


def test_serve_where_others_could_reach_it_has_to_be_meant(folder: Path) -> None:
    done = authz("serve", "--policy", "billing.yaml", "--host", "0.0.0.0", "--port", str(free_port()), cwd=folder)
    assert done.returncode == 1
    assert "authenticates nobody" in done.stderr


def test_serve_on_a_port_that_is_taken_says_so(folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = authz("serve", "--policy", "billing.yaml", "--port", port, cwd=folder)
    assert done.returncode != 0
    assert "address already in use" in done.stderr
    assert "Traceback" not in done.stderr
    assert os.linesep in done.stderr
