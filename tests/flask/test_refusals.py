"""A refusal is final: nothing in the application turns it, or the lack of a decision, into a success."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask, Response, abort, make_response, request
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix

from authz_middleware import AccessDenied, authz, requires
from tests.flask.office import Office, bearer, clerk, everyone, fail, is_refusal, replace

readers = requires("invoice:read")


def welcome(*_: object) -> tuple[str, int]:
    return "welcome all the same", 200


@pytest.mark.parametrize("error", [Exception, 401, 403, AccessDenied])
def test_an_error_handler_is_not_shown_a_refusal(office: Office, error: type[Exception] | int) -> None:
    app = office.app()
    app.register_error_handler(error, welcome)
    app.add_url_rule("/bare", view_func=office.view("bare"))
    client = office.guard(app)

    assert is_refusal(client.get("/bare"), 401)
    assert is_refusal(client.get("/bare", headers=bearer()), 403)
    assert office.ran == []


@pytest.mark.parametrize("error", [Exception, 500, None])
def test_an_error_while_deciding_is_a_refusal_that_nobody_handles(
    office: Office, error: type[Exception] | int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = office.app()
    if error is not None:
        app.register_error_handler(error, welcome)
    app.add_url_rule("/invoices", view_func=readers(office.view("read")))
    client = office.guard(app)
    guard = app.extensions["authz"]

    monkeypatch.setattr(guard.endpoints, "find", fail)
    guard._is_checked = True

    assert is_refusal(client.get("/invoices", headers=bearer()), 503)
    assert office.ran == []


def test_an_earlier_permit_of_a_request_does_not_cover_an_error_while_deciding(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = office.app()
    app.register_error_handler(Exception, welcome)
    app.add_url_rule("/invoices", view_func=readers(office.view("read")))
    client = office.guard(app)
    inner = app.wsgi_app

    def twice(environ: Any, start_response: Any) -> Any:
        inner(environ, unheard)
        monkeypatch.setattr(app.extensions["authz"].endpoints, "find", fail)
        return inner(environ, start_response)

    replace(app, wsgi_app=twice)

    assert is_refusal(client.get("/invoices", headers=bearer()), 503)
    assert office.ran == ["read"]


@pytest.mark.parametrize("status", [200, 201, 204, 302, 404, 500])
def test_a_hook_after_the_request_cannot_change_the_status_of_a_refusal(office: Office, status: int) -> None:
    app = office.app()
    app.after_request(lambda _: make_response("changed", status))
    app.add_url_rule("/bare", view_func=office.view("bare"))

    assert is_refusal(office.guard(app).get("/bare", headers=bearer()), 403)


def test_a_failing_hook_after_the_request_does_not_hide_a_refusal(office: Office) -> None:
    app = office.app()
    app.after_request(fail)
    app.register_error_handler(ZeroDivisionError, welcome)
    app.add_url_rule("/bare", view_func=office.view("bare"))
    client = office.guard(app)

    assert is_refusal(client.get("/bare", headers=bearer()), 403)
    app.config["PROPAGATE_EXCEPTIONS"] = True
    assert is_refusal(client.get("/bare", headers=bearer()), 403)


@pytest.mark.parametrize("propagate", [True, False])
def test_a_failing_teardown_does_not_hide_a_refusal(office: Office, propagate: bool) -> None:
    app = office.app()
    app.config["PROPAGATE_EXCEPTIONS"] = propagate
    app.teardown_request(fail)
    app.add_url_rule("/bare", view_func=office.view("bare"))

    assert is_refusal(office.guard(app).get("/bare", headers=bearer()), 403)


@pytest.mark.capability("C49")
@pytest.mark.parametrize(
    "answer",
    [
        lambda: "content",
        lambda: ("created", 201),
        lambda: ("teapot", 418),
        lambda: abort(401),
        lambda: abort(500),
        fail,
        lambda: Response(status=204),
    ],
)
def test_what_a_hook_before_the_request_answers_is_replaced(
    office: Office, answer: Callable[[], Any], caplog: pytest.LogCaptureFixture
) -> None:
    app = office.app()
    app.before_request(answer)
    app.add_url_rule("/invoices", view_func=readers(office.view("read")))

    assert is_refusal(office.guard(app).get("/invoices", headers=bearer()), 403)
    assert office.reasons == ["guard.undecided"]
    assert "without a decision" in caplog.text
    assert office.ran == []


def test_hooks_before_the_request_that_answer_nothing_are_left_alone(office: Office) -> None:
    app = office.app()
    app.before_request(lambda: office.ran.append("hook"))
    app.add_url_rule("/invoices", view_func=readers(office.view("read")))

    assert office.guard(app).get("/invoices", headers=bearer()).status_code == 200
    assert office.ran == ["hook", "read"]


@pytest.mark.parametrize("error", [None, Exception, AccessDenied, 500])
@pytest.mark.parametrize("propagate", [True, False])
def test_a_refused_check_is_the_refusal_and_not_an_error(
    office: Office, error: type[Exception] | int | None, propagate: bool, caplog: pytest.LogCaptureFixture
) -> None:
    app = office.app()
    app.config["PROPAGATE_EXCEPTIONS"] = propagate
    if error is not None:
        app.register_error_handler(error, welcome)

    @app.get("/invoices")
    @readers
    def approve() -> str:
        authz.check("invoice:approve")
        office.ran.append("approved")
        return "approved"

    client = office.guard(app)

    assert is_refusal(client.get("/invoices", headers=bearer()), 403)
    assert client.get("/invoices", headers=clerk()).data == b"approved"
    assert office.ran == ["approved"]
    assert "Traceback" not in caplog.text


def _swallow() -> str:
    try:
        authz.check("invoice:approve")
    except AccessDenied:
        return "swallowed"
    return "approved"


def _translate() -> str:
    try:
        authz.check("invoice:approve")
    except AccessDenied:
        raise ZeroDivisionError from None
    return "approved"


@pytest.mark.parametrize("view", [_swallow, _translate])
def test_a_refused_check_that_the_view_makes_something_else_of_is_restored(
    office: Office, view: Callable[[], str]
) -> None:
    app = office.app()
    app.register_error_handler(ZeroDivisionError, welcome)
    app.add_url_rule("/invoices", view_func=readers(view))
    client = office.guard(app)

    assert is_refusal(client.get("/invoices", headers=bearer()), 403)
    assert client.get("/invoices", headers=clerk()).data == b"approved"


def test_a_refused_check_in_a_hook_after_the_request_is_restored(office: Office) -> None:
    app = office.app()

    @app.after_request
    def check(response: Response) -> Response:
        from flask import g

        g.authz.check("invoice:approve")
        return response

    app.add_url_rule("/invoices", view_func=readers(office.view("read")))
    client = office.guard(app)

    assert is_refusal(client.get("/invoices", headers=bearer()), 403)
    assert client.get("/invoices", headers=clerk()).data == b"read"


def test_an_access_denied_that_no_check_has_raised_is_an_error_like_any_other(office: Office) -> None:
    app = office.app()

    @app.get("/invoices")
    @readers
    def raise_it() -> str:
        raise AccessDenied(authz.decision)

    client = office.guard(app)

    assert client.get("/invoices", headers=bearer()).status_code == 500
    app.config["PROPAGATE_EXCEPTIONS"] = True
    with pytest.raises(AccessDenied):
        client.get("/invoices", headers=bearer())


def test_a_view_that_fails_fails_as_without_this_library(office: Office) -> None:
    app = office.app()
    app.register_error_handler(ZeroDivisionError, lambda _: ("sorry", 500))
    app.add_url_rule("/invoices", "fail", readers(fail))

    reply = office.guard(app).get("/invoices", headers=bearer())

    assert (reply.status_code, reply.data) == (500, b"sorry")


def unheard(*_: object) -> Callable[[bytes], object]:
    """A `start_response` whose response nobody sends."""
    return lambda _: None


def answering(text: str, ran: list[str]) -> Callable[..., list[bytes]]:
    """A WSGI application that knows nothing of authorization."""

    def answer(environ: Any, start_response: Any) -> list[bytes]:
        ran.append(text)
        start_response("200 OK", [("Content-Type", "text/plain"), ("X-Mounted", text)])
        return [text.encode()]

    return answer


@pytest.mark.capability("C49", "C44")
@pytest.mark.parametrize("first", ["mount", "guard"])
def test_what_an_application_answers_that_is_mounted_beside_is_replaced(office: Office, first: str) -> None:
    app = office.app()
    app.add_url_rule("/invoices", view_func=readers(office.view("read")))

    def mount() -> None:
        replace(app, wsgi_app=DispatcherMiddleware(app.wsgi_app, {"/metrics": answering("metrics", office.ran)}))

    if first == "mount":
        mount()
    client = office.guard(app)
    if first == "guard":
        mount()

    reply = client.get("/metrics/secret", headers=bearer())
    assert is_refusal(reply, 403)
    assert "x-mounted" not in reply.headers
    assert client.get("/invoices", headers=bearer()).data == b"read"
    assert office.reasons == ["guard.undecided", "permitted"]


def test_a_guarded_application_inside_another_one_decides_for_both(office: Office) -> None:
    inner, outer = office.app("inner"), office.app("outer")
    inner.add_url_rule("/invoices", view_func=readers(office.view("inner")))
    inner.add_url_rule("/bare", view_func=office.view("bare"))
    outer.add_url_rule("/invoices", view_func=readers(office.view("outer")))
    office.guard(inner)
    client = office.guard(outer)
    replace(outer, wsgi_app=DispatcherMiddleware(outer.wsgi_app, {"/inner": inner}))

    assert client.get("/invoices", headers=bearer()).data == b"outer"
    assert client.get("/inner/invoices", headers=bearer()).data == b"inner"
    assert is_refusal(client.get("/inner/bare", headers=bearer()), 403)
    assert is_refusal(client.get("/inner/invoices"), 401)
    assert client.get("/inner/missing").status_code == 404
    assert office.ran == ["outer", "inner"]
    assert office.reasons == ["permitted", "permitted", "permission.missing", "credential.missing"]


def test_a_refused_request_runs_nothing_more_when_it_is_sent_on(office: Office) -> None:
    """Middleware that answers errors by a second request to a page of its own."""
    app = office.app()
    app.add_url_rule("/bare", view_func=office.view("bare"))
    app.add_url_rule("/sorry", view_func=everyone(office.view("sorry")))
    client = office.guard(app)
    inner = app.wsgi_app

    def retry(environ: Any, start_response: Any) -> Any:
        inner(environ, unheard)
        return inner({**environ, "PATH_INFO": "/sorry"}, start_response)

    replace(app, wsgi_app=retry)

    assert is_refusal(client.get("/bare", headers=bearer()), 403)
    assert office.ran == []


def test_a_router_that_has_answered_leaves_the_next_one_to_be_decided(office: Office) -> None:
    """A cascade: what one application does not know, the next one may."""
    first, second = office.app("first"), office.app("second")
    second.add_url_rule("/invoices", view_func=readers(office.view("read")))
    second.add_url_rule("/bare", view_func=office.view("bare"))
    office.guard(second)
    client = office.guard(first)
    inner = first.wsgi_app

    def cascade(environ: Any, start_response: Any) -> Any:
        inner(environ, unheard)
        return second(environ, start_response)

    replace(first, wsgi_app=cascade)

    assert client.get("/invoices", headers=bearer()).data == b"read"
    assert is_refusal(client.get("/bare", headers=bearer()), 403)


def test_middleware_that_builds_a_new_environ_is_refused_rather_than_trusted(office: Office) -> None:
    app = office.app()
    app.add_url_rule("/invoices", view_func=readers(office.view("read")))
    client = office.guard(app)
    inner = app.wsgi_app

    def forget(environ: Any, start_response: Any) -> Any:
        known = {name: value for name, value in environ.items() if not name.startswith("authz")}
        return inner(known, start_response)

    replace(app, wsgi_app=forget)

    # The line inside of that middleware sees what is decided, the one outside of it does not.
    assert is_refusal(client.get("/invoices", headers=bearer()), 403)


def test_a_proxy_fix_added_later_tells_the_gate_what_it_found(office: Office) -> None:
    app = office.app()
    app.add_url_rule("/invoices", view_func=readers(office.view("read")))
    client = office.guard(app)
    replace(app, wsgi_app=ProxyFix(app.wsgi_app))

    client.get("/invoices", headers={**bearer(), "X-Forwarded-For": "192.0.2.7", "X-Forwarded-Proto": "https"})

    (record,) = office.records
    assert (record["requested_by"], record["input"]["context"]["tls"]) == ("192.0.2.7", True)


@pytest.mark.capability("C44")
@pytest.mark.parametrize(
    "header", ["X-Forwarded-User", "X-User", "Remote-User", "X-Authorization", "Proxy-Authorization", "X-Original-URL"]
)
def test_headers_that_name_a_caller_or_a_path_count_for_nothing(office: Office, header: str) -> None:
    app = office.app()
    app.add_url_rule("/invoices", view_func=readers(office.view("read")))
    app.add_url_rule("/health", view_func=everyone(office.view("health")))

    reply = office.guard(app).get(
        "/invoices", headers={header: bearer()["Authorization"] if "uthor" in header else "/health"}
    )

    assert is_refusal(reply, 401)
    assert office.ran == []


@pytest.mark.parametrize("joined", ["{0},{0}", "{0}, {0}", "{0}, Basic Zm9vOmJhcg==", "", "Basic Zm9vOmJhcg=="])
def test_authorization_headers_that_a_server_has_joined_are_refused(office: Office, joined: str) -> None:
    app = office.app()
    app.add_url_rule("/invoices", view_func=readers(office.view("read")))
    value = joined.format(bearer()["Authorization"])

    assert is_refusal(office.guard(app).get("/invoices", headers={"Authorization": value}), 401)
    assert office.reasons == ["credential.invalid"]


def test_a_refusal_can_be_rendered_differently_and_stays_one(office: Office) -> None:
    from authz_flask import Authz
    from authz_middleware import Answer, Decision
    from tests.flask.office import settings

    def render(decision: Decision, answer: Answer) -> Answer:
        status = {"credential.missing": 200, "guard.undecided": 499}.get(decision.reason, answer.status)
        return Answer(status, (), b"no")

    app = office.app()
    app.add_url_rule("/bare", view_func=office.view("bare"))
    app.before_request(lambda: "by a hook" if "hook" in request.args else None)
    extension = Authz(app, settings(office.folder), render=render)
    client = app.test_client()

    assert is_refusal(client.get("/bare"), 401)
    assert (client.get("/bare", headers=bearer()).status_code, client.get("/bare", headers=bearer()).data) == (
        403,
        b"no",
    )
    assert client.get("/bare?hook=1").status == "499 Refused"
    extension.pep.close()


def test_a_dispatch_without_the_outer_line_is_decided_as_well(office: Office) -> None:
    app = office.app()
    app.add_url_rule("/invoices", view_func=readers(office.view("read")))
    office.guard(app)

    with app.test_request_context("/invoices"):
        assert app.full_dispatch_request().status_code == 401
    with app.test_request_context("/invoices", headers=bearer()):
        assert app.full_dispatch_request().data == b"read"


def test_an_application_without_the_extension_is_untouched(office: Office) -> None:
    office.guard(office.app("guarded"))
    other = Flask("other")
    other.add_url_rule("/", "index", lambda: "hello")

    assert other.test_client().get("/").data == b"hello"
    assert type(other) is Flask
