"""`authz settings check` on the credential for the decision point: what is told, and with which exit status."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

pytestmark = pytest.mark.capability("C43")

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
"""
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
[decision_log]
sink = "stdout"
[remote]
url = "https://pdp.example.com"
"""
CLIENT_CREDENTIALS = """\
[remote.credential.client_credentials]
token_endpoint = "https://idp.example.com/token"
issuer = "https://idp.example.com/"
client_id = "billing-pep"
private_key = { file = "pep.pem" }
"""
CANARY = "s3cret-canary-41c0"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "billing.yaml").write_text(POLICY)
    return tmp_path


def check(folder: Path, credential: str) -> subprocess.CompletedProcess[str]:
    (folder / "authz.toml").write_text(SETTINGS + credential)
    done = subprocess.run(
        [str(Path(sys.executable).with_name("authz")), "settings", "check", "authz.toml"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=folder,
        env={**os.environ, "PDP_TOKEN": CANARY},
    )
    assert CANARY not in done.stdout + done.stderr
    return done


def static(ahead: int) -> str:
    day = datetime.now(UTC).date() + timedelta(days=ahead)
    return f'[remote.credential]\ntoken = {{ env = "PDP_TOKEN" }}\nowner = "sre@example.com"\nrotate_by = {day}\n'


def test_a_secret_is_shown_with_its_day_and_its_owner(folder: Path) -> None:
    done = check(folder, static(30))
    assert (done.returncode, done.stderr) == (0, "")
    assert "secret in environment variable PDP_TOKEN, to be replaced by" in done.stdout
    assert "(owner: sre@example.com)" in done.stdout


@pytest.mark.parametrize("ahead", [1, 6])
def test_from_a_week_before_its_day_there_is_a_warning(folder: Path, ahead: int) -> None:
    done = check(folder, static(ahead))
    assert done.returncode == 0
    assert done.stderr.startswith("warning: the decision point's secret in environment variable PDP_TOKEN must be")


@pytest.mark.parametrize("ahead", [-2, 400])
def test_past_its_day_and_without_one_in_sight_the_settings_cannot_be_used(folder: Path, ahead: int) -> None:
    done = check(folder, static(ahead))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("remote.credential.rotate_by: ")


def test_a_token_file_that_nobody_replaces_is_a_warning(folder: Path) -> None:
    (folder / "token").write_text(CANARY)
    credential = 'credential = { token_file = "token" }\n'
    assert check(folder, credential).stderr == ""
    os.utime(folder / "token", (time.time(), time.time() - 90 * 86_400))
    done = check(folder, credential)
    assert done.returncode == 0
    assert "has not been replaced for 90 days" in done.stderr


@pytest.mark.parametrize(
    ("credential", "shown"),
    [
        ("", "asked without a token"),
        ('credential = { token_file = "/run/secrets/pdp" }\n', "token in /run/secrets/pdp"),
        (CLIENT_CREDENTIALS, "token for billing-pep from https://idp.example.com/token"),
    ],
)
def test_what_the_decision_point_knows_us_by_is_shown(folder: Path, credential: str, shown: str) -> None:
    done = check(folder, credential)
    assert (done.returncode, done.stderr) == (0, "")
    assert shown in done.stdout
