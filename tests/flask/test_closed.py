"""What nobody has opened is closed, and what the router answers by itself still leaves."""

from __future__ import annotations

import functools
from typing import Any

import pytest
from flask import Flask, Response, redirect, request
from werkzeug.exceptions import BadRequest
from werkzeug.routing import BaseConverter, Rule

from authz_middleware import requires
from tests.flask.office import Office, bearer, clerk, everyone, is_refusal, replace

readers = requires("invoice:read")


@pytest.mark.capability("C47", "C2")
def test_a_view_without_annotation_is_closed_to_strangers_and_to_callers(office: Office) -> None:
    app = office.app()
    app.add_url_rule("/open", view_func=office.view("open"))
    client = office.guard(app)

    stranger, caller = client.get("/open"), client.get("/open", headers=bearer())

    assert is_refusal(stranger, 401)
    assert stranger.headers["www-authenticate"] == "Bearer"
    assert is_refusal(caller, 403)
    assert office.reasons == ["credential.missing", "permission.missing"]
    assert office.ran == []


@pytest.mark.capability("C2")
def test_an_annotated_view_is_open_to_those_whom_a_rule_permits(office: Office) -> None:
    app = office.app()
    app.add_url_rule("/invoices", view_func=requires("invoice:approve")(office.view("approve")))
    client = office.guard(app)

    assert client.get("/invoices", headers=clerk()).data == b"approve"
    assert is_refusal(client.get("/invoices", headers=bearer()), 403)
    assert is_refusal(client.get("/invoices", headers={"Authorization": "Bearer forged"}), 401)
    assert office.ran == ["approve"]
    assert office.reasons == ["permitted", "input.missing", "credential.invalid"]


def test_a_public_view_asks_for_no_token(office: Office) -> None:
    app = office.app()
    app.add_url_rule("/health", view_func=everyone(office.view("health")))

    assert office.guard(app).get("/health").data == b"health"
    assert office.reasons == ["public"]


def test_static_files_are_closed_until_the_table_of_names_opens_them(office: Office) -> None:
    (office.folder / "static").mkdir()
    (office.folder / "static" / "logo.svg").write_text("<svg/>")
    closed, opened = office.app("closed"), office.app("opened")
    to_closed = office.guard(closed)
    to_opened = office.guard(opened, handlers={"static": {"action": "static:read"}})

    assert is_refusal(to_closed.get("/static/logo.svg", headers=bearer()), 403)
    assert is_refusal(to_opened.get("/static/logo.svg"), 401)
    with to_opened.get("/static/logo.svg", headers=bearer()) as reply:
        assert reply.data == b"<svg/>"


def test_a_view_that_comes_late_is_closed_and_may_be_opened(office: Office) -> None:
    app = office.app()
    client = office.guard(app)
    assert client.get("/late").status_code == 404

    for path, view in (("/late", office.view("late")), ("/annotated", readers(office.view("annotated")))):
        app.url_map.add(Rule(path, endpoint=path))
        app.view_functions[path] = view

    assert is_refusal(client.get("/late", headers=bearer()), 403)
    assert client.get("/annotated", headers=bearer()).data == b"annotated"
    assert office.ran == ["annotated"]


def test_a_view_that_is_swapped_in_brings_its_own_annotation(office: Office) -> None:
    app = office.app()
    app.add_url_rule("/desk", "desk", readers(office.view("first")))
    client = office.guard(app)
    assert client.get("/desk", headers=bearer()).data == b"first"

    app.view_functions["desk"] = office.view("bare")
    assert is_refusal(client.get("/desk", headers=bearer()), 403)

    app.view_functions["desk"] = requires("desk:work")(office.view("strict"))
    assert is_refusal(client.get("/desk", headers=bearer()), 403)
    assert client.get("/desk", headers=clerk()).data == b"strict"
    assert office.ran == ["first", "strict"]


def test_a_rule_without_a_view_is_closed(office: Office) -> None:
    app = office.app()
    app.url_map.add(Rule("/nothing", endpoint="nothing"))

    assert is_refusal(office.guard(app).get("/nothing", headers=bearer()), 403)


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "DELETE", "BREW", "get"])
def test_a_rule_that_answers_every_method_is_guarded_for_every_method(office: Office, method: str) -> None:
    app = office.app()
    app.url_map.add(Rule("/any", endpoint="any"))
    app.view_functions["any"] = requires("desk:work")(office.view("any"))
    client = office.guard(app)

    assert client.open("/any", method=method, headers=bearer()).status_code == 403
    assert office.ran == []
    assert client.open("/any", method=method, headers=clerk()).status_code == 200


