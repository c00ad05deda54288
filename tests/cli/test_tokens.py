"""`authz token inspect` as a person runs it: what it says, what it never says, and how it ends."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from authz_middleware.cli.commands import app
from authz_middleware.cli.token_advice import advice_for
from authz_middleware.identity.inspection import Check, Outcome
from authz_middleware.identity.problem import CredentialDetail
from tests.support.tokens import Issuer, base64url

AUTHZ = Path(sys.executable).with_name("authz")
ISSUER = Issuer()
AT = "2025-06-15T15:06:40Z"
NOW = 1_750_000_000.0

SETTINGS = """\
[app]
name = "billing"
environment = "production"
[[issuers]]
issuer = "https://issuer.example/"
audience = ["billing-api"]
algorithms = ["ES256"]
{keys}
[policy]
source = "billing.yaml"
allow_unsigned = true
[decision_log]
sink = "stdout"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "jwks.json").write_text(json.dumps(ISSUER.jwks()))
    (tmp_path / "authz.toml").write_text(SETTINGS.format(keys='jwks_file = "jwks.json"'))
    (tmp_path / "remote.toml").write_text(SETTINGS.format(keys='jwks_uri = "https://issuer.example/jwks"'))
    return tmp_path


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


def authz(folder: Path, *arguments: str, stdin: str = "") -> Done:
    """The command within this process, started in `folder`."""
    with contextlib.chdir(folder):
        result = CliRunner().invoke(app, ["token", "inspect", *arguments], input=stdin)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return Done(result.exit_code, result.stdout, result.stderr)


def process(folder: Path, *arguments: str, stdin: str, **environment: str) -> Done:
    """The console script in a process of its own."""
    done = subprocess.run(
        [str(AUTHZ), "token", "inspect", *arguments],
        cwd=folder, input=stdin.encode(), capture_output=True, timeout=60, check=False,
        env={**os.environ, **environment},
    )  # fmt: skip
    return Done(done.returncode, done.stdout.decode(), done.stderr.decode())


def assert_silent_about(token: str, done: Done) -> None:
    said = done.stdout + done.stderr
    assert "Traceback" not in said
    assert not any(part in said for part in token.split(".") if len(part) > 8)


def test_a_good_token_is_accepted_with_status_0(folder: Path) -> None:
    token = ISSUER.mint(now=NOW, act={"sub": "bot", "act": {"sub": "planner"}}, kind="human")
    done = process(folder, "--at", AT, stdin=f"{token}\n")
    assert (done.returncode, done.stderr) == (0, "")
    assert "accepted: unless it has been revoked" in done.stdout
    assert "exp        2025-06-15T15:11:40+00:00 (5 minutes ahead)" in done.stdout
    assert "act        bot < planner" in done.stdout
    assert "scopes     invoices.read" in done.stdout
    assert "REFUSED" not in done.stdout.upper().replace("ACCEPTED", "")
    assert_silent_about(token, done)


def test_everything_wrong_is_explained_with_how_to_mend_it_and_status_1(folder: Path) -> None:
    stranger = Issuer(kid=ISSUER.kid)
    token = stranger.mint(now=NOW, aud="payroll", exp=NOW + 86_400, header={"typ": "JWT", "jku": "https://thief/"})
    done = authz(folder, "--at", AT, stdin=token)
    assert done.returncode == 1
    for said in (
        "refused: token.type, token.signature, token.lifetime, token.audience",
        "jku (never used)",
        "max_lifetime (900 s)",
        "aud has none of billing-api",
        "add its typ to 'token_types'",
        "24 hours ahead",
    ):
        assert said in done.stdout
    assert_silent_about(token, done)


def test_a_token_in_a_file_and_with_the_scheme_before_it(folder: Path) -> None:
    token = ISSUER.mint(now=NOW)
    (folder / "token.a.b").write_text(f"Authorization: Bearer {token}\n")
    done = authz(folder, "--at", AT, "token.a.b")
    assert done.returncode == 0
    assert_silent_about(token, done)


def test_without_at_the_clock_on_the_wall_counts(folder: Path) -> None:
    assert authz(folder, stdin=ISSUER.mint()).returncode == 0
    old = authz(folder, stdin=ISSUER.mint(now=time.time() - 1000))
    assert old.returncode == 1
    assert "token.expired" in old.stdout


def test_what_a_token_says_cannot_command_the_terminal(folder: Path) -> None:
    token = ISSUER.mint(
        now=NOW, sub="a\x1b[2Jb", aud=["x\u202e"], act={"sub": "[bold]x[/bold]\n"}, header={"kid": "\x1b]0;x\x07"}
    )
    done = authz(folder, "--at", AT, stdin=token)
    assert done.returncode == 1
    assert r"a\x1b[2Jb" in done.stdout
    assert r"x\u202e" in done.stdout
    assert r"[bold]x[/bold]\n" in done.stdout
    assert not any(character in done.stdout for character in "\x1b\x07\u202e")


