"""The middleware in synchronous, asynchronous and mixed stacks: no thread hop of its own, and nothing left behind."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from asgiref.sync import SyncToAsync, iscoroutinefunction
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient, Client, override_settings
from django.urls import path

from authz_django import AuthzMiddleware
from authz_middleware import authz, requires
from authz_middleware.current import current_authorization
from tests.django.conftest import OpenSite
from tests.django_project.site import open_site, token

HOSTILE = "tests.django_project.middleware."


@requires("invoice:read")
def subject(request: HttpRequest) -> HttpResponse:
    assert authz.principal is not None
    return HttpResponse(authz.principal.subject)


@requires("invoice:read")
async def subject_async(request: HttpRequest) -> HttpResponse:
    assert authz.principal is not None
    return HttpResponse(authz.principal.subject)


@requires("invoice:read")
def broken(request: HttpRequest) -> HttpResponse:
    raise RuntimeError("broken")


def early(request: HttpRequest) -> HttpResponse:
    return HttpResponse(request.META["test.early"])


PATTERNS = (
    path("subject/", subject),
    path("subject-async/", subject_async),
    path("broken/", broken),
    path("early/", requires("invoice:read")(early)),
)

STACKS: list[dict[str, Any]] = [
    {place: [HOSTILE + name]} for place in ("before", "after") for name in ("SyncOnly", "AsyncOnly", "Welcome")
] + [{"before": [HOSTILE + "SyncOnly"], "after": [HOSTILE + "AsyncOnly"]}]


@pytest.mark.parametrize("stack", STACKS, ids=str)
@pytest.mark.parametrize("url", ["/subject/", "/subject-async/"])
def test_views_of_both_colours_know_their_caller_in_every_stack(
    site: OpenSite, url: str, stack: dict[str, Any]
) -> None:
    shop = site(*PATTERNS, **stack)
    assert shop.ask("GET", url, "invoice:read").content == b"alice"
    assert shop.ask("GET", url, "billing:use").status_code in (403, 200)
    assert shop.reasons == ["permitted", "rule.none"]


@pytest.mark.parametrize("stack", STACKS[:2] + STACKS[3:5], ids=str)
@pytest.mark.parametrize("url", ["/subject/", "/subject-async/", "/broken/", "/nowhere/"])
def test_no_authorization_is_left_behind(site: OpenSite, url: str, stack: dict[str, Any]) -> None:
    outside = [HOSTILE + "SeesContext", *stack.get("before", [])]
    shop = site(*PATTERNS, before=outside, after=stack.get("after", []))
    assert shop.ask("GET", url, "invoice:read")["x-left-behind"] == "False"
    assert current_authorization.get(None) is None


def test_before_the_view_nobody_is_known(site: OpenSite) -> None:
    shop = site(*PATTERNS, after=[HOSTILE + "ChecksEarly"])
    assert b"has not reached its view" in shop.ask("GET", "/early/", "invoice:read").content


async def test_an_asynchronous_request_never_leaves_the_event_loop_thread(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[int] = []
    hops: list[str] = []

    @requires("invoice:read")
    async def view(request: HttpRequest) -> HttpResponse:
        threads.append(threading.get_ident())
        return HttpResponse("")

    hop = SyncToAsync.__call__

    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        hops.append(getattr(self.func, "__qualname__", repr(self.func)))
        return hop(self, *args, **kwargs)

    async def ask() -> list[str]:
        reply = await AsyncClient().get("/", headers={"authorization": token("invoice:read")})
        assert reply.status_code == 200
        seen, hops[:] = [*hops], []
        return seen

    monkeypatch.setattr(SyncToAsync, "__call__", counted)
    with open_site(tmp_path, "async", path("", view), tables={"decision_log": {"sink": "stderr"}}):
        guarded = await ask()
        with override_settings(MIDDLEWARE=[]):
            bare = await ask()
    assert threads == [threading.get_ident()] * 2
    assert guarded == bare


def test_a_synchronous_stack_starts_no_event_loop(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> Any:
        raise AssertionError("an event loop was started")

    with open_site(tmp_path, "sync", path("", subject)) as shop:
        monkeypatch.setattr(asyncio, "new_event_loop", refuse)
        assert shop.ask("GET", "/", "invoice:read").content == b"alice"


def test_the_colour_is_that_of_the_stack(tmp_path: Any) -> None:
    async def answer(request: HttpRequest) -> HttpResponse:
        return HttpResponse("")

    with open_site(tmp_path, "sync", path("", subject)):
        sync, async_ = AuthzMiddleware(lambda request: HttpResponse("")), AuthzMiddleware(answer)
    assert [iscoroutinefunction(sync), iscoroutinefunction(sync.process_view)] == [False, False]
    assert [iscoroutinefunction(async_), iscoroutinefunction(async_.process_view)] == [True, True]


async def test_concurrent_requests_keep_their_callers_apart(tmp_path: Any) -> None:
    @requires("invoice:read")
    async def slow(request: HttpRequest) -> HttpResponse:
        first = authz.principal
        await asyncio.sleep(0.01)
        assert first is not None
        assert authz.principal is first
        return HttpResponse(first.subject)

    with open_site(tmp_path, "async", path("", slow)):
        client = AsyncClient()
        names = [f"user-{number}" for number in range(20)]
        headers = [{"authorization": token("invoice:read", sub=name)} for name in names]
        replies = await asyncio.gather(*(client.get("/", headers=each) for each in headers))
    assert [reply.content.decode() for reply in replies] == names


def test_concurrent_threads_keep_their_callers_apart(tmp_path: Any) -> None:
    found: dict[str, str] = {}

    def ask(client: Client, name: str) -> None:
        reply = client.get("/", headers={"authorization": token("invoice:read", sub=name)})
        found[name] = reply.content.decode()

    with open_site(tmp_path, "sync", path("", subject)):
        client = Client()
        client.get("/")
        threads = [threading.Thread(target=ask, args=(client, f"user-{number}")) for number in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == {name: name for name in found}
    assert len(found) == 10


async def test_a_cancelled_request_leaves_nothing_behind(tmp_path: Any) -> None:
    started = asyncio.Event()

    @requires("invoice:read")
    async def endless(request: HttpRequest) -> HttpResponse:
        started.set()
        await asyncio.sleep(60)
        return HttpResponse("")

    with open_site(tmp_path, "async", path("", endless)):
        asked = asyncio.ensure_future(AsyncClient().get("/", headers={"authorization": token("invoice:read")}))
        await started.wait()
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
    assert current_authorization.get(None) is None
