"""The snapshot in force: how one replaces another, and everything that must not."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from authz_middleware.errors import PolicyError
from authz_middleware.policy.document import parse_policy
from authz_middleware.policy.store import SnapshotStore, build_snapshot
from authz_middleware.policy.watch import PolicyWatcher
from tests.support.policies import BILLING, ask, rules_document, snapshot_of

OPEN = rules_document("- {rule: open, permit: act, when: always}")
SHUT = rules_document("- {rule: shut, deny: act}")
BROKEN = {
    "not yaml": "policy: [",
    "not a policy": "policy: p",
    "undeclared input": rules_document("- {rule: r, permit: act, when: {resource.x: 1}}"),
    "failing case": OPEN + "tests: [{name: c, at: 2026-03-02T12:00:00Z, action: act, expect: deny}]\n",
    "failing case of another kind": OPEN
    + "tests: [{name: c, at: 2026-03-02T12:00:00Z, action: act, expect: permit, reason: cancelled}]\n",
}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text(OPEN)
    return path


@pytest.fixture
def store(source: Path) -> SnapshotStore:
    store = SnapshotStore(source)
    store.reload()
    return store


def rule_in_force(store: SnapshotStore) -> str | None:
    assert store.current is not None
    return store.current.evaluate(ask()).rule


def test_nothing_is_in_force_before_the_first_load(source: Path) -> None:
    assert SnapshotStore(source).current is None


@pytest.mark.capability("C1")
def test_a_changed_policy_decides_the_next_question(store: SnapshotStore, source: Path) -> None:
    assert rule_in_force(store) == "open"
    source.write_text(SHUT)
    assert store.reload()
    assert rule_in_force(store) == "shut"


def test_the_same_content_is_not_loaded_again(store: SnapshotStore, source: Path) -> None:
    before = store.current
    source.touch()
    assert not store.reload()
    assert store.current is before


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_p7_a_policy_that_cannot_be_used_changes_nothing(store: SnapshotStore, source: Path, broken: str) -> None:
    before = store.current
    source.write_text(broken)
    for _ in range(2):
        with pytest.raises(PolicyError, match=r"policy\.yaml:\d+"):
            store.reload()
        assert store.current is before
    source.write_text(OPEN)
    assert not store.reload()
    source.write_text(SHUT)
    assert store.reload()


def test_p7_a_file_that_is_gone_changes_nothing(store: SnapshotStore, source: Path) -> None:
    source.unlink()
    with pytest.raises(PolicyError, match="cannot be read"):
        store.reload()
    assert rule_in_force(store) == "open"


def test_a_store_without_a_file_says_so() -> None:
    with pytest.raises(PolicyError, match="has no file"):
        SnapshotStore().reload()


def test_p7_a_reader_keeps_the_snapshot_it_took(store: SnapshotStore, source: Path) -> None:
    taken = store.current
    assert taken is not None
    source.write_text(SHUT)
    store.reload()
    assert taken.evaluate(ask()).rule == "open"
    assert rule_in_force(store) == "shut"


def test_p7_concurrent_readers_see_one_version_or_the_other() -> None:
    """Each decision names the rule and the revision of one policy, while two policies take turns."""
    policies = {rule: snapshot_of(text) for rule, text in (("open", OPEN), ("shut", SHUT))}
    revisions = {rule: snapshot.revision for rule, snapshot in policies.items()}
    store = SnapshotStore()
    store.activate(policies["open"])
    mixed: list[object] = []
    seen: set[str | None] = set()
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            snapshot = store.current
            assert snapshot is not None
            for decision in (snapshot.evaluate(ask()), snapshot.evaluate(ask())):
                seen.add(decision.rule)
                if decision.revision != snapshot.revision or revisions.get(str(decision.rule)) != snapshot.revision:
                    mixed.append(decision)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for turn in range(60):
        store.activate(policies["shut" if turn % 2 else "open"])
        time.sleep(0.0005)
    done.set()
    for reader in readers:
        reader.join()
    assert mixed == []
    assert seen == {"open", "shut"}


def test_a_snapshot_is_built_only_from_a_policy_that_passes_its_cases() -> None:
    with pytest.raises(PolicyError, match=r"p\.yaml:\d+: test 'c': expected deny, got permit by rule 'open'"):
        build_snapshot(parse_policy(BROKEN["failing case"], "p.yaml"))
    assert build_snapshot(parse_policy(BILLING, "p.yaml"), serial=3).serial == 3


# The watcher


@pytest.fixture
def watcher(store: SnapshotStore) -> Iterator[PolicyWatcher]:
    watcher = PolicyWatcher(store, refresh=0.01)
    yield watcher
    watcher.stop()


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline, "waited 5 s in vain"
        time.sleep(0.005)


def rewrite(path: Path, text: str) -> None:
    """Replace the file at once, as a careful writer does."""
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    fresh.replace(path)


def test_a_watched_file_comes_into_force_when_it_changes(
    store: SnapshotStore, source: Path, watcher: PolicyWatcher
) -> None:
    watcher.start()
    rewrite(source, SHUT)
    wait_for(lambda: rule_in_force(store) == "shut")


def test_a_forked_process_follows_the_file_by_itself(
    store: SnapshotStore, source: Path, watcher: PolicyWatcher
) -> None:
    """The parent forks while a load is under way; the child has neither its lock nor its thread."""
    watcher.start()
    with store._loading:
        child = os.fork()
        if child == 0:
            try:
                rewrite(source, SHUT)
                wait_for(lambda: rule_in_force(store) == "shut")
                os._exit(0)
            except BaseException:
                os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def test_a_forked_process_of_one_that_does_not_follow_does_not_either(
    store: SnapshotStore, watcher: PolicyWatcher
) -> None:
    watcher.renew_after_fork()
    assert watcher._thread is None


def test_a_watcher_that_is_stopped_follows_no_more(store: SnapshotStore, source: Path, watcher: PolicyWatcher) -> None:
    watcher.start()
    watcher.start()
    assert sum(thread.name == "authz-policy" for thread in threading.enumerate()) == 1
    watcher.stop()
    watcher.stop()
    assert not any(thread.name == "authz-policy" for thread in threading.enumerate())
    rewrite(source, SHUT)
    time.sleep(0.05)
    assert rule_in_force(store) == "open"
    watcher.start()
    wait_for(lambda: rule_in_force(store) == "shut")


def test_an_unchanged_file_is_not_read(
    store: SnapshotStore, source: Path, watcher: PolicyWatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    watcher.look()
    reloads: list[bool] = []
    monkeypatch.setattr(store, "reload", lambda: reloads.append(True) or False)
    assert not watcher.look()
    assert reloads == []
    rewrite(source, SHUT)
    watcher.look()
    assert reloads == [True]


def failures(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]


def test_a_failure_is_logged_once_and_again_only_after_a_success(
    store: SnapshotStore, source: Path, watcher: PolicyWatcher, caplog: pytest.LogCaptureFixture
) -> None:
    def look(text: str) -> int:
        rewrite(source, text)
        watcher.look()
        return len(failures(caplog))

    assert look(BROKEN["not a policy"]) == 1
    assert look(BROKEN["not a policy"]) == 1
    assert look(BROKEN["not yaml"]) == 2
    assert look(SHUT) == 2
    assert look(BROKEN["not yaml"]) == 3
    assert rule_in_force(store) == "shut"
    assert all("\n" not in message for message in failures(caplog))
    assert "policy.yaml:1: a policy needs the key 'owner'" in failures(caplog)[0]


def test_a_file_that_is_gone_is_logged_once_and_found_again(
    store: SnapshotStore, source: Path, watcher: PolicyWatcher, caplog: pytest.LogCaptureFixture
) -> None:
    source.unlink()
    watcher.look()
    watcher.look()
    assert len(failures(caplog)) == 1
    source.write_text(SHUT)
    assert watcher.look()


def test_a_watcher_outlives_what_nobody_expected_and_keeps_its_text_to_itself(
    store: SnapshotStore, watcher: PolicyWatcher, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def explode() -> bool:
        raise RuntimeError("s3cret")

    monkeypatch.setattr(store, "reload", explode)
    assert not watcher.look()
    assert "unexpected RuntimeError" in failures(caplog)[0]
    assert "s3cret" not in caplog.text
