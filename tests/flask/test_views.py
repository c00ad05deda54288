"""What a view has of the decision that let it in, and how it asks for more."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Response, copy_current_request_context, g, stream_with_context

from authz_middleware import AccessDenied, NoRequestError, Resource, ResourceLoaders, authz, requires
from authz_middleware.current import current_authorization
from authz_middleware.remote.transport.asyncio_transport import AsyncioTransport
from tests.flask.office import NOBODY_LISTENS, Office, bearer, clerk, everyone, fail, is_refusal

readers = requires("invoice:read")


def test_a_view_finds_who_calls_and_what_was_decided(office: Office) -> None:
    app = office.app()

    @app.get("/invoices")
    @readers
    def read() -> dict[str, Any]:
        assert authz.current is g.authz
        assert g.authz.principal is not None
        return {
            "subject": g.authz.principal.subject,
            "rule": authz.decision.rule,
            "degraded": g.authz.degraded,
        }

    reply = office.guard(app).get("/invoices", headers=bearer(sub="carol"))

    assert reply.get_json() == {"subject": "carol", "rule": "readers", "degraded": False}


def test_a_public_view_has_no_caller(office: Office) -> None:
    app = office.app()
    app.add_url_rule("/", "index", everyone(lambda: str(g.authz.principal)))

    assert office.guard(app).get("/").data == b"None"


def test_hooks_after_the_request_find_the_decision_refused_or_not(office: Office) -> None:
    app = office.app()

    @app.after_request
    def tell(response: Response) -> Response:
        response.headers["X-Reason"] = g.authz.decision.reason.value
        return response

    app.add_url_rule("/invoices", view_func=readers(office.view("read")))
    client = office.guard(app)

    assert client.get("/invoices").headers["x-reason"] == "credential.missing"
    assert client.get("/invoices", headers=bearer()).headers["x-reason"] == "permitted"


def test_permitted_tells_and_check_insists(office: Office) -> None:
    app = office.app()

    @app.get("/invoices/<number>")
    @requires("invoice:read", "invoice/{number}")
    def approve(number: str) -> dict[str, bool]:
        if authz.permitted("invoice:approve", f"invoice/{number}"):
            authz.check("invoice:approve", Resource("invoice", number))
            return {"approved": True}
        return {"approved": False}

    client = office.guard(app)

    assert client.get("/invoices/7", headers=bearer()).get_json() == {"approved": False}
    assert client.get("/invoices/7", headers=clerk()).get_json() == {"approved": True}
    asked = [(record["path"], record["input"]["resource"]["id"], record["result"]) for record in office.records]
    assert asked == [
        ("authz/invoice/read", "7", True),
        ("authz/invoice/approve", "7", False),
        ("authz/invoice/read", "7", True),
        ("authz/invoice/approve", "7", True),
        ("authz/invoice/approve", "7", True),
    ]


def test_nothing_of_a_request_is_left_behind_for_the_next(office: Office) -> None:
    app = office.app()
    app.add_url_rule("/invoices", view_func=readers(office.view("read")))
    app.add_url_rule("/fail", "fail", readers(fail))
    app.add_url_rule("/check", "check", readers(lambda: str(authz.check("invoice:approve"))))
    client = office.guard(app)

    for path in ("/invoices", "/fail", "/check", "/missing"):
        for headers in ({}, bearer()):
            client.get(path, headers=headers)
            assert current_authorization.get(None) is None
    with pytest.raises(NoRequestError):
        authz.check("invoice:read")


@pytest.mark.parametrize("shared", [True, False])
def test_a_request_inside_a_request_leaves_the_outer_one_its_own_decision(office: Office, shared: bool) -> None:
    """Flask gives both the same `g` when they are of one application."""
    app = office.app()
    app.add_url_rule("/inner", "inner", readers(lambda: g.authz.principal.subject))
    seen = []

    @app.after_request
    def after(response: Response) -> Response:
        seen.append(g.authz.principal and g.authz.principal.subject)
        return response

    other = app if shared else office.app("other")

    @other.get("/outer")
    @readers
    def outer() -> dict[str, str]:
        inner = app.test_client().get("/inner", headers=bearer(sub="inner"))
        refused = app.test_client().get("/inner")
        return {
            "inner": inner.text,
            "refused": str(refused.status_code),
            "g": g.authz.principal.subject,
            "authz": str(authz.principal and authz.principal.subject),
        }

    client = office.guard(app)
    client = client if shared else office.guard(other)

    assert client.get("/outer", headers=bearer(sub="outer")).get_json() == {
        "inner": "inner",
        "refused": "401",
        "g": "outer",
        "authz": "outer",
    }
    # Hooks of the inner application see the inner request, but for one that shares its `g` with a view still running.
    assert seen == (["outer", "outer", "outer"] if shared else ["inner", None])


def test_threads_answer_at_the_same_time_each_for_its_own_caller(office: Office) -> None:
    app = office.app()
    barrier = threading.Barrier(4, timeout=10)

    @app.get("/me")
    @readers
    def me() -> str:
        barrier.wait()
        assert authz.principal is not None
        return authz.principal.subject

    office.guard(app)
    answers: dict[str, str] = {}

    def call(subject: str) -> None:
        answers[subject] = app.test_client().get("/me", headers=bearer(sub=subject)).text

    threads = [threading.Thread(target=call, args=(subject,)) for subject in ("a", "b", "c", "d")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert answers == {subject: subject for subject in ("a", "b", "c", "d")}


def test_a_thread_of_a_view_has_no_authority_of_its_own(office: Office) -> None:
    app = office.app()

    @app.get("/invoices")
    @readers
    def read() -> str:
        seen = []

        def work() -> None:
            try:
                authz.check("invoice:read")
            except NoRequestError as error:
                seen.append(type(error).__name__)

        def work_in_context() -> None:
            seen.append(g.authz.principal.subject if "authz" in g else "no g of its own")

        for target in (work, copy_current_request_context(work_in_context)):
            thread = threading.Thread(target=target)
            thread.start()
            thread.join()
        return " ".join(seen)

    assert office.guard(app).get("/invoices", headers=bearer()).text == "NoRequestError no g of its own"


def tenants() -> ResourceLoaders:
    loaders = ResourceLoaders()
    loaders.register("ledger")({"1": {"tenant": "acme"}, "2": {"tenant": "globex"}}.get)
    return loaders


@pytest.mark.parametrize(("number", "status"), [("1", 200), ("2", 403), ("3", 403)])
def test_attributes_of_a_resource_are_loaded_before_the_view_runs(office: Office, number: str, status: int) -> None:
    app = office.app()
    app.add_url_rule("/<number>", view_func=requires("ledger:read", "ledger/{number}")(office.view("ledger")))
    client = office.guard(app, loaders=tenants())

    assert client.get(f"/{number}", headers=bearer(tenant="acme")).status_code == status
    assert office.ran == (["ledger"] if status == 200 else [])


@pytest.mark.parametrize("number", ["1", "2"])
def test_an_async_view_asks_with_either_colour(office: Office, number: str) -> None:
    app = office.app()

    @app.get("/<number>")
    @readers
    async def read(number: str) -> list[object]:
        await asyncio.sleep(0)
        resource = f"ledger/{number}"
        assert authz.current is g.authz
        return [
            await authz.apermitted("ledger:read", resource),
            authz.permitted("ledger:read", resource),
            (await authz.acheck("invoice:read")).rule,
            authz.check("invoice:read").rule,
        ]

    client = office.guard(app, loaders=tenants())

    holds = number == "1"
    reply = client.get(f"/{number}", headers=bearer(tenant="acme"))
    assert reply.get_json() == [holds, holds, "readers", "readers"]
    assert [record["result"] for record in office.records] == [True, holds, holds, True, True]


@pytest.mark.parametrize("colour", ["check", "acheck"])
@pytest.mark.parametrize("swallow", [True, False])
def test_a_refused_check_in_an_async_view_is_the_refusal(office: Office, colour: str, swallow: bool) -> None:
    app = office.app()
    app.register_error_handler(Exception, lambda _: ("welcome", 200))

    @app.get("/invoices")
    @readers
    async def approve() -> str:
        try:
            answer = getattr(authz, colour)("invoice:approve")
            if colour == "acheck":
                await answer
        except AccessDenied:
            if not swallow:
                raise
        return "approved"

    client = office.guard(app)

    assert is_refusal(client.get("/invoices", headers=bearer()), 403)
    assert client.get("/invoices", headers=clerk()).data == b"approved"
    assert current_authorization.get(None) is None


def test_questions_in_an_async_view_leave_no_connection_of_its_event_loop_behind(
    office: Office, recwarn: pytest.WarningsRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They go out by the blocking transport."""

    def refuse(*_: object) -> None:
        raise AssertionError("the transport of event loops is used")

    monkeypatch.setattr(AsyncioTransport, "post", refuse)
    app = office.app()

    @app.get("/invoices")
    @readers
    async def report() -> list[bool]:
        asked = [authz.apermitted("report:read") for _ in range(3)]
        return list(await asyncio.gather(*asked))

    client = office.guard(app)

    assert client.get("/invoices", headers=bearer()).get_json() == [True, True, True]
    assert {record["authz"].get("fallback", {}).get("trigger") for record in office.records[1:]} <= {
        "connect",
        "breaker_open",
    }
    assert [str(warning.message) for warning in recwarn if "nclosed" in str(warning.message)] == []


