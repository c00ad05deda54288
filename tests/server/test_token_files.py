"""Bearer tokens of callers: whose they are, rotation, and files that are not what they should be."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from authz_middleware.errors import SettingsError
from authz_middleware.server.token_files import GRACE_S, MAX_TOKENS, TokenFiles

OLD = "old-0123456789abcdefghijkl"
NEW = "new-0123456789abcdefghijkl"


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def files(folder: Path, text: str = OLD, clock: Clock | None = None) -> tuple[TokenFiles, Path]:
    file = folder / "billing.token"
    file.write_text(text)
    return TokenFiles({"billing": file}, monotonic=clock or Clock()), file


def name(tokens: TokenFiles, header: str) -> str | None:
    return tokens.name_of(header.encode("latin-1"))


@pytest.mark.capability("C43")
@pytest.mark.parametrize("text", [OLD, f"{OLD}\n", f"  {OLD}\r\n\n", f"{NEW}\n{OLD}\n"])
def test_a_token_of_the_file_names_its_caller(tmp_path: Path, text: str) -> None:
    tokens, _ = files(tmp_path, text)
    assert name(tokens, f"Bearer {OLD}") == "billing"
    assert name(tokens, f"bEARER {OLD}") == "billing"


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer ", f"Basic {OLD}", OLD, f"Bearer  {OLD}", f"Bearer {OLD} ", f"Bearer {OLD[:-1]}",
     f"Bearer {OLD}x", f"Bearer {OLD.upper()}", f"Bearer {NEW}", f"Bearer {OLD},{OLD}",
     f"Bearer {OLD}\n{NEW}", "Bearer \xe9"],
)  # fmt: skip
def test_anything_else_names_nobody(tmp_path: Path, header: str) -> None:
    assert name(files(tmp_path)[0], header) is None


@pytest.mark.capability("C43")
def test_while_a_token_is_replaced_the_old_one_and_the_new_one_hold(tmp_path: Path) -> None:
    tokens, file = files(tmp_path)
    file.write_text(f"{NEW}\n{OLD}\n")
    tokens.look(changed=True)
    assert [name(tokens, f"Bearer {token}") for token in (OLD, NEW)] == ["billing", "billing"]
    file.write_text(NEW)
    tokens.look(changed=True)
    assert [name(tokens, f"Bearer {token}") for token in (OLD, NEW)] == [None, "billing"]


@pytest.mark.parametrize("written", [None, "", "short", "x" * 5000, "not a token! at all, not a token"])
def test_a_file_that_says_nothing_any_more_lets_nobody_in_after_a_moment(tmp_path: Path, written: str | None) -> None:
    clock = Clock()
    tokens, file = files(tmp_path, clock=clock)
    if written is None:
        file.unlink()
    else:
        file.write_text(written)
    tokens.look(changed=True)
    assert name(tokens, f"Bearer {OLD}") == "billing"
    clock.now = GRACE_S
    tokens.look(changed=False)
    assert name(tokens, f"Bearer {OLD}") is None
    file.write_text(NEW)
    tokens.look(changed=True)
    assert name(tokens, f"Bearer {NEW}") == "billing"


def test_a_file_that_is_back_within_the_moment_was_never_gone(tmp_path: Path) -> None:
    clock = Clock()
    tokens, file = files(tmp_path, clock=clock)
    file.write_text("")
    tokens.look(changed=True)
    file.write_text(NEW)
    tokens.look(changed=True)
    clock.now = 100 * GRACE_S
    tokens.look(changed=False)
    assert name(tokens, f"Bearer {NEW}") == "billing"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "holds no token"),
        ("# only a comment", "one token a line"),
        ("hunter2", "one token a line"),
        ("\n".join(f"{n:03d}-0123456789abcdefghijkl" for n in range(MAX_TOKENS + 1)), "holds more than"),
        ("x" * 70_000, "holds more than"),
    ],
)
def test_a_file_that_cannot_be_used_stops_the_start_and_is_not_shown(tmp_path: Path, text: str, what: str) -> None:
    with pytest.raises(SettingsError, match=what) as caught:
        files(tmp_path, text)
    assert "callers.tokens.billing" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"absent, which cannot be read: No such file"):
        TokenFiles({"billing": tmp_path / "absent"})


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_what_is_no_file_is_not_waited_for(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "token"
    os.mkfifo(path) if kind == "pipe" else path.symlink_to("/dev/zero")
    with pytest.raises(SettingsError, match="it is no regular file"):
        TokenFiles({"billing": path})


def test_nothing_of_a_token_is_kept_or_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tokens, file = files(tmp_path)
    file.write_text("a secret that is none")
    tokens.look(changed=True)
    assert "billing" in caplog.text
    assert "secret" not in caplog.text
    assert OLD not in repr(vars(tokens))
