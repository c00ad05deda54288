"""Questions and decisions to record, and records read back with the schema checked on every one of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import jsonschema

from authz_middleware.decision import Decision, Reason
from authz_middleware.facts import RequestFacts
from authz_middleware.identity.principal import Principal
from authz_middleware.permission import Permission
from authz_middleware.question import Question
from authz_middleware.record.recorder import Recorder
from authz_middleware.record.schema import json_schema
from authz_middleware.record.sinks import Sink
from authz_middleware.resource import Resource
from authz_middleware.settings.model import AppSettings, DecisionLogSettings, Mode, RecordMode

NOW = 1_767_225_600.25  # 2026-01-01T00:00:00.250Z

FACTS = RequestFacts(
    method="GET",
    route="/invoices/{invoice_id}",
    endpoint="billing.views:read",
    path_params={"invoice_id": "42"},
    client="192.0.2.7",
    tls=True,
    traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
)
PERMIT = Decision(
    permit=True,
    reason=Reason.PERMITTED,
    rule="read-invoices",
    policy="billing",
    owner="payments@example.com",
    revision="ab" * 32,
    serial=7,
)
DENY = Decision(permit=False, reason=Reason.NO_RULE, policy="billing", revision="ab" * 32)


def principal(**fields: Any) -> Principal:
    """A verified caller with something in most places."""
    known = {
        "issuer": "https://idp.example.com/",
        "subject": "alice@example.com",
        "kind": "human",
        "scopes": frozenset({"invoices.read"}),
        "tenant": "acme",
        "purpose": "support",
        "token_id": "5e0cf1f4",
    }
    return Principal(**(known | fields))


def question(
    *,
    who: Principal | None = None,
    action: str = "invoice:read",
    resource: Resource | None = None,
    facts: RequestFacts = FACTS,
    now: float = NOW,
) -> Question:
    """A question about an invoice."""
    return Question(
        principal=who or principal(),
        permission=Permission(action=action),
        resource=resource or Resource("invoice", "42"),
        facts=facts,
        environment="production",
        now=now,
    )


def app(mode: Mode = "enforce") -> AppSettings:
    """The application whose decisions are recorded."""
    return AppSettings(name="billing", environment="production", mode=mode)


def log_settings(sink: str, mode: RecordMode = "blocking", *, queue: int = 1000, max_wait: float = 2.0) -> Any:
    """Decision log settings."""
    return DecisionLogSettings(mode=mode, sink=sink, queue=queue, max_wait=max_wait)


class Memory:
    """A sink that keeps its lines."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.closed = False

    def write(self, lines: Sequence[bytes]) -> None:
        self.lines.extend(lines)

    def close(self) -> None:
        self.closed = True

    @property
    def records(self) -> list[Any]:
        return parsed(b"".join(self.lines))


def recorder(sink: Sink, mode: RecordMode = "blocking", *, queue: int = 1000, max_wait: float = 2.0) -> Recorder:
    """A recorder that writes to this sink."""
    return Recorder(log_settings("stdout", mode, queue=queue, max_wait=max_wait), app(), sink=sink)


def parsed(data: bytes) -> list[Any]:
    """The records in a decision log, each of them checked against the published schema, which is closed here: a
    member that the schema does not name is a mistake of ours."""
    assert data.endswith(b"\n") or not data
    records = [json.loads(line) for line in data.split(b"\n")[:-1]]
    for record in records:
        _VALIDATOR.validate(record)
        assert datetime.fromisoformat(record["timestamp"]).utcoffset() == timedelta(0)
    return records


def read_records(path: Path) -> list[Any]:
    """The records in a file."""
    return parsed(path.read_bytes())


def _closed(schema: Any) -> Any:
    if isinstance(schema, dict):
        closed = {name: _closed(value) for name, value in schema.items()}
        if "properties" in schema and isinstance(schema["properties"], dict):
            closed.setdefault("additionalProperties", False)
        return closed
    return [_closed(item) for item in schema] if isinstance(schema, list) else schema


_VALIDATOR = jsonschema.Draft202012Validator(
    _closed(json_schema()), format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
)
