"""One status list (draft-ietf-oauth-status-list): packing, bounds, and what a token says of its place in it."""

from __future__ import annotations

import tracemalloc
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz_middleware.identity.claims.status_reference import StatusReference, status_reference_of
from authz_middleware.identity.problem import CredentialDetail, TokenRefusedError
from authz_middleware.revocation.feeds.jws import DocumentRefusedError
from authz_middleware.revocation.feeds.status_list import MAX_BYTES, read_status_list
from tests.support.status_lists import list_member, pack
from tests.support.tokens import base64url

pytestmark = pytest.mark.capability("C18")


def code_of(member: Any) -> str:
    with pytest.raises(DocumentRefusedError) as caught:
        read_status_list(member)
    return caught.value.code


def compressed(data: bytes) -> dict[str, Any]:
    return {"bits": 1, "lst": base64url(data)}


def test_the_examples_of_the_specification_are_read() -> None:
    """Section 4.1: one bit, and two bits a token."""
    one = read_status_list({"bits": 1, "lst": base64url(bytes.fromhex("78dadbb918000217015d"))})
    assert [one.at(i) for i in range(16)] == [1, 0, 0, 1, 1, 1, 0, 1, 1, 1, 0, 0, 0, 1, 0, 1]
    two = read_status_list({"bits": 2, "lst": base64url(bytes.fromhex("78da3be9f2130003df0207"))})
    assert [two.at(i) for i in range(12)] == [1, 2, 0, 3, 0, 1, 0, 1, 1, 2, 3, 3]


@given(
    st.sampled_from([1, 2, 4, 8]).flatmap(lambda bits: st.tuples(st.just(bits), st.lists(st.integers(0, 2**bits - 1))))
)
def test_every_status_is_found_at_its_index(case: tuple[int, list[int]]) -> None:
    bits, statuses = case
    read = read_status_list(list_member(statuses, bits))
    assert [read.at(i) for i in range(len(statuses))] == statuses


@given(st.sampled_from([1, 2, 4, 8]), st.binary(max_size=64), st.integers(-300, 1200))
def test_an_index_beyond_the_list_is_no_status(bits: int, data: bytes, index: int) -> None:
    read = read_status_list({"bits": bits, "lst": base64url(zlib.compress(data))})
    assert read.size == len(data) * 8 // bits
    assert (read.at(index) is None) is not (0 <= index < read.size)


def test_a_list_that_inflates_beyond_bounds_is_refused_without_inflating_it() -> None:
    bomb = compressed(zlib.compress(bytes(MAX_BYTES * 16), 9))
    assert len(bomb["lst"]) < 512 * 1024
    tracemalloc.start()
    try:
        assert code_of(bomb) == "status_list.too_large"
        assert tracemalloc.get_traced_memory()[1] < 4 * MAX_BYTES
    finally:
        tracemalloc.stop()


def test_a_list_at_the_bound_is_read() -> None:
    assert read_status_list(compressed(zlib.compress(bytes(MAX_BYTES)))).size == MAX_BYTES * 8
    assert code_of(compressed(zlib.compress(bytes(MAX_BYTES + 1)))) == "status_list.too_large"


WHOLE = zlib.compress(pack([0, 1] * 50, 1))


@pytest.mark.parametrize(
    "data",
    [
        WHOLE[:-1],
        WHOLE[: len(WHOLE) // 2],
        WHOLE[:-4] + bytes(4),
        WHOLE + b"\0",
        WHOLE + WHOLE,
        b"",
        b"no zlib at all",
        zlib.compress(b"x")[2:-4],
        zlib.compressobj(wbits=31).compress(b"x") + b"",
    ],
    ids=["cut", "half", "checksum", "byte after", "twice", "empty", "other", "raw deflate", "gzip"],
)
def test_what_is_not_one_whole_zlib_stream(data: bytes) -> None:
    assert code_of(compressed(data)) == "status_list.encoding"


@pytest.mark.parametrize(
    "member",
    [
        None,
        [],
        {},
        {"bits": 1},
        {"lst": "eNpjYAAAAAIAAQ"},
        *({"bits": bits, "lst": "eNpjYAAAAAIAAQ"} for bits in (0, 3, 16, -1, 1.0, True, "1", None)),
        *({"bits": 1, "lst": lst} for lst in (None, 1, ["eNpjYAAAAAIAAQ"], "ä")),
    ],
)
def test_what_is_no_list(member: Any) -> None:
    assert code_of(member) == "status_list.form"


@pytest.mark.parametrize("lst", ["eNpjYAAAAAIAAQ==", "eNpjYAAAAAIAAR", "eNpj YAAAAAIAAQ", "eNpj\nYAAAAAIAAQ"])
def test_a_list_has_one_spelling(lst: str) -> None:
    assert read_status_list({"bits": 1, "lst": "eNpjYAAAAAIAAQ"}).size == 16
    assert code_of({"bits": 1, "lst": lst}) == "status_list.encoding"


URI = "https://status.example/1"


def test_a_token_without_status_has_no_reference() -> None:
    assert status_reference_of({"sub": "alice"}) is None


def test_a_reference_is_read() -> None:
    claims = {"status": {"status_list": {"idx": 0, "uri": URI, "more": 1}, "other": {}}}
    assert status_reference_of(claims) == StatusReference(URI, 0)


@pytest.mark.parametrize(
    "status",
    [
        None,
        "active",
        [],
        {},
        {"status_list": None},
        {"status_list": []},
        {"identifier_list": {"id": "1", "uri": URI}},
        {"status_list": {}},
        {"status_list": {"idx": 0}},
        {"status_list": {"uri": URI}},
        *({"status_list": {"idx": idx, "uri": URI}} for idx in (-1, True, False, 0.0, "0", None, [0])),
        *({"status_list": {"idx": 0, "uri": uri}} for uri in (None, "", " ", 1, "a\nb", "x" * 2049)),
    ],
)
def test_a_status_that_cannot_be_looked_up_refuses_the_token(status: Any) -> None:
    with pytest.raises(TokenRefusedError) as caught:
        status_reference_of({"status": status})
    assert caught.value.detail is CredentialDetail.CLAIM_TYPE
