"""No record carries a token or a secret, and none can be made to look like two records."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from authz_middleware.decision import Decision, Reason
from authz_middleware.record import masking
from authz_middleware.record.masking import MASK, is_secret_name, is_secret_value, mask
from authz_middleware.resource import Resource
from tests.support.records import DENY, FACTS, PERMIT, Memory, principal, question, recorder
from tests.support.tokens import Issuer

pytestmark = pytest.mark.capability("C41")

SECRET_NAMES = [
    "token", "Token", "access_token", "accessToken", "id-token", "X-Auth-Token", "refresh_tokens",
    "authorization", "Proxy-Authorization", "password", "passwd", "PASSWORD_HASH", "user.password", "passphrase",
    "client_secret", "secret", "SECRET_KEY", "secretValue", "cookie", "Set-Cookie", "cookies", "api_key", "apiKey",
    "x-api-key", "APIKEY", "private_key", "privateKeyPem", "signing_key", "access_key", "credential", "credentials",
    "jwt", "client_assertion", "bearer", "session_id", "sessionid", "otp", "a p i k e y",
]  # fmt: skip
PLAIN_NAMES = [
    "amount", "tenant", "token_id", "token_type", "key", "keyword", "authorization_details", "author", "owner",
    "classification", "secretary"[:-6], "passenger", "compass", "option", "laptop", "cook",
]  # fmt: skip


@pytest.mark.parametrize("name", SECRET_NAMES)
def test_a_member_named_like_a_secret_is_masked(name: str) -> None:
    masked, pointers = mask({name: "x"}, "/input")
    assert masked == {name: MASK}
    assert pointers == (f"/input/{name}",)


@pytest.mark.parametrize("name", PLAIN_NAMES)
def test_a_member_with_another_name_is_kept(name: str) -> None:
    assert mask({name: "x"}) == ({name: "x"}, ())


SECRET_VALUES = [
    Issuer().mint(),
    "Bearer " + "mF_9.B5f-4.1JqM",
    "bearer\tmF_9B5f41JqM",
    "DPoP Kz~8mXK1EalYznwH-LC-1fBAo",
    "Basic " + "czZCaGRSa3F0MzpnWDFmQmF0M2JW",
    "see https://app.example.com/cb?access_token=abc",
    "postgres://svc:hunter2@db.example.com/x",
    "-----BEGIN PRIVATE KEY-----\nMIG",
    "-----BEGIN RSA PRIVATE KEY-----",
    "ghp_" + "a1B2" * 9,
    "glpat-" + "a1B2c3D4e5F6g7H8i9J0",
    "xoxb-" + "1234567890-abcdefghij",
    "AKIA" + "IOSFODNN7EXAMPLE",
    "prefix eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0. suffix",
    "eyAiYWxnIjoibm9uZSJ9.e30.",
]  # fmt: skip


@pytest.mark.parametrize("value", [*SECRET_VALUES, *(value.upper() for value in SECRET_VALUES[1:5])])
def test_a_value_that_looks_like_a_secret_is_masked_wherever_it_is(value: str) -> None:
    masked, pointers = mask({"note": [{"deep": value}], value: 1}, "/input")
    assert value not in json.dumps(masked)
    assert pointers == ("/input/note/0/deep", "/input/***")


@pytest.mark.parametrize(
    "value",
    [
        "alice@example.com", "https://idp.example.com/", "invoice:read", "spiffe://example.org/ns/prod/sa/billing",
        "basic member", "the bearer of news", "5e0cf1f4-9a3c-4c57-8d0e-0d8a8f0e4f1e", "eyeglasses.example.com", "",
        "Basic subscriptions",
    ],
)  # fmt: skip
def test_an_ordinary_value_is_kept(value: str) -> None:
    assert mask({"note": value}) == ({"note": value}, ())


def test_a_whole_object_under_a_secret_name_is_masked() -> None:
    assert mask({"credentials": {"user": "a", "pin": "1234"}}) == ({"credentials": MASK}, ("/credentials",))


def test_whether_there_is_a_secret_may_be_told() -> None:
    assert mask({"password": None, "api_key": True}) == ({"password": None, "api_key": True}, ())


def test_pointers_escape_what_json_pointers_escape() -> None:
    assert mask({"a/b": {"c~d": {"token": "x"}}})[1] == ("/a~1b/c~0d/token",)


def test_what_is_nested_too_deep_to_look_through_is_masked() -> None:
    deep: Any = "plain"
    for _ in range(40):
        deep = [deep]
    masked, pointers = mask(deep)
    assert "plain" not in json.dumps(masked)
    assert len(pointers) == 1


def lines_of(*submissions: tuple[Any, Decision]) -> bytes:
    sink = Memory()
    log = recorder(sink)
    for asked, decision in submissions:
        log.submit(asked, FACTS if asked is None else asked.facts, decision)
    log.close()
    assert len(sink.records) == len(submissions)  # each parses, and fits the schema
    return b"".join(sink.lines)


TOKEN = Issuer().mint()
NAMES = st.sampled_from(["note", "items", "a/b", "x"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)


@st.composite
def planted(draw: st.DrawFn) -> tuple[Any, str]:
    """A value with a secret somewhere in it: one that looks like a secret, or any text under a telling name."""
    secret = draw(st.sampled_from(SECRET_VALUES) | st.just(TOKEN))
    value: Any = draw(st.text("abc é\u2028", max_size=3)) + " " + secret
    if draw(st.booleans()):
        secret = value = draw(st.text("XYZ0189", min_size=12, max_size=20))
        value = {draw(st.sampled_from(SECRET_NAMES)): draw(st.sampled_from([value, [value], {"of": value}]))}
    for _ in range(draw(st.integers(0, 4))):
        beside = draw(JSON)
        value = draw(st.sampled_from([[beside, value], {"note": value, "x": beside}, {"a/b": [value]}, (value,)]))
    return value, secret


@given(planted())
def test_a_planted_secret_never_reaches_a_line(plant: tuple[Any, str]) -> None:
    value, secret = plant
    line = lines_of(
        (question(resource=Resource("invoice", "42", {"note": value})), PERMIT),
        (question(who=principal(claims={"note": value})), PERMIT),
    )
    assert secret.encode() not in line
    assert json.dumps(secret)[1:-1].encode() not in line


@given(st.sampled_from(SECRET_VALUES), st.sampled_from(["subject", "tenant", "purpose", "task", "client", "token_id"]))
def test_a_token_in_the_place_of_an_identifier_never_reaches_a_line(secret: str, field: str) -> None:
    assert secret.encode() not in lines_of((question(who=principal(**{field: secret})), DENY))


@pytest.mark.parametrize("field", ["route", "endpoint", "method"])
def test_a_token_in_a_fact_never_reaches_a_line(field: str) -> None:
    facts = msgspec.structs.replace(FACTS, **{field: TOKEN, "path_params": {"token": TOKEN}, "traceparent": TOKEN})
    assert TOKEN.encode() not in lines_of((question(facts=facts), DENY))


def test_a_token_as_a_resource_id_never_reaches_a_line() -> None:
    line = lines_of((question(resource=Resource("reset", TOKEN)), DENY))
    assert TOKEN.encode() not in line
    assert json.loads(line)["masked"] == ["/input/resource/id"]


def test_the_record_lists_what_is_masked_in_it() -> None:
    asked = question(who=principal(claims={"api_key": "k"}), resource=Resource("invoice", "42", {"note": TOKEN}))
    record = json.loads(lines_of((asked, PERMIT)))
    assert record["masked"] == ["/input/subject/properties/claims/api_key", "/input/resource/properties/note"]


@given(st.lists(st.sampled_from([*SECRET_VALUES, "x", " ", "a b", "Bearer", "ey", "=", "token", "BASIC"])).map("".join))
def test_looking_for_signs_first_overlooks_nothing(text: str) -> None:
    assert is_secret_value(text) == (masking._SECRET_VALUE.search(text) is not None)


UNSAFE = [
    "\n",
    "\r",
    "\x00",
    "\x1b",
    "\x7f",
    "\x85",
    "\x9b",
    "\u200b",
    "\u2028",
    "\u2029",
    "\u202e",
    "\u2066",
    "\ufeff",
]


@pytest.mark.parametrize("character", UNSAFE, ids=[f"U+{ord(c):04X}" for c in UNSAFE])
def test_no_character_breaks_a_line_or_commands_a_terminal(character: str) -> None:
    forged = f'x{character}{{"result":true}}'
    line = lines_of((question(resource=Resource("invoice", forged, {"note": forged})), DENY))
    assert character.encode() not in line[:-1]
    assert json.loads(line)["input"]["resource"]["id"] == forged
    assert len(line.decode().splitlines()) == 1


@given(st.text(st.characters(), max_size=20))
def test_any_id_gives_one_line_that_reads_back(text: str) -> None:
    line = lines_of((question(resource=Resource("invoice", text)), DENY), (None, DENY))
    assert len(line.decode().splitlines()) == 2
    if not is_secret_value(text) and "\\u" not in repr(text):
        assert json.loads(line.split(b"\n")[0])["input"]["resource"]["id"] == text


@given(st.text(max_size=10))
def test_a_name_is_judged_by_its_letters_not_by_its_spelling(name: str) -> None:
    assume(name.lower().upper().lower() == name.lower())
    assert is_secret_name(name) == is_secret_name(name.upper()) == is_secret_name(name + "-")


def test_the_reason_of_a_bad_credential_is_told_without_the_credential() -> None:
    decision = Decision(permit=False, reason=Reason.CREDENTIAL_INVALID, detail="token.expired")
    facts = msgspec.structs.replace(FACTS, route=f"/reset/{TOKEN}")
    sink = Memory()
    log = recorder(sink)
    log.submit(None, facts, decision)
    log.close()
    assert TOKEN.encode() not in sink.lines[0]
    assert sink.records[0]["masked"] == ["/input/resource/id", "/input/context/route"]
