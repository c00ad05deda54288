"""The index: it finds what reaches a principal, as a look at every revocation would, and tells every change."""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from authz_middleware.identity.principal import Actor, Principal
from authz_middleware.revocation.entry import Revocation, Scope
from authz_middleware.revocation.index import KEPT_S, RevocationIndex
from tests.support.revocations import DAY, ISSUER, NOW, caller, revocation, subject

OTHER = "https://other.example/"


def finds(entry: Revocation, principal: Principal, now: float = NOW) -> bool:
    return RevocationIndex([entry]).find(principal, now) == entry


# ---- what reaches whom


REACHED = {
    "its token": revocation(Scope.TOKEN, "jti-1", issuer=ISSUER),
    "its subject": subject("alice"),
    "the actor that calls": revocation(Scope.ACTOR, "agent-7"),
    "that actor, of the token's issuer": revocation(Scope.ACTOR, "agent-7", issuer=ISSUER),
    "an actor further back": revocation(Scope.ACTOR, "agent-1"),
    "that actor, of its own issuer": revocation(Scope.ACTOR, "agent-1", issuer=OTHER),
    "its client": revocation(Scope.CLIENT, "web-shop", issuer=ISSUER),
    "its task": revocation(Scope.TASK, "audit-42"),
    "its task, of its issuer": revocation(Scope.TASK, "audit-42", issuer=ISSUER),
    "its transaction": revocation(Scope.TRANSACTION, "txn-1"),
    "its transaction, of its issuer": revocation(Scope.TRANSACTION, "txn-1", issuer=ISSUER),
    "its issuer": revocation(Scope.ISSUER, issuer=ISSUER),
    "its key": revocation(Scope.KEY, "key-1", issuer=ISSUER),
    "everything": revocation(Scope.EVERYTHING),
}

NOT_REACHED = {
    "a token of that id elsewhere": revocation(Scope.TOKEN, "jti-1", issuer=OTHER),
    "another token": revocation(Scope.TOKEN, "jti-2", issuer=ISSUER),
    "a subject of that name elsewhere": subject(issuer=OTHER),
    "an actor of that name elsewhere": revocation(Scope.ACTOR, "agent-7", issuer=OTHER),
    "an actor that names another issuer": revocation(Scope.ACTOR, "agent-1", issuer=ISSUER),
    "a person who is called like an agent": revocation(Scope.ACTOR, "alice"),
    "a client of that name elsewhere": revocation(Scope.CLIENT, "web-shop", issuer=OTHER),
    "a task elsewhere": revocation(Scope.TASK, "audit-42", issuer=OTHER),
    "a transaction elsewhere": revocation(Scope.TRANSACTION, "txn-1", issuer=OTHER),
    "another issuer": revocation(Scope.ISSUER, issuer=OTHER),
    "a key of that id elsewhere": revocation(Scope.KEY, "key-1", issuer=OTHER),
    "a subject called like its client": subject("web-shop"),
    "a task called like its transaction": revocation(Scope.TASK, "txn-1"),
}


@pytest.mark.capability("C16", "C18", "C51")
@pytest.mark.parametrize("entry", REACHED.values(), ids=REACHED)
def test_a_caller_is_reached_through(entry: Revocation) -> None:
    assert finds(entry, caller())


@pytest.mark.capability("C18")
@pytest.mark.parametrize("entry", NOT_REACHED.values(), ids=NOT_REACHED)
def test_a_caller_is_not_reached_through(entry: Revocation) -> None:
    assert not finds(entry, caller())


@pytest.mark.capability("C51")
@pytest.mark.parametrize("kind", ["agent", "workload", None])
def test_an_agent_that_acts_on_its_own_is_reached_as_an_actor(kind: Any) -> None:
    alone = Principal(issuer=ISSUER, subject="agent-7", subject_kind=kind)
    assert finds(revocation(Scope.ACTOR, "agent-7"), alone)
    assert finds(revocation(Scope.ACTOR, "agent-7", issuer=ISSUER), alone)
    assert not finds(revocation(Scope.ACTOR, "agent-7", issuer=OTHER), alone)


def test_what_a_token_does_not_say_is_reached_by_nothing_that_names_it() -> None:
    bare = Principal(issuer=ISSUER, subject="bob")
    index = RevocationIndex(entry for entry in REACHED.values() if entry.value is not None)
    assert index.find(bare, NOW) is None


@pytest.mark.parametrize(("issued_at", "reached"), [(NOW - 1, True), (NOW, True), (NOW + 1, False), (math.nan, True)])
def test_a_cut_off_reaches_what_was_issued_until_then(issued_at: float, reached: bool) -> None:
    assert finds(subject(issued_before=NOW), caller(issued_at=issued_at)) is reached


