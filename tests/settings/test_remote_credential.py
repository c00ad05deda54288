"""`[remote.credential]`: one kind of credential, and no secret that nobody is about to replace."""

from __future__ import annotations

import tomllib
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from authz_middleware.errors import Problem
from authz_middleware.settings.remote.credential import (
    ClientCredentials,
    CredentialSettings,
    StaticToken,
    TokenFile,
    read_credential,
)
from authz_middleware.settings.remote.rotation import MAX_DAYS, day_of, rotation_problem, rotation_warning
from authz_middleware.settings.secret import MAX_SECRET, Secret, SecretUnavailableError
from authz_middleware.settings.section import Section

pytestmark = pytest.mark.capability("C43")

BASE = Path("/etc/billing")
LEAST = """
[credential.client_credentials]
token_endpoint = "https://idp.example.com/token"
issuer = "https://idp.example.com/"
client_id = "billing-pep"
private_key = { file = "pep.pem" }
"""


def read(text: str | dict[str, Any]) -> tuple[CredentialSettings | None, list[str]]:
    problems: list[Problem] = []
    values = tomllib.loads(text) if isinstance(text, str) else text
    credential = read_credential(Section(values, "remote", problems, BASE))
    return credential, [str(problem) for problem in problems]


def test_without_a_table_there_is_none() -> None:
    assert read("") == (None, [])


def test_a_token_file_is_taken_relative_to_the_settings() -> None:
    assert read('credential = { token_file = "pdp.token" }') == (TokenFile(BASE / "pdp.token"), [])


@pytest.mark.parametrize("day", ["2026-12-31", '"2026-12-31"'])
def test_a_secret_that_stays_names_its_owner_and_its_day(day: str) -> None:
    credential, problems = read(f'[credential]\ntoken = {{ env = "PDP_TOKEN" }}\nowner = "sre"\nrotate_by = {day}')
    assert (credential, problems) == (StaticToken(Secret(env="PDP_TOKEN"), "sre", date(2026, 12, 31)), [])


def test_client_credentials_have_safe_defaults() -> None:
    credential, problems = read(LEAST)
    assert not problems
    assert credential == ClientCredentials(
        token_endpoint="https://idp.example.com/token",
        issuer="https://idp.example.com/",
        client_id="billing-pep",
        private_key=Secret(file=BASE / "pep.pem"),
        algorithm="ES256",
        assertion_type="client-authentication+jwt",
        deadline=5.0,
    )


def test_client_credentials_may_say_more() -> None:
    more = """
algorithm = "PS256"
key_id = "pep-1"
assertion_type = "JWT"
scope = ["pdp.evaluate", "pdp.search"]
audience = "https://pdp.example.com"
resource = ["https://pdp.example.com/", "urn:example:pdp"]
ca_file = "ca.pem"
deadline = "2s"
"""
    credential, problems = read(LEAST + more)
    assert not problems
    assert isinstance(credential, ClientCredentials)
    assert (credential.algorithm, credential.key_id, credential.assertion_type) == ("PS256", "pep-1", "JWT")
    assert credential.scope == ("pdp.evaluate", "pdp.search")
    assert credential.resource == ("https://pdp.example.com/", "urn:example:pdp")
    assert (credential.ca_file, credential.deadline) == (BASE / "ca.pem", 2.0)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[credential]", "remote.credential: needs exactly one of token_file"),
        ('credential = "token"', "remote.credential: must be a table, not of type str"),
        ('[credential]\ntoken_file = "a"\ntoken = { env = "B" }', "remote.credential: needs exactly one of"),
        (f'[credential]\ntoken_file = "a"\n{LEAST}', "remote.credential: needs exactly one of"),
        ('[credential]\ntoken = "literal"', "remote.credential.token: must be { env = "),
        ('[credential]\ntoken = { env = "B" }', "remote.credential.owner: is required: a secret that stays needs"),
        ('[credential]\ntoken = { env = "B" }', "remote.credential.rotate_by: is required: the last day"),
        ('[credential]\ntoken = { env = "B" }\nowner = ""', "remote.credential.owner: must be a non-empty string"),
        ('[credential]\ntoken = { env = "B" }\nrotate_by = "soon"', "remote.credential.rotate_by: must be the last"),
        ('[credential]\ntoken = { env = "B" }\nrotate_by = 2026', "remote.credential.rotate_by: must be the last day"),
        ('[credential]\ntoken = { env = "B" }\nrotate_by = 2026-12-31T00:00:00Z', "rotate_by: must be the last day"),
        ('[credential]\ntoken_file = "a"\nowner = "sre"', "remote.credential.owner: is not a known key"),
        ('[credential]\ntoken_file = "a"\nrotate_by = 2026-12-31', "rotate_by: is not a known key"),
        ("[credential.client_credentials]", "client_credentials.token_endpoint: is required"),
        ("[credential.client_credentials]", "client_credentials.issuer: is required"),
        ("[credential.client_credentials]", "client_credentials.client_id: is required"),
        ("[credential.client_credentials]", "client_credentials.private_key: is required"),
        (LEAST.replace("https://idp.example.com/token", "http://idp.example.com/token"), "token_endpoint: must be an"),
        (LEAST.replace("https://idp.example.com/token", "https://u:p@idp.example.com/token"), "token_endpoint: must"),
        (LEAST.replace("https://idp.example.com/token", "https://idp.example.com/t?a=b"), "token_endpoint: must"),
        (LEAST.replace('issuer = "https:', 'issuer = "http:'), "issuer: must be an https URL"),
        (LEAST.replace("billing-pep", "b\u00fclling"), "client_id: must be 1 to 256 printable ASCII characters"),
        (LEAST.replace('{ file = "pep.pem" }', '"-----BEGIN PRIVATE KEY-----"'), "private_key: must be { env"),
        (f'{LEAST}algorithm = "HS256"', "algorithm: must be one of"),
        (f'{LEAST}algorithm = "none"', "algorithm: must be one of"),
        (f'{LEAST}assertion_type = "at+jwt"', "assertion_type: must be one of"),
        (f'{LEAST}client_secret = {{ env = "X" }}', "client_secret: is not a known key"),
        (f'{LEAST}scope = ["a b"]', "scope: must be a list of single scopes"),
        (f'{LEAST}resource = ["pdp"]', "resource: must be absolute URIs without fragment"),
        (f'{LEAST}resource = ["https://pdp#x"]', "resource: must be absolute URIs without fragment"),
        (f'{LEAST}resource = ["https://["]', "resource: must be absolute URIs without fragment"),
        (f'{LEAST}deadline = "31s"', "deadline: must be a duration"),
    ],
)
def test_a_mistake_is_named_with_its_place_and_what_is_accepted(text: str, said: str) -> None:
    _, problems = read(text)
    assert any(said in problem for problem in problems), problems


