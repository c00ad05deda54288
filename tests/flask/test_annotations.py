"""Where an annotation may stand in a Flask application, and how several of them add up."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
from flask import Blueprint, Flask
from flask.views import MethodView, View

from authz_middleware import requires
from tests.flask.office import Office, bearer, clerk, everyone, is_refusal, replace

readers = requires("invoice:read")
desk = requires("desk:work")
admins = requires("admin:see")


def keeping(view: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator as it should be."""

    @functools.wraps(view)
    def kept(**arguments: Any) -> Any:
        return view(**arguments)

    return kept


def losing(view: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator that forgets what it decorates."""

    def lost(**arguments: Any) -> Any:
        return view(**arguments)

    return lost


def test_the_order_of_annotation_and_route_does_not_matter(office: Office) -> None:
    app = office.app()
    app.get("/below")(readers(office.view("below")))
    readers(app.get("/above")(office.view("above")))
    client = office.guard(app)

    for path in ("/below", "/above"):
        assert is_refusal(client.get(path), 401)
        assert client.get(path, headers=bearer()).status_code == 200


@pytest.mark.parametrize(
    ("view", "status"),
    [
        (lambda view: keeping(readers(view)), 200),
        (lambda view: readers(keeping(view)), 200),
        (lambda view: functools.partial(readers(view), unused=1), 200),
        (lambda view: readers(functools.partial(view, unused=1)), 200),
        (lambda view: functools.partial(keeping(readers(view)), unused=1), 200),
        (lambda view: losing(readers(view)), 403),
        (lambda view: desk(keeping(readers(view))), 403),
        (lambda view: readers(keeping(desk(view))), 403),
        (lambda view: keeping(readers(everyone(view))), 200),
    ],
)
def test_an_annotation_is_found_through_decorators_that_keep_it(
    office: Office, view: Callable[[Any], Any], status: int
) -> None:
    app = office.app()
    app.add_url_rule("/", "invoices", view(office.view("invoices")))
    client = office.guard(app)

    assert client.get("/").status_code == 401
    assert client.get("/", headers=bearer()).status_code == status
    assert office.ran == (["invoices"] if status == 200 else [])


def test_a_decorator_above_the_route_changes_nothing_that_flask_would_call(office: Office) -> None:
    """Flask keeps the function below `@app.route`: what stands above is dropped, an annotation of it included."""
    app = office.app()
    readers(losing(app.get("/dropped")(office.view("dropped"))))
    readers(keeping(app.get("/kept")(office.view("kept"))))
    client = office.guard(app)

    assert is_refusal(client.get("/dropped", headers=bearer()), 403)
    assert is_refusal(client.get("/kept", headers=bearer()), 403)
    assert office.ran == []


def test_a_public_view_stays_public_only_while_nothing_else_is_asked(office: Office) -> None:
    app = office.app()
    blueprint = desk(Blueprint("desk", __name__))
    blueprint.add_url_rule("/inside", view_func=everyone(office.view("inside")))
    app.register_blueprint(blueprint)
    app.add_url_rule("/outside", view_func=everyone(office.view("outside")))
    client = office.guard(app)

    assert client.get("/outside").status_code == 200
    assert is_refusal(client.get("/inside"), 401)
    assert client.get("/inside", headers=clerk()).status_code == 200


def test_a_blueprint_asks_for_all_of_its_views_those_added_late_included(office: Office) -> None:
    app = office.app()
    blueprint = readers(Blueprint("invoices", __name__))
    blueprint.add_url_rule("/plain", "plain", office.view("plain"))
    blueprint.add_url_rule("/strict", "strict", desk(office.view("strict")))
    app.register_blueprint(blueprint, url_prefix="/invoices")
    app.register_blueprint(blueprint, url_prefix="/renamed", name="renamed")
    client = office.guard(app)

    for prefix in ("/invoices", "/renamed"):
        assert is_refusal(client.get(f"{prefix}/plain"), 401)
        assert client.get(f"{prefix}/plain", headers=bearer()).data == b"plain"
        assert is_refusal(client.get(f"{prefix}/strict", headers=bearer()), 403)
        assert client.get(f"{prefix}/strict", headers=clerk()).data == b"strict"


def test_a_nested_blueprint_is_asked_for_what_every_one_around_it_asks(office: Office) -> None:
    app = office.app()
    inner = desk(Blueprint("inner", __name__))
    inner.add_url_rule("/", "index", readers(office.view("index")))
    outer = admins(Blueprint("outer", __name__))
    outer.register_blueprint(inner, url_prefix="/inner")
    app.register_blueprint(outer, url_prefix="/outer")
    client = office.guard(app)

    for roles in ([], ["clerk"], ["admin"]):
        assert is_refusal(client.get("/outer/inner/", headers=bearer(roles=roles)), 403), roles
    assert client.get("/outer/inner/", headers=bearer(roles=["clerk", "admin"])).data == b"index"
    permitted = [record["path"] for record in office.records[-3:]]
    assert permitted == ["authz/admin/see", "authz/desk/work", "authz/invoice/read"]


def test_the_static_files_of_a_blueprint_are_asked_for_what_it_asks(office: Office) -> None:
    (office.folder / "files").mkdir()
    (office.folder / "files" / "a.txt").write_text("a")
    app = office.app()
    app.register_blueprint(
        desk(Blueprint("files", __name__, root_path=str(office.folder), static_folder="files", url_prefix="/f"))
    )
    client = office.guard(app)

    assert is_refusal(client.get("/f/files/a.txt", headers=bearer()), 403)
    with client.get("/f/files/a.txt", headers=clerk()) as reply:
        assert reply.data == b"a"


def test_a_dot_in_the_name_of_an_endpoint_is_no_blueprint(office: Office) -> None:
    app = office.app()
    app.add_url_rule("/", "v1.invoices.list", readers(office.view("list")))

    assert office.guard(app).get("/", headers=bearer()).data == b"list"


def test_an_application_can_be_annotated_as_a_whole(office: Office) -> None:
    app = desk(office.app())
    app.add_url_rule("/", view_func=readers(office.view("index")))
    client = office.guard(app)

    assert is_refusal(client.get("/", headers=bearer()), 403)
    assert client.get("/", headers=clerk()).data == b"index"


def counter(office: Office, **members: Any) -> type[MethodView]:
    """A view class with three methods, of which DELETE asks for more."""

    class Counter(MethodView):
        def get(self, **_: Any) -> str:
            office.ran.append("get")
            return "get"

        def post(self, **_: Any) -> str:
            office.ran.append("post")
            return "post"

        @admins
        def delete(self, **_: Any) -> str:
            office.ran.append("delete")
            return "delete"

    for name, value in members.items():
        setattr(Counter, name, value)
    return Counter


def test_a_method_of_a_class_is_asked_for_what_class_and_method_ask(office: Office) -> None:
    app = office.app()
    app.add_url_rule("/counter", view_func=readers(counter(office)).as_view("counter"))
    client = office.guard(app)

    assert [client.open("/counter", method=m).status_code for m in ("GET", "POST", "DELETE")] == [401] * 3
    assert [client.open("/counter", method=m, headers=bearer()).status_code for m in ("GET", "POST", "DELETE")] == [
        200,
        200,
        403,
    ]
    assert client.delete("/counter", headers=bearer(roles=["admin"])).status_code == 200
    assert office.ran == ["get", "post", "delete"]


def test_only_the_annotated_methods_of_a_bare_class_are_open(office: Office) -> None:
    app = office.app()
    app.add_url_rule("/counter", view_func=counter(office).as_view("counter"))
    client = office.guard(app)

    assert client.delete("/counter", headers=bearer(roles=["admin"])).status_code == 200
    assert client.get("/counter", headers=bearer(roles=["admin"])).status_code == 403
    assert office.ran == ["delete"]


@pytest.mark.parametrize("own", [False, True])
def test_head_asks_what_the_method_asks_that_flask_will_run_for_it(office: Office, own: bool) -> None:
    def head(self: object) -> str:
        office.ran.append("head")
        return ""

    members: dict[str, Any] = {"get": readers(vars(counter(office))["get"])}
    if own:
        members["head"] = desk(head)
    app = office.app()
    app.add_url_rule("/counter", view_func=counter(office, **members).as_view("counter"), methods=["GET", "HEAD"])
    client = office.guard(app)

    assert client.head("/counter", headers=bearer()).status_code == (403 if own else 200)
    assert client.head("/counter", headers=clerk()).status_code == 200
    assert office.ran == (["head"] if own else ["get", "get"])


def test_annotations_are_found_among_the_decorators_of_a_class(office: Office) -> None:
    app = office.app()
    view = counter(office, decorators=[readers, keeping, desk]).as_view("counter")
    app.add_url_rule("/counter", view_func=view)
    client = office.guard(app)

    assert client.get("/counter", headers=bearer()).status_code == 403
    assert client.get("/counter", headers=clerk()).status_code == 200


@pytest.mark.parametrize("wrap", [keeping, functools.partial, lambda view: keeping(functools.partial(view))])
def test_a_decorated_class_is_still_asked_for_what_it_asks(office: Office, wrap: Callable[[Any], Any]) -> None:
    app = office.app()
    app.add_url_rule("/counter", "counter", everyone(wrap(desk(counter(office)).as_view("counter"))))
    client = office.guard(app)

    assert client.get("/counter").status_code == 401
    assert client.get("/counter", headers=bearer()).status_code == 403
    assert client.get("/counter", headers=clerk()).status_code == 200


def test_a_class_that_is_swapped_below_a_view_brings_its_own_annotation(office: Office) -> None:
    app = office.app()
    view = readers(counter(office)).as_view("counter")
    app.add_url_rule("/counter", "counter", keeping(view))  # the decorator keeps a copy of `view_class`
    client = office.guard(app)
    assert client.get("/counter", headers=bearer()).status_code == 200

    replace(view, view_class=counter(office))
    assert client.get("/counter", headers=bearer()).status_code == 403
    replace(view, view_class=desk(counter(office)))
    assert client.get("/counter", headers=bearer()).status_code == 403
    assert client.get("/counter", headers=clerk()).status_code == 200


def test_a_method_that_is_swapped_in_a_class_brings_its_own_annotation(office: Office) -> None:
    app = office.app()
    cls = counter(office, get=readers(office.view("first")))
    app.add_url_rule("/counter", view_func=cls.as_view("counter"))
    client = office.guard(app)
    replace(cls, get=lambda self: "bare")

    assert client.get("/counter", headers=bearer()).status_code == 403


def test_a_plain_view_class_may_be_annotated_on_what_it_dispatches_to(office: Office) -> None:
    class Plain(View):
        methods = ("GET", "POST")

        @desk
        def dispatch_request(self) -> str:
            office.ran.append("plain")
            return "plain"

    app = office.app()
    app.add_url_rule("/plain", view_func=Plain.as_view("plain"))
    client = office.guard(app)

    assert client.post("/plain", headers=bearer()).status_code == 403
    assert client.post("/plain", headers=clerk()).status_code == 200


def test_a_subclass_inherits_what_its_class_asks(office: Office) -> None:
    app = office.app()
    narrower: Any = type("Narrower", (desk(counter(office)),), {"get": readers(lambda self: "narrower")})
    app.add_url_rule("/counter", view_func=narrower.as_view("counter"))
    client = office.guard(app)

    assert client.get("/counter", headers=bearer()).status_code == 403
    assert client.get("/counter", headers=clerk()).data == b"narrower"


@pytest.mark.parametrize(
    "name", ["admin.index", "admin.*", "*", f"{__name__}:ForeignAdmin.index", f"{__name__}:ForeignAdmin*"]
)
def test_the_table_of_names_opens_handlers_of_others(office: Office, name: str) -> None:
    app = office.app()
    blueprint = Blueprint("admin", __name__, url_prefix="/admin")
    blueprint.add_url_rule("/", "index", ForeignAdmin().index)
    app.register_blueprint(blueprint)
    client = office.guard(app, handlers={name: {"action": "desk:work"}, "admin.other": {"action": "invoice:read"}})

    assert is_refusal(client.get("/admin/"), 401)
    assert is_refusal(client.get("/admin/", headers=bearer()), 403)
    assert client.get("/admin/", headers=clerk()).data == b"admin"


class ForeignAdmin:
    """A view that somebody else wrote: a bound method of an object."""

    def index(self) -> str:
        return "admin"


def test_the_table_of_names_adds_to_what_a_view_asks_itself(office: Office) -> None:
    app = office.app()
    app.add_url_rule("/invoices", "invoices", readers(office.view("read")))
    client = office.guard(app, handlers={"invoices": {"action": "desk:work"}})

    assert is_refusal(client.get("/invoices", headers=bearer()), 403)
    assert client.get("/invoices", headers=clerk()).status_code == 200


def test_a_resource_is_named_by_the_arguments_that_the_view_gets(office: Office) -> None:
    app = office.app()
    view = requires("invoice:read", "invoice/{year}-{number}")(office.view("read"))
    app.add_url_rule("/<int:year>/<number>", view_func=view)
    app.add_url_rule("/first", "read", defaults={"year": 2026, "number": "1"})
    client = office.guard(app)

    for path in ("/2026/7", "/02026/0007", "/first"):
        assert client.get(path, headers=bearer()).status_code == 200
    assert [record["input"]["resource"] for record in office.records] == [
        {"type": "invoice", "id": id_} for id_ in ("2026-7", "2026-0007", "2026-1")
    ]


def test_an_argument_that_is_none_names_no_resource(office: Office) -> None:
    app = office.app()
    view = requires("invoice:read", "invoice/{number}")(office.view("read"))
    app.add_url_rule("/invoices", view_func=view, defaults={"number": None})

    assert is_refusal(office.guard(app).get("/invoices", headers=bearer()), 403)
    assert office.reasons == ["resource.invalid"]


@pytest.mark.parametrize("number", ["%0A7", "%00", "%E2%80%8B7", "%FF", "%ED%A0%80", "%E2%80%AE7"])
def test_an_id_that_nobody_can_read_is_refused(office: Office, number: str) -> None:
    app = office.app()
    view = requires("invoice:read", "invoice/{number}")(office.view("read"))
    app.add_url_rule("/invoices/<number>", view_func=view)

    assert is_refusal(office.guard(app).get(f"/invoices/{number}", headers=bearer()), 403)
    assert office.reasons == ["resource.invalid"]
    assert office.ran == []


def test_a_parameter_that_a_hook_takes_away_names_no_resource(office: Office) -> None:
    app = office.app()
    app.add_url_rule("/<lang>/desk", view_func=requires("desk:work", "desk/{lang}")(office.view("desk")))
    app.url_value_preprocessor(lambda _endpoint, values: values.pop("lang"))

    assert is_refusal(office.guard(app).get("/en/desk", headers=clerk()), 403)
    assert office.reasons == ["resource.invalid"]


def test_the_record_shows_route_method_client_and_trace(office: Office) -> None:
    app = office.app()
    app.add_url_rule("/invoices/<int:number>", view_func=readers(office.view("read")))
    trace = "0af7651916cd43dd8448eb211c80319c"

    office.guard(app).get(
        "/invoices/7",
        base_url="https://office.example",
        headers={**bearer(), "traceparent": f"00-{trace}-b7ad6b7169203331-01", "X-Forwarded-For": "203.0.113.9"},
        environ_overrides={"REMOTE_ADDR": "192.0.2.7"},
    )

    (record,) = office.records
    assert record["trace_id"] == trace
    assert record["requested_by"] == "192.0.2.7"
    context = record["input"]["context"]
    assert (context["route"], context["method"]) == ("/invoices/<int:number>", "GET")
    assert (context["client"], context["tls"], context["protocol"]) == ("192.0.2.7", True, "http")


def test_a_websocket_rule_is_recorded_as_one(office: Office) -> None:
    app = office.app()
    app.add_url_rule("/feed", view_func=readers(office.view("feed")), websocket=True)
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket"}
    client = office.guard(app)

    assert is_refusal(client.get("/feed", headers=upgrade, base_url="ws://office.example"), 401)
    assert office.records[0]["input"]["context"]["protocol"] == "websocket"


def test_flask_itself_runs_what_this_file_says_it_runs() -> None:
    """The facts about Flask that the expectations above rest on."""
    app = Flask(__name__)
    view = app.get("/")(lambda: "below")
    readers(losing(view))
    assert app.view_functions["<lambda>"] is view
    assert app.test_client().get("/").data == b"below"
