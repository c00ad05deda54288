"""Resources: templates filled from path parameters, and ids that one can tell apart."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz_middleware.resource import MAX_ID_LENGTH, Resource, ResourceTemplate, is_clear_id


def test_a_template_is_filled_from_the_path_parameters() -> None:
    template = ResourceTemplate.parse("invoice/{year}-{number}")
    assert template.parameters == ("year", "number")
    assert template.fill({"year": "2026", "number": "7", "other": "x"}) == Resource("invoice", "2026-7")


def test_a_template_without_fields_names_one_resource() -> None:
    assert ResourceTemplate.parse("invoice/*").fill({}) == Resource("invoice", "*")


@pytest.mark.capability("C8")
@pytest.mark.parametrize(
    "value",
    ["", "a\nb", "a\x00", "a\x7f", "a\x85b", "a\ufffd", "a\u2028b", "a\u202eb", "a\u200bb", "\ud800", "x" * 1025],
)
def test_an_id_that_a_person_could_not_tell_from_another_names_nothing(value: str) -> None:
    assert ResourceTemplate.parse("invoice/{id}").fill({"id": value}) is None


@pytest.mark.parametrize("value", ["7", "a/b", "a..b", "Müller", "請求書", "a b", "x" * 1024])
def test_a_plain_id_is_taken_as_it_is(value: str) -> None:
    assert ResourceTemplate.parse("invoice/{id}").fill({"id": value}) == Resource("invoice", value)


def test_a_missing_parameter_names_nothing() -> None:
    assert ResourceTemplate.parse("invoice/{id}").fill({"ID": "7"}) is None


@pytest.mark.parametrize("text", ["line/{a}/{b}", "line/{a}-{b}", "line/{a}--{b}", "line/x{a}/-{b}"])
@given(
    st.tuples(*[st.text("a-/x", min_size=1, max_size=4)] * 2), st.tuples(*[st.text("a-/x", min_size=1, max_size=4)] * 2)
)
def test_two_paths_never_fill_one_template_to_the_same_id(
    text: str, one: tuple[str, str], other: tuple[str, str]
) -> None:
    template = ResourceTemplate.parse(text)
    filled = [template.fill(dict(zip("ab", values, strict=True))) for values in (one, other)]
    assert one == other or filled[0] is None or filled[0] != filled[1]


@given(st.text(max_size=MAX_ID_LENGTH + 1))
def test_what_counts_as_clear_holds_no_character_that_is_hidden_or_breaks_a_line(value: str) -> None:
    if is_clear_id(value):
        assert 0 < len(value) <= MAX_ID_LENGTH
        assert len(value.splitlines()) == 1
        assert not {unicodedata.category(c) for c in value} & {"Cc", "Cf", "Cs", "Zl", "Zp"}
