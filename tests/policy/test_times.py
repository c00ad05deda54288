"""Time windows: their edges, midnight, weekdays, and the nights when clocks are changed."""

from __future__ import annotations

import pytest

from authz_middleware.duration import parse_duration
from authz_middleware.policy.times import find_zone, parse_clock, parse_instant
from tests.support.policies import answer_of, ask, instant

pytestmark = pytest.mark.capability("C7")


def answer_at(window: str, time: str) -> bool | None:
    return answer_of(f"{{context.time: {window}}}", ask(now=instant(time)))


@pytest.mark.parametrize(
    ("time", "inside"),
    [
        ("2026-03-02T08:59:59+01:00", False),
        ("2026-03-02T08:59:59.999+01:00", False),
        ("2026-03-02T09:00:00+01:00", True),
        ("2026-03-02T08:00:00Z", True),
        ("2026-03-02T16:59:59.999+01:00", True),
        ("2026-03-02T17:00:00+01:00", False),
        ("2026-03-02T09:00:00Z", True),
        ("2026-03-02T16:00:00Z", False),
    ],
)
def test_a_window_includes_its_start_and_not_its_end(time: str, inside: bool) -> None:
    window = '{between: ["09:00", "17:00"], zone: Europe/Berlin}'
    assert answer_at(window, time) is inside
    assert answer_at(f"{{outside: {window}}}", time) is not inside


@pytest.mark.parametrize(
    ("time", "inside"),
    [
        # Clocks go from 02:00 to 03:00 on 29 March 2026: 09:00 is an hour earlier by UTC from that day on.
        ("2026-03-28T07:59:59Z", False),
        ("2026-03-28T08:00:00Z", True),
        ("2026-03-29T06:59:59Z", False),
        ("2026-03-29T07:00:00Z", True),
        ("2026-03-29T15:00:00Z", False),
        # and back from 03:00 to 02:00 on 25 October 2026
        ("2026-10-24T07:00:00Z", True),
        ("2026-10-25T07:59:59Z", False),
        ("2026-10-25T08:00:00Z", True),
    ],
)
def test_a_window_follows_the_clocks_of_its_zone_through_a_change(time: str, inside: bool) -> None:
    assert answer_at('{between: ["09:00", "17:00"], zone: Europe/Berlin}', time) is inside


@pytest.mark.parametrize(
    ("time", "inside"),
    [
        ("2026-10-25T00:29:59Z", False),  # 02:29:59 summer time
        ("2026-10-25T00:30:00Z", True),  # 02:30 summer time
        ("2026-10-25T00:59:59Z", True),
        ("2026-10-25T01:00:00Z", False),  # 02:00 again, winter time
        ("2026-10-25T01:30:00Z", True),  # 02:30 again
        ("2026-03-29T00:59:59Z", False),  # 01:59:59
        ("2026-03-29T01:00:00Z", False),  # 03:00: the window never comes
    ],
)
def test_an_hour_that_comes_twice_is_inside_twice_and_a_skipped_one_never(time: str, inside: bool) -> None:
    assert answer_at('{between: ["02:30", "03:00"], zone: Europe/Berlin}', time) is inside


@pytest.mark.parametrize(
    ("time", "inside"),
    [
        ("2026-03-06T21:59:59Z", False),  # Friday
        ("2026-03-06T22:00:00Z", True),
        ("2026-03-07T05:59:59Z", True),  # Saturday morning, of Friday's window
        ("2026-03-07T06:00:00Z", False),
        ("2026-03-07T22:00:00Z", False),  # Saturday has no window of its own
        ("2026-03-08T00:30:00Z", False),
        ("2026-03-06T00:30:00Z", False),  # Friday morning would be of Thursday's
        ("2026-03-01T23:00:00Z", True),  # Sunday
        ("2026-03-02T05:00:00Z", True),  # Monday morning, of Sunday's window
    ],
)
def test_a_window_across_midnight_belongs_to_the_day_it_starts_on(time: str, inside: bool) -> None:
    assert answer_at('{between: ["22:00", "06:00"], zone: UTC, days: [fri, sun]}', time) is inside


@pytest.mark.parametrize(("time", "inside"), [("2026-03-02T22:59:59Z", True), ("2026-03-02T23:00:00Z", False)])
def test_a_weekday_is_that_of_the_zone(time: str, inside: bool) -> None:
    assert answer_at('{between: ["00:00", "24:00"], zone: Europe/Berlin, days: [mon]}', time) is inside


@pytest.mark.parametrize("now", [float("nan"), float("inf"), 1e30, -1e30])
def test_a_time_that_is_none_is_neither_inside_nor_outside(now: float) -> None:
    window = '{between: ["09:00", "17:00"], zone: UTC}'
    assert answer_of(f"{{context.time: {window}}}", ask(now=now)) is None
    assert answer_of(f"{{context.time: {{outside: {window}}}}}", ask(now=now)) is None


@pytest.mark.parametrize(
    ("text", "seconds"), [("200ms", 0.2), ("30s", 30.0), ("1.5m", 90.0), ("8h", 28800.0), ("1d", 86400.0)]
)
def test_a_duration_has_a_unit(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "30", "s", "-1s", "1 s", "1S", "1e3s", "\u0661s", "1w", "1s "])
def test_what_is_not_a_duration_is_refused(text: str) -> None:
    assert parse_duration(text) is None


@pytest.mark.parametrize(("text", "second"), [("00:00", 0), ("08:30", 30600), ("08:30:01", 30601), ("24:00", 86400)])
def test_a_clock_time_has_hours_and_minutes(text: str, second: int) -> None:
    assert parse_clock(text) == second


@pytest.mark.parametrize(
    "text", ["8:00", "24:01", "25:00", "08:60", "08:00:60", "0800", "08:00 ", "\u0660\u0668:\u0660\u0660", "08:00Z"]
)
def test_what_is_not_a_clock_time_is_refused(text: str) -> None:
    assert parse_clock(text) is None


@pytest.mark.parametrize("text", ["2026-03-02", "2026-03-02T09:00:00", "09:00Z", "now", "2026-03-02 09:00:00+00:00"])
def test_a_point_in_time_needs_a_date_a_time_and_an_offset(text: str) -> None:
    assert parse_instant(text) is None


@pytest.mark.parametrize("name", ["", ".", "..", "/etc/localtime", "../UTC", "Europe", "Mars/Base", "UTC\0", "a" * 300])
def test_what_is_not_a_zone_is_refused(name: str) -> None:
    assert find_zone(name) is None
