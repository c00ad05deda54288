"""A store's SQLite file while it is open: has anybody committed to it, and is it still the same one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from authz_middleware.revocation import database
from authz_middleware.revocation.store import StoreUnavailableError, Trouble

_WAIT_S: Final = 0.1
"""Who closes the file last has it to himself for a moment; an open one is never waited for."""

Identity = tuple[int, int]


class OpenFile:
    """A connection, and the files that it is a connection to."""

    def __init__(self, path: Path) -> None:
        """Raises StoreUnavailableError, OSError and sqlite3.Error."""
        self._path = str(path)
        real = path.resolve()  # after which SQLite names the other two
        self._log, self._shared = f"{real}-wal", f"{real}-shm"
        self.identity = _identify(self._path)
        self.connection = database.patiently(lambda: database.connect(path, wait=_WAIT_S), _WAIT_S)
        self.known_version: int | None = None
        """As of which version the file has been read."""
        try:
            self._shared_identity, self._log_identity = _identify(self._shared), _identify(self._log)
            self._expect(self._path, self.identity)
            self.connection.execute("PRAGMA busy_timeout = 0")
        except BaseException:
            self.connection.close()
            raise

    def version(self) -> int:
        """A number that is another one after any other connection, of whichever process, has committed.

        Raises StoreUnavailableError when one of the files has been replaced or removed: what others commit then never
        comes here. OSError and sqlite3.Error likewise.
        """
        self._expect(self._path, self.identity)
        self._expect(self._shared, self._shared_identity)
        version: int = self.connection.execute("PRAGMA data_version").fetchone()[0]
        if version != self.known_version:  # without a commit nobody has had a reason to make a new log
            self._expect(self._log, self._log_identity)
        return version

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()

    def _expect(self, name: str, identity: Identity) -> None:
        try:
            same = _identify(name) == identity
        except FileNotFoundError:
            if name == self._path:
                raise
            same = False
        if not same:
            raise StoreUnavailableError(Trouble.REPLACED, f"{name} is not the file that was opened")


def _identify(name: str) -> Identity:
    status = os.stat(name)  # noqa: PTH116 - a Path costs more than the call itself, on every request
    return status.st_dev, status.st_ino
