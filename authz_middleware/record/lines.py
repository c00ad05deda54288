"""Submissions to lines of JSON, chained. Each decision leaves a record, so making one never fails."""

from __future__ import annotations

import hashlib
import re
from typing import Final

import msgspec

from authz_middleware import __version__
from authz_middleware.decision import Decision
from authz_middleware.facts import RequestFacts
from authz_middleware.record.event import NO_METRICS, Submission, decision_event
from authz_middleware.record.inputs import Input, Inputs
from authz_middleware.record.times import Times
from authz_middleware.settings.model import AppSettings, Mode

# What some reader takes for the end of a line, or a terminal for a command, beyond what JSON itself escapes:
# C1 controls, line and paragraph separators, bidirectional overrides, zero-width marks.
_UNSAFE: Final = re.compile("[\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")

_NO_FACTS: Final = RequestFacts(method="", route="", endpoint="")

_encode: Final = msgspec.json.Encoder().encode


class Lines:
    """Makes the lines of one writer, in order; for one thread.

    The chain advances with `wrote`, so that a line that could not be written is simply made again.
    """

    def __init__(self, app: AppSettings, writer: str) -> None:
        self._labels = {"app": app.name, "environment": app.environment, "version": __version__}
        self._mode: Mode = app.mode
        self._writer = writer
        self._times = Times()
        self._inputs = Inputs(self._times)
        self._prev: str | None = None

    def of(self, submissions: list[Submission], dropped: int) -> list[bytes]:
        """One line for each submission, with its newline; the first tells how many records were dropped before."""
        lines = []
        prev = self._prev
        for submission in submissions:
            line = self._line(submission, prev, dropped)
            prev, dropped = _digest(line), 0
            lines.append(line)
        return lines

    def wrote(self, line: bytes) -> None:
        """The next line follows this one."""
        self._prev = _digest(line)

    def _line(self, submission: Submission, prev: str | None, dropped: int) -> bytes:
        try:
            input_ = self._inputs.of(submission)
        except Exception:  # noqa: BLE001 - an input that cannot be shown must not cost the decision its record
            input_ = Input(b"{}", ("/input",))
        try:
            return self._encoded(submission, input_, prev, dropped)
        except Exception:  # noqa: BLE001 - nor must an explanation that cannot be put in JSON
            return self._encoded(_bare(submission), Input(b"{}", ("/input", "/authz")), prev, dropped)

    def _encoded(self, submission: Submission, input_: Input, prev: str | None, dropped: int) -> bytes:
        event = decision_event(
            submission,
            input=msgspec.Raw(input_.json),
            timestamp=self._times.text(submission.now).decode(),
            labels=self._labels,
            mode=self._mode,
            writer=self._writer,
            prev=prev,
            dropped=dropped,
            erased=input_.erased,
            masked=input_.masked,
        )
        line = _encode(event)
        return (line if line.isascii() and b"\x7f" not in line else _escaped(line)) + b"\n"


def _bare(submission: Submission) -> Submission:
    """The outcome alone, of which nothing came from outside."""
    decision = submission.decision
    outcome = Decision(permit=decision.permit, reason=decision.reason, source=decision.source)
    return Submission(submission.seq, submission.now, None, _NO_FACTS, outcome, None, None, 0, NO_METRICS, None, None)


def _escaped(line: bytes) -> bytes:
    return _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", line.decode()).encode()


def _digest(line: bytes) -> str:
    return hashlib.sha256(line[:-1]).hexdigest()
