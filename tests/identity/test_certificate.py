"""Client certificates: tokens bound to them, workloads known by them, and every other certificate refused."""

from __future__ import annotations

import base64
import hashlib
import math
import subprocess
from pathlib import Path
from typing import Any

import pytest

from authz_middleware.errors import SettingsError
from authz_middleware.identity.connection.certificate import (
    CertificateIdentities,
    check_bound,
    thumbprint_of,
    validity_of,
)
from authz_middleware.identity.problem import CredentialDetail, TokenRefusedError
from authz_middleware.settings import CertificateSettings, Settings
from tests.support.certificates import DAY, Authority

pytestmark = [pytest.mark.capability("C19"), pytest.mark.promise("P3")]

AUTHORITY = Authority()
RUNNER = AUTHORITY.issue("batch-runner")
OTHER = AUTHORITY.issue("batch-runner")
NOW = RUNNER.begins + DAY

ENTRY = {"subject": "batch-runner", "environment": "production", "owner": "ops@example.com"}


def settings_of(**tables: Any) -> Settings:
    return Settings.from_mapping(
        {
            "app": {"name": "billing", "environment": "production"},
            "policy": {"source": "billing.yaml", "allow_unsigned": True},
            "decision_log": {"sink": "stdout"},
            **tables,
        }
    )


def identities(**entries: dict[str, Any]) -> CertificateIdentities:
    return CertificateIdentities(settings_of(certificates=entries).certificates)


def refusal(act: Any) -> CredentialDetail:
    with pytest.raises(TokenRefusedError) as caught:
        act()
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return caught.value.detail


