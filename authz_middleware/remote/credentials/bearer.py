"""The bearer token that is shown to the decision point, read again when its file has changed.

Projected service-account tokens are replaced under a running process; the file's status tells when.
"""

from __future__ import annotations

import re
from typing import Final

from authz_middleware.remote.failure import FailureKind, RemoteFailure
from authz_middleware.settings.secret import Secret, SecretUnavailableError

# RFC 6750 section 2.1: anything else, a line break above all, does not belong into a header.
_B64TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*", re.ASCII)

_Stamp = tuple[int, int, int]


class BearerCredential:
    """The `Authorization` header of a secret. What it holds never shows in its `repr`."""

    def __init__(self, secret: Secret) -> None:
        self._secret = secret
        self._known: tuple[_Stamp, str] | None = None

    def __repr__(self) -> str:
        return f"<BearerCredential {self._secret!r}>"

    def header(self) -> str | RemoteFailure:
        """`Bearer` and the token as it is now, or why there is none."""
        stamp = self._stamp()
        known = self._known
        if known is not None and stamp is not None and known[0] == stamp:
            return known[1]
        try:
            token = self._secret.reveal()
        except SecretUnavailableError:
            return RemoteFailure(FailureKind.CONFIG, "credential.unavailable")
        if not _B64TOKEN.fullmatch(token):
            return RemoteFailure(FailureKind.CONFIG, "credential.malformed")
        header = f"Bearer {token}"
        if stamp is not None:
            # The stamp is older than what was read: a change in between is read again next time.
            self._known = (stamp, header)
        return header

    def _stamp(self) -> _Stamp | None:
        if self._secret.file is None:
            return None
        try:
            status = self._secret.file.stat()
        except OSError:
            return None
        return (status.st_mtime_ns, status.st_size, status.st_ino)