def test_values_that_policies_do_not_need_are_named_and_not_shown(folder: Path) -> None:
    token = ISSUER.mint(now=NOW, email="alice@example.com", cnf={"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"})
    done = authz(folder, "--at", AT, stdin=token)
    assert done.returncode == 0
    assert "together with a proof of possession" in done.stdout
    assert "cnf        jkt" in done.stdout
    assert "others     email" in done.stdout
    assert "alice@example.com" not in done.stdout
    assert "0ZcOCORZNYy" not in done.stdout


def test_keys_behind_an_address_are_not_fetched_and_leave_the_question_open(folder: Path) -> None:
    token = Issuer(kid=ISSUER.kid).mint(now=NOW)
    done = authz(folder, "--at", AT, "--settings", "remote.toml", stdin=token)
    assert done.returncode == 1
    assert "undecided" in done.stdout
    assert "nothing is fetched here" in done.stdout
    with_keys = authz(folder, "--at", AT, "--settings", "remote.toml", "--jwks", "jwks.json", stdin=token)
    assert with_keys.returncode == 1
    assert "refused: token.signature" in with_keys.stdout
    good = authz(folder, "--at", AT, "--settings", "remote.toml", "--jwks", "jwks.json", stdin=ISSUER.mint(now=NOW))
    assert good.returncode == 0


def test_a_key_set_that_cannot_be_used_is_explained(folder: Path) -> None:
    (folder / "jwks.json").unlink()
    done = authz(folder, "--at", AT, stdin=ISSUER.mint(now=NOW))
    assert done.returncode == 1
    assert "keys.unavailable" in done.stdout
    assert "jwks.json: No such file or directory" in done.stdout


@pytest.mark.promise("P6")
@pytest.mark.parametrize("before", [[], ["Bearer"], ["Authorization: Bearer"], ["--at", AT], ["one", "two"]])
def test_a_token_on_the_command_line_is_refused_and_not_repeated(folder: Path, before: list[str]) -> None:
    token = ISSUER.mint()
    done = authz(folder, *before, token)
    assert done.returncode == 2
    assert "shell" in done.stderr
    assert_silent_about(token, done)


@pytest.mark.parametrize(
    "arguments",
    [
        ["absent"],
        ["one", "two"],
        ["--at", "tomorrow"],
        ["--at", "2025-06-15T15:06:40"],
        ["--jwks", "absent"],
        ["x" * 5000],
        ["--nonsense"],
        ["."],
    ],
    ids=lambda arguments: " ".join(arguments)[:30],
)
def test_a_wrong_call_ends_with_status_2(folder: Path, arguments: list[str]) -> None:
    done = authz(folder, *arguments)
    assert done.returncode == 2
    assert "Usage" in done.stderr
    assert "Traceback" not in done.stderr


def test_closed_standard_input_is_a_wrong_call(folder: Path) -> None:
    done = subprocess.run(
        f"{AUTHZ} token inspect <&-", shell=True, cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_settings_that_cannot_be_used_are_explained_with_status_1(folder: Path) -> None:
    (folder / "authz.toml").write_text("[app]\n")
    done = authz(folder, stdin=ISSUER.mint())
    assert done.returncode == 1
    assert "app.name: is required" in done.stderr


def test_a_terminal_that_cannot_show_a_letter_gets_its_number(folder: Path) -> None:
    done = process(folder, "--at", AT, stdin=ISSUER.mint(now=NOW, sub="Zo\u00eb"), PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert r"Zo\xeb" in done.stdout


# ---- whatever it is given


def texts() -> st.SearchStrategy[bytes]:
    return (
        st.binary(max_size=300)
        | st.builds(lambda a, b, c: b".".join([a, b, c]), st.binary(), st.binary(), st.binary())
        | st.builds(
            lambda header, payload: f"{base64url(json.dumps(header))}.{base64url(json.dumps(payload))}.AAAA".encode(),
            JSON_OBJECTS,
            JSON_OBJECTS,
        )
        | st.builds(lambda claims: ISSUER.mint(now=NOW, **claims).encode(), JSON_OBJECTS)
    )


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["sub", "act", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)
NAMES = st.sampled_from(
    ["alg", "typ", "kid", "iss", "sub", "aud", "exp", "iat", "nbf", "act", "cnf", "scope", "x", "auth_time"]
)
JSON_OBJECTS = st.dictionaries(NAMES, JSON_VALUES, max_size=5)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=texts())
def test_no_input_makes_it_stumble(folder: Path, data: bytes) -> None:
    done = CliRunner().invoke(
        app, ["token", "inspect", "--at", AT, "--settings", str(folder / "authz.toml")], input=data
    )
    assert done.exception is None or isinstance(done.exception, SystemExit)
    assert done.exit_code in (0, 1)
    assert not any(character in done.output for character in "\x1b\x07\x00\r\u202e")


# ---- advice


def reachable() -> Iterator[CredentialDetail]:
    """What the checks of a signed token can answer."""
    for detail in CredentialDetail:
        if detail.value.startswith("token.") and detail is not CredentialDetail.INACTIVE:
            yield detail
    yield CredentialDetail.KEYS_UNAVAILABLE


@pytest.mark.parametrize("detail", list(reachable()))
def test_every_refusal_comes_with_advice(detail: CredentialDetail) -> None:
    said = advice_for(Check("x", Outcome.REFUSED, detail), None)
    assert len(said) > 20
