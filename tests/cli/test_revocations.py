"""`authz revoke` and `authz revocations` as a person runs them: another process, its output and its exit status."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from authz_middleware.decision import Reason
from authz_middleware.identity.principal import Actor, Principal
from authz_middleware.revocation.entry import Scope, new_revocation
from authz_middleware.revocation.guard import Revocations
from authz_middleware.settings import Settings
from tests.support.redis_server import RedisServer

ISSUER = "https://idp.example.com/"
SETTINGS = """\
[app]
name = "billing"
environment = "production"
[[issuers]]
issuer = "https://idp.example.com/"
audience = ["billing-api"]
jwks_uri = "https://idp.example.com/jwks"
algorithms = ["ES256"]
[policy]
source = "billing.yaml"
allow_unsigned = true
[decision_log]
sink = "file:decisions.jsonl"
"""
TABLE = """\
[revocations]
store = "file:revocations.db"
[revocations.on_unavailable]
default = "deny"
"""
SECOND = """\
[[issuers]]
issuer = "https://second.example.com/"
audience = ["billing-api"]
jwks_uri = "https://second.example.com/jwks"
algorithms = ["ES256"]
"""
WHY = ("--reason", "leaked key", "--owner", "security@example.com")

AUTHZ = Path(sys.executable).with_name("authz")


def authz(folder: Path, *arguments: str, typed: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(AUTHZ), *arguments], cwd=folder, input=typed, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "authz.toml").write_text(SETTINGS + TABLE)
    return tmp_path


@pytest.fixture
def running(folder: Path) -> Iterator[Revocations]:
    """The revocations of an application that runs, in this process, with the settings in the folder."""
    settings = Settings.from_toml(folder / "authz.toml").revocations
    assert settings is not None
    revocations = Revocations(settings)
    revocations.start()
    yield revocations
    revocations.close()


def caller(age: float = 10.0) -> Principal:
    now = time.time()
    return Principal(
        issuer=ISSUER,
        subject="alice",
        subject_kind="human",
        actors=(Actor("agent-7"),),
        client="web-shop",
        task="audit-42",
        transaction="txn-1",
        token_id="jti-1",
        key_id="key-1",
        issued_at=now - age,
        expires_at=now + 290,
    )


def refused(revocations: Revocations, principal: Principal | None = None) -> bool:
    refusal = revocations.check(principal or caller(), "invoice:read", time.time()).refusal
    assert refusal is None or refusal.reason is Reason.CREDENTIAL_REVOKED
    return refusal is not None


def id_in(output: str) -> str:
    found = re.search(r"^ +id +([0-9a-f]{16})$", output, re.MULTILINE)
    assert found is not None
    return found[1]


@pytest.mark.capability("C16", "C18", "C51")
@pytest.mark.promise("P5")
@pytest.mark.parametrize(
    "named",
    [
        ("token", "jti-1"),
        ("subject", "alice"),
        ("subject", "alice", "--issuer", ISSUER),
        ("actor", "agent-7"),
        ("client", "web-shop"),
        ("task", "audit-42"),
        ("transaction", "txn-1"),
        ("issuer", ISSUER),
        ("key", "key-1"),
        ("everything", "--yes"),
    ],
)
def test_a_running_application_refuses_from_the_next_check_on_and_lets_pass_again(
    folder: Path, running: Revocations, named: tuple[str, ...]
) -> None:
    assert not refused(running)
    done = authz(folder, "revoke", *named, *WHY)
    assert (done.returncode, done.stderr) == (0, "")
    assert refused(running)
    lifted = authz(folder, "revocations", "lift", id_in(done.stdout))
    assert (lifted.returncode, lifted.stderr) == (0, "")
    assert not refused(running)


def test_what_was_done_is_said_with_where_until_when_and_how_to_undo_it(folder: Path, running: Revocations) -> None:
    done = authz(folder, "revoke", "actor", "agent-7", "--for", "7d", *WHY)
    lines = done.stdout.splitlines()
    assert lines[0] == "revoked: actor 'agent-7' of any issuer"
    rows = dict(line.split(maxsplit=1) for line in lines[1:] if not line.startswith("  to undo"))
    assert rows["reaches"] == "all tokens, those yet to be issued too"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC, (7|6) days from now", rows["until"])
    assert (rows["reason"], rows["owner"]) == ("leaked key", "security@example.com")
    assert rows["store"] == str(folder / "revocations.db")
    undo = lines[-1].split("to undo")[1].split()
    assert undo == ["authz", "revocations", "lift", rows["id"], "--settings", "authz.toml"]
    assert authz(folder, *undo[1:]).returncode == 0
    assert not refused(running)


def test_a_cut_off_reaches_old_tokens_and_lets_new_ones_pass(folder: Path, running: Revocations) -> None:
    done = authz(folder, "revoke", "subject", "alice", "--before", "now", *WHY)
    assert done.returncode == 0
    assert "reaches  tokens issued until " in done.stdout
    assert refused(running)
    assert not refused(running, caller(age=-5))


def test_a_shorter_one_does_not_shorten_what_is_in_force_and_does_not_say_so(
    folder: Path, running: Revocations
) -> None:
    authz(folder, "revoke", "actor", "agent-7", "--for", "60d", *WHY)
    done = authz(folder, "revoke", "actor", "agent-7", "--for", "2d", *WHY)
    assert re.search(r"until .* (60|59) days from now", done.stdout)
    assert refused(running)


# ---- the kill switch


@pytest.mark.capability("C51")
@pytest.mark.parametrize(("typed", "happens"), [("y\n", True), ("n\n", False), ("\n", False), ("", False)])
def test_everything_is_revoked_only_when_it_is_meant(
    folder: Path, running: Revocations, typed: str, happens: bool
) -> None:
    done = authz(folder, "revoke", "everything", *WHY, typed=typed)
    assert done.returncode == (0 if happens else 1)
    assert refused(running) is happens
    assert ("nothing was revoked" in done.stderr) is not happens
    assert "of every issuer" in done.stderr


# ---- what cannot be meant


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("subject",), "ID is required with scope 'subject'"),
        (("everything", "x"), "ID means nothing where everything is revoked"),
        (("subject", "alice", "--issuer", "https://idp.example.com"), "is not an issuer whose tokens are accepted"),
        (("issuer", "https://idp.example.com"), f"the settings have {ISSUER}"),
        (("issuer", ISSUER, "--issuer", ISSUER), "--issuer is for what belongs to an issuer"),
        (("token", "x", "--before", "now"), "--before means nothing where a single token is revoked"),
        (("actor", "x", "--before", "2099-01-01T00:00Z"), "--before is in the future"),
        (("actor", "x", "--before", "yesterday"), "--before must be a time such as 2026-03-02T09:00Z"),
        (("actor", "x", "--before", "2026-03-02T09:00"), "--before needs a time zone: 2026-03-02T09:00Z"),
        (("actor", "x", "--for", "5m"), "tokens that exist now"),
        (("actor", "x", "--for", "long"), "--for must be a duration such as 36h or 7d"),
        (("actor", "x", "--until", "2020-01-01T00:00Z"), "--for or --until is too early"),
        (("actor", "x", "--for", "7d", "--until", "2099-01-01T00:00Z"), "give one of them"),
        (("actor", "a\nb"), "ID must be printable text"),
    ],
)
def test_a_call_that_cannot_be_meant_revokes_nothing_and_is_explained_with_status_2(
    folder: Path, running: Revocations, arguments: tuple[str, ...], said: str
) -> None:
    done = authz(folder, "revoke", *arguments, *WHY)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert all(line.startswith("error: ") for line in done.stderr.splitlines())
    assert running.entries() == ()


@pytest.mark.parametrize("missing", [WHY[:2], WHY[2:], ()])
def test_reason_and_owner_have_to_be_given(folder: Path, running: Revocations, missing: tuple[str, ...]) -> None:
    done = authz(folder, "revoke", "actor", "agent-7", *missing)
    assert done.returncode == 2
    assert "Missing option" in done.stderr
    assert running.entries() == ()


def test_with_several_issuers_one_has_to_be_named(folder: Path, running: Revocations) -> None:
    (folder / "authz.toml").write_text(SETTINGS.replace("[policy]", f"{SECOND}[policy]") + TABLE)
    done = authz(folder, "revoke", "subject", "alice", *WHY)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"--issuer is required to revoke a subject; the settings have {ISSUER}, https://second" in done.stderr
    assert not refused(running)


def test_an_actor_may_be_of_an_issuer_that_the_settings_do_not_have(folder: Path, running: Revocations) -> None:
    done = authz(folder, "revoke", "actor", "agent-7", "--issuer", "https://agents.example/", *WHY)
    assert done.returncode == 0
    assert len(running.entries()) == 1


# ---- where


def test_a_store_that_is_not_there_is_not_made(folder: Path) -> None:
    """The application may be looking at another one, and whoever revokes would believe that it is done."""
    done = authz(folder, "revoke", "actor", "agent-7", *WHY)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"there is no store of revocations at {folder / 'revocations.db'}" in done.stderr
    assert not (folder / "revocations.db").exists()


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("", "has no table [revocations]"),
        (
            '[revocations]\nstore = "memory"\nper_process = true\n[revocations.on_unavailable]\ndefault = "deny"\n',
            "each process keeps its own",
        ),
        ('[revocations]\nstore = "memory"\n', "revocations.on_unavailable.default: is required"),
    ],
)
def test_settings_that_lead_to_no_store_are_explained(folder: Path, table: str, said: str) -> None:
    (folder / "authz.toml").write_text(SETTINGS + table)
    for command in (("revoke", "actor", "x", *WHY), ("revocations",), ("revocations", "lift", "abcd")):
        done = authz(folder, *command)
        assert (done.returncode, done.stdout) == (1, "")
        assert said in done.stderr
        assert "Traceback" not in done.stderr


def test_without_a_settings_file_the_ways_to_the_store_are_named(folder: Path) -> None:
    done = authz(folder, "revocations", "--settings", "absent.toml")
    assert done.returncode == 1
    assert "--settings" in done.stderr
    assert "--file" in done.stderr


def test_the_file_itself_will_do(folder: Path, running: Revocations) -> None:
    (folder / "authz.toml").unlink()
    done = authz(folder, "revoke", "subject", "alice", "--issuer", ISSUER, "--file", "revocations.db", *WHY)
    assert (done.returncode, done.stderr) == (0, "")
    assert refused(running)
    assert authz(folder, "revoke", "subject", "bob", "--file", "revocations.db", *WHY).returncode == 2


def test_a_store_that_cannot_be_used_is_explained_in_one_line(folder: Path) -> None:
    (folder / "revocations.db").write_bytes(b"garbage" * 100)
    done = authz(folder, "revoke", "actor", "agent-7", *WHY)
    assert (done.returncode, done.stdout) == (1, "")
    first, second = done.stderr.splitlines()
    assert first == "NOT revoked: actor 'agent-7' of any issuer"
    assert second == (
        "error: the store of revocations revocations.db cannot be used: "
        "it is damaged, or no store of revocations (SQLITE_NOTADB)"
    )


@pytest.mark.capability("C51")
def test_a_redis_server_is_revoked_at_too(folder: Path) -> None:
    with RedisServer(folder) as server:
        table = TABLE.replace("file:revocations.db", "redis")
        table += f'[revocations.redis]\nurl = "redis://127.0.0.1:{server.port}"\n'
        (folder / "authz.toml").write_text(SETTINGS + table)
        settings = Settings.from_toml(folder / "authz.toml").revocations
        assert settings is not None
        running = Revocations(settings)
        running.start()
        done = authz(folder, "revoke", "actor", "agent-7", *WHY)
        assert (done.returncode, done.stderr) == (0, "")
        deadline = time.monotonic() + 5
        while not refused(running) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert refused(running)
        assert f"redis://127.0.0.1:{server.port}" in done.stdout
        running.close()
    done = authz(folder, "revoke", "actor", "agent-8", *WHY)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("NOT revoked: actor 'agent-8'")


# ---- listing and lifting


def test_what_is_in_force_is_listed_the_latest_first(folder: Path, running: Revocations) -> None:
    assert authz(folder, "revocations").stdout == f"{folder / 'revocations.db'}: 0 in force\n"
    authz(folder, "revoke", "actor", "agent-7", *WHY)
    authz(folder, "revoke", "task", "audit-42", "--reason", "done", "--owner", "ops@example.com")
    for command in (("revocations",), ("revocations", "list")):
        done = authz(folder, *command)
        assert (done.returncode, done.stderr) == (0, "")
        lines = done.stdout.splitlines()
        assert len(lines) == 5
        assert "task 'audit-42' of any issuer; all tokens" in lines[0]
        assert lines[1].endswith("; ops@example.com (cli): done")
        assert "actor 'agent-7'" in lines[2]
        assert lines[4] == f"{folder / 'revocations.db'}: 2 in force"


def test_the_list_can_be_had_as_json(folder: Path, running: Revocations) -> None:
    made = authz(folder, "revoke", "subject", "alice", *WHY)
    (entry,) = json.loads(authz(folder, "revocations", "--json").stdout)
    assert entry["id"] == id_in(made.stdout)
    assert (entry["scope"], entry["issuer"], entry["value"]) == ("subject", ISSUER, "alice")
    assert (entry["source"], entry["in_force"], entry["issued_before"]) == ("cli", True, None)


def test_what_has_ended_is_listed_only_on_request(folder: Path, running: Revocations) -> None:
    past = time.time() - 86_400 * 1.5
    running.store.add([new_revocation(Scope.EVERYTHING, reason="r", owner="o", source="cli", now=past)])
    assert "0 in force" in authz(folder, "revocations").stdout
    assert "everything" not in authz(folder, "revocations").stdout
    shown = authz(folder, "revocations", "--all").stdout
    assert "everything" in shown
    assert "ended" in shown


@pytest.mark.parametrize("ids", [("zzzz",), ("",), ("abc",), ()])
def test_lifting_what_is_not_there_lifts_nothing(folder: Path, running: Revocations, ids: tuple[str, ...]) -> None:
    made = id_in(authz(folder, "revoke", "actor", "agent-7", *WHY).stdout)
    done = authz(folder, "revocations", "lift", made, *ids) if ids else authz(folder, "revocations", "lift", made[:3])
    assert done.returncode == 1
    assert "nothing was lifted" in done.stderr
    assert refused(running)


def test_the_beginning_of_an_id_will_do(folder: Path, running: Revocations) -> None:
    made = id_in(authz(folder, "revoke", "actor", "agent-7", *WHY).stdout)
    done = authz(folder, "revocations", "lift", made[:6])
    assert (done.returncode, done.stdout) == (0, f"lifted: {made}  actor 'agent-7' of any issuer\n")


def test_lifting_what_a_feed_has_said_warns_that_it_may_come_back(folder: Path, running: Revocations) -> None:
    now = time.time()
    entry = new_revocation(Scope.EVERYTHING, reason="r", owner="o", source="list:soc", now=now)
    running.store.add([entry])
    done = authz(folder, "revocations", "lift", entry.id)
    assert done.returncode == 0
    assert "'list:soc', which may put it back" in done.stderr