def test_a_streamed_body_may_check_while_it_is_made(office: Office) -> None:
    app = office.app()

    @app.get("/export")
    @readers
    def export() -> Iterator[str]:
        for row in ("a", "b"):
            authz.check("invoice:read")
            yield row

    assert office.guard(app).get("/export", headers=bearer()).data == b"ab"
    assert office.reasons == ["permitted"] * 3
    assert current_authorization.get(None) is None


@pytest.mark.parametrize("swallow", [True, False])
def test_a_check_refused_before_the_first_byte_of_a_streamed_body_is_the_refusal(office: Office, swallow: bool) -> None:
    app = office.app()
    closed = []

    @app.get("/export")
    @readers
    def export() -> Response:
        def rows() -> Iterator[str]:
            try:
                yield ""
                try:
                    g.authz.check("invoice:approve")
                except AccessDenied:
                    if not swallow:
                        raise
                yield "secret"
            finally:
                closed.append(True)

        return Response(stream_with_context(rows()), headers={"X-Rows": "1"})

    with office.guard(app).get("/export", headers=bearer()) as reply:
        assert is_refusal(reply, 403)
        assert "x-rows" not in reply.headers
    assert closed == [True]


def test_a_check_refused_in_the_middle_of_a_streamed_body_ends_it(office: Office) -> None:
    app = office.app()

    @app.get("/export")
    @readers
    def export() -> Iterator[str]:
        yield "public"
        authz.check("invoice:approve")
        yield "secret"

    client = office.guard(app)

    received: list[bytes] = []
    with pytest.raises(AccessDenied), client.get("/export", headers=bearer()) as reply:
        received.extend(reply.iter_encoded())
    assert received in ([], [b"public"])


