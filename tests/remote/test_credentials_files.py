"""A token in a file that somebody replaces under us: projected service-account tokens, JWT-SVIDs, mounted secrets."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from authz_middleware.errors import SettingsError
from authz_middleware.remote.credentials.bearer import bearer_header, expiry_of
from authz_middleware.remote.credentials.protocol import Credential
from authz_middleware.remote.credentials.reminder import reminder
from authz_middleware.remote.credentials.sources import credential_for
from authz_middleware.remote.credentials.steady import SteadySecret
from authz_middleware.remote.credentials.token_secret import GRACE_S, REREAD_S, STALE_S, TokenSecret
from authz_middleware.remote.failure import FailureKind, RemoteFailure
from authz_middleware.settings.remote.credential import CredentialSettings, StaticToken, TokenFile
from authz_middleware.settings.secret import MAX_SECRET, Secret
from tests.support.projected import Projected
from tests.support.tokens import REMOVED, Issuer

pytestmark = pytest.mark.capability("C43")


class Clock:
    """Runs, and can be put forward."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self.ahead = 0.0

    def __call__(self) -> float:
        return self._now() + self.ahead


class Clocks:
    """Both clocks of a process, put forward together."""

    def __init__(self) -> None:
        self.monotonic, self.wall = Clock(), Clock(time.time)

    def forward(self, seconds: float) -> None:
        self.monotonic.ahead += seconds
        self.wall.ahead += seconds


made: list[Credential] = []


@pytest.fixture(autouse=True)
def closing() -> Iterator[None]:
    yield
    while made:
        made.pop().close()


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


@pytest.fixture(params=["sync", "async"])
def have(request: pytest.FixtureRequest) -> Callable[..., str | RemoteFailure]:
    def ask(credential: Credential, left: float = 5.0) -> str | RemoteFailure:
        return credential.header(left) if request.param == "sync" else asyncio.run(credential.aheader(left))

    return ask


def opened(settings: CredentialSettings, clocks: Clocks | None = None) -> Credential:
    clocks = clocks or Clocks()
    credential = credential_for(settings, monotonic=clocks.monotonic, clock=clocks.wall)
    assert credential is not None
    made.append(credential)
    return credential


def of_file(path: Path, clocks: Clocks | None = None) -> Credential:
    return opened(TokenFile(path), clocks)


def comes(credential: Credential, header: str, seconds: float = 10.0) -> None:
    ends = time.monotonic() + seconds
    while credential.header(1.0) != header:
        assert time.monotonic() < ends, f"still {credential.header(1.0)!r}"
        time.sleep(0.01)


def replace(path: Path, text: str) -> None:
    new = path.with_name(f"{path.name}.new")
    new.write_text(text)
    new.rename(path)


# which token


@pytest.mark.parametrize("text", ["token", "token\n", "  token \r\n"])
def test_the_token_of_a_file_is_shown_without_the_white_space_around_it(
    tmp_path: Path, have: Callable[..., str], text: str
) -> None:
    (tmp_path / "token").write_text(text)
    assert have(of_file(tmp_path / "token")) == "Bearer token"


def test_a_replaced_file_counts_within_the_time_of_a_look(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("first")
    credential = of_file(path)
    assert credential.header(5.0) == "Bearer first"
    replace(path, "other")
    assert credential.remembered() == "Bearer first"
    comes(credential, "Bearer other", REREAD_S + 5)


def test_a_projected_token_is_followed_through_its_links(tmp_path: Path) -> None:
    volume = Projected(tmp_path, "first")
    credential = of_file(volume.token)
    assert credential.header(5.0) == "Bearer first"
    volume.project("other")
    comes(credential, "Bearer other")


def test_a_change_that_no_time_stamp_tells_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("first")
    stamp = path.stat()
    credential = of_file(path)
    credential.header(5.0)
    path.write_text("other")
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    comes(credential, "Bearer other")


def test_after_a_long_silence_the_file_is_read_before_anything_is_shown(
    tmp_path: Path, clocks: Clocks, have: Callable[..., str]
) -> None:
    path = tmp_path / "token"
    path.write_text("first")
    credential = of_file(path, clocks)
    have(credential)
    credential.close()  # nobody has followed it
    replace(path, "other")
    clocks.forward(STALE_S)
    assert have(credential) == "Bearer other"


# what is half there


@pytest.mark.parametrize("state", ["missing", "empty", "malformed", "binary", "folder", "pipe", "too large"])
def test_a_file_that_is_not_usable_for_a_moment_loses_no_call(
    tmp_path: Path, clocks: Clocks, have: Callable[..., str], caplog: pytest.LogCaptureFixture, state: str
) -> None:
    path = tmp_path / "token"
    path.write_text("good")
    credential = of_file(path, clocks)
    assert have(credential) == "Bearer good"
    path.unlink()
    match state:
        case "empty":
            path.write_text("\n")
        case "malformed":
            path.write_text("two words")
        case "binary":
            path.write_bytes(b"\xff\xfe\x00")
        case "folder":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)  # whoever opens it waits for somebody who writes
        case "too large":
            path.write_text("x" * (MAX_SECRET + 1))
    for _ in range(5):
        clocks.forward(GRACE_S / 6)
        assert have(credential) == "Bearer good"
    assert "credential.malformed" in caplog.text or "credential.unavailable" in caplog.text
    clocks.forward(GRACE_S)
    told = have(credential)
    assert isinstance(told, RemoteFailure)
    assert told.kind is FailureKind.CONFIG
    assert not told.is_outage


