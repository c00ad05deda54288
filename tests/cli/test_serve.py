"""`authz serve`: what it is called with, and what it says to a person who calls it wrongly."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.refunds import POLICY

AUTHZ = Path(sys.executable).with_name("authz")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "policy.yaml").write_text(POLICY)
    (tmp_path / "pdp.toml").write_text('[server]\nport = 70000\nreload = true\n[policy]\nsource = "policy.yaml"\n')
    policy = '[policy]\nsource = "policy.yaml"\nallow_unsigned = true\n'
    host = '[server]\nhost = "a..b"\nbase_url = "https://pdp.test"\nplain_http = true\n[callers]\nanyone = true\n'
    (tmp_path / "host.toml").write_text(policy + host)
    (tmp_path / "number.toml").write_text(policy + f"[server]\nport = {'9' * 9999}\n")
    (tmp_path / "misplaced.toml").write_text(policy + '[callers.tokens]\na = { value = "s3cr3t" }\n')
    os.mkfifo(tmp_path / "pipe")
    return tmp_path


def serve(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(AUTHZ), "serve", *arguments], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((), "--policy"),
        (("--config", "pdp.toml", "--policy", "policy.yaml"), "--policy"),
        (("--config", "pdp.toml", "--port", "8181", "--workers", "2"), "--workers"),
        (("--policy", "policy.yaml", "--workers", "0"), "--workers"),
    ],
)
def test_a_call_that_contradicts_itself_is_explained(folder: Path, arguments: tuple[str, ...], named: str) -> None:
    done = serve(folder, *arguments)
    assert done.returncode == 2
    assert named in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--config", "pdp.toml"), ["server.port", "server.reload", "policy.allow_unsigned"]),
        (("--config", "absent.toml"), ["absent.toml"]),
        (("--policy", "policy.yaml", "--host", "0.0.0.0"), ["server.base_url", "callers", "--allow-remote"]),
        (("--policy", "policy.yaml", "--token-file", "absent"), ["absent", "cannot be read"]),
        (("--policy", "policy.yaml", "--decision-log", "file:absent/log"), ["decision_log.sink"]),
        (("--policy", "policy.yaml", "--decision-log", "syslog"), ["decision_log.sink"]),
        (("--policy", "policy.yaml", "--token-file", "pipe"), ["callers.tokens.caller", "no regular file"]),
        (("--config", "host.toml"), ["cannot listen on a..b", "this is no host name"]),
        (("--config", "number.toml"), ["number.toml", "is not TOML"]),
        (("--config", "misplaced.toml"), ["callers.tokens.a: must be a non-empty string, not of type dict"]),
        (("--policy", "policy.yaml", "--workers", "2", "--token-file", "policy.yaml"), ["one token a line"]),
    ],
)
def test_every_mistake_is_said_at_once_and_without_a_traceback(
    folder: Path, arguments: tuple[str, ...], said: list[str]
) -> None:
    done = serve(folder, *arguments)
    assert done.returncode == 1
    assert all(text in done.stderr for text in said), done.stderr
    assert "Traceback" not in done.stderr
    assert "s3cr3t" not in done.stderr + done.stdout
