"""A transport of one's own: what carries the questions to the decision point, in both colours."""

import asyncio
import http.client
from collections.abc import Mapping
from urllib.parse import urlsplit

from authz_middleware.remote.failure import FailureKind, RemoteFailure
from authz_middleware.remote.transport.protocol import RawAnswer


class OneCallEach:
    """A connection for each question."""

    def post(self, url: str, headers: Mapping[str, str], body: bytes, deadline: float) -> RawAnswer | RemoteFailure:
        """Put one question."""
        parts = urlsplit(url)
        connection = http.client.HTTPConnection(parts.netloc, timeout=deadline)
        try:
            connection.request("POST", parts.path, body, dict(headers))
            answer = connection.getresponse()
            lower = tuple((name.lower(), value) for name, value in answer.getheaders())
            return RawAnswer(answer.status, lower, answer.read(65_537))
        except TimeoutError:
            return RemoteFailure(FailureKind.DEADLINE, "read")
        except (OSError, http.client.HTTPException):
            return RemoteFailure(FailureKind.CLOSED, "closed")
        finally:
            connection.close()

    def close(self) -> None:
        """Nothing is kept."""


class OneThreadEach:
    """The same for event loops, each question in a thread."""

    async def post(
        self, url: str, headers: Mapping[str, str], body: bytes, deadline: float
    ) -> RawAnswer | RemoteFailure:
        """Put one question."""
        return await asyncio.to_thread(OneCallEach().post, url, headers, body, deadline)

    async def aclose(self) -> None:
        """Nothing is kept."""