def test_methods_that_a_client_makes_up_are_not_remembered_without_end(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = office.app()
    app.url_map.add(Rule("/any", endpoint="any"))
    app.view_functions["any"] = readers(office.view("any"))
    client = office.guard(app)
    monkeypatch.setattr("authz_flask.endpoint.MAX_REMEMBERED", 5)

    for number in range(10):
        assert client.open("/any", method=f"BREW{number}", headers=bearer()).status_code == 200

    assert len(app.extensions["authz"].endpoints._known) <= 5


def test_head_is_decided_like_any_method_and_answered_without_a_body(office: Office) -> None:
    app = office.app()
    app.add_url_rule("/invoices", view_func=readers(office.view("read")))
    client = office.guard(app)

    refused, permitted = client.head("/invoices"), client.head("/invoices", headers=bearer())

    assert (refused.status_code, refused.data) == (401, b"")
    assert refused.headers["content-type"] == "application/problem+json"
    assert (permitted.status_code, permitted.data, permitted.headers["content-length"]) == (200, b"", "4")
    assert office.ran == ["read"]


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/missing", 404), ("POST", "/invoices", 405)])
def test_what_the_router_refuses_by_itself_leaves_without_a_decision(
    office: Office, method: str, path: str, status: int
) -> None:
    app = office.app()
    app.add_url_rule("/invoices", view_func=office.view("read"))

    assert office.guard(app).open(path, method=method).status_code == status
    assert office.records == []


@pytest.mark.parametrize(
    ("path", "location"),
    [
        ("/desks", "/desks/"),  # strict_slashes
        ("/pages//2", "/pages/2"),  # merge_slashes
        ("/pages/1", "/pages/"),  # defaults
        ("/old/7", "/pages/7"),  # redirect_to
        ("/alias", "/desks/"),
    ],
)
def test_the_routers_redirects_leave_without_a_decision(office: Office, path: str, location: str) -> None:
    app = office.app()
    app.add_url_rule("/desks/", "desks", office.view("desks"))
    app.add_url_rule("/alias", "desks", alias=True)
    app.add_url_rule("/pages/", "pages", office.view("pages"), defaults={"page": 1})
    app.add_url_rule("/pages/<int:page>", "pages")
    app.add_url_rule("/old/<int:page>", "old", redirect_to="/pages/<page>")

    reply = office.guard(app).get(path, base_url="http://office.example")

    assert reply.status_code in (301, 308)
    assert reply.headers["location"].removeprefix("http://office.example") == location
    assert office.ran == []
    assert office.records == []


def test_a_page_instead_of_404_is_content_that_nobody_has_opened(office: Office) -> None:
    app = office.app()
    app.register_error_handler(404, lambda _: ("the single page of an application", 200))

    assert is_refusal(office.guard(app).get("/anything"))
    assert office.reasons == ["guard.undecided"]


def test_a_404_may_have_a_page_of_its_own(office: Office) -> None:
    app = office.app()
    app.register_error_handler(404, lambda _: ("not here", 404))

    assert office.guard(app).get("/anything").data == b"not here"


class Impatient(BaseConverter):
    """A path parameter that answers requests instead of matching them."""

    def to_python(self, value: str) -> str:
        if value == "bad":
            raise BadRequest
        response = Response("answered while matching", 200)
        raise BadRequest(response=response)


def test_a_router_that_refuses_may_and_one_that_answers_may_not(office: Office) -> None:
    app = office.app()
    app.url_map.converters["impatient"] = Impatient
    app.add_url_rule("/<impatient:word>", view_func=office.view("word"))
    client = office.guard(app)

    assert client.get("/bad").status_code == 400
    assert is_refusal(client.get("/good"))


def test_automatic_options_leave_without_a_decision(office: Office) -> None:
    app = office.app()
    app.add_url_rule("/invoices", view_func=office.view("read"), methods=["GET", "PUT"])

    reply = office.guard(app).options("/invoices")

    assert (reply.status_code, reply.data) == (200, b"")
    assert set(reply.headers["allow"].split(", ")) == {"GET", "HEAD", "OPTIONS", "PUT"}
    assert office.records == []


def test_options_of_a_view_that_answers_them_itself_are_decided(office: Office) -> None:
    app = office.app()
    app.add_url_rule("/invoices", view_func=office.view("options"), methods=["OPTIONS"])

    assert is_refusal(office.guard(app).options("/invoices"), 401)
    assert office.ran == []


PREFLIGHT = {"Origin": "https://shop.example", "Access-Control-Request-Method": "PUT"}


def _allow_origin(response: Response) -> Response:
    response.headers["Access-Control-Allow-Origin"] = "https://shop.example"
    return response


def test_a_preflight_gets_the_headers_that_the_application_adds_to_automatic_options(office: Office) -> None:
    app = office.app()
    app.add_url_rule("/invoices", view_func=office.view("read"), methods=["PUT"])
    app.after_request(_allow_origin)
    client = office.guard(app)

    reply = client.options("/invoices", headers=PREFLIGHT)

    assert reply.status_code == 200
    assert reply.headers["access-control-allow-origin"] == "https://shop.example"
    refused = client.put("/invoices", headers={"Origin": "https://shop.example"})
    assert is_refusal(refused, 401)
    assert refused.headers["access-control-allow-origin"] == "https://shop.example"


@pytest.mark.parametrize("status", [200, 204])
def test_a_preflight_answered_before_routing_leaves_without_a_body(office: Office, status: int) -> None:
    app = office.app()
    app.add_url_rule("/invoices", view_func=office.view("read"), methods=["PUT"])
    app.before_request(lambda: _allow_origin(Response("secrets", status, headers={"X-Secret": "1"})))
    client = office.guard(app)

    reply = client.options("/invoices", headers=PREFLIGHT)

    assert (reply.status_code, reply.data) == (status, b"")
    assert reply.headers["access-control-allow-origin"] == "https://shop.example"
    assert "x-secret" not in reply.headers
    assert ("content-length" in reply.headers) is (status == 200)
    assert is_refusal(client.options("/invoices"))  # without the headers of a preflight it is an answer like any other


def test_a_redirect_by_a_hook_is_not_the_routers(office: Office) -> None:
    app = office.app()
    app.add_url_rule("/invoices", view_func=readers(office.view("read")))
    app.before_request(lambda: redirect("/login"))

    assert is_refusal(office.guard(app).get("/invoices", headers=bearer()))


def _subclass(**members: Any) -> type[Flask]:
    return type("OwnFlask", (Flask,), members)


@pytest.mark.capability("C44")
def test_a_subclass_with_its_own_dispatch_is_guarded_and_keeps_working(office: Office) -> None:
    def dispatch_request(self: Flask) -> Any:
        office.ran.append("own dispatch")
        return Flask.dispatch_request(self)

    app = _subclass(dispatch_request=dispatch_request)("office", root_path=str(office.folder))
    app.add_url_rule("/invoices", view_func=readers(office.view("read")))
    client = office.guard(app)

    assert is_refusal(client.get("/invoices"), 401)
    assert office.ran == []
    assert client.get("/invoices", headers=bearer()).data == b"read"
    assert office.ran == ["own dispatch", "read"]
    assert type(app).__name__ == "OwnFlask"


@pytest.mark.parametrize("path", ["/missing", "/invoices"])
def test_no_dispatch_of_a_subclass_runs_for_what_the_router_answers(office: Office, path: str) -> None:
    app = _subclass(dispatch_request=lambda self: office.ran.append("own dispatch"))("o", root_path=str(office.folder))
    app.add_url_rule("/invoices", view_func=office.view("read"))

    office.guard(app).options(path)

    assert office.ran == []


@pytest.mark.capability("C44")
def test_a_dispatch_put_there_later_by_another_extension_is_guarded(office: Office) -> None:
    """As debugging toolbars do: they replace `app.dispatch_request` and call the view themselves."""
    app = office.app()
    app.add_url_rule("/invoices", view_func=readers(office.view("read")))
    client = office.guard(app)
    replace(app, dispatch_request=app.view_functions["read"])

    assert is_refusal(client.get("/invoices"), 401)
    assert office.ran == []
    assert client.get("/invoices", headers=bearer()).data == b"read"


def test_a_dispatch_that_wraps_the_one_before_is_decided_once(office: Office) -> None:
    app = office.app()
    app.add_url_rule("/invoices", view_func=readers(office.view("read")))
    client = office.guard(app)
    replace(app, dispatch_request=functools.partial(lambda before: before(), app.dispatch_request))

    assert client.get("/invoices", headers=bearer()).data == b"read"
    assert office.reasons == ["permitted"]
    del app.dispatch_request
    assert client.get("/invoices", headers=bearer()).data == b"read"
    assert is_refusal(client.get("/invoices"), 401)


@pytest.mark.parametrize("changed", ["endpoint", "arguments"])
def test_a_view_that_sends_its_request_on_to_another_one_is_decided_anew(office: Office, changed: str) -> None:
    app = office.app()
    app.add_url_rule("/desk", "desk", requires("desk:work")(office.view("desk")))

    @app.get("/invoices/<invoice_id>")
    @requires("invoice:read", "invoice/{invoice_id}")
    def forward(invoice_id: str) -> Any:
        office.ran.append(invoice_id)
        if invoice_id == "2":
            return "second"
        if changed == "endpoint":
            request.url_rule = next(app.url_map.iter_rules("desk"))
            request.view_args = {}
        else:
            request.view_args = {"invoice_id": "2"}
        return app.dispatch_request()

    reply = office.guard(app).get("/invoices/1", headers=bearer())

    if changed == "endpoint":
        assert is_refusal(reply)
        assert office.ran == ["1"]
        assert office.reasons == ["permitted", "input.missing"]
    else:
        assert reply.data == b"second"
        assert [record["input"]["resource"]["id"] for record in office.records] == ["1", "2"]