def test_of_several_revocations_one_that_counts_is_enough() -> None:
    past, future = subject(issued_before=NOW - 100), revocation(Scope.KEY, "key-1", issuer=ISSUER)
    ended = subject(source="feed", now=NOW - 9 * DAY)
    assert RevocationIndex([past, ended, future]).find(caller(), NOW) == future


# ---- as a look at every one would


issuers = st.sampled_from([ISSUER, OTHER])
names = st.sampled_from(["a", "b"])
maybe = st.none() | names


def _reaches(entry: Revocation, principal: Principal, now: float) -> bool:
    """The rules, written out one by one."""
    if now >= entry.expires_at or (entry.issued_before is not None and principal.issued_at > entry.issued_before):
        return False
    here = entry.issuer is None or entry.issuer == principal.issuer
    match entry.scope:
        case Scope.EVERYTHING:
            return True
        case Scope.ISSUER:
            return here
        case Scope.ACTOR:
            chain = [(actor.id, actor.issuer or principal.issuer) for actor in principal.actors]
            if principal.subject_kind != "human":
                chain.append((principal.subject, principal.issuer))
            return any(entry.value == id_ and entry.issuer in (None, issuer) for id_, issuer in chain)
        case _:
            stated = {
                Scope.TOKEN: principal.token_id,
                Scope.SUBJECT: principal.subject,
                Scope.CLIENT: principal.client,
                Scope.TASK: principal.task,
                Scope.TRANSACTION: principal.transaction,
                Scope.KEY: principal.key_id,
            }
            return here and stated[entry.scope] == entry.value


principals = st.builds(
    Principal,
    issuer=issuers,
    subject=names,
    subject_kind=st.sampled_from(["human", "agent", "workload", None]),
    actors=st.lists(st.builds(Actor, id=names, issuer=st.none() | issuers), max_size=2).map(tuple),
    client=maybe,
    task=maybe,
    token_id=maybe,
    transaction=maybe,
    key_id=maybe,
    issued_at=st.sampled_from([NOW - 10, NOW, NOW + 10]),
)


@st.composite
def revocations(draw: st.DrawFn) -> Revocation:
    scope = draw(st.sampled_from(list(Scope)))
    fields: dict[str, Any] = {"source": draw(st.sampled_from(["cli", "feed"])), "owner": draw(names)}
    if scope not in (Scope.EVERYTHING, Scope.ISSUER):
        fields["value"] = draw(names)
    if scope is not Scope.EVERYTHING:
        fields["issuer"] = draw(issuers)
        if scope in (Scope.ACTOR, Scope.TASK, Scope.TRANSACTION) and draw(st.booleans()):
            fields["issuer"] = None
    if scope is not Scope.TOKEN:
        fields["issued_before"] = draw(st.sampled_from([None, NOW - 5, NOW, NOW + 5]))
    made = NOW + draw(st.sampled_from([0.0, 3600.0]))
    return revocation(scope, **{**fields, "now": made})


@given(entries=st.lists(revocations(), max_size=12), principal=principals, late=st.sampled_from([0.0, DAY, 2 * DAY]))
def test_the_index_finds_what_a_look_at_every_revocation_finds(
    entries: list[Revocation], principal: Principal, late: float
) -> None:
    known = {entry.id: entry for entry in entries}.values()
    found = RevocationIndex(entries).find(principal, NOW + late)
    assert (found is not None) is any(_reaches(entry, principal, NOW + late) for entry in known)
    assert found is None or _reaches(found, principal, NOW + late)


class Histories(RuleBasedStateMachine):
    """Whatever was put, dropped and purged before, and however the clock went, within the time that ends are kept."""

    def __init__(self) -> None:
        super().__init__()
        self.index = RevocationIndex()
        self.known: dict[str, Revocation] = {}
        self.now = NOW
        self.latest = NOW
        self.seen: tuple[int, Any] | None = None

    @initialize(entries=st.lists(revocations(), max_size=4))
    def begin(self, entries: list[Revocation]) -> None:
        self.put(entries)

    @rule(entries=st.lists(revocations(), max_size=3))
    def put(self, entries: list[Revocation]) -> None:
        self.index.put(entries)
        self.known.update({entry.id: entry for entry in entries})

    @precondition(lambda self: self.known)
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        id_ = data.draw(st.sampled_from(sorted(self.known)))
        self.index.drop([id_, "nothing"])
        del self.known[id_]

    @rule(now=st.sampled_from([NOW, NOW + DAY, NOW + DAY + 120, NOW + DAY + 3720, NOW + 2 * DAY]))
    def move_clock(self, now: float) -> None:
        self.now = max(now, self.latest - KEPT_S)
        self.latest = max(self.latest, now)

    @rule()
    def purge(self) -> None:
        self.index.purge(self.now)

    @rule(principal=principals)
    def look(self, principal: Principal) -> None:
        expected = any(_reaches(entry, principal, self.now) for entry in self.known.values())
        assert (self.index.find(principal, self.now) is not None) is expected

    @invariant()
    def the_epoch_tells_every_change(self) -> None:
        effective = {id_: entry for id_, entry in self.known.items() if entry.is_effective(self.now)}
        epoch = self.index.epoch(self.now)
        assert epoch == self.index.epoch(self.now)
        if self.seen is not None:
            assert epoch != self.seen[0] or effective == self.seen[1]
        self.seen = epoch, effective


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=150, stateful_step_count=25, deadline=None)


