"""What real servers serve in these tests: the event receiver, mounted beside an application.

`uvicorn tests.revocation.feeds.site:asgi` and `gunicorn tests.revocation.feeds.site:wsgi`. The folder is named by
AUTHZ_TEST_FOLDER: the keys of the transmitter are in it, and the store.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

from flask import Flask
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from authz_middleware.identity.keys.key_set import FileKeys
from authz_middleware.revocation.feeds.event_receiver import EventReceiver
from authz_middleware.revocation.feeds.mounting import ASGIEvents, WSGIEvents
from authz_middleware.revocation.feeds.transmitter import Transmitter
from authz_middleware.revocation.sqlite import SqliteStore
from authz_middleware.settings.revocation_feeds import KeySource, TransmitterSettings
from tests.support.security_events import AUDIENCE, TOKEN_ISSUER, TRANSMITTER

FOLDER: Final = Path(os.environ["AUTHZ_TEST_FOLDER"])

store = SqliteStore(FOLDER / "revocations.db")
store.start()
keys = KeySource(("RS256",), jwks_file=FOLDER / "jwks.json")
settings = TransmitterSettings(TRANSMITTER.url, (AUDIENCE,), (TOKEN_ISSUER,), keys)
receiver = EventReceiver([Transmitter(settings, FileKeys(FOLDER / "jwks.json", ("RS256",), name="test"))], store)
receiver.start()


async def hello(request: Request) -> PlainTextResponse:
    """The application itself."""
    return PlainTextResponse("hello")


asgi = Starlette(routes=[Route("/", hello), Mount("/events", app=ASGIEvents(receiver))])
wsgi: Any = DispatcherMiddleware(Flask("site"), {"/events": WSGIEvents(receiver)})
