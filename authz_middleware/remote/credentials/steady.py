"""Reads a secret that somebody may be replacing at this moment."""

from __future__ import annotations

import time
from typing import Final

from authz_middleware.settings.secret import Secret, SecretUnavailableError

SETTLING_S: Final = 0.03
"""What was not known counts once it is read twice, so far apart: a file that is written in place is half there."""
ATTEMPTS: Final = 3


class SteadySecret:
    """A secret by reference. One that is being replaced is waited for, for a moment; never for long."""

    def __init__(self, secret: Secret) -> None:
        self._secret = secret
        self._known: str | None = None

    def __repr__(self) -> str:
        return f"<SteadySecret {self._secret.where}>"

    def read(self) -> str | None:
        """The secret as it is now; None where there is none, or none that keeps still. Blocks."""
        text = self._reveal()
        if self._secret.env is not None:
            return text
        for _ in range(ATTEMPTS):
            if text is not None and text == self._known:
                return text
            self._known = text
            time.sleep(SETTLING_S)
            text = self._reveal()
        return text if text == self._known else None

    def _reveal(self) -> str | None:
        try:
            return self._secret.reveal()
        except SecretUnavailableError:
            return None