@pytest.mark.capability("C46")
def test_observing_refuses_nothing_and_records_what_it_would_have_refused(office: Office) -> None:
    app = office.app()
    app.add_url_rule("/bare", view_func=office.view("bare"))
    app.add_url_rule("/invoices", view_func=requires("desk:work")(office.view("desk")))

    @app.get("/check")
    @readers
    def check() -> list[bool]:
        authz.check("invoice:approve")
        return [authz.permitted("invoice:approve")]

    app.add_url_rule("/hooked", view_func=readers(office.view("hooked")))
    app.before_request(lambda: "by a hook" if "hook" in __import__("flask").request.args else None)
    client = office.guard(app, mode="observe")

    assert client.get("/bare").data == b"bare"
    assert client.get("/invoices", headers=bearer()).data == b"desk"
    assert client.get("/check", headers=bearer()).get_json() == [True]
    assert client.get("/hooked?hook=1").data == b"by a hook"
    outcomes = [(record["authz"]["reason"], record["authz"].get("shadow", False)) for record in office.records]
    assert outcomes == [
        ("credential.missing", True),
        ("input.missing", True),
        ("permitted", False),
        ("input.missing", True),
        ("input.missing", True),
        ("guard.undecided", True),
    ]


@pytest.mark.capability("C46")
def test_the_same_application_refuses_once_the_settings_say_enforce(office: Office) -> None:
    app = office.app()
    app.add_url_rule("/bare", view_func=office.view("bare"))

    assert is_refusal(office.guard(app, mode="enforce").get("/bare"), 401)


@pytest.mark.capability("C1")
def test_the_same_token_is_decided_anew_under_a_new_policy(office: Office) -> None:
    app = office.app()
    app.add_url_rule("/invoices", view_func=readers(office.view("read")))
    client = office.guard(app)
    headers = bearer()
    assert client.get("/invoices", headers=headers).status_code == 200

    policy = office.folder / "office.yaml"
    policy.write_text(policy.read_text().replace("invoices.read", "invoices.audit"))
    app.extensions["authz"].pep.policy.reload()

    assert is_refusal(client.get("/invoices", headers=headers), 403)


def test_a_response_says_that_narrower_rules_let_it_through(office: Office) -> None:
    app = office.app()
    app.add_url_rule("/reports", "read", requires("report:read")(lambda: str(g.authz.degraded)))
    app.add_url_rule("/runs", view_func=requires("report:run")(office.view("run")))
    app.add_url_rule("/invoices", view_func=readers(office.view("invoices")))
    client = office.guard(app, remote={"url": NOBODY_LISTENS, "deadline": "500ms"})

    degraded, refused = client.get("/reports", headers=bearer()), client.get("/runs", headers=bearer())

    assert (degraded.data, degraded.headers["authz-degraded"]) == (b"True", "true")
    assert is_refusal(refused, 503)
    assert "retry-after" in refused.headers
    assert "authz-degraded" not in client.get("/invoices", headers=bearer()).headers
    assert office.ran == ["invoices"]


def test_a_token_is_in_no_record_header_or_repr(office: Office) -> None:
    app = office.app()
    app.add_url_rule("/invoices", "read", readers(lambda: repr(g.authz) + repr(authz.principal)))
    headers = bearer()
    secret = headers["Authorization"].split(".")[2]

    reply = office.guard(app).get("/invoices", headers=headers)

    assert secret not in reply.text + str(reply.headers) + json.dumps(office.records)
