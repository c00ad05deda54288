"""Commands about revocations with values that should break them, or have them say "revoked" when nothing is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from authz_middleware.identity.connection.certificate import X509_ISSUER
from authz_middleware.identity.principal import Principal
from authz_middleware.revocation.entry import LAST_MOMENT, RevocationError, Scope, new_revocation
from authz_middleware.revocation.index import RevocationIndex
from authz_middleware.revocation.sqlite import SqliteStore
from tests.support.revocations import NOW

WHY: Final = ("--reason", "drill", "--owner", "security@example.com")
AUTHZ: Final = Path(sys.executable).with_name("authz")
WORKLOADS: Final = """\
[app]
name = "billing"
environment = "production"
[[issuers]]
issuer = "https://idp.example.com/"
audience = ["billing-api"]
jwks_uri = "https://idp.example.com/jwks"
algorithms = ["ES256"]
[[trust_domains]]
name = "prod.example"
paths = ["/billing/*"]
x509 = true
[certificates."LXEWQrcmsEQBYnyp-6wy9chTD7GQPMTbAiWHF5IaSIE"]
subject = "batch"
kind = "workload"
owner = "platform"
environment = "production"
[proxies]
trusted = ["127.0.0.1"]
client_certificate = { header = "x-client-cert", format = "pem-escaped" }
[policy]
source = "billing.yaml"
allow_unsigned = true
[decision_log]
sink = "file:decisions.jsonl"
[revocations]
store = "file:revocations.db"
[revocations.on_unavailable]
default = "deny"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    SqliteStore(tmp_path / "revocations.db").start()
    (tmp_path / "authz.toml").write_text(WORKLOADS)
    return tmp_path


def _authz(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(AUTHZ), *arguments], cwd=folder, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    "when",
    [
        ("--for", "99999999d"),
        ("--until", "9999-12-31T23:59-23:59"),
        ("--before", "0001-01-01T00:00+23:59"),
        ("--before", "1901-01-01T00:00Z"),
    ],
)
def test_a_time_that_nobody_can_show_revokes_nothing_and_is_explained(folder: Path, when: tuple[str, str]) -> None:
    done = _authz(folder, "revoke", "actor", "agent-7", *WHY, *when, "--file", "revocations.db")
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert SqliteStore(folder / "revocations.db").entries() == []


@pytest.mark.parametrize("moment", [LAST_MOMENT + 1, 1e15, 1e300, -1.0])
@pytest.mark.parametrize("name", ["expires_at", "issued_before"])
def test_no_revocation_has_a_time_that_would_stop_everybody_from_listing_them(name: str, moment: float) -> None:
    times: dict[str, Any] = {"issued_before": None, "expires_at": None, name: moment}
    with pytest.raises(RevocationError):
        new_revocation(Scope.ACTOR, value="agent-7", reason="drill", owner="security", source="api", now=NOW, **times)


@pytest.mark.capability("C51")
@pytest.mark.parametrize(
    ("issuer", "subject"),
    [("spiffe://prod.example", "spiffe://prod.example/billing/worker"), (X509_ISSUER, "batch")],
)
def test_a_workload_that_no_token_issuer_vouches_for_can_be_revoked(folder: Path, issuer: str, subject: str) -> None:
    done = _authz(folder, "revoke", "subject", subject, "--issuer", issuer, *WHY)
    assert (done.returncode, done.stderr) == (0, "")
    index = RevocationIndex(SqliteStore(folder / "revocations.db").entries())
    caller = Principal(issuer=issuer, subject=subject, kind="workload", subject_kind="workload", issued_at=NOW)
    assert index.find(caller, NOW) is not None
