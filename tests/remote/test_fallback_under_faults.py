"""Every kind of failure, made by a real decision point, meets every fallback, in both colours, through the whole
enforcement point: an outage takes what was chosen for it, a fault refuses unless a person chose otherwise."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import pytest

from authz_middleware import Decision, Reason, Settings, requires
from authz_middleware.authorization import Authorization
from authz_middleware.decision import Fallback, FallbackMode, Source
from authz_middleware.facts import RequestFacts
from authz_middleware.pep import EnforcementPoint
from authz_middleware.permission import Requirement, annotations_of
from authz_middleware.remote.failure import FailureKind
from tests.support.asking import COLOURS
from tests.support.faults import CHUNKED, HEADERS
from tests.support.pdp import (
    PERMIT,
    Behaviour,
    ScriptedServer,
    answer,
    certificate,
    drip,
    hang,
    hang_up,
    reply,
    reset,
    response,
    then_reset,
)
from tests.support.tokens import bearer
from tests.support.treasury import records, settings, token

FACTS: Final = RequestFacts(method="POST", route="/", endpoint="app:act")
DEADLINE: Final = 0.5

MODES: Final = {
    FallbackMode.DENY: "invoice:approve",
    FallbackMode.DEGRADE: "report:read",
    FallbackMode.CACHED: "invoice:export",
}
"""An action of the treasury for each mode."""

Break = Callable[[ScriptedServer, Path], None]
"""What happens to the decision point after its first answer, where that is not what it answers."""


def _go_away(server: ScriptedServer, _: Path) -> None:
    server.__exit__()


def _turn_into_another(server: ScriptedServer, folder: Path) -> None:
    other = folder / "other"
    other.mkdir()
    server.tls = certificate(other)[1]


OUTAGES: Final[dict[str, tuple[Behaviour | Break, FailureKind]]] = {
    "nobody listens": (_go_away, FailureKind.CONNECT),
    "silence": (hang, FailureKind.DEADLINE),
    "drops": (drip(response()), FailureKind.DEADLINE),
    "closed": (hang_up, FailureKind.CLOSED),
    "reset": (reset, FailureKind.CLOSED),
    "reset in a permit": (then_reset(response()[:-1]), FailureKind.CLOSED),
    "500 with a permit": (answer(status="500 Oops"), FailureKind.STATUS_5XX),
    "503 with a permit": (answer(status="503 Service Unavailable"), FailureKind.STATUS_5XX),
    "429 with a permit": (answer(status="429 Too Many Requests"), FailureKind.THROTTLED),
}
FAULTS: Final[dict[str, tuple[Behaviour | Break, FailureKind]]] = {
    "400 with a permit": (answer(status="400 Bad Request"), FailureKind.STATUS_4XX),
    "401 with a permit": (answer(status="401 Unauthorized"), FailureKind.STATUS_4XX),
    "403 with a permit": (answer(status="403 Forbidden"), FailureKind.STATUS_4XX),
    "redirect with a permit": (
        answer(status="307 Moved", headers=f"{HEADERS}Location: http://127.0.0.1:1/\r\n"),
        FailureKind.REDIRECT,
    ),
    "201 with a permit": (answer(status="201 Created"), FailureKind.MALFORMED),
    "not HTTP": (reply(PERMIT, keep=False), FailureKind.MALFORMED),
    "no decision": (answer(b"{}"), FailureKind.MALFORMED),
    "bad chunks": (reply(CHUNKED + b"zz\r\n" + PERMIT), FailureKind.MALFORMED),
    "another's permit": (answer(headers=f"{HEADERS}X-Request-ID: other\r\n"), FailureKind.MISMATCHED),
    "another's certificate": (_turn_into_another, FailureKind.CONFIG),
}


@pytest.fixture(params=COLOURS)
def colour(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Client:
    """An enforcement point of the treasury, in one colour."""

    def __init__(self, colour: str, folder: Path, chosen: dict[str, Any], **members: Any) -> None:
        self._folder = folder
        self._runner = asyncio.Runner() if colour == "async" else None
        self._credentials = bearer(token(roles=["manager"]))
        self._pep = EnforcementPoint(Settings.from_mapping(chosen), **members)
        self._pep.start()

    def enforce(self, action: str) -> Authorization:
        requirement = Requirement.of(annotations_of(requires(action, sensitive=True)(lambda: None)))
        if self._runner is None:
            return self._pep.enforce(FACTS, self._credentials, requirement)
        return self._runner.run(self._pep.aenforce(FACTS, self._credentials, requirement))

    def last_record(self) -> dict[str, Any]:
        self._pep.recorder.flush()
        return dict(records(self._folder)[-1]["authz"])

    def close(self) -> None:
        if self._runner is None:
            self._pep.close()
        else:
            with self._runner:
                self._runner.run(self._pep.aclose())


def settled(folder: Path, url: str, *, on_faults: bool, **remote: Any) -> dict[str, Any]:
    values = settings(folder, remote=url)
    values["remote"] |= {"deadline": f"{int(DEADLINE * 1000)}ms", **remote}
    if on_faults:
        for choice in values["fallback"]["actions"].values():
            choice["on_faults"] = True
    return values


def fail(
    colour: str, folder: Path, mode: FallbackMode, how: Behaviour | Break, *, on_faults: bool = False
) -> tuple[Authorization, dict[str, Any], float]:
    """What becomes of a request when the decision point, which has permitted it once, fails like this; its record, and
    the seconds it took."""
    with ExitStack() as stack:
        trusted, context = certificate(folder)
        is_break = how in (_go_away, _turn_into_another)
        behaviours = [answer(headers=f"{HEADERS}Connection: close\r\n")] + ([] if is_break else [how])
        server = ScriptedServer(*behaviours, tls=context)  # type: ignore[arg-type]
        server.__enter__()
        stack.callback(server.__exit__)
        client = Client(colour, folder, settled(folder, server.url, on_faults=on_faults, ca_file=str(trusted)))
        stack.callback(client.close)
        assert client.enforce(MODES[mode]).decision.source is Source.REMOTE
        if is_break:
            how(server, folder)  # type: ignore[call-arg, arg-type]
        began = time.monotonic()
        told = client.enforce(MODES[mode])
        return told, client.last_record(), time.monotonic() - began


def served(told: Authorization) -> tuple[bool, Source | None, Fallback | None]:
    decision: Decision = told.decision
    fallback = decision.fallback
    ageless = None if fallback is None else Fallback(fallback.trigger, fallback.mode)
    return decision.permit, decision.source, ageless


@pytest.mark.capability("C30", "C31", "C32", "C34")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("outage", OUTAGES)
def test_an_outage_takes_the_chosen_fallback(colour: str, tmp_path: Path, outage: str, mode: FallbackMode) -> None:
    how, kind = OUTAGES[outage]
    told, record, took = fail(colour, tmp_path, mode, how)
    permit = mode is not FallbackMode.DENY
    assert served(told) == (permit, Source.FALLBACK, Fallback(kind.value, mode))
    assert told.decision.degraded is (mode is FallbackMode.DEGRADE)
    assert (told.refusal is None) is permit
    if told.refusal is not None:
        assert told.refusal.status == 503
    assert record["fallback"]["trigger"] == kind.value
    assert record["fallback"]["mode"] == mode.value
    assert took < DEADLINE + 0.5


@pytest.mark.capability("C30", "C33")
@pytest.mark.promise("P3", "P4")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_refuses_whatever_was_chosen_for_an_outage(
    colour: str, tmp_path: Path, fault: str, mode: FallbackMode
) -> None:
    how, kind = FAULTS[fault]
    told, record, _ = fail(colour, tmp_path, mode, how)
    assert served(told) == (False, Source.FALLBACK, Fallback(kind.value, FallbackMode.DENY))
    assert told.decision.reason is Reason.REMOTE_UNAVAILABLE
    assert told.refusal is not None
    assert told.refusal.status == 503
    assert record["fallback"]["trigger"] == kind.value


@pytest.mark.capability("C33")
@pytest.mark.parametrize("mode", [FallbackMode.DEGRADE, FallbackMode.CACHED])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_takes_the_fallback_where_the_settings_say_so(
    colour: str, tmp_path: Path, fault: str, mode: FallbackMode
) -> None:
    how, kind = FAULTS[fault]
    told, _, _ = fail(colour, tmp_path, mode, how, on_faults=True)
    assert served(told) == (True, Source.FALLBACK, Fallback(kind.value, mode))


@pytest.mark.capability("C30", "C34")
@pytest.mark.parametrize("mode", MODES)
def test_an_open_breaker_takes_the_chosen_fallback_without_asking(
    colour: str, tmp_path: Path, mode: FallbackMode
) -> None:
    with ScriptedServer(answer(), answer(status="503 Service Unavailable")) as server:
        chosen = settled(tmp_path, server.url, on_faults=False, breaker={"failures": 1, "pause": "1m"})
        client = Client(colour, tmp_path, chosen)
        assert client.enforce(MODES[mode]).decision.source is Source.REMOTE
        client.enforce(MODES[mode])
        asked = len(server.requests)
        told = client.enforce(MODES[mode])
        client.close()
        assert len(server.requests) == asked == 2
    trigger = Fallback(FailureKind.BREAKER_OPEN.value, mode)
    assert served(told) == (mode is not FallbackMode.DENY, Source.FALLBACK, trigger)


class _Broken:
    """A transport with a mistake."""

    def post(self, *_: object) -> Any:
        raise ValueError("a mistake")

    def close(self) -> None:
        pass


class _AsyncBroken:
    async def post(self, *_: object) -> Any:
        raise ValueError("a mistake")

    async def aclose(self) -> None:
        pass


@pytest.mark.capability("C30")
@pytest.mark.promise("P3")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("on_faults", [False, True])
def test_a_mistake_of_a_transport_refuses_whatever_was_chosen(
    colour: str, tmp_path: Path, mode: FallbackMode, on_faults: bool
) -> None:
    chosen = settled(tmp_path, "http://127.0.0.1:9", on_faults=on_faults)
    client = Client(colour, tmp_path, chosen, transport=_Broken(), async_transport=_AsyncBroken())
    told = client.enforce(MODES[mode])
    client.close()
    assert served(told) == (False, Source.FALLBACK, Fallback(FailureKind.INTERNAL.value, FallbackMode.DENY))


@pytest.mark.capability("C29")
@pytest.mark.parametrize("mode", MODES)
def test_a_deny_is_a_deny_and_takes_no_fallback(colour: str, tmp_path: Path, mode: FallbackMode) -> None:
    told, record, _ = fail(colour, tmp_path, mode, answer(b'{"decision":false}'), on_faults=True)
    assert served(told) == (False, Source.REMOTE, None)
    assert told.refusal is not None
    assert told.refusal.status == 403
    assert "fallback" not in record
