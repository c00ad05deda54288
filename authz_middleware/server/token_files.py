"""Bearer tokens of callers, in files that are read again when they change.

A file holds one token a line; while a token is being replaced, the old one and the new one. Nothing but digests is
kept, and a presented token is compared with every one of them, so that the time it takes tells nothing.
"""

from __future__ import annotations

import hmac
import re
import time
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Final

from authz_middleware.alarm import Alarm
from authz_middleware.errors import AuthzError, Problem, SettingsError
from authz_middleware.regular_file import read_at_most

MAX_TOKENS: Final = 16
MAX_BYTES: Final = 64 * 1024
GRACE_S: Final = 5.0
"""How long the last tokens hold when a file cannot be read: whoever writes it anew may be in the middle of it."""

# RFC 6750 section 2.1. 22 characters of base64url are 128 bits, which nobody guesses.
_TOKEN: Final = re.compile(rb"[A-Za-z0-9._~+/-]{22,4096}=*")
_BEARER: Final = b"bearer "

Digests = tuple[bytes, ...]


class _UnreadableError(AuthzError):
    """A token file that says nothing. The text names the kind of the mistake and holds nothing of the file."""


class TokenFiles:
    """The token files of some callers, by the callers' names. `monotonic` gives seconds.

    Raises SettingsError for files that cannot be used when the process starts.
    """

    def __init__(self, files: Mapping[str, Path], *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._files = dict(files)
        self._monotonic = monotonic
        self._missing_since: dict[str, float] = {}
        self._alarm = Alarm("the token file of caller %r cannot be used: it %s")
        self._digests: dict[str, Digests] = {}
        self._pairs: tuple[tuple[bytes, str], ...] = ()
        problems = []
        for name, file in self._files.items():
            try:
                self._digests[name] = _read(file)
            except _UnreadableError as error:
                problems.append(Problem(f"callers.tokens.{name}", f"names {file}, which {error}"))
        if problems:
            raise SettingsError(problems)
        self._publish()

    @property
    def files(self) -> tuple[Path, ...]:
        """The files to follow."""
        return tuple(self._files.values())

    def name_of(self, authorization: bytes) -> str | None:
        """Whose token an Authorization header carries; None where it is nobody's. Reads no file."""
        if authorization[: len(_BEARER)].lower() != _BEARER:
            return None
        presented = sha256(authorization[len(_BEARER) :]).digest()
        found = None
        for digest, name in self._pairs:
            if hmac.compare_digest(digest, presented):
                found = name
        return found

    def look(self, changed: bool) -> None:
        """Read the files again where they have changed. Never raises: without a usable file nobody is let in by it
        after a grace period."""
        if not changed and not self._missing_since:
            return
        for name, file in self._files.items():
            try:
                self._digests[name] = _read(file)
                self._missing_since.pop(name, None)
            except Exception as error:  # noqa: BLE001 - the thread that looks must outlive any fault
                what = str(error) if isinstance(error, _UnreadableError) else type(error).__name__
                self._alarm.ring(name, what, kind=name)
                since = self._missing_since.setdefault(name, self._monotonic())
                if self._monotonic() - since >= GRACE_S:
                    self._digests[name] = ()
        self._publish()

    def _publish(self) -> None:
        self._pairs = tuple((digest, name) for name, digests in self._digests.items() for digest in digests)


def _read(file: Path) -> Digests:
    try:
        data = read_at_most(file, MAX_BYTES + 1)
    except OSError as error:
        raise _UnreadableError(f"cannot be read: {error.strerror or 'unknown reason'}") from None
    tokens = data.split()
    if len(data) > MAX_BYTES or len(tokens) > MAX_TOKENS:
        raise _UnreadableError(f"holds more than {MAX_TOKENS} tokens")
    if not tokens:
        raise _UnreadableError("holds no token")
    if not all(map(_TOKEN.fullmatch, tokens)):
        raise _UnreadableError(
            "must hold one token a line, each of 22 to 4096 letters, digits, '-', '.', '_', '~', '+' or '/'"
        )
    return tuple(sha256(token).digest() for token in tokens)