@pytest.mark.parametrize("state", ["missing", "pipe"])
def test_a_token_that_is_back_counts_again(tmp_path: Path, clocks: Clocks, state: str) -> None:
    path = tmp_path / "token"
    path.write_text("good")
    credential = of_file(path, clocks)
    credential.header(5.0)
    path.unlink()
    if state == "pipe":
        os.mkfifo(path)
    clocks.forward(STALE_S)
    credential.header(5.0)
    clocks.forward(GRACE_S)
    assert isinstance(credential.header(5.0), RemoteFailure)
    replace(path, "other")
    comes(credential, "Bearer other")


def test_a_file_that_is_being_written_is_not_taken_for_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = iter(["good", "good", "hal", "half-written", "half-written"])
    secret = SteadySecret(Secret(file=Path("token")))
    monkeypatch.setattr(secret, "_reveal", lambda: next(texts))
    assert [secret.read(), secret.read()] == ["good", "half-written"]


def test_a_file_that_never_keeps_still_is_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = iter(f"text-{number}" for number in range(100))
    secret = SteadySecret(Secret(file=Path("token")))
    monkeypatch.setattr(secret, "_reveal", lambda: next(texts))
    assert secret.read() is None


def test_a_file_that_is_missing_for_a_moment_at_first_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "token"
    arriving = threading.Timer(0.02, path.write_text, ["late"])
    arriving.start()
    credential = of_file(path)
    comes(credential, "Bearer late")
    arriving.join()


@pytest.mark.parametrize(
    ("content", "detail"),
    [
        (None, "credential.unavailable"),
        ("", "credential.unavailable"),
        ("a b", "credential.malformed"),
        ("a\r\nX-Injected: 1", "credential.malformed"),
        ("a\nb", "credential.malformed"),
        ("token\x00", "credential.malformed"),
        ("t\u00f6ken", "credential.malformed"),
        ("\uff41bc", "credential.malformed"),
        ("=token", "credential.malformed"),
        ("to=ken", "credential.malformed"),
        ("Bearer token", "credential.malformed"),
        ('"token"', "credential.malformed"),
        ("x" * 16_385, "credential.malformed"),
        ("x" * (MAX_SECRET + 1), "credential.unavailable"),
    ],
)
def test_what_is_no_bearer_token_is_shown_to_nobody(
    tmp_path: Path, have: Callable[..., str], content: str | None, detail: str
) -> None:
    if content is not None:
        (tmp_path / "token").write_bytes(content.encode())
    told = have(of_file(tmp_path / "token"))
    assert told == RemoteFailure(FailureKind.CONFIG, detail, is_news=False)


@pytest.mark.parametrize("token", ["x", "A-z0.9_~+/==", "a.b.c", "x" * 16_384], ids=["short", "all", "dots", "long"])
def test_every_b64token_is_a_bearer_token(token: str) -> None:
    assert bearer_header(token) == f"Bearer {token}"


# until when


def test_a_signed_token_is_never_shown_past_its_expiry(
    tmp_path: Path, clocks: Clocks, have: Callable[..., str]
) -> None:
    token = Issuer().mint(exp=int(time.time()) + 20)
    (tmp_path / "token").write_text(token)
    credential = of_file(tmp_path / "token", clocks)
    assert have(credential) == f"Bearer {token}"
    (tmp_path / "token").unlink()
    clocks.forward(15)
    assert have(credential) == f"Bearer {token}"
    clocks.forward(6)  # well within the time of grace
    assert credential.remembered() is None
    assert have(credential) == RemoteFailure(FailureKind.CONFIG, "credential.unavailable", is_news=False)


def test_a_signed_token_that_stays_in_its_file_past_its_expiry_is_not_shown(
    tmp_path: Path, clocks: Clocks, have: Callable[..., str]
) -> None:
    (tmp_path / "token").write_text(Issuer().mint(exp=int(time.time()) + 20))
    credential = of_file(tmp_path / "token", clocks)
    have(credential)
    clocks.forward(21)
    assert have(credential) == RemoteFailure(FailureKind.CONFIG, "credential.expired", is_news=False)


