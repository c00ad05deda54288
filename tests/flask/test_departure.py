"""The outer line keeps to PEP 3333 with every application it may find inside, and loses none of them."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from wsgiref.util import FileWrapper
from wsgiref.validate import validator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from werkzeug.test import create_environ

from authz_middleware import requires
from tests.flask.office import Office, bearer, replace

PLAIN = [("Content-Type", "text/plain")]


class Server:
    """The server's side of one request: it keeps the first headers that a piece of body has to follow."""

    def __init__(self, app: Any, headers: dict[str, str] | None = None, method: str = "GET") -> None:
        self.status = ""
        self.headers: dict[str, str] = {}
        self.sent: list[bytes] = []
        self.is_committed = False
        self.starts = 0
        self.environ = create_environ("/invoices", headers=headers, method=method)
        self.environ["wsgi.file_wrapper"] = FileWrapper
        self.body = app(self.environ, self.start)

    def start(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], None]:
        assert self.starts == 0 or exc_info is not None, "a second start_response without exc_info"
        if exc_info is not None and self.is_committed:
            raise exc_info[1].with_traceback(exc_info[2])
        self.starts += 1
        self.status, self.headers = status, {name.lower(): value for name, value in headers}
        return self.write

    def write(self, data: bytes) -> None:
        assert self.status, "a body before its start"
        self.is_committed = self.is_committed or bool(data)
        self.sent.append(data)

    def finish(self) -> Server:
        """Send the whole body, and close it however that ends."""
        try:
            for chunk in self.body:
                self.write(chunk)
            assert self.status, "no start at all"
        finally:
            if hasattr(self.body, "close"):
                self.body.close()
        return self

    @property
    def content(self) -> bytes:
        return b"".join(self.sent)

    @property
    def is_refused(self) -> bool:
        refused = self.status == "403 Forbidden"
        if refused:
            assert self.headers["content-type"] == "application/problem+json"
            assert self.headers["content-length"] == str(len(self.content))
            assert b"secret" not in self.content
        return refused


