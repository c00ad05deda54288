"""The outer line: whatever leaves an application passes it, wherever in the application it was made."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from authz_flask.departure import Departure
from authz_flask.passage import KEY, Passage, path_of, response_of
from authz_middleware.ledger import Ledger

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from authz_flask.guard import Guard


class OuterLine:
    """Stands in for `app.wsgi_app`. `inner` is the one it guards: Flask's, or middleware that was put around it."""

    __slots__ = ("_guard", "_inner")

    def __init__(self, guard: Guard, inner: WSGIApplication) -> None:
        self._guard = guard
        self._inner = inner

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request. Raises SettingsError while there are annotations that the settings cannot honour."""
        self._guard.check_annotations()
        passage = environ.get(KEY)
        if isinstance(passage, Passage) and passage.is_open:
            return self._inner(environ, start_response)  # the line further out sees the response
        document = self._guard.pep.document(environ["REQUEST_METHOD"], path_of(environ))
        if document is not None:
            return response_of(document)(environ, start_response)
        passage = environ[KEY] = Passage(Ledger(self._guard.pep))
        departure = Departure(passage, environ, start_response)
        try:
            body = self._inner(environ, departure.start)
        except Exception:
            refusal = departure.restore_refusal()
            if refusal is None:
                raise
            return (refusal,)
        except BaseException:
            passage.is_open = False
            raise
        return departure.carry(body)