@pytest.mark.parametrize(
    ("token", "expiry"),
    [
        (Issuer().mint(exp=1_900_000_000), 1.9e9),
        (Issuer().mint(exp=1.5), 1.5),
        (Issuer().mint(exp=REMOVED), float("inf")),
        (Issuer().mint(exp="1900000000"), float("inf")),
        (Issuer().mint(exp=True), float("inf")),
        ("opaque", float("inf")),
        ("a.b.c", float("inf")),
        ("a.b.c.d.e", float("inf")),
    ],
)
def test_the_expiry_is_that_which_the_token_states(token: str, expiry: float) -> None:
    assert expiry_of(token) == expiry


# secrets that stay


def static(secret: Secret, rotate_by: date) -> StaticToken:
    return StaticToken(secret, "payments-platform@example.com", rotate_by)


def days(number: int) -> date:
    return datetime.now(UTC).date() + timedelta(days=number)


def test_a_static_secret_is_shown_until_its_day(
    monkeypatch: pytest.MonkeyPatch, have: Callable[..., str], tmp_path: Path
) -> None:
    monkeypatch.setenv("PDP_TOKEN", "static")
    (tmp_path / "token").write_text("filed")
    assert have(opened(static(Secret(env="PDP_TOKEN"), days(30)))) == "Bearer static"
    assert have(opened(static(Secret(file=tmp_path / "token"), days(0)))) == "Bearer filed"


@pytest.mark.parametrize("ahead", [-1, -400, 367, 20_000])
def test_no_application_starts_with_a_secret_that_is_not_about_to_be_replaced(ahead: int) -> None:
    with pytest.raises(SettingsError, match=r"remote\.credential\.rotate_by"):
        credential_for(static(Secret(env="PDP_TOKEN"), days(ahead)))


def test_a_running_application_goes_on_past_the_day_and_says_so_once_a_day(
    monkeypatch: pytest.MonkeyPatch, clocks: Clocks, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PDP_TOKEN", "static")
    credential = opened(static(Secret(env="PDP_TOKEN"), days(8)), clocks)
    assert credential.header(5.0) == "Bearer static"
    assert not caplog.records
    lines: list[str] = []
    for _ in range(10):
        clocks.forward(86_400)
        for _ in range(3):
            assert credential.header(5.0) == "Bearer static"
            ends = time.monotonic() + 10
            while credential._look is not None and time.monotonic() < ends:  # type: ignore[attr-defined]
                time.sleep(0.001)
        lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 10
    assert all("payments-platform@example.com" in line and "PDP_TOKEN" in line for line in lines)
    assert "must be replaced by" in lines[7]
    assert "should have been replaced by" in lines[9]
    assert {record.levelno for record in caplog.records} == {logging.WARNING}


def test_a_start_within_the_last_week_says_so(caplog: pytest.LogCaptureFixture) -> None:
    opened(static(Secret(env="PDP_TOKEN"), days(8)))
    assert not caplog.records
    opened(static(Secret(env="PDP_TOKEN"), days(7)))
    assert "must be replaced by" in caplog.text


@pytest.mark.parametrize(
    ("token", "age", "said"),
    [
        ("opaque", 31, True),
        ("opaque", 29, False),
        (Issuer().mint(exp=REMOVED), 400, True),
        (Issuer().mint(), 400, False),
        ("", 31, False),
        (None, 31, False),
    ],
)
def test_a_token_file_that_nobody_replaces_is_told_of(tmp_path: Path, token: str | None, age: int, said: bool) -> None:
    """Otherwise a secret that stays only had to call itself a token file."""
    path, now = tmp_path / "token", time.time()
    if token is not None:
        path.write_text(token)
        os.utime(path, (now, now - age * 86_400))
    told = reminder(TokenFile(path), now)
    assert (told is not None) is said
    assert token is None or not token or token not in str(told)


def test_a_token_file_that_nobody_replaces_is_logged_once_a_day(
    tmp_path: Path, clocks: Clocks, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "token").write_text("opaque")
    credential = of_file(tmp_path / "token", clocks)
    credential.header(5.0)
    assert not caplog.records
    clocks.forward(31 * 86_400)
    for _ in range(3):
        credential.header(5.0)
        clocks.forward(STALE_S)
    assert caplog.text.count("has not been replaced for 31 days") == 1


def test_no_repr_of_a_source_shows_more_than_where_it_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PDP_TOKEN", "s3cret-canary")
    source = TokenSecret(static(Secret(env="PDP_TOKEN"), days(30)))
    assert "s3cret-canary" not in repr(source) + repr(source.obtain()) + repr(source._secret)
    assert "PDP_TOKEN" in repr(source)