@pytest.mark.parametrize(
    "values",
    [
        "s3cr3t",
        {"token": "s3cr3t"},
        {"token": ["s3cr3t"]},
        {"token": {"value": "s3cr3t"}},
        {"token_file": {"value": "s3cr3t"}, "token": "s3cr3t"},
        {"client_credentials": "s3cr3t"},
        {"client_credentials": {"private_key": "s3cr3t", "client_id": "x"}},
        {"client_credentials": {"private_key": {"pem": "s3cr3t"}, "key_id": "s3cr3t\n"}},
    ],
)
def test_a_literal_secret_is_refused_without_being_shown(values: Any) -> None:
    credential, problems = read({"credential": values})
    assert credential is None
    assert problems
    assert "s3cr3t" not in "".join(problems)


TODAY = date(2026, 6, 1)


def static(rotate_by: date) -> StaticToken:
    return StaticToken(Secret(env="PDP_TOKEN"), "sre@example.com", rotate_by)


@pytest.mark.parametrize(
    ("day", "starts", "warns"),
    [
        (date(2026, 5, 31), False, True),
        (date(2026, 6, 1), True, True),
        (date(2026, 6, 8), True, True),
        (date(2026, 6, 9), True, False),
        (date(2027, 6, 2), True, False),
        (date(2027, 6, 3), False, False),
        (date(9999, 12, 31), False, False),
        (date(1, 1, 1), False, True),
    ],
)
def test_the_day_decides_whether_it_starts_and_whether_it_warns(day: date, starts: bool, warns: bool) -> None:
    assert (day - TODAY).days <= MAX_DAYS or not starts
    assert (rotation_problem(static(day), TODAY) is None) is starts
    assert (rotation_warning(static(day), TODAY) is not None) is warns


def test_who_has_to_do_what_by_when_is_said() -> None:
    problem = rotation_problem(static(date(2026, 5, 31)), TODAY)
    assert problem is not None
    assert str(problem).startswith("remote.credential.rotate_by: was 2026-05-31: sre@example.com has to replace")
    warning = rotation_warning(static(date(2026, 6, 3)), TODAY)
    assert warning is not None
    assert all(word in warning for word in ("PDP_TOKEN", "2026-06-03", "sre@example.com"))


@pytest.mark.parametrize("credential", [None, TokenFile(Path("token"))])
def test_what_is_replaced_by_others_has_no_day(credential: CredentialSettings | None) -> None:
    assert rotation_problem(credential, TODAY) is None
    assert rotation_warning(credential, TODAY) is None


def test_a_day_is_one_of_utc() -> None:
    assert day_of(datetime(2026, 6, 1, 23, 59, 59, tzinfo=UTC).timestamp()) == date(2026, 6, 1)
    assert day_of(datetime(2026, 6, 2, tzinfo=UTC).timestamp()) == date(2026, 6, 2)


def test_a_file_beyond_all_size_is_no_secret(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("x" * MAX_SECRET)
    assert len(Secret(file=path).reveal()) == MAX_SECRET
    path.write_text("x" * (MAX_SECRET + 1))
    with pytest.raises(SecretUnavailableError, match="no secret in file"):
        Secret(file=path).reveal()