# ---- epochs


def test_an_epoch_stays_while_nothing_that_counts_changes() -> None:
    index = RevocationIndex([subject()])
    before = index.epoch(NOW)
    index.put([subject()])
    index.put([subject("bob", now=NOW - 3 * DAY)])  # has ended
    index.drop(["nothing"])
    index.purge(NOW)
    assert [index.epoch(NOW), index.epoch(NOW + 1), index.epoch(NOW - 1)] == [before] * 3


@pytest.mark.promise("P5")
def test_an_epoch_never_comes_back_though_what_counts_does() -> None:
    index = RevocationIndex()
    epochs = [index.epoch(NOW)]
    for _ in range(2):
        index.put([subject()])
        epochs.append(index.epoch(NOW))
        index.drop([subject().id])
        epochs.append(index.epoch(NOW))
    assert len(set(epochs)) == 5


@pytest.mark.promise("P5")
def test_an_epoch_changes_when_a_revocation_ends_and_when_the_clock_is_set_back() -> None:
    index = RevocationIndex([subject()])
    end = subject().expires_at
    epochs = [index.epoch(moment) for moment in (NOW, end - 1, end, end + 1, end - 1)]
    assert epochs[0] == epochs[1] != epochs[2] == epochs[3] != epochs[4]


def test_the_end_of_what_was_replaced_is_no_change() -> None:
    short, long = subject(), subject(expires_at=NOW + 9 * DAY)
    for index in (RevocationIndex([short, long]), RevocationIndex([short])):
        index.put([long])
        assert index.epoch(short.expires_at - 1) == index.epoch(short.expires_at + 1)


def test_two_indexes_share_no_epoch() -> None:
    assert RevocationIndex().epoch(NOW) != RevocationIndex().epoch(NOW)


def test_what_has_ended_is_kept_for_a_clock_that_is_set_back_and_then_purged() -> None:
    index, end = RevocationIndex([subject()]), subject().expires_at
    index.purge(end + DAY - 1)
    assert finds_again(index, end - 1)
    index.purge(end + DAY)
    assert len(index) == 0


def finds_again(index: RevocationIndex, now: float) -> bool:
    return index.find(caller(), now) is not None


# ---- threads


@pytest.mark.promise("P5")
def test_a_revocation_is_not_missed_while_it_is_replaced() -> None:
    """A thread that reads meanwhile never finds the place of a revocation empty."""
    weaker, stronger = subject(), subject(expires_at=NOW + 9 * DAY)
    index, stop, missed = RevocationIndex([weaker]), threading.Event(), 0

    def replace() -> None:
        while not stop.is_set():
            index.put([stronger])
            index.put([weaker])

    interval, reader = sys.getswitchinterval(), caller()
    sys.setswitchinterval(1e-6)
    try:
        writer = threading.Thread(target=replace)
        writer.start()
        for _ in range(30_000):
            missed += index.find(reader, NOW) is None
        stop.set()
        writer.join()
    finally:
        sys.setswitchinterval(interval)
    assert missed == 0


def test_many_writers_leave_exactly_what_they_put() -> None:
    index = RevocationIndex()

    def write(number: int) -> None:
        ours = [subject(f"{number}-{i}") for i in range(100)]
        index.put(ours)
        index.drop(entry.id for entry in ours[::2])

    _run(threading.Thread(target=write, args=(number,)) for number in range(4))
    assert len(index) == 200
    assert index.find(caller(subject="3-1"), NOW) is not None
    assert index.find(caller(subject="3-2"), NOW) is None


def _run(threads: Iterable[threading.Thread]) -> None:
    started = list(threads)
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()


def test_a_writer_that_stayed_behind_in_the_parent_leaves_nothing_half_done() -> None:
    """A fork in the midst of a removal: the revocation is no longer found, though it still is among the entries."""
    index = RevocationIndex([subject(), subject("bob")])
    before = index.epoch(NOW)
    index._lock.acquire()
    index._found[Scope.SUBJECT].clear()
    index.renew_after_fork()
    assert finds_again(index, NOW)
    assert index.epoch(NOW) != before
    index.drop([subject().id])
    assert not finds_again(index, NOW)
