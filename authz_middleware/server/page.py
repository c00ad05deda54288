"""Pages of a search (AuthZEN 1.0, section 8.2).

A token says where the next page begins, for one request under one policy. It holds no secret and protects nothing:
whatever it says, only what is permitted is answered. So it needs no key, and any worker and replica can take it.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Final, Self

import msgspec

from authz_middleware.remote.messages.evaluation import MessageError

_DIGEST: Final = 16
_NUMBER: Final = 4
_LENGTH: Final = _DIGEST + 2 * _NUMBER
_canonical: Final = msgspec.json.Encoder(order="sorted").encode


class Page(msgspec.Struct, frozen=True):
    """What page is asked for. `binding` is the digest of everything that the next request must repeat."""

    start: int
    limit: int
    is_asked: bool
    binding: bytes

    @classmethod
    def read(cls, asked: Mapping[str, Any], kind: str, revision: str, *, most: int, lenient: bool = False) -> Self:
        """The page that a request asks for, of at most `most` results. Raises MessageError, also for a token that
        belongs to another request or to a policy that is no longer in force."""
        page = asked.get("page", {})
        if not isinstance(page, Mapping):
            raise MessageError("page", "must be an object")
        for name in page:
            if name not in ("token", "limit") and not lenient:
                raise MessageError(f"page.{name[:64]}", "is not a known member")
        limit = page.get("limit")
        if "limit" in page and (type(limit) is not int or limit < 0):
            raise MessageError("page.limit", "must be a whole number that is not negative")
        binding = _binding(asked, kind, revision)
        token = page.get("token", "")
        if token == "":  # as a first request may say
            return cls(0, most if limit is None else min(limit, most), "page" in asked, binding)
        start, first_limit = _numbers(token, binding)
        if limit is not None and min(limit, most) != first_limit:
            raise MessageError("page.limit", "must be that of the first request")
        return cls(start, min(first_limit, most), True, binding)

    def answer(self, results: list[dict[str, Any]], reached: int, *, is_last: bool) -> dict[str, Any]:
        """The response: the results, and where the next page begins."""
        if is_last and not self.is_asked:
            return {"results": results}
        token = "" if is_last else self._token(reached)
        return {"page": {"next_token": token, "count": len(results)}, "results": results}

    def _token(self, start: int) -> str:
        raw = self.binding + start.to_bytes(_NUMBER, "big") + self.limit.to_bytes(_NUMBER, "big")
        return base64.urlsafe_b64encode(raw).decode()


def _binding(asked: Mapping[str, Any], kind: str, revision: str) -> bytes:
    entities = {name: value for name, value in asked.items() if name != "page"}
    return sha256(_canonical([kind, revision, entities])).digest()[:_DIGEST]


def _numbers(token: object, binding: bytes) -> tuple[int, int]:
    if not isinstance(token, str):
        raise MessageError("page.token", "must be text")
    try:
        raw = base64.b64decode(token, altchars=b"-_", validate=True)
    except ValueError:
        raw = b""
    if len(raw) != _LENGTH or raw[:_DIGEST] != binding:
        raise MessageError("page.token", "is not of this request under the policy that is in force now; begin anew")
    return int.from_bytes(raw[_DIGEST:-_NUMBER], "big"), int.from_bytes(raw[-_NUMBER:], "big")
