"""The guard: what it refuses, and what happens while nobody can say what is revoked."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

from authz_middleware.decision import Reason
from authz_middleware.revocation.entry import OUTLIVES_S, Revocation, RevocationError, Scope
from authz_middleware.revocation.guard import Revocations, open_store
from authz_middleware.revocation.memory import MemoryStore
from authz_middleware.revocation.redis import RedisStore
from authz_middleware.revocation.sqlite import SqliteStore
from authz_middleware.revocation.store import Reading, Trouble
from authz_middleware.settings.revocations import (
    OnUnavailable,
    RedisSettings,
    RevocationSettings,
    UnavailableSettings,
)
from tests.support.revocations import ISSUER, NOW, caller, refusing, relying, revocation, subject

WHY = {"reason": "drill", "owner": "security@example.com"}


class Outage:
    """A memory store that can be put into trouble."""

    def __init__(self) -> None:
        self.trouble: Trouble | None = None
        self.as_of: float | None = None
        self.inner = MemoryStore(clock=lambda: NOW)

    def start(self) -> None:
        self.inner.start()

    def close(self) -> None:
        self.inner.close()

    def lag(self, now: float) -> float | None:
        return None if self.as_of is None else now - self.as_of

    def reading(self, now: float) -> Reading:
        known = self.inner.reading(now)
        if self.trouble is None:
            self.as_of = now
            return known
        if self.as_of is None:
            return Reading(None, None, None, self.trouble)
        return Reading(known.index, known.epoch, self.as_of, self.trouble)

    def add(self, entries: Iterable[Revocation]) -> None:
        self.inner.add(entries)

    def withdraw(self, ids: Iterable[str]) -> int:
        return self.inner.withdraw(ids)

    def entries(self) -> Sequence[Revocation]:
        return self.inner.entries()


def guard() -> Revocations:
    return Revocations(refusing(), clock=lambda: NOW)


# ---- refusing


@pytest.mark.capability("C18")
@pytest.mark.parametrize("scope", list(Scope))
def test_a_revoked_caller_is_refused_with_the_scope_as_detail(scope: Scope) -> None:
    stated = {
        Scope.TOKEN: ("jti-1", ISSUER),
        Scope.SUBJECT: ("alice", ISSUER),
        Scope.ACTOR: ("agent-7", None),
        Scope.CLIENT: ("web-shop", ISSUER),
        Scope.TASK: ("audit-42", None),
        Scope.TRANSACTION: ("txn-1", None),
        Scope.ISSUER: (None, ISSUER),
        Scope.KEY: ("key-1", ISSUER),
        Scope.EVERYTHING: (None, None),
    }
    revocations = guard()
    assert revocations.check(caller(), "report:read", NOW).refusal is None
    value, issuer = stated[scope]
    revocations.revoke(scope, value=value, issuer=issuer, **WHY)
    refusal = revocations.check(caller(), "report:read", NOW).refusal
    assert refusal is not None
    assert (refusal.permit, refusal.reason, refusal.detail) == (False, Reason.CREDENTIAL_REVOKED, f"revoked.{scope}")


@pytest.mark.promise("P5")
def test_every_revocation_and_every_lifting_changes_the_epoch() -> None:
    revocations = guard()
    epochs = [revocations.check(caller(), "a:b", NOW).epoch]
    entry = revocations.revoke(Scope.SUBJECT, issuer=ISSUER, value="bob", **WHY)
    epochs.append(revocations.check(caller(), "a:b", NOW).epoch)
    assert revocations.lift([entry.id]) == 1
    epochs.append(revocations.check(caller(), "a:b", NOW).epoch)
    assert len(set(epochs)) == 3


@pytest.mark.capability("C16")
def test_completing_a_task_ends_every_token_of_it() -> None:
    revocations = guard()
    task, transaction = revocations.complete_task(task="audit-42", transaction="txn-9", **WHY)
    assert (task.scope, task.value, task.source) == (Scope.TASK, "audit-42", "api")
    assert (transaction.scope, transaction.value) == (Scope.TRANSACTION, "txn-9")
    for token in (caller(subject="bob", token_id="other"), caller(task=None, transaction="txn-9")):
        refusal = revocations.check(token, "report:read", NOW).refusal
        assert refusal is not None
        assert refusal.reason is Reason.CREDENTIAL_REVOKED
    assert revocations.check(caller(task="audit-43"), "report:read", NOW).refusal is None


def test_a_task_that_is_completed_for_one_issuer_goes_on_at_another() -> None:
    revocations = guard()
    revocations.complete_task(task="audit-42", issuer="https://other.example/", **WHY)
    assert revocations.check(caller(), "report:read", NOW).refusal is None


def test_completing_nothing_is_a_mistake() -> None:
    with pytest.raises(RevocationError, match="task: or transaction is required"):
        guard().complete_task(**WHY)


def test_what_cannot_be_meant_revokes_nothing() -> None:
    revocations = guard()
    with pytest.raises(RevocationError):
        revocations.revoke(Scope.SUBJECT, value="alice", **WHY)
    assert revocations.entries() == ()


def test_what_has_ended_is_not_among_the_entries() -> None:
    now = [NOW]
    revocations = Revocations(refusing(), clock=lambda: now[0])
    entry = revocations.revoke(Scope.EVERYTHING, **WHY)
    assert revocations.entries() == (entry,)
    now[0] += OUTLIVES_S
    assert revocations.entries() == ()


# ---- not knowing


@pytest.mark.capability("C18")
@pytest.mark.promise("P5")
@pytest.mark.parametrize("trouble", list(Trouble))
def test_while_nobody_knows_what_is_revoked_requests_are_refused(trouble: Trouble) -> None:
    store = Outage()
    revocations = Revocations(refusing(), store)
    revocations.check(caller(), "report:read", NOW)
    store.trouble = trouble
    standing = revocations.check(caller(), "report:read", NOW + 1)
    assert standing.refusal is not None
    assert (standing.refusal.permit, standing.refusal.reason) == (False, Reason.REVOCATIONS_UNAVAILABLE)
    assert standing.refusal.detail == trouble.value


@pytest.mark.capability("C18")
@pytest.mark.promise("P5")
@pytest.mark.parametrize(
    ("action", "after", "passes"),
    [
        ("report:read", 0.0, True),
        ("report:read", 59.5, True),
        ("report:read", 60.0, False),
        ("report:read", -0.5, True),  # another request's clock was read a little later
        ("report:read", -2.0, False),  # set back: nobody knows how old it is
        ("report:write", 0.0, False),
    ],
)
def test_the_last_known_revocations_serve_the_chosen_actions_for_the_chosen_time(
    action: str, after: float, passes: bool
) -> None:
    store = Outage()
    revocations = Revocations(relying(60.0), store)
    revocations.check(caller(), action, NOW)
    store.trouble = Trouble.UNREACHABLE
    standing = revocations.check(caller(), action, NOW + after)
    assert (standing.refusal is None) is passes
    if passes:
        assert standing.age_s == max(0.0, after)


@pytest.mark.promise("P5")
def test_where_denying_was_chosen_the_last_known_revocations_serve_nobody() -> None:
    store = Outage()
    settings = RevocationSettings(on_unavailable=UnavailableSettings(OnUnavailable("deny", max_age=60.0)))
    revocations = Revocations(settings, store)
    revocations.check(caller(), "report:read", NOW)
    store.trouble = Trouble.UNREACHABLE
    assert revocations.check(caller(), "report:read", NOW).refusal is not None


@pytest.mark.promise("P5")
def test_who_was_known_to_be_revoked_stays_refused_in_an_outage() -> None:
    store = Outage()
    revocations = Revocations(relying(60.0), store)
    revocations.revoke(Scope.ACTOR, value="agent-7", **WHY)
    revocations.check(caller(), "report:read", NOW)
    store.trouble = Trouble.UNREACHABLE
    refusal = revocations.check(caller(), "report:read", NOW + 1).refusal
    assert refusal is not None
    assert refusal.reason is Reason.CREDENTIAL_REVOKED


@pytest.mark.promise("P5")
def test_what_was_never_known_serves_nobody() -> None:
    store = Outage()
    store.trouble = Trouble.MISSING
    refusal = Revocations(relying(60.0), store).check(caller(), "report:read", NOW).refusal
    assert refusal is not None
    assert refusal.reason is Reason.REVOCATIONS_UNAVAILABLE


def test_an_outage_is_said_once_and_not_for_every_request(caplog: pytest.LogCaptureFixture) -> None:
    store = Outage()
    revocations = Revocations(relying(60.0), store)
    revocations.check(caller(), "report:read", NOW)
    store.trouble = Trouble.LOCKED
    for _ in range(3):
        revocations.check(caller(), "report:read", NOW + 1)
        revocations.check(caller(), "report:write", NOW + 1)
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert len(said) == 2
    assert all("store.locked" in line for line in said)


# ---- the store that the settings name


def test_the_settings_name_the_store() -> None:
    stores = [
        open_store(refusing()),
        open_store(refusing(file=Path("/x/revocations.db"))),
        open_store(refusing(redis=RedisSettings("127.0.0.1", tls=False))),
    ]
    assert [type(store) for store in stores] == [MemoryStore, SqliteStore, RedisStore]


def test_a_store_in_memory_never_lags_and_keeps_the_longer_of_two() -> None:
    store = MemoryStore(clock=lambda: NOW)
    long = subject(expires_at=NOW + 9 * 86_400)
    store.add([long])
    store.add([subject()])
    assert (store.entries(), store.lag(NOW)) == ((long,), 0.0)
    assert store.withdraw([long.id, "nothing"]) == 1
    assert store.reading(NOW).index is not None
    assert store.entries() == ()


def test_a_store_in_memory_forgets_what_ended_long_ago() -> None:
    now = [NOW]
    store = MemoryStore(clock=lambda: now[0])
    store.add([revocation(Scope.EVERYTHING)])
    now[0] = NOW + 3 * 86_400
    store.add([subject("bob", now=now[0])])
    assert [entry.value for entry in store.entries()] == ["bob"]


def test_a_guard_opens_and_closes_its_store_and_tells_its_lag(tmp_path: Path) -> None:
    revocations = Revocations(refusing(file=tmp_path / "revocations.db"), clock=lambda: NOW)
    before = revocations.check(caller(), "report:read", NOW).refusal
    assert before is not None
    assert before.detail == Trouble.NOT_STARTED.value
    assert revocations.lag() is None
    revocations.start()
    assert revocations.check(caller(), "report:read", NOW).refusal is None
    assert revocations.lag() == 0.0
    revocations.close()
    assert revocations.check(caller(), "report:read", NOW).refusal is not None
