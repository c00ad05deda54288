"""Alarms: loud once, then counted."""

from __future__ import annotations

import pytest

from authz_middleware.alarm import Alarm


def test_an_alarm_rings_once_a_minute_and_tells_what_it_kept_silent(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    alarm = Alarm("something about %r", monotonic=lambda: now[0])
    for now[0] in (0.0, 1.0, 59.9, 60.0):
        alarm.ring("x")
    assert [record.getMessage() for record in caplog.records] == [
        "something about 'x' (0 more since the last such line)",
        "something about 'x' (2 more since the last such line)",
    ]


def test_each_kind_is_counted_by_itself(caplog: pytest.LogCaptureFixture) -> None:
    alarm = Alarm("failed: %s")
    for kind in ("KeyError", "OSError", "KeyError"):
        alarm.ring(kind, kind=kind)
    assert [record.args[0] for record in caplog.records if record.args] == ["KeyError", "OSError"]


def test_what_a_client_sends_cannot_forge_a_line(caplog: pytest.LogCaptureFixture) -> None:
    Alarm("about %r").ring("/x\nERROR forged")
    assert "\n" not in caplog.records[0].getMessage()
