"""Following files: what has changed is looked at, whenever that was."""

from __future__ import annotations

from pathlib import Path

import pytest

from authz_middleware.server.following import Follower
from authz_middleware.server.token_files import TokenFiles
from tests.support.refunds import until

OLD = "old-0123456789abcdefghijkl"
NEW = "new-0123456789abcdefghijkl"


@pytest.mark.capability("C43")
def test_a_token_that_is_withdrawn_before_its_file_is_followed_does_not_hold(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(OLD)
    tokens = TokenFiles({"billing": file})
    file.write_text(NEW)
    follower = Follower(tokens.files, tokens.look, every=0.01)
    follower.start()
    try:
        until(lambda: tokens.name_of(f"Bearer {NEW}".encode()) == "billing")
    finally:
        follower.stop()
    assert tokens.name_of(f"Bearer {OLD}".encode()) is None


def test_a_file_is_read_at_first_and_when_it_has_changed(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(OLD)
    told: list[bool] = []
    follower = Follower((file,), told.append, every=0.01)
    follower.start()
    until(lambda: len(told) > 5)
    file.write_text(NEW + NEW)
    until(lambda: told.count(True) == 2)
    follower.stop()
    assert told[0] is True
