"""Keeps secrets out of records: what looks like one, by its name or by itself, is replaced by `***`.

Applications put what they like into claims and resource attributes, so this errs on the side of masking. Each
place is listed as a JSON pointer (RFC 6901), so that whoever replays a record knows what it cannot show.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final
from urllib.parse import unquote

MASK: Final = "***"
MAX_DEPTH: Final = 32
SHORTEST: Final = 5
"""No text this long or shorter can be told to be a secret by its looks."""

_SEPARATORS: Final = re.compile(r"[^a-z0-9]")
_SECRET_NAME: Final = re.compile(
    r"passw|passphrase|passcode|secret|bearer|setcookie|authorizationheader|connectionstring|recoverycode|signature"
    r"|(?:api|private|access|signing|encryption|decryption|ssh|session|master)key|accesskeyid|tokenvalue"
    r"|(?:token|authorization|cookie|credential|jwt|assertion|session|sessionid|otp|pwd|creds?)s?$"
    r"|^(?:pass|sid)$"
)
_SECRET_VALUE: Final = re.compile(
    r"ey[JA][A-Za-z0-9_-]{6,}={0,2}\.[A-Za-z0-9_-]*"  # a JOSE header: base64url of '{"' or '{ '
    r"|ew[o0][A-Za-z0-9_-]{6,}={0,2}\.[A-Za-z0-9_-]*"  # likewise of '{' and a line break
    r"|\bv[1-4]\.(?:public|local)\.[A-Za-z0-9_-]{16,}"  # PASETO
    r"|(?i:bearer|dpop)[\s:]+[A-Za-z0-9._~+/-]{6,}"
    r"|(?i:basic)\s+(?=[A-Za-z0-9+/]*[A-Z0-9=])[A-Za-z0-9+/]{8,}={0,2}"
    r"|(?i:token|passw(?:or)?d|passwd|secret|api_?key|signature|\bsig)=[^&\s]"
    r"|://[^/\s:@]*:[^/\s@]+@"  # a password in a URL
    r"|PRIVATE KEY-----"
    r"|(?:gh[opsur]_|github_pat_|glpat-|npm_|xox[abeoprs]-|sk-|sk_live_|rk_live_|hvs\.)[A-Za-z0-9_-]{16,}"
    r"|ya29\.[A-Za-z0-9_-]{16,}|AIza[A-Za-z0-9_-]{30,}"
    r"|(?:AKIA|ASIA)[0-9A-Z]{16}"
)

_SIGNS: Final = (
    "eyJ", "eyA", "ewo", "ew0", "=", "PRIVATE KEY", "gh", "glpat-", "npm_", "xox", "sk-", "sk_", "rk_", "hvs.",
    "AKIA", "ASIA", "AIza", "ya29.", ".public.", ".local.",
)  # fmt: skip


@lru_cache(maxsize=1024)
def is_secret_name(name: str) -> bool:
    """Whether a member of this name holds a secret, in whatever spelling: `apiKey`, `X-Api-Key`, `api_key`."""
    return _SECRET_NAME.search(_SEPARATORS.sub("", name.lower())) is not None


def is_secret_value(text: str) -> bool:
    """Whether a text holds what looks like a token, a credential or a private key."""
    if len(text) <= SHORTEST:
        return False
    if "%" in text:  # as it stands in a URL
        text = unquote(text)
    return _is_suspect(text) and _SECRET_VALUE.search(text) is not None


def pointer_token(name: str) -> str:
    """A member's name as one part of a JSON pointer."""
    return name.replace("~", "~0").replace("/", "~1") if "~" in name or "/" in name else name


def mask(value: Any, pointer: str = "") -> tuple[Any, tuple[str, ...]]:
    """A copy of a JSON value with `***` for each secret, and the JSON pointers to those, which start with `pointer`.

    A member's name that itself looks like a secret is replaced as well. What lies deeper than 32 levels is masked.
    """
    masked: list[str] = []
    return _masked(value, pointer, 0, masked), tuple(masked)


def _is_suspect(text: str) -> bool:
    """Whether `_SECRET_VALUE` can match at all: looking for a few words is an order of magnitude faster."""
    for sign in _SIGNS:
        if sign in text:
            return True
    if "@" in text and "://" in text:
        return True
    folded = text.lower()
    return "bearer" in folded or "dpop" in folded or "basic" in folded


def _masked(value: Any, pointer: str, depth: int, masked: list[str]) -> Any:
    if isinstance(value, str):
        if is_secret_value(value):
            masked.append(pointer)
            return MASK
        return value
    if not isinstance(value, Mapping | list | tuple):
        return value
    if depth >= MAX_DEPTH:
        masked.append(pointer)
        return MASK
    if isinstance(value, Mapping):
        return _masked_members(value, pointer, depth, masked)
    return [_masked(item, f"{pointer}/{index}", depth + 1, masked) for index, item in enumerate(value)]


def _masked_members(value: Mapping[Any, Any], pointer: str, depth: int, masked: list[str]) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for key, item in value.items():
        name = MASK if is_secret_value(str(key)) else str(key)
        where = f"{pointer}/{pointer_token(name)}"
        if name == MASK or (is_secret_name(name) and not isinstance(item, bool | None)):
            masked.append(where)
            members[name] = MASK
        else:
            members[name] = _masked(item, where, depth + 1, masked)
    return members