class Body:
    """A body that tells when it is closed."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self.closed = 0
        self._chunks = iter(chunks)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return next(self._chunks)

    def close(self) -> None:
        self.closed += 1


def around(office: Office, answer: Callable[[Any, Any], Iterable[bytes]], *, decided: bool) -> Any:
    """A guarded application with middleware that answers by itself, after a view was permitted or without one."""
    app = office.app()
    app.add_url_rule("/invoices", view_func=requires("invoice:read")(office.view("read")))
    office.guard(app)
    inner = app.wsgi_app

    def middleware(environ: Any, start_response: Any) -> Iterable[bytes]:
        if decided:
            inner({**environ, "HTTP_AUTHORIZATION": bearer()["Authorization"]}, lambda *_: lambda _: None)
        return answer(environ, start_response)

    replace(app, wsgi_app=middleware)
    return app


def in_a_list(environ: Any, start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", PLAIN)
    return [b"sec", b"ret"]


def in_a_generator(environ: Any, start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", PLAIN)
    yield b""
    yield b"sec"
    yield b"ret"


def started_late(environ: Any, start_response: Any) -> Iterable[bytes]:
    def chunks() -> Iterator[bytes]:
        start_response("200 OK", PLAIN)
        yield from (b"sec", b"ret")

    return Body(chunks())


def by_write(environ: Any, start_response: Any) -> Iterable[bytes]:
    write = start_response("200 OK", PLAIN)
    write(b"sec")
    write(b"ret")
    return []


def by_write_and_after(environ: Any, start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", PLAIN)(b"sec")
    return [b"ret"]


def by_write_and_generator(environ: Any, start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", PLAIN)(b"sec")
    yield b"ret"


def restart(start_response: Any, status: str = "200 OK") -> Any:
    """Start anew because of an error."""
    error = LookupError("changed its mind")
    return start_response(status, PLAIN, (LookupError, error, None))


def in_a_second_thought(environ: Any, start_response: Any) -> Iterable[bytes]:
    start_response("404 Not Found", PLAIN)
    restart(start_response)
    return [b"secret"]


def in_a_late_second_thought(environ: Any, start_response: Any) -> Iterable[bytes]:
    start_response("404 Not Found", PLAIN)
    yield b""
    restart(start_response)
    yield b"secret"


def in_a_file(environ: Any, start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", PLAIN)
    wrapped: Iterable[bytes] = environ["wsgi.file_wrapper"](io.BytesIO(b"secret"))
    return wrapped


SHAPES = [
    in_a_list,
    in_a_generator,
    started_late,
    by_write,
    by_write_and_after,
    by_write_and_generator,
    in_a_second_thought,
    in_a_late_second_thought,
    in_a_file,
]


@pytest.mark.parametrize("answer", SHAPES)
def test_a_permitted_response_arrives_whole(office: Office, answer: Any) -> None:
    server = Server(around(office, answer, decided=True)).finish()

    assert (server.status, server.headers, server.content) == ("200 OK", {"content-type": "text/plain"}, b"secret")


@pytest.mark.capability("C49")
@pytest.mark.parametrize("answer", SHAPES)
def test_an_undecided_response_is_replaced_whole(office: Office, answer: Any) -> None:
    server = Server(around(office, answer, decided=False)).finish()

    assert server.is_refused
    assert server.starts == 1
    assert office.reasons == ["guard.undecided"]


@pytest.mark.parametrize("answer", [in_a_list, in_a_generator])
def test_a_replaced_answer_to_head_has_no_body_and_the_length_of_one(office: Office, answer: Any) -> None:
    server = Server(around(office, answer, decided=False), method="HEAD").finish()

    assert (server.status, server.content) == ("403 Forbidden", b"")
    assert int(server.headers["content-length"]) > 0


@pytest.mark.parametrize("decided", [True, False])
@pytest.mark.parametrize("answer", [in_a_list, in_a_generator, started_late, in_a_second_thought, in_a_file])
def test_the_validator_of_the_standard_library_finds_no_fault(office: Office, answer: Any, decided: bool) -> None:
    server = Server(validator(around(office, validator(answer), decided=decided)))
    server.finish()

    assert server.is_refused is not decided


@pytest.mark.parametrize("decided", [True, False])
@pytest.mark.parametrize("is_started", [True, False])
def test_a_body_is_closed_once_whether_or_not_it_leaves(office: Office, decided: bool, is_started: bool) -> None:
    body = Body([b"secret"])

    def answer(environ: Any, start_response: Any) -> Iterable[bytes]:
        if is_started:
            start_response("200 OK", PLAIN)
            return body
        return started_within(start_response)

    def started_within(start_response: Any) -> Iterable[bytes]:
        first = next(body)
        start_response("200 OK", PLAIN)
        body._chunks = iter([first])
        return body

    Server(around(office, answer, decided=decided)).finish()

    assert body.closed == 1


def test_a_body_is_closed_when_the_server_refuses_its_headers(office: Office) -> None:
    closed: list[bool] = []

    class ClosingList(list[bytes]):
        def close(self) -> None:
            closed.append(True)

    def answer(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [("X", "not\nallowed")])
        return ClosingList([b"secret"])

    def refuse(*_: Any) -> Any:
        raise ValueError("not allowed")

    with pytest.raises(ValueError, match="not allowed"):
        around(office, answer, decided=True)(create_environ("/invoices"), refuse)
    assert closed == [True]


def test_a_body_that_nobody_reads_is_closed_all_the_same(office: Office) -> None:
    closed = []

    def answer(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", PLAIN)
        body = Body([b"secret"])
        replace(body, close=lambda: closed.append(True))
        return body

    server = Server(around(office, lambda e, s: iter_of(answer(e, s)), decided=True))
    server.body.close()

    assert closed == [True]


def iter_of(body: Any) -> Any:
    """Hides that `start_response` was called before the body is asked for: the body stays watched."""
    from werkzeug.wsgi import ClosingIterator

    return ClosingIterator(body)


def test_a_file_wrapper_reaches_the_server_as_it_is(office: Office) -> None:
    server = Server(around(office, in_a_file, decided=True))

    assert isinstance(server.body, FileWrapper)
    server.finish()


def test_a_second_start_without_an_error_is_a_mistake_of_the_application(office: Office) -> None:
    def answer(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("404 Not Found", PLAIN)
        start_response("200 OK", PLAIN)
        return [b"secret"]

    with pytest.raises(AssertionError, match="twice"):
        Server(around(office, answer, decided=True))


def test_a_body_without_a_start_is_a_mistake_of_the_application(office: Office) -> None:
    server = Server(around(office, lambda *_: [b"secret"], decided=True))

    with pytest.raises(AssertionError, match="before start_response"):
        server.finish()
    assert server.sent == []


def test_an_error_after_the_first_byte_reaches_the_server(office: Office) -> None:
    def answer(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", PLAIN)
        yield b"first"
        restart(start_response, "500 Internal Server Error")
        yield b"never"

    server = Server(around(office, answer, decided=True))

    with pytest.raises(LookupError, match="changed its mind"):
        server.finish()
    assert server.content == b"first"


@pytest.mark.parametrize("status", ["200", "abc", "", "403x", "-40 4"])
def test_a_status_that_is_none_opens_nothing(office: Office, status: str) -> None:
    def answer(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response(status, PLAIN)
        return [b"secret"]

    assert Server(around(office, answer, decided=False)).finish().is_refused


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_what_is_no_error_passes_through(office: Office, error: type[BaseException]) -> None:
    def answer(environ: Any, start_response: Any) -> Iterable[bytes]:
        raise error

    with pytest.raises(error):
        Server(around(office, answer, decided=True))


def test_an_environ_that_is_used_again_is_a_new_request(office: Office) -> None:
    app = around(office, in_a_list, decided=False)
    first = Server(app).finish()
    environ = first.environ

    again: list[str] = []
    app(environ, lambda status, *_: again.append(status))

    assert again == ["403 Forbidden"]
    assert office.reasons == ["guard.undecided"] * 2


def played(steps: list[str], start_response: Any) -> Iterator[bytes]:
    """A body that does these things in this order."""
    write: Any = None
    for step in steps:
        match step.split():
            case ["start", status]:
                write = start_response(f"{status} Status", PLAIN)
            case ["restart", status]:
                write = restart(start_response, f"{status} Status")
            case ["write"] if write is not None:
                write(b"secret")
            case ["yield"]:
                yield b"secret"
            case ["empty"]:
                yield b""
            case ["raise"]:
                raise ZeroDivisionError


steps = st.lists(
    st.sampled_from(["start 200", "start 404", "restart 200", "restart 500", "write", "yield", "empty", "raise"]),
    max_size=6,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=steps, lazily=st.booleans(), head=st.booleans())
def test_nothing_undecided_leaves_in_any_order_of_events(
    office_of_all: tuple[Any, list[Any]], steps: list[str], lazily: bool, head: bool
) -> None:
    """Only a 404 may show a body of the application's, and only when it was not taken back before its first byte."""
    app, answers = office_of_all

    def answer(environ: Any, start_response: Any) -> Iterable[bytes]:
        made = played(steps, start_response)
        return made if lazily else list(made)

    answers[:] = [answer]
    server = None
    try:
        server = Server(app, method="HEAD" if head else "GET")
        server.finish()
    except (AssertionError, LookupError, ZeroDivisionError):
        pass
    if server is not None and b"secret" in server.content:
        assert server.status.startswith("404")
    if server is not None and server.status:
        assert server.status[:3] in ("403", "404")


@pytest.fixture
def office_of_all(office: Office) -> tuple[Any, list[Any]]:
    """An application whose middleware answers whatever stands in the list."""
    answers: list[Any] = []

    def answer(environ: Any, start_response: Any) -> Iterable[bytes]:
        body: Iterable[bytes] = answers[0](environ, start_response)
        return body

    return around(office, answer, decided=False), answers
