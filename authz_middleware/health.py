"""How an application's enforcement point is: whether it can decide, and what somebody should look at (capability C48).

`health_of` looks at what the process knows already, and at revocations as every decision does. It opens no socket and
waits for nobody, so that an event loop may ask, and somebody who asks again and again costs no more than by decisions.

*Ready* means that sending requests here makes sense: it is for a load balancer, which takes an instance out that is
not. So what somebody has chosen beforehand does not end it. A decision point that does not answer is shown, and the
chosen fallbacks decide; were every instance to leave at that moment, nothing would be left to fall back. The same holds
for revocations while `last_known` is in its time, and for a decision log that may drop records. And what clients can
bring about (a token that names a status list which cannot be had) is shown only.

Texts and addresses in here are for operators, not for whoever may call a health check from outside.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import msgspec

from authz_middleware.remote.breaker import BreakerReading, BreakerState
from authz_middleware.revocation.feeds.reading import FeedReading
from authz_middleware.revocation.guard import TOLERANCE_S
from authz_middleware.revocation.store import Reading
from authz_middleware.settings.revocations import RevocationSettings

if TYPE_CHECKING:
    from authz_middleware.pep import EnforcementPoint


class PolicyHealth(msgspec.Struct, frozen=True):
    """The policy in force, for `age_s` seconds. `problem` says why the file as it is now is not."""

    name: str
    revision: str
    serial: int | None
    age_s: float
    problem: str | None = None


class DecisionPointHealth(msgspec.Struct, frozen=True):
    """The decision point, as far as its breaker knows it."""

    url: str
    breaker: BreakerReading


class RevocationHealth(msgspec.Struct, frozen=True):
    """What is known of revocations.

    `lag_s` is the seconds since it was last known what is revoked: 0.0 while it is, None when it never was. `problem`
    is the stable code of why it is not known now; `feeds` say the same of every feed.
    """

    lag_s: float | None
    problem: str | None
    feeds: tuple[FeedReading, ...] = ()


class RecordHealth(msgspec.Struct, frozen=True):
    """The decision log of this process: records that wait, and those that will never be written. `dropped` had no room,
    `failed` were not taken by the sink. `failing` says whether it takes none at the moment."""

    waiting: int
    dropped: int
    failed: int
    failing: bool


class Health(msgspec.Struct, frozen=True):
    """The enforcement point at one time. `problems` are texts for people, the worst first; those of a ready one are
    what it lives with. A part is None where the settings do not have it, or where it could not be told."""

    ready: bool
    problems: tuple[str, ...] = ()
    policy: PolicyHealth | None = None
    decision_point: DecisionPointHealth | None = None
    revocations: RevocationHealth | None = None
    records: RecordHealth | None = None


class _Finding(msgspec.Struct, frozen=True):
    """Something to look at. `ends` says whether it ends readiness."""

    what: str
    ends: bool = False


def health_of(pep: EnforcementPoint, *, monotonic: Callable[[], float] = time.monotonic) -> Health:
    """How this enforcement point is now. Never raises: what cannot be told is not ready.

    `monotonic` is the clock of the engine, in seconds.
    """
    try:
        return _look(pep, monotonic())
    except Exception as error:  # noqa: BLE001 - its text may quote anything
        return Health(ready=False, problems=(f"its state cannot be told ({type(error).__name__})",))


def _look(pep: EnforcementPoint, moment: float) -> Health:
    now = pep.clock()
    policy, point, records = _policy(pep), _decision_point(pep, moment), _records(pep)
    revocations, reading = _revocations(pep, now)
    found = [*_policy_findings(policy), *_record_findings(pep, records)]
    chosen = pep.settings.revocations
    if chosen is not None and revocations is not None and reading is not None:
        found += [*_store_findings(chosen, reading, now), *_feed_findings(chosen, revocations.feeds)]
    if point is not None:
        found += _breaker_findings(point)
    found.sort(key=lambda finding: not finding.ends)
    return Health(
        ready=not any(finding.ends for finding in found),
        problems=tuple(finding.what for finding in found),
        policy=policy,
        decision_point=point,
        revocations=revocations,
        records=records,
    )


def _policy(pep: EnforcementPoint) -> PolicyHealth | None:
    snapshot = pep.policy.current
    if snapshot is None:
        return None
    return PolicyHealth(
        snapshot.name, snapshot.revision, snapshot.serial, round(pep.policy.age or 0.0, 3), pep.policy_problem
    )


def _policy_findings(policy: PolicyHealth | None) -> Iterator[_Finding]:
    if policy is None:
        yield _Finding("no policy is in force: every request is refused", ends=True)
    elif policy.problem is not None:
        yield _Finding(f"the policy file is not in force, the last good one is: {policy.problem}")


def _decision_point(pep: EnforcementPoint, moment: float) -> DecisionPointHealth | None:
    remote, breaker = pep.settings.remote, pep.engine.breaker
    if remote is None or breaker is None:
        return None
    return DecisionPointHealth(remote.url, breaker.reading(moment))


def _breaker_findings(point: DecisionPointHealth) -> Iterator[_Finding]:
    breaker = point.breaker
    if breaker.state is not BreakerState.CLOSED:
        yield _Finding(
            f"the decision point {point.url} has not answered for {breaker.away_for or 0.0:.0f} s ({breaker.trigger}): "
            f"the chosen fallbacks decide; it is asked again in {breaker.asks_again_in or 0.0:.1f} s at the earliest"
        )


def _revocations(pep: EnforcementPoint, now: float) -> tuple[RevocationHealth | None, Reading | None]:
    revocations = pep.revocations
    if revocations is None:
        return None, None
    reading = revocations.store.reading(now)
    feeds = () if revocations.feeds is None else revocations.feeds.readings(now)
    problem = None if reading.trouble is None else reading.trouble.value
    return RevocationHealth(revocations.lag(), problem, feeds), reading


def _store_findings(chosen: RevocationSettings, reading: Reading, now: float) -> Iterator[_Finding]:
    if reading.trouble is None:
        return
    known = None if reading.index is None or reading.as_of is None else now - reading.as_of
    yield _unknown(f"what is revoked cannot be read ({reading.trouble.value})", chosen, known)


def _feed_findings(chosen: RevocationSettings, feeds: tuple[FeedReading, ...]) -> Iterator[_Finding]:
    named = {uri for lists in chosen.feeds.status_lists for uri in lists.uris}
    stores = {entry.name for entry in chosen.feeds.lists}  # a list that cannot be read is a trouble of the store
    for feed in feeds:
        if feed.readable or feed.name in stores:
            continue
        what = f"the feed {feed.name} cannot be used ({feed.problem or 'not fetched yet'})"
        yield _unknown(what, chosen, feed.lag) if feed.name in named else _Finding(what)


def _unknown(what: str, chosen: RevocationSettings, known: float | None) -> _Finding:
    """What was known last, `known` seconds ago, may have been chosen to decide by: for most actions by the default."""
    choice = chosen.on_unavailable.default
    if choice.mode == "last_known" and known is not None and -TOLERANCE_S <= known < choice.max_age:
        ago = max(0.0, known)
        return _Finding(f"{what}: what was known {ago:.0f} s ago decides, until it is {choice.max_age:.0f} s old")
    return _Finding(f"{what}: requests are refused", ends=True)


def _records(pep: EnforcementPoint) -> RecordHealth:
    counted = pep.recorder.counters
    waiting = counted.submitted - counted.written - counted.dropped - counted.failed
    return RecordHealth(max(0, waiting), counted.dropped, counted.failed, pep.recorder.is_failing)


def _record_findings(pep: EnforcementPoint, records: RecordHealth) -> Iterator[_Finding]:
    log = pep.settings.decision_log
    refuses = log.mode != "best_effort"
    then = "requests are refused" if refuses else "records are dropped"
    if records.waiting >= log.queue:
        yield _Finding(f"{records.waiting} records wait for the decision log, which has no more room: {then}", refuses)
    elif records.failing:
        yield _Finding(f"the decision log takes no records; when there is no more room for them, {then}", refuses)
    if records.dropped or records.failed:
        yield _Finding(f"{records.dropped + records.failed} records of this process were lost")
