"""One reader in two steps: what an encoder would have written is read fast, and never otherwise than with care."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from authz_middleware import strict_json
from authz_middleware.strict_json import StrictJSONError, parse_object

pytestmark = pytest.mark.promise("P4")

WHITE_SPACE = st.sampled_from(["", "", "", " ", "\t", "\n", "\r\n", "  "])
NUMBERS = st.one_of(
    st.integers().map(str),
    st.integers(-(10**20), 10**20).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.from_regex(r"-?(0|[1-9][0-9]{0,20})(\.[0-9]{1,21})?([eE][+-]?[0-9]{1,3})?", fullmatch=True),
    st.sampled_from(
        ["NaN", "Infinity", "-Infinity", "-0", "-0.0", "01", "1.", ".5", "+1", "1e400", "9" * 19, "9" * 65]
    ),
)
CHARACTERS = st.one_of(
    st.sampled_from([*"abAB:,[]{} /01.\x7f", "é", "\u2028", "\U0001f600"]),
    st.sampled_from(
        ["\\u0061", "\\u003a", "\\n", "\\/", '\\"', "\\\\", "\\ud800", "\\udc00", "\\ud83d\\ude00", "\\u0000"]
    ),
    st.sampled_from(["\t", "\n", "\x01", "\\x", "\\u12"]),
)
TEXTS = st.lists(CHARACTERS, max_size=4).map(lambda parts: f'"{"".join(parts)}"')
NAMES = st.sampled_from(['"a"', '"b"', '"a b"', '"ab"', '"\\u0061"', '"é"', '"\\u00e9"', '""']) | TEXTS
LEAVES = st.sampled_from(["true", "false", "null", "True", "nul"]) | NUMBERS | TEXTS


def joined(opening: str, parts: list[str], closing: str) -> st.SearchStrategy[str]:
    """The parts, with white space between any two tokens, and now and then a comma too many."""

    def write(spaces: list[str]) -> str:
        between = iter(spaces)
        inner = ",".join(f"{next(between)}{part}{next(between)}" for part in parts)
        return f"{opening}{inner}{spaces[-1] if not parts else ''}{closing}"

    return st.lists(WHITE_SPACE, min_size=2 * len(parts) + 1, max_size=2 * len(parts) + 1).map(write)


def lists(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(values, max_size=3).flatmap(lambda parts: joined("[", parts, "]"))


def objects(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    member = st.tuples(NAMES, WHITE_SPACE, WHITE_SPACE, values).map(lambda m: f"{m[0]}{m[1]}:{m[2]}{m[3]}")
    return st.lists(member, max_size=4).flatmap(lambda parts: joined("{", parts, "}"))


VALUES = st.recursive(LEAVES, lambda inner: lists(inner) | objects(inner), max_leaves=8)
SPELT = objects(VALUES).map(lambda text: text.encode("utf-8", "surrogatepass"))


DAMAGES = st.binary(max_size=2) | st.sampled_from([b'"', b",", b":", b"{", b"}", b"[", b"]", b"\\", b" ", b"\n"])


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A text in which a few bytes were put, exchanged or lost."""
    text = bytearray(draw(SPELT))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(text)))
        text[at : at + draw(st.integers(0, 2))] = draw(DAMAGES)
    return bytes(text)


def outcome(body: bytes) -> Any:
    """What is read, types, order and the sign of zeros included, or the code of what is wrong."""
    try:
        return repr(parse_object(body))
    except StrictJSONError as error:
        return error.code


def outcome_with_care(body: bytes) -> Any:
    """The same by the careful reader alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(strict_json, "_plain", lambda _: None)
        return outcome(body)


@given(SPELT | damaged() | st.binary(max_size=40))
@example(b'{"a":1,"a":2}')
@example(b'{"a":1,"\\u0061":2}')
@example(b'{"a b":1, "ab":2}')
@example(b'{"a":"x\ny"}')
@example(b'{"a":18446744073709551615}')
@example(b'{"a":-9223372036854775808}')
@example(b'{"a":9999999999999999999}')
@example(b'{"a":1.0E0}')
@example(b'{"a":"\xed\xa0\x80"}')
@example(b'{"a":[' + b"[" * 40 + b"]" * 41 + b"}")
@example(b'\xef\xbb\xbf{"a":1}')
@example(b'{"a":1}\x00')
def test_what_is_read_fast_is_what_is_read_with_care(body: bytes) -> None:
    assert outcome(body) == outcome_with_care(body)


UNICODE = st.text(st.characters(exclude_categories=["Cs"]))
SAID = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**18) + 1, 10**18)
    | st.floats(allow_nan=False, allow_infinity=False)
    | UNICODE,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(UNICODE, inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(UNICODE, SAID, max_size=4), st.sampled_from([(",", ":"), (", ", ": ")]))
def test_whatever_an_encoder_writes_is_read_back(value: dict[str, Any], separators: tuple[str, str]) -> None:
    body = json.dumps(value, ensure_ascii=False, separators=separators).encode()
    assert repr(parse_object(body)) == repr(value)


@pytest.mark.parametrize(
    "body",
    [b'{"decision":true}', b'{ "decision" : true }', b'{"a": [1, 2.5, "x y"], "b": {"c": null}}', '{"n":"é"}'.encode()],
)
def test_the_usual_spellings_are_read_fast(body: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(_: bytes) -> dict[str, Any]:
        raise AssertionError("read with care")

    monkeypatch.setattr(strict_json, "_careful", never)
    assert parse_object(body) == json.loads(body)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b'{"a":1,"a":1}', "body.duplicate_member"),
        (b'{"b":{"a":1,"a":1}}', "body.duplicate_member"),
        (b'{"a": 1, "a": 1}', "body.duplicate_member"),
        (b'{"a":1,"a":1e6}', "body.duplicate_member"),  # as long as what an encoder writes of it
        (b'{"a":1,"\\u0061":1}', "body.duplicate_member"),
        (b'{"a":18446744073709551615}', "body.number_too_long"),
        (b'{"a":-1000000000000000000}', "body.number_too_long"),
        (b'{"a":' + b"[" * 32 + b"]" * 32 + b"}", "body.too_deep"),
        (b'{"a":1e999}', "body.not_finite"),
        (b'{"a":"\\ud800"}', "body.lone_surrogate"),
        (b'{"a":"\xff"}', "body.not_utf8"),
        (b'{"a":"\n"}', "body.not_json"),
        (b"[]", "body.not_an_object"),
    ],
)
def test_what_the_fast_reader_would_let_pass_is_refused(body: bytes, code: str) -> None:
    with pytest.raises(StrictJSONError) as caught:
        parse_object(body)
    assert caught.value.code == code