def test_a_thumbprint_is_what_openssl_computes(tmp_path: Path) -> None:
    certificate, _ = RUNNER.save(tmp_path, "runner")
    command = ["openssl", "x509", "-in", str(certificate), "-noout", "-fingerprint", "-sha256"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    digest = bytes.fromhex(printed.strip().partition("=")[2].replace(":", ""))
    assert thumbprint_of(RUNNER.der) == base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    assert len(thumbprint_of(RUNNER.der)) == 43


def test_a_token_is_bound_to_the_one_certificate_of_its_thumbprint() -> None:
    check_bound(thumbprint_of(RUNNER.der), RUNNER.der)


def _twin(thumbprint: str) -> str:
    """Another spelling of the same digest: the last character has two bits that mean nothing."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    twin = thumbprint[:-1] + alphabet[alphabet.index(thumbprint[-1]) ^ 1]
    assert base64.urlsafe_b64decode(f"{twin}=") == base64.urlsafe_b64decode(f"{thumbprint}=")
    return twin


GOOD = thumbprint_of(RUNNER.der)


@pytest.mark.parametrize(
    ("x5t", "certificate", "detail"),
    [
        (GOOD, None, CredentialDetail.CERTIFICATE_MISSING),
        ("", None, CredentialDetail.CERTIFICATE_MISSING),
        (None, None, CredentialDetail.CERTIFICATE_MISSING),
        (GOOD, OTHER.der, CredentialDetail.CERTIFICATE_MISMATCH),
        (GOOD, b"", CredentialDetail.CERTIFICATE_MISMATCH),
        (GOOD, RUNNER.der + b"\0", CredentialDetail.CERTIFICATE_MISMATCH),
        (GOOD + "=", RUNNER.der, CredentialDetail.CERTIFICATE_MISMATCH),
        (GOOD[:-1], RUNNER.der, CredentialDetail.CERTIFICATE_MISMATCH),
        (_twin(GOOD), RUNNER.der, CredentialDetail.CERTIFICATE_MISMATCH),
        (GOOD.swapcase(), RUNNER.der, CredentialDetail.CERTIFICATE_MISMATCH),
        (f" {GOOD}", RUNNER.der, CredentialDetail.CERTIFICATE_MISMATCH),
        (hashlib.sha256(RUNNER.der).hexdigest(), RUNNER.der, CredentialDetail.CERTIFICATE_MISMATCH),
        (hashlib.sha1(RUNNER.der).hexdigest(), RUNNER.der, CredentialDetail.CERTIFICATE_MISMATCH),
        ("", RUNNER.der, CredentialDetail.CERTIFICATE_MISMATCH),
        ("é" * 43, RUNNER.der, CredentialDetail.CERTIFICATE_MISMATCH),
        ("\ud800" * 43, RUNNER.der, CredentialDetail.CERTIFICATE_MISMATCH),
        (None, RUNNER.der, CredentialDetail.CERTIFICATE_MISMATCH),
        (True, RUNNER.der, CredentialDetail.CERTIFICATE_MISMATCH),
        ([GOOD], RUNNER.der, CredentialDetail.CERTIFICATE_MISMATCH),
        ({"x5t#S256": GOOD}, RUNNER.der, CredentialDetail.CERTIFICATE_MISMATCH),
        (GOOD.encode(), RUNNER.der, CredentialDetail.CERTIFICATE_MISMATCH),
    ],
)
def test_a_bound_token_is_refused_without_its_certificate(
    x5t: object, certificate: bytes | None, detail: CredentialDetail
) -> None:
    assert refusal(lambda: check_bound(x5t, certificate)) is detail


@pytest.mark.capability("C13")
def test_a_certificate_of_the_settings_is_its_workload() -> None:
    known = identities(
        **{GOOD: {**ENTRY, "scopes": ["invoices.read"], "roles": ["runner"], "tenant": "acme", "kind": "agent"}}
    )
    principal = known.principal_of(RUNNER.der, NOW)
    assert (principal.issuer, principal.subject, principal.environment) == ("x509", "batch-runner", "production")
    assert (principal.kind, principal.subject_kind, principal.tenant) == ("agent", "agent", "acme")
    assert (principal.scopes, principal.roles) == (frozenset({"invoices.read"}), frozenset({"runner"}))
    assert (principal.issued_at, principal.expires_at) == (RUNNER.begins, RUNNER.ends)
    assert principal.claims["owner"] == "ops@example.com"
    assert principal.is_accountable, "one certificate of a shared subject can be told from another"
    assert principal.token_id == GOOD


def test_a_certificate_is_a_workload_and_nothing_more_unless_the_settings_say_so() -> None:
    principal = identities(**{GOOD: ENTRY}).principal_of(RUNNER.der, NOW)
    assert (principal.kind, principal.tenant) == ("workload", None)
    assert not principal.scopes | principal.roles


def test_several_certificates_of_one_subject_are_rotated() -> None:
    known = identities(**{GOOD: ENTRY, thumbprint_of(OTHER.der): ENTRY})
    old, new = known.principal_of(RUNNER.der, NOW), known.principal_of(OTHER.der, NOW)
    assert old.subject == new.subject
    assert old.token_id != new.token_id


def test_a_certificate_of_the_same_name_and_authority_is_not_known() -> None:
    known = identities(**{GOOD: ENTRY})
    assert refusal(lambda: known.principal_of(OTHER.der, NOW)) is CredentialDetail.CERTIFICATE_UNKNOWN


def test_a_certificate_holds_from_its_beginning_until_before_its_end() -> None:
    known = identities(**{GOOD: ENTRY})
    for now in (RUNNER.begins, RUNNER.ends - 0.001):
        assert known.principal_of(RUNNER.der, now).expires_at == RUNNER.ends
    for now, detail in (
        (RUNNER.begins - 0.001, CredentialDetail.CERTIFICATE_NOT_YET_VALID),
        (RUNNER.ends, CredentialDetail.CERTIFICATE_EXPIRED),
        (RUNNER.ends + DAY, CredentialDetail.CERTIFICATE_EXPIRED),
        (math.nan, CredentialDetail.CERTIFICATE_EXPIRED),
    ):
        assert refusal(lambda now=now: known.principal_of(RUNNER.der, now)) is detail


@pytest.mark.parametrize("later", [False, True])
def test_an_entry_ends_at_its_own_end_or_at_that_of_its_certificate(later: bool) -> None:
    from datetime import UTC, datetime

    end = datetime.fromtimestamp(RUNNER.ends + (DAY if later else -DAY / 2), UTC)
    known = identities(**{GOOD: {**ENTRY, "not_after": end}})
    ends = RUNNER.ends if later else end.timestamp()
    assert known.principal_of(RUNNER.der, ends - 1).expires_at == ends
    assert refusal(lambda: known.principal_of(RUNNER.der, ends)) is CredentialDetail.CERTIFICATE_EXPIRED


MALFORMED = {
    "nothing": b"",
    "junk": b"certificate",
    "an open sequence": b"\x30\x82\xff\xff",
    "cut off": RUNNER.der[:-1],
    "more behind it": RUNNER.der + b"\0",
    "two": RUNNER.der + OTHER.der,
    "PEM": RUNNER.pem.encode(),
    "too long": AUTHORITY.issue("long", bulk=16384).der,
    "an authority": AUTHORITY.root.der,
}


@pytest.mark.parametrize("der", MALFORMED.values(), ids=MALFORMED)
def test_what_is_not_one_leaf_certificate_is_nobody_even_when_the_settings_name_it(der: bytes) -> None:
    known = identities(**{thumbprint_of(der): ENTRY})
    assert refusal(lambda: known.principal_of(der, NOW)) is CredentialDetail.CERTIFICATE_MALFORMED
    assert refusal(lambda: validity_of(der)) is CredentialDetail.CERTIFICATE_MALFORMED


def test_a_certificate_that_claims_no_authority_has_none() -> None:
    silent = AUTHORITY.issue("silent", ca=None)
    assert validity_of(silent.der) == (silent.begins, silent.ends)


def test_a_thumbprint_may_be_written_as_openssl_prints_it() -> None:
    digest = hashlib.sha256(RUNNER.der).hexdigest()
    colons = ":".join(digest.upper()[i : i + 2] for i in range(0, 64, 2))
    for name in (GOOD, digest, digest.upper(), colons):
        assert list(settings_of(certificates={name: ENTRY}).certificates) == [GOOD]


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("runner", {}, "must be the SHA-256 of a certificate in DER"),
        (_twin(GOOD), {}, "must be the SHA-256"),
        (GOOD + "=", {}, "must be the SHA-256"),
        (GOOD[:-1], {}, "must be the SHA-256"),
        (hashlib.sha1(RUNNER.der).hexdigest(), {}, "must be the SHA-256"),
        (f"{hashlib.sha256(RUNNER.der).hexdigest()}:", {}, "must be the SHA-256"),
        (GOOD, {"owner": ...}, ".owner: is required"),
        (GOOD, {"environment": ...}, ".environment: is required"),
        (GOOD, {"subject": ...}, ".subject: is required"),
        (GOOD, {"kind": "robot"}, '.kind: must be one of "human", "workload", "agent"'),
        (GOOD, {"scope": "a"}, ".scope: is not a known key"),
        (GOOD, {"not_after": "2027-01-31"}, ".not_after: must be a date and time with its offset"),
        (GOOD, {"not_after": "2027-01-31T12:00:00"}, ".not_after: must be a date and time with its offset"),
        (GOOD, {"not_after": 1_800_000_000}, ".not_after: must be a date and time with its offset"),
    ],
)
def test_a_mistake_in_the_table_is_named(name: str, changes: dict[str, Any], said: str) -> None:
    entry = {key: value for key, value in {**ENTRY, **changes}.items() if value is not ...}
    with pytest.raises(SettingsError) as caught:
        settings_of(certificates={name: entry})
    assert len(caught.value.problems) == 1
    assert said in str(caught.value)


def test_one_certificate_has_one_entry_however_it_is_written() -> None:
    with pytest.raises(SettingsError, match="is the same certificate as another entry"):
        settings_of(certificates={GOOD: ENTRY, hashlib.sha256(RUNNER.der).hexdigest(): ENTRY})


def test_an_entry_is_read_from_toml_with_a_date_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "authz.toml"
    path.write_text(
        f"""
        app = {{name = "a", environment = "production"}}
        policy = {{source = "p.yaml", allow_unsigned = true}}
        decision_log = {{sink = "stdout"}}
        [certificates."{GOOD}"]
        subject = "batch-runner"
        environment = "production"
        owner = "ops@example.com"
        not_after = 2027-01-31T12:00:00Z
        """
    )
    assert Settings.of(path).certificates == {
        GOOD: CertificateSettings(
            subject="batch-runner", environment="production", owner="ops@example.com", not_after=1801396800.0
        )
    }
