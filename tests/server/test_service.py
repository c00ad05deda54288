"""What is started with a decision point ends with it."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

from authz_middleware.server.exchange import Reply
from authz_middleware.server.metadata import EVALUATION
from authz_middleware.server.service import Service
from authz_middleware.server.settings import ServerSettings
from tests.support.records import read_records
from tests.support.refunds import POLICY, REFUND


def settings(folder: Path, **tables: Any) -> ServerSettings:
    (folder / "policy.yaml").write_text(POLICY)
    (folder / "token").write_text("x" * 40)
    policy = {"source": "policy.yaml", "allow_unsigned": True}
    return ServerSettings.from_mapping({"policy": policy, **tables}, folder)


async def test_its_threads_end_with_it(tmp_path: Path) -> None:
    before = {thread.name for thread in threading.enumerate()}
    service = Service(settings(tmp_path, callers={"tokens": {"billing": "token"}}))
    await service.start()
    assert {thread.name for thread in threading.enumerate()} - before >= {"authz-files", "authz-policy"}
    await service.stop()
    assert not {thread.name for thread in threading.enumerate()} & {"authz-files", "authz-policy"}


async def test_it_does_not_end_before_every_record_is_written(tmp_path: Path) -> None:
    service = Service(settings(tmp_path, decision_log={"sink": "file:decisions.jsonl"}))
    await service.start()
    headers = [(b"content-type", b"application/json"), (b"host", b"127.0.0.1:8181")]
    scope = {"type": "http", "method": "POST", "path": EVALUATION, "headers": headers, "client": ("127.0.0.1", 1)}
    for _ in range(2000):
        reply, _ = service.app.api.answer(scope, json.dumps(REFUND).encode())
        assert isinstance(reply, Reply)
        assert reply.status == 200
    await service.stop()
    assert len(read_records(tmp_path / "decisions.jsonl")) == 2000
